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

mod batch;
pub mod bench;
pub mod card;
pub mod certificate;
mod checksums;
pub mod cli;
pub mod croissant;
pub mod csv_table;
mod dataset;
pub mod draw;
pub mod error;
pub mod export;
pub mod files;
pub mod geometry;
pub mod image;
pub mod inspect;
pub mod loader;
pub mod manifest;
pub mod masking;
mod metadata;
pub mod meter;
pub mod montage;
pub mod nearest;
mod normalise;
pub mod published_lists;
pub mod random;
mod recent;
pub mod record;
mod record_batch;
pub mod record_checks;
mod record_hint;
mod refine;
pub mod reject_reasons;
pub mod resample;
mod retry;
pub mod roster;
mod samples;
pub mod shard;
pub mod split;
pub mod split_warnings;
pub mod storage;
mod stratify;
pub mod table;
pub mod transform;
pub mod verify;

pub use batch::{Batch, Floats, PlacedBox};
pub use checksums::CHECKSUMS_KEY;
pub use dataset::Dataset;
pub use error::{Error, Result};
pub use loader::{Loader, LoaderState};
pub use split::{Split, Subset};
pub use storage::Storage;
