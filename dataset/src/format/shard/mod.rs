//! One Parquet file of a dataset: its writer and its reader.
//!
//! The column `image` has one image in each data page. The page index gives the position of each page, so that a reader
//! reads any single image. The other columns are small and in ordinary pages; texts are compressed with zstd. The footer
//! has checksums of everything (`format/checksums.rs`).

mod checks;
mod compression;
mod fetched;
mod image_page;
mod older_columns;
pub(in crate::format) mod page_header;
mod reader;
mod writer;

pub use compression::ImageCompression;
pub(crate) use fetched::Fetched;
pub use reader::Shard;
pub(crate) use reader::{byte_range, rows_text};
pub use writer::ShardWriter;
