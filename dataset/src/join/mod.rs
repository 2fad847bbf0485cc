//! Joins: labels, boxes, masks, texts or subsets of a table about records that are already stored. Each is a file
//! `joins/NAME.parquet` beside the shards, which stay as they are. `docs/format.md` specifies it.

pub(crate) mod checks;
pub mod facts;
mod of_dataset;
pub mod stored;
pub(crate) mod view;
pub mod writer;

pub use facts::{JoinCounts, JoinFacts, JoinKind, Unmatched};
pub use stored::{Join, join_path, known_joins};
