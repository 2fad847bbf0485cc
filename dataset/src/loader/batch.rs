//! Batches: the records of a step, in buffers that return to the loader and are used again.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};

use crate::error::Error;
use crate::loader::crops::CropPlace;
use crate::loader::masking;
use crate::random::{Stream, digest};

/// Memory of the host that the pixels of batches are written to. `Vec<f32>` implements it; a trainer may implement it for
/// memory that its device reads faster, such as pinned memory (see
/// [`LoaderBuilder::memory`](crate::loader::LoaderBuilder::memory)).
pub trait HostBuffer: Send {
    /// The whole buffer, for reading.
    fn as_slice(&self) -> &[f32];
    /// The whole buffer, for writing.
    fn as_mut_slice(&mut self) -> &mut [f32];
}

impl HostBuffer for Vec<f32> {
    fn as_slice(&self) -> &[f32] {
        self
    }

    fn as_mut_slice(&mut self) -> &mut [f32] {
        self
    }
}

/// A box of a source, in pixels of the transformed image, clipped to it.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedBox {
    /// Position of its record within the batch.
    pub record: usize,
    /// What the source calls it.
    pub label: Arc<str>,
    /// Left edge.
    pub x: f32,
    /// Upper edge.
    pub y: f32,
    /// Width in pixels.
    pub width: f32,
    /// Height in pixels.
    pub height: f32,
}

/// The buffers of a batch.
#[derive(Default)]
pub(crate) struct Buffers {
    pub rows: Vec<u32>,
    pub sources: Vec<u16>,
    /// Room for the images of a full batch, then for its crops.
    pub images: Option<Box<dyn HostBuffer>>,
    pub masks: Vec<u8>,
    pub boxes: Vec<PlacedBox>,
    pub token_ids: Vec<i64>,
    pub target_ids: Vec<i64>,
    pub attention_mask: Vec<i64>,
    pub labels: Vec<f32>,
    pub skipped: Vec<Error>,
}

impl Buffers {
    /// Removes all records and keeps the memory.
    pub fn clear(&mut self) {
        for list in [&mut self.token_ids, &mut self.target_ids, &mut self.attention_mask] {
            list.clear();
        }
        self.rows.clear();
        self.sources.clear();
        self.labels.clear();
        self.masks.clear();
        self.boxes.clear();
        self.skipped.clear();
    }
}

/// Buffers of dropped batches, to be used again.
#[derive(Clone)]
pub(crate) struct BufferPool {
    sender: Sender<Buffers>,
    receiver: Receiver<Buffers>,
}

impl BufferPool {
    /// Keeps so many buffers.
    pub fn new(buffers: usize) -> Self {
        let (sender, receiver) = crossbeam_channel::bounded(buffers);
        Self { sender, receiver }
    }

    /// Used buffers, or new ones.
    pub fn take(&self) -> Buffers {
        self.receiver.try_recv().unwrap_or_default()
    }

    /// Keeps buffers where there is room, else frees them.
    pub fn give_back(&self, buffers: Buffers) {
        let _ = self.sender.try_send(buffers);
    }

    /// The way of buffers to the pool. When the pool is dropped, they are freed.
    pub fn returns(&self) -> Sender<Buffers> {
        self.sender.clone()
    }
}

/// The arrays of a batch, to be written to or to be lent to another language. Shapes as in [`Batch`].
pub struct BatchArrays<'a> {
    /// As [`Batch::images`].
    pub images: &'a mut [f32],
    /// As [`Batch::crops`], by group.
    pub crops: Vec<&'a mut [f32]>,
    /// As [`Batch::masks`].
    pub masks: &'a mut [u8],
    /// As [`Batch::token_ids`].
    pub token_ids: &'a mut [i64],
    /// As [`Batch::target_ids`].
    pub target_ids: &'a mut [i64],
    /// As [`Batch::attention_mask`].
    pub attention_mask: &'a mut [i64],
    /// As [`Batch::labels`].
    pub labels: &'a mut [f32],
    /// As [`Batch::rows`].
    pub rows: &'a mut [u32],
}

/// One batch. In shapes, `B` is [`Batch::len`], `S` the transform's size, `L` [`Batch::tokens`], `C` the number of
/// [`Loader::findings`](crate::Loader::findings). Arrays are row-major.
pub struct Batch {
    pub(crate) buffers: Buffers,
    pub(crate) size: usize,
    pub(crate) tokens: usize,
    /// Where each group of crops is in the memory of the images.
    pub(crate) crops: Vec<CropPlace>,
    /// Takes the buffers when the batch is dropped.
    pub(crate) pool: Sender<Buffers>,
    /// Epoch that the batch belongs to, from 0 on.
    pub epoch: u64,
    /// Number of the batch within its epoch.
    pub number: u64,
}

impl Batch {
    /// A batch of noise for benchmarks, which needs no dataset. Pixels are uniform with mean 0 and standard deviation 1.
    /// Reports have `tokens` ids below `vocabulary`; the last three tenths are padding, and half of the others are masked.
    pub fn noise(records: usize, size: usize, tokens: usize, vocabulary: i64, seed: u64) -> Self {
        let mut random = Stream::new(&[seed, digest("noise")]);
        let spread = 12f32.sqrt();
        let images: Vec<f32> = (0..records * size * size).map(|_| (random.uniform() as f32 - 0.5) * spread).collect();
        let (mut token_ids, mut target_ids, mut attention_mask) = (Vec::new(), Vec::new(), Vec::new());
        for at in 0..records * tokens {
            let padding = at % tokens * 10 >= tokens * 7;
            let first = masking::MASK + 1;
            let target =
                if padding { masking::PAD } else { first + random.below((vocabulary - first).max(1) as u64) as i64 };
            let masked = !padding && random.uniform() < 0.5;
            target_ids.push(target);
            token_ids.push(if masked { masking::MASK } else { target });
            attention_mask.push(i64::from(!padding));
        }
        let buffers = Buffers {
            rows: (0..records as u32).collect(),
            sources: vec![0; records],
            images: Some(Box::new(images)),
            token_ids,
            target_ids,
            attention_mask,
            ..Buffers::default()
        };
        Self { buffers, size, tokens, crops: Vec::new(), pool: crossbeam_channel::bounded(0).0, epoch: 0, number: 0 }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.buffers.rows.len()
    }

    /// Whether there is no record: all were skipped, or the last batch of an epoch has none for this rank.
    pub fn is_empty(&self) -> bool {
        self.buffers.rows.is_empty()
    }

    /// The dataset of each record, `[B]`: its number in the mixture; 0 for all of a dataset alone.
    pub fn sources(&self) -> &[u16] {
        &self.buffers.sources
    }

    /// Rows of the dataset, `[B]`; in a mixture, each is a row of its dataset ([`Batch::sources`]).
    pub fn rows(&self) -> &[u32] {
        &self.buffers.rows
    }

    /// Normalized gray pixels, `[B, 1, S, S]`.
    pub fn images(&self) -> &[f32] {
        let pixels = self.buffers.images.as_ref().map_or(&[][..], |images| images.as_slice());
        &pixels[..self.len() * self.size * self.size]
    }

    /// Normalized gray pixels of a group of crops, `[B, n, 1, S, S]`, with the group's number of crops n and its side S; empty
    /// where [`LoaderBuilder::crops`](crate::loader::LoaderBuilder::crops) has no such group.
    pub fn crops(&self, group: usize) -> &[f32] {
        match (self.crops.get(group), &self.buffers.images) {
            (Some(place), Some(memory)) => &memory.as_slice()[place.start..][..self.len() * place.floats()],
            _ => &[],
        }
    }

    /// Number and side in pixels of the crops of each group.
    pub fn crop_shapes(&self) -> impl ExactSizeIterator<Item = (usize, usize)> {
        self.crops.iter().map(|place| (place.count, place.size))
    }

    /// Side of the images in pixels, S.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Classes of the pixels, `[B, S, S]`: 1 inside the mask, 0 outside, [`IGNORED`](crate::transform::geometry::IGNORED)
    /// beside the image and for records without a mask. Empty unless
    /// [`LoaderBuilder::masks`](crate::loader::LoaderBuilder::masks) is set.
    pub fn masks(&self) -> &[u8] {
        &self.buffers.masks
    }

    /// Boxes of all records, in their order. Empty unless [`LoaderBuilder::boxes`](crate::loader::LoaderBuilder::boxes) is
    /// set.
    pub fn boxes(&self) -> &[PlacedBox] {
        &self.buffers.boxes
    }

    /// Number of tokens of each report, L; 0 where reports are not loaded.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Token ids after masking, `[B, L]`: the input of a model.
    pub fn token_ids(&self) -> &[i64] {
        &self.buffers.token_ids
    }

    /// Token ids before masking, `[B, L]`: the reconstruction targets.
    pub fn target_ids(&self) -> &[i64] {
        &self.buffers.target_ids
    }

    /// 1 for tokens, 0 for padding, `[B, L]`.
    pub fn attention_mask(&self) -> &[i64] {
        &self.buffers.attention_mask
    }

    /// Positions within the batch, ascending, of the records with a report: those that have a token after `[CLS]`.
    pub fn with_report(&self) -> Vec<usize> {
        let has_report = |record: &usize| self.attention_mask().get(record * self.tokens + 1) == Some(&1);
        (0..self.len()).filter(|record| self.tokens > 1 && has_report(record)).collect()
    }

    /// Labels for a tensor, `[B, C]`: 1 positive, 0 negative, -1 uncertain, NaN not mentioned, as
    /// [`Label::tensor_value`](crate::Label::tensor_value) defines them.
    pub fn labels(&self) -> &[f32] {
        &self.buffers.labels
    }

    /// All arrays, each as a slice that can be written to. They stay in place until the batch is dropped.
    pub fn arrays_mut(&mut self) -> BatchArrays<'_> {
        let records = self.len();
        let buffers = &mut self.buffers;
        let memory = buffers.images.as_mut().map_or(&mut [][..], |pixels| pixels.as_mut_slice());
        let (images, mut rest) = memory.split_at_mut(records * self.size * self.size);
        // The groups follow each other; between them is room for the records that this batch has not.
        let mut before = images.len();
        let crops = self.crops.iter().map(|place| {
            let (_, from_here) = std::mem::take(&mut rest).split_at_mut(place.start - before);
            let (crops, after) = from_here.split_at_mut(records * place.floats());
            (rest, before) = (after, place.start + crops.len());
            crops
        });
        BatchArrays {
            crops: crops.collect(),
            images,
            masks: &mut buffers.masks,
            token_ids: &mut buffers.token_ids,
            target_ids: &mut buffers.target_ids,
            attention_mask: &mut buffers.attention_mask,
            labels: &mut buffers.labels,
            rows: &mut buffers.rows,
        }
    }

    /// The errors of the records that were left out of this batch ([`OnError::Skip`](crate::loader::OnError::Skip)).
    pub fn skipped(&self) -> &[Error] {
        &self.buffers.skipped
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // Fails when the pool is full or the loader was dropped: the buffers are freed then.
        let _ = self.pool.try_send(std::mem::take(&mut self.buffers));
    }
}
