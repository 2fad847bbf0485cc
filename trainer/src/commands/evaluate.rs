//! `trainer evaluate`: metrics of a fine-tuned run, with intervals.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow_array::{ArrayRef, Float32Array, Int8Array, StringArray};
use dataset::commands::cli::counted;
use dataset::format::csv_table;
use dataset::format::table;
use dataset::store::files;
use dataset::{Dataset, Ratio, Subset};
use serde::{Deserialize, Serialize};
use tch::Device;

use super::DataSource;
use super::finetune::{TaskLabels, evaluation_transform};
use crate::config::FinetuneConfig;
use crate::eval::bootstrap::{Bootstrap, Interval, Predictions};
use crate::eval::metrics::Scores;
use crate::task::objective::Objective;
use crate::task::{Classification, Labels, OpenLabels, predict};
use crate::train::checkpoint::newest_state;
use crate::train::run_dir;
use crate::weights::load_tensors;
use crate::weights::source::{read_weights, weights_file};

/// Scores of one finding, none where undefined.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FindingScores {
    pub finding: String,
    pub positives: usize,
    pub negatives: usize,
    /// Labels that are neither, and what they are counted as; none in evaluations by versions that did not count them.
    #[serde(flatten)]
    pub open: Option<OpenLabels>,
    #[serde(flatten)]
    pub scores: Scores<Interval>,
}

/// What `evaluate` found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EvaluationReport {
    pub task: String,
    pub split: String,
    pub subset: String,
    pub ratio: f64,
    pub seed: u64,
    pub init: String,
    /// What tables call the start weights.
    pub start: String,
    pub records: usize,
    pub patients: usize,
    /// At which sensitivity is told.
    pub specificity: f64,
    /// Bootstrap draws that were asked for.
    pub draws: usize,
    /// File of the weights, within the run.
    pub weights: String,
    /// Updates that the run had made.
    #[serde(default)]
    pub updates: u64,
    pub findings: Vec<FindingScores>,
    /// Over the findings for which the metric is defined.
    pub mean: Scores<Interval>,
}

/// Evaluates a fine-tuning run on a subset; writes `evaluation-SUBSET.json`, and `predictions-SUBSET` as Parquet and CSV.
pub fn evaluate(
    run: &Path,
    source: &DataSource,
    subset: Subset,
    device: Device,
    draws: usize,
    specificity: f64,
) -> Result<EvaluationReport> {
    check_specificity(specificity)?;
    let config: FinetuneConfig = run_dir::load_config(run)?;
    config.validate().with_context(|| run_dir::config_path(run).display().to_string())?;
    let (dataset, split) = (&source.dataset, source.split()?);
    check_split((&config.dataset, &config.split, &config.split_members), source)?;
    let task = TaskLabels::read(&config, source)?;
    super::warn_unfinished(run, config.optimizer.steps);
    remark_ratio(&config.dataset, config.ratio, &config.findings, source)?;
    let rows = task.rows(source, subset, None)?;
    if rows.is_empty() {
        let labeled = |subset| Ok::<_, anyhow::Error>(task.rows(source, subset, None)?.len());
        let [train, validate, test] = [labeled(Subset::Train)?, labeled(Subset::Validate)?, labeled(Subset::Test)?];
        bail!(
            "no labeled record in the {} subset of split `{}` (train {train}, validate {validate}, test {test}); choose \
             --subset, or make a split with --test",
            subset.name(),
            split.name
        );
    }
    let transform = evaluation_transform(&config);
    let objective = Classification::new(&config.model, task.labels.clone(), dataset, transform, device)?;
    let weights = weights_file(run)?;
    let loaded = load_tensors(objective.store(), &read_weights(&weights)?)?;
    if !loaded.is_complete() {
        bail!("the weights do not fit the run's configuration: {loaded}");
    }
    let scores = predict(objective.model(), dataset, &rows, transform, device)?;

    let (labels, targets) = (&task.labels, task.targets(&rows).concat());
    let names = dataset.texts("patient_id")?;
    let patients = numbered(rows.iter().map(|&row| names[row as usize].as_deref().unwrap_or_default()));
    let classes = labels.findings.len();
    let bootstrap = Bootstrap { draws, seed: config.run.seed, ..Bootstrap::default() };
    let predictions = Predictions { scores: &scores, labels: &targets, patients: &patients, classes, specificity };
    let found = bootstrap.classes(predictions);
    let stem = file_stem(subset, &config.dataset, source);
    let table = run.join(format!("predictions-{stem}.parquet"));
    write_predictions(&table, dataset, &rows, labels, &scores, &targets)?;
    let counts = task.counts(source, subset, None)?;
    let report = EvaluationReport {
        task: config.task.clone(),
        split: split.name.clone(),
        subset: subset.name().to_owned(),
        ratio: config.ratio,
        seed: config.run.seed,
        init: config.init.clone(),
        start: config.start.clone(),
        records: rows.len(),
        patients: patients.iter().max().map_or(0, |last| *last as usize + 1),
        specificity,
        draws,
        updates: newest_state(run).map_or(0, |state| state.step),
        weights: weights.strip_prefix(run).unwrap_or(&weights).display().to_string(),
        findings: counts
            .into_iter()
            .zip(&found.classes)
            .map(|(count, scores)| FindingScores {
                positives: count.positives(),
                negatives: count.negatives(),
                open: Some(count.open),
                finding: count.finding,
                scores: *scores,
            })
            .collect(),
        mean: found.mean,
    };
    let file = run.join(format!("evaluation-{stem}.json"));
    files::write_json(&file, &report)?;
    dataset::cli_eprintln!("weights: {}; written: {}, {} and .csv", report.weights, file.display(), table.display());
    Ok(report)
}

/// What a `*` says in a table of intervals.
pub(super) const THIN: &str =
    "* defined in fewer than nine of ten draws: too few positives or negatives for a sound interval";

/// An error unless a specificity is one.
pub(super) fn check_specificity(specificity: f64) -> Result<()> {
    if (0.0..=1.0).contains(&specificity) {
        return Ok(());
    }
    bail!("--specificity: must be from 0 to 1, is {specificity}")
}

/// An error where a run is evaluated on its own dataset by another split, or by one drawn anew: it may test on patients that
/// the run was trained on. Another dataset is external validation.
pub(super) fn check_split(trained_on: (&str, &str, &str), source: &DataSource) -> Result<()> {
    let (dataset, split, members) = trained_on;
    let now = source.identities();
    if dataset != now.0 {
        let source_of = |identity: &str| identity.split(',').next().unwrap_or_default().to_owned();
        if source_of(dataset) == source_of(&now.0) {
            dataset::cli_eprintln!(
                "warning: another dataset of the same source ({}): it may hold patients that the run was trained on",
                source_of(dataset)
            );
        }
        return Ok(());
    }
    if members == now.2 {
        return Ok(());
    }
    let (name, command) =
        (now.1, format!("train anew, or evaluate with the split it was trained on (--split {split})"));
    if split == name {
        bail!(
            "split `{name}` was drawn anew since the run was trained, and may test on patients it has seen: train anew, or \
             restore splits/{name}.parquet and .json as they were"
        );
    }
    bail!("the run was trained on split `{split}` of this dataset, whose patients `{name}` may test on: {command}")
}

/// Warns where the ratio that a run was trained at is far from its share of the training subset, or from the prevalence of
/// one of these findings.
pub(super) fn remark_ratio(trained_on: &str, ratio: f64, findings: &[String], source: &DataSource) -> Result<()> {
    if trained_on == source.identity()
        && let Some(missed) = source.split()?.ratio_warning(Ratio::from_percent(ratio)?, findings)
    {
        dataset::cli_eprintln!("warning: {missed}");
    }
    Ok(())
}

/// What an evaluation's files are called: `test`, or `test-on-NAME` for a dataset that the run was not trained on.
pub(super) fn file_stem(subset: Subset, trained_on: &str, source: &DataSource) -> String {
    if trained_on == source.identity() {
        return subset.name().to_owned();
    }
    let place = source.dataset.storage().path("");
    let name = place.file_name().unwrap_or(place.as_os_str()).to_string_lossy().into_owned();
    format!("{}-on-{name}", subset.name())
}

/// Names numbered from 0 in the order of their first appearance.
pub(super) fn numbered<'a>(names: impl Iterator<Item = &'a str>) -> Vec<u32> {
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    names
        .map(|name| {
            let next = numbers.len() as u32;
            *numbers.entry(name).or_insert(next)
        })
        .collect()
}

fn write_predictions(
    path: &Path,
    dataset: &Dataset,
    rows: &[u32],
    labels: &Labels,
    scores: &[f32],
    targets: &[Option<bool>],
) -> Result<()> {
    let text = |name: &str| -> Result<ArrayRef> {
        let values = dataset.texts(name)?;
        Ok(Arc::new(rows.iter().map(|&row| values[row as usize].as_deref()).collect::<StringArray>()))
    };
    let classes = labels.findings.len();
    let columns: Vec<String> =
        labels.findings.iter().flat_map(|f| [format!("score {f}"), format!("label {f}")]).collect();
    let mut table: Vec<(&str, ArrayRef, bool)> =
        vec![("record_id", text("record_id")?, false), ("patient_id", text("patient_id")?, false)];
    for class in 0..classes {
        let score: Float32Array = scores.iter().skip(class).step_by(classes).map(|score| Some(*score)).collect();
        let label: Int8Array = targets.iter().skip(class).step_by(classes).map(|t| t.map(i8::from)).collect();
        table.push((&columns[2 * class], Arc::new(score), false));
        table.push((&columns[2 * class + 1], Arc::new(label), true));
    }
    csv_table::write(&path.with_extension("csv"), &table)?;
    Ok(table::write_table(path, table)?)
}

impl std::fmt::Display for EvaluationReport {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        writeln!(
            f,
            "{} of {}, subset {} of split {}; 95% intervals over patients",
            counted(self.records, "record"),
            counted(self.patients, "patient"),
            self.subset,
            self.split
        )?;
        let sensitivity = format!("sens@spec {:.2}", self.specificity);
        writeln!(
            f,
            "{:<28}{:>9}{:>9}  {:<21}{:<21}{sensitivity:<21}{:<21}ECE",
            "finding", "positive", "negative", "AUROC", "AUPRC", "Brier"
        )?;
        for row in &self.findings {
            write!(f, "{:<28}{:>9}{:>9}  ", row.finding, row.positives, row.negatives)?;
            writeln!(f, "{}", line(&row.scores, self.draws))?;
        }
        write!(f, "{:<46}  {}", "mean over defined findings", line(&self.mean, self.draws))?;
        for row in &self.findings {
            if let Some(open) = row.open.map(|open| open.told()).filter(|open| !open.is_empty()) {
                write!(f, "\nlabels of {}: {open}", row.finding)?;
            }
        }
        let all = self.findings.iter().map(|finding| &finding.scores).chain([&self.mean]);
        if all.flat_map(|scores| [scores.auroc, scores.average_precision]).flatten().any(|i| i.is_thin(self.draws)) {
            write!(f, "\n{THIN}")?;
        }
        Ok(())
    }
}

/// Values with their intervals, one column a metric.
fn line(scores: &Scores<Interval>, draws: usize) -> String {
    let Scores { auroc, average_precision, sensitivity, brier, calibration_error } = scores;
    let shown = |value: &Option<Interval>| match value {
        Some(i) => {
            let mark = if i.is_thin(draws) { "*" } else { "" };
            format!("{:<21}", format!("{:.3} ({:.3}–{:.3}){mark}", i.value, i.low, i.high))
        }
        None => format!("{:<21}", "undefined"),
    };
    [auroc, average_precision, sensitivity, brier, calibration_error].map(shown).concat().trim_end().to_owned()
}
