//! Configuration: defaults < preset < pretrained run < TOML file < `--set key=value` and flags. Unknown keys are errors that
//! name the nearest one; the resolved configuration is printed and stored as the run's `config.toml`.

mod benchx;
mod classify;
mod dino;
mod encoder_training;
mod file;
mod finding_task;
mod finetune;
mod fitting;
mod imported;
mod length;
mod pretrain;
mod provenance;
mod recipe;
pub mod renamed;
mod segment;
mod synonyms;

use anyhow::{Context, Result, bail};
use dataset::commands::cli::UsageError;
use dataset::loader::MAX_THREADS;
use dataset::transform::window::check_jitter;
use dataset::transform::{Augmentation, Window, WindowJitter};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::train::amp::Precision;
use crate::train::distributed::SyncKind;
use crate::train::threads;

pub use classify::{ClassWeights, ClassifyConfig, ClassifyData, ClassifyOptimizer, classify_preset, classify_recipe};
pub use dino::{Centering, DinoConfig, DinoData, DinoLoss, DinoOptimizer, TeacherConfig, dino_preset};
pub use encoder_training::EncoderTraining;
pub use file::{CommonKeys, ConfigFile, Encoder};
pub use finding_task::FindingTask;
pub use finetune::{FinetuneConfig, FinetuneKeys, ImageData, LrSource, RANDOM_NAME, Schedule, TrainingCrop};
pub use fitting::{fitting_preset, preset_hint};
pub use imported::{IMPORTED, ImportedConfig};
use length::RecipeLength;
pub use length::{Epoch, PATIENCE};
pub use pretrain::{MAX_EPOCHS, PretrainConfig, PretrainData, PretrainOptimizer, objective_preset, pretrain_preset};
pub use provenance::{DatasetId, JoinId, OtherDataset, Provenance, RANDOM};
pub use recipe::Recipe;
pub use segment::{SegmentConfig, SegmentData, SegmentOptimizer, segment_preset, segment_recipe};

/// Names of the presets, the default one first.
pub const PRESETS: [&str; 3] = ["mrm-vit-b16", "mrm-vit-s16", "mrm-vit-tiny"];

/// Section `[run]`, which all kinds of runs have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Decides initialization, order, augmentation and masks.
    pub seed: u64,
    /// Steps between two lines of `metrics.jsonl`.
    pub log_every: u64,
    /// Steps between two checkpoints.
    pub checkpoint_every: u64,
    /// Checkpoints kept beside the best one.
    pub keep_last: usize,
    /// Precision of matrix products.
    pub precision: Precision,
    /// Whether the passes of a step use 16-bit copies of the matrices, made once a step, with float32 master weights in the
    /// optimizer; else each micro-batch casts the matrices. The numbers are the same.
    #[serde(default)]
    pub master_weights: bool,
    /// Whether the losses of pre-training write their gradients over predicted patches and logits, which takes a fraction of
    /// the memory; the numbers are the same up to rounding.
    #[serde(default)]
    pub in_place_loss: bool,
    /// Whether the passes of pre-training on a CUDA device are recorded once and repeated; the numbers are the same up to
    /// rounding.
    #[serde(default)]
    pub cuda_graph: bool,
    /// Decay of the moving average of the weights, 0 to below 1; 0: no average is kept.
    pub ema: f64,
    /// Steps in a row without a finite loss after which the run ends; 0: never.
    pub skip_limit: u64,
    /// Threads of torch on the CPU; 0: those that the environment or the machine gives ([`threads::set`]).
    #[serde(default)]
    pub threads: usize,
    /// Threads of the loader; 0: as many as suit the device.
    pub loader_threads: usize,
    /// Several processes: how their gradients are averaged.
    #[serde(default)]
    pub gradient_sync: SyncKind,
    /// Several processes: seconds within which all must start.
    #[serde(default = "join_timeout")]
    pub join_timeout: u64,
    /// Several processes: seconds that a step of one may take before the others give up waiting for it.
    #[serde(default = "stall_timeout")]
    pub stall_timeout: u64,
}

/// Default of [`RunConfig::join_timeout`].
const fn join_timeout() -> u64 {
    300
}

/// Default of [`RunConfig::stall_timeout`].
const fn stall_timeout() -> u64 {
    300
}

impl RunConfig {
    /// An error if no run has these settings.
    pub fn validate(&self) -> Result<()> {
        if !(0.0..1.0).contains(&self.ema) {
            bail!("run.ema: must be from 0 to below 1, is {}", self.ema);
        }
        if self.master_weights && self.precision == Precision::Fp32 {
            bail!("run.master_weights: needs run.precision=bf16 or fp16; float32 weights need no copies");
        }
        if self.log_every == 0 || self.checkpoint_every == 0 {
            bail!("run.log_every and run.checkpoint_every: must be at least 1");
        }
        check_most("run.threads", self.threads, threads::MOST)?;
        check_most("run.loader_threads", self.loader_threads, MAX_THREADS)?;
        for (key, seconds) in [("run.join_timeout", self.join_timeout), ("run.stall_timeout", self.stall_timeout)] {
            if !(1..=MAX_SECONDS).contains(&seconds) {
                bail!("{key}: must be from 1 to {MAX_SECONDS} seconds, is {seconds}");
            }
        }
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
            master_weights: false,
            in_place_loss: false,
            cuda_graph: false,
            ema: 0.0,
            skip_limit: 10,
            threads: 0,
            loader_threads: 0,
            gradient_sync: SyncKind::default(),
            join_timeout: join_timeout(),
            stall_timeout: stall_timeout(),
        }
    }
}

/// Longest timeout: a week.
const MAX_SECONDS: u64 = 7 * 24 * 3600;

/// Largest number of records in a batch, and of micro-batches in a step.
const MAX_BATCH: usize = 1 << 20;

/// An error where a number is larger than what is possible.
fn check_most(key: &str, value: usize, most: usize) -> Result<()> {
    if value <= most {
        return Ok(());
    }
    bail!("{key}: must be at most {most}, is {value}")
}

/// An error unless pixels can be normalized with these statistics.
fn check_pixels(mean: f64, std: f64) -> Result<()> {
    if mean.is_finite() && std.is_finite() && std > 0.0 {
        return Ok(());
    }
    bail!("data.mean and data.std: must be finite, the second above 0; are {mean} and {std}")
}

/// An error unless windows can be used and changed so.
fn check_windows(window: Window, jitter: WindowJitter) -> Result<()> {
    if let Err(message) = window.check() {
        bail!("data.window: {message}");
    }
    if let Err(message) = check_jitter(jitter) {
        bail!("data.window_jitter: {message}");
    }
    Ok(())
}

/// An error unless crops, flips, augmentations and normalization can be done.
fn check_data(crop_scale: f64, flip: f64, mean: f64, std: f64, augment: &[Augmentation]) -> Result<()> {
    if !(crop_scale > 0.0 && crop_scale <= 1.0) {
        bail!("data.crop_scale: must be above 0 and at most 1, is {crop_scale}");
    }
    if !(0.0..=1.0).contains(&flip) {
        bail!("data.flip: must be from 0 to 1, is {flip}");
    }
    if let Some(message) = augment.iter().find_map(|augmentation| augmentation.check().err()) {
        bail!("data.augment: {message}");
    }
    check_pixels(mean, std)
}

/// An error unless learning rate, weight decay and clipping are numbers of 0 or more.
fn check_rates(values: &[f64]) -> Result<()> {
    if values.iter().all(|value| value.is_finite() && *value >= 0.0) {
        return Ok(());
    }
    bail!("learning rate, weight decay and clipping (optimizer.…): must be 0 or more, and finite")
}

/// An error unless a number is a share below 1.
fn check_share(key: &str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    bail!("{key}: must be from 0 to below 1, is {value}")
}

/// The error for the name of a preset that is unknown.
fn preset_error(preset: &str) -> anyhow::Error {
    anyhow::anyhow!("no preset `{preset}`; there are: {}", PRESETS.join(", "))
}

/// Lays a table over another one, key by key.
fn merge(base: &mut Table, above: Table) {
    for (key, value) in above {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(value)) => merge(inner, value),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Lays a TOML file and `key=value` settings over a configuration, the latter last.
///
/// Of the file the sections count. The keys above the sections of a run's `config.toml` (kind, preset, dataset, split, task,
/// ratio, initialization) are given by the command line, so that such a file serves for another run.
///
/// # Errors
/// When a key is unknown or was renamed, or a value has another type: errors of usage.
pub fn overlay<T: Serialize + DeserializeOwned>(config: &T, file: Option<&str>, settings: &[String]) -> Result<T> {
    laid_over(config, file, settings).map_err(UsageError::of)
}

fn laid_over<T: Serialize + DeserializeOwned>(config: &T, file: Option<&str>, settings: &[String]) -> Result<T> {
    let mut table = Table::try_from(config)?;
    let all = keys(&table, "");
    if let Some(text) = file {
        let mut above: Table = text.parse().context("the configuration file is not TOML")?;
        above.retain(|key, value| value.is_table() || !(key == "kind" || table.contains_key(key)));
        lay(&mut table, above, "", &all).context("--config, which takes sections of a run of the same command")?;
    }
    for setting in settings {
        let (key, value) = setting.split_once('=').with_context(|| format!("`{setting}` is not key=value"))?;
        if table.get(key.trim()).is_some_and(|value| !value.is_table()) {
            bail!("`{}` is no setting of the recipe: there is an option of the command for it", key.trim());
        }
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
                // The message names the whole key, not the unknown section alone.
                let mut path = path;
                while let Value::Table(inner) = value {
                    let Some((key, first)) = inner.into_iter().next() else { break };
                    path = format!("{path}.{key}");
                    value = first;
                }
                if let Some(new) = renamed::new_name(&path, all) {
                    bail!("`{path}` is now `{new}`");
                }
                let settings: Vec<String> = all.iter().filter(|name| name.contains('.')).cloned().collect();
                bail!("no key `{path}`{}", synonyms::did_you_mean_key(&path, &settings))
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
    fn later_layers_win() {
        let base = pretrain_preset("mrm-vit-tiny").unwrap();
        let file = "[optimizer]\nbatch_size = 8\nbase_lr = 1\n";
        let settings = ["optimizer.batch_size=16".to_owned(), "model.reconstruct=image-only".to_owned()];
        let config = overlay(&base, Some(file), &settings).unwrap();
        assert_eq!((config.optimizer.batch_size, config.optimizer.base_lr), (16, 1.0));
        assert!(!config.model.reconstructs_report());
        assert_eq!(overlay(&config, Some(&toml::to_string(&config).unwrap()), &[]).unwrap(), config);
        let other =
            PretrainConfig { provenance: Provenance { init: "runs/mae".to_owned(), ..Provenance::default() }, ..base };
        let stored = ConfigFile::of("pretrain", &config).unwrap();
        let again = overlay(&other, Some(stored.text()), &[]).unwrap();
        assert_eq!(again, PretrainConfig { provenance: other.provenance, ..config });
    }

    #[test]
    fn augmentations_are_set_stored_and_checked() {
        use dataset::transform::Augmentation;

        let vocabulary = ["model.bert.vocab_size=100".to_owned()];
        let base = overlay(&pretrain_preset("mrm-vit-tiny").unwrap(), None, &vocabulary).unwrap();
        let setting = r#"data.augment=[{kind="affine", degrees=[-10, 10]}, {kind="gamma", gamma=[0.8, 1.25]}]"#;
        let config = overlay(&base, None, &[setting.to_owned()]).unwrap();
        assert_eq!(config.data.augment[1], Augmentation::Gamma { probability: 1.0, gamma: (0.8, 1.25) });
        config.validate().unwrap();
        let stored = ConfigFile::of("pretrain", &config).unwrap();
        assert_eq!(ConfigFile::parse(stored.text(), "config.toml").unwrap().read::<PretrainConfig>().unwrap(), config);
        // The stored text as a --config file of another kind of run.
        let finetune = classify_preset("mrm-vit-tiny", &FindingTask::parse("nih14").unwrap(), 1.0).unwrap();
        let section = format!("[data]\naugment = {}\n", stored.get("data.augment").unwrap());
        let finetune = overlay(&finetune, Some(&section), &[]).unwrap();
        assert_eq!(finetune.data.image.augment, config.data.augment);
        let again = ConfigFile::of("classify", &finetune).unwrap();
        assert_eq!(ConfigFile::parse(again.text(), "x").unwrap().read::<ClassifyConfig>().unwrap(), finetune);

        let reversed = overlay(&base, None, &[r#"data.augment=[{kind="gamma", gamma=[2, 1]}]"#.to_owned()]).unwrap();
        let error = reversed.validate().unwrap_err().to_string();
        assert!(error.starts_with("data.augment: gamma: gamma [2, 1]"), "{error}");
        let unknown = overlay(&base, None, &[r#"data.augment=[{kind="sepia"}]"#.to_owned()]).unwrap_err();
        assert!(format!("{unknown:#}").contains("sepia"), "{unknown:#}");
    }

    #[test]
    fn windows_are_set_stored_and_checked() {
        let vocabulary = ["model.bert.vocab_size=100".to_owned()];
        let base = overlay(&pretrain_preset("mrm-vit-tiny").unwrap(), None, &vocabulary).unwrap();
        assert_eq!((base.data.window, base.data.window_jitter), (Window::Stored, (0.0, 0.0)));
        let settings = ["data.window=2048,4096", "data.window_jitter=[0.05, 0.2]"].map(str::to_owned);
        let config = overlay(&base, None, &settings).unwrap();
        assert_eq!(config.data.window, Window::Fixed { center: 2048.0, width: 4096.0 });
        assert_eq!(config.data.window_jitter, (0.05, 0.2));
        config.validate().unwrap();
        let stored = ConfigFile::of("pretrain", &config).unwrap();
        assert_eq!(ConfigFile::parse(stored.text(), "config.toml").unwrap().read::<PretrainConfig>().unwrap(), config);
        let finetune = classify_preset("mrm-vit-tiny", &FindingTask::parse("nih14").unwrap(), 1.0).unwrap();
        let finetune = overlay(&finetune, None, &settings).unwrap();
        assert_eq!(finetune.data.image.window, config.data.window);
        let evaluation = finetune.data.image.normalized(dataset::transform::Transform::evaluate(32));
        assert_eq!((evaluation.window, evaluation.window_jitter), (config.data.window, (0.0, 0.0)));
        assert_eq!(finetune.data.image.augmented(evaluation).window_jitter, (0.05, 0.2));
        for (setting, message) in [("data.window=wide", "CENTER,WIDTH"), ("data.window=9,0.5", "at least 1")] {
            let error = format!("{:#}", overlay(&base, None, &[setting.to_owned()]).unwrap_err());
            assert!(error.contains(message), "{error}");
        }
        let wild = overlay(&base, None, &["data.window_jitter=[0.1, 1.5]".to_owned()]).unwrap();
        assert!(wild.validate().unwrap_err().to_string().starts_with("data.window_jitter: "));
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let base = pretrain_preset("mrm-vit-b16").unwrap();
        let error = |setting: &str| overlay(&base, None, &[setting.to_owned()]).unwrap_err().to_string();
        assert_eq!(
            error("optimizer.batchsize=4"),
            "no key `optimizer.batchsize`; did you mean `optimizer.batch_size`?"
        );
        assert_eq!(error("mask_ratio=0.5"), "no key `mask_ratio`; did you mean `model.mask_ratio`?");
        assert_eq!(error("optimizer.lr=1"), "no key `optimizer.lr`; did you mean `optimizer.base_lr`?");
        assert_eq!(error("optimizer.epochs=many"), "`optimizer.epochs` is of type float, not string");
        let section = error("optimizer=adamw");
        assert!(
            section.starts_with("`optimizer` is a section, not a key; its keys are: optimizer.accumulation, "),
            "{section}"
        );
        assert!(pretrain_preset("mrm-vit-huge").unwrap_err().to_string().contains("mrm-vit-tiny"));
    }

    #[test]
    fn a_renamed_key_names_the_new_one() {
        let base = pretrain_preset("mrm-vit-b16").unwrap();
        let error = |setting: &str| overlay(&base, None, &[setting.to_owned()]).unwrap_err().to_string();
        for (old, new) in [
            ("optimizer.base_rate", "optimizer.base_lr"),
            ("optimizer.rate", "optimizer.base_lr"),
            ("optimiser.base_rate", "optimizer.base_lr"),
            ("optimiser.batch_size", "optimizer.batch_size"),
            ("model.restore", "model.reconstruct"),
            ("model.vit.width", "model.vit.embed_dim"),
            ("model.bert.layers", "model.bert.num_layers"),
        ] {
            assert_eq!(error(&format!("{old}=1")), format!("`{old}` is now `{new}`"));
        }
        let classify = classify_preset("mrm-vit-b16", &FindingTask::parse("nih14").unwrap(), 1.0).unwrap();
        let error = |file: &str| format!("{:#}", overlay(&classify, Some(file), &[]).unwrap_err());
        assert!(error("[optimiser]\nrate = 1.0").contains("`optimiser.rate` is now `optimizer.lr`"));
        assert!(error("[optimizer]\nrule = \"sgd\"").contains("`optimizer.rule` is now `optimizer.kind`"));
        assert!(error("start = \"random start\"").contains("`start` is now `init_name`"));
    }
}
