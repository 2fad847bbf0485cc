//! Configuration of a segmentation run, the task `siim`.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::{
    Epoch, MAX_BATCH, MEAN, PATIENCE, RANDOM, RANDOM_NAME, RunConfig, STD, check_data, check_layer_decay, check_most,
    check_rates, check_warmup, pretrain_preset, shared,
};
use crate::model::segmenter::{Head, SegmenterConfig};
use crate::model::vit::VitConfig;
use crate::task::MaskRule;

/// Name of the task. It takes any dataset with masks; SIIM-ACR is the one with a published figure.
pub const SEGMENTATION_TASK: &str = "siim";

/// Largest number of times that an epoch has a record.
const MAX_REPEATS: usize = 1000;

/// How segmentation sees its data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentData {
    /// Smallest share of the area that RandomResizedCrop takes.
    pub crop_scale: f64,
    pub flip: f64,
    /// How often an epoch has each record with something drawn; those with an empty mask come once.
    pub repeat_positives: usize,
    pub mean: f64,
    pub std: f64,
}

/// How segmentation optimizes: AdamW (0.9, 0.999), linear warm-up, then a polynomial down to zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentOptimizer {
    pub rate: f64,
    pub weight_decay: f64,
    /// Factor on the rate from one block to the one before; 1: all parts learn at the same rate.
    pub layer_decay: f64,
    /// Exponent of the schedule; 1: a straight line.
    pub power: f64,
    /// Updates of the warm-up, and in all.
    pub warmup: u64,
    pub steps: u64,
    pub batch_size: usize,
    /// Largest gradient norm; 0: no clipping.
    pub clip: f64,
    /// Updates between two evaluations on the validation subset.
    pub evaluate_every: u64,
    /// Evaluations without a better score after which the run ends; 0: it makes all its updates.
    #[serde(default)]
    pub patience: u64,
}

/// Configuration of a segmentation run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentConfig {
    pub preset: String,
    pub task: String,
    /// The dataset it is trained on.
    #[serde(default)]
    pub dataset: String,
    /// Name of the split.
    pub split: String,
    /// Digest of who is in which of its subsets.
    #[serde(default)]
    pub split_members: String,
    /// Percentage of the training labels.
    pub ratio: f64,
    /// Where the weights came from; `random` for start values.
    pub init: String,
    /// What tables and charts call these start weights.
    #[serde(default)]
    pub start: String,
    pub model: SegmenterConfig,
    pub data: SegmentData,
    pub optimizer: SegmentOptimizer,
    /// How probabilities become masks.
    pub prediction: MaskRule,
    pub run: RunConfig,
}

/// The segmentation defaults of a preset for a ratio in percent.
///
/// Head, losses, optimizer and warm-up are the recipe's. It does not state weight decay, drop path, augmentation and
/// steps: the first two are those of MAE's and BEiT's segmentation models; 20,000 updates (10,000 up to 10% of the
/// labels) of 16 records are 40 passes over SIIM-ACR's 7,969 training images, and a choice of ours.
pub fn segment_preset(preset: &str, ratio: f64) -> Result<SegmentConfig> {
    let vit = pretrain_preset(preset)?.model.vit;
    let steps = if ratio > 10.0 { 20_000 } else { 10_000 };
    let mut config = SegmentConfig {
        preset: preset.to_owned(),
        task: SEGMENTATION_TASK.to_owned(),
        dataset: String::new(),
        split: String::new(),
        split_members: String::new(),
        ratio,
        init: RANDOM.to_owned(),
        start: RANDOM_NAME.to_owned(),
        model: SegmenterConfig { vit: VitConfig { image_size: 512, ..vit.clone() }, ..SegmenterConfig::default() },
        // Crops at one to two times the size, as from mmsegmentation's resize by 0.5 to 2 and crop; no shrinking here.
        data: SegmentData { crop_scale: 0.25, flip: 0.5, repeat_positives: 1, mean: MEAN, std: STD },
        optimizer: SegmentOptimizer {
            rate: 2e-5,
            weight_decay: 0.05,
            layer_decay: 0.65,
            power: 1.0,
            warmup: 1_500,
            steps,
            batch_size: 16,
            clip: 0.0,
            evaluate_every: steps / 20,
            patience: 0,
        },
        prediction: MaskRule::default(),
        run: RunConfig::default(),
    };
    if preset == "mrm-vit-tiny" {
        // Two or three minutes on two cores are some 6,000 images; within them the front is learned only if about half of
        // what is seen has one, and if a random start may move everywhere.
        config.model = SegmenterConfig { vit, channels: 32, auxiliary_channels: 32, ..config.model };
        (config.data.crop_scale, config.data.repeat_positives) = (0.5, 10);
        config.optimizer = SegmentOptimizer {
            rate: 1e-3,
            layer_decay: 0.9,
            warmup: 80,
            steps: 800,
            batch_size: 8,
            clip: 1.0,
            evaluate_every: 100,
            ..config.optimizer
        };
    }
    Ok(config)
}

impl SegmentConfig {
    /// Writes out what follows from other settings, so that the stored configuration says it.
    pub fn resolve(&mut self) {
        self.model.blocks = self.model.chosen_blocks();
    }

    /// Takes the recipe to some epochs, with early stopping; the warm-up keeps its share.
    pub fn take_epochs(&mut self, epochs: f64, epoch: Epoch) {
        self.take_steps(epoch.steps(epochs));
        let optimizer = &mut self.optimizer;
        optimizer.evaluate_every = epoch.evaluate_every(optimizer.steps);
        if optimizer.patience == 0 {
            optimizer.patience = PATIENCE;
        }
    }

    /// Takes the recipe to another number of updates: the shares of warm-up and evaluations are kept.
    pub fn take_steps(&mut self, steps: u64) {
        let optimizer = &mut self.optimizer;
        optimizer.warmup = shared(optimizer.warmup, steps, optimizer.steps);
        optimizer.evaluate_every = shared(optimizer.evaluate_every, steps, optimizer.steps).max(1);
        optimizer.steps = steps;
    }

    /// Whether such a run can be made.
    pub fn validate(&self) -> Result<()> {
        self.run.validate()?;
        self.model.validate()?;
        let optimizer = &self.optimizer;
        if optimizer.batch_size < 2 && self.model.head == Head::Upernet {
            bail!(
                "optimizer.batch_size: the batch norms of UPerNet need at least 2 records, not {}",
                optimizer.batch_size
            );
        }
        check_most("optimizer.batch_size", optimizer.batch_size, MAX_BATCH)?;
        check_most("prediction.batch_size", self.prediction.batch_size, MAX_BATCH)?;
        check_most("data.repeat_positives", self.data.repeat_positives, MAX_REPEATS)?;
        check_rates(&[optimizer.rate, optimizer.weight_decay, optimizer.clip])?;
        check_layer_decay(optimizer.layer_decay)?;
        check_warmup(optimizer.warmup, optimizer.steps)?;
        if !(0.0..1.0).contains(&self.prediction.threshold) {
            bail!("prediction.threshold: must be from 0 to below 1, is {}", self.prediction.threshold);
        }
        if self.prediction.batch_size == 0 {
            bail!("prediction.batch_size: must be at least 1");
        }
        if self.data.repeat_positives == 0 {
            bail!("data.repeat_positives: must be at least 1");
        }
        if !(optimizer.power.is_finite() && optimizer.power >= 0.0) {
            bail!("optimizer.power: must be 0 or more, is {}", optimizer.power);
        }
        check_data(self.data.crop_scale, self.data.flip, self.data.mean, self.data.std)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PRESETS, overlay};

    #[test]
    fn every_preset_is_a_model_and_survives_its_file() {
        for preset in PRESETS {
            let mut config = segment_preset(preset, 100.0).unwrap();
            config.resolve();
            config.validate().unwrap();
            assert_eq!(config.model.blocks.len(), 4);
            assert_eq!(overlay(&config, Some(&toml::to_string(&config).unwrap()), &[]).unwrap(), config);
        }
        let config = segment_preset("mrm-vit-b16", 10.0).unwrap();
        assert_eq!((config.model.vit.image_size, config.optimizer.steps), (512, 10_000));
        let setr = overlay(&config, None, &["model.head=setr".to_owned(), "model.blocks=[11]".to_owned()]).unwrap();
        assert_eq!(setr.model.head, Head::Setr);
        setr.validate().unwrap();
        let single = overlay(&config, None, &["optimizer.batch_size=1".to_owned()]).unwrap();
        assert!(single.validate().unwrap_err().to_string().contains("at least 2 records"));
    }
}
