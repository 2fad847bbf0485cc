//! Configuration of a run of self-distillation.

use anyhow::{Result, bail};
use dataset::transform::{Augmentation, Window, WindowJitter};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{
    MAX_BATCH, MAX_EPOCHS, PRESETS, Provenance, RunConfig, check_data, check_most, check_rates, check_windows, merge,
    preset_error, pretrain_preset,
};
use crate::model::dino::DinoModelConfig;

/// Largest number of local crops of an image.
const MAX_CROPS: usize = 64;

/// Largest number of iterations of Sinkhorn–Knopp.
const MAX_ITERATIONS: usize = 100;

/// Section `[data]`. Two global crops of the encoder's image size are made of each image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DinoData {
    /// Smallest and largest share of the area that a global crop takes.
    pub global_scale: (f64, f64),
    /// The same of a local crop.
    pub local_scale: (f64, f64),
    /// Local crops of an image; 0: none.
    pub local_crops: usize,
    /// Side of a local crop in pixels, a multiple of the patch size.
    pub local_size: i64,
    /// Probability of a horizontal flip of a crop.
    pub flip: f64,
    /// Mean of the pixels, 0 to 1.
    pub mean: f64,
    /// Standard deviation of the pixels, 0 to 1.
    pub std: f64,
    /// Augmentations of each crop, in their order.
    #[serde(default)]
    pub augment: Vec<Augmentation>,
    /// The window of images of 16 bits: `stored`, `full`, or `CENTER,WIDTH`.
    #[serde(default)]
    pub window: Window,
    /// Random change of the window in training: of the center in widths, of the width as a share of it.
    #[serde(default)]
    pub window_jitter: WindowJitter,
}

/// What keeps the teacher from giving all images the same output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Centering {
    /// The moving average of its scores is subtracted (DINO, iBOT).
    Center,
    /// Sinkhorn–Knopp over the batch (SwAV, DINOv2).
    Sinkhorn,
}

/// Section `[teacher]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherConfig {
    /// Share of the teacher that stays at the first step; at the last one it is `momentum_end`, half a cosine between them.
    pub momentum: f64,
    /// Share of the teacher that stays at the last step.
    pub momentum_end: f64,
    /// Temperature of its distributions after the warm-up.
    pub temperature: f64,
    /// Temperature at the first step.
    pub warmup_temperature: f64,
    /// Length of the linear warm-up of the temperature, in epochs.
    pub warmup_epochs: f64,
    /// What keeps it from collapsing.
    pub centering: Centering,
    /// Share of the center that stays at a step.
    pub center_momentum: f64,
    /// Iterations of Sinkhorn–Knopp.
    pub sinkhorn_iterations: u32,
}

/// Section `[loss]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DinoLoss {
    /// Temperature of the student's distributions.
    pub student_temperature: f64,
    /// Weight of the loss of class tokens over crops.
    pub cls_weight: f64,
    /// Weight of the loss of masked patches (iBOT); 0: no patch is masked.
    pub patch_weight: f64,
    /// Weight of KoLeo on the class tokens of the student's global crops; 0: none.
    pub koleo_weight: f64,
    /// Share of the global crops that have a mask.
    pub mask_probability: f64,
    /// Smallest and largest share of masked patches of such a crop.
    pub mask_ratio: (f64, f64),
}

/// Section `[optimizer]`: AdamW, linear warm-up, half a cosine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DinoOptimizer {
    /// Learning rate for an effective batch of 256; it scales with the batch.
    pub base_lr: f64,
    /// Learning rate at the end.
    pub min_lr: f64,
    /// Weight decay at the first step; biases and norms have none.
    pub weight_decay: f64,
    /// Weight decay at the last step; half a cosine between them.
    pub weight_decay_end: f64,
    /// Length of the run in epochs.
    pub epochs: f64,
    /// Length of the warm-up in epochs.
    pub warmup_epochs: f64,
    /// Epochs in which the prototypes are not trained.
    pub freeze_epochs: f64,
    /// Steps in place of epochs; 0: by epochs. Lengths in epochs keep their shares of the run.
    pub steps: u64,
    /// Records of a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Largest gradient norm; 0: no clipping.
    pub clip: f64,
}

/// Configuration of a run of self-distillation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DinoConfig {
    /// Name of the preset.
    pub preset: String,
    /// What the run is trained on: the dataset, and the split whose training subset it sees (empty: all records).
    #[serde(flatten)]
    pub provenance: Provenance,
    /// Student and teacher.
    pub model: DinoModelConfig,
    /// How crops are made.
    pub data: DinoData,
    /// How the teacher follows the student.
    pub teacher: TeacherConfig,
    /// What is learned.
    pub loss: DinoLoss,
    /// How the student is trained.
    pub optimizer: DinoOptimizer,
    /// What all kinds of runs have.
    pub run: RunConfig,
}

const BASE: &str = include_str!("presets/dino/mrm-vit-b16.toml");
const TINY: &str = include_str!("presets/dino/mrm-vit-tiny.toml");

/// The defaults of self-distillation for a preset, whose encoder is that of masked record modeling.
///
/// # Errors
/// When there is no such preset.
pub fn dino_preset(preset: &str) -> Result<DinoConfig> {
    let vit = Table::try_from(pretrain_preset(preset)?.model.vit)?;
    let mut table = Table::new();
    table.insert("model".to_owned(), Value::Table(Table::from_iter([("vit".to_owned(), Value::Table(vit))])));
    merge(&mut table, BASE.parse()?);
    match preset {
        "mrm-vit-tiny" => merge(&mut table, TINY.parse()?),
        other if PRESETS.contains(&other) => {}
        other => return Err(preset_error(other)),
    }
    table.insert("preset".to_owned(), preset.into());
    table.insert("run".to_owned(), Value::try_from(RunConfig::default())?);
    Ok(Value::Table(table).try_into()?)
}

impl DinoConfig {
    /// Sets the length in epochs, in place of steps; the warm-up of the learning rate keeps its share.
    pub fn take_epochs(&mut self, epochs: f64) {
        let optimizer = &mut self.optimizer;
        optimizer.warmup_epochs *= epochs / optimizer.epochs;
        (optimizer.epochs, optimizer.steps) = (epochs, 0);
    }

    /// An error if no run has these settings.
    pub fn validate(&self) -> Result<()> {
        self.run.validate()?;
        self.model.validate()?;
        for (key, is_set) in [
            ("ema", self.run.ema > 0.0),
            ("master_weights", self.run.master_weights),
            ("cuda_graph", self.run.cuda_graph),
            ("in_place_loss", self.run.in_place_loss),
        ] {
            if is_set {
                bail!("run.{key}: not with self-distillation, whose teacher is a moving average that each pass reads");
            }
        }
        self.check_optimizer()?;
        self.check_teacher()?;
        self.check_crops()?;
        let DinoLoss { cls_weight, patch_weight, koleo_weight, mask_probability, mask_ratio, .. } = self.loss;
        check_rates(&[cls_weight, patch_weight, koleo_weight])?;
        if cls_weight + patch_weight == 0.0 {
            bail!("loss.cls_weight and loss.patch_weight: one must be above 0");
        }
        let shares = [mask_probability, mask_ratio.0, mask_ratio.1];
        if shares.iter().any(|share| !(0.0..=1.0).contains(share)) || mask_ratio.0 > mask_ratio.1 {
            bail!("loss.mask_probability and loss.mask_ratio: must be shares from 0 to 1, the latter ascending");
        }
        Ok(())
    }

    fn check_optimizer(&self) -> Result<()> {
        let optimizer = &self.optimizer;
        if optimizer.batch_size == 0 || optimizer.accumulation == 0 {
            bail!("optimizer.batch_size and optimizer.accumulation: must be at least 1");
        }
        check_most("optimizer.batch_size", optimizer.batch_size, MAX_BATCH)?;
        check_most("optimizer.accumulation", optimizer.accumulation, MAX_BATCH)?;
        if !(optimizer.epochs > 0.0 && optimizer.epochs <= MAX_EPOCHS) {
            bail!("optimizer.epochs: must be above 0 and at most {MAX_EPOCHS}, is {:?}", optimizer.epochs);
        }
        if !(0.0..optimizer.epochs).contains(&optimizer.warmup_epochs) {
            bail!(
                "optimizer.warmup_epochs is {}, optimizer.epochs {}: the warm-up must be the shorter one",
                optimizer.warmup_epochs,
                optimizer.epochs
            );
        }
        let DinoOptimizer { base_lr, min_lr, weight_decay, weight_decay_end, freeze_epochs, clip, .. } = *optimizer;
        check_rates(&[base_lr, min_lr, weight_decay, weight_decay_end, freeze_epochs, clip])
    }

    fn check_teacher(&self) -> Result<()> {
        let teacher = &self.teacher;
        for (key, momentum) in [
            ("momentum", teacher.momentum),
            ("momentum_end", teacher.momentum_end),
            ("center_momentum", teacher.center_momentum),
        ] {
            if !(0.0..=1.0).contains(&momentum) {
                bail!("teacher.{key}: must be from 0 to 1, is {momentum}");
            }
        }
        for (key, temperature) in [
            ("teacher.temperature", teacher.temperature),
            ("teacher.warmup_temperature", teacher.warmup_temperature),
            ("loss.student_temperature", self.loss.student_temperature),
        ] {
            // Scores are cosines: exp(1 / 0.012) is the largest that float32 holds.
            if !(temperature.is_finite() && temperature >= 0.012) {
                bail!("{key}: must be at least 0.012, is {temperature:?}");
            }
        }
        if !(teacher.warmup_epochs.is_finite() && teacher.warmup_epochs >= 0.0) {
            bail!("teacher.warmup_epochs: must be 0 or more, is {:?}", teacher.warmup_epochs);
        }
        if !(1..=MAX_ITERATIONS).contains(&(teacher.sinkhorn_iterations as usize)) {
            bail!(
                "teacher.sinkhorn_iterations: must be from 1 to {MAX_ITERATIONS}, is {}",
                teacher.sinkhorn_iterations
            );
        }
        Ok(())
    }

    fn check_crops(&self) -> Result<()> {
        let (data, vit) = (&self.data, &self.model.vit);
        for (key, (low, high)) in [("global_scale", data.global_scale), ("local_scale", data.local_scale)] {
            if !(low > 0.0 && low <= high && high <= 1.0) {
                bail!("data.{key}: must be two ascending shares above 0 and at most 1, is [{low}, {high}]");
            }
        }
        check_most("data.local_crops", data.local_crops, MAX_CROPS)?;
        let fits = data.local_size >= vit.patch_size && data.local_size <= vit.image_size;
        if data.local_crops > 0 && !(fits && data.local_size % vit.patch_size == 0) {
            bail!(
                "data.local_size: must be a multiple of the patch size {} up to model.vit.image_size {}, is {}",
                vit.patch_size,
                vit.image_size,
                data.local_size
            );
        }
        check_windows(data.window, data.window_jitter)?;
        check_data(data.global_scale.0, data.flip, data.mean, data.std, &data.augment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, overlay};
    use crate::model::vit::Pooling;

    #[test]
    fn presets_are_valid_and_survive_their_file() {
        for preset in PRESETS {
            let config = dino_preset(preset).unwrap();
            config.validate().unwrap();
            let vit = pretrain_preset(preset).unwrap().model.vit;
            assert_eq!(config.model.vit.embed_dim, vit.embed_dim);
            assert!(config.model.vit.final_norm && config.model.vit.pooling == Pooling::Cls);
            let file = ConfigFile::of("dino", &config).unwrap();
            assert_eq!(ConfigFile::parse(file.text(), "x").unwrap().read::<DinoConfig>().unwrap(), config);
            assert_eq!(file.common().unwrap().encoder.vit, config.model.vit);
        }
    }

    #[test]
    fn impossible_settings_are_refused_by_key() {
        let base = dino_preset("mrm-vit-tiny").unwrap();
        for (setting, key) in [
            ("run.ema=0.9", "run.ema"),
            ("data.local_size=36", "data.local_size"),
            ("data.global_scale=[0.5, 0.2]", "data.global_scale"),
            ("teacher.momentum=1.5", "teacher.momentum"),
            ("teacher.temperature=0.001", "teacher.temperature"),
            ("loss.mask_ratio=[0.5, 0.1]", "loss.mask_probability and loss.mask_ratio"),
            ("loss.cls_weight=0", "loss.cls_weight"),
            ("optimizer.warmup_epochs=1000", "optimizer.warmup_epochs"),
            ("model.vit.final_norm=false", "vit.final_norm"),
        ] {
            let error = overlay(&base, None, &[setting.to_owned()]).unwrap().validate().unwrap_err().to_string();
            assert!(error.starts_with(key), "{setting}: {error}");
        }
    }
}
