//! What evaluations of all kinds share: the request and its checks.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use arrow_array::ArrayRef;
use dataset::Subset;
use dataset::commands::cli::UsageError;
use serde::Serialize;
use tch::Device;
use tch::nn::VarStore;

use super::DataSource;
use super::evaluated::{Evaluated, EvaluationHeader};
use super::evaluation_files::EvaluationFiles;
use super::subgroups::SubgroupColumn;
use crate::config::{ConfigFile, Provenance, Recipe};
use crate::train::checkpoint::newest_state;
use crate::weights::load_tensors;
use crate::weights::source::{read_weights, weights_file};

/// An option of `evaluate` and `sweep` that only some tasks have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvaluationOption {
    /// `--specificity`: sensitivity is reported at this specificity.
    Specificity,
    /// `--min-area`: a predicted mask of fewer pixels counts as empty.
    MinArea,
    /// `--zero-shot`: findings are classified by prompts.
    ZeroShot,
    /// `--subgroups`: metrics are also reported by group.
    Subgroups,
}

impl EvaluationOption {
    /// The option as it is typed.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Specificity => "--specificity",
            Self::MinArea => "--min-area",
            Self::ZeroShot => "--zero-shot",
            Self::Subgroups => "--subgroups",
        }
    }
}

/// How a run is evaluated; none means the task's default.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationOptions {
    /// Bootstrap draws.
    pub draws: usize,
    /// Specificity at which sensitivity is reported.
    pub specificity: Option<f64>,
    /// Pixels below which a predicted mask counts as empty.
    pub min_area: Option<u64>,
    /// Columns whose groups are compared.
    pub subgroups: Vec<SubgroupColumn>,
    /// Findings to classify by prompts.
    pub zero_shot: Option<ZeroShot>,
}

/// Which findings to classify by prompts, without training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZeroShot {
    /// The findings, as `--task` of fine-tuning takes them: `labels:A,B`, `chexpert5`, ….
    pub task: String,
    /// A TOML or JSON file with [`Prompts`](super::contrast::Prompts); none: the default ones.
    pub prompts: Option<PathBuf>,
}

/// An evaluation that is to be made.
pub struct EvaluationRequest<'a> {
    /// The run.
    pub run: &'a Path,
    /// Its configuration.
    pub config: &'a ConfigFile,
    /// What it was trained on.
    pub provenance: Provenance,
    /// The dataset, with the split to evaluate.
    pub source: &'a DataSource,
    /// The subset of the split.
    pub subset: Subset,
    /// Where the model computes.
    pub device: Device,
    /// Draws, and options of the task.
    pub options: EvaluationOptions,
}

impl EvaluationRequest<'_> {
    /// The name of the evaluation's files: `test`, or `test-on-NAME` for a dataset that the run was not trained on.
    pub fn stem(&self) -> String {
        let subset = self.subset.name();
        if self.is_own_dataset() {
            return subset.to_owned();
        }
        let place = self.source.dataset.storage().path("");
        let name = place.file_name().unwrap_or(place.as_os_str()).to_string_lossy().into_owned();
        format!("{subset}-on-{name}")
    }

    /// Whether the run was trained on this dataset.
    pub fn is_own_dataset(&self) -> bool {
        self.provenance.split_of(&self.source.dataset_id()).is_some()
    }

    /// A warning where the ratio that the run was trained at is far from its share of the training subset, or from the
    /// prevalence of one of these findings.
    ///
    /// # Errors
    /// When there is no split.
    pub fn ratio_warning(&self, ratio: f64, findings: &[String]) -> Result<Option<String>> {
        if !self.is_own_dataset() {
            return Ok(None);
        }
        self.source.ratio_warning(ratio, findings)
    }

    /// Loads the run's weights into a model; returns their file, within the run.
    ///
    /// # Errors
    /// When there are none, or they do not fit the configuration.
    pub fn load_weights(&self, store: &VarStore) -> Result<String> {
        let file = weights_file(self.run)?;
        let report = load_tensors(store, &read_weights(&file)?)?;
        if !report.is_complete() {
            bail!("the weights do not fit the run's configuration: {report}");
        }
        Ok(file.strip_prefix(self.run).unwrap_or(&file).display().to_string())
    }

    /// The header of this evaluation. `patients` has a number a record, from 0 without gaps ([`numbered`]).
    ///
    /// # Errors
    /// When the configuration names neither a task nor an objective, or there is no split.
    pub fn header(&self, weights: String, patients: &[u32]) -> Result<EvaluationHeader> {
        let text = |key: &str| self.config.get(key).and_then(toml::Value::as_str).map(str::to_owned);
        Ok(EvaluationHeader {
            kind: self.config.kind().to_owned(),
            task: text("task").or_else(|| text("objective")).context("no key `task` or `objective`")?,
            split: self.source.split()?.name.clone(),
            subset: self.subset.name().to_owned(),
            // Pre-training uses no labels, and all records.
            ratio: self.config.get("ratio").and_then(toml::Value::as_float).unwrap_or(100.0),
            seed: self.seed(),
            init: self.provenance.init.clone(),
            init_name: text("init_name").unwrap_or_else(|| self.provenance.init.clone()),
            recipe: text("recipe").and_then(|name| Recipe::parse(&name).ok()).unwrap_or_default(),
            records: patients.len(),
            patients: patients.iter().max().map_or(0, |last| *last as usize + 1),
            draws: self.options.draws,
            weights,
            steps: newest_state(self.run).map_or(0, |state| state.step),
        })
    }

    /// The seed of the run, which is that of the bootstrap.
    pub fn seed(&self) -> u64 {
        self.config.get("run.seed").and_then(toml::Value::as_integer).map_or(0, |seed| seed.max(0) as u64)
    }

    /// Where the files of this evaluation are written.
    pub fn files(&self) -> EvaluationFiles {
        EvaluationFiles::new(self.run, &self.stem())
    }

    /// Numbers of the patients of some rows ([`numbered`]).
    ///
    /// # Errors
    /// When the dataset cannot be read.
    pub fn patients(&self, rows: &[u32]) -> Result<Vec<u32>> {
        Ok(numbered(self.source.texts_of("patient_id", rows)?.iter().map(String::as_str)))
    }

    /// Writes `predictions-STEM` as Parquet and CSV: `record_id` and `patient_id` of some rows, then columns with a value a
    /// row, each with its name and whether it may be null.
    ///
    /// # Errors
    /// When the dataset cannot be read or a file cannot be written.
    pub fn write_predictions(&self, rows: &[u32], columns: Vec<(&str, ArrayRef, bool)>) -> Result<()> {
        self.files().write_predictions(self.source, rows, columns)
    }

    /// Writes `evaluation-STEM.json`, and returns the evaluation for the terminal.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish<R: Serialize + std::fmt::Display>(
        &self,
        report: &R,
        header: &EvaluationHeader,
        warnings: Vec<String>,
    ) -> Result<Evaluated> {
        self.files().finish(report, header, warnings)
    }
}

/// An error where a run is evaluated on its own dataset by another split, or by one drawn anew: it may test on patients that
/// the run was trained on. Another dataset is external validation; one of the same source gives a warning.
pub(crate) fn check_split(trained_on: &Provenance, source: &DataSource) -> Result<Option<String>> {
    source.split()?;
    let now = source.provenance();
    let id = source.dataset_id();
    let Some(members) = trained_on.split_of(&id) else {
        let same_source = trained_on.datasets().find(|(before, _)| before.source() == id.source());
        return Ok(same_source.map(|(before, _)| {
            format!(
                "another dataset of the same source ({}): it may hold patients that the run was trained on",
                before.source()
            )
        }));
    };
    if members == now.split_members {
        return Ok(None);
    }
    let (split, name) = (&trained_on.split, &now.split);
    if split.is_empty() {
        bail!(
            "the run was trained on all records of this dataset, those of every subset of `{name}`: train anew with --split {name}, \
             or evaluate on another dataset"
        );
    }
    if split == name {
        bail!(
            "split `{name}` was drawn anew since the run was trained, and may test on patients it has seen: train anew, or \
             restore splits/{name}.parquet and .json as they were"
        );
    }
    bail!(
        "the run was trained on split `{split}` of this dataset, whose patients `{name}` may test on: train anew, or \
         evaluate with the split it was trained on (--split {split})"
    )
}

/// Names numbered from 0 in the order of their first appearance.
pub fn numbered<'a>(names: impl Iterator<Item = &'a str>) -> Vec<u32> {
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    names
        .map(|name| {
            let next = numbers.len() as u32;
            *numbers.entry(name).or_insert(next)
        })
        .collect()
}

/// An error unless a specificity is one.
pub(super) fn check_specificity(specificity: f64) -> Result<f64> {
    if (0.0..=1.0).contains(&specificity) {
        return Ok(specificity);
    }
    Err(UsageError::of(anyhow!("--specificity: must be from 0 to 1, is {specificity}")))
}
