//! Batches for a trainer: a seeded global order, augmented images, masked reports, in buffers that are used again.
//!
//! Threads take whole batches by number. What a batch holds depends on the seed, the epoch and its number alone, so the
//! number of threads and the depth of prefetching change nothing but the speed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use arrow_array::{Array, Int32Array, ListArray, UInt16Array};
use crossbeam_channel::{Receiver, Sender};
use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::masking::{self, Continuations};
use crate::random::{self, Stream};
use crate::resample::Resample;
use crate::shard;
use crate::split::{Split, Subset};
use crate::transform::Transform;

/// Where a loader stands: enough to go on with the exact next batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderState {
    pub epoch: u64,
    /// Next batch within the epoch.
    pub batch: u64,
}

/// How reports become token rows.
#[derive(Clone, Debug)]
pub struct TextOptions {
    /// Tokens of a row: longer reports are cut, shorter ones padded.
    pub tokens: usize,
    /// Share of words to mask.
    pub mask_ratio: f64,
}

/// Host buffers of a batch. They go back to the loader when the batch is dropped.
#[derive(Default)]
struct Buffers {
    rows: Vec<u32>,
    images: Vec<f32>,
    token_ids: Vec<i64>,
    target_ids: Vec<i64>,
    attention_mask: Vec<i64>,
    labels: Vec<f32>,
}

/// One batch. `B` is [`Batch::len`], `S` the transform's size, `L` the text's tokens, `C` the dataset's findings.
pub struct Batch {
    buffers: Buffers,
    size: usize,
    tokens: usize,
    home: Sender<Buffers>,
    /// Epoch the batch belongs to.
    pub epoch: u64,
    /// Number of the batch within its epoch.
    pub number: u64,
}

impl Batch {
    /// Number of records.
    pub fn len(&self) -> usize {
        self.buffers.rows.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.buffers.rows.is_empty()
    }

    /// Rows of the dataset, `[B]`.
    pub fn rows(&self) -> &[u32] {
        &self.buffers.rows
    }

    /// Normalised grey pixels, `[B, 1, S, S]`.
    pub fn images(&self) -> &[f32] {
        &self.buffers.images
    }

    /// Side of the images, S.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Tokens of a report, L (0 without text).
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Masked token ids, `[B, L]`: a model's input.
    pub fn token_ids(&self) -> &[i64] {
        &self.buffers.token_ids
    }

    /// Token ids before masking, `[B, L]`: what is to be restored.
    pub fn target_ids(&self) -> &[i64] {
        &self.buffers.target_ids
    }

    /// 1 for tokens, 0 for padding, `[B, L]`.
    pub fn attention_mask(&self) -> &[i64] {
        &self.buffers.attention_mask
    }

    /// Label codes, `[B, C]`: 1, 0, -1 uncertain, NaN not mentioned.
    pub fn labels(&self) -> &[f32] {
        &self.buffers.labels
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // Refused when the pool is full or the loader is gone: the buffers are freed then.
        let _ = self.home.try_send(std::mem::take(&mut self.buffers));
    }
}

/// Settings of a [`Loader`], with the recipe's defaults. Made by [`Loader::builder`].
#[derive(Clone)]
#[must_use]
pub struct LoaderBuilder {
    dataset: Arc<Dataset>,
    rows: Option<Vec<u32>>,
    batch_size: usize,
    seed: u64,
    rank: usize,
    world: usize,
    transform: Transform,
    text: Option<TextOptions>,
    shuffle: bool,
    drop_last: bool,
    threads: usize,
    prefetch: usize,
    state: LoaderState,
}

impl LoaderBuilder {
    /// Loads one subset of a split, in the order of the dataset.
    pub fn subset(self, split: &Split, subset: Subset) -> Self {
        self.rows(split.rows(subset, None))
    }

    /// Of the training subset of a split, loads the records whose labels may be seen at `percent`.
    pub fn ratio(self, split: &Split, percent: f64) -> Self {
        self.rows(split.rows(Subset::Train, Some(percent)))
    }

    /// Rows to load; default: all.
    pub fn rows(mut self, rows: Vec<u32>) -> Self {
        self.rows = Some(rows);
        self
    }

    /// Records of a global batch, over all ranks. Default 64.
    pub fn batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size;
        self
    }

    /// Seed of order, augmentation and masking. Default 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// This process's share: every `world`-th record of each global batch, from `rank` on. Default (0, 1).
    pub fn shard(mut self, rank: usize, world: usize) -> Self {
        (self.rank, self.world) = (rank, world);
        self
    }

    /// Image transform. Default: the recipe's for evaluation at 224.
    pub fn transform(mut self, transform: Transform) -> Self {
        self.transform = transform;
        self
    }

    /// Loads reports too. Default: images and labels alone.
    pub fn text(mut self, text: TextOptions) -> Self {
        self.text = Some(text);
        self
    }

    /// A new seeded order each epoch (default), or the order of the rows.
    pub fn shuffle(mut self, shuffle: bool) -> Self {
        self.shuffle = shuffle;
        self
    }

    /// Leaves out the last batch of an epoch where it is not full. Default: it is kept.
    pub fn drop_last(mut self, drop_last: bool) -> Self {
        self.drop_last = drop_last;
        self
    }

    /// Threads that make batches; 0, the default: one a core.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Batches made ahead of the consumer. Default: two a thread.
    pub fn prefetch(mut self, prefetch: usize) -> Self {
        self.prefetch = prefetch;
        self
    }

    /// Goes on where another loader of the same settings stood.
    pub fn resume(mut self, state: LoaderState) -> Self {
        self.state = state;
        self
    }

    /// Reads the small columns and starts the threads.
    ///
    /// # Errors
    /// When there is no record, no image, no tokenizer though text is wanted, or a setting makes no sense.
    pub fn build(self) -> Result<Loader> {
        let invalid = |message: &str| Error::Invalid(format!("loader: {message}"));
        if self.batch_size == 0 || self.world == 0 || self.rank >= self.world {
            return Err(invalid("batch size and world must be above 0, rank below world"));
        }
        if !self.batch_size.is_multiple_of(self.world) {
            return Err(invalid("the global batch must divide among the ranks"));
        }
        let rows = match self.rows.clone() {
            Some(rows) => rows,
            None => (0..self.dataset.len() as u32).collect(),
        };
        if rows.is_empty() {
            return Err(invalid("no record to load: is this subset or ratio empty?"));
        }
        let table = SampleTable::load(&self.dataset, self.text.is_some())?;
        if let Some(&row) = rows.iter().find(|&&row| row as usize >= table.digests.len()) {
            return Err(Error::Invalid(format!("loader: row {row} of {} records", table.digests.len())));
        }
        if rows.iter().any(|&row| table.sides[row as usize] == (0, 0)) {
            return Err(invalid("this dataset has no images (ingested with --no-images)"));
        }
        let continuations = match (&self.text, self.dataset.tokenizer()?) {
            (None, _) => Continuations::default(),
            (Some(_), None) => {
                return Err(invalid("this dataset has no reports: it was ingested without a tokenizer"));
            }
            (Some(_), Some(tokenizer)) => vocabulary_continuations(&tokenizer),
        };
        let batches = if self.drop_last { rows.len() / self.batch_size } else { rows.len().div_ceil(self.batch_size) };
        if batches == 0 {
            return Err(invalid("fewer records than one batch, and the last batch is to be dropped"));
        }
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if self.threads == 0 { cores() } else { self.threads };
        let prefetch = if self.prefetch == 0 { threads * 2 } else { self.prefetch };
        let first = self.state.epoch * batches as u64 + self.state.batch;
        let findings = self.dataset.findings().len();
        let plan = Arc::new(Plan {
            rows,
            table,
            continuations,
            batches: batches as u64,
            findings,
            next: AtomicU64::new(first),
            order: Mutex::new(BTreeMap::new()),
            settings: self,
        });

        let (permit_sender, permits) = crossbeam_channel::bounded::<()>(prefetch);
        let (ready_sender, ready) = crossbeam_channel::bounded(prefetch);
        let (home, pool) = crossbeam_channel::bounded::<Buffers>(prefetch + 2);
        for _ in 0..prefetch {
            let _ = permit_sender.try_send(());
        }
        let workers = (0..threads)
            .map(|index| {
                let (plan, permits) = (plan.clone(), permits.clone());
                let (ready, pool) = (ready_sender.clone(), pool.clone());
                std::thread::Builder::new()
                    .name(format!("loader-{index}"))
                    .spawn(move || work(&plan, &permits, &ready, &pool))
                    .map_err(|e| Error::Invalid(format!("loader: no thread: {e}")))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Loader {
            plan,
            permits: Some(permit_sender),
            ready: Some(ready),
            home,
            waiting: BTreeMap::new(),
            next: first,
            epoch_ended: false,
            workers,
        })
    }
}

/// What the threads need of each row, read once.
struct SampleTable {
    digests: Vec<u64>,
    /// (height, width).
    sides: Vec<(u16, u16)>,
    tokens: Vec<i32>,
    /// Start of each row's tokens, and one past the last.
    token_starts: Vec<usize>,
    labels: Vec<Vec<Option<i8>>>,
}

impl SampleTable {
    fn load(dataset: &Dataset, with_text: bool) -> Result<Self> {
        let mut table = Self {
            digests: dataset
                .texts("record_id")?
                .into_iter()
                .map(|id| random::digest(&id.unwrap_or_default()))
                .collect(),
            sides: Vec::new(),
            tokens: Vec::new(),
            token_starts: vec![0],
            labels: dataset.labels()?,
        };
        let names: &[&str] = if with_text { &["height", "width", "token_ids"] } else { &["height", "width"] };
        let wrong = || Error::Invalid("loader: a column has another type than the format's".to_owned());
        for batch in dataset.columns(names)? {
            let height = shard::column::<UInt16Array>(&batch, "height").ok_or_else(wrong)?;
            let width = shard::column::<UInt16Array>(&batch, "width").ok_or_else(wrong)?;
            table.sides.extend(height.values().iter().copied().zip(width.values().iter().copied()));
            if with_text {
                let lists = shard::column::<ListArray>(&batch, "token_ids").ok_or_else(wrong)?;
                for row in 0..lists.len() {
                    let tokens = lists.value(row);
                    table.tokens.extend(tokens.as_any().downcast_ref::<Int32Array>().ok_or_else(wrong)?.values());
                    table.token_starts.push(table.tokens.len());
                }
            }
        }
        Ok(table)
    }
}

fn vocabulary_continuations(tokenizer: &tokenizers::Tokenizer) -> Continuations {
    let pieces: Vec<String> =
        (0..tokenizer.get_vocab_size(true) as u32).map(|id| tokenizer.id_to_token(id).unwrap_or_default()).collect();
    Continuations::new(pieces.iter().map(String::as_str))
}

struct Plan {
    settings: LoaderBuilder,
    rows: Vec<u32>,
    table: SampleTable,
    continuations: Continuations,
    /// Batches of an epoch.
    batches: u64,
    findings: usize,
    /// Next batch to be made, counted from epoch 0.
    next: AtomicU64,
    /// Orders of the epochs at hand.
    order: Mutex<BTreeMap<u64, Arc<Vec<u32>>>>,
}

impl Plan {
    fn order_of(&self, epoch: u64) -> Arc<Vec<u32>> {
        let mut orders = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(order) = orders.get(&epoch) {
            return order.clone();
        }
        let mut order = self.rows.clone();
        if self.settings.shuffle {
            Stream::new(&[self.settings.seed, random::digest("order"), epoch]).shuffle(&mut order);
        }
        let order = Arc::new(order);
        // Threads are at most a few batches apart: two epochs are all that is ever in use.
        orders.retain(|&known, _| known + 1 >= epoch);
        orders.insert(epoch, order.clone());
        order
    }

    fn make(&self, ticket: u64, buffers: &mut Buffers, scratch: &mut Scratch) -> Result<()> {
        let (epoch, number) = (ticket / self.batches, (ticket % self.batches) as usize);
        let settings = &self.settings;
        let order = self.order_of(epoch);
        let end = order.len().min((number + 1) * settings.batch_size);
        let global = &order[number * settings.batch_size..end];
        buffers.rows.clear();
        buffers.rows.extend(global.iter().skip(settings.rank).step_by(settings.world));
        let (count, size) = (buffers.rows.len(), settings.transform.size as usize);
        buffers.images.resize(count * size * size, 0.0);
        buffers.labels.clear();
        let pages = settings.dataset.image_pages(&buffers.rows)?;
        for (index, &row) in buffers.rows.iter().enumerate() {
            let row = row as usize;
            let (height, width) = self.table.sides[row];
            settings.dataset.image_from(pages.get(index), row, height, width, &mut scratch.pixels)?;
            let mut random = Stream::new(&[settings.seed, random::digest("augment"), self.table.digests[row], epoch]);
            let source = (scratch.pixels.as_slice(), u32::from(width), u32::from(height));
            let out = &mut buffers.images[index * size * size..(index + 1) * size * size];
            settings.transform.apply(source, &mut random, &mut scratch.resample, out)?;
            let codes = &self.table.labels[row];
            buffers.labels.extend((0..self.findings).map(|finding| codes[finding].map_or(f32::NAN, f32::from)));
        }
        if let Some(text) = &settings.text {
            buffers.target_ids.clear();
            buffers.attention_mask.clear();
            for &row in &buffers.rows {
                let row = row as usize;
                let tokens = &self.table.tokens[self.table.token_starts[row]..self.table.token_starts[row + 1]];
                let kept = tokens.len().min(text.tokens);
                buffers.target_ids.extend(tokens[..kept].iter().map(|&id| i64::from(id)));
                buffers.target_ids.extend(std::iter::repeat_n(masking::PAD, text.tokens - kept));
                buffers.attention_mask.extend(std::iter::repeat_n(1, kept));
                buffers.attention_mask.extend(std::iter::repeat_n(0, text.tokens - kept));
            }
            buffers.token_ids.clone_from(&buffers.target_ids);
            for (&row, ids) in buffers.rows.iter().zip(buffers.token_ids.chunks_exact_mut(text.tokens)) {
                let digest = self.table.digests[row as usize];
                let mut random = Stream::new(&[settings.seed, random::digest("mask"), digest, epoch]);
                masking::mask_words(ids, &self.continuations, text.mask_ratio, || random.uniform());
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Scratch {
    pixels: Vec<u8>,
    resample: Resample,
}

fn work(plan: &Plan, permits: &Receiver<()>, ready: &Sender<(u64, Result<Buffers>)>, pool: &Receiver<Buffers>) {
    let mut scratch = Scratch::default();
    // A permit before a number: the lowest number not yet made always has a thread at work on it.
    while permits.recv().is_ok() {
        let ticket = plan.next.fetch_add(1, Ordering::SeqCst);
        let mut buffers = pool.try_recv().unwrap_or_default();
        let made = plan.make(ticket, &mut buffers, &mut scratch).map(|()| buffers);
        if ready.send((ticket, made)).is_err() {
            return;
        }
    }
}

/// Iterates the batches of an epoch; after its end (`None`) the next call begins the next epoch.
pub struct Loader {
    plan: Arc<Plan>,
    permits: Option<Sender<()>>,
    ready: Option<Receiver<(u64, Result<Buffers>)>>,
    home: Sender<Buffers>,
    /// Batches that came before their turn.
    waiting: BTreeMap<u64, Result<Buffers>>,
    next: u64,
    epoch_ended: bool,
    workers: Vec<JoinHandle<()>>,
}

impl Loader {
    /// A loader over a dataset, to be set up further.
    pub fn builder(dataset: &Arc<Dataset>) -> LoaderBuilder {
        LoaderBuilder {
            dataset: dataset.clone(),
            rows: None,
            batch_size: 64,
            seed: 0,
            rank: 0,
            world: 1,
            transform: Transform::evaluate(224),
            text: None,
            shuffle: true,
            drop_last: false,
            threads: 0,
            prefetch: 0,
            state: LoaderState::default(),
        }
    }

    /// Batches of an epoch.
    pub fn batches(&self) -> u64 {
        self.plan.batches
    }

    /// Records of an epoch, over all ranks.
    pub fn records(&self) -> usize {
        if self.plan.settings.drop_last {
            self.plan.batches as usize * self.plan.settings.batch_size
        } else {
            self.plan.rows.len()
        }
    }

    /// Where the loader stands: the batch that the next call gives.
    pub fn state(&self) -> LoaderState {
        LoaderState { epoch: self.next / self.plan.batches, batch: self.next % self.plan.batches }
    }

    /// The next batch, going on to the next epoch without an end between.
    pub fn next_batch(&mut self) -> Result<Batch> {
        self.epoch_ended = false;
        loop {
            if let Some(made) = self.waiting.remove(&self.next) {
                let (epoch, number) = (self.next / self.plan.batches, self.next % self.plan.batches);
                self.next += 1;
                self.epoch_ended = self.next.is_multiple_of(self.plan.batches);
                if let Some(permits) = &self.permits {
                    let _ = permits.try_send(());
                }
                let settings = &self.plan.settings;
                return Ok(Batch {
                    buffers: made?,
                    size: settings.transform.size as usize,
                    tokens: settings.text.as_ref().map_or(0, |text| text.tokens),
                    home: self.home.clone(),
                    epoch,
                    number,
                });
            }
            match self.ready.as_ref().map(Receiver::recv) {
                Some(Ok((ticket, made))) => {
                    self.waiting.insert(ticket, made);
                }
                _ => return Err(Error::Invalid("loader: its threads ended".to_owned())),
            }
        }
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if std::mem::take(&mut self.epoch_ended) {
            return None;
        }
        Some(self.next_batch())
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // Threads end when nobody gives permits or takes batches any more.
        self.permits = None;
        self.ready = None;
        self.waiting.clear();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}
