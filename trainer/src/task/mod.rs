//! What is trained. A [`Task`] is the plug between the commands and a kind of run: its configuration, the data that it needs,
//! its objective, its evaluation, comparison and section of the report. [`Pretrain`], [`Contrast`], [`Views`], [`Dino`], [`Classify`] and
//! [`Segment`] come with the trainer; `examples/custom_task.rs` adds another one, and has all commands with it.
//!
//! | file | purpose |
//! | --- | --- |
//! | `stage` | which command trains a task |
//! | `registry` | the tasks of a program, found by kind or by the name after `--task` or `--objective` |
//! | `request`, `finetune` | from the command line to a configuration |
//! | `training` | a run that can begin, and its training |
//! | `evaluation`, `evaluated`, `evaluation_files`, `subgroups`, `comparison` | what evaluations of all kinds share |
//! | `pretrain/`, `contrast/`, `views/`, `dino/`, `classify/`, `segment/` | the built-in tasks |

mod checked_evaluation;
pub mod classify;
mod comparison;
pub mod contrast;
mod data_source;
pub mod dino;
mod evaluated;
mod evaluation;
mod evaluation_files;
mod finetune;
mod model_name;
pub mod objective;
pub mod pretrain;
mod registry;
mod request;
pub mod segment;
mod stage;
mod subgroups;
mod training;
pub mod views;

use std::path::Path;

use anyhow::{Result, bail};
use tch::Device;

use crate::config::{ConfigFile, Recipe};
use crate::report::{Run, Section, metrics_section};

pub use checked_evaluation::{check_options, evaluate};
pub use classify::{Classification, Classify, LabelCounts, Labels, Missing, OpenLabels, Uncertain, predict};
pub use comparison::{Comparison, ComparisonRequest, RecordMetric, compare_records, evaluated_table};
pub use contrast::{Contrast, Contrasting};
pub use data_source::{DataSource, LabelCodes, RowChoice, lengths};
pub use dino::{Dino, Distillation};
pub use evaluated::{Evaluated, EvaluationHeader, Metric};
pub use evaluation::{EvaluationOption, EvaluationOptions, EvaluationRequest, ZeroShot, numbered};
pub use evaluation_files::EvaluationFiles;
pub use finetune::resolve_finetune;
pub use model_name::{different_models, shared_model, without_init};
pub use pretrain::{Pretrain, Pretraining};
pub use registry::Registry;
pub use request::{Initialization, Request, check_recipe};
pub use segment::{MaskRule, MaskScore, Segment, SegmentLoss, Segmentation};
pub use stage::Stage;
pub use subgroups::SubgroupColumn;
pub use training::{Build, Prepared, Training, TrainingRun, data_warnings};
pub(crate) use training::{device_name, unfinished_init};
pub use views::{ViewModeling, Views};

/// A kind of run.
///
/// Its configuration has the keys of [`CommonKeys`](crate::config::CommonKeys) and a section `[run]`, so that other runs can
/// start from its encoder; all others are the task's own. Evaluations are JSON files that begin with the fields of
/// [`EvaluationHeader`].
pub trait Task: Send + Sync {
    /// The value of `kind` in `config.toml`, such as `classify`.
    fn kind(&self) -> &'static str;

    /// The kind as a noun for messages, such as `classification`: "… is a classification run".
    fn title(&self) -> &'static str;

    /// The command that trains it: `finetune` (and `sweep`) with its names as `--task`, or `pretrain` with its names as
    /// `--objective`.
    fn stage(&self) -> Stage {
        Stage::Finetuning
    }

    /// Names that [`Stage::option`] takes for this task, for help and messages. Empty: no command trains it.
    fn names(&self) -> &'static [&'static str];

    /// Whether a name after [`Stage::option`] means this task.
    ///
    /// # Errors
    /// When it does, but the name is malformed.
    fn takes(&self, name: &str) -> Result<bool> {
        Ok(self.names().contains(&name))
    }

    /// The ways of fine-tuning that `--recipe` can choose, the default one first.
    fn recipes(&self) -> &'static [Recipe] {
        &[Recipe::Release]
    }

    /// The configuration of a request: defaults, preset, pretrained run, file, settings, in this order.
    ///
    /// # Errors
    /// When a setting is unknown or impossible, or the dataset lacks what the defaults need.
    fn resolve(&self, request: &Request) -> Result<ConfigFile>;

    /// Checks a configuration.
    ///
    /// # Errors
    /// When a key is missing, unknown or impossible.
    fn check(&self, config: &ConfigFile) -> Result<()>;

    /// Checks that dataset and split have what a configuration needs, before anything is written or a model is built.
    ///
    /// # Errors
    /// When they do not.
    fn prepare<'a>(&self, config: &ConfigFile, source: &'a DataSource) -> Result<Prepared<'a>>;

    /// Whether it trains on several datasets: whether it uses [`DataSource::all`] and [`DataSource::mixture_loader`].
    fn takes_mixtures(&self) -> bool {
        false
    }

    /// Options of `evaluate` and `sweep` that only some tasks have.
    fn evaluation_options(&self) -> &'static [EvaluationOption] {
        &[]
    }

    /// Evaluates a run on a subset, and writes `evaluation-STEM.json` and `predictions-STEM` into it.
    ///
    /// # Errors
    /// When the task has no evaluation, the subset no record for it, or the weights do not fit.
    fn evaluate(&self, request: &EvaluationRequest) -> Result<Evaluated> {
        let run = request.run.display();
        bail!(
            "{run} is a {} run, which this command does not take; `trainer finetune --init {run}` makes a run that it takes",
            self.title()
        )
    }

    /// The metrics of a stored evaluation. The first one is the headline: sweeps and charts of label efficiency show it.
    ///
    /// # Errors
    /// When the JSON is not an evaluation of this task.
    fn metrics(&self, evaluation: &serde_json::Value) -> Result<Vec<Metric>> {
        let _ = evaluation;
        Ok(Vec::new())
    }

    /// Compares two evaluated runs of this kind on the same records; tasks with a value a record call [`compare_records`].
    ///
    /// # Errors
    /// When a run was not evaluated on the subset, or they were evaluated on different records or labels.
    fn compare(&self, request: &ComparisonRequest) -> Result<Comparison> {
        bail!("{} is a {} run, which cannot be compared", request.first.display(), self.title())
    }

    /// Writes predictions for records that need neither labels nor a split; returns what was written, in words.
    ///
    /// # Errors
    /// When the task predicts nothing of this form, or the weights do not fit.
    fn predict(&self, request: &PredictionRequest) -> Result<String> {
        bail!("{} is a {} run, which predict does not take", request.run.display(), self.title())
    }

    /// Keys of `metrics.jsonl` that the report draws as curves, with their titles.
    fn curves(&self) -> &'static [(&'static str, &'static str)] {
        &[("loss", "loss")]
    }

    /// Sections of the report about some runs of this kind; by default a table of all metrics of all evaluations.
    ///
    /// # Errors
    /// When an evaluation cannot be read or a chart cannot be drawn.
    fn report(&self, runs: &[&Run]) -> Result<Vec<Section>> {
        let (mut rows, mut titles) = (Vec::new(), Vec::new());
        for run in runs {
            for evaluation in &run.evaluations {
                let metrics = self.metrics(&evaluation.json)?;
                titles = metrics.iter().map(|metric| metric.title).collect();
                rows.push((*run, evaluation, metrics.into_iter().map(|metric| metric.value).collect()));
            }
        }
        Ok(metrics_section(self.title(), &titles, &rows))
    }
}

/// Predictions that are to be written.
pub struct PredictionRequest<'a> {
    /// The run of the weights.
    pub run: &'a Path,
    /// Its configuration.
    pub config: &'a ConfigFile,
    /// The weights: the run itself, or a file in it.
    pub weights: &'a Path,
    /// The dataset.
    pub source: &'a DataSource,
    /// Rows to predict for, in this order.
    pub rows: &'a [u32],
    /// Where the model computes.
    pub device: Device,
    /// The table to write.
    pub out: &'a Path,
}
