//! Joins: labels, boxes, masks, texts or subsets of a table about the records of a dataset that exists. They are written beside
//! the shards, which stay as they are.
//!
//! [`keys`](self) finds the records of each row, `values` makes the value of each record, one file for each kind; `run` puts both
//! together and writes the join.

mod boxes;
mod geometry;
mod keys;
mod labels;
mod masks;
pub mod options;
mod problems;
pub mod report;
mod run;
mod table;
mod texts;
mod tokens;
mod values;

pub use keys::KeyColumn;
pub use options::{JoinOptions, JoinSource};
pub use report::JoinReport;
pub use run::join;
