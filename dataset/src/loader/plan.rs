//! What each batch holds, and how it is made: order, augmentation, masking.
//!
//! A batch depends on the seed, the epoch and its number alone, so that the number of threads changes nothing but the
//! speed.

use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use rayon::prelude::*;

use crate::error::{Error, Result, guarded};
use crate::format::image_codec;
use crate::loader::batch::Batch;
use crate::loader::buffers::{BufferPool, Buffers, HostBuffer, PlacedBox};
use crate::loader::crops::Crops;
use crate::loader::order::{Draw, Order};
use crate::loader::part::Part;
use crate::loader::samples::Sample;
use crate::loader::settings::{OnError, Settings};
use crate::loader::state::LoaderState;
use crate::loader::studies::Slot;
use crate::loader::text_rows::TextRows;
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
    pub texts: TextRows,
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
            slots: self.settings.slots(),
            tokens: self.texts.texts.iter().map(|(_, options)| options.tokens).collect(),
            crops: self.crops.places().to_vec(),
            pool: pool.returns(),
            epoch: index / self.batches,
            number: index % self.batches,
        }
    }

    /// Whether images come from a store, so that [`Plan::fetch`] gives pages.
    pub fn is_remote(&self) -> bool {
        self.parts.iter().any(Part::is_remote)
    }

    /// The pages of the images of a batch, fetched at the same time; none of those that are on this machine, in a folder or in
    /// the cache of a store, which are best read one by one.
    pub fn fetch(&self, index: u64) -> Result<Pages> {
        if !self.is_remote() {
            return Ok(Pages::new());
        }
        let fetch = || {
            let (mut draws, mut slots) = (Vec::new(), Vec::new());
            self.draw(index, &mut draws, &mut slots)?;
            self.image_pages(&draws, &slots)
        };
        match guarded(BROKEN, fetch) {
            // They are read one by one then, which finds those that can be read.
            Err(_) if self.settings.on_error == OnError::Skip => Ok(Pages::new()),
            pages => pages,
        }
    }

    /// The samples of a batch, and their slots.
    fn draw(&self, index: u64, draws: &mut Vec<Draw>, slots: &mut Vec<Slot>) -> Result<()> {
        let (epoch, number) = (index / self.batches, (index % self.batches) as usize);
        let settings = &self.settings;
        self.order.draws(epoch, number, (settings.rank, settings.world_size), draws)?;
        slots.clear();
        for draw in draws {
            self.parts[usize::from(draw.source)].add_slots(draw, settings.seed, slots);
        }
        Ok(())
    }

    /// Makes the batch of a number, counted from epoch 0, of its pages ([`Plan::fetch`]).
    pub fn make(&self, index: u64, mut pages: Pages, buffers: &mut Buffers, scratch: &mut Scratch) -> Result<()> {
        let settings = &self.settings;
        let slots_of_sample = settings.slots();
        let mut memory = self.memory(buffers)?;
        let images = memory.as_mut_slice();
        buffers.clear();
        buffers.texts.resize_with(self.texts.texts.len(), Default::default);
        let (mut draws, mut slots) = (std::mem::take(&mut scratch.draws), std::mem::take(&mut scratch.slots));
        self.draw(index, &mut draws, &mut slots)?;
        let mut samples = Vec::new();
        for (index, draw) in draws.iter().enumerate() {
            let part = &self.parts[usize::from(draw.source)];
            let places = index * slots_of_sample..(index + 1) * slots_of_sample;
            let pages = pages.get_mut(places.clone()).unwrap_or_default();
            let boxes = buffers.boxes.len();
            samples.clear();
            let out = (&mut *images, &mut *buffers);
            let made = self.sample(part, draw, (&slots[places], pages), scratch, out, &mut samples);
            if let Err(error) = made.map_err(|error| part.source.error(error, self.order.is_mixed())) {
                if settings.on_error == OnError::Stop {
                    return Err(error);
                }
                buffers.drop_unfinished(slots_of_sample, self.pixels(), boxes);
                buffers.skipped.push(error);
                continue;
            }
            buffers.rows.push(scratch.rows[0]);
            buffers.sources.push(draw.source);
            part.add_labels(&samples, self.findings.len(), &mut buffers.labels);
            let time = [draw.pass, part.copy_of(draw.position as usize)];
            self.texts.write(&samples, |name, record| self.random(name, record, time), &mut buffers.texts);
        }
        buffers.images = Some(memory);
        (scratch.draws, scratch.slots) = (draws, slots);
        Ok(())
    }

    /// Pixels of an image.
    fn pixels(&self) -> usize {
        (self.settings.transform.size as usize).pow(2)
    }

    /// Memory with room for the images and crops of a full batch.
    fn memory(&self, buffers: &mut Buffers) -> Result<Box<dyn HostBuffer>> {
        let settings = &self.settings;
        let share = settings.batch_size.min(self.order.records()).div_ceil(settings.world_size);
        let room = share * settings.slots() * (self.pixels() + self.crops.floats());
        let memory = match (buffers.images.take(), &settings.memory) {
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
        if memory.as_slice().len() < room {
            return Err(Error::Invalid(format!(
                "loader: the memory has {} floats, {room} are needed",
                memory.as_slice().len()
            )));
        }
        Ok(memory)
    }

    /// Reads the records of a drawn sample into `samples`, their rows into the scratch memory, and writes its images with all
    /// that belongs to them.
    fn sample<'a>(
        &self,
        part: &'a Part,
        draw: &Draw,
        (slots, pages): (&[Slot], &mut [Option<Bytes>]),
        scratch: &mut Scratch,
        (images, buffers): (&mut [f32], &mut Buffers),
        samples: &mut Vec<Sample<'a>>,
    ) -> Result<()> {
        let (record, pixels) = (buffers.rows.len(), self.pixels());
        scratch.rows.clear();
        part.add_rows(draw.position as usize, &mut scratch.rows);
        for &row in &scratch.rows {
            samples.push(of_row(part, row, || part.samples.of(row as usize))?);
        }
        let mut has_image = false;
        for (number, slot) in slots.iter().enumerate() {
            let at = record * slots.len() + number;
            let mut is_seen = false;
            if let Some(row) = slot.row {
                let (page, time) = (pages.get_mut(number).and_then(Option::take), [draw.pass, slot.copy]);
                let mut buffer = std::mem::take(&mut scratch.pixels);
                let seen = of_row(part, row, || {
                    let other;
                    let sample = if let Some(own) = slot.own.and_then(|own| samples.get(own)) {
                        own
                    } else {
                        other = part.samples.of(row as usize)?;
                        &other
                    };
                    if part.is_text_only && sample.height == 0 {
                        return Ok(false);
                    }
                    let stored = stored_image(part, row as usize, page.as_ref(), sample, &mut buffer)?;
                    let image = &mut images[at * pixels..(at + 1) * pixels];
                    self.image(part, row as usize, stored, sample, time, scratch, image)?;
                    let stream = |name: &str| self.random(name, sample, time);
                    self.crops.make(stored, at, stream, &mut scratch.workspace, images)?;
                    Ok(true)
                });
                scratch.pixels = buffer;
                is_seen = seen?;
            }
            if is_seen {
                let place = |placed: PlacedBox| PlacedBox { record, slot: number, ..placed };
                buffers.boxes.extend(scratch.boxes.drain(..).map(place));
            } else {
                images[at * pixels..(at + 1) * pixels].fill(0.0);
                self.crops.clear(at, images);
                scratch.mask.clear();
                scratch.mask.resize(if self.settings.masks { pixels } else { 0 }, IGNORED);
            }
            if self.settings.masks {
                buffers.masks.extend_from_slice(&scratch.mask);
            }
            if self.settings.studies.is_some() {
                buffers.views.push(is_seen, slot);
            }
            has_image |= is_seen;
        }
        buffers.has_image.push(u8::from(has_image));
        Ok(())
    }

    /// The pages of the images of some samples, fetched at the same time, by slot.
    fn image_pages(&self, draws: &[Draw], slots: &[Slot]) -> Result<Pages> {
        let slots_of_sample = self.settings.slots();
        let source = |slot: usize| usize::from(draws[slot / slots_of_sample].source);
        let has_page = |slot: usize| slots[slot].row.filter(|_| !self.parts[source(slot)].is_text_only);
        let of_part = |(number, part): (usize, &Part)| -> Result<Vec<Option<Bytes>>> {
            // The images and columns of a folder are best read when they are needed.
            if !part.is_remote() {
                return Ok(Vec::new());
            }
            let own = (0..slots.len()).filter(|&slot| source(slot) == number);
            let rows: Vec<u32> = own.filter_map(has_page).collect();
            part.samples.read_ahead(&rows);
            let pages = part.source.dataset.image_pages(&rows);
            pages.map_err(|error| part.source.error(error, self.order.is_mixed()))
        };
        // Each store answers while the others do.
        let pages: Vec<_> = match self.parts.as_slice() {
            [part] => vec![of_part((0, part))?],
            parts => parts.par_iter().enumerate().map(of_part).collect::<Result<_>>()?,
        };
        let mut pages: Vec<_> = pages.into_iter().map(Vec::into_iter).collect();
        let next = |slot: usize| has_page(slot).and_then(|_| pages[source(slot)].next()).flatten();
        Ok((0..slots.len()).map(next).collect())
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
        stored: StoredImage,
        sample: &Sample,
        time: [u64; 2],
        scratch: &mut Scratch,
        out: &mut [f32],
    ) -> Result<()> {
        let settings = &self.settings;
        let (stored_width, stored_height) = (stored.width, stored.height);
        let choices = settings.transform.choose(stored_width, stored_height, |name| self.random(name, sample, time))?;
        settings.transform.apply_stored(stored, &choices, &mut scratch.workspace, out)?;
        scratch.boxes.clear();
        scratch.boxes.extend(sample.boxes.iter().filter_map(|stored| {
            let [x, y, width, height] = choices.rectangle(stored.rectangle)?;
            Some(PlacedBox { record: 0, slot: 0, label: stored.label.clone(), x, y, width, height })
        }));
        if settings.masks {
            scratch.mask.resize(out.len(), IGNORED);
            match sample.mask {
                None => scratch.mask.fill(IGNORED),
                Some(png) => {
                    let mut mask = image_codec::decode_mask(png, (sample.height, sample.width))
                        .map_err(|e| part.samples.row_error(row, &e.to_string()))?;
                    mask.pixels.iter_mut().for_each(|level| *level = u8::from(*level > 0));
                    choices.mask(&mask.pixels, stored_width as usize, &mut scratch.workspace, &mut scratch.mask);
                }
            }
        }
        Ok(())
    }
}

/// Does what belongs to a row; its errors name the row.
fn of_row<T>(part: &Part, row: u32, work: impl FnOnce() -> Result<T>) -> Result<T> {
    guarded(BROKEN, work).map_err(|error| match error {
        Error::Invalid(message) => part.samples.row_error(row as usize, &message),
        other => other,
    })
}

/// The page of the image of each slot of a batch, where it was fetched: not where it is on this machine.
pub(crate) type Pages = Vec<Option<Bytes>>;

/// The image of a record, as its transform takes it: in its page, where that was fetched, or decoded into the buffer.
fn stored_image<'a>(
    part: &Part,
    row: usize,
    page: Option<&'a Bytes>,
    sample: &Sample,
    buffer: &'a mut Vec<u8>,
) -> Result<StoredImage<'a>> {
    let (height, width) = (sample.height, sample.width);
    if height == 0 || width == 0 {
        return Err(part.samples.row_error(row, "the record has no image"));
    }
    let pixels = part.source.dataset.decode_image(page, row, (height, width), buffer)?;
    Ok(StoredImage { pixels, width: width.into(), height: height.into(), window: sample.window })
}

/// The error of a record whose decoder panicked.
pub(crate) const BROKEN: &str = "it cannot be decoded";

/// Memory of a thread that is used again for each record.
#[derive(Default)]
pub(crate) struct Scratch {
    /// Samples of the batch.
    draws: Vec<Draw>,
    /// Their slots.
    slots: Vec<Slot>,
    /// Rows of a sample.
    rows: Vec<u32>,
    pixels: Vec<u8>,
    workspace: Workspace,
    mask: Vec<u8>,
    boxes: Vec<PlacedBox>,
}
