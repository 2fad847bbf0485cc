//! Segmentation of a finding as an objective.

use std::sync::Arc;

use anyhow::Result;
use dataset::loader::LoaderBuilder;
use dataset::transform::Transform;
use dataset::transform::geometry::IGNORED;
use dataset::{Batch, Dataset, Loader};
use serde::{Deserialize, Serialize};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use super::class_dice::{ClassPixels, mean_class_dice};
use crate::config::EncoderTraining;
use crate::eval::overlap::{MeanOverlap, Overlap};
use crate::model::segmentation_loss::{AUXILIARY_CROSS_ENTROPY, HeadLoss, cross_entropy};
use crate::model::segmenter::{FOREGROUND, Segmenter, SegmenterConfig};
use crate::task::objective::{Evaluation, Loss, Objective, images, loader_for, send};
use crate::train::distributed::{Compute, ProcessGroup};
use crate::train::optimizer::{Parameter, encoder_and_head, is_of_encoder};

/// What the heads of a segmenter minimize.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SegmentLoss {
    /// Focal loss and Dice of the foreground ([`HeadLoss`]): the release's.
    #[default]
    FocalDice,
    /// The cross-entropy of pixels: BenchX's.
    CrossEntropy,
}

/// The validation score that decides which weights are the best.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MaskScore {
    /// Mean Dice over images.
    #[default]
    Dice,
    /// Mean Dice over classes, background included, of all pixels together.
    Mdice,
}

/// How probabilities become a mask.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskRule {
    /// A pixel is foreground where its probability is above this.
    pub threshold: f64,
    /// A mask of fewer pixels of the model's input counts as empty; 0: every pixel counts.
    pub min_area: u64,
    /// Records of a batch without gradients.
    pub batch_size: usize,
}

impl Default for MaskRule {
    fn default() -> Self {
        Self { threshold: 0.5, min_area: 0, batch_size: 8 }
    }
}

/// The masks of a dataset that are learned.
#[derive(Clone)]
pub struct MaskedDataset {
    /// The dataset.
    pub dataset: Arc<Dataset>,
    /// Name of the masks; none: the first one of each record.
    pub mask: Option<String>,
}

impl MaskedDataset {
    /// A builder of a loader of images and these masks.
    pub fn with_masks(&self, builder: LoaderBuilder) -> LoaderBuilder {
        let builder = builder.masks(true);
        if let Some(name) = &self.mask { builder.mask_name(name) } else { builder }
    }
}

/// A segmenter that learns masks.
pub struct Segmentation {
    store: VarStore,
    model: Segmenter,
    layer_decay: f64,
    encoder: EncoderTraining,
    loss: SegmentLoss,
    select_by: MaskScore,
    rule: MaskRule,
    data: MaskedDataset,
    validate: Vec<u32>,
    transform: Transform,
    group: ProcessGroup,
}

impl Segmentation {
    /// A randomly initialized segmenter; `validate` are the rows for [`Objective::evaluate`], `transform` is that of an
    /// evaluation. `layer_decay` is the factor on the learning rate from one block to the one before.
    ///
    /// # Errors
    /// When no model has this configuration.
    pub fn new(
        config: &SegmenterConfig,
        layer_decay: f64,
        rule: MaskRule,
        data: &MaskedDataset,
        validate: Vec<u32>,
        transform: Transform,
        compute: &Compute,
    ) -> Result<Self> {
        let store = VarStore::new(compute.device);
        let model = Segmenter::new(&store.root(), config, &compute.group)?;
        let (data, group) = (data.clone(), compute.group.clone());
        Ok(Self {
            store,
            model,
            layer_decay,
            encoder: EncoderTraining::default(),
            loss: SegmentLoss::default(),
            select_by: MaskScore::default(),
            rule,
            data,
            validate,
            transform,
            group,
        })
    }

    /// Freezes the encoder, or sets the factor on its learning rate.
    #[must_use]
    pub fn encoder(mut self, encoder: EncoderTraining) -> Self {
        self.encoder = encoder;
        self.model = self.model.freeze_encoder(encoder.freeze_encoder);
        self
    }

    /// Sets the loss, and the score of [`Objective::evaluate`].
    #[must_use]
    pub fn minimizing(mut self, loss: SegmentLoss, select_by: MaskScore) -> Self {
        (self.loss, self.select_by) = (loss, select_by);
        self
    }

    /// The model.
    pub fn model(&self) -> &Segmenter {
        &self.model
    }
}

impl Objective for Segmentation {
    fn store(&self) -> &VarStore {
        &self.store
    }

    fn parameters(&self) -> Vec<Parameter> {
        let layers = self.model.config().vit.num_layers;
        let mut all = encoder_and_head(&self.store, layers, self.layer_decay, self.encoder.encoder_lr_scale);
        if self.encoder.freeze_encoder {
            all.retain(|parameter| !is_of_encoder(&parameter.name));
        }
        all
    }

    fn loss(&self, batch: &Batch) -> Result<Loss> {
        let device = self.store.device();
        let output = self.model.forward(&images(batch, device), true)?;
        let size = batch.size() as i64;
        let target = send(&Tensor::from_slice(batch.masks()).view([-1, size, size]), device);
        let (mut total, mut parts) = match self.loss {
            SegmentLoss::FocalDice => {
                let (total, focal, dice) = HeadLoss::DECODE.of(&output.logits, &target);
                (total, vec![("loss_focal", focal.detach()), ("loss_dice", dice.detach())])
            }
            SegmentLoss::CrossEntropy => (cross_entropy(&output.logits, &target), Vec::new()),
        };
        if let Some(logits) = output.auxiliary {
            let auxiliary = match self.loss {
                SegmentLoss::FocalDice => HeadLoss::AUXILIARY.of(&logits, &target).0,
                SegmentLoss::CrossEntropy => cross_entropy(&logits, &target) * AUXILIARY_CROSS_ENTROPY,
            };
            parts.push(("loss_auxiliary", auxiliary.detach()));
            total += auxiliary;
        }
        // Both losses are means over the images of this process, whose number may differ by one between processes.
        if self.group.world_size() > 1 {
            let images = Tensor::from(batch.len() as f32).to_device(device);
            for loss in std::iter::once(&mut total).chain(parts.iter_mut().map(|(_, part)| part)) {
                *loss = self.group.mean(&(&*loss * &images), &images)?;
            }
        }
        Ok(Loss { total, parts, by_record: Vec::new() })
    }

    fn evaluate(&self) -> Result<Option<Evaluation>> {
        let mut overlaps = Vec::with_capacity(self.validate.len());
        let mut pixels = Vec::with_capacity(self.validate.len());
        segment(
            &self.model,
            &self.data,
            &self.validate,
            self.transform.clone(),
            self.rule,
            self.store.device(),
            |record| {
                overlaps.push(record.overlap);
                pixels.push(record.class_pixels());
                Ok(())
            },
        )?;
        let Some(mean) = MeanOverlap::of(&overlaps) else { return Ok(None) };
        let mut values = vec![("dice".to_owned(), mean.dice), ("iou".to_owned(), mean.iou)];
        if let Some((dice, iou)) = mean.positive {
            values.extend([("dice_positive".to_owned(), dice), ("iou_positive".to_owned(), iou)]);
        }
        let mdice = mean_class_dice(&pixels).unwrap_or(mean.dice);
        values.push(("mdice".to_owned(), mdice));
        let score = match self.select_by {
            MaskScore::Dice => mean.dice,
            MaskScore::Mdice => mdice,
        };
        Ok(Some(Evaluation { score, values }))
    }
}

/// The prediction for one record, at the size of the model's input.
pub struct SegmentedRecord<'a> {
    /// Row of the dataset.
    pub row: u32,
    /// Normalized gray pixels, `[S, S]`.
    pub image: &'a [f32],
    /// Predicted classes, `[S, S]`: 1 foreground, 0 background; 0 where there is no ground truth.
    pub prediction: &'a [u8],
    /// Drawn classes, `[S, S]`: as in [`Batch::masks`].
    pub target: &'a [u8],
    /// Side, S.
    pub size: usize,
    /// Agreement of prediction and target.
    pub overlap: Overlap,
}

impl SegmentedRecord<'_> {
    /// Its pixels by class.
    pub(super) fn class_pixels(&self) -> ClassPixels {
        let valid = self.target.iter().filter(|&&class| class != IGNORED).count();
        ClassPixels::of(self.overlap, valid as u64)
    }
}

/// Segments some rows in small batches, in their order, and calls `each` with every record.
///
/// # Errors
/// When a record cannot be read, torch fails, or `each` does.
pub fn segment(
    model: &Segmenter,
    data: &MaskedDataset,
    rows: &[u32],
    transform: Transform,
    rule: MaskRule,
    device: Device,
    mut each: impl FnMut(SegmentedRecord) -> Result<()>,
) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let loader = data
        .with_masks(loader_for(device, Loader::builder(&data.dataset)))
        .rows(rows.to_vec())
        .batch_size(rule.batch_size)
        .shuffle(false)
        .transform(transform)
        .build()?;
    for batch in loader {
        let batch = batch?;
        let size = batch.size();
        let output = tch::no_grad(|| model.forward(&images(&batch, device), false))?;
        let foreground = output.logits.softmax(1, Kind::Float).select(1, FOREGROUND).gt(rule.threshold); // [B, S, S]
        let flat = foreground.to_kind(Kind::Uint8).to_device(Device::Cpu).flatten(0, -1);
        let mut predictions = Vec::<u8>::try_from(&flat)?;
        let pixels = size * size;
        for (record, prediction) in predictions.chunks_exact_mut(pixels).enumerate() {
            let part = record * pixels..(record + 1) * pixels;
            let target = &batch.masks()[part.clone()];
            let image = &batch.images()[part];
            apply_rule(prediction, target, rule.min_area);
            let overlap = Overlap::of(prediction, target);
            each(SegmentedRecord { row: batch.rows()[record], image, prediction, target, size, overlap })?;
        }
    }
    Ok(())
}

/// Sets a prediction to 0 where there is no ground truth, and everywhere if its area is then below `min_area`.
fn apply_rule(prediction: &mut [u8], target: &[u8], min_area: u64) {
    for (p, &t) in prediction.iter_mut().zip(target) {
        *p *= u8::from(t != IGNORED);
    }
    let area: u64 = prediction.iter().map(|&p| u64::from(p)).sum();
    if area < min_area {
        prediction.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_below_the_smallest_area_is_empty() {
        let target = [0, 0, 255, 1];
        let ruled = |min_area| {
            let mut prediction = [1, 1, 1, 0];
            apply_rule(&mut prediction, &target, min_area);
            prediction
        };
        assert_eq!(ruled(0), [1, 1, 0, 0]);
        assert_eq!(ruled(2), [1, 1, 0, 0]);
        assert_eq!(ruled(3), [0; 4]);
    }
}
