//! The shard format of `mrm`: what a record is, and how it is written, read, verified, split and loaded.
//!
//! | room | what is in it |
//! | --- | --- |
//! | [`record`] | one row and its Arrow schema |
//! | [`shard`] | one Parquet file: writer and reader |
//! | [`manifest`] | `dataset.json` |
//! | [`card`] | `README.md`, from which Hugging Face `datasets` knows the columns |
//! | [`croissant`] | `croissant.json`, the same for catalogues |
//! | [`storage`] | where a dataset lies: a folder, or a prefix of an object store |
//! | [`dataset`](Dataset) | an opened dataset: rows, columns, polars tables |
//! | [`split`], [`draw`] | subsets and nested label ratios, patient-safe and balanced |
//! | [`published_lists`], [`certificate`] | splits by lists of image names; what a split promises |
//! | [`loader`], [`transform`], [`geometry`], [`resample`], [`masking`] | batches for a trainer |
//! | [`export`] | the records in formats of other tools |
//! | [`verify`], [`inspect`], [`montage`], [`mod@bench`] | what the command line shows |
//! | [`reject_reasons`] | why inputs were left out, in a few lines |
//! | [`cli`], [`meter`], [`nearest`] | what all three programs share: options, progress, names that were meant |
//!
//! It knows neither DICOM nor torch.

/// Prints a line to standard output. A reader that has left, or a full device, is no reason to give up the work.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

/// Prints a line to the standard error; for its absence the same holds.
#[macro_export]
macro_rules! remark {
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
