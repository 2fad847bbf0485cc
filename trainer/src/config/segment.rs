//! Configuration of a run of segmentation.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{
    Encoder, EncoderTraining, FinetuneConfig, FinetuneKeys, ImageData, MAX_BATCH, PRESETS, Recipe, RunConfig, Schedule,
    check_most, merge, preset_error, pretrain_preset,
};
use crate::model::segmenter::{Head, SegmenterConfig};
use crate::model::vit::VitConfig;
use crate::task::{MaskRule, MaskScore, SegmentLoss};

/// Largest number of times that an epoch has a record.
const MAX_REPEATS: usize = 1000;

/// Section `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentData {
    /// Crops, flips, normalization.
    #[serde(flatten)]
    pub image: ImageData,
    /// Name of the masks; empty: the first one of each record.
    #[serde(default)]
    pub mask: String,
    /// How often an epoch has each record with something drawn; those with an empty mask come once.
    pub repeat_positives: usize,
}

/// Section `[optimizer]`: AdamW (0.9, 0.999), linear warm-up, then a polynomial down to zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentOptimizer {
    /// Exponent of the schedule; 1: a straight line.
    pub power: f64,
    /// What the heads minimize.
    #[serde(default)]
    pub loss: SegmentLoss,
    /// The validation score that decides which weights are the best.
    #[serde(default)]
    pub select_by: MaskScore,
    /// Frozen or slower encoder.
    #[serde(flatten)]
    pub encoder: EncoderTraining,
    /// Learning rate, length, batches.
    #[serde(flatten)]
    pub schedule: Schedule,
}

/// Configuration of a run of segmentation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentConfig {
    /// Preset, task, dataset, split, ratio, initialization.
    #[serde(flatten)]
    pub keys: FinetuneKeys,
    /// The segmenter.
    pub model: SegmenterConfig,
    /// How images are prepared, and how often records come.
    pub data: SegmentData,
    /// How the model is trained.
    pub optimizer: SegmentOptimizer,
    /// How probabilities become masks.
    pub prediction: MaskRule,
    /// What all kinds of runs have.
    pub run: RunConfig,
}

const BASE: &str = include_str!("presets/segment/mrm-vit-b16.toml");
const TINY: &str = include_str!("presets/segment/mrm-vit-tiny.toml");
const BENCHX: &str = include_str!("presets/segment/benchx.toml");
const BENCHX_TINY: &str = include_str!("presets/segment/benchx-tiny.toml");

/// The defaults of segmentation for a preset, a task name and a ratio in percent, by the release's recipe.
///
/// # Errors
/// When there is no such preset.
pub fn segment_preset(preset: &str, task: &str, ratio: f64) -> Result<SegmentConfig> {
    segment_recipe(preset, task, ratio, Recipe::Release)
}

/// As [`segment_preset`], by a recipe.
///
/// # Errors
/// When there is no such preset.
pub fn segment_recipe(preset: &str, task: &str, ratio: f64, by: Recipe) -> Result<SegmentConfig> {
    let vit = pretrain_preset(preset)?.model.vit;
    let steps: i64 = if ratio > 10.0 { 20_000 } else { 10_000 };
    let mut model = Table::new();
    model.insert("vit".to_owned(), Value::try_from(vit)?);
    let mut optimizer = Table::new();
    optimizer.insert("steps".to_owned(), steps.into());
    optimizer.insert("evaluate_every".to_owned(), (steps / 20).into());
    let keys = FinetuneKeys { recipe: by, ..FinetuneKeys::new(preset, task, ratio) };
    let mut table = Table::try_from(keys)?;
    table.insert("model".to_owned(), model.into());
    table.insert("optimizer".to_owned(), optimizer.into());
    table.insert("run".to_owned(), Value::try_from(RunConfig::default())?);
    merge(&mut table, BASE.parse()?);
    match preset {
        "mrm-vit-tiny" => merge(&mut table, TINY.parse()?),
        other if PRESETS.contains(&other) => {}
        other => return Err(preset_error(other)),
    }
    if by == Recipe::Benchx {
        merge(&mut table, BENCHX.parse()?);
        if preset == "mrm-vit-tiny" {
            merge(&mut table, BENCHX_TINY.parse()?);
        }
    }
    Ok(Value::Table(table).try_into()?)
}

impl SegmentData {
    /// Name of the masks, where one is given.
    pub fn mask_name(&self) -> Option<&str> {
        Some(self.mask.as_str()).filter(|name| !name.is_empty())
    }
}

impl FinetuneConfig for SegmentConfig {
    fn parts(&mut self) -> (&mut FinetuneKeys, &mut Schedule) {
        (&mut self.keys, &mut self.optimizer.schedule)
    }

    /// Keeps the preset's image size, rounded to whole patches: the position table is resized.
    fn take_encoder(&mut self, encoder: Encoder) {
        let patch = encoder.vit.patch_size.max(1);
        let image_size = ((self.model.vit.image_size + patch / 2) / patch).max(1) * patch;
        self.model.vit = VitConfig { image_size, ..encoder.vit };
        (self.data.image.mean, self.data.image.std) = (encoder.mean, encoder.std);
    }

    fn complete(&mut self) {
        self.model.blocks = self.model.chosen_blocks();
    }

    fn validate(&self) -> Result<()> {
        self.run.validate()?;
        self.model.validate()?;
        let schedule = &self.optimizer.schedule;
        if schedule.batch_size < 2 && self.model.head == Head::Upernet {
            bail!(
                "optimizer.batch_size: the batch norms of UPerNet need at least 2 records, not {}",
                schedule.batch_size
            );
        }
        schedule.validate()?;
        if schedule.cosine_steps > 0 {
            bail!("optimizer.cosine_steps: segmentation has a polynomial schedule (optimizer.power), not a cosine");
        }
        self.optimizer.encoder.validate()?;
        check_most("prediction.batch_size", self.prediction.batch_size, MAX_BATCH)?;
        check_most("data.repeat_positives", self.data.repeat_positives, MAX_REPEATS)?;
        if !(0.0..1.0).contains(&self.prediction.threshold) {
            bail!("prediction.threshold: must be from 0 to below 1, is {}", self.prediction.threshold);
        }
        if self.prediction.batch_size == 0 {
            bail!("prediction.batch_size: must be at least 1");
        }
        if self.data.repeat_positives == 0 {
            bail!("data.repeat_positives: must be at least 1");
        }
        if !(self.optimizer.power.is_finite() && self.optimizer.power >= 0.0) {
            bail!("optimizer.power: must be 0 or more, is {}", self.optimizer.power);
        }
        self.data.image.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PRESETS, overlay};

    #[test]
    fn every_preset_is_a_model_and_survives_its_file() {
        for preset in PRESETS {
            let mut config = segment_preset(preset, "siim", 100.0).unwrap();
            config.complete();
            config.validate().unwrap();
            assert_eq!(config.model.blocks.len(), 4);
            assert_eq!(overlay(&config, Some(&toml::to_string(&config).unwrap()), &[]).unwrap(), config);
        }
        let config = segment_preset("mrm-vit-b16", "siim", 10.0).unwrap();
        assert_eq!((config.model.vit.image_size, config.optimizer.schedule.steps), (512, 10_000));
        let setr = overlay(&config, None, &["model.head=setr".to_owned(), "model.blocks=[11]".to_owned()]).unwrap();
        assert_eq!(setr.model.head, Head::Setr);
        setr.validate().unwrap();
        let benchx = segment_recipe("mrm-vit-b16", "siim", 1.0, Recipe::Benchx).unwrap();
        benchx.validate().unwrap();
        let schedule = &benchx.optimizer.schedule;
        let figures = (schedule.lr, schedule.steps, schedule.warmup, schedule.batch_size, schedule.evaluate_every);
        assert_eq!(figures, (1e-3, 20_000, 1_500, 8, 2_000));
        assert!(benchx.optimizer.encoder.freeze_encoder && benchx.model.vit.image_size == 512);
        assert_eq!((benchx.optimizer.loss, benchx.optimizer.select_by), (SegmentLoss::CrossEntropy, MaskScore::Mdice));
        segment_recipe("mrm-vit-tiny", "siim", 1.0, Recipe::Benchx).unwrap().validate().unwrap();
        let single = overlay(&config, None, &["optimizer.batch_size=1".to_owned()]).unwrap();
        assert!(single.validate().unwrap_err().to_string().contains("at least 2 records"));
    }
}
