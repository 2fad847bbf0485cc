//! The format: one record, one shard (a Parquet file), the manifest and the cards beside it.

pub mod byte_column;
pub mod card;
pub(crate) mod checksums;
pub mod croissant;
#[cfg(feature = "export")]
pub mod csv_table;
pub mod grade;
pub mod image_codec;
pub mod label;
pub mod manifest;
pub mod mask_column;
pub mod pixel_sums;
pub mod record;
pub(crate) mod record_batch;
pub mod record_checks;
pub(crate) mod record_rows;
pub mod schema;
pub mod shard;
pub(crate) mod snappy;
pub mod table;
pub mod view;
