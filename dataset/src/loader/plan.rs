//! What each batch holds, and how it is made: order, augmentation, masking.
//!
//! A batch depends on the seed, the epoch and its number alone, so that the number of threads changes nothing but the
//! speed.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::error::{Error, Result, guarded};
use crate::format::image_codec;
use crate::loader::batch::{Batch, BufferPool, Buffers, PlacedBox};
use crate::loader::masking::{self, Continuations};
use crate::loader::samples::{Sample, Samples};
use crate::loader::settings::{OnError, Settings, TextOptions};
use crate::loader::state::LoaderState;
use crate::random::{self, Stream};
use crate::transform::geometry::IGNORED;
use crate::transform::resample::Resample;

/// A loader's work, shared by its threads.
pub(crate) struct Plan {
    pub settings: Settings,
    pub rows: Vec<u32>,
    /// How often the row of each position occurs before it: what distinguishes the copies of a record. Empty without
    /// copies.
    pub repeats: Vec<u32>,
    pub samples: Samples,
    pub continuations: Continuations,
    /// Batches of an epoch.
    pub batches: u64,
    /// The [`order`](crate::LoaderState::order) of this loader's states.
    pub digest: u64,
    /// Next batch to be made, counted from epoch 0.
    pub next: AtomicU64,
    /// Orders of the current epochs, as positions in `rows`.
    pub order: Mutex<BTreeMap<u64, Arc<Vec<u32>>>>,
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
        // Threads are at most a few batches apart, so that no more than two epochs are in use.
        orders.retain(|&known, _| known + 1 >= epoch);
        orders.insert(epoch, order.clone());
        order
    }

    /// The number of a state's batch, counted from epoch 0.
    ///
    /// # Errors
    /// When the state belongs to another order, or has no such batch.
    pub fn position(&self, state: LoaderState) -> Result<u64> {
        if state.order != 0 && state.order != self.digest {
            return Err(Error::State(
                "it belongs to other records, or another batch size, seed or policy; use those of the run that saved it"
                    .to_owned(),
            ));
        }
        let position = state.epoch.checked_mul(self.batches).and_then(|first| first.checked_add(state.batch));
        // Half of all numbers: there is always a next one.
        position.filter(|&position| state.batch < self.batches && position < u64::MAX / 2).ok_or_else(|| {
            Error::State(format!(
                "batch {} of epoch {}, but an epoch has {} batches",
                state.batch, state.epoch, self.batches
            ))
        })
    }

    /// The finished batch of a number, counted from epoch 0.
    pub fn batch(&self, buffers: Buffers, index: u64, pool: &BufferPool) -> Batch {
        Batch {
            buffers,
            size: self.settings.transform.size as usize,
            tokens: self.settings.text.as_ref().map_or(0, |text| text.tokens),
            pool: pool.returns(),
            epoch: index / self.batches,
            number: index % self.batches,
        }
    }

    /// Makes the batch of a number, counted from epoch 0.
    pub fn make(&self, index: u64, buffers: &mut Buffers, scratch: &mut Scratch) -> Result<()> {
        let (epoch, number) = (index / self.batches, (index % self.batches) as usize);
        let settings = &self.settings;
        let order = self.order_of(epoch);
        let end = order.len().min((number + 1) * settings.batch_size);
        let global = &order[number * settings.batch_size..end];
        let pixels = (settings.transform.size as usize).pow(2);
        let room = settings.batch_size.min(self.rows.len()).div_ceil(settings.world_size) * pixels;
        let mut memory = match (buffers.images.take(), &settings.memory) {
            (Some(memory), _) => memory,
            (None, Some(memory)) => memory(room),
            (None, None) => {
                // Allocates and frees: a failed allocation of the zeros themselves would end the process.
                Vec::<f32>::new().try_reserve_exact(room).map_err(|_| {
                    Error::Invalid(format!(
                        "loader: no memory for a batch of {:.1} GB: take a smaller batch or smaller images",
                        room as f64 * 4e-9
                    ))
                })?;
                Box::new(vec![0.0; room])
            }
        };
        let images = memory.as_mut_slice();
        if images.len() < room {
            return Err(Error::Invalid(format!("loader: the memory has {} floats, {room} are needed", images.len())));
        }
        buffers.clear();
        let mut wanted = std::mem::take(&mut scratch.wanted);
        wanted.clear();
        let own = || global.iter().skip(settings.rank).step_by(settings.world_size).map(|&position| position as usize);
        wanted.extend(own().map(|position| self.rows[position]));
        let pages = match guarded(BROKEN, || settings.dataset.image_pages(&wanted)) {
            // They are read one by one then, which finds those that can be read.
            Err(_) if settings.on_error == OnError::Skip => Vec::new(),
            pages => pages?,
        };
        for (index, (&row, position)) in wanted.iter().zip(own()).enumerate() {
            let copy = self.repeats.get(position).map_or(0, |&count| u64::from(count));
            let record = buffers.rows.len();
            let image = &mut images[record * pixels..(record + 1) * pixels];
            let make = || {
                let sample = self.samples.of(row as usize)?;
                self.image(row as usize, pages.get(index), &sample, [epoch, copy], scratch, image)?;
                Ok(sample)
            };
            let made = guarded(BROKEN, make).map_err(|error| match error {
                Error::Invalid(message) => self.samples.row_error(row as usize, &message),
                other => other,
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

    /// The random stream of one record for one purpose; each of its copies in an epoch has an own one.
    fn random(&self, purpose: &str, sample: &Sample, [epoch, copy]: [u64; 2]) -> Stream {
        let key = [self.settings.seed, random::digest(purpose), sample.digest, epoch, copy];
        Stream::new(if copy == 0 { &key[..4] } else { &key })
    }

    /// Writes one image into `out` `[S, S]`, its mask and boxes into the scratch memory.
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
            return Err(self.samples.row_error(row, "the record has no image"));
        }
        settings.dataset.decode_image(page, row, (height, width), &mut scratch.pixels)?;
        let mut random = self.random("augment", sample, time);
        let source = (scratch.pixels.as_slice(), u32::from(width), u32::from(height));
        let geometry = settings.transform.geometry(source.1, source.2, &mut random)?;
        settings.transform.apply(source, &geometry, &mut scratch.resample, out)?;
        scratch.boxes.clear();
        scratch.boxes.extend(sample.boxes.iter().filter_map(|stored| {
            let [x, y, width, height] = geometry.rectangle(stored.rectangle)?;
            Some(PlacedBox { record: 0, label: stored.label.clone(), x, y, width, height })
        }));
        if settings.masks {
            scratch.mask.resize(out.len(), IGNORED);
            match sample.mask {
                None => scratch.mask.fill(IGNORED),
                Some(png) => {
                    let mut mask =
                        image_codec::decode_mask(png).map_err(|e| self.samples.row_error(row, &e.to_string()))?;
                    if (mask.width, mask.height) != (source.1, source.2) {
                        return Err(self.samples.row_error(row, "its mask has another size than its image"));
                    }
                    mask.pixels.iter_mut().for_each(|level| *level = u8::from(*level > 0));
                    geometry.mask(&mask.pixels, source.1 as usize, &mut scratch.mask);
                }
            }
        }
        Ok(())
    }

    /// Appends one report, padded, with and without masks.
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

/// How often each row occurs before its position; empty where none occurs twice.
pub(crate) fn repeats(rows: &[u32]) -> Vec<u32> {
    let mut seen: HashMap<u32, u32> = HashMap::with_capacity(rows.len());
    let before = |&row| {
        let count = seen.entry(row).or_insert(0);
        *count += 1;
        *count - 1
    };
    let repeats: Vec<u32> = rows.iter().map(before).collect();
    if repeats.iter().all(|&count| count == 0) { Vec::new() } else { repeats }
}

/// The error of a record whose decoder panicked.
pub(crate) const BROKEN: &str = "it cannot be decoded";

/// Memory of a thread that is used again for each record.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Rows of the batch.
    wanted: Vec<u32>,
    pixels: Vec<u8>,
    resample: Resample,
    mask: Vec<u8>,
    boxes: Vec<PlacedBox>,
}
