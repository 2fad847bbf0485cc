//! Settings that batches depend on.

use std::sync::Arc;

use crate::loader::buffers::HostBuffer;
use crate::loader::studies::StudyOptions;
use crate::transform::pipeline::Transform;

/// What happens when a record cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Its batch is an error that names shard and row; the next call gives the batch after it.
    #[default]
    Stop,
    /// The batch is given without it; [`Batch::skipped`](crate::Batch::skipped) has the error, [`Loader::skipped`](crate::Loader::skipped) the
    /// number of them.
    Skip,
}

/// Where a text of a sample is from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TextSource {
    /// The whole report.
    #[default]
    Report,
    /// The section of this name, in lower case, of the column `texts`: `findings`, `impression`, `indication`, … A record
    /// without it has no text.
    Section(String),
    /// So many sentences of the report, others in each epoch, in their order; all where it has fewer.
    Sentences(usize),
}

/// How texts become token rows.
#[derive(Clone, Debug)]
pub struct TextOptions {
    /// Tokens of a row: longer reports are cut, shorter ones padded.
    pub tokens: usize,
    /// Share of words to mask; 0: none.
    pub mask_ratio: f64,
}

/// Allocates memory for so many floats.
pub(crate) type Memory = Arc<dyn Fn(usize) -> Box<dyn HostBuffer> + Send + Sync>;

/// Settings of a loader, as [`LoaderBuilder`](crate::loader::LoaderBuilder) documents them.
#[derive(Clone)]
pub(crate) struct Settings {
    pub batch_size: usize,
    pub seed: u64,
    pub rank: usize,
    pub world_size: usize,
    pub transform: Transform,
    pub crops: Vec<(Transform, usize)>,
    /// None: a sample is one record.
    pub studies: Option<StudyOptions>,
    /// Empty: no texts.
    pub texts: Vec<(TextSource, TextOptions)>,
    pub shuffle: bool,
    pub drop_last: bool,
    pub masks: bool,
    pub on_error: OnError,
    pub memory: Option<Memory>,
}

impl Settings {
    /// Images of a sample.
    pub fn slots(&self) -> usize {
        self.studies.map_or(1, |studies| studies.slots())
    }
}
