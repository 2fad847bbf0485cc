//! What each batch holds, and how it is made: order, augmentation, masking.
//!
//! A batch depends on the seed, the epoch and its number alone, so that the number of threads changes nothing but the
//! speed.

use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use rayon::prelude::*;

use crate::error::{Error, Result, guarded};
use crate::format::image_codec;
use crate::loader::batch::{Batch, BufferPool, Buffers, PlacedBox};
use crate::loader::crops::Crops;
use crate::loader::masking::{self, Continuations};
use crate::loader::order::{Draw, Order};
use crate::loader::part::Part;
use crate::loader::samples::Sample;
use crate::loader::settings::{OnError, Settings, TextOptions};
use crate::loader::state::LoaderState;
use crate::random::{self, Stream};
use crate::transform::choices::Workspace;
use crate::transform::geometry::IGNORED;
use crate::transform::windowed::StoredImage;

/// A loader's work, shared by its threads.
pub(crate) struct Plan {
    pub settings: Settings,
    /// The datasets; one where it is no mixture.
    pub parts: Vec<Part>,
    /// Names of the columns of a batch's labels.
    pub findings: Vec<String>,
    pub continuations: Continuations,
    pub crops: Crops,
    /// Batches of an epoch.
    pub batches: u64,
    /// The [`order`](crate::LoaderState::order) of this loader's states.
    pub digest: u64,
    /// Next batch to be made, counted from epoch 0.
    pub next: AtomicU64,
    pub order: Order,
}

impl Plan {
    /// The number of a state's batch, counted from epoch 0.
    ///
    /// # Errors
    /// When the state belongs to another order, or has no such batch.
    pub fn position(&self, state: &LoaderState) -> Result<u64> {
        if state.order != 0 && state.order != self.digest {
            return Err(Error::State(
                "it belongs to other records, or another batch size, seed or policy; use those of the run that saved it"
                    .to_owned(),
            ));
        }
        if !state.drawn.is_empty() && !self.order.is_mixed() {
            return Err(Error::State("it is that of a mixture of datasets".to_owned()));
        }
        if self.order.is_mixed() && state.batch >= self.batches && !state.drawn.is_empty() {
            // With other weights, an epoch may be shorter than what was seen of it.
            let next = LoaderState { epoch: state.epoch.saturating_add(1), batch: 0, ..state.clone() };
            return self.position(&next);
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

    /// The position before the batch of a number.
    ///
    /// # Errors
    /// When there is no memory for the order of its epoch.
    pub fn state(&self, index: u64) -> Result<LoaderState> {
        let (epoch, batch) = (index / self.batches, index % self.batches);
        Ok(LoaderState { epoch, batch, order: self.digest, drawn: self.order.drawn(epoch, batch)? })
    }

    /// Makes the batch of a number the next one, with the counts of a state.
    ///
    /// # Errors
    /// When the counts are impossible.
    pub fn continue_from(&self, index: u64, drawn: &[u64]) -> Result<()> {
        if !drawn.is_empty() {
            self.order.continue_from(index / self.batches, index % self.batches, drawn)?;
        }
        Ok(())
    }

    /// The finished batch of a number, counted from epoch 0.
    pub fn batch(&self, buffers: Buffers, index: u64, pool: &BufferPool) -> Batch {
        Batch {
            buffers,
            size: self.settings.transform.size as usize,
            tokens: self.settings.text.as_ref().map_or(0, |text| text.tokens),
            crops: self.crops.places().to_vec(),
            pool: pool.returns(),
            epoch: index / self.batches,
            number: index % self.batches,
        }
    }

    /// Makes the batch of a number, counted from epoch 0.
    pub fn make(&self, index: u64, buffers: &mut Buffers, scratch: &mut Scratch) -> Result<()> {
        let (epoch, number) = (index / self.batches, (index % self.batches) as usize);
        let settings = &self.settings;
        let pixels = (settings.transform.size as usize).pow(2);
        let share = settings.batch_size.min(self.order.records()).div_ceil(settings.world_size);
        let room = share * (pixels + self.crops.floats());
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
        let mut draws = std::mem::take(&mut scratch.draws);
        self.order.draws(epoch, number, (settings.rank, settings.world_size), &mut draws)?;
        let mut pages = match guarded(BROKEN, || self.image_pages(&draws)) {
            // They are read one by one then, which finds those that can be read.
            Err(_) if settings.on_error == OnError::Skip => Vec::new(),
            pages => pages?,
        };
        for (index, draw) in draws.iter().enumerate() {
            let part = &self.parts[usize::from(draw.source)];
            let row = part.rows[draw.position as usize];
            let time = [draw.pass, part.copy_of(draw.position as usize)];
            let page = pages.get_mut(index).and_then(Option::take);
            let record = buffers.rows.len();
            let make = || {
                let sample = part.samples.of(row as usize)?;
                let image = &mut images[record * pixels..(record + 1) * pixels];
                self.image(part, row as usize, page.as_ref(), &sample, time, scratch, image)?;
                let stored = stored_image(&scratch.pixels, &sample);
                let stream = |name: &str| self.random(name, &sample, time);
                self.crops.make(stored, record, stream, &mut scratch.workspace, images)?;
                Ok(sample)
            };
            let made = guarded(BROKEN, make).map_err(|error| match error {
                Error::Invalid(message) => part.samples.row_error(row as usize, &message),
                other => other,
            });
            let sample = match made.map_err(|error| part.source.error(error, self.order.is_mixed())) {
                Ok(sample) => sample,
                Err(error) if settings.on_error == OnError::Skip => {
                    buffers.skipped.push(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            buffers.rows.push(row);
            buffers.sources.push(draw.source);
            part.add_labels(&sample, self.findings.len(), &mut buffers.labels);
            if settings.masks {
                buffers.masks.extend_from_slice(&scratch.mask);
            }
            buffers.boxes.extend(scratch.boxes.drain(..).map(|placed| PlacedBox { record, ..placed }));
            if let Some(text) = &settings.text {
                self.report(&sample, time, text, buffers);
            }
        }
        buffers.images = Some(memory);
        scratch.draws = draws;
        Ok(())
    }

    /// The pages of the images of some records, fetched at the same time; none of datasets in folders, whose images are best
    /// read one by one.
    fn image_pages(&self, draws: &[Draw]) -> Result<Vec<Option<Bytes>>> {
        if self.parts.iter().all(|part| part.source.dataset.storage().as_folder().is_some()) {
            return Ok(Vec::new());
        }
        let of_part = |(number, part): (usize, &Part)| -> Result<Vec<Bytes>> {
            let own = draws.iter().filter(|draw| usize::from(draw.source) == number);
            let rows: Vec<u32> = own.map(|draw| part.rows[draw.position as usize]).collect();
            let pages = part.source.dataset.image_pages(&rows);
            pages.map_err(|error| part.source.error(error, self.order.is_mixed()))
        };
        // Each store answers while the others do.
        let pages: Vec<_> = self.parts.par_iter().enumerate().map(of_part).collect::<Result<_>>()?;
        let mut pages: Vec<_> = pages.into_iter().map(Vec::into_iter).collect();
        Ok(draws.iter().map(|draw| pages[usize::from(draw.source)].next()).collect())
    }

    /// The random stream of one record for one purpose; each of its copies in an epoch has an own one.
    fn random(&self, purpose: &str, sample: &Sample, [epoch, copy]: [u64; 2]) -> Stream {
        let key = [self.settings.seed, random::digest(purpose), sample.digest, epoch, copy];
        Stream::new(if copy == 0 { &key[..4] } else { &key })
    }

    /// Writes one image into `out` `[S, S]`, its mask and boxes into the scratch memory.
    #[expect(clippy::too_many_arguments, reason = "the record, its random streams, and where it is written")]
    fn image(
        &self,
        part: &Part,
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
            return Err(part.samples.row_error(row, "the record has no image"));
        }
        part.source.dataset.decode_image(page, row, (height, width), &mut scratch.pixels)?;
        let stored = stored_image(&scratch.pixels, sample);
        let (stored_width, stored_height) = (stored.width, stored.height);
        let choices = settings.transform.choose(stored_width, stored_height, |name| self.random(name, sample, time))?;
        settings.transform.apply_stored(stored, &choices, &mut scratch.workspace, out)?;
        scratch.boxes.clear();
        scratch.boxes.extend(sample.boxes.iter().filter_map(|stored| {
            let [x, y, width, height] = choices.rectangle(stored.rectangle)?;
            Some(PlacedBox { record: 0, label: stored.label.clone(), x, y, width, height })
        }));
        if settings.masks {
            scratch.mask.resize(out.len(), IGNORED);
            match sample.mask {
                None => scratch.mask.fill(IGNORED),
                Some(png) => {
                    let mut mask =
                        image_codec::decode_mask(png).map_err(|e| part.samples.row_error(row, &e.to_string()))?;
                    if (mask.width, mask.height) != (stored_width, stored_height) {
                        return Err(part.samples.row_error(row, "its mask has another size than its image"));
                    }
                    mask.pixels.iter_mut().for_each(|level| *level = u8::from(*level > 0));
                    choices.mask(&mask.pixels, stored_width as usize, &mut scratch.workspace, &mut scratch.mask);
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

/// The image of a record, as its transform takes it.
fn stored_image<'a>(pixels: &'a [u8], sample: &Sample) -> StoredImage<'a> {
    StoredImage { pixels, width: sample.width.into(), height: sample.height.into(), window: sample.window }
}

/// The error of a record whose decoder panicked.
pub(crate) const BROKEN: &str = "it cannot be decoded";

/// Memory of a thread that is used again for each record.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Records of the batch.
    draws: Vec<Draw>,
    pixels: Vec<u8>,
    workspace: Workspace,
    mask: Vec<u8>,
    boxes: Vec<PlacedBox>,
}
