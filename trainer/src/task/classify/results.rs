//! What an evaluation of a classifier says, as stored in `evaluation-STEM.json` and as printed.

use std::fmt::Write as _;

use dataset::commands::cli::counted;
use serde::{Deserialize, Deserializer, Serialize};

use super::OpenLabels;
use super::label_counts::LabelCounts;
use crate::eval::bootstrap::{Interval, Predictions};
use crate::eval::curves::Bin;
use crate::eval::decisions::{Confusion, DecisionScores};
use crate::eval::delong::DeLongInterval;
use crate::eval::metrics::Scores;
use crate::eval::subgroups::{ColumnGroups, GroupScores};
use crate::probe::ProbeFacts;
use crate::report::THIN;
use crate::task::EvaluationHeader;

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
    /// DeLong's interval of the AUROC; none with fewer than two positives or negatives, and in evaluations of versions that had
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auroc_delong: Option<DeLongInterval>,
}

impl FindingScores {
    /// The findings of some predictions, with their intervals and the counts of their labels.
    pub fn of_classes(predictions: Predictions, intervals: &[Scores<Interval>], counts: Vec<LabelCounts>) -> Vec<Self> {
        let of_class = |(class, (count, scores)): (usize, (LabelCounts, &Scores<Interval>))| Self {
            positives: count.positives(),
            negatives: count.negatives(),
            open: Some(count.open),
            finding: count.finding,
            scores: *scores,
            auroc_delong: DeLongInterval::of(predictions.class(class)),
        };
        counts.into_iter().zip(intervals).enumerate().map(of_class).collect()
    }
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
    /// Metrics at thresholds; none where there are none, and in evaluations of versions that had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_threshold: Option<AtThreshold>,
    /// Why there are no thresholds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_threshold: Option<String>,
    /// Reliability by finding.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calibration: Vec<FindingCalibration>,
    /// Metrics by the groups of some columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subgroups: Vec<ColumnGroups>,
    /// How the scores come from the features of a frozen encoder; none for a run that was trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeFacts>,
}

/// Metrics at the thresholds that have the highest F1 on other records.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AtThreshold {
    /// The subset that the thresholds were chosen on.
    pub chosen_on: String,
    /// Labeled records of that subset.
    pub chosen_on_records: usize,
    /// By finding.
    pub findings: Vec<FindingDecisions>,
    /// Mean over the findings for which the metric is defined.
    #[serde(rename = "macro")]
    pub mean: DecisionScores<Interval>,
    /// Of the decisions on all findings together.
    pub micro: DecisionScores<Interval>,
}

/// Decisions on one finding.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FindingDecisions {
    /// The finding.
    pub finding: String,
    /// Records from this score on count as positive; none: no positive record to choose it on.
    pub threshold: Option<f32>,
    /// Numbers of decisions by outcome.
    pub confusion: Option<Confusion>,
    /// The metrics.
    #[serde(flatten)]
    pub scores: DecisionScores<Interval>,
}

/// Reliability of the scores of one finding.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FindingCalibration {
    /// The finding.
    pub finding: String,
    /// Bins of equal width: those of the calibration error.
    pub equal_width: Vec<Bin>,
    /// Bins of equally many records.
    pub adaptive: Vec<Bin>,
    /// The expected calibration error over the adaptive bins, which all draws share. An evaluation of a version that gave no
    /// interval has one of 0 draws.
    #[serde(default, deserialize_with = "interval_or_value")]
    pub adaptive_calibration_error: Option<Interval>,
}

/// As it is stored, or as versions stored it that gave no interval: a number.
fn interval_or_value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Interval>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Interval(Interval),
        Value(f64),
    }
    let stored = Option::<Stored>::deserialize(deserializer)?;
    Ok(stored.map(|stored| match stored {
        Stored::Interval(interval) => interval,
        Stored::Value(value) => Interval { value, low: value, high: value, draws: 0 },
    }))
}

/// Writes tables of intervals, and what `*` means if one of them has one.
pub(crate) fn write_with_note(f: &mut std::fmt::Formatter, tables: &str) -> std::fmt::Result {
    f.write_str(tables)?;
    if tables.contains(")*") { write!(f, "\n{THIN}") } else { Ok(()) }
}

impl std::fmt::Display for ClassificationReport {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write_with_note(f, &self.tables()?)
    }
}

impl ClassificationReport {
    fn tables(&self) -> Result<String, std::fmt::Error> {
        let (draws, mut text) = (self.header.draws, String::new());
        writeln!(
            text,
            "{} of {}, subset {} of split {}; 95% intervals over patients",
            counted(self.header.records, "record"),
            counted(self.header.patients, "patient"),
            self.header.subset,
            self.header.split
        )?;
        if let Some(probe) = &self.probe {
            writeln!(text, "{probe}")?;
        }
        let sensitivity = format!("sens@spec {:.2}", self.specificity);
        writeln!(
            text,
            "{:<28}{:>9}{:>9}  {:<21}{:<21}{sensitivity:<21}{:<21}ECE",
            "finding", "positive", "negative", "AUROC", "AUPRC", "Brier"
        )?;
        for row in &self.findings {
            write!(text, "{:<28}{:>9}{:>9}  ", row.finding, row.positives, row.negatives)?;
            writeln!(text, "{}", line(&row.scores.values(), draws))?;
        }
        write!(text, "{:<46}  {}", "mean over defined findings", line(&self.mean.values(), draws))?;
        for row in &self.findings {
            if let Some(open) = row.open.map(|open| open.describe()).filter(|open| !open.is_empty()) {
                write!(text, "\nlabels of {}: {open}", row.finding)?;
            }
        }
        if let Some(decisions) = &self.at_threshold {
            write!(text, "\n\n{}", decisions.table(draws))?;
        }
        if let Some(why) = &self.without_threshold {
            write!(text, "\n{why}")?;
        }
        for column in &self.subgroups {
            write!(text, "\n\n{}", subgroup_table(column, draws))?;
        }
        Ok(text)
    }
}

impl AtThreshold {
    /// `chosen for the highest F1 on the validate subset (120 records)`.
    pub(super) fn origin(&self) -> String {
        let records = counted(self.chosen_on_records, "record");
        format!("chosen for the highest F1 on the {} subset ({records})", self.chosen_on)
    }

    fn table(&self, draws: usize) -> String {
        let heads: String = DecisionScores::<()>::NAMES.iter().map(|name| format!("{name:<21}")).collect();
        let mut text = format!("at a threshold {}; TP, FP, FN, TN are records\n", self.origin());
        text += &format!("{:<28}{:>9}  {heads}TP/FP/FN/TN", "finding", "threshold");
        for row in &self.findings {
            let threshold = row.threshold.map_or("none".to_owned(), |threshold| format!("{threshold:.3}"));
            let counts = row.confusion.map_or(String::new(), |c| {
                format!("{}/{}/{}/{}", c.true_positives, c.false_positives, c.false_negatives, c.true_negatives)
            });
            let values = padded(&row.scores.values(), draws);
            text += format!("\n{:<28}{threshold:>9}  {values}{counts}", row.finding).trim_end();
        }
        text += &format!("\n{:<37}  {}", "macro (mean over findings)", line(&self.mean.values(), draws));
        text += &format!("\n{:<37}  {}", "micro (all decisions together)", line(&self.micro.values(), draws));
        text
    }
}

/// The groups of a column, by finding.
fn subgroup_table(column: &ColumnGroups, draws: usize) -> String {
    let heads: String = GroupScores::<()>::NAMES.iter().map(|name| format!("{name:<21}")).collect();
    let mut text = format!(
        "by {}; + a group with fewer than {} positives or negatives, or without a value: not in the gap (highest − lowest)\n",
        column.column, column.min_of_each
    );
    text += format!("{:<28}{:<22}{:>9}{:>9}  {heads}", "finding", "group", "positive", "negative").trim_end();
    for finding in &column.findings {
        for group in &finding.groups {
            let name = format!("{}{}", group.group, if group.compared { "" } else { " +" });
            let values = line(&group.scores.values(), draws);
            let counts = format!("{:>9}{:>9}", group.positives, group.negatives);
            text += format!("\n{:<28}{name:<22}{counts}  {values}", finding.finding).trim_end();
        }
        if finding.groups.iter().filter(|group| group.compared).count() > 1 {
            text += &format!("\n{:<28}{:<40}  {}", finding.finding, "gap", line(&finding.gap.values(), draws));
        }
    }
    let mean = &column.mean;
    if column.shows_mean() {
        for group in &mean.groups {
            text += &format!("\n{:<28}{:<40}  {}", "mean", group.group, line(&group.scores.values(), draws));
        }
        text += &format!("\n{:<28}{:<40}  {}", "mean", "gap", line(&mean.gap.values(), draws));
        text += &format!("\nthe mean is over: {}", mean.findings.join(", "));
    }
    text
}

/// Values with their intervals, one column of 21 characters each.
fn padded(values: &[Option<Interval>], draws: usize) -> String {
    let shown = |value: &Option<Interval>| match value {
        Some(i) => {
            let mark = if i.is_thin(draws) { "*" } else { "" };
            format!("{:<21}", format!("{:.3} ({:.3}–{:.3}){mark}", i.value, i.low, i.high))
        }
        None => format!("{:<21}", "undefined"),
    };
    values.iter().map(shown).collect()
}

/// As [`padded`], at the end of a line.
fn line(values: &[Option<Interval>], draws: usize) -> String {
    padded(values, draws).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn any_unreliable_interval_is_explained() {
        let report = |draws: usize| {
            let brier = json!({ "value": 0.1, "low": 0.05, "high": 0.2, "draws": draws });
            let scores = json!({ "auroc": null, "average_precision": null, "sensitivity": null, "brier": brier,
                "calibration_error": null });
            let json = json!({ "kind": "classify", "task": "labels:Edema", "split": "main", "subset": "test", "ratio": 100.0,
                "init": "random", "init_name": "random initialization", "records": 5, "patients": 5, "draws": 100,
                "specificity": 0.9, "findings": [], "mean": scores });
            serde_json::from_value::<ClassificationReport>(json).unwrap().to_string()
        };
        assert!(report(89).contains("(0.050–0.200)*") && report(89).ends_with(THIN), "{}", report(89));
        assert!(!report(90).contains('*'), "{}", report(90));
    }

    #[test]
    fn adaptive_errors_without_an_interval_are_read() {
        let read = |error: serde_json::Value| {
            let mut json = json!({ "finding": "Edema", "equal_width": [], "adaptive": [] });
            json["adaptive_calibration_error"] = error;
            let calibration: FindingCalibration = serde_json::from_value(json).unwrap();
            calibration.adaptive_calibration_error
        };
        assert_eq!(read(json!(0.25)), Some(Interval { value: 0.25, low: 0.25, high: 0.25, draws: 0 }));
        assert_eq!(read(json!(0)).map(|i| i.value), Some(0.0));
        assert_eq!(read(serde_json::Value::Null), None);
        let interval = Interval { value: 0.25, low: 0.125, high: 0.5, draws: 7 };
        assert_eq!(read(json!(interval)), Some(interval));
    }
}
