//! `metrics-STEM`: the numbers of an evaluation as one table, one row a value.

use anyhow::Result;

use super::results::{AtThreshold, ClassificationReport, FindingScores};
use crate::eval::bootstrap::Interval;
use crate::eval::metrics::Scores;
use crate::task::EvaluationFiles;
use crate::task::evaluation_files::MetricTable;

/// Keys of the metrics in the JSON, in the order of [`Scores::values`].
const SCORES: [&str; 5] = ["auroc", "average_precision", "sensitivity", "brier", "calibration_error"];

/// Those of metrics at a threshold, in the order of [`DecisionScores::values`](crate::eval::decisions::DecisionScores::values).
const DECISIONS: [&str; 6] = ["f1", "accuracy", "sensitivity", "specificity", "ppv", "npv"];

/// What the paths of metrics at a threshold begin with.
const AT_THRESHOLD: &str = "at_threshold.";

/// Writes the table.
pub(super) fn write(files: &EvaluationFiles, report: &ClassificationReport) -> Result<()> {
    let mut table = MetricTable::default();
    add_scores(&mut table, "", &report.findings, report.mean);
    if let Some(decisions) = &report.at_threshold {
        add_decisions(&mut table, decisions);
    }
    for row in &report.calibration {
        table.interval(&row.finding, "calibration.adaptive_calibration_error", row.adaptive_calibration_error);
    }
    files.write_metrics(table)
}

/// Adds the metrics of all findings and their means; `section` is the beginning of their paths.
pub(crate) fn add_scores(table: &mut MetricTable, section: &str, findings: &[FindingScores], mean: Scores<Interval>) {
    for row in findings {
        let finding = row.finding.as_str();
        for (key, count) in [("positives", row.positives), ("negatives", row.negatives)] {
            table.value(finding, &format!("{section}{key}"), Some(count as f64));
        }
        table.intervals(finding, section, SCORES, row.scores.values());
        let auroc = row.scores.auroc.map(|i| i.value).filter(|_| row.auroc_delong.is_some());
        let ends = row.auroc_delong.map(|delong| (delong.low, delong.high));
        let error = row.auroc_delong.map(|delong| delong.standard_error);
        table.push(finding, &format!("{section}auroc_delong"), auroc, ends, None);
        table.value(finding, &format!("{section}auroc_delong.standard_error"), error);
    }
    table.intervals("mean", section, SCORES, mean.values());
}

fn add_decisions(table: &mut MetricTable, decisions: &AtThreshold) {
    for row in &decisions.findings {
        let finding = row.finding.as_str();
        // As the JSON has it: the shortest decimal of the number.
        let threshold = row.threshold.and_then(|threshold| threshold.to_string().parse::<f64>().ok());
        table.value(finding, &format!("{AT_THRESHOLD}threshold"), threshold);
        for (key, count) in [
            ("true_positives", row.confusion.map(|counts| counts.true_positives)),
            ("false_positives", row.confusion.map(|counts| counts.false_positives)),
            ("false_negatives", row.confusion.map(|counts| counts.false_negatives)),
            ("true_negatives", row.confusion.map(|counts| counts.true_negatives)),
        ] {
            table.value(finding, &format!("{AT_THRESHOLD}confusion.{key}"), count.map(|count| count as f64));
        }
        table.intervals(finding, AT_THRESHOLD, DECISIONS, row.scores.values());
    }
    for (name, scores) in [("macro", decisions.mean), ("micro", decisions.micro)] {
        table.intervals(name, AT_THRESHOLD, DECISIONS, scores.values());
    }
}
