//! A source's CSV tables, plain or gzipped, as polars tables of text; rows that do not fit become rejects.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use polars::prelude::{Column, DataFrame, StringChunked};

use crate::error::{Error, Reject, Result, Stage};

/// One table, all columns as text, empty fields as null.
pub struct Table {
    /// Its path relative to the raw directory.
    pub name: String,
    pub frame: DataFrame,
    /// Rows whose number of fields is not the header's.
    pub rejects: Vec<Reject>,
}

impl Table {
    /// Reads a table; its path in rejects is relative to `raw`.
    ///
    /// Header names are trimmed. Trailing header cells without a name are allowed to have no field in the rows, as in
    /// NIH's box list.
    ///
    /// # Errors
    /// When the file cannot be read, is not CSV, or lacks one of the `required` columns.
    pub fn read(raw: &Path, path: &Path, required: &[&str]) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let mut bytes = Vec::new();
        if path.extension().is_some_and(|extension| extension == "gz") {
            MultiGzDecoder::new(file).read_to_end(&mut bytes).map_err(Error::io(path))?;
        } else {
            let mut file = file;
            file.read_to_end(&mut bytes).map_err(Error::io(path))?;
        }
        let text = decode_text(bytes);
        let bad = |message: String| Error::Table { path: path.to_path_buf(), message };
        let mut reader = csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(text.as_bytes());
        let mut records = reader.records();
        let header = match records.next() {
            Some(Ok(header)) => header,
            Some(Err(error)) => return Err(bad(error.to_string())),
            None => return Err(bad("the file is empty".to_owned())),
        };
        let mut names: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
        let widest = names.len();
        while names.last().is_some_and(String::is_empty) {
            names.pop();
        }
        for column in required {
            if !names.iter().any(|name| name == column) {
                let found = names.join(", ");
                return Err(Error::MissingColumn { path: path.to_path_buf(), column: (*column).to_owned(), found });
            }
        }
        let mut columns: Vec<Vec<Option<String>>> = vec![Vec::new(); names.len()];
        let mut rejects = Vec::new();
        let name = path.strip_prefix(raw).unwrap_or(path).to_string_lossy().into_owned();
        let mut reject = |line: u64, message: String| {
            let error = format!("line {line}: {message}");
            rejects.push(Reject { source_path: name.clone(), record_id: None, stage: Stage::Table, error });
        };
        for record in records {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    let line = error.position().map_or(0, csv::Position::line);
                    reject(line, "not CSV".to_owned());
                    continue;
                }
            };
            if !(names.len()..=widest).contains(&record.len()) {
                let line = record.position().map_or(0, csv::Position::line);
                reject(line, format!("{} fields, the header has {}", record.len(), names.len()));
                continue;
            }
            for (column, field) in columns.iter_mut().zip(&record) {
                column.push((!field.trim().is_empty()).then(|| field.to_owned()));
            }
        }
        let height = columns.first().map_or(0, Vec::len);
        let columns = names
            .iter()
            .zip(columns)
            .map(|(name, values)| {
                let mut column: StringChunked = values.iter().map(Option::as_deref).collect();
                column.rename(name.as_str().into());
                Column::from(polars::prelude::IntoSeries::into_series(column))
            })
            .collect();
        let frame = DataFrame::new(height, columns).map_err(|e| bad(e.to_string()))?;
        Ok(Self { name, frame, rejects })
    }
}

/// The table `NAME.csv` or `NAME.csv.gz` in a folder, or in a folder `NAME.csv` or `NAME` in it, as archives unpack to.
pub fn find_table(folder: &Path, name: &str) -> Option<PathBuf> {
    let inner = [folder.to_path_buf(), folder.join(format!("{name}.csv")), folder.join(name)];
    let candidates = inner.iter().flat_map(|at| ["csv", "csv.gz"].map(|ending| at.join(format!("{name}.{ending}"))));
    candidates.into_iter().find(|path| path.is_file())
}

/// The values of a text column, trimmed.
///
/// # Errors
/// When the table has no such column.
pub fn texts<'a>(frame: &'a DataFrame, name: &str) -> Result<Vec<Option<&'a str>>> {
    Ok(frame.column(name)?.str()?.iter().map(|value| value.map(str::trim)).collect())
}

/// The values of a text column, all null where the table has no such column.
pub fn texts_or_null<'a>(frame: &'a DataFrame, name: &str) -> Vec<Option<&'a str>> {
    texts(frame, name).unwrap_or_else(|_| vec![None; frame.height()])
}

/// Bytes to text: UTF-8 with or without a byte-order mark, otherwise Latin-1 (which every byte sequence is).
/// Line ends become `\n`.
pub fn decode_text(bytes: Vec<u8>) -> String {
    let text: String = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => error.into_bytes().iter().map(|&byte| char::from(byte)).collect(),
    };
    let text = match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    };
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_wrong_length_become_rejects() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, b"\xef\xbb\xbfa, b,,\r\n1,x\r\n2\r\n3,\"y,\nz\",,\r\n4,w,,,5\r\n").unwrap();
        let table = Table::read(folder.path(), &path, &["a", "b"]).unwrap();
        assert_eq!(texts(&table.frame, "b").unwrap(), [Some("x"), Some("y,\nz")]);
        let errors: Vec<_> = table.rejects.iter().map(|r| r.error.as_str()).collect();
        assert_eq!(errors, ["line 3: 1 fields, the header has 2", "line 6: 5 fields, the header has 2"]);
        let missing = Table::read(folder.path(), &path, &["c"]).err().unwrap().to_string();
        assert!(missing.contains("no column `c` (there are: a, b)"), "{missing}");
    }

    #[test]
    fn latin_1_is_read() {
        assert_eq!(decode_text(b"caf\xe9\r\n".to_vec()), "café\n");
    }
}
