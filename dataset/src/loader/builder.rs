//! Settings of a loader, and their checks.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use rayon::prelude::*;

use crate::dataset::Dataset;
use crate::error::{Error, Result, guarded};
use crate::loader::buffers::HostBuffer;
use crate::loader::crops::Crops;
use crate::loader::loader::Loader;
use crate::loader::mixture::{EpochLength, Mixture, Weights};
use crate::loader::order::{Order, Passes};
use crate::loader::part::{MixturePart, Part};
use crate::loader::plan::{BROKEN, Plan};
use crate::loader::random_access::RandomAccess;
use crate::loader::samples::{OptionalColumns, Samples};
use crate::loader::settings::{OnError, Settings, TextSource};
use crate::loader::state::LoaderState;
use crate::loader::studies::Studies;
use crate::loader::text_rows::TextRows;
use crate::loader::texts::{ReportReader, TextReader};
use crate::loader::token_weights::TokenWeights;
use crate::name_suggestion::did_you_mean;
use crate::random;
use crate::split::ratio::Ratio;
use crate::split::stored::Split;
use crate::split::types::Subset;
use crate::tokenizer::ReportTokenizer;
use crate::transform::pipeline::Transform;

/// Largest number of threads of a loader.
pub const MAX_THREADS: usize = 1024;

/// Largest number of batches that a loader makes ahead of its consumer.
pub const MAX_PREFETCH: usize = 65_536;

/// Settings of a [`Loader`]. Made by [`Loader::builder`] or [`Loader::mixture`].
#[derive(Clone)]
#[must_use]
pub struct LoaderBuilder {
    pub(super) settings: Settings,
    parts: Vec<MixturePart>,
    /// None: one dataset alone.
    mixture: Option<(Weights, EpochLength)>,
    /// Whether rows were chosen for a mixture as a whole, which means nothing.
    chose_rows: bool,
    tokenizer: Option<Arc<ReportTokenizer>>,
    pub(super) token_weights: Option<TokenWeights>,
    boxes: bool,
    mask_name: Option<String>,
    threads: usize,
    prefetch: usize,
    state: LoaderState,
}

impl Loader {
    /// Settings of a loader over a dataset, with their defaults.
    pub fn builder(dataset: &Arc<Dataset>) -> LoaderBuilder {
        Self::of(MixturePart::new(dataset))
    }

    /// Settings of a loader over some records of one dataset, with their defaults.
    pub fn of(part: MixturePart) -> LoaderBuilder {
        LoaderBuilder::new(vec![part], None)
    }

    /// Settings of a loader over a mixture of datasets, with their defaults.
    ///
    /// An epoch has its share of each dataset to within one record. Each dataset walks through its own seeded permutations, as
    /// a loader of it alone does: no record is repeated before all were used, whatever its share and the length of an epoch.
    /// Reports that were tokenized by another tokenizer than the first one's are tokenized again ([`LoaderBuilder::tokenizer`]).
    pub fn mixture(parts: Vec<MixturePart>, weights: Weights, epoch: EpochLength) -> LoaderBuilder {
        LoaderBuilder::new(parts, Some((weights, epoch)))
    }
}

impl LoaderBuilder {
    fn new(parts: Vec<MixturePart>, mixture: Option<(Weights, EpochLength)>) -> Self {
        Self {
            settings: Settings {
                batch_size: 64,
                seed: 0,
                rank: 0,
                world_size: 1,
                transform: Transform::evaluate(224),
                crops: Vec::new(),
                studies: None,
                texts: Vec::new(),
                shuffle: true,
                drop_last: false,
                masks: false,
                on_error: OnError::default(),
                memory: None,
            },
            parts,
            mixture,
            chose_rows: false,
            tokenizer: None,
            token_weights: None,
            boxes: false,
            mask_name: None,
            threads: 0,
            prefetch: 0,
            state: LoaderState::default(),
        }
    }

    /// Loads one subset of a split.
    pub fn subset(self, split: &Split, subset: Subset) -> Self {
        self.part(|part| part.subset(split, subset))
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
        let rows = self.parts.first().cloned().map(|part| part.ratio(split, ratio)).transpose()?;
        Ok(self.part(|part| rows.unwrap_or(part)))
    }

    /// Rows to load, by their numbers in the dataset; a row may occur several times. Default: all.
    pub fn rows(self, rows: Vec<u32>) -> Self {
        self.part(|part| part.rows(rows))
    }

    /// Changes which records of the only dataset are loaded.
    fn part(mut self, change: impl FnOnce(MixturePart) -> MixturePart) -> Self {
        self.chose_rows = true;
        if let Some(part) = self.parts.pop() {
            self.parts.push(change(part));
        }
        self
    }

    /// Samples of a global batch, over all ranks: records, or studies. Default 64.
    pub fn batch_size(mut self, batch_size: usize) -> Self {
        self.settings.batch_size = batch_size;
        self
    }

    /// Samples of a global batch; see [`batch_size`](Self::batch_size).
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

    /// Tokenizes the reports of datasets with another tokenizer by this one, when they are loaded. Default: the tokenizer of
    /// the first dataset that has one.
    pub fn tokenizer(mut self, tokenizer: Arc<ReportTokenizer>) -> Self {
        self.tokenizer = Some(tokenizer);
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

    /// Loads the mask of this name of each record. Default: the first mask of a record.
    pub fn mask_name(mut self, name: &str) -> Self {
        self.mask_name = Some(name.to_owned());
        self
    }

    /// Loads the dataset as it is with a join: its findings, labels, boxes, masks, texts or subsets replace the dataset's own
    /// ([`Dataset::with_joins`]). The order, and the states of loaders, are those of the dataset without it.
    ///
    /// # Errors
    /// When the join is missing, damaged, or of other shards; also for a mixture, of which each dataset is joined by itself.
    pub fn join(mut self, name: &str) -> Result<Self> {
        if self.mixture.is_some() {
            let message = "loader: a join belongs to one dataset of a mixture: give it to `MixturePart::join`";
            return Err(Error::Invalid(message.to_owned()));
        }
        let parts = self.parts.drain(..).map(|part| part.join(name)).collect::<Result<_>>()?;
        Ok(Self { parts, ..self })
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

    /// Threads that make batches, at most [`MAX_THREADS`]; 0, the default, means one for each core. Where images come from a
    /// store, as many further threads wait for it.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Batches made ahead of the consumer, at most [`MAX_PREFETCH`]; 0, the default, means two for each thread, and a third
    /// where images come from a store: while a thread makes a batch, another one fetches the images of a later batch.
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
        let (prefetch, state) = (self.prefetch, self.state.clone());
        if threads > MAX_THREADS || prefetch > MAX_PREFETCH {
            return Err(Error::Invalid(format!(
                "loader: {threads} threads and {prefetch} batches ahead; the limits are {MAX_THREADS} and {MAX_PREFETCH}"
            )));
        }
        let plan = self.plan()?;
        let for_each = if plan.is_remote() { 3 } else { 2 };
        let prefetch = if prefetch == 0 { threads * for_each } else { prefetch };
        Loader::start(plan, threads, prefetch, &state)
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
        let is_mixed = self.mixture.is_some();
        if is_mixed && self.chose_rows {
            return Err(invalid("rows are chosen for each dataset of a mixture, not for all of them"));
        }
        if self.parts.is_empty() {
            return Err(invalid("no dataset"));
        }
        let masks: Vec<&str> =
            self.parts.iter().flat_map(|part| part.dataset.mask_names()).map(String::as_str).collect();
        if let Some(name) = self.mask_name.as_deref().filter(|name| !masks.contains(name)) {
            return Err(invalid(&format!("no masks `{name}`{}", did_you_mean(name, masks))));
        }
        self.settings.studies.map_or(Ok(()), |studies| studies.check())?;
        let tokenizer = self.text_tokenizer()?;
        let findings = all_findings(&self.parts);
        // Opening a dataset takes some time, in particular in an object store.
        let numbers = (0..self.parts.len()).into_par_iter();
        let parts: Vec<Part> = numbers
            .map(|number| {
                let part = self.make_part(number, tokenizer.as_ref(), &findings);
                part.map_err(|error| self.parts[number].error(error, is_mixed))
            })
            .collect::<Result<_>>()?;
        if parts.iter().all(|part| part.is_text_only) {
            return Err(invalid("these datasets have no images (ingested with --no-images)"));
        }
        let order = self.order(&parts)?;
        let records = order.records();
        self.settings.transform.check()?;
        let share = batch_size.min(records).div_ceil(world_size) * self.settings.slots();
        let pixels = (self.settings.transform.size as usize).pow(2);
        let crops = Crops::new(self.settings.crops.clone(), share, share * pixels)?;
        let batches = if self.settings.drop_last { records / batch_size } else { records.div_ceil(batch_size) };
        if batches == 0 {
            return Err(invalid("fewer records than one batch, and drop_last leaves out a batch that is not full"));
        }
        let texts = TextRows::new(self.settings.texts.clone(), self.token_weights.as_ref(), tokenizer.as_deref())?;
        Ok(Plan {
            digest: self.digest(&parts),
            parts,
            findings,
            texts,
            crops,
            batches: batches as u64,
            next: AtomicU64::new(0),
            order,
            settings: self.settings,
        })
    }

    /// The tokenizer of the batches' token ids; none where reports are not loaded.
    fn text_tokenizer(&self) -> Result<Option<Arc<ReportTokenizer>>> {
        if self.settings.texts.is_empty() {
            return Ok(None);
        }
        if let Some(given) = &self.tokenizer {
            return Ok(Some(given.clone()));
        }
        let is_mixed = self.mixture.is_some();
        match self.parts.iter().find(|part| part.dataset.has_tokenizer()) {
            Some(part) => {
                let tokenizer = ReportTokenizer::of(&part.dataset).map_err(|error| part.error(error, is_mixed))?;
                Ok(tokenizer.map(Arc::new))
            }
            None => Err(Error::Invalid(format!(
                "loader: {} no reports: {} ingested without a tokenizer",
                if is_mixed { "these datasets have" } else { "this dataset has" },
                if is_mixed { "they were" } else { "it was" }
            ))),
        }
    }

    /// One dataset, with its rows checked.
    fn make_part(&self, number: usize, tokenizer: Option<&Arc<ReportTokenizer>>, findings: &[String]) -> Result<Part> {
        let source = &self.parts[number];
        let (dataset, rows) = (&source.dataset, source.checked_rows()?);
        let texts = &self.settings.texts;
        let columns = OptionalColumns {
            text: texts.iter().any(|(source, _)| *source == TextSource::Report),
            boxes: self.boxes,
            masks: self.settings.masks,
            mask_name: self.mask_name.clone(),
            windows: dataset.has_16_bits(),
        };
        let max_tokens = texts.iter().map(|(_, options)| options.tokens).max().unwrap_or(0);
        let has_reports = dataset.has_tokenizer() || dataset.manifest().totals.reports > 0;
        let texts = TextReader {
            sources: texts.iter().map(|(source, _)| source.clone()).collect(),
            is_other: tokenizer.is_some_and(|tokenizer| has_reports && !tokenizer.made(dataset)),
            reader: tokenizer.map(|tokenizer| ReportReader { tokenizer: tokenizer.clone(), max_tokens }),
        };
        let samples = Samples::new(dataset.clone(), columns, texts);
        let first = guarded(BROKEN, || Ok(samples.of(rows[0] as usize)?.height));
        // A record that cannot be read is an error of its batch.
        let is_text_only = first.is_ok_and(|height| height == 0);
        if is_text_only && (self.mixture.is_none() || self.settings.texts.is_empty()) {
            let remedy = if self.mixture.is_some() { ": load reports, too, or leave it out" } else { "" };
            return Err(Error::Invalid(format!(
                "loader: this dataset has no images (ingested with --no-images){remedy}"
            )));
        }
        let studies = self.settings.studies.map(|studies| Studies::read(dataset, &rows, studies)).transpose()?;
        let id = content(dataset);
        let copy = self.parts[..number].iter().filter(|earlier| content(&earlier.dataset) == id).count();
        Ok(Part::new(source.clone(), rows, samples, findings, copy as u64).with(studies, is_text_only))
    }

    /// The order of the records.
    fn order(&self, parts: &[Part]) -> Result<Order> {
        let Settings { batch_size, seed, shuffle, drop_last, .. } = self.settings;
        let seed = shuffle.then_some(seed);
        let mut passes: Vec<Passes> = parts.iter().map(|part| Passes::new(part.len(), seed, part.copy)).collect();
        let Some((weights, length)) = &self.mixture else { return Ok(Order::single(passes.remove(0), batch_size)) };
        let records: Vec<usize> = parts.iter().map(Part::len).collect();
        let mixture = Mixture::new(&records, weights, *length, drop_last.then_some(batch_size))?;
        Ok(Order::mixed(passes, mixture, seed, batch_size))
    }

    /// Digest of all that decides which records a batch holds, but for the weights of a mixture.
    fn digest(&self, parts: &[Part]) -> u64 {
        let Settings { shuffle, drop_last, studies, .. } = &self.settings;
        let policies = u64::from(*shuffle) | u64::from(*drop_last) << 1 | u64::from(studies.is_some()) << 2;
        let of_part = |part: &Part| {
            let key = [content(&part.source.dataset), self.settings.seed, self.settings.batch_size as u64, policies];
            part.rows.iter().fold(random::mix(&key), |digest, &row| random::mix(&[digest, u64::from(row)]))
        };
        let digest = match (&self.mixture, parts) {
            (None, [part]) => of_part(part),
            _ => parts.iter().fold(random::digest("mixture"), |digest, part| random::mix(&[digest, of_part(part)])),
        };
        digest.max(1)
    }
}

/// Digest of a dataset's shards.
fn content(dataset: &Dataset) -> u64 {
    let shards = dataset.manifest().shards.iter().map(|shard| random::digest(&shard.sha256));
    shards.fold(0, |all, shard| random::mix(&[all, shard]))
}

/// The findings of all datasets: those of the first one, then those that each further one adds.
fn all_findings(parts: &[MixturePart]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for finding in parts.iter().flat_map(|part| part.dataset.findings()) {
        if !all.contains(finding) {
            all.push(finding.clone());
        }
    }
    all
}
