//! The files of an evaluation: `evaluation-STEM.json`, and tables as Parquet and CSV.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use arrow_array::{ArrayRef, StringArray};
use dataset::format::{csv_table, table};
use dataset::store::files;
use serde::Serialize;

use super::DataSource;
use super::evaluated::{Evaluated, EvaluationHeader};

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
