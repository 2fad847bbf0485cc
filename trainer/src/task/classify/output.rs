//! The tables of an evaluation: predictions, metrics, curves and subgroups.

use std::sync::Arc;

use anyhow::Result;
use arrow_array::{ArrayRef, Float32Array, Int8Array};

use super::results::ClassificationReport;
use super::scored::Scored;
use super::{curve_table, metric_table, subgroup_table};
use crate::eval::curves::Curves;
use crate::task::{DataSource, EvaluationFiles};

/// Writes `predictions-STEM`, `metrics-STEM`, `curves-STEM` and, with subgroups, `subgroups-STEM`, each as Parquet and CSV.
///
/// # Errors
/// When the dataset cannot be read or a file cannot be written.
pub(crate) fn write_tables(
    files: &EvaluationFiles,
    source: &DataSource,
    scored: &Scored,
    report: &ClassificationReport,
) -> Result<()> {
    let findings: Vec<&str> = report.findings.iter().map(|finding| finding.finding.as_str()).collect();
    let names: Vec<String> = findings.iter().flat_map(|f| [format!("score {f}"), format!("label {f}")]).collect();
    let mut predictions: Vec<(&str, ArrayRef, bool)> = Vec::new();
    for class in 0..findings.len() {
        let score: Float32Array = scored.class(class).map(|(score, _)| Some(score)).collect();
        let label: Int8Array = scored.class(class).map(|(_, target)| target.map(i8::from)).collect();
        predictions.push((&names[2 * class], Arc::new(score), false));
        predictions.push((&names[2 * class + 1], Arc::new(label), true));
    }
    files.write_predictions(source, &scored.rows, predictions)?;
    metric_table::write(files, report)?;
    let curves: Vec<Curves> = (0..findings.len()).map(|class| Curves::of(scored.class(class))).collect();
    curve_table::write(files, &findings, &curves)?;
    subgroup_table::write(files, &report.subgroups)
}
