//! One run: plan, shards, manifest. A run can be killed at any time and started again.

pub(crate) mod changed_options;
pub(crate) mod changed_plan;
pub mod check_input;
pub mod check_sums;
pub(crate) mod finish;
pub mod guards;
pub(crate) mod hashing_reader;
pub(crate) mod image_tables;
pub(crate) mod job;
pub(crate) mod keys;
pub(crate) mod left_alone;
pub(crate) mod note_store;
pub(crate) mod notes;
pub mod options;
pub(crate) mod output;
pub mod path_hash;
pub mod path_names;
pub mod plan;
pub(crate) mod prepared_plan;
pub mod preview;
pub(crate) mod record;
pub(crate) mod refused;
pub(crate) mod saved_plan;
pub(crate) mod shards;
pub mod source_digest;
pub mod start;
pub(crate) mod store_lock;
pub mod summary;
pub mod tasks;

pub use check_sums::CheckedFiles;
pub use dataset::progress::{Canceled, OnProgress, Progress};
pub use options::{MAX_REJECT_RATE, MAX_TOKENS, Options, PixelBits, ROWS_PER_SHARD, ReportText, SIZE, TokenizerChoice};
pub use source_digest::SourceDigest;
pub use start::run;
pub use summary::Summary;
