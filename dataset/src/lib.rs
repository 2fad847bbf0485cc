//! The shard format of `mrm`: what a record is, and how it is written, read, verified, split and loaded.
//!
//! | room | what is in it |
//! | --- | --- |
//! | [`format`](mod@format) | one record, one shard (a Parquet file), the manifest `dataset.json`, the cards beside it |
//! | [`store`] | a local folder or an object store; atomic writes, locks, retries |
//! | [`Dataset`] | an opened dataset: rows, columns, polars tables |
//! | [`split`] | subsets and nested label ratios, each with a certificate of what it promises |
//! | [`loader`], [`transform`] | batches for a trainer; crop geometry, resampling, normalization |
//! | [`export`] | the records in formats of other tools |
//! | [`commands`] | what the binary shows, and what all three binaries share: options, progress |
//!
//! It knows neither DICOM nor torch.

/// `println!` for the binaries that ignores write errors (a closed pipe, a full disk), so that the work continues.
#[macro_export]
macro_rules! cli_println {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

/// `eprintln!` for the binaries that ignores write errors.
#[macro_export]
macro_rules! cli_eprintln {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

pub mod commands;
mod dataset;
pub mod error;
pub mod export;
pub mod format;
pub mod loader;
mod metadata;
pub mod name_suggestion;
pub mod random;
mod record_hint;
pub mod split;
pub mod store;
pub mod transform;

pub use dataset::Dataset;
pub use error::{Error, Result};
pub use format::checksums::CHECKSUMS_KEY;
pub use loader::batch::{Batch, Floats, PlacedBox};
pub use loader::builder::{Loader, LoaderState};
pub use split::stored::Split;
pub use split::types::Subset;
pub use store::storage::Storage;
