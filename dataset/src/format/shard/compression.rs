//! Compression of the image pages.

use parquet::basic::{Compression, ZstdLevel};
use serde::{Deserialize, Serialize};

/// Compression of the image pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum ImageCompression {
    /// None: an image is read by one `pread`.
    #[default]
    None,
    /// LZ4, as Parquet's `LZ4_RAW`.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl From<ImageCompression> for Compression {
    fn from(compression: ImageCompression) -> Self {
        match compression {
            ImageCompression::None => Self::UNCOMPRESSED,
            ImageCompression::Lz4 => Self::LZ4_RAW,
            ImageCompression::Zstd => Self::ZSTD(ZstdLevel::default()),
        }
    }
}

impl ImageCompression {
    /// Name in the manifest and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}
