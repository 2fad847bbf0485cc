//! The options of a run.

use std::path::PathBuf;

use dataset::format::record::ImageEncoding;
use dataset::format::shard::ImageCompression;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::image::intensity::Intensity;
use crate::image::resize::Resize;
use crate::report::tokenizer;
use crate::run::check_sums::CheckSums;
use crate::run::source_digest::SourceDigest;

/// Default of [`Options::size`], in pixels.
pub const SIZE: u32 = 512;

/// Default of [`Options::max_tokens`]: that of MRM's recipe.
pub const MAX_TOKENS: usize = 100;

/// Default of [`Options::rows_per_shard`]: with raw images of the default size a shard has about 640 MB.
pub const ROWS_PER_SHARD: usize = 2048;

/// Default share of rejected inputs, 0..1, above which the program ends with exit code 3.
pub const MAX_REJECT_RATE: f64 = 0.01;

/// Where token ids come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerChoice {
    /// No token ids.
    None,
    /// A `tokenizer.json`.
    File(PathBuf),
    /// Train one on the reports of the plan, with this size of vocabulary.
    Train(usize),
}

/// The part of a report that is stored as its text and tokenized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum ReportText {
    /// The whole report, as in MRM's release.
    #[default]
    #[serde(rename = "all")]
    All,
    /// The sections FINDINGS and IMPRESSION, those that the report has.
    #[serde(rename = "findings+impression")]
    #[value(name = "findings+impression")]
    FindingsImpression,
    /// The section IMPRESSION.
    #[serde(rename = "impression")]
    Impression,
}

impl ReportText {
    /// Name in the manifest and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::FindingsImpression => "findings+impression",
            Self::Impression => "impression",
        }
    }
}

/// Bits of a stored pixel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PixelBits {
    /// Gray levels: the VOI transform is applied.
    #[default]
    #[value(name = "8")]
    Eight,
    /// Up to 16 bits of the modality transform; the window is stored beside them.
    #[value(name = "16")]
    Sixteen,
}

/// Options of a run. `jobs`, `overwrite`, `retry_rejects`, `staging` and `break_lock` do not change the bytes of a dataset, all
/// others do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Side of the stored images in pixels; [`Resize`] says which.
    pub size: u32,
    /// How images are brought to that size.
    pub resize: Resize,
    /// How the pixels of an image are stored: of 8 bits, see [`Options::stored_encoding`].
    pub encoding: ImageEncoding,
    /// Bits of a stored pixel.
    pub bits: PixelBits,
    /// Compression of the pages of the image column.
    pub compression: ImageCompression,
    /// From stored values to 8 bits; of 16 bits, which window is stored.
    pub intensity: Intensity,
    /// Where token ids come from.
    pub tokenizer: TokenizerChoice,
    /// Longest list of token ids, `[CLS]` included.
    pub max_tokens: usize,
    /// The part of a report that is stored and tokenized.
    pub report_text: ReportText,
    /// Algorithm of the digests of raw files.
    pub source_digest: SourceDigest,
    /// Lists of SHA-256 (`SHA256SUMS.txt`) that files are compared with while they are read; a file that differs is rejected.
    pub check_sums: Vec<PathBuf>,
    /// Reject images whose stored pixels all have one value.
    pub reject_constant: bool,
    /// Reject files whose header states text in the pixels (BurnedInAnnotation).
    pub reject_burned_in: bool,
    /// Records in a shard.
    pub rows_per_shard: usize,
    /// Ingest tables and reports without images.
    pub no_images: bool,
    /// Ingest only so many records, the first ones of the plan.
    pub limit: Option<usize>,
    /// Threads.
    pub jobs: usize,
    /// Replace the dataset in the output folder.
    pub overwrite: bool,
    /// Add the inputs to a finished dataset that the system refused to read before.
    pub retry_rejects: bool,
    /// Folder in which a dataset for an object store is prepared; by default `mrm/staging` in the user's cache.
    pub staging: Option<PathBuf>,
    /// Take over the lock that another run left in the object store of the output.
    pub break_lock: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            size: SIZE,
            resize: Resize::default(),
            encoding: ImageEncoding::Raw,
            bits: PixelBits::default(),
            compression: ImageCompression::default(),
            intensity: Intensity::default(),
            tokenizer: TokenizerChoice::Train(tokenizer::VOCABULARY),
            max_tokens: MAX_TOKENS,
            report_text: ReportText::default(),
            source_digest: SourceDigest::default(),
            check_sums: Vec::new(),
            reject_constant: false,
            reject_burned_in: false,
            rows_per_shard: ROWS_PER_SHARD,
            no_images: false,
            limit: None,
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            overwrite: false,
            retry_rejects: false,
            staging: None,
            break_lock: false,
        }
    }
}

impl Options {
    /// The encoding of the dataset's images.
    pub fn stored_encoding(&self) -> ImageEncoding {
        match self.bits {
            PixelBits::Eight => self.encoding,
            PixelBits::Sixteen => self.encoding.with_16_bits().unwrap_or(self.encoding),
        }
    }

    /// Checks what can be checked before the raw data is listed: options that exclude each other, the tokenizer's file and the
    /// lists of checksums.
    ///
    /// # Errors
    /// When they do, or one cannot be used.
    pub fn check(&self) -> Result<()> {
        if self.bits == PixelBits::Sixteen {
            let refused = |what: &str, remedy: &str| Err(Error::Options(format!("--bits 16 with {what}; {remedy}")));
            if self.encoding.with_16_bits().is_none() {
                return refused("--image-encoding jpeg, which has 8 bits", "take raw or png");
            }
            if self.intensity == Intensity::MimicCxrJpg {
                return refused("--intensity mimic-cxr-jpg, which is no window", "take voi or minmax");
            }
        }
        CheckSums::check(&self.check_sums)?;
        match &self.tokenizer {
            TokenizerChoice::File(path) => {
                tokenizer::load(path)?;
                Ok(())
            }
            TokenizerChoice::None | TokenizerChoice::Train(_) => Ok(()),
        }
    }
}
