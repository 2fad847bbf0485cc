//! Metrics of a classifier: AUROC, average precision, sensitivity, Brier score, calibration, with intervals over patients.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow_array::{ArrayRef, Float32Array, Int8Array};
use dataset::Subset;
use dataset::commands::cli::counted;
use serde::{Deserialize, Serialize};

use super::{Classification, Labels, OpenLabels, TaskLabels, evaluation_transform, predict};
use crate::config::ClassifyConfig;
use crate::eval::bootstrap::{Bootstrap, Interval, Predictions};
use crate::eval::metrics::{SPECIFICITY, Scores};
use crate::task::evaluation::check_specificity;
use crate::task::objective::Objective;
use crate::task::{Evaluated, EvaluationHeader, EvaluationRequest, Metric};

/// Metrics of one finding; none where undefined.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FindingScores {
    /// The finding.
    pub finding: String,
    /// Records that count as positive.
    pub positives: usize,
    /// Records that count as negative.
    pub negatives: usize,
    /// Uncertain and blank labels, and what they count as; none in evaluations by versions that did not count them.
    #[serde(flatten)]
    pub open: Option<OpenLabels>,
    /// The metrics.
    #[serde(flatten)]
    pub scores: Scores<Interval>,
}

/// Evaluation of a classifier on a subset, as stored in `evaluation-STEM.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClassificationReport {
    /// What evaluations of all kinds begin with.
    #[serde(flatten)]
    pub header: EvaluationHeader,
    /// Sensitivity is reported at this specificity.
    pub specificity: f64,
    /// Metrics by finding.
    pub findings: Vec<FindingScores>,
    /// Mean over the findings for which the metric is defined.
    pub mean: Scores<Interval>,
}

/// What a `*` means in a table of intervals.
pub(super) const THIN: &str =
    "* defined in fewer than nine of ten draws: too few positives or negatives for a reliable interval";

/// Evaluates a classifier; writes `evaluation-STEM.json`, and `predictions-STEM` as Parquet and CSV.
pub(super) fn evaluate(request: &EvaluationRequest) -> Result<Evaluated> {
    let EvaluationRequest { source, subset, device, .. } = *request;
    let specificity = check_specificity(request.options.specificity.unwrap_or(SPECIFICITY))?;
    let config: ClassifyConfig = request.config.read()?;
    let (dataset, split) = (&source.dataset, source.split()?);
    let task = TaskLabels::read(&config, source)?;
    let warnings = request.ratio_warning(config.keys.ratio, &config.findings)?.into_iter().collect();
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
    let objective = Classification::new(&config.model, task.labels.clone(), transform.clone(), device)?;
    let weights = request.load_weights(objective.store())?;
    let scores = predict(objective.model(), dataset, &rows, transform, device)?;

    let targets = task.targets(&rows).concat();
    let patients = request.patients(&rows)?;
    let classes = task.labels.findings.len();
    let bootstrap = Bootstrap { draws: request.options.draws, seed: config.run.seed, ..Bootstrap::default() };
    let predictions = Predictions { scores: &scores, labels: &targets, patients: &patients, classes, specificity };
    let by_class = bootstrap.classes(predictions);
    write_predictions(request, &rows, &task.labels, &scores, &targets)?;
    let findings = task.counts(source, subset, None)?.into_iter().zip(&by_class.classes);
    let header = request.header(weights, &patients)?;
    let report = ClassificationReport {
        specificity,
        findings: findings
            .map(|(count, scores)| FindingScores {
                positives: count.positives(),
                negatives: count.negatives(),
                open: Some(count.open),
                finding: count.finding,
                scores: *scores,
            })
            .collect(),
        mean: by_class.mean,
        header: header.clone(),
    };
    request.finish(&report, &header, warnings)
}

/// The means over findings.
pub(super) fn metrics(evaluation: &serde_json::Value) -> Result<Vec<Metric>> {
    let report = ClassificationReport::deserialize(evaluation).context("not an evaluation of a classifier")?;
    let Scores { auroc, average_precision, sensitivity, brier, calibration_error } = report.mean;
    Ok(vec![
        Metric { key: "auroc", title: "AUROC", value: auroc },
        Metric { key: "average_precision", title: "AUPRC", value: average_precision },
        Metric { key: "sensitivity", title: "sensitivity", value: sensitivity },
        Metric { key: "brier", title: "Brier", value: brier },
        Metric { key: "calibration_error", title: "ECE", value: calibration_error },
    ])
}

/// Writes scores and labels of some rows, `[rows, findings]` each.
fn write_predictions(
    request: &EvaluationRequest,
    rows: &[u32],
    labels: &Labels,
    scores: &[f32],
    targets: &[Option<bool>],
) -> Result<()> {
    let classes = labels.findings.len();
    let names: Vec<String> =
        labels.findings.iter().flat_map(|f| [format!("score {f}"), format!("label {f}")]).collect();
    let mut columns: Vec<(&str, ArrayRef, bool)> = Vec::new();
    for class in 0..classes {
        let score: Float32Array = scores.iter().skip(class).step_by(classes).map(|score| Some(*score)).collect();
        let label: Int8Array = targets.iter().skip(class).step_by(classes).map(|t| t.map(i8::from)).collect();
        columns.push((&names[2 * class], Arc::new(score), false));
        columns.push((&names[2 * class + 1], Arc::new(label), true));
    }
    request.write_predictions(rows, columns)
}

impl std::fmt::Display for ClassificationReport {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        writeln!(
            f,
            "{} of {}, subset {} of split {}; 95% intervals over patients",
            counted(self.header.records, "record"),
            counted(self.header.patients, "patient"),
            self.header.subset,
            self.header.split
        )?;
        let sensitivity = format!("sens@spec {:.2}", self.specificity);
        writeln!(
            f,
            "{:<28}{:>9}{:>9}  {:<21}{:<21}{sensitivity:<21}{:<21}ECE",
            "finding", "positive", "negative", "AUROC", "AUPRC", "Brier"
        )?;
        for row in &self.findings {
            write!(f, "{:<28}{:>9}{:>9}  ", row.finding, row.positives, row.negatives)?;
            writeln!(f, "{}", line(&row.scores, self.header.draws))?;
        }
        write!(f, "{:<46}  {}", "mean over defined findings", line(&self.mean, self.header.draws))?;
        for row in &self.findings {
            if let Some(open) = row.open.map(|open| open.describe()).filter(|open| !open.is_empty()) {
                write!(f, "\nlabels of {}: {open}", row.finding)?;
            }
        }
        let all = self.findings.iter().map(|finding| &finding.scores).chain([&self.mean]);
        if all
            .flat_map(|scores| [scores.auroc, scores.average_precision])
            .flatten()
            .any(|i| i.is_thin(self.header.draws))
        {
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
