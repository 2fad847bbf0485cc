//! What comparisons of all kinds share, and the comparison of tasks that have a value a record.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, bail};
use arrow_array::{Float32Array, Float64Array, RecordBatch, StringArray, UInt64Array};
use dataset::commands::cli::counted;
use dataset::format::table::{self, column};
use serde::Serialize;
use serde_json::{Map, Value};

use super::numbered;
use crate::eval::bootstrap::{Bootstrap, Difference, smallest_p};

/// Two runs of one kind to compare on the same records.
pub struct ComparisonRequest<'a> {
    /// The first run.
    pub first: &'a Path,
    /// The second run; differences are second minus first.
    pub second: &'a Path,
    /// `test`, or `test-on-NAME` for an evaluation on another dataset.
    pub subset: &'a str,
    /// How the bootstrap is drawn.
    pub bootstrap: Bootstrap,
    /// Specificity at which sensitivity is compared; none: the task's default.
    pub specificity: Option<f64>,
}

/// What a comparison gave.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The table for the terminal.
    pub text: String,
    /// The same for `--out`.
    pub json: Value,
    /// What may explain a difference other than the initialization.
    pub warnings: Vec<String>,
}

impl Comparison {
    /// A comparison that shows itself.
    ///
    /// # Errors
    /// When JSON cannot express a value.
    pub fn of<C: Serialize + std::fmt::Display>(comparison: &C) -> Result<Self> {
        Ok(Self { text: comparison.to_string(), json: serde_json::to_value(comparison)?, warnings: Vec::new() })
    }
}

/// A value a record, in the table of predictions, whose mean is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordMetric {
    /// Its key in JSON.
    pub key: &'static str,
    /// Its column in the table of predictions.
    pub column: &'static str,
    /// Its name in tables.
    pub title: &'static str,
    /// Records count only where this column is above 0; none: all records.
    pub only_where: Option<&'static str>,
}

/// The table that an evaluation wrote.
///
/// # Errors
/// When there is none.
pub fn evaluated_table(run: &Path, subset: &str) -> Result<Vec<RecordBatch>> {
    if !run.exists() {
        bail!("{} does not exist", run.display());
    }
    let path = run.join(format!("predictions-{subset}.parquet"));
    if !path.exists() {
        bail!("{} is missing: run `trainer evaluate --subset {subset}` on {} first", path.display(), run.display());
    }
    Ok(table::read_table(&path)?)
}

/// A column of texts of a table of predictions; empty where it has none.
pub(super) fn texts(batches: &[RecordBatch], name: &str) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for batch in batches {
        let texts = column::<StringArray>(batch, name).with_context(|| absent(name))?;
        all.extend(texts.iter().map(|text| text.unwrap_or_default().to_owned()));
    }
    Ok(all)
}

/// A column of numbers of any of the types that evaluations write.
fn numbers(batches: &[RecordBatch], name: &str) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    for batch in batches {
        if let Some(values) = column::<Float64Array>(batch, name) {
            all.extend(values.values());
        } else if let Some(values) = column::<Float32Array>(batch, name) {
            all.extend(values.values().iter().map(|value| f64::from(*value)));
        } else {
            let values = column::<UInt64Array>(batch, name).with_context(|| absent(name))?;
            all.extend(values.values().iter().map(|value| *value as f64));
        }
    }
    Ok(all)
}

pub(super) fn absent(name: &str) -> String {
    format!("the predictions have no column `{name}`")
}

/// For each record of the first list its place in the second one.
///
/// # Errors
/// When the lists hold different records.
pub(super) fn matching(first: &[String], second: &[String]) -> Result<Vec<usize>> {
    if first.len() != second.len() {
        bail!("the runs were evaluated on {} and {} records", first.len(), second.len());
    }
    let places: HashMap<&str, usize> = second.iter().enumerate().map(|(row, id)| (id.as_str(), row)).collect();
    let place = |record: &String| {
        places.get(record.as_str()).copied().with_context(|| format!("record {record} is in one run only"))
    };
    first.iter().map(place).collect()
}

/// Compares the means of values a record, with a paired bootstrap over patients. `ground_truth` names a column that must be
/// the same in both tables, since values against different targets cannot be compared.
///
/// # Errors
/// When a run was not evaluated on the subset, or they were evaluated on different records or targets.
pub fn compare_records(
    request: &ComparisonRequest,
    metrics: &[RecordMetric],
    ground_truth: &str,
) -> Result<Comparison> {
    let first = evaluated_table(request.first, request.subset)?;
    let second = evaluated_table(request.second, request.subset)?;
    let records = texts(&first, "record_id")?;
    let places = matching(&records, &texts(&second, "record_id")?)?;
    let ordered = |name: &str| -> Result<Vec<f64>> {
        let values = numbers(&second, name)?;
        Ok(places.iter().map(|&place| values[place]).collect())
    };
    let (targets, others) = (numbers(&first, ground_truth)?, ordered(ground_truth)?);
    if let Some(at) = (0..targets.len()).find(|&at| targets[at] != others[at]) {
        bail!(
            "the runs were evaluated with different targets: {ground_truth} of record {} is not the same",
            records[at]
        );
    }
    let patient_ids = texts(&first, "patient_id")?;
    let patients = numbered(patient_ids.iter().map(String::as_str));
    let mut rows = Vec::new();
    for metric in metrics {
        let (a, b) = (numbers(&first, metric.column)?, ordered(metric.column)?);
        let counted = metric.only_where.map(|name| numbers(&first, name)).transpose()?;
        let chosen = |at: &usize| counted.as_ref().is_none_or(|counted| counted[*at] > 0.0);
        let rows_of: Vec<usize> = (0..a.len()).filter(chosen).collect();
        let of = |values: &[f64]| -> Vec<f64> { rows_of.iter().map(|&at| values[at]).collect() };
        let patients: Vec<u32> = rows_of.iter().map(|&at| patients[at]).collect();
        let difference = request.bootstrap.paired_mean(&of(&a), &of(&b), &patients);
        rows.push(MeanDifference { key: metric.key, title: metric.title, records: rows_of.len(), difference });
    }
    Comparison::of(&RecordComparison {
        first: request.first.display().to_string(),
        second: request.second.display().to_string(),
        subset: request.subset.to_owned(),
        records: records.len(),
        patients: patients.iter().max().map_or(0, |last| *last as usize + 1),
        draws: request.bootstrap.draws,
        metrics: rows,
    })
}

/// Differences of means over records.
#[derive(Serialize)]
struct RecordComparison {
    first: String,
    second: String,
    subset: String,
    records: usize,
    patients: usize,
    draws: usize,
    #[serde(serialize_with = "by_key")]
    metrics: Vec<MeanDifference>,
}

struct MeanDifference {
    key: &'static str,
    title: &'static str,
    records: usize,
    difference: Option<Difference>,
}

/// An object with a difference a metric.
fn by_key<S: serde::Serializer>(rows: &[MeanDifference], serializer: S) -> Result<S::Ok, S::Error> {
    let entries = rows.iter().map(|row| Ok((row.key.to_owned(), serde_json::to_value(row.difference)?)));
    let map: Map<String, Value> = entries.collect::<serde_json::Result<_>>().map_err(serde::ser::Error::custom)?;
    map.serialize(serializer)
}

impl std::fmt::Display for RecordComparison {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let counts = (counted(self.records, "record"), counted(self.patients, "patient"));
        writeln!(f, "{} minus {}: {} of {}", self.second, self.first, counts.0, counts.1)?;
        write!(f, "{:<28}{:>9}  difference of means (95%)", "metric", "records")?;
        for row in &self.metrics {
            let difference = shown_difference(row.difference, self.draws);
            write!(f, "\n{:<28}{:>9}  {difference}", row.title, row.records)?;
        }
        Ok(())
    }
}

/// `+0.012 (-0.004 to +0.031) p = 0.120`; a `*` where few draws defined the value.
pub(super) fn shown_difference(difference: Option<Difference>, draws: usize) -> String {
    let Some(Difference { interval: i, p }) = difference else { return "undefined".to_owned() };
    let mark = if i.is_thin(draws) { "*" } else { "" };
    let mut text = format!("{:+.3} ({:+.3} to {:+.3}){mark}", i.value, i.low, i.high);
    let _ = write!(text, " {}", shown_p(p, i.draws));
    text
}

/// A p-value for people. At the smallest value that the draws can give, the true one may be smaller.
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

    #[test]
    fn records_are_matched_by_their_identifiers() {
        let ids = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(matching(&ids("a b c"), &ids("c a b")).unwrap(), [1, 2, 0]);
        assert!(matching(&ids("a b"), &ids("a c")).unwrap_err().to_string().contains("record b is in one run only"));
        assert!(matching(&ids("a b"), &ids("a")).unwrap_err().to_string().contains("2 and 1 records"));
    }
}
