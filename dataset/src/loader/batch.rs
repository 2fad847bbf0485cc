//! Batches: the samples of a step.

use crossbeam_channel::Sender;

use crate::error::Error;
use crate::loader::buffers::{Buffers, PlacedBox, TextBuffers};
use crate::loader::crops::CropPlace;
use crate::loader::masking;
use crate::random::{Stream, digest};

/// The arrays of a batch, to be written to or to be lent to another language. Shapes as in [`Batch`].
pub struct BatchArrays<'a> {
    /// As [`Batch::images`].
    pub images: &'a mut [f32],
    /// As [`Batch::crops`], by group.
    pub crops: Vec<&'a mut [f32]>,
    /// As [`Batch::has_image`].
    pub has_image: &'a mut [u8],
    /// As [`Batch::view_mask`].
    pub view_mask: &'a mut [u8],
    /// As [`Batch::view_codes`].
    pub view_codes: &'a mut [i64],
    /// As [`Batch::view_rows`].
    pub view_rows: &'a mut [i64],
    /// As [`Batch::masks`].
    pub masks: &'a mut [u8],
    /// As [`Batch::text`], by text.
    pub texts: Vec<BatchTextMut<'a>>,
    /// As [`Batch::labels`].
    pub labels: &'a mut [f32],
    /// As [`Batch::rows`].
    pub rows: &'a mut [u32],
}

/// The arrays of a text of the samples of a batch, to be written to. Shapes as in [`BatchText`].
pub struct BatchTextMut<'a> {
    /// As [`BatchText::tokens`].
    pub tokens: usize,
    /// As [`BatchText::token_ids`].
    pub token_ids: &'a mut [i64],
    /// As [`BatchText::target_ids`].
    pub target_ids: &'a mut [i64],
    /// As [`BatchText::attention_mask`].
    pub attention_mask: &'a mut [i64],
    /// As [`BatchText::token_weights`].
    pub token_weights: &'a mut [f32],
}

/// A text of the samples of a batch. A sample without it has padding only.
#[derive(Clone, Copy, Debug)]
pub struct BatchText<'a> {
    /// Number of tokens, L.
    pub tokens: usize,
    /// Token ids after masking, `[B, L]`.
    pub token_ids: &'a [i64],
    /// Token ids before masking, `[B, L]`.
    pub target_ids: &'a [i64],
    /// 1 for tokens, 0 for padding, `[B, L]`.
    pub attention_mask: &'a [i64],
    /// Weights of the tokens before masking, 0 at padding, `[B, L]`; empty unless
    /// [`LoaderBuilder::token_weights`](crate::loader::LoaderBuilder::token_weights) is set.
    pub token_weights: &'a [f32],
}

/// One batch. In shapes, `B` is [`Batch::len`], `S` the transform's size, `L` [`Batch::tokens`], `C` the number of
/// [`Loader::findings`](crate::Loader::findings). Arrays are row-major.
///
/// Where the samples are studies ([`LoaderBuilder::studies`](crate::loader::LoaderBuilder::studies)), each has
/// [`slots`](Batch::slots) images, `V + P`: its views, then those of the patient's study before. Shapes of images, crops and
/// masks have this dimension after `B`; empty slots are zero, in masks [`IGNORED`](crate::transform::geometry::IGNORED).
pub struct Batch {
    pub(crate) buffers: Buffers,
    pub(crate) size: usize,
    /// Images of a sample.
    pub(crate) slots: usize,
    /// Tokens of each text.
    pub(crate) tokens: Vec<usize>,
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
        let text = TextBuffers { token_ids, target_ids, attention_mask, weights: Vec::new() };
        let buffers = Buffers {
            rows: (0..records as u32).collect(),
            sources: vec![0; records],
            images: Some(Box::new(images)),
            has_image: vec![1; records],
            texts: vec![text],
            ..Buffers::default()
        };
        let (crops, pool) = (Vec::new(), crossbeam_channel::bounded(0).0);
        Self { buffers, size, slots: 1, tokens: vec![tokens], crops, pool, epoch: 0, number: 0 }
    }

    /// Number of samples: records or studies.
    pub fn len(&self) -> usize {
        self.buffers.rows.len()
    }

    /// Whether there is no sample: all were skipped, or the last batch of an epoch has none for this rank.
    pub fn is_empty(&self) -> bool {
        self.buffers.rows.is_empty()
    }

    /// The dataset of each sample, `[B]`: its number in the mixture; 0 for all of a dataset alone.
    pub fn sources(&self) -> &[u16] {
        &self.buffers.sources
    }

    /// Rows of the dataset, `[B]`; in a mixture, each is a row of its dataset ([`Batch::sources`]). Of a study it is the row of
    /// the first view, whether it is in a slot or not.
    pub fn rows(&self) -> &[u32] {
        &self.buffers.rows
    }

    /// Normalized gray pixels, `[B, 1, S, S]`; of studies `[B, V+P, 1, S, S]`.
    pub fn images(&self) -> &[f32] {
        let pixels = self.buffers.images.as_ref().map_or(&[][..], |images| images.as_slice());
        &pixels[..self.len() * self.slots * self.size * self.size]
    }

    /// Images of a sample: V + P of studies, else 1.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// 1 for samples with an image, 0 for those of datasets that were ingested without images, `[B]`; the images of those are
    /// zero.
    pub fn has_image(&self) -> &[u8] {
        &self.buffers.has_image
    }

    /// 1 for slots with an image, 0 for empty ones, `[B, V+P]`. Empty unless samples are studies.
    pub fn view_mask(&self) -> &[u8] {
        &self.buffers.views.mask
    }

    /// The view of the image in each slot, as [`ViewKind::code`](crate::format::view::ViewKind::code) numbers them, `[B, V+P]`:
    /// 1 PA, 2 AP, 3 frontal, 4 lateral, 5 another, 0 not stated or empty. Empty unless samples are studies.
    pub fn view_codes(&self) -> &[i64] {
        &self.buffers.views.codes
    }

    /// The row of the image in each slot, -1 where it is empty, `[B, V+P]`. Empty unless samples are studies.
    pub fn view_rows(&self) -> &[i64] {
        &self.buffers.views.rows
    }

    /// Normalized gray pixels of a group of crops, `[B, n, 1, S, S]`, with the group's number of crops n and its side S; of
    /// studies `[B, V+P, n, 1, S, S]`; empty where [`LoaderBuilder::crops`](crate::loader::LoaderBuilder::crops) has no such group.
    pub fn crops(&self, group: usize) -> &[f32] {
        match (self.crops.get(group), &self.buffers.images) {
            (Some(place), Some(memory)) => {
                &memory.as_slice()[place.start..][..self.len() * self.slots * place.floats()]
            }
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

    /// Classes of the pixels, `[B, S, S]`, of studies `[B, V+P, S, S]`: 1 inside the mask, 0 outside, [`IGNORED`](crate::transform::geometry::IGNORED)
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

    /// Number of tokens of the first text, L; 0 where no texts are loaded.
    pub fn tokens(&self) -> usize {
        self.tokens.first().copied().unwrap_or(0)
    }

    /// Number of texts of a sample.
    pub fn texts(&self) -> usize {
        self.tokens.len()
    }

    /// A text of the samples, by its number in [`LoaderBuilder::texts`](crate::loader::LoaderBuilder::texts); none where there
    /// is no such text.
    pub fn text(&self, number: usize) -> Option<BatchText<'_>> {
        let (&tokens, text) = (self.tokens.get(number)?, self.buffers.texts.get(number)?);
        Some(BatchText {
            tokens,
            token_ids: &text.token_ids,
            target_ids: &text.target_ids,
            attention_mask: &text.attention_mask,
            token_weights: &text.weights,
        })
    }

    /// Token ids of the first text after masking, `[B, L]`: the input of a model.
    pub fn token_ids(&self) -> &[i64] {
        self.text(0).map_or(&[], |text| text.token_ids)
    }

    /// Token ids of the first text before masking, `[B, L]`: the reconstruction targets.
    pub fn target_ids(&self) -> &[i64] {
        self.text(0).map_or(&[], |text| text.target_ids)
    }

    /// 1 for tokens of the first text, 0 for padding, `[B, L]`.
    pub fn attention_mask(&self) -> &[i64] {
        self.text(0).map_or(&[], |text| text.attention_mask)
    }

    /// Weights of the tokens of the first text before masking, 0 at padding, `[B, L]`; empty unless
    /// [`LoaderBuilder::token_weights`](crate::loader::LoaderBuilder::token_weights) is set.
    pub fn token_weights(&self) -> &[f32] {
        self.text(0).map_or(&[], |text| text.token_weights)
    }

    /// Positions within the batch, ascending, of the samples with a report: those whose first text has a token after `[CLS]`.
    pub fn with_report(&self) -> Vec<usize> {
        let (tokens, attended) = (self.tokens(), self.attention_mask());
        let has_report = |sample: &usize| attended.get(sample * tokens + 1) == Some(&1);
        (0..self.len()).filter(|sample| tokens > 1 && has_report(sample)).collect()
    }

    /// Labels for a tensor, `[B, C]`: 1 positive, 0 negative, -1 uncertain, NaN not mentioned, as
    /// [`Label::tensor_value`](crate::Label::tensor_value) defines them.
    pub fn labels(&self) -> &[f32] {
        &self.buffers.labels
    }

    /// All arrays, each as a slice that can be written to. They stay in place until the batch is dropped.
    pub fn arrays_mut(&mut self) -> BatchArrays<'_> {
        let images = self.len() * self.slots;
        let buffers = &mut self.buffers;
        let memory = buffers.images.as_mut().map_or(&mut [][..], |pixels| pixels.as_mut_slice());
        let (pixels, mut rest) = memory.split_at_mut(images * self.size * self.size);
        // The groups follow each other; between them is room for the records that this batch has not.
        let mut before = pixels.len();
        let crops = self.crops.iter().map(|place| {
            let (_, from_here) = std::mem::take(&mut rest).split_at_mut(place.start - before);
            let (crops, after) = from_here.split_at_mut(images * place.floats());
            (rest, before) = (after, place.start + crops.len());
            crops
        });
        BatchArrays {
            crops: crops.collect(),
            images: pixels,
            has_image: &mut buffers.has_image,
            view_mask: &mut buffers.views.mask,
            view_codes: &mut buffers.views.codes,
            view_rows: &mut buffers.views.rows,
            masks: &mut buffers.masks,
            texts: buffers
                .texts
                .iter_mut()
                .zip(&self.tokens)
                .map(|(text, &tokens)| BatchTextMut {
                    tokens,
                    token_ids: &mut text.token_ids,
                    target_ids: &mut text.target_ids,
                    attention_mask: &mut text.attention_mask,
                    token_weights: &mut text.weights,
                })
                .collect(),
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
