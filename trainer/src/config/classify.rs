//! Configuration of a run of classification.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{
    Encoder, FindingTask, FinetuneConfig, FinetuneKeys, ImageData, PRESETS, RunConfig, Schedule, merge, preset_error,
    pretrain_preset,
};
use crate::model::classifier::ClassifierConfig;
use crate::task::{Missing, Uncertain};
use crate::train::optimizer::OptimizerKind;

/// Section `[optimizer]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassifyOptimizer {
    /// SGD is the recipe's.
    pub kind: OptimizerKind,
    /// Train the linear head alone, on features of a frozen encoder: a linear probe.
    pub linear_probe: bool,
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

/// Warm-up, steps and learning rate of a task at a share of the labels.
#[derive(Clone, Copy, Deserialize)]
struct Recipe {
    warmup: u64,
    steps: u64,
    lr: f64,
}

/// The recipes of a task for up to 1%, up to 10% and more of the labels; tasks without one take NIH's.
fn recipes(task: &str) -> Result<[Recipe; 3]> {
    let all: BTreeMap<String, [Recipe; 3]> = toml::from_str(RECIPES)?;
    all.get(task).or_else(|| all.get("nih14")).copied().context("no recipe")
}

/// The defaults of classification for a preset, a task and a ratio in percent: the preset's recipe for this share of labels.
///
/// # Errors
/// When there is no such preset.
pub fn classify_preset(preset: &str, task: &FindingTask, ratio: f64) -> Result<ClassifyConfig> {
    let vit = pretrain_preset(preset)?.model.vit;
    let recipe = recipes(&task.name)?[usize::from(ratio > 1.0) + usize::from(ratio > 10.0)];
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
    let mut given = Table::try_from(FinetuneKeys::new(preset, &task.name, ratio))?;
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

    fn validate(&self) -> Result<()> {
        self.run.validate()?;
        self.model.validate()?;
        self.data.image.validate()?;
        self.optimizer.schedule.validate()?;
        if self.model.classes != self.findings.len() as i64 {
            bail!("model.classes is {}, the task has {} findings", self.model.classes, self.findings.len());
        }
        Ok(())
    }
}

impl ClassifyConfig {
    /// Sets the defaults of findings without a published recipe: epochs of the records at hand, early stopping, and the
    /// learning rate that the release takes for runs of that length.
    ///
    /// # Errors
    /// When the recipes that are compiled in cannot be read.
    pub fn take_default_length(&mut self, epoch: super::Epoch) -> Result<()> {
        self.optimizer.schedule.take_default_length(epoch);
        if self.optimizer.kind == OptimizerKind::Sgd {
            let [short, long, _] = recipes("nih14")?;
            let schedule = &mut self.optimizer.schedule;
            schedule.lr = if schedule.steps <= short.steps { short.lr } else { long.lr };
        }
        Ok(())
    }
}
