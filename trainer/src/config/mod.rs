//! Configuration: defaults < preset < TOML file < `--set key=value`. Unknown keys are errors that name the nearest one;
//! the resolved whole is printed and stored.

mod finetune;
mod fitting;
mod length;
mod pretrain;
mod segment;
mod synonyms;

use std::path::Path;

use anyhow::{Context, Result, bail};
use dataset::commands::cli::UsageError;
use dataset::loader::MAX_THREADS;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::model::vit::VitConfig;
use crate::train::amp::Precision;
use crate::train::run_dir;
use crate::train::threads;

pub use finetune::{
    FinetuneConfig, FinetuneData, FinetuneOptimizer, RANDOM, RANDOM_NAME, TASKS, Task, finetune_preset,
};
pub use fitting::{fitting_preset, preset_hint};
pub use length::{Epoch, PATIENCE};
pub use pretrain::{MAX_EPOCHS, PretrainConfig, PretrainData, PretrainOptimizer, pretrain_preset};
pub use segment::{SEGMENTATION_TASK, SegmentConfig, SegmentData, SegmentOptimizer, segment_preset};

/// Mean and standard deviation of MIMIC-CXR-JPG's pixels, 0 to 1, as the release has them.
const MEAN: f64 = 0.4978;
const STD: f64 = 0.2449;

/// Names of the presets.
pub const PRESETS: [&str; 3] = ["mrm-vit-b16", "mrm-vit-s16", "mrm-vit-tiny"];

/// What all kinds of runs share.
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
    /// In what products are computed.
    pub precision: Precision,
    /// Decay of the moving average of the weights, 0 to below 1; 0: none is kept.
    pub ema: f64,
    /// Updates in a row without a finite loss after which the run ends; 0: never.
    pub skip_limit: u64,
    /// Threads of torch on the CPU; 0: those that the environment or the machine gives ([`threads::set`]).
    #[serde(default)]
    pub threads: usize,
    /// Threads of the loader; 0: as many as suit the device.
    pub loader_threads: usize,
}

impl RunConfig {
    /// An error if no run has these settings.
    pub fn validate(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.ema) {
            bail!("run.ema: must be from 0 to below 1, is {}", self.ema);
        }
        if self.log_every == 0 || self.checkpoint_every == 0 {
            bail!("run.log_every and run.checkpoint_every: must be at least 1");
        }
        check_most("run.threads", self.threads, threads::MOST)?;
        check_most("run.loader_threads", self.loader_threads, MAX_THREADS)?;
        Ok(())
    }
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            log_every: 20,
            checkpoint_every: 1000,
            keep_last: 2,
            precision: Precision::Fp32,
            ema: 0.0,
            skip_limit: 10,
            threads: 0,
            loader_threads: 0,
        }
    }
}

/// Largest number of records in a batch, and of batches in an update.
const MAX_BATCH: usize = 1 << 20;

/// An error where a number is larger than what is possible.
fn check_most(key: &str, value: usize, most: usize) -> Result<()> {
    if value <= most {
        return Ok(());
    }
    bail!("{key}: must be at most {most}, is {value}")
}

/// A share of some updates, kept for another number of updates.
fn shared(part: u64, steps: u64, of: u64) -> u64 {
    let part = u128::from(part) * u128::from(steps) / u128::from(of.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// An error unless crops, flips and normalization can be done.
fn check_data(crop_scale: f64, flip: f64, mean: f64, std: f64) -> Result<()> {
    if !(crop_scale > 0.0 && crop_scale <= 1.0) {
        bail!("data.crop_scale: must be above 0 and at most 1, is {crop_scale}");
    }
    if !(0.0..=1.0).contains(&flip) {
        bail!("data.flip: must be from 0 to 1, is {flip}");
    }
    if !(mean.is_finite() && std.is_finite() && std > 0.0) {
        bail!("data.mean and data.std: must be finite, the second above 0; are {mean} and {std}");
    }
    Ok(())
}

/// An error unless rate, weight decay and clipping are numbers of 0 or more.
fn check_rates(values: &[f64]) -> Result<()> {
    if values.iter().all(|value| value.is_finite() && *value >= 0.0) {
        return Ok(());
    }
    bail!("rate, weight decay and clipping (optimizer.…): must be 0 or more, and finite")
}

/// An error unless a factor on the rate from layer to layer is one.
fn check_layer_decay(decay: f64) -> Result<()> {
    if decay > 0.0 && decay <= 1.0 {
        return Ok(());
    }
    bail!("optimizer.layer_decay: must be above 0 and at most 1, is {decay}")
}

/// An error unless updates are left after the warm-up.
fn check_warmup(warmup: u64, steps: u64) -> Result<()> {
    if warmup < steps {
        return Ok(());
    }
    bail!("optimizer.warmup is {warmup} of {steps} updates: take --steps, which scales both, or lower it")
}

/// The configuration of a run, whichever kind it is.
pub enum AnyConfig {
    Pretrain(Box<PretrainConfig>),
    Finetune(Box<FinetuneConfig>),
    Segment(Box<SegmentConfig>),
}

impl AnyConfig {
    /// Reads that of a run.
    ///
    /// # Errors
    /// When the folder is no run, or its configuration is damaged.
    pub fn load(run: &Path) -> Result<Self> {
        let table: Table = run_dir::load_config(run)?;
        let config = if table.contains_key("prediction") {
            Self::Segment(Box::new(run_dir::load_config(run)?))
        } else if table.contains_key("findings") {
            Self::Finetune(Box::new(run_dir::load_config(run)?))
        } else {
            Self::Pretrain(Box::new(run_dir::load_config(run)?))
        };
        let valid = match &config {
            Self::Pretrain(config) => config.validate(),
            Self::Finetune(config) => config.validate(),
            Self::Segment(config) => config.validate(),
        };
        valid.with_context(|| run_dir::config_path(run).display().to_string())?;
        Ok(config)
    }

    /// Name of the preset that its sizes began with.
    pub fn preset(&self) -> &str {
        match self {
            Self::Pretrain(config) => &config.preset,
            Self::Finetune(config) => &config.preset,
            Self::Segment(config) => &config.preset,
        }
    }

    /// What it was trained on: dataset, split, members of the split; and where its weights came from.
    pub fn trained_on(&self) -> (&str, &str, &str, &str) {
        match self {
            Self::Pretrain(config) => (&config.dataset, &config.split, &config.split_members, &config.init),
            Self::Finetune(config) => (&config.dataset, &config.split, &config.split_members, &config.init),
            Self::Segment(config) => (&config.dataset, &config.split, &config.split_members, &config.init),
        }
    }

    /// Updates that it is to make; 0 for a run that counts in epochs.
    pub fn steps(&self) -> u64 {
        match self {
            Self::Pretrain(config) => config.optimizer.steps,
            Self::Finetune(config) => config.optimizer.steps,
            Self::Segment(config) => config.optimizer.steps,
        }
    }

    /// Sizes of its encoder, and mean and standard deviation of the pixels it was trained with.
    pub fn encoder(self) -> (VitConfig, f64, f64) {
        match self {
            Self::Pretrain(config) => (config.model.vit, config.data.mean, config.data.std),
            Self::Finetune(config) => (config.model.vit, config.data.mean, config.data.std),
            Self::Segment(config) => (config.model.vit, config.data.mean, config.data.std),
        }
    }
}

/// Lays a TOML file and `key=value` settings over a configuration, the latter last.
///
/// Of the file the sections count. What a run's `config.toml` says before them (preset, dataset, split, task, ratio, start
/// weights) is said by the command line, so that such a file serves for another run.
///
/// # Errors
/// When a key is unknown or a value of another type: errors of usage.
pub fn overlay<T: Serialize + DeserializeOwned>(config: &T, file: Option<&str>, settings: &[String]) -> Result<T> {
    laid_over(config, file, settings).map_err(UsageError::of)
}

fn laid_over<T: Serialize + DeserializeOwned>(config: &T, file: Option<&str>, settings: &[String]) -> Result<T> {
    let mut table = Table::try_from(config)?;
    // What stands before the sections is no setting.
    let all: Vec<String> = keys(&table, "").into_iter().filter(|name| name.contains('.')).collect();
    if let Some(text) = file {
        let mut above: Table = text.parse().context("the configuration file is no TOML")?;
        above.retain(|key, value| value.is_table() || !table.contains_key(key));
        lay(&mut table, above, "", &all).context("--config, which takes sections of a run of the same command")?;
    }
    for setting in settings {
        let (key, value) = setting.split_once('=').with_context(|| format!("`{setting}` is not key=value"))?;
        // A bare word is a text; everything else is read as TOML.
        if table.get(key.trim()).is_some_and(|value| !value.is_table()) {
            bail!("`{}` is no setting of the recipe: there is an option of the command for it", key.trim());
        }
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
        lay(&mut table, above, "", &all)?;
    }
    Value::Table(table).try_into().context("the configuration does not fit")
}

fn lay(base: &mut Table, above: Table, prefix: &str, all: &[String]) -> Result<()> {
    for (key, value) in above {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match (base.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(value)) => lay(inner, value, &path, all)?,
            (Some(Value::Float(inner)), Value::Integer(value)) => *inner = value as f64,
            (Some(inner), value) if inner.same_type(&value) => *inner = value,
            (Some(Value::Table(inner)), _) => {
                let keys = inner.keys().map(|key| format!("{path}.{key}")).collect::<Vec<_>>().join(", ");
                bail!("`{path}` is a section, not a key; its keys are: {keys}")
            }
            (Some(inner), value) => bail!("`{path}` is of type {}, not {}", inner.type_str(), value.type_str()),
            (None, mut value) => {
                // The whole key is named, not the section that is unknown.
                let mut path = path;
                while let Value::Table(inner) = value {
                    let Some((key, first)) = inner.into_iter().next() else { break };
                    path = format!("{path}.{key}");
                    value = first;
                }
                bail!("no key `{path}`{}", synonyms::did_you_mean_key(&path, all))
            }
        }
    }
    Ok(())
}

/// Full names of all keys, sections left out.
fn keys(table: &Table, prefix: &str) -> Vec<String> {
    let name = |key: &str| if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") };
    table
        .iter()
        .flat_map(|(key, value)| match value {
            Value::Table(inner) => keys(inner, &name(key)),
            _ => vec![name(key)],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_lie_in_their_order() {
        let base = pretrain_preset("mrm-vit-tiny").unwrap();
        let file = "[optimizer]\nbatch_size = 8\nbase_rate = 1\n";
        let settings = ["optimizer.batch_size=16".to_owned(), "model.reconstruct=image-only".to_owned()];
        let config = overlay(&base, Some(file), &settings).unwrap();
        assert_eq!((config.optimizer.batch_size, config.optimizer.base_rate), (16, 1.0));
        assert!(!config.model.reconstructs_report());
        assert_eq!(overlay(&config, Some(&toml::to_string(&config).unwrap()), &[]).unwrap(), config);
        let other = PretrainConfig { init: "runs/mae".to_owned(), ..base };
        let again = overlay(&other, Some(&toml::to_string(&config).unwrap()), &[]).unwrap();
        assert_eq!(again, PretrainConfig { init: "runs/mae".to_owned(), ..config });
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let base = pretrain_preset("mrm-vit-b16").unwrap();
        let error = overlay(&base, None, &["optimizer.batchsize=4".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "no key `optimizer.batchsize`; did you mean `optimizer.batch_size`?");
        let error = overlay(&base, None, &["mask_ratio=0.5".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "no key `mask_ratio`; did you mean `model.mask_ratio`?");
        let error = overlay(&base, None, &["optimizer.lr=1".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "no key `optimizer.lr`; did you mean `optimizer.base_rate`?");
        let error = overlay(&base, None, &["optimizer.rate=1".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "no key `optimizer.rate`; did you mean `optimizer.base_rate`?");
        let error = overlay(&base, None, &["optimizer.epochs=many".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "`optimizer.epochs` is of type float, not string");
        let error = overlay(&base, None, &["optimizer=adamw".to_owned()]).unwrap_err().to_string();
        assert!(
            error.starts_with("`optimizer` is a section, not a key; its keys are: optimizer.accumulation, "),
            "{error}"
        );
        assert!(pretrain_preset("mrm-vit-huge").unwrap_err().to_string().contains("mrm-vit-tiny"));
    }
}
