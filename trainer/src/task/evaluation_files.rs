//! The files of an evaluation: `evaluation-STEM.json`, and tables as Parquet and CSV.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use arrow_array::{ArrayRef, Float64Array, StringArray, UInt64Array};
use dataset::format::{csv_table, table};
use dataset::store::files;
use serde::Serialize;

use super::DataSource;
use super::evaluated::{Evaluated, EvaluationHeader};
use crate::eval::bootstrap::Interval;

/// Where the files of an evaluation are.
#[derive(Debug, Clone)]
pub struct EvaluationFiles {
    folder: PathBuf,
    stem: String,
}

impl EvaluationFiles {
    /// In a folder; the stem is `test`, or `test-on-NAME`.
    pub fn new(folder: &Path, stem: &str) -> Self {
        Self { folder: folder.to_path_buf(), stem: stem.to_owned() }
    }

    /// Path of `evaluation-STEM.json`.
    pub fn evaluation(&self) -> PathBuf {
        self.folder.join(format!("evaluation-{}.json", self.stem))
    }

    /// Path of a table, `NAME-STEM.parquet`.
    pub fn table(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}-{}.parquet", self.stem))
    }

    /// Writes a table as `NAME-STEM.parquet` and `.csv`. Each column has a name, values, and whether it may have nulls.
    ///
    /// # Errors
    /// When the columns differ in length, or a file cannot be written.
    pub fn write_table(&self, name: &str, columns: Vec<(&str, ArrayRef, bool)>) -> Result<()> {
        let path = self.table(name);
        csv_table::write(&path.with_extension("csv"), &columns)?;
        Ok(table::write_table(&path, columns)?)
    }

    /// Removes a table that an earlier evaluation wrote.
    pub fn remove_table(&self, name: &str) {
        let path = self.table(name);
        let _ = (std::fs::remove_file(&path), std::fs::remove_file(path.with_extension("csv")));
    }

    /// Writes `metrics-STEM`: the numbers of the evaluation, one row a value.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub(crate) fn write_metrics(&self, metrics: MetricTable) -> Result<()> {
        let MetricTable { finding, metric, value, low, high, draws } = metrics;
        self.write_table(
            "metrics",
            vec![
                ("finding", Arc::new(StringArray::from(finding)), false),
                ("metric", Arc::new(StringArray::from(metric)), false),
                ("value", Arc::new(Float64Array::from(value)), true),
                ("low", Arc::new(Float64Array::from(low)), true),
                ("high", Arc::new(Float64Array::from(high)), true),
                ("draws", Arc::new(UInt64Array::from(draws)), true),
            ],
        )
    }

    /// Writes `predictions-STEM`: `record_id` and `patient_id` of some rows of a dataset, then columns with a value a row.
    ///
    /// # Errors
    /// When the dataset cannot be read or a file cannot be written.
    pub fn write_predictions(
        &self,
        source: &DataSource,
        rows: &[u32],
        columns: Vec<(&str, ArrayRef, bool)>,
    ) -> Result<()> {
        let ids = |column: &str| -> Result<ArrayRef> {
            let values = source.dataset.texts(column)?;
            Ok(Arc::new(rows.iter().map(|&row| values[row as usize].as_deref()).collect::<StringArray>()))
        };
        let mut all = vec![("record_id", ids("record_id")?, false), ("patient_id", ids("patient_id")?, false)];
        all.extend(columns);
        self.write_table("predictions", all)
    }

    /// Writes `evaluation-STEM.json`, and returns the evaluation for the terminal.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn finish<R: Serialize + std::fmt::Display>(
        &self,
        report: &R,
        header: &EvaluationHeader,
        warnings: Vec<String>,
    ) -> Result<Evaluated> {
        let file = self.evaluation();
        files::write_json(&file, report)?;
        let table = self.table("predictions");
        let written = format!("weights: {}; written: {}, {} and .csv", header.weights, file.display(), table.display());
        Ok(Evaluated { text: report.to_string(), json: serde_json::to_value(report)?, warnings, written })
    }
}

/// The columns of `metrics-STEM`. A metric is named by its path in the JSON, such as `auroc` or `at_threshold.f1`. `finding` is
/// a finding, or another part of the JSON with the same keys, such as `mean`.
#[derive(Debug, Default)]
pub(crate) struct MetricTable {
    finding: Vec<String>,
    metric: Vec<String>,
    /// Null where undefined.
    value: Vec<Option<f64>>,
    low: Vec<Option<f64>>,
    high: Vec<Option<f64>>,
    /// Draws in which the value was defined.
    draws: Vec<Option<u64>>,
}

impl MetricTable {
    /// Adds a value without an interval.
    pub fn value(&mut self, finding: &str, metric: &str, value: Option<f64>) {
        self.push(finding, metric, value, None, None);
    }

    /// Adds a value with its bootstrap interval.
    pub fn interval(&mut self, finding: &str, metric: &str, interval: Option<Interval>) {
        let ends = interval.map(|interval| (interval.low, interval.high));
        self.push(finding, metric, interval.map(|i| i.value), ends, interval.map(|i| i.draws as u64));
    }

    /// Adds values with bootstrap intervals; `section` is the beginning of their paths.
    pub fn intervals<const N: usize>(
        &mut self,
        finding: &str,
        section: &str,
        keys: [&str; N],
        values: [Option<Interval>; N],
    ) {
        for (key, value) in keys.into_iter().zip(values) {
            self.interval(finding, &format!("{section}{key}"), value);
        }
    }

    /// Adds a value with the ends of its interval, and the draws that defined it.
    pub fn push(
        &mut self,
        finding: &str,
        metric: &str,
        value: Option<f64>,
        ends: Option<(f64, f64)>,
        draws: Option<u64>,
    ) {
        self.finding.push(finding.to_owned());
        self.metric.push(metric.to_owned());
        self.value.push(value);
        self.low.push(ends.map(|(low, _)| low));
        self.high.push(ends.map(|(_, high)| high));
        self.draws.push(draws);
    }
}
