//! The shard format of `mrm`: what a record is, and how it is written, read, verified, split and loaded.
//!
//! | room | what is in it |
//! | --- | --- |
//! | [`record`] | one row and its Arrow schema |
//! | [`shard`] | one Parquet file: writer and reader |
//! | [`manifest`] | `dataset.json` |
//! | [`dataset`](Dataset) | an opened directory: rows, columns, polars tables |
//! | [`split`], [`draw`], [`stratify`] | subsets and nested label ratios, patient-safe and balanced |
//! | [`published_lists`], [`certificate`] | splits by lists of image names; what a split promises |
//! | [`loader`], [`transform`], [`masking`] | batches for a trainer |
//! | [`verify`], [`inspect`], [`bench`] | what the command line shows |
//!
//! It knows neither DICOM nor torch.

pub mod bench;
pub mod certificate;
mod dataset;
pub mod draw;
pub mod error;
pub mod files;
pub mod image;
pub mod inspect;
pub mod loader;
pub mod manifest;
pub mod masking;
pub mod published_lists;
pub mod random;
pub mod record;
mod refine;
pub mod resample;
pub mod roster;
pub mod shard;
pub mod split;
pub mod stratify;
pub mod table;
pub mod transform;
pub mod verify;

pub use dataset::Dataset;
pub use error::{Error, Result};
pub use loader::{Batch, Loader, LoaderState};
pub use split::{Split, Subset};
