//! `trainer compare`: two fine-tuned runs on the same records.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use arrow_array::{Array, Float32Array, Int8Array, RecordBatch, StringArray};
use dataset::commands::cli::counted;
use dataset::format::table::{self, column};
use serde::Serialize;

use super::evaluate::{THIN, check_specificity, numbered};
use super::same_model::remark_different;
use crate::eval::bootstrap::{Bootstrap, Difference, Predictions, smallest_p};
use crate::eval::metrics::Scores;
use crate::train::run_dir;

/// Differences of a second run from a first one.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    pub first: String,
    pub second: String,
    pub subset: String,
    pub records: usize,
    pub patients: usize,
    pub specificity: f64,
    /// Bootstrap draws that were asked for.
    pub draws: usize,
    pub findings: Vec<FindingDifference>,
    /// Over the findings for which the metric is defined.
    pub mean: Scores<Difference>,
}

/// Differences for one finding.
#[derive(Debug, Clone, Serialize)]
pub struct FindingDifference {
    pub finding: String,
    #[serde(flatten)]
    pub scores: Scores<Difference>,
}

/// The predictions of a run, as `evaluate` wrote them.
struct Table {
    records: Vec<String>,
    patients: Vec<String>,
    findings: Vec<String>,
    /// `[rows, findings]`.
    scores: Vec<f32>,
    labels: Vec<Option<bool>>,
}

impl Table {
    fn read(run: &Path, subset: &str) -> Result<Self> {
        if !run.exists() {
            bail!("{} does not exist", run.display());
        }
        let path = run.join(format!("predictions-{subset}.parquet"));
        if !path.exists() {
            bail!("{} is missing: run `trainer evaluate --subset {subset}` on {} first", path.display(), run.display());
        }
        let batches = table::read_table(&path)?;
        let schema = batches.first().with_context(|| format!("{} is empty", path.display()))?.schema();
        let findings: Vec<String> =
            schema.fields().iter().filter_map(|field| Some(field.name().strip_prefix("score ")?.to_owned())).collect();
        if findings.is_empty() {
            bail!("{} holds no scores of findings: only classification runs can be compared", path.display());
        }
        let mut table =
            Self { records: Vec::new(), patients: Vec::new(), findings, scores: Vec::new(), labels: Vec::new() };
        for batch in &batches {
            table.add(batch)?;
        }
        Ok(table)
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let absent = |name: &str| format!("the predictions have no column `{name}`");
        let texts = |name: &str| -> Result<Vec<String>> {
            let texts = column::<StringArray>(batch, name).with_context(|| absent(name))?;
            Ok(texts.iter().map(|text| text.unwrap_or_default().to_owned()).collect())
        };
        self.records.extend(texts("record_id")?);
        self.patients.extend(texts("patient_id")?);
        let (mut scores, mut labels) = (Vec::new(), Vec::new());
        for finding in &self.findings {
            let (score, label) = (format!("score {finding}"), format!("label {finding}"));
            scores.push(column::<Float32Array>(batch, &score).with_context(|| absent(&score))?);
            labels.push(column::<Int8Array>(batch, &label).with_context(|| absent(&label))?);
        }
        for row in 0..batch.num_rows() {
            self.scores.extend(scores.iter().map(|column| column.value(row)));
            self.labels.extend(labels.iter().map(|column| column.is_valid(row).then(|| column.value(row) == 1)));
        }
        Ok(())
    }

    /// Scores in the order of another table's records, whose labels must be the same.
    fn ordered(&self, other: &Self) -> Result<Vec<f32>> {
        let places: HashMap<&str, usize> =
            self.records.iter().enumerate().map(|(row, id)| (id.as_str(), row)).collect();
        let width = self.findings.len();
        let mut scores = Vec::with_capacity(self.scores.len());
        for (theirs, record) in other.records.iter().enumerate() {
            let row = *places.get(record.as_str()).with_context(|| format!("record {record} is in one run only"))?;
            let (own, theirs) = (row * width..(row + 1) * width, theirs * width..(theirs + 1) * width);
            if self.labels[own.clone()] != other.labels[theirs] {
                bail!("the runs read the labels of record {record} otherwise (data.uncertain, data.missing)");
            }
            scores.extend_from_slice(&self.scores[own]);
        }
        Ok(scores)
    }
}

/// Compares the predictions of two runs on the same records of a subset, patients drawn for both together.
pub fn compare(
    first: &Path,
    second: &Path,
    subset: &str,
    draws: usize,
    seed: u64,
    specificity: f64,
) -> Result<Comparison> {
    check_specificity(specificity)?;
    let (a, b) = (Table::read(first, subset)?, Table::read(second, subset)?);
    if a.findings != b.findings {
        bail!("the runs predict other findings: {} and {}", a.findings.join(", "), b.findings.join(", "));
    }
    if a.records.len() != b.records.len() {
        bail!("the runs were evaluated on {} and {} records", a.records.len(), b.records.len());
    }
    if let (Some(of_first), Some(of_second)) = (ratio(first), ratio(second))
        && of_first != of_second
    {
        dataset::cli_eprintln!(
            "warning: {} was trained on {of_first}% of the labels, {} on {of_second}%: a difference may come from the \
             number of labels alone",
            first.display(),
            second.display()
        );
    }
    let scores = b.ordered(&a)?;
    remark_different(first, second);
    let patients = numbered(a.patients.iter().map(String::as_str));
    let bootstrap = Bootstrap { draws, seed, ..Bootstrap::default() };
    let predictions = Predictions {
        scores: &a.scores,
        labels: &a.labels,
        patients: &patients,
        classes: a.findings.len(),
        specificity,
    };
    let found = bootstrap.paired(predictions, &scores);
    Ok(Comparison {
        first: first.display().to_string(),
        second: second.display().to_string(),
        subset: subset.to_owned(),
        records: a.records.len(),
        patients: patients.iter().max().map_or(0, |last| *last as usize + 1),
        specificity,
        draws,
        findings: a
            .findings
            .into_iter()
            .zip(found.classes)
            .map(|(finding, scores)| FindingDifference { finding, scores })
            .collect(),
        mean: found.mean,
    })
}

/// The percentage of the training labels that a run was trained on.
fn ratio(run: &Path) -> Option<f64> {
    run_dir::load_config::<toml::Table>(run).ok()?.get("ratio")?.as_float()
}

/// A p-value for people: at the smallest value that the draws can give, the true one may be smaller.
fn shown_p(p: f64, draws: usize) -> String {
    let smallest = smallest_p(draws);
    // As many digits as the smallest value needs not to be rounded to zero.
    let unit = |digits: usize| 10f64.powi(digits as i32);
    let digits = (3..9).find(|&digits| smallest * unit(digits) >= 0.5).unwrap_or(9);
    if p > smallest * (1.0 + 1e-9) {
        return format!("p = {p:.digits$}");
    }
    format!("p ≤ {:.digits$}", (smallest * unit(digits) - 1e-9).ceil() / unit(digits))
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        writeln!(
            f,
            "{} less {}: {} of {}",
            self.second,
            self.first,
            counted(self.records, "record"),
            counted(self.patients, "patient")
        )?;
        let sensitivity = format!("sens@spec {:.2}", self.specificity);
        writeln!(f, "{:<28}{:<40}{:<40}{sensitivity:<40}Brier", "finding", "AUROC", "AUPRC")?;
        let shown = |difference: Option<Difference>| match difference {
            Some(Difference { interval: i, p }) => {
                let mark = if i.is_thin(self.draws) { "*" } else { "" };
                let p = shown_p(p, i.draws);
                format!("{:<40}", format!("{:+.3} ({:+.3} to {:+.3}){mark} {p}", i.value, i.low, i.high))
            }
            None => format!("{:<40}", "undefined"),
        };
        let line = |scores: &Scores<Difference>| {
            let columns = [scores.auroc, scores.average_precision, scores.sensitivity, scores.brier];
            columns.map(shown).concat().trim_end().to_owned()
        };
        for row in &self.findings {
            writeln!(f, "{:<28}{}", row.finding, line(&row.scores))?;
        }
        write!(f, "{:<28}{}", "mean", line(&self.mean))?;
        let all = self.findings.iter().map(|finding| &finding.scores).chain([&self.mean]);
        let thin = |difference: Difference| difference.interval.is_thin(self.draws);
        if all.flat_map(|scores| [scores.auroc, scores.average_precision]).flatten().any(thin) {
            write!(f, "\n{THIN}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_p_value_at_the_floor_is_a_bound() {
        let floor = |draws| shown_p(smallest_p(draws), draws);
        assert_eq!([10, 100, 1000, 2000].map(floor), ["p ≤ 0.182", "p ≤ 0.020", "p ≤ 0.002", "p ≤ 0.001"]);
        assert_eq!([5000, 10_000, 100_000].map(floor), ["p ≤ 0.0004", "p ≤ 0.0002", "p ≤ 0.00002"]);
        assert_eq!([shown_p(4.0 / 1001.0, 1000), shown_p(1.0, 1000)], ["p = 0.004", "p = 1.000"]);
        assert_eq!(shown_p(4.0 / 10_001.0, 10_000), "p = 0.0004");
    }
}
