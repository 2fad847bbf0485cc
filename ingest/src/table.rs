//! A source's CSV tables, plain or gzipped, as polars tables of text; rows that do not fit become rejects.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use polars::prelude::{Column, DataFrame, IntoSeries, StringChunkedBuilder};

use crate::bounds::table::{Bounded, RowStart};
use crate::error::{Error, Reject, Result, Stage};

/// Most columns of a table, and most rows that do not fit its header: more make no table.
const MAX_COLUMNS: usize = 4096;
const MAX_BAD_ROWS: usize = 100_000;

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
    /// When the file cannot be read, is beyond the limits of [`bounds`](crate::bounds), lacks one of the `required`
    /// columns, or is no table.
    pub fn read(raw: &Path, path: &Path, required: &[&str]) -> Result<Self> {
        let file = File::open(path).map_err(Error::io(path))?;
        let bytes = file.metadata().map_err(Error::io(path))?.len();
        if path.extension().is_some_and(|extension| extension == "gz") {
            Self::parse(raw, path, required, Bounded::table(MultiGzDecoder::new(file), Some(bytes)))
        } else {
            Self::parse(raw, path, required, Bounded::table(file, None))
        }
    }

    fn parse<R: Read>(raw: &Path, path: &Path, required: &[&str], (text, row): (Bounded<R>, RowStart)) -> Result<Self> {
        let bad = |message: String| Error::Table { path: path.to_path_buf(), message };
        let mut reader = csv::ReaderBuilder::new().flexible(true).has_headers(false).from_reader(text);
        let mut record = csv::ByteRecord::new();
        // Fields are bytes still, so nothing but reading can fail.
        let mut next = |record: &mut csv::ByteRecord| {
            row.next();
            reader.read_byte_record(record).map_err(|error| bad(error.to_string()))
        };
        if !next(&mut record)? {
            return Err(bad("the file is empty".to_owned()));
        }
        if record.len() > MAX_COLUMNS {
            return Err(bad(format!("{} columns: such a table is refused", record.len())));
        }
        let name_of = |field: &[u8]| decode_text(field.to_vec()).trim().to_owned();
        let mut names: Vec<String> = record.iter().map(name_of).collect();
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
        let mut columns: Vec<StringChunkedBuilder> =
            names.iter().map(|name| StringChunkedBuilder::new(name.as_str().into(), 0)).collect();
        let mut rejects = Vec::new();
        let name = path.strip_prefix(raw).unwrap_or(path).to_string_lossy().into_owned();
        let mut height = 0;
        while next(&mut record)? {
            if !(names.len()..=widest).contains(&record.len()) {
                let line = record.position().map_or(0, csv::Position::line);
                let error = format!("line {line}: {} fields, the header has {}", record.len(), names.len());
                rejects.push(Reject { source_path: name.clone(), record_id: None, stage: Stage::Table, error });
                if rejects.len() > MAX_BAD_ROWS {
                    let message =
                        format!("more than {MAX_BAD_ROWS} rows differ from the header in their number of fields");
                    return Err(bad(message));
                }
                continue;
            }
            height += 1;
            for (column, field) in columns.iter_mut().zip(&record) {
                match std::str::from_utf8(field) {
                    Ok(text) if text.trim().is_empty() => column.append_null(),
                    Ok(text) if !text.contains('\r') => column.append_value(text),
                    _ => column.append_value(decode_text(field.to_vec())),
                }
            }
        }
        let columns = columns.into_iter().map(|column| Column::from(column.finish().into_series())).collect();
        let frame = DataFrame::new(height, columns).map_err(|e| bad(e.to_string()))?;
        Ok(Self { name, frame, rejects })
    }
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
