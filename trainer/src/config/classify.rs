//! Configuration of a run of classification.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::benchx::Benchx;
use super::length::fitting_batch;
use super::{
    Encoder, EncoderTraining, Epoch, FindingTask, FinetuneConfig, FinetuneKeys, ImageData, PRESETS, Recipe, RunConfig,
    Schedule, check_share, merge, preset_error, pretrain_preset,
};
use crate::model::classifier::ClassifierConfig;
use crate::task::{Missing, Uncertain};
use crate::train::optimizer::OptimizerKind;

/// Parameters of mixup's Beta distribution whose draws float64 can represent.
const MIXUP: RangeInclusive<f64> = 0.01..=100.0;

/// How the loss weights positive labels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClassWeights {
    /// As negative ones.
    #[default]
    None,
    /// By negatives / positives of the finding among the training labels that count, from 1/20 to 20.
    Balanced,
}

/// Section `[optimizer]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassifyOptimizer {
    /// SGD is the recipe's.
    pub kind: OptimizerKind,
    /// Frozen or slower encoder.
    #[serde(flatten)]
    pub encoder: EncoderTraining,
    /// How the loss weights positive labels.
    #[serde(default)]
    pub class_weights: ClassWeights,
    /// Share `s` of label smoothing (Szegedy et al. 2016): a target `y` becomes `y (1 - s) + s / 2`.
    #[serde(default)]
    pub label_smoothing: f64,
    /// Learning rate, length, batches.
    #[serde(flatten)]
    pub schedule: Schedule,
}

/// Section `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassifyData {
    /// Crops, flips, normalization.
    #[serde(flatten)]
    pub image: ImageData,
    /// Mixup (Zhang et al. 2018): each image and its targets are mixed with those of another record of the batch, with weights
    /// from Beta(mixup, mixup); 0: none. Only labels that count in both records count.
    #[serde(default)]
    pub mixup: f64,
    /// What uncertain labels count as.
    pub uncertain: Uncertain,
    /// Findings for which they count as something else: `["Edema=ones", …]`.
    pub uncertain_by_finding: Vec<String>,
    /// What blank labels of a record that has other labels count as; the default is the convention of the task's data.
    pub missing: Missing,
}

/// Configuration of a run of classification.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassifyConfig {
    /// Preset, task, dataset, split, ratio, initialization.
    #[serde(flatten)]
    pub keys: FinetuneKeys,
    /// The findings of the task.
    pub findings: Vec<String>,
    /// The classifier.
    pub model: ClassifierConfig,
    /// How images and labels are read.
    pub data: ClassifyData,
    /// How the model is trained.
    pub optimizer: ClassifyOptimizer,
    /// What all kinds of runs have.
    pub run: RunConfig,
}

const BASE: &str = include_str!("presets/classify/mrm-vit-b16.toml");
const TINY: &str = include_str!("presets/classify/mrm-vit-tiny.toml");
const RECIPES: &str = include_str!("presets/classify/recipes.toml");

/// The learning rate of AdamW where the recipe has SGD: that of the small preset.
const ADAMW_LR: f64 = 1e-3;

/// Warm-up, steps and learning rate of a task at a share of the labels, by the release.
#[derive(Clone, Copy, Deserialize)]
struct Figures {
    warmup: u64,
    steps: u64,
    lr: f64,
}

/// The release's recipes of a task for up to 1%, up to 10% and more of the labels; tasks without one take NIH's.
fn recipes(task: &str) -> Result<[Figures; 3]> {
    let all: BTreeMap<String, [Figures; 3]> = toml::from_str(RECIPES)?;
    all.get(task).or_else(|| all.get("nih14")).copied().context("no recipe")
}

/// The recipe of a task at a ratio in percent.
fn recipe_at(task: &str, ratio: f64) -> Result<Figures> {
    Ok(recipes(task)?[usize::from(ratio > 1.0) + usize::from(ratio > 10.0)])
}

/// The defaults of classification for a preset, a task and a ratio in percent: the release's recipe for this share of labels.
///
/// # Errors
/// When there is no such preset.
pub fn classify_preset(preset: &str, task: &FindingTask, ratio: f64) -> Result<ClassifyConfig> {
    classify_recipe(preset, task, ratio, Recipe::Release)
}

/// As [`classify_preset`], by a recipe. The length of BenchX's depends on the records ([`ClassifyConfig::take_length`]).
///
/// # Errors
/// When there is no such preset.
pub fn classify_recipe(preset: &str, task: &FindingTask, ratio: f64, by: Recipe) -> Result<ClassifyConfig> {
    let vit = pretrain_preset(preset)?.model.vit;
    let recipe = recipe_at(&task.name, ratio)?;
    let mut table: Table = BASE.parse()?;
    let schedule = format!(
        "[optimizer]\nwarmup = {}\nsteps = {}\nlr = {:?}\nevaluate_every = {}\n",
        recipe.warmup,
        recipe.steps,
        recipe.lr,
        (recipe.steps / 20).max(1)
    );
    merge(&mut table, schedule.parse()?);
    match preset {
        "mrm-vit-tiny" => merge(&mut table, TINY.parse()?),
        other if PRESETS.contains(&other) => {}
        other => return Err(preset_error(other)),
    }
    if by == Recipe::Benchx {
        Benchx::of(preset)?.lay_over(&mut table, &task.name);
    }
    let keys = FinetuneKeys { recipe: by, ..FinetuneKeys::new(preset, &task.name, ratio) };
    let mut given = Table::try_from(keys)?;
    given.insert("findings".to_owned(), Value::try_from(&task.findings)?);
    let mut model = Table::new();
    model.insert("vit".to_owned(), Value::try_from(vit)?);
    model.insert("classes".to_owned(), (task.findings.len() as i64).into());
    given.insert("model".to_owned(), model.into());
    let mut data = Table::new();
    data.insert("missing".to_owned(), Value::try_from(task.missing())?);
    given.insert("data".to_owned(), data.into());
    given.insert("run".to_owned(), Value::try_from(RunConfig::default())?);
    merge(&mut table, given);
    Ok(Value::Table(table).try_into()?)
}

impl FinetuneConfig for ClassifyConfig {
    fn parts(&mut self) -> (&mut FinetuneKeys, &mut Schedule) {
        (&mut self.keys, &mut self.optimizer.schedule)
    }

    fn take_encoder(&mut self, encoder: Encoder) {
        self.model.vit = encoder.vit;
        (self.data.image.mean, self.data.image.std) = (encoder.mean, encoder.std);
    }

    fn take_records(&mut self, records: usize) {
        if self.has_own_findings() && self.keys.recipe == Recipe::Release {
            let schedule = &mut self.optimizer.schedule;
            schedule.batch_size = fitting_batch(records, schedule.batch_size);
        }
    }

    /// The learning rate follows the optimizer and, for findings without a published recipe, the length.
    fn follow(&mut self, asked: &Self) -> Result<()> {
        let own = self.has_own_findings() && self.keys.recipe == Recipe::Release;
        let (kind, schedule) = (asked.optimizer.kind, &mut self.optimizer.schedule);
        if kind != self.optimizer.kind {
            schedule.lr = match kind {
                OptimizerKind::AdamW => ADAMW_LR,
                OptimizerKind::Sgd => recipe_at(&self.keys.task, self.keys.ratio)?.lr,
            };
        }
        if own && kind == OptimizerKind::Sgd {
            let [short, long, _] = recipes("nih14")?;
            schedule.lr = if asked.optimizer.schedule.steps <= short.steps { short.lr } else { long.lr };
        }
        self.optimizer.kind = kind;
        Ok(())
    }

    fn validate(&self) -> Result<()> {
        self.run.validate()?;
        self.model.validate()?;
        self.data.image.validate()?;
        self.optimizer.schedule.validate()?;
        self.optimizer.encoder.validate()?;
        check_share("optimizer.label_smoothing", self.optimizer.label_smoothing)?;
        if self.data.mixup != 0.0 && !MIXUP.contains(&self.data.mixup) {
            let (least, most) = MIXUP.into_inner();
            bail!("data.mixup: must be 0 (none), or from {least} to {most}, is {}", self.data.mixup);
        }
        if self.model.classes != self.findings.len() as i64 {
            bail!("model.classes is {}, the task has {} findings", self.model.classes, self.findings.len());
        }
        Ok(())
    }
}

impl ClassifyConfig {
    /// Whether the findings are the user's own, for which no recipe is published.
    fn has_own_findings(&self) -> bool {
        FindingTask::parse(&self.keys.task).is_ok_and(|task| task.has_no_recipe())
    }

    /// Sets the length that depends on the training records, `epoch` of them.
    ///
    /// BenchX's recipe states its length in epochs. The release has none for findings of the user's own: they get epochs of the
    /// records at hand and early stopping. For published tasks, the release's length is in the presets.
    ///
    /// # Errors
    /// When the recipes that are compiled in cannot be read.
    pub fn take_length(&mut self, epoch: Epoch) -> Result<()> {
        let (task, schedule) = (&self.keys.task, &mut self.optimizer.schedule);
        match self.keys.recipe {
            Recipe::Benchx => schedule.take_recipe_length(&Benchx::of(&self.keys.preset)?.length_of(task), epoch),
            Recipe::Release => schedule.take_default_length(epoch),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TrainingCrop, overlay};

    fn benchx(preset: &str, task: &str, ratio: f64, records: usize) -> ClassifyConfig {
        let task = FindingTask::parse(task).unwrap();
        let mut config = classify_recipe(preset, &task, ratio, Recipe::Benchx).unwrap();
        let epoch = config.optimizer.schedule.epoch(records);
        config.take_length(epoch).unwrap();
        config.validate().unwrap();
        config
    }

    /// The figures of BenchX's configurations of MRM.
    #[test]
    fn benchx_has_its_published_figures() {
        for (task, kind, lr, batch_size) in [
            ("nih14", OptimizerKind::Sgd, 3e-2, 64),
            ("chexpert5", OptimizerKind::Sgd, 1e-2, 64),
            ("rsna", OptimizerKind::Sgd, 1e-2, 32),
            ("covid", OptimizerKind::AdamW, 5e-4, 64),
            ("labels:Edema,Mass", OptimizerKind::Sgd, 1e-2, 64),
        ] {
            let ClassifyConfig { keys, model, data, optimizer, .. } = benchx("mrm-vit-b16", task, 1.0, 785);
            let schedule = &optimizer.schedule;
            assert_eq!((keys.recipe, optimizer.kind), (Recipe::Benchx, kind), "{task}");
            assert_eq!((schedule.lr, schedule.batch_size, schedule.weight_decay), (lr, batch_size, 0.0), "{task}");
            let encoder = EncoderTraining { freeze_encoder: false, encoder_lr_scale: 0.1 };
            assert_eq!((optimizer.encoder, schedule.layer_decay, schedule.clip), (encoder, 1.0, 1.0));
            assert_eq!((model.drop_path, model.head_norm, model.head_std), (0.0, true, 2e-5));
            assert_eq!((data.image.crop, data.image.crop_scale), (TrainingCrop::RandomResized, 0.08));
        }
        // 785 records are 12 batches of 64 an epoch; 78,468 are 1,226.
        let length = |config: ClassifyConfig| {
            let schedule = config.optimizer.schedule;
            (schedule.steps, schedule.warmup, schedule.cosine_steps, schedule.evaluate_every, schedule.patience)
        };
        assert_eq!(length(benchx("mrm-vit-b16", "nih14", 1.0, 785)), (2_400, 50, 3_000, 60, 10));
        assert_eq!(length(benchx("mrm-vit-b16", "nih14", 100.0, 78_468)), (245_200, 50, 3_000, 6_130, 10));
        // Short runs have a shorter warm-up; findings of one's own a cosine that ends with the run.
        assert_eq!(length(benchx("mrm-vit-b16", "labels:Edema", 100.0, 41)), (200, 10, 0, 5, 10));
        let tiny = benchx("mrm-vit-tiny", "nih14", 100.0, 3_200);
        assert_eq!((tiny.optimizer.kind, tiny.optimizer.encoder.encoder_lr_scale), (OptimizerKind::AdamW, 0.1));
        assert_eq!(length(tiny), (2_000, 50, 0, 100, 10));
    }

    #[test]
    fn every_switch_of_a_recipe_is_a_key() {
        let config = benchx("mrm-vit-b16", "nih14", 1.0, 785);
        let settings = [
            "optimizer.encoder_lr_scale=1",
            "model.head_norm=false",
            "model.head_std=0",
            "model.drop_path=0.1",
            "data.crop=random",
            "data.mixup=0.2",
            "optimizer.cosine_steps=0",
            "optimizer.class_weights=balanced",
            "optimizer.label_smoothing=0.1",
            "optimizer.freeze_encoder=true",
        ];
        let changed = overlay(&config, None, &settings.map(str::to_owned)).unwrap();
        changed.validate().unwrap();
        assert_eq!((changed.optimizer.encoder.encoder_lr_scale, changed.model.head_norm), (1.0, false));
        assert_eq!((changed.data.image.crop, changed.data.mixup), (TrainingCrop::Random, 0.2));
        assert_eq!(changed.optimizer.class_weights, ClassWeights::Balanced);
        let invalid =
            |setting: &str| overlay(&config, None, &[setting.to_owned()]).unwrap().validate().unwrap_err().to_string();
        for (setting, words) in [
            ("optimizer.encoder_lr_scale=0", "freeze_encoder=true trains the head alone"),
            ("optimizer.label_smoothing=1", "optimizer.label_smoothing: must be from 0 to below 1, is 1"),
            ("data.mixup=-1", "data.mixup: must be 0 (none), or from 0.01 to 100, is -1"),
            ("optimizer.cosine_steps=20", "optimizer.warmup is 50 of 20 steps of the cosine"),
            ("model.head_std=-1", "head_std"),
        ] {
            let message = invalid(setting);
            assert!(message.contains(words), "{message}");
        }
    }
}
