//! The options of a run: what decides the bytes of a dataset, and how it is made.

use std::path::PathBuf;

use dataset::format::record::ImageEncoding;
use dataset::format::shard::ImageCompression;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::image::intensity::Tone;
use crate::image::pipeline::Fit;
use crate::report::tokenizer;

/// Default of [`Options::size`].
pub const SIZE: u32 = 512;

/// Default of [`Options::max_tokens`]: the recipe's.
pub const MAX_TOKENS: usize = 100;

/// Default of [`Options::rows_per_shard`]: a shard of raw pictures of the default size takes about 640 MB.
pub const ROWS_PER_SHARD: usize = 2048;

/// Default share of rejected inputs above which a run counts as spoilt.
pub const MAX_REJECT_RATE: f64 = 0.01;

/// Where token ids come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerChoice {
    /// No token ids.
    None,
    File(PathBuf),
    /// Trained on the reports at hand, to this vocabulary.
    Train(usize),
}

/// Which part of a report is tokenized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum ReportText {
    /// The whole report, as MRM's release does.
    #[default]
    #[serde(rename = "all")]
    All,
    #[serde(rename = "findings+impression")]
    #[value(name = "findings+impression")]
    FindingsImpression,
    #[serde(rename = "impression")]
    Impression,
}

impl ReportText {
    /// Name as it stands in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::FindingsImpression => "findings+impression",
            Self::Impression => "impression",
        }
    }
}

/// Everything that decides the bytes of a dataset, and how it is made.
#[derive(Clone, Debug)]
pub struct Options {
    pub size: u32,
    pub fit: Fit,
    pub encoding: ImageEncoding,
    pub compression: ImageCompression,
    pub tone: Tone,
    pub tokenizer: TokenizerChoice,
    pub max_tokens: usize,
    pub report_text: ReportText,
    pub rows_per_shard: usize,
    /// Tables and reports alone.
    pub no_images: bool,
    /// First records of the plan only.
    pub limit: Option<usize>,
    /// Threads; decides no byte.
    pub jobs: usize,
    /// Replaces what OUT holds.
    pub overwrite: bool,
    /// Takes inputs into a finished dataset that the system refused to read when it was made.
    pub retry_rejects: bool,
    /// Where a dataset for an object store grows (by default in the cache of the user); decides no byte.
    pub staging: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            size: SIZE,
            fit: Fit::default(),
            encoding: ImageEncoding::Raw,
            compression: ImageCompression::default(),
            tone: Tone::default(),
            tokenizer: TokenizerChoice::Train(tokenizer::VOCABULARY),
            max_tokens: MAX_TOKENS,
            report_text: ReportText::default(),
            rows_per_shard: ROWS_PER_SHARD,
            no_images: false,
            limit: None,
            jobs: std::thread::available_parallelism().map_or(1, usize::from),
            overwrite: false,
            retry_rejects: false,
            staging: None,
        }
    }
}

impl Options {
    /// What can be checked before anything is listed or written: the tokenizer's file.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn check(&self) -> Result<()> {
        match &self.tokenizer {
            TokenizerChoice::File(path) => tokenizer::load(path).map(drop),
            TokenizerChoice::None | TokenizerChoice::Train(_) => Ok(()),
        }
    }
}
