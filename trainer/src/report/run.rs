//! What the page needs of a run's directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dataset::store::files;
use serde::Deserialize;
use serde_json::Value;

use crate::config::{ConfigFile, renamed};
use crate::task::EvaluationHeader;
use crate::train::logger::{damaged_lines, read_metrics};
use crate::train::run_dir;

/// A run.
pub struct Run {
    /// Its directory.
    pub path: PathBuf,
    /// The name of its directory, with the folder above it where another run of the page has the same name.
    pub name: String,
    /// Its kind, by configuration or evaluation; empty where neither is there.
    pub kind: String,
    /// Its configuration, if it has one.
    pub config: Option<ConfigFile>,
    /// The lines of its log.
    pub metrics: Vec<Value>,
    /// Its evaluations.
    pub evaluations: Vec<StoredEvaluation>,
}

/// An evaluation that a run has.
pub struct StoredEvaluation {
    /// `test`, `validate`, `train`, or `test-on-NAME` for another dataset.
    pub stem: String,
    /// The fields that all evaluations have.
    pub header: EvaluationHeader,
    /// All of it.
    pub json: Value,
}

impl StoredEvaluation {
    /// Reads `evaluation-STEM.json`; fields of older versions are translated.
    ///
    /// # Errors
    /// When the file is missing or is no evaluation.
    pub fn read(run: &Path, stem: &str) -> Result<Self> {
        let path = run.join(format!("evaluation-{stem}.json"));
        let mut json: Value = files::read_json(&path)?;
        renamed::translate_evaluation(&mut json);
        let header =
            EvaluationHeader::deserialize(&json).with_context(|| format!("{} is no evaluation", path.display()))?;
        Ok(Self { stem: stem.to_owned(), header, json })
    }
}

impl Run {
    /// Reads a run; returns it with warnings about its log.
    ///
    /// # Errors
    /// When the folder has neither a log nor an evaluation, or a file is damaged.
    pub(super) fn load(path: &Path) -> Result<(Self, Vec<String>)> {
        let log = read_metrics(path)?;
        let evaluations: Vec<StoredEvaluation> =
            stems(path)?.iter().map(|stem| StoredEvaluation::read(path, stem)).collect::<Result<_>>()?;
        if log.lines.is_empty() && evaluations.is_empty() {
            bail!("{} is not a run: neither metrics nor an evaluation", path.display());
        }
        let config = run_dir::load_config(path).ok();
        let kind =
            config.as_ref().map(ConfigFile::kind).or(evaluations.first().map(|first| first.header.kind.as_str()));
        let run = Self {
            name: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            kind: kind.unwrap_or_default().to_owned(),
            path: path.to_path_buf(),
            config,
            metrics: log.lines,
            evaluations,
        };
        Ok((run, damaged_lines(path, log.damaged).into_iter().collect()))
    }

    /// The points of a logged value; `keys` are its name and those in older logs.
    pub(super) fn series(&self, keys: &[&str]) -> Vec<(f64, f64)> {
        let value = |line: &Value| keys.iter().find_map(|key| line[*key].as_f64());
        self.metrics.iter().filter_map(|line| Some((line["step"].as_f64()?, value(line)?))).collect()
    }
}

/// The stems of a run's evaluations, sorted.
fn stems(run: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(run).with_context(|| format!("cannot read {}", run.display()))?;
    let stem = |name: &str| Some(name.strip_prefix("evaluation-")?.strip_suffix(".json")?.to_owned());
    let mut stems: Vec<String> = entries.flatten().filter_map(|entry| stem(entry.file_name().to_str()?)).collect();
    stems.sort();
    Ok(stems)
}
