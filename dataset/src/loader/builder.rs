//! Batches for a trainer: a seeded global order, augmented images, masked reports, in buffers that are used again.
//!
//! Threads take whole batches by number. What a batch holds depends on the seed, the epoch and its number alone, so the
//! number of threads and the depth of prefetching change nothing but the speed.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use serde::{Deserialize, Serialize};

use crate::dataset::Dataset;
use crate::error::{Error, Result, guarded};
use crate::format::image_codec;
use crate::loader::batch::{Batch, Buffers, Floats, PlacedBox};
use crate::loader::masking::{self, Continuations};
use crate::loader::read::{Sample, Samples, Wanted};
use crate::random::{self, Stream};
use crate::split::stored::Split;
use crate::split::types::Subset;
use crate::transform::geometry::IGNORED;
use crate::transform::pipeline::Transform;
use crate::transform::resample::Resample;

/// The most threads of a loader.
pub const MAX_THREADS: usize = 1024;

/// The most batches that a loader makes ahead of its consumer.
pub const MAX_PREFETCH: usize = 65_536;

/// Where a loader stands: enough to go on with the exact next batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderState {
    pub epoch: u64,
    /// Next batch within the epoch.
    pub batch: u64,
    /// What decides the order (records, batch size, seed, policies), as a digest; 0 goes with any order.
    #[serde(default)]
    pub order: u64,
}

/// What happens when a record cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Its batch is an error that names shard and row; the next call goes on with the batch after it.
    #[default]
    Stop,
    /// The batch comes without it and says so ([`Batch::skipped`]); [`Loader::skipped`] counts.
    Skip,
}

/// How reports become token rows.
#[derive(Clone, Debug)]
pub struct TextOptions {
    /// Tokens of a row: longer reports are cut, shorter ones padded.
    pub tokens: usize,
    /// Share of words to mask.
    pub mask_ratio: f64,
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
    boxes: bool,
    masks: bool,
    on_error: OnError,
    memory: Option<Memory>,
    threads: usize,
    prefetch: usize,
    state: LoaderState,
}

/// Gives memory for so many floats.
type Memory = Arc<dyn Fn(usize) -> Box<dyn Floats> + Send + Sync>;

impl LoaderBuilder {
    /// Loads one subset of a split, in the order of the dataset.
    pub fn subset(self, split: &Split, subset: Subset) -> Self {
        self.rows(split.rows(subset, None))
    }

    /// Of the training subset of a split, loads the records whose labels may be seen at `percent`.
    ///
    /// # Errors
    /// When the split has no such ratio.
    pub fn ratio(self, split: &Split, percent: f64) -> Result<Self> {
        split.check_ratio(percent)?;
        Ok(self.rows(split.rows(Subset::Train, Some(percent))))
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
    ///
    /// All ranks have as many batches, so none waits for another at the end of an epoch; where a batch does not divide
    /// among the ranks (the last one of an epoch may hold fewer records than there are ranks), shares differ by one.
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

    /// Loads the sources' rectangles too, in the place that the transform gives them. Default: none.
    pub fn boxes(mut self, boxes: bool) -> Self {
        self.boxes = boxes;
        self
    }

    /// Loads masks too, transformed as the images. Default: none.
    pub fn masks(mut self, masks: bool) -> Self {
        self.masks = masks;
        self
    }

    /// What happens when a record cannot be read. Default: its batch is an error.
    pub fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = on_error;
        self
    }

    /// Where pixels are written: memory for so many floats, asked for once a buffer. Default: the heap.
    pub fn memory(mut self, memory: impl Fn(usize) -> Box<dyn Floats> + Send + Sync + 'static) -> Self {
        self.memory = Some(Arc::new(memory));
        self
    }

    /// Threads that make batches, [`MAX_THREADS`] at most; 0, the default: one a core.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// Batches made ahead of the consumer, [`MAX_PREFETCH`] at most. Default: two a thread.
    pub fn prefetch(mut self, prefetch: usize) -> Self {
        self.prefetch = prefetch;
        self
    }

    /// Goes on where another loader of the same settings stood.
    pub fn resume(mut self, state: LoaderState) -> Self {
        self.state = state;
        self
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// When there is no record, no image, no tokenizer though text is wanted, a setting makes no sense, or the state to
    /// go on from belongs to another order.
    pub fn build(self) -> Result<Loader> {
        let invalid = |message: &str| Error::Invalid(format!("loader: {message}"));
        if self.batch_size == 0 || self.world == 0 || self.rank >= self.world || self.world > self.batch_size {
            return Err(invalid(
                "batch size and world must be above 0, rank below world, world at most the batch size",
            ));
        }
        let rows = match self.rows.clone() {
            Some(rows) => rows,
            None => self.dataset.all_rows()?,
        };
        let Some(&first_row) = rows.first() else {
            return Err(invalid("no record to load: is this subset or ratio empty?"));
        };
        if let Some(&row) = rows.iter().find(|&&row| row as usize >= self.dataset.len()) {
            return Err(Error::Invalid(format!("loader: row {row} of {} records", self.dataset.len())));
        }
        let wanted = Wanted { text: self.text.is_some(), boxes: self.boxes, masks: self.masks };
        let samples = Samples::new(self.dataset.clone(), wanted);
        let continuations = || -> Result<Continuations> {
            if self.text.is_none() {
                return Ok(Continuations::default());
            }
            let tokenizer = self.dataset.tokenizer()?;
            let tokenizer =
                tokenizer.ok_or_else(|| invalid("this dataset has no reports: it was ingested without a tokenizer"))?;
            Ok(vocabulary_continuations(&tokenizer))
        };
        // Both take a while, above all from an object store.
        let (continuations, first) =
            rayon::join(continuations, || guarded(BROKEN, || Ok(samples.of(first_row as usize)?.height)));
        let continuations = continuations?;
        // A record that cannot be read is told of with its batch.
        if first.is_ok_and(|height| height == 0) {
            return Err(invalid("this dataset has no images (ingested with --no-images)"));
        }
        let batches = if self.drop_last { rows.len() / self.batch_size } else { rows.len().div_ceil(self.batch_size) };
        if batches == 0 {
            return Err(invalid("fewer records than one batch, and the last batch is to be dropped"));
        }
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if self.threads == 0 { cores() } else { self.threads };
        let prefetch = if self.prefetch == 0 { threads * 2 } else { self.prefetch };
        if threads > MAX_THREADS || prefetch > MAX_PREFETCH {
            return Err(Error::Invalid(format!(
                "loader: {threads} threads and {prefetch} batches ahead; at most {MAX_THREADS} and {MAX_PREFETCH} are possible"
            )));
        }
        let order = self.order(&rows);
        if self.state.order != 0 && self.state.order != order {
            return Err(invalid(
                "the state to go on from belongs to other records, another batch size, seed or policy: go on with those \
                 of the run that saved it",
            ));
        }
        let first = self.state.epoch * batches as u64 + self.state.batch;
        let plan = Arc::new(Plan {
            repeats: repeats(&rows),
            rows,
            samples,
            continuations,
            batches: batches as u64,
            digest: order,
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
            skipped: 0,
            workers,
        })
    }

    /// Digest of all that decides which records a batch holds.
    fn order(&self, rows: &[u32]) -> u64 {
        let policies = u64::from(self.shuffle) | u64::from(self.drop_last) << 1;
        let shards = self.dataset.manifest().shards.iter().map(|shard| random::digest(&shard.sha256));
        let dataset = shards.fold(0, |all, shard| random::mix(&[all, shard]));
        let start = random::mix(&[dataset, self.seed, self.batch_size as u64, policies]);
        rows.iter().fold(start, |digest, &row| random::mix(&[digest, u64::from(row)])).max(1)
    }
}

fn vocabulary_continuations(tokenizer: &tokenizers::Tokenizer) -> Continuations {
    let pieces: Vec<String> =
        (0..tokenizer.get_vocab_size(true) as u32).map(|id| tokenizer.id_to_token(id).unwrap_or_default()).collect();
    Continuations::new(pieces.iter().map(String::as_str))
}

/// How often each row stands before its place; empty where none stands twice.
fn repeats(rows: &[u32]) -> Vec<u32> {
    let mut seen: HashMap<u32, u32> = HashMap::with_capacity(rows.len());
    let before = |&row| {
        let count = seen.entry(row).or_insert(0);
        *count += 1;
        *count - 1
    };
    let repeats: Vec<u32> = rows.iter().map(before).collect();
    if repeats.iter().all(|&count| count == 0) { Vec::new() } else { repeats }
}

struct Plan {
    settings: LoaderBuilder,
    rows: Vec<u32>,
    /// How often the row of each place stands before it: what tells the copies of a record apart. Empty without copies.
    repeats: Vec<u32>,
    samples: Samples,
    continuations: Continuations,
    /// Batches of an epoch.
    batches: u64,
    /// What [`LoaderState::order`] must be.
    digest: u64,
    /// Next batch to be made, counted from epoch 0.
    next: AtomicU64,
    /// Orders of the epochs at hand, as places in `rows`.
    order: Mutex<BTreeMap<u64, Arc<Vec<u32>>>>,
}

impl Plan {
    fn order_of(&self, epoch: u64) -> Arc<Vec<u32>> {
        let mut orders = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(order) = orders.get(&epoch) {
            return order.clone();
        }
        let mut order: Vec<u32> = (0..self.rows.len() as u32).collect();
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
        let pixels = (settings.transform.size as usize).pow(2);
        let room = settings.batch_size.min(self.rows.len()).div_ceil(settings.world) * pixels;
        let mut memory = match (buffers.images.take(), &settings.memory) {
            (Some(memory), _) => memory,
            (None, Some(memory)) => memory(room),
            (None, None) => {
                // Asked for and given back: the zeros themselves cannot be refused without an end of the process.
                Vec::<f32>::new().try_reserve_exact(room).map_err(|_| {
                    Error::Invalid(format!(
                        "loader: no memory for a batch of {:.1} GB: take a smaller batch or smaller images",
                        room as f64 * 4e-9
                    ))
                })?;
                Box::new(vec![0.0; room])
            }
        };
        let images = memory.floats_mut();
        if images.len() < room {
            return Err(Error::Invalid(format!("loader: {} floats of memory, {room} were asked for", images.len())));
        }
        buffers.clear();
        let mut wanted = std::mem::take(&mut scratch.wanted);
        wanted.clear();
        let own = || global.iter().skip(settings.rank).step_by(settings.world).map(|&place| place as usize);
        wanted.extend(own().map(|place| self.rows[place]));
        let pages = match guarded(BROKEN, || settings.dataset.image_pages(&wanted)) {
            // One by one then, to find those that can be read.
            Err(_) if settings.on_error == OnError::Skip => Vec::new(),
            pages => pages?,
        };
        for (index, (&row, place)) in wanted.iter().zip(own()).enumerate() {
            let copy = self.repeats.get(place).map_or(0, |&count| u64::from(count));
            let record = buffers.rows.len();
            let image = &mut images[record * pixels..(record + 1) * pixels];
            let make = || {
                let sample = self.samples.of(row as usize)?;
                self.image(row as usize, pages.get(index), &sample, [epoch, copy], scratch, image)?;
                Ok(sample)
            };
            let made = guarded(BROKEN, make).map_err(|error| match error {
                Error::Invalid(message) => self.samples.refused(row as usize, &message),
                named => named,
            });
            let sample = match made {
                Ok(sample) => sample,
                Err(error) if settings.on_error == OnError::Skip => {
                    buffers.skipped.push(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            buffers.rows.push(row);
            buffers.labels.extend_from_slice(sample.labels);
            if settings.masks {
                buffers.masks.extend_from_slice(&scratch.mask);
            }
            buffers.boxes.extend(scratch.boxes.drain(..).map(|placed| PlacedBox { record, ..placed }));
            if let Some(text) = &settings.text {
                self.report(&sample, [epoch, copy], text, buffers);
            }
        }
        buffers.images = Some(memory);
        scratch.wanted = wanted;
        Ok(())
    }

    /// The random numbers for one purpose of one record; its copies in an epoch have their own.
    fn random(&self, purpose: &str, sample: &Sample, [epoch, copy]: [u64; 2]) -> Stream {
        let key = [self.settings.seed, random::digest(purpose), sample.digest, epoch, copy];
        Stream::new(if copy == 0 { &key[..4] } else { &key })
    }

    /// One image into `out`, its mask and boxes into the scratch.
    fn image(
        &self,
        row: usize,
        page: Option<&Bytes>,
        sample: &Sample,
        time: [u64; 2],
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<()> {
        let settings = &self.settings;
        let (height, width) = (sample.height, sample.width);
        if height == 0 || width == 0 {
            return Err(self.samples.refused(row, "the record has no image"));
        }
        settings.dataset.image_from(page, row, height, width, &mut scratch.pixels)?;
        let mut random = self.random("augment", sample, time);
        let source = (scratch.pixels.as_slice(), u32::from(width), u32::from(height));
        let geometry = settings.transform.geometry(source.1, source.2, &mut random)?;
        settings.transform.apply(source, &geometry, &mut scratch.resample, out)?;
        scratch.boxes.clear();
        scratch.boxes.extend(sample.boxes.iter().filter_map(|drawn| {
            let [x, y, width, height] = geometry.rectangle(drawn.place)?;
            Some(PlacedBox { record: 0, label: drawn.label.clone(), x, y, width, height })
        }));
        if settings.masks {
            scratch.mask.resize(out.len(), IGNORED);
            match sample.mask {
                None => scratch.mask.fill(IGNORED),
                Some(png) => {
                    let mut mask =
                        image_codec::decode_mask(png).map_err(|e| self.samples.refused(row, &e.to_string()))?;
                    if (mask.width, mask.height) != (source.1, source.2) {
                        return Err(self.samples.refused(row, "the mask has other sides than the image"));
                    }
                    mask.pixels.iter_mut().for_each(|level| *level = u8::from(*level > 0));
                    geometry.mask(&mask.pixels, source.1 as usize, &mut scratch.mask);
                }
            }
        }
        Ok(())
    }

    /// Appends one report, padded, whole and masked.
    fn report(&self, sample: &Sample, time: [u64; 2], text: &TextOptions, buffers: &mut Buffers) {
        let tokens = sample.token_ids;
        let kept = tokens.len().min(text.tokens);
        let start = buffers.target_ids.len();
        buffers.target_ids.extend(tokens[..kept].iter().map(|&id| i64::from(id)));
        buffers.target_ids.resize(start + text.tokens, masking::PAD);
        buffers.attention_mask.resize(start + kept, 1);
        buffers.attention_mask.resize(start + text.tokens, 0);
        buffers.token_ids.extend_from_slice(&buffers.target_ids[start..]);
        let mut random = self.random("mask", sample, time);
        let masked = &mut buffers.token_ids[start..];
        masking::mask_words(masked, &self.continuations, text.mask_ratio, || random.uniform());
    }
}

/// What is said where a decoder broke off: it costs the record, and no thread that others wait for.
const BROKEN: &str = "it cannot be decoded";

#[derive(Default)]
struct Scratch {
    /// Rows of the batch.
    wanted: Vec<u32>,
    pixels: Vec<u8>,
    resample: Resample,
    mask: Vec<u8>,
    boxes: Vec<PlacedBox>,
}

fn work(plan: &Plan, permits: &Receiver<()>, ready: &Sender<(u64, Result<Buffers>)>, pool: &Receiver<Buffers>) {
    let mut scratch = Scratch::default();
    // A permit before a number: the lowest number not yet made always has a thread at work on it.
    while permits.recv().is_ok() {
        let ticket = plan.next.fetch_add(1, Ordering::SeqCst);
        let mut buffers = pool.try_recv().unwrap_or_default();
        // A thread that ended with its number would keep the consumer waiting for good.
        let make = AssertUnwindSafe(|| plan.make(ticket, &mut buffers, &mut scratch));
        let made = catch_unwind(make).unwrap_or_else(|_| {
            scratch = Scratch::default();
            Err(Error::Invalid("loader: a batch cannot be made: a decoder broke off".to_owned()))
        });
        let made = made.map(|()| buffers);
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
    skipped: u64,
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
            boxes: false,
            masks: false,
            on_error: OnError::default(),
            memory: None,
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
        let (epoch, batch) = (self.next / self.plan.batches, self.next % self.plan.batches);
        LoaderState { epoch, batch, order: self.plan.digest }
    }

    /// Records that were left out so far because they could not be read ([`OnError::Skip`]).
    pub fn skipped(&self) -> u64 {
        self.skipped
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
                let buffers = made?;
                self.skipped += buffers.skipped.len() as u64;
                return Ok(Batch {
                    buffers,
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
