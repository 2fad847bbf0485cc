//! The images of a folder's table that are in the table itself.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::file_system::{failed, retry};
use crate::run::plan::{ImageRow, PlannedRecord};
use crate::sources::folder::identifiers::without_extension;
use crate::sources::shared::table::{Table, texts};
use crate::sources::shared::walk::is_inside;

/// The rows of a table whose image column has bytes.
pub struct ImageRows<'a> {
    table: &'a Table,
    column: Arc<str>,
    /// Each file of the table and its size, by the name of the file.
    files: HashMap<String, (Arc<str>, u64)>,
    /// The names of the images beside the bytes.
    names: Vec<Option<&'a str>>,
    /// How many images have a name, with and without its extension.
    counts: HashMap<&'a str, usize>,
}

impl<'a> ImageRows<'a> {
    /// The rows of a table; `None` where the image column has paths.
    ///
    /// # Errors
    /// When the table is not below the raw directory.
    pub fn of(raw: &Path, table: &'a Table, path: &Path, column: &str) -> Result<Option<Self>> {
        if !table.byte_columns.iter().any(|name| name == column) {
            return Ok(None);
        }
        let is_one = table.names().count() == 1;
        let mut files = HashMap::new();
        for name in table.names() {
            let found = if is_one { path.to_path_buf() } else { raw.join(name) };
            let bytes = retry(|| found.metadata()).map_err(failed(&found))?.len();
            let inner = below(raw, &found)?.ok_or_else(|| Error::Table {
                path: found,
                message: format!("the column `{column}` has images, so the table must be below RAW_DIR"),
            })?;
            files.insert(name.to_owned(), (inner.into(), bytes));
        }
        let base = |name: &'a str| {
            let is_relative = is_inside(name) && !name.contains('\\');
            if is_relative { name } else { name.rsplit(['/', '\\']).next().unwrap_or(name) }
        };
        let names: Vec<Option<&str>> = texts(&table.frame, column)?
            .into_iter()
            .map(|name| name.map(base).filter(|name| !name.is_empty()))
            .collect();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for name in names.iter().flatten() {
            *counts.entry(name).or_default() += 1;
            let stem = without_extension(name);
            if stem != *name {
                *counts.entry(stem).or_default() += 1;
            }
        }
        Ok(Some(Self { table, column: column.into(), files, names, counts }))
    }

    fn row(&self, row: usize) -> (ImageRow, u64) {
        let (file, bytes) = &self.files[self.table.name_of(row)];
        (ImageRow { file: file.clone(), row: self.table.row_in_file(row), column: self.column.clone() }, *bytes)
    }

    /// The path of a row as records have it.
    pub fn source_path(&self, row: usize) -> String {
        self.row(row).0.source_path(self.table.rows_of_file(row))
    }

    /// The name of an image: that beside the bytes, if no other image has it, else the path of its row.
    pub fn name(&self, row: usize) -> String {
        let name = self.names[row].and_then(|name| {
            let stem = without_extension(name);
            [stem, name].into_iter().find(|name| self.counts[name] == 1)
        });
        name.map_or_else(|| self.source_path(row), str::to_owned)
    }

    /// The record with its image.
    pub fn record(&self, row: usize, record: PlannedRecord) -> PlannedRecord {
        let (image_row, bytes) = self.row(row);
        PlannedRecord { source_bytes: Some(bytes), image_row: Some(image_row), ..record }
    }
}

/// The path of a file relative to the raw directory; `None` where it is outside. The file itself may be a link.
fn below(raw: &Path, path: &Path) -> Result<Option<String>> {
    let text = |path: &Path| path.to_str().filter(|path| is_inside(path)).map(str::to_owned);
    if let Some(inner) = path.strip_prefix(raw).ok().and_then(text) {
        return Ok(Some(inner));
    }
    let real = |path: &Path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        retry(|| path.canonicalize()).map_err(failed(path))
    };
    let folder = real(path.parent().unwrap_or(Path::new("")))?;
    let inner = folder.strip_prefix(real(raw)?).ok().map(|folder| folder.join(path.file_name().unwrap_or_default()));
    Ok(inner.as_deref().and_then(text))
}
