//! Datasets of chest radiographs with their reports: the shard format, splits, transforms and the loader.
//!
//! | module | contents |
//! | --- | --- |
//! | [`Dataset`] | an opened dataset: records, images, columns |
//! | [`split`] | subsets and nested label ratios, each with a certificate |
//! | [`join`] | labels, boxes, masks, texts and subsets of tables about stored records |
//! | [`loader`], [`transform`] | batches for a trainer; crop geometry, resampling, normalization |
//! | [`format`](mod@format) | one record, one shard (a Parquet file), the manifest `dataset.json`, the cards beside it |
//! | [`tokenizer`] | the tokenizer of reports |
//! | [`store`] | a local folder or an object store; atomic writes, locks, retries |
//! | `export` | the records in formats of other tools |
//! | [`commands`] | the commands of the binary, and what the command lines of all binaries share |
//!
//! | feature (all are on by default) | adds |
//! | --- | --- |
//! | `cloud` | object stores and `https://` in [`Storage::at`] |
//! | `polars` | `Dataset::metadata`, `frame` and `head`: columns as data frames |
//! | `export` | the module `export`, and tables as CSV |
//! | `cli` | the binary `dataset`, and `commands::{arguments, cli, progress}` |

#![warn(missing_docs)]

/// `println!` for the binaries that ignores write errors (a closed pipe, a full disk), so that the work continues.
#[cfg(feature = "cli")]
#[macro_export]
macro_rules! cli_println {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

/// `eprintln!` for the binaries that ignores write errors.
#[cfg(feature = "cli")]
#[macro_export]
macro_rules! cli_eprintln {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

mod columns;
pub mod commands;
mod dataset;
pub mod error;
#[cfg(feature = "export")]
pub mod export;
pub mod format;
mod images;
pub mod join;
pub mod loader;
#[cfg(feature = "polars")]
mod metadata;
pub mod name_suggestion;
pub mod progress;
pub mod random;
mod record_hint;
pub mod split;
pub mod store;
#[cfg(all(test, feature = "cloud"))]
mod tests;
pub mod tokenizer;
pub mod transform;

pub use dataset::Dataset;
pub use error::{Error, Result};
pub use format::checksums::CHECKSUMS_KEY;
pub use format::label::Label;
pub use join::stored::Join;
pub use loader::{Batch, HostBuffer, Loader, LoaderState, PlacedBox};
pub use split::ratio::Ratio;
pub use split::stored::Split;
pub use split::types::Subset;
pub use store::storage::Storage;
