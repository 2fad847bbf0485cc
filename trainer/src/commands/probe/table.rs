//! The table of all results of a probe.

use serde::Serialize;

use super::ProbeResult;
use crate::eval::bootstrap::Interval;

/// A result in `probe.json`.
#[derive(Debug, Serialize)]
pub(super) struct Row<'a> {
    method: &'static str,
    split: &'a str,
    ratio: f64,
    seed: u64,
    /// Of logistic regression the strength of the penalty, else the number of neighbors.
    chosen: f64,
    auroc: Option<Interval>,
    average_precision: Option<Interval>,
    /// The folder of the evaluation, within that of the probe.
    folder: String,
}

/// The rows of `probe.json`.
pub(super) fn rows(results: &[ProbeResult]) -> Vec<Row<'_>> {
    results.iter().map(row).collect()
}

fn row(result: &ProbeResult) -> Row<'_> {
    let ProbeResult { method, split, ratio, seed, auroc, average_precision, chosen, folder } = result;
    Row {
        method: method.name(),
        split,
        ratio: *ratio,
        seed: *seed,
        chosen: *chosen,
        auroc: *auroc,
        average_precision: *average_precision,
        folder: folder.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    }
}

/// A line a result, in Markdown.
pub fn table(results: &[ProbeResult]) -> String {
    let mut text =
        "| method | split | labels | seed | setting | test AUROC | test AUPRC |\n| --- | --- | --- | --- | --- | --- | --- |"
            .to_owned();
    let shown = |value: Option<Interval>| match value {
        Some(i) => format!("{:.3} ({:.3}–{:.3})", i.value, i.low, i.high),
        None => "undefined".to_owned(),
    };
    for result in results {
        text += &format!(
            "\n| {} | {} | {}% | {} | {} = {} | {} | {} |",
            result.method.title(),
            result.split,
            result.ratio,
            result.seed,
            result.method.setting(),
            result.chosen,
            shown(result.auroc),
            shown(result.average_precision)
        );
    }
    text
}
