//! The report's charts of an evaluation: ROC and precision-recall curves of all findings, and reliability by finding.

use std::fmt::Write as _;

use super::ClassificationReport;
use crate::eval::bootstrap::Interval;
use crate::eval::curves::{Bin, Curves, Point};
use crate::eval::metrics::BINS;
use crate::report::{Series, UnitChart, escape};

/// The charts as HTML; empty where no curve is defined.
pub(super) fn charts(report: &ClassificationReport, curves: &[(String, Curves)]) -> String {
    let scores = |finding: &str| report.findings.iter().find(|row| row.finding == finding).map(|row| row.scores);
    let named = |finding: &str, value: Option<Interval>| match value {
        Some(i) => format!("{finding} {:.3}", i.value),
        None => finding.to_owned(),
    };
    let lines = |points: fn(&Curves) -> &[Point],
                 drawn: fn(&Point) -> bool,
                 value: &dyn Fn(&str) -> Option<Interval>|
     -> Vec<Series> {
        let series = |(finding, curves): &(String, Curves)| Series {
            name: named(finding, value(finding)),
            points: points(curves).iter().filter(|point| drawn(point)).map(|point| (point.x, point.y)).collect(),
            intervals: Vec::new(),
        };
        curves.iter().map(series).filter(|series| !series.points.is_empty()).collect()
    };
    let roc = lines(|curves| &curves.roc, |_| true, &|finding| scores(finding)?.auroc);
    // Thresholds above all positives have neither recall nor precision.
    let precision =
        lines(|curves| &curves.precision_recall, |point| point.x > 0.0, &|finding| scores(finding)?.average_precision);
    let mut html = String::new();
    for (series, x_title, y_title, diagonal, caption) in [
        (roc, "false positive rate", "sensitivity", true, "ROC curves, with AUROC"),
        (precision, "recall", "precision", false, "precision-recall curves, with average precision"),
    ] {
        if !series.is_empty() {
            let chart = UnitChart { x_title, y_title, most: 1.0, diagonal, small: false }.draw(&series);
            let _ = writeln!(html, "<figure>{chart}<figcaption>{caption}</figcaption></figure>");
        }
    }
    if !html.is_empty() {
        html = format!("<div class=\"charts\">\n{html}</div>\n");
    }
    let mut reliability = String::new();
    for finding in report.calibration.iter().filter(|finding| !finding.adaptive.is_empty()) {
        let error = scores(&finding.finding).and_then(|scores| scores.calibration_error);
        let shown =
            |name: &str, value: Option<Interval>| value.map_or(String::new(), |i| format!("{name} {:.3}", i.value));
        let errors = [shown("ECE", error), shown("adaptive", finding.adaptive_calibration_error)];
        let records: Vec<u64> = finding.adaptive.iter().map(|bin| bin.records).collect();
        let (least, most) = (records.iter().min().unwrap_or(&0), records.iter().max().unwrap_or(&0));
        let count = if least == most { most.to_string() } else { format!("{least}–{most}") };
        let _ = writeln!(
            reliability,
            "<figure>{}<figcaption>{}: {}; {} bins of {count} records</figcaption></figure>",
            chart_of(&finding.adaptive),
            escape(&finding.finding),
            errors.join(", "),
            records.len()
        );
    }
    if !reliability.is_empty() {
        let _ = write!(
            html,
            "<p>Reliability: share of positives against the mean score, in bins of equally many records (adaptive; the ECE is that of \
             {BINS} bins of equal width). Both axes end at the largest value.</p>\n<div class=\"small\">\n{reliability}</div>\n"
        );
    }
    html
}

/// The reliability diagram of one finding.
fn chart_of(bins: &[Bin]) -> String {
    let points: Vec<(f64, f64)> = bins.iter().map(|bin| (bin.mean_score, bin.positive_share)).collect();
    let largest = points.iter().fold(0.0, |most: f64, point| most.max(point.0).max(point.1));
    let most = ENDS.into_iter().find(|end| *end >= largest).unwrap_or(1.0);
    let series = Series { name: String::new(), points, intervals: Vec::new() };
    UnitChart { x_title: "mean score", y_title: "positive", most, diagonal: true, small: true }.draw(&[series])
}

/// Where the axes of reliability diagrams may end.
const ENDS: [f64; 6] = [0.05, 0.1, 0.2, 0.4, 0.6, 1.0];
