//! One run: plan, shards, manifest; killed at any time and started again.

pub(crate) mod changed_options;
pub(crate) mod changed_plan;
pub(crate) mod hashing_reader;
pub(crate) mod keys;
pub mod options;
pub(crate) mod output;
pub mod path_hash;
pub mod path_names;
pub mod plan;
pub mod preview;
pub(crate) mod refused;
pub mod resume;
pub(crate) mod saved_plan;
pub mod shards;

pub use options::{MAX_REJECT_RATE, MAX_TOKENS, Options, ROWS_PER_SHARD, ReportText, SIZE, TokenizerChoice};
pub use shards::{Progress, Summary, run};
