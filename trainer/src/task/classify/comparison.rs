//! Comparison of two classifiers on the same records.

use std::fmt::Write as _;

use anyhow::{Context, Result, bail};
use arrow_array::{Array, Float32Array, Int8Array};
use dataset::commands::cli::counted;
use dataset::format::table::column;
use serde::Serialize;

use super::results::write_with_note;
use crate::eval::bootstrap::{Difference, Predictions};
use crate::eval::delong::DeLong;
use crate::eval::metrics::{SPECIFICITY, Scores};
use crate::task::comparison::{absent, matching, shown_difference, texts};
use crate::task::evaluation::check_specificity;
use crate::task::{ComparisonRequest, evaluated_table, numbered};

/// Differences of a second classifier from a first one.
#[derive(Debug, Clone, Serialize)]
pub struct ClassificationComparison {
    /// The first run.
    pub first: String,
    /// The second run.
    pub second: String,
    /// The subset.
    pub subset: String,
    /// Records that both were evaluated on.
    pub records: usize,
    /// Patients of these records.
    pub patients: usize,
    /// Sensitivity is compared at this specificity.
    pub specificity: f64,
    /// Bootstrap draws that were asked for.
    pub draws: usize,
    /// Differences by finding.
    pub findings: Vec<FindingDifference>,
    /// Over the findings for which the metric is defined.
    pub mean: Scores<Difference>,
}

/// Differences for one finding.
#[derive(Debug, Clone, Serialize)]
pub struct FindingDifference {
    /// The finding.
    pub finding: String,
    /// The differences; none where a metric is undefined.
    #[serde(flatten)]
    pub scores: Scores<Difference>,
    /// DeLong's test of the AUROC; none with fewer than two positives or negatives.
    pub delong: Option<DeLong>,
}

/// The predictions of a run, as `evaluate` wrote them.
struct Table {
    records: Vec<String>,
    patients: Vec<String>,
    findings: Vec<String>,
    /// `[rows, findings]`.
    scores: Vec<f32>,
    /// `[rows, findings]`.
    labels: Vec<Option<bool>>,
}

impl Table {
    fn read(run: &std::path::Path, subset: &str) -> Result<Self> {
        let batches = evaluated_table(run, subset)?;
        let schema =
            batches.first().with_context(|| format!("the predictions of {} are empty", run.display()))?.schema();
        let findings: Vec<String> =
            schema.fields().iter().filter_map(|field| Some(field.name().strip_prefix("score ")?.to_owned())).collect();
        let (mut scores, mut labels) = (Vec::new(), Vec::new());
        for batch in &batches {
            let (mut score_columns, mut label_columns) = (Vec::new(), Vec::new());
            for finding in &findings {
                let (score, label) = (format!("score {finding}"), format!("label {finding}"));
                score_columns.push(column::<Float32Array>(batch, &score).with_context(|| absent(&score))?);
                label_columns.push(column::<Int8Array>(batch, &label).with_context(|| absent(&label))?);
            }
            for row in 0..batch.num_rows() {
                scores.extend(score_columns.iter().map(|column| column.value(row)));
                labels.extend(label_columns.iter().map(|column| column.is_valid(row).then(|| column.value(row) == 1)));
            }
        }
        Ok(Self {
            records: texts(&batches, "record_id")?,
            patients: texts(&batches, "patient_id")?,
            findings,
            scores,
            labels,
        })
    }

    /// Scores in the order of another table's records, whose labels must be the same.
    fn ordered(&self, other: &Self) -> Result<Vec<f32>> {
        let places = matching(&other.records, &self.records)?;
        let width = self.findings.len();
        let mut scores = Vec::with_capacity(self.scores.len());
        for (theirs, place) in places.into_iter().enumerate() {
            let (own, of_other) = (place * width..(place + 1) * width, theirs * width..(theirs + 1) * width);
            if self.labels[own.clone()] != other.labels[of_other] {
                bail!(
                    "the runs read the labels of record {} differently (data.uncertain, data.missing)",
                    other.records[theirs]
                );
            }
            scores.extend_from_slice(&self.scores[own]);
        }
        Ok(scores)
    }
}

/// Compares the predictions of two classifiers on the same records of a subset; patients are drawn for both together.
pub(super) fn compare(request: &ComparisonRequest) -> Result<ClassificationComparison> {
    let specificity = check_specificity(request.specificity.unwrap_or(SPECIFICITY))?;
    let (a, b) = (Table::read(request.first, request.subset)?, Table::read(request.second, request.subset)?);
    if a.findings != b.findings {
        bail!("the runs predict different findings: {} and {}", a.findings.join(", "), b.findings.join(", "));
    }
    let scores = b.ordered(&a)?;
    let patients = numbered(a.patients.iter().map(String::as_str));
    let predictions = Predictions {
        scores: &a.scores,
        labels: &a.labels,
        patients: &patients,
        classes: a.findings.len(),
        specificity,
    };
    let differences = request.bootstrap.paired(predictions, &scores);
    let classes = a.findings.len();
    let tested = |class: usize| {
        let (first, labels): (Vec<f32>, Vec<Option<bool>>) = predictions.class(class).unzip();
        let second: Vec<f32> = scores.iter().skip(class).step_by(classes).copied().collect();
        DeLong::test(&first, &second, &labels)
    };
    let delong: Vec<Option<DeLong>> = (0..classes).map(tested).collect();
    let findings = a.findings.into_iter().zip(differences.classes).zip(delong);
    Ok(ClassificationComparison {
        first: request.first.display().to_string(),
        second: request.second.display().to_string(),
        subset: request.subset.to_owned(),
        records: a.records.len(),
        patients: patients.iter().max().map_or(0, |last| *last as usize + 1),
        specificity,
        draws: request.bootstrap.draws,
        findings: findings.map(|((finding, scores), delong)| FindingDifference { finding, scores, delong }).collect(),
        mean: differences.mean,
    })
}

impl std::fmt::Display for ClassificationComparison {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let mut text = String::new();
        writeln!(
            text,
            "{} minus {}: {} of {}",
            self.second,
            self.first,
            counted(self.records, "record"),
            counted(self.patients, "patient")
        )?;
        let sensitivity = format!("sens@spec {:.2}", self.specificity);
        writeln!(text, "{:<28}{:<40}{:<40}{sensitivity:<40}Brier", "finding", "AUROC", "AUPRC")?;
        let shown = |difference| format!("{:<40}", shown_difference(difference, self.draws));
        let line = |scores: &Scores<Difference>| {
            let columns = [scores.auroc, scores.average_precision, scores.sensitivity, scores.brier];
            columns.map(shown).concat().trim_end().to_owned()
        };
        for row in &self.findings {
            writeln!(text, "{:<28}{}", row.finding, line(&row.scores))?;
        }
        write!(text, "{:<28}{}", "mean", line(&self.mean))?;
        write_with_note(f, &text)?;
        if self.findings.iter().all(|finding| finding.delong.is_none()) {
            return Ok(());
        }
        write!(f, "\n\n{DELONG}\n{:<28}{:<12}{:<10}{:<10}p", "finding", "difference", "SE", "z")?;
        for (finding, test) in self.findings.iter().filter_map(|row| Some((&row.finding, row.delong?))) {
            let z = test.z.map_or("undefined".to_owned(), |z| format!("{z:+.2}"));
            let p = test
                .p
                .map_or("undefined".to_owned(), |p| if p < 0.0001 { "< 0.0001".to_owned() } else { format!("{p:.4}") });
            let (difference, error) = (format!("{:+.3}", test.difference), format!("{:.4}", test.variance.sqrt()));
            write!(f, "\n{finding:<28}{difference:<12}{error:<10}{z:<10}{p}")?;
        }
        Ok(())
    }
}

/// What the second table is, and what it leaves out.
const DELONG: &str = "DeLong's test of the AUROC (Sun and Xu 2014). It takes all records as independent; records of one patient are not:\n\
                      where patients have several records, rely on the intervals above, which draw whole patients.";
