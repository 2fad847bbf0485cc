//! What a loader gives: records side by side, in buffers that go back to the loader and are used again.

use std::sync::Arc;

use crossbeam_channel::Sender;

use crate::error::Error;
use crate::loader::masking;
use crate::random::{Stream, digest};

/// Memory that the pixels of batches are written to. A `Vec<f32>` is one; a trainer may bring memory that its device
/// reads faster (see [`crate::loader::builder::LoaderBuilder::memory`]).
pub trait Floats: Send {
    /// All of it, to read.
    fn floats(&self) -> &[f32];
    /// All of it, to write.
    fn floats_mut(&mut self) -> &mut [f32];
}

impl Floats for Vec<f32> {
    fn floats(&self) -> &[f32] {
        self
    }

    fn floats_mut(&mut self) -> &mut [f32] {
        self
    }
}

/// A rectangle that a source drew, in pixels of the transformed image, cut at its edges.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacedBox {
    /// Position of its record within the batch.
    pub record: usize,
    pub label: Arc<str>,
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
}

/// Host buffers of a batch. They go back to the loader when the batch is dropped.
#[derive(Default)]
pub(crate) struct Buffers {
    pub rows: Vec<u32>,
    /// Room for a full batch.
    pub images: Option<Box<dyn Floats>>,
    pub masks: Vec<u8>,
    pub boxes: Vec<PlacedBox>,
    pub token_ids: Vec<i64>,
    pub target_ids: Vec<i64>,
    pub attention_mask: Vec<i64>,
    pub labels: Vec<f32>,
    pub skipped: Vec<Error>,
}

impl Buffers {
    /// Leaves no record, and all the memory.
    pub fn clear(&mut self) {
        for list in [&mut self.token_ids, &mut self.target_ids, &mut self.attention_mask] {
            list.clear();
        }
        self.rows.clear();
        self.labels.clear();
        self.masks.clear();
        self.boxes.clear();
        self.skipped.clear();
    }
}

/// One batch. `B` is [`Batch::len`], `S` the transform's size, `L` the text's tokens, `C` the dataset's findings.
pub struct Batch {
    pub(crate) buffers: Buffers,
    pub(crate) size: usize,
    pub(crate) tokens: usize,
    pub(crate) home: Sender<Buffers>,
    /// Epoch the batch belongs to.
    pub epoch: u64,
    /// Number of the batch within its epoch.
    pub number: u64,
}

impl Batch {
    /// A batch of noise, which needs no dataset: what a benchmark of a model trains on. Pixels are uniform with mean 0 and
    /// spread 1; reports have `tokens` ids below `vocabulary`, of which the last three tenths are padding, and
    /// half of the others are masked.
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
            images: Some(Box::new(images)),
            token_ids,
            target_ids,
            attention_mask,
            ..Buffers::default()
        };
        Self { buffers, size, tokens, home: crossbeam_channel::bounded(0).0, epoch: 0, number: 0 }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.buffers.rows.len()
    }

    /// Whether there is no record: all were skipped, or a short last batch left none for this rank.
    pub fn is_empty(&self) -> bool {
        self.buffers.rows.is_empty()
    }

    /// Rows of the dataset, `[B]`.
    pub fn rows(&self) -> &[u32] {
        &self.buffers.rows
    }

    /// Normalized gray pixels, `[B, 1, S, S]`.
    pub fn images(&self) -> &[f32] {
        let floats = self.buffers.images.as_ref().map_or(&[][..], |images| images.floats());
        &floats[..self.len() * self.size * self.size]
    }

    /// Side of the images, S.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Classes of the pixels, `[B, S, S]`: 1 marked, 0 not, [`crate::transform::geometry::IGNORED`] beside the image and where a
    /// record has no mask. Empty unless asked for.
    pub fn masks(&self) -> &[u8] {
        &self.buffers.masks
    }

    /// Boxes of all records, in their order. Empty unless asked for.
    pub fn boxes(&self) -> &[PlacedBox] {
        &self.buffers.boxes
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

    /// The records with a report: those that have a token after `[CLS]`, by their position within the batch, ascending.
    pub fn with_report(&self) -> Vec<usize> {
        let has_report = |record: &usize| self.attention_mask().get(record * self.tokens + 1) == Some(&1);
        (0..self.len()).filter(|record| self.tokens > 1 && has_report(record)).collect()
    }

    /// Label codes, `[B, C]`: 1, 0, -1 uncertain, NaN not mentioned.
    pub fn labels(&self) -> &[f32] {
        &self.buffers.labels
    }

    /// Why records of this batch were left out ([`crate::loader::builder::OnError::Skip`]).
    pub fn skipped(&self) -> &[Error] {
        &self.buffers.skipped
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // Refused when the pool is full or the loader is gone: the buffers are freed then.
        let _ = self.home.try_send(std::mem::take(&mut self.buffers));
    }
}
