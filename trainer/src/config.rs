//! Configuration: defaults < preset < TOML file < `--set key=value`. Unknown keys are errors that name the nearest one;
//! the resolved whole is printed and stored.

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::bert::BertConfig;
use crate::classifier::ClassifierConfig;
use crate::image_decoder::DecoderConfig;
use crate::mrm::{MrmConfig, ReportLoss};
use crate::objectives::{Missing, Uncertain};
use crate::vit::VitConfig;

/// Names of the presets.
pub const PRESETS: [&str; 3] = ["mrm-vit-b16", "mrm-vit-s16", "mrm-vit-tiny"];

/// How pre-training sees its data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainData {
    /// Tokens of a report, `[CLS]` included.
    pub tokens: i64,
    /// Share of a report's words that is hidden.
    pub report_mask_ratio: f64,
    /// Smallest share of the area that RandomResizedCrop takes.
    pub crop_scale: f64,
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Mean and standard deviation that pixels are normalised with, 0..1.
    pub mean: f64,
    pub std: f64,
}

/// How pre-training optimises: AdamW, warm-up, half-cosine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainOptimiser {
    /// Rate for an effective batch of 256; it scales with the batch.
    pub base_rate: f64,
    pub weight_decay: f64,
    pub epochs: f64,
    pub warmup_epochs: f64,
    /// Updates in place of epochs; 0: by epochs. The warm-up keeps its share.
    pub steps: u64,
    /// Records of a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of an update.
    pub accumulation: usize,
    /// Largest gradient norm; 0: no clipping.
    pub clip: f64,
}

/// What both kinds of run share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    pub seed: u64,
    /// Updates between two lines of `metrics.jsonl`.
    pub log_every: u64,
    /// Updates between two checkpoints.
    pub checkpoint_every: u64,
    /// Checkpoints kept beside the best one.
    pub keep_last: usize,
    /// Threads of the loader; 0: one a core.
    pub loader_threads: usize,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self { seed: 0, log_every: 20, checkpoint_every: 1000, keep_last: 2, loader_threads: 0 }
    }
}

/// Configuration of a pre-training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    pub preset: String,
    pub model: MrmConfig,
    pub data: PretrainData,
    pub optimiser: PretrainOptimiser,
    pub run: RunConfig,
}

/// Which update rule fine-tuning uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// SGD with momentum 0.9: the recipe's.
    Sgd,
    Adamw,
}

/// How fine-tuning optimises.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneOptimiser {
    pub rule: Rule,
    pub rate: f64,
    pub weight_decay: f64,
    /// Updates of the warm-up, and in all.
    pub warmup: u64,
    pub steps: u64,
    pub batch_size: usize,
    pub clip: f64,
    /// Updates between two evaluations on the validation subset.
    pub evaluate_every: u64,
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
    pub uncertain: Uncertain,
    pub missing: Missing,
}

/// Configuration of a fine-tuning run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuneConfig {
    pub preset: String,
    pub task: String,
    /// The findings of the task.
    pub findings: Vec<String>,
    /// Name of the split.
    pub split: String,
    /// Percentage of the training labels.
    pub ratio: f64,
    /// Where the weights came from; `random` for start values.
    pub init: String,
    pub model: ClassifierConfig,
    pub data: FinetuneData,
    pub optimiser: FinetuneOptimiser,
    pub run: RunConfig,
}

/// The pre-training defaults of a preset. Vocabulary 0 stands for the dataset's.
pub fn pretrain_preset(preset: &str) -> Result<PretrainConfig> {
    let mut config = PretrainConfig {
        preset: preset.to_owned(),
        model: MrmConfig { bert: BertConfig { vocab_size: 0, ..BertConfig::default() }, ..MrmConfig::default() },
        data: PretrainData {
            tokens: 100,
            report_mask_ratio: 0.5,
            crop_scale: 0.2,
            flip: 0.5,
            mean: 0.4978,
            std: 0.2449,
        },
        optimiser: PretrainOptimiser {
            base_rate: 1.5e-4,
            weight_decay: 0.05,
            epochs: 200.0,
            warmup_epochs: 40.0,
            steps: 0,
            batch_size: 32,
            accumulation: 8,
            clip: 0.0,
        },
        run: RunConfig::default(),
    };
    match preset {
        "mrm-vit-b16" => {}
        "mrm-vit-s16" => {
            config.model.vit = VitConfig { width: 384, heads: 6, ..VitConfig::default() };
            config.model.decoder = DecoderConfig { width: 384, ..DecoderConfig::default() };
        }
        "mrm-vit-tiny" => {
            config.model.vit =
                VitConfig { image_size: 64, patch_size: 8, width: 128, depth: 4, heads: 4, ..VitConfig::default() };
            config.model.decoder = DecoderConfig { width: 64, depth: 1, heads: 4, ..DecoderConfig::default() };
            config.model.bert = BertConfig {
                vocab_size: 0,
                hidden: 96,
                layers: 2,
                heads: 4,
                intermediate: 384,
                max_positions: 64,
                ..BertConfig::default()
            };
            // A few minutes on two cores are some 80,000 images. Within them the report teaches more than the patches do,
            // and the more so the less of it can be guessed from its own visible words; a flip would make its "left" wrong.
            config.model.mask_ratio = 0.5;
            config.model.report_loss = ReportLoss::Masked;
            config.data =
                PretrainData { tokens: 64, report_mask_ratio: 0.8, crop_scale: 0.7, flip: 0.0, ..config.data };
            config.optimiser = PretrainOptimiser {
                base_rate: 1.2e-2,
                steps: 2_600,
                batch_size: 32,
                accumulation: 1,
                clip: 1.0,
                ..config.optimiser
            };
        }
        other => bail!("no preset `{other}`; there are: {}", PRESETS.join(", ")),
    }
    Ok(config)
}

/// The fine-tuning defaults of a preset, with the recipe's steps and rate for the ratio.
pub fn finetune_preset(preset: &str, task: &Task, ratio: f64) -> Result<FinetuneConfig> {
    let vit = pretrain_preset(preset)?.model.vit;
    let (warmup, steps, rate) = task.recipe(ratio);
    let mut config = FinetuneConfig {
        preset: preset.to_owned(),
        task: task.name.clone(),
        findings: task.findings.clone(),
        split: String::new(),
        ratio,
        init: "random".to_owned(),
        model: ClassifierConfig { vit, classes: task.findings.len() as i64, drop_path: 0.1 },
        data: FinetuneData {
            crop_scale: 0.08,
            flip: 0.5,
            mean: 0.4978,
            std: 0.2449,
            uncertain: Uncertain::Zeros,
            missing: Missing::Zeros,
        },
        optimiser: FinetuneOptimiser {
            rule: Rule::Sgd,
            rate,
            weight_decay: 0.0,
            warmup,
            steps,
            batch_size: 96,
            clip: 1.0,
            evaluate_every: (steps / 20).max(1),
        },
        run: RunConfig::default(),
    };
    if preset == "mrm-vit-tiny" {
        // As in pre-training: few updates, and sides that the report names.
        config.data = FinetuneData { crop_scale: 0.7, flip: 0.0, ..config.data };
        config.optimiser = FinetuneOptimiser {
            rule: Rule::Adamw,
            rate: 1e-3,
            weight_decay: 0.05,
            warmup: 25,
            steps: 250,
            batch_size: 32,
            evaluate_every: 25,
            ..config.optimiser
        };
    }
    Ok(config)
}

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
const CHEXPERT5: [&str; 5] = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"];

impl Task {
    /// `nih14`, `chexpert5`, `covid`, `viral`, or `labels:A,B`.
    pub fn parse(name: &str) -> Result<Self> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (findings, only_with) = match name {
            "nih14" => (owned(&NIH14), Vec::new()),
            "chexpert5" => (owned(&CHEXPERT5), Vec::new()),
            "covid" => (owned(&["Pneumonia/Viral/COVID-19"]), Vec::new()),
            "viral" => (owned(&["Pneumonia/Viral"]), owned(&["Pneumonia/Viral", "Pneumonia/Bacterial"])),
            other => match other.strip_prefix("labels:") {
                Some(list) if !list.trim().is_empty() => {
                    (list.split(',').map(|name| name.trim().to_owned()).collect(), Vec::new())
                }
                _ => bail!("no task `{other}`; there are: nih14, chexpert5, covid, viral, labels:A,B"),
            },
        };
        Ok(Self { name: name.to_owned(), findings, only_with })
    }

    /// The recipe's warm-up, steps and rate for a ratio in percent; findings of one's own take NIH's.
    fn recipe(&self, ratio: f64) -> (u64, u64, f64) {
        let tier = usize::from(ratio > 1.0) + usize::from(ratio > 10.0);
        match self.name.as_str() {
            "chexpert5" => [(150, 2_000, 3e-3), (1_500, 60_000, 5e-4), (15_000, 200_000, 5e-4)][tier],
            "covid" | "viral" => (50, 1_000, 3e-2),
            _ => [(50, 3_000, 3e-2), (500, 30_000, 3e-3), (5_000, 200_000, 3e-3)][tier],
        }
    }
}

/// Lays a TOML file and `key=value` settings over a configuration, the latter last.
pub fn overlay<T: Serialize + DeserializeOwned>(config: &T, file: Option<&str>, settings: &[String]) -> Result<T> {
    let mut table = Table::try_from(config)?;
    if let Some(text) = file {
        let above: Table = text.parse().context("the configuration file is no TOML")?;
        lay(&mut table, above, "")?;
    }
    for setting in settings {
        let (key, value) = setting.split_once('=').with_context(|| format!("`{setting}` is not key=value"))?;
        // A bare word is a text; everything else is read as TOML.
        let value =
            format!("v={value}").parse::<Table>().ok().and_then(|mut t| t.remove("v")).unwrap_or_else(|| value.into());
        let mut above = Table::new();
        let parts: Vec<&str> = key.trim().split('.').collect();
        let (last, path) = parts.split_last().context("an empty key")?;
        let mut at = &mut above;
        for part in path {
            at = at
                .entry(*part)
                .or_insert_with(|| Value::Table(Table::new()))
                .as_table_mut()
                .context("a key is a section")?;
        }
        at.insert((*last).to_owned(), value);
        lay(&mut table, above, "")?;
    }
    Value::Table(table).try_into().context("the configuration does not fit")
}

fn lay(base: &mut Table, above: Table, prefix: &str) -> Result<()> {
    let known: Vec<String> = base.keys().cloned().collect();
    for (key, value) in above {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match (base.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(value)) => lay(inner, value, &path)?,
            (Some(Value::Float(inner)), Value::Integer(value)) => *inner = value as f64,
            (Some(inner), value) if inner.same_type(&value) => *inner = value,
            (Some(inner), value) => bail!("`{path}` is of type {}, not {}", inner.type_str(), value.type_str()),
            (None, _) => {
                let nearest = known.iter().min_by_key(|name| distance(name, &key));
                let hint = nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
                bail!("no key `{path}`{hint}");
            }
        }
    }
    Ok(())
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let substitute = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_lie_in_their_order() {
        let base = pretrain_preset("mrm-vit-tiny").unwrap();
        let file = "[optimiser]\nbatch_size = 8\nbase_rate = 1\n";
        let settings = ["optimiser.batch_size=16".to_owned(), "model.restore=image-only".to_owned()];
        let config = overlay(&base, Some(file), &settings).unwrap();
        assert_eq!((config.optimiser.batch_size, config.optimiser.base_rate), (16, 1.0));
        assert!(!config.model.restores_report());
        assert_eq!(overlay(&config, Some(&toml::to_string(&config).unwrap()), &[]).unwrap(), config);
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let base = pretrain_preset("mrm-vit-b16").unwrap();
        let error = overlay(&base, None, &["optimiser.batchsize=4".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "no key `optimiser.batchsize`; did you mean `batch_size`?");
        let error = overlay(&base, None, &["optimiser.epochs=many".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "`optimiser.epochs` is of type float, not string");
        assert!(pretrain_preset("mrm-vit-huge").unwrap_err().to_string().contains("mrm-vit-tiny"));
    }
}
