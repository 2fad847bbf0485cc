//! Configuration of a fine-tuning run, and the tasks there are.

use anyhow::{Result, bail};
use dataset::name_suggestion::did_you_mean;
use serde::{Deserialize, Serialize};

use super::{
    Epoch, MAX_BATCH, MEAN, PATIENCE, RunConfig, STD, check_data, check_layer_decay, check_most, check_rates,
    check_warmup, pretrain_preset, shared,
};
use crate::model::classifier::ClassifierConfig;
use crate::task::{Missing, Uncertain};
use crate::train::optimizer::OptimizerKind;

/// The name of start values in place of weights.
pub const RANDOM: &str = "random";
/// What tables call start values.
pub const RANDOM_NAME: &str = "random start";

/// How fine-tuning optimizes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneOptimizer {
    pub rule: OptimizerKind,
    pub rate: f64,
    pub weight_decay: f64,
    /// Factor on the rate from one layer to the one before it (BEiT), above 0 to 1; 1: all layers learn alike.
    pub layer_decay: f64,
    /// Train the linear head alone, on features of a frozen encoder: a linear probe.
    pub linear_probe: bool,
    /// Updates of the warm-up, and in all.
    pub warmup: u64,
    pub steps: u64,
    pub batch_size: usize,
    /// Micro-batches of an update.
    pub accumulation: usize,
    pub clip: f64,
    /// Updates between two evaluations on the validation subset.
    pub evaluate_every: u64,
    /// Evaluations without a better score after which the run ends; 0: it makes all its updates.
    #[serde(default)]
    pub patience: u64,
}

/// How fine-tuning sees its data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneData {
    /// Smallest share of the area that RandomResizedCrop takes.
    pub crop_scale: f64,
    pub flip: f64,
    pub mean: f64,
    pub std: f64,
    /// What uncertain labels count as.
    pub uncertain: Uncertain,
    /// Findings for which they count as something else: `["Edema=ones", …]`.
    pub uncertain_by_finding: Vec<String>,
    /// What blank labels of a record that has other labels count as; by default as the task's data means them.
    pub missing: Missing,
}

/// Configuration of a fine-tuning run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneConfig {
    pub preset: String,
    pub task: String,
    /// The dataset it is trained on.
    #[serde(default)]
    pub dataset: String,
    /// The findings of the task.
    pub findings: Vec<String>,
    /// Name of the split.
    pub split: String,
    /// Digest of who is in which of its subsets.
    #[serde(default)]
    pub split_members: String,
    /// Percentage of the training labels.
    pub ratio: f64,
    /// Where the weights came from; `random` for start values.
    pub init: String,
    /// What tables and charts call these start weights; runs of one name are summed up.
    #[serde(default)]
    pub start: String,
    pub model: ClassifierConfig,
    pub data: FinetuneData,
    pub optimizer: FinetuneOptimizer,
    pub run: RunConfig,
}

/// The fine-tuning defaults of a preset, with the recipe's steps and rate for the ratio.
pub fn finetune_preset(preset: &str, task: &Task, ratio: f64) -> Result<FinetuneConfig> {
    let vit = pretrain_preset(preset)?.model.vit;
    let (warmup, steps, rate) = task.recipe(ratio);
    let mut config = FinetuneConfig {
        preset: preset.to_owned(),
        task: task.name.clone(),
        dataset: String::new(),
        findings: task.findings.clone(),
        split: String::new(),
        split_members: String::new(),
        ratio,
        init: RANDOM.to_owned(),
        start: RANDOM_NAME.to_owned(),
        model: ClassifierConfig { vit, classes: task.findings.len() as i64, drop_path: 0.1 },
        data: FinetuneData {
            crop_scale: 0.08,
            flip: 0.5,
            mean: MEAN,
            std: STD,
            uncertain: Uncertain::Zeros,
            uncertain_by_finding: Vec::new(),
            missing: task.missing(),
        },
        optimizer: FinetuneOptimizer {
            rule: OptimizerKind::Sgd,
            rate,
            weight_decay: 0.0,
            layer_decay: 1.0,
            linear_probe: false,
            warmup,
            steps,
            batch_size: 96,
            accumulation: 1,
            clip: 1.0,
            evaluate_every: (steps / 20).max(1),
            patience: 0,
        },
        run: RunConfig::default(),
    };
    if preset == "mrm-vit-tiny" {
        // As in pre-training: few updates, and sides that the report names.
        config.data = FinetuneData { crop_scale: 0.7, flip: 0.0, ..config.data };
        config.optimizer = FinetuneOptimizer {
            rule: OptimizerKind::AdamW,
            rate: 1e-3,
            weight_decay: 0.05,
            warmup: 25,
            steps: 250,
            batch_size: 32,
            evaluate_every: 25,
            ..config.optimizer
        };
    }
    Ok(config)
}

/// Names of the tasks that are one word.
const NAMES: [&str; 6] = ["nih14", "chexpert5", "rsna", "covid", "viral", super::SEGMENTATION_TASK];
/// All tasks, for a message.
pub const TASKS: &str = "nih14, chexpert5, rsna, covid, viral, labels:A,B, siim (segmentation)";

/// A downstream task.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    pub name: String,
    pub findings: Vec<String>,
    /// Rows count only where one of these findings is positive; empty: all rows.
    pub only_with: Vec<String>,
}

const NIH14: [&str; 14] = [
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
];
/// Warm-up, updates and rate of NIH's shortest recipe, and the rate of its longer ones.
const SHORT: (u64, u64, f64) = (50, 3_000, 3e-2);
const LONG_RATE: f64 = 3e-3;
const CHEXPERT5: [&str; 5] = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"];

impl Task {
    /// `nih14`, `chexpert5`, `rsna`, `covid`, `viral`, or `labels:A,B`.
    pub fn parse(name: &str) -> Result<Self> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (findings, only_with) = match name {
            "nih14" => (owned(&NIH14), Vec::new()),
            "chexpert5" => (owned(&CHEXPERT5), Vec::new()),
            "rsna" => (owned(&["Pneumonia"]), Vec::new()),
            "covid" => (owned(&["Pneumonia/Viral/COVID-19"]), owned(&["Pneumonia"])),
            "viral" => (owned(&["Pneumonia/Viral"]), owned(&["Pneumonia/Viral", "Pneumonia/Bacterial"])),
            other => match other.strip_prefix("labels:") {
                Some(list) => {
                    let names: Vec<String> = list.split(',').map(|name| name.trim().to_owned()).collect();
                    if let Some(at) =
                        (0..names.len()).find(|&at| names[at].is_empty() || names[..at].contains(&names[at]))
                    {
                        bail!(
                            "`{other}`: give each finding once, as labels:A,B (finding {} is empty or repeated)",
                            at + 1
                        );
                    }
                    (names, Vec::new())
                }
                _ => bail!("no task `{other}`; there are: {TASKS}{}", did_you_mean(other, NAMES)),
            },
        };
        Ok(Self { name: name.to_owned(), findings, only_with })
    }

    /// Whether the findings are the user's own, for which no recipe is published.
    pub fn has_no_recipe(&self) -> bool {
        self.name.starts_with("labels:")
    }

    /// What a blank label counts as by default: the convention of the data that the task is defined on.
    ///
    /// CheXpert's labels leave findings blank that the report does not mention, which the field counts as negative. The
    /// COVID-19 collection leaves the finer findings of a plain `Pneumonia` blank, which MRM's lists count as another
    /// pneumonia. In the data of all other built-in tasks no record with labels has a blank one. A blank label in other
    /// data means that nobody looked.
    fn missing(&self) -> Missing {
        match self.name.as_str() {
            "chexpert5" | "covid" => Missing::Zeros,
            _ => Missing::Ignore,
        }
    }

    /// The recipe's warm-up, steps and rate for a ratio in percent; findings of one's own take NIH's.
    fn recipe(&self, ratio: f64) -> (u64, u64, f64) {
        let tier = usize::from(ratio > 1.0) + usize::from(ratio > 10.0);
        match self.name.as_str() {
            "chexpert5" => [(150, 2_000, 3e-3), (1_500, 60_000, 5e-4), (15_000, 200_000, 5e-4)][tier],
            "rsna" => [(50, 2_000, 3e-3), (200, 10_000, 5e-4), (2_000, 50_000, 5e-4)][tier],
            "covid" | "viral" => (50, 1_000, 3e-2),
            _ => [SHORT, (500, 30_000, LONG_RATE), (5_000, 200_000, LONG_RATE)][tier],
        }
    }
}

impl FinetuneConfig {
    /// An error if no run has these settings.
    pub fn validate(&self) -> Result<()> {
        self.run.validate()?;
        self.model.validate()?;
        let optimizer = &self.optimizer;
        check_data(self.data.crop_scale, self.data.flip, self.data.mean, self.data.std)?;
        if optimizer.accumulation == 0 || optimizer.batch_size == 0 || optimizer.steps == 0 {
            bail!("optimizer.accumulation, optimizer.batch_size and optimizer.steps: must be at least 1");
        }
        check_most("optimizer.batch_size", optimizer.batch_size, MAX_BATCH)?;
        check_most("optimizer.accumulation", optimizer.accumulation, MAX_BATCH)?;
        check_rates(&[optimizer.rate, optimizer.weight_decay, optimizer.clip])?;
        check_layer_decay(optimizer.layer_decay)?;
        check_warmup(optimizer.warmup, optimizer.steps)?;
        if self.model.classes != self.findings.len() as i64 {
            bail!("model.classes is {}, the task has {} findings", self.model.classes, self.findings.len());
        }
        Ok(())
    }

    /// Sets what a task without a published recipe has by default: epochs of the records at hand, early stopping, and the
    /// rate that the release takes for runs of that length.
    pub fn take_default_length(&mut self, epoch: Epoch) {
        let optimizer = &mut self.optimizer;
        (optimizer.steps, optimizer.warmup) = epoch.default_steps();
        optimizer.evaluate_every = epoch.evaluate_every(optimizer.steps);
        optimizer.patience = PATIENCE;
        if optimizer.rule == OptimizerKind::Sgd {
            let (_, short, rate) = SHORT;
            optimizer.rate = if optimizer.steps <= short { rate } else { LONG_RATE };
        }
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
}
