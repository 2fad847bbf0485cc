//! Settings of a loader, and their checks.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use crate::dataset::Dataset;
use crate::error::{Error, Result, guarded};
use crate::loader::batch::HostBuffer;
use crate::loader::loader::Loader;
use crate::loader::masking::Continuations;
use crate::loader::plan::{BROKEN, Plan, repeats};
use crate::loader::random_access::RandomAccess;
use crate::loader::samples::{OptionalColumns, Samples};
use crate::loader::settings::{OnError, Settings, TextOptions};
use crate::loader::state::LoaderState;
use crate::random;
use crate::split::ratio::Ratio;
use crate::split::stored::Split;
use crate::split::types::Subset;
use crate::transform::pipeline::Transform;

/// Largest number of threads of a loader.
pub const MAX_THREADS: usize = 1024;

/// Largest number of batches that a loader makes ahead of its consumer.
pub const MAX_PREFETCH: usize = 65_536;

/// Settings of a [`Loader`]. Made by [`Loader::builder`].
#[derive(Clone)]
#[must_use]
pub struct LoaderBuilder {
    settings: Settings,
    rows: Option<Vec<u32>>,
    boxes: bool,
    threads: usize,
    prefetch: usize,
    state: LoaderState,
}

impl Loader {
    /// Settings of a loader over a dataset, with their defaults.
    pub fn builder(dataset: &Arc<Dataset>) -> LoaderBuilder {
        LoaderBuilder::new(dataset)
    }
}

impl LoaderBuilder {
    fn new(dataset: &Arc<Dataset>) -> Self {
        Self {
            settings: Settings {
                dataset: dataset.clone(),
                batch_size: 64,
                seed: 0,
                rank: 0,
                world_size: 1,
                transform: Transform::evaluate(224),
                text: None,
                shuffle: true,
                drop_last: false,
                masks: false,
                on_error: OnError::default(),
                memory: None,
            },
            rows: None,
            boxes: false,
            threads: 0,
            prefetch: 0,
            state: LoaderState::default(),
        }
    }

    /// Loads one subset of a split.
    pub fn subset(self, split: &Split, subset: Subset) -> Self {
        self.rows(split.rows(subset, None))
    }

    /// Loads those records of a split's training subset whose labels may be seen at a ratio: a [`Ratio`], or a number in
    /// percent.
    ///
    /// # Errors
    /// When the split has no such ratio.
    pub fn ratio<R: TryInto<Ratio>>(self, split: &Split, ratio: R) -> Result<Self>
    where
        Error: From<R::Error>,
    {
        let ratio = ratio.try_into()?;
        split.check_ratio(ratio)?;
        Ok(self.rows(split.rows(Subset::Train, Some(ratio))))
    }

    /// Rows to load, by their numbers in the dataset; a row may occur several times. Default: all.
    pub fn rows(mut self, rows: Vec<u32>) -> Self {
        self.rows = Some(rows);
        self
    }

    /// Records of a global batch, over all ranks. Default 64.
    pub fn batch_size(mut self, batch_size: usize) -> Self {
        self.settings.batch_size = batch_size;
        self
    }

    /// Records of a global batch; see [`batch_size`](Self::batch_size).
    pub fn global_batch_size(&self) -> usize {
        self.settings.batch_size
    }

    /// Seed of the order, the augmentation and the masking. Default 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = seed;
        self
    }

    /// Loads the share of one process: every `world_size`-th record of each global batch, from `rank` on. Default (0, 1).
    ///
    /// All ranks have the same number of batches, so that none waits for another at the end of an epoch. Where a batch
    /// cannot be divided evenly, shares differ by one record; in the last batch of an epoch a rank may have none.
    pub fn distributed(mut self, rank: usize, world_size: usize) -> Self {
        (self.settings.rank, self.settings.world_size) = (rank, world_size);
        self
    }

    /// Image transform. Default: [`Transform::evaluate`] at 224 pixels.
    pub fn transform(mut self, transform: Transform) -> Self {
        self.settings.transform = transform;
        self
    }

    /// Loads reports, too. Default: images and labels only.
    pub fn text(mut self, text: TextOptions) -> Self {
        self.settings.text = Some(text);
        self
    }

    /// Whether each epoch has a new seeded order (default); otherwise the order of the rows.
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.settings.shuffle = shuffle;
        self
    }

    /// Leaves out the last batch of an epoch where it is not full. Default: false.
    pub fn drop_last(mut self, drop_last: bool) -> Self {
        self.settings.drop_last = drop_last;
        self
    }

    /// Loads boxes, too, transformed as the images. Default: false.
    pub fn boxes(mut self, boxes: bool) -> Self {
        self.boxes = boxes;
        self
    }

    /// Loads masks, too, transformed as the images. Default: false.
    pub fn masks(mut self, masks: bool) -> Self {
        self.settings.masks = masks;
        self
    }

    /// What happens when a record cannot be read. Default: [`OnError::Stop`].
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.settings.on_error = on_error;
        self
    }

    /// Allocates the memory that pixels are written to; the argument is a number of floats. It is called once for each
    /// buffer, and buffers are used again. Default: the heap.
    pub fn memory(mut self, memory: impl Fn(usize) -> Box<dyn HostBuffer> + Send + Sync + 'static) -> Self {
        self.settings.memory = Some(Arc::new(memory));
        self
    }

    /// Threads that make batches, at most [`MAX_THREADS`]; 0, the default, means one for each core.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Batches made ahead of the consumer, at most [`MAX_PREFETCH`]; 0, the default, means two for each thread.
    pub fn prefetch(mut self, prefetch: usize) -> Self {
        self.prefetch = prefetch;
        self
    }

    /// Continues from the position of another loader with the same records, batch size, seed and policies.
    pub fn resume(mut self, state: LoaderState) -> Self {
        self.state = state;
        self
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// When there is no record, no image or no tokenizer though text is wanted, when a setting is out of its range, or
    /// when the state to continue from belongs to another order.
    pub fn build(self) -> Result<Loader> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if self.threads == 0 { cores() } else { self.threads };
        let prefetch = if self.prefetch == 0 { threads * 2 } else { self.prefetch };
        if threads > MAX_THREADS || prefetch > MAX_PREFETCH {
            return Err(Error::Invalid(format!(
                "loader: {threads} threads and {prefetch} batches ahead; the limits are {MAX_THREADS} and {MAX_PREFETCH}"
            )));
        }
        let state = self.state;
        let plan = self.plan()?;
        let first = plan.position(state)?;
        Loader::start(plan, threads, prefetch, first)
    }

    /// Makes batches at any position on the caller's thread, in place of a loader; the state to continue from is ignored.
    ///
    /// # Errors
    /// As [`LoaderBuilder::build`].
    pub fn random_access(self) -> Result<RandomAccess> {
        Ok(RandomAccess::new(self.plan()?))
    }

    fn plan(self) -> Result<Plan> {
        let invalid = |message: &str| Error::Invalid(format!("loader: {message}"));
        let (rank, world_size, batch_size) = (self.settings.rank, self.settings.world_size, self.settings.batch_size);
        if batch_size == 0 || world_size == 0 || rank >= world_size || world_size > batch_size {
            return Err(invalid(
                "batch_size and world_size must be above 0, rank below world_size, world_size at most batch_size",
            ));
        }
        let rows = match self.rows.clone() {
            Some(rows) => rows,
            None => self.settings.dataset.all_rows()?,
        };
        let Some(&first_row) = rows.first() else {
            return Err(invalid("no record to load: is this subset or ratio empty?"));
        };
        if let Some(&row) = rows.iter().find(|&&row| row as usize >= self.settings.dataset.len()) {
            return Err(Error::Invalid(format!("loader: row {row} of {} records", self.settings.dataset.len())));
        }
        let columns =
            OptionalColumns { text: self.settings.text.is_some(), boxes: self.boxes, masks: self.settings.masks };
        let samples = Samples::new(self.settings.dataset.clone(), columns);
        let continuations = || -> Result<Continuations> {
            if self.settings.text.is_none() {
                return Ok(Continuations::default());
            }
            let tokenizer = self.settings.dataset.tokenizer()?;
            let tokenizer =
                tokenizer.ok_or_else(|| invalid("this dataset has no reports: it was ingested without a tokenizer"))?;
            Ok(vocabulary_continuations(&tokenizer))
        };
        // Both take some time, in particular from an object store.
        let (continuations, first) =
            rayon::join(continuations, || guarded(BROKEN, || Ok(samples.of(first_row as usize)?.height)));
        let continuations = continuations?;
        // A record that cannot be read is an error of its batch.
        if first.is_ok_and(|height| height == 0) {
            return Err(invalid("this dataset has no images (ingested with --no-images)"));
        }
        let batches = if self.settings.drop_last {
            rows.len() / self.settings.batch_size
        } else {
            rows.len().div_ceil(self.settings.batch_size)
        };
        if batches == 0 {
            return Err(invalid("fewer records than one batch, and drop_last leaves out a batch that is not full"));
        }
        let order = self.order(&rows);
        Ok(Plan {
            repeats: repeats(&rows),
            rows,
            samples,
            continuations,
            batches: batches as u64,
            digest: order,
            next: AtomicU64::new(0),
            order: Mutex::default(),
            settings: self.settings,
        })
    }

    /// Digest of all that decides which records a batch holds.
    fn order(&self, rows: &[u32]) -> u64 {
        let policies = u64::from(self.settings.shuffle) | u64::from(self.settings.drop_last) << 1;
        let shards = self.settings.dataset.manifest().shards.iter().map(|shard| random::digest(&shard.sha256));
        let dataset = shards.fold(0, |all, shard| random::mix(&[all, shard]));
        let start = random::mix(&[dataset, self.settings.seed, self.settings.batch_size as u64, policies]);
        rows.iter().fold(start, |digest, &row| random::mix(&[digest, u64::from(row)])).max(1)
    }
}

fn vocabulary_continuations(tokenizer: &tokenizers::Tokenizer) -> Continuations {
    let pieces: Vec<String> =
        (0..tokenizer.get_vocab_size(true) as u32).map(|id| tokenizer.id_to_token(id).unwrap_or_default()).collect();
    Continuations::new(pieces.iter().map(String::as_str))
}
