//! Makes a table of rows with named fields.

use std::path::Path;

use polars::prelude::{Column, DataFrame, IntoSeries, StringChunkedBuilder};

use super::table::{MAX_BAD_ROWS, MAX_COLUMNS, Table};
use crate::error::{Error, Result};
use crate::reject::{Reject, Stage};

/// Makes a table row by row, whose columns are those of all rows.
pub struct TableBuilder<'a> {
    path: &'a Path,
    name: String,
    columns: Vec<ColumnBuilder>,
    lines: Vec<u32>,
    unit: &'static str,
    rejects: Vec<Reject>,
}

struct ColumnBuilder {
    name: String,
    values: StringChunkedBuilder,
    /// Number of values.
    rows: usize,
}

impl ColumnBuilder {
    /// Appends nulls up to a number of rows.
    fn fill(&mut self, rows: usize) {
        (self.rows..rows).for_each(|_| self.values.append_null());
        self.rows = self.rows.max(rows);
    }
}

impl<'a> TableBuilder<'a> {
    /// A table without rows; its path in rejects is relative to `raw`. `unit` is what rows are numbered by.
    pub fn new(raw: &Path, path: &'a Path, unit: &'static str) -> Self {
        let name = path.strip_prefix(raw).unwrap_or(path).to_string_lossy().into_owned();
        Self { path, name, columns: Vec::new(), lines: Vec::new(), unit, rejects: Vec::new() }
    }

    /// The place of a column, which is added where there is none of this name.
    pub fn column(&mut self, name: &str) -> usize {
        let found = self.columns.iter().position(|known| known.name == name);
        found.unwrap_or_else(|| {
            let values = StringChunkedBuilder::new(name.into(), 0);
            self.columns.push(ColumnBuilder { name: name.to_owned(), values, rows: 0 });
            self.columns.len() - 1
        })
    }

    /// Adds a row; blank fields are null. Of two fields of one name the first counts.
    ///
    /// # Errors
    /// When there are too many columns.
    pub fn row(&mut self, number: u64, fields: impl Iterator<Item = (String, Option<String>)>) -> Result<()> {
        let rows = self.lines.len();
        for (at, (name, value)) in fields.enumerate() {
            // Most rows have their fields in the order of the columns.
            let is_here = self.columns.get(at).is_some_and(|known| known.name == name);
            let at = if is_here { at } else { self.column(&name) };
            if at >= MAX_COLUMNS {
                let message = format!("more than {MAX_COLUMNS} columns, which is no table");
                return Err(Error::Table { path: self.path.to_path_buf(), message });
            }
            let column = &mut self.columns[at];
            column.fill(rows);
            if column.rows == rows {
                column.values.append_option(value.filter(|text| !text.trim().is_empty()));
                column.rows += 1;
            }
        }
        self.lines.push(u32::try_from(number).unwrap_or(u32::MAX));
        Ok(())
    }

    /// Rejects a row.
    ///
    /// # Errors
    /// When too many are rejected.
    pub fn reject(&mut self, number: u64, error: &str) -> Result<()> {
        let error = format!("{} {number}: {error}", self.unit);
        self.rejects.push(Reject { source_path: self.name.clone(), record_id: None, stage: Stage::Table, error });
        if self.rejects.len() > MAX_BAD_ROWS {
            let message = format!("more than {MAX_BAD_ROWS} rows cannot be read");
            return Err(Error::Table { path: self.path.to_path_buf(), message });
        }
        Ok(())
    }

    /// The table.
    ///
    /// # Errors
    /// When it lacks one of the `required` columns.
    pub fn finish(self, required: &[&str]) -> Result<Table> {
        let Self { path, name, mut columns, lines, unit, rejects } = self;
        if columns.is_empty() {
            let message = rejects.first().map_or_else(|| "the file is empty".to_owned(), |reject| reject.error.clone());
            return Err(Error::Table { path: path.to_path_buf(), message });
        }
        if let Some(column) = required.iter().find(|column| !columns.iter().any(|known| known.name == **column)) {
            let found = columns.iter().map(|known| known.name.as_str()).collect::<Vec<_>>().join(", ");
            return Err(Error::MissingColumn { path: path.to_path_buf(), column: (*column).to_owned(), found });
        }
        columns.iter_mut().for_each(|column| column.fill(lines.len()));
        let columns = columns.into_iter().map(|column| Column::from(column.values.finish().into_series())).collect();
        let frame = DataFrame::new(lines.len(), columns)
            .map_err(|e| Error::Table { path: path.to_path_buf(), message: e.to_string() })?;
        Ok(Table { name, frame, lines, unit, rejects, byte_columns: Vec::new(), appended: Vec::new() })
    }
}
