//! Options that several commands have, and the values that they take.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use dataset::Subset;
use dataset::commands::cli;
use dataset::commands::mixture::{MixtureArguments, WeightedData};

use crate::config::MAX_EPOCHS;
use crate::task::{DataSource, EvaluationOptions, Registry, SubgroupColumn};
use crate::train::distributed::Launch;

/// What all commands get.
pub(super) struct Program<'a> {
    /// The place of this process among several, if a launcher has started them.
    pub launch: Option<Launch>,
    /// The tasks of this program.
    pub registry: &'a Registry,
    /// `--threads` as a setting.
    pub threads: Option<String>,
}

/// Dataset, run and device.
#[derive(Args)]
pub(super) struct RunOptions {
    /// The dataset: a directory or a URL (s3://BUCKET/PREFIX).
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Directory of the run.
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    #[command(flatten)]
    pub device: DeviceOption,
}

/// Datasets, run and device of a run that is trained.
#[derive(Args)]
pub(super) struct TrainingOptions {
    /// The dataset: a directory or a URL (s3://BUCKET/PREFIX). Repeat it to train on a mixture of datasets, each with its
    /// weight (--data A=0.7 --data B=0.3). Without weights, each dataset's share is proportional to its number of records.
    #[arg(long, value_name = "DIR[=WEIGHT]", required = true)]
    pub data: Vec<WeightedData>,
    #[command(flatten)]
    pub mixture: MixtureArguments,
    /// Use the labels, boxes, masks and texts of this join instead of the dataset's own; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub join: Vec<String>,
    /// Directory of the run.
    #[arg(long, value_name = "DIR")]
    pub run: PathBuf,
    #[command(flatten)]
    pub device: DeviceOption,
}

impl TrainingOptions {
    /// The datasets, each with its split of this name.
    pub fn open(&self, split: Option<&str>) -> Result<DataSource> {
        DataSource::open_mixture(&self.data, &self.mixture, split, &self.join)
    }

    /// Path of the first dataset, for the command that is shown after the run.
    pub fn first(&self) -> &Path {
        self.data.first().map_or(Path::new(""), |data| &data.location)
    }
}

/// The device.
#[derive(Args)]
pub(super) struct DeviceOption {
    /// auto, cpu or cuda:N.
    #[arg(long, default_value = "auto", value_parser = device)]
    pub device: String,
}

/// Dataset, and the part of it that is read.
#[derive(Args)]
pub(super) struct RecordOptions {
    /// The dataset: a directory or a URL (s3://BUCKET/PREFIX).
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Only records of this split.
    #[arg(long)]
    pub split: Option<String>,
    /// Only this subset of the split.
    #[arg(long, value_parser = ["train", "validate", "test"], requires = "split")]
    pub subset: Option<String>,
}

impl RecordOptions {
    /// The dataset and the chosen rows.
    pub fn open(&self) -> Result<(DataSource, Vec<u32>)> {
        let source = DataSource::open(&self.data, self.split.as_deref())?;
        let rows = source.rows(self.subset.as_deref())?;
        Ok((source, rows))
    }
}

/// What a signal ends a training with.
#[derive(Args)]
pub(super) struct StopOption {
    /// Exit code where a signal has stopped it with a checkpoint, for schedulers that start it again [default: 0].
    #[arg(long, value_name = "CODE", hide_short_help = true)]
    stop_exit_code: Option<u8>,
}

impl StopOption {
    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        self.stop_exit_code.unwrap_or(0)
    }
}

/// Settings of a run that is trained.
#[derive(Args)]
pub(super) struct SettingOptions {
    /// Settings in TOML, laid over the preset: sections of a run's config.toml.
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// One setting, laid over all others; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Number of steps, in place of the recipe's; warm-up and evaluations keep their shares.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    /// Records of a micro-batch [default: the recipe's].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub batch_size: Option<u64>,
    #[command(flatten)]
    pub stop: StopOption,
    /// Decides initialization, order, augmentation and masks [default: 0].
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub seed: Option<u64>,
}

impl SettingOptions {
    /// The text of `--config`.
    pub fn file(&self) -> Result<Option<String>> {
        self.config.as_deref().map(read_text).transpose()
    }

    /// `--set` and the flags as settings, the flags last.
    pub fn flags(&self) -> Vec<String> {
        let mut all = self.set.clone();
        all.extend(self.steps.map(|steps| format!("optimizer.steps={steps}")));
        all.extend(self.batch_size.map(|size| format!("optimizer.batch_size={size}")));
        all.extend(self.seed.map(|seed| format!("run.seed={seed}")));
        all
    }
}

/// A learning rate as it is typed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum LrOption {
    /// By a range test.
    Auto,
    /// A number, as text.
    Number(String),
}

/// `auto` or a learning rate.
pub(super) fn lr(text: &str) -> Result<LrOption, String> {
    if text == "auto" {
        return Ok(LrOption::Auto);
    }
    match text.trim().parse::<f64>() {
        Ok(lr) if lr.is_finite() && lr >= 0.0 => Ok(LrOption::Number(text.trim().to_owned())),
        _ => Err("give auto or a number, such as 1e-3".to_owned()),
    }
}

/// A learning rate that is given as settings.
pub(super) fn lr_settings(number: &str) -> [String; 2] {
    [format!("optimizer.lr={:?}", number.parse::<f64>().unwrap_or(f64::NAN)), "optimizer.lr_from=settings".to_owned()]
}

/// The length of a fine-tuning run.
#[derive(Args)]
pub(super) struct LengthOptions {
    /// Epochs of the training records, in place of --steps; with early stopping, and an evaluation about once an epoch.
    #[arg(long, conflicts_with = "steps", value_name = "E", value_parser = epochs)]
    pub epochs: Option<f64>,
    /// End a run after so many evaluations without a better validation score; 0: never [default: 10 for labels:A,B and with
    /// --epochs, else 0].
    #[arg(long, value_name = "N")]
    pub patience: Option<u64>,
}

impl LengthOptions {
    /// `--patience` as a setting.
    pub fn patience(&self) -> Option<String> {
        self.patience.map(|evaluations| format!("optimizer.patience={evaluations}"))
    }
}

/// How runs are evaluated.
#[derive(Args)]
pub(super) struct EvaluationArguments {
    /// Bootstrap draws.
    #[arg(long, default_value_t = 1000, value_parser = draws)]
    pub draws: usize,
    /// Classification: report sensitivity at this specificity [default: 0.9].
    #[arg(long, value_name = "0..1", value_parser = cli::share)]
    pub specificity: Option<f64>,
    /// Segmentation: a predicted mask with fewer than PIXELS pixels counts as empty [default: as in the run's configuration].
    #[arg(long, value_name = "PIXELS")]
    pub min_area: Option<u64>,
}

impl EvaluationArguments {
    pub fn options(&self) -> EvaluationOptions {
        let (specificity, min_area) = (self.specificity, self.min_area);
        EvaluationOptions { draws: self.draws, specificity, min_area, subgroups: Vec::new(), zero_shot: None }
    }
}

/// The columns of `--subgroups`.
#[derive(Debug, Clone, Default)]
pub(super) struct Subgroups(pub Vec<SubgroupColumn>);

/// The name of a device; whether it exists is checked when it is used.
pub(super) fn device(text: &str) -> Result<String, String> {
    let known =
        matches!(text, "auto" | "cpu") || text.strip_prefix("cuda:").is_some_and(|at| at.parse::<usize>().is_ok());
    if known { Ok(text.to_owned()) } else { Err("give auto, cpu or cuda:N".to_owned()) }
}

/// A number of epochs.
fn epochs(text: &str) -> Result<f64, String> {
    let number = cli::positive(text).ok().filter(|epochs| *epochs <= MAX_EPOCHS);
    number.ok_or_else(|| format!("give a number above 0, at most {MAX_EPOCHS}"))
}

/// A number of bootstrap draws.
pub(super) fn draws(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(draws) if (10..=100_000).contains(&draws) => Ok(draws),
        _ => Err("give a number from 10 to 100000".to_owned()),
    }
}

/// Columns to group records by.
pub(super) fn subgroups(text: &str) -> Result<Subgroups, String> {
    Ok(Subgroups(SubgroupColumn::parse_list(text)?))
}

/// The stem of an evaluation: a subset of the run's own dataset, or of another one.
pub(super) fn stem(text: &str) -> Result<String, String> {
    let subset = text.split_once("-on-").map_or(text, |(subset, _)| subset);
    match Subset::parse(subset).filter(|parsed| parsed.name() == subset) {
        Some(_) => Ok(text.to_owned()),
        None => Err("give train, validate, test, or one of them with -on-NAME".to_owned()),
    }
}

pub(super) fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
