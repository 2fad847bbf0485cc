//! Reads a source's tables (separated by commas, semicolons or tabs, plain or gzipped) as polars tables of text. Rows with
//! another number of fields than the header become rejects.

use std::fmt::Display;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use polars::prelude::{Column, DataFrame, DataType, IntoSeries, StringChunkedBuilder};

use crate::dicom::limits::table::{Bounded, RowStart};
use crate::error::{Error, Result};
use crate::file_system::{self, failed, retry};
use crate::reject::{Reject, Stage};

/// What the rows of a text are numbered by.
const LINE: &str = "line";

/// Most columns of a table; a file with more is not read as a table.
pub(super) const MAX_COLUMNS: usize = 4096;
/// Most rows with another number of fields than the header; a file with more is not read as a table.
pub(super) const MAX_BAD_ROWS: usize = 100_000;

/// A table with all columns as text and empty fields as null.
pub struct Table {
    /// Its path relative to the raw directory.
    pub(crate) name: String,
    /// The rows that have as many fields as the header.
    pub frame: DataFrame,
    /// The line of the file on which each row begins, or the number of the row.
    pub(super) lines: Vec<u32>,
    /// What [`lines`](Self::lines) counts.
    pub(super) unit: &'static str,
    /// The rows with another number of fields than the header.
    pub(crate) rejects: Vec<Reject>,
    /// The columns that have bytes in the file, such as images; their texts are the paths beside the bytes, if there are any.
    pub(crate) byte_columns: Vec<String>,
    /// First row and name of each table that was appended.
    pub(super) appended: Vec<(usize, String)>,
}

impl Table {
    /// Reads a table; its path in rejects is relative to `raw`.
    ///
    /// The names of the header are trimmed. Rows need no fields for trailing header cells without a name, as in NIH's box list.
    ///
    /// # Errors
    /// When the file cannot be read, exceeds the [limits](crate::dicom::limits), lacks one of the `required` columns, or is no
    /// table.
    pub fn read(raw: &Path, path: &Path, required: &[&str]) -> Result<Self> {
        Self::open(raw, path, required, None)
    }

    /// Reads the `required` columns of a table, and those of the `optional` ones that it has. The others take no memory.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn read_some(raw: &Path, path: &Path, required: &[&str], optional: &[&str]) -> Result<Self> {
        Self::open(raw, path, required, Some(optional))
    }

    /// Without `optional`, all columns are kept.
    fn open(raw: &Path, path: &Path, required: &[&str], optional: Option<&[&str]>) -> Result<Self> {
        let kept = optional.map(|optional| [required, optional].concat());
        let (text, gzipped) = file_text(path)?;
        Rows::decode(raw, path, (required, kept.as_deref()), Bounded::table(text, gzipped))?.whole()
    }

    /// Reads a table from its text.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn of_text(name: &Path, text: &[u8]) -> Result<Self> {
        Rows::decode(Path::new(""), name, (&[], None), Bounded::table(text, None))?.whole()
    }

    /// The reject of a row, counted from 0.
    pub(crate) fn reject(&self, row: usize, error: impl Display) -> Reject {
        let error = format!("{} {}: {error}", self.unit, self.lines[row]);
        Reject { source_path: self.name_of(row).to_owned(), record_id: None, stage: Stage::Table, error }
    }

    /// Table and line of a row, counted from 0, for an error message.
    pub(crate) fn place(&self, row: usize) -> String {
        format!("{}, {} {}", self.name_of(row), self.unit, self.lines[row])
    }

    /// The name of the table that has a row.
    pub(crate) fn name_of(&self, row: usize) -> &str {
        let at = self.appended.partition_point(|(first, _)| *first <= row);
        at.checked_sub(1).map_or(&self.name, |at| &self.appended[at].1)
    }

    /// The names of the table and of those that were appended.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.appended.iter().map(|(_, name)| name.as_str()))
    }

    /// The number of a row, counted from 0, in its own file, counted from 0, too.
    pub(crate) fn row_in_file(&self, row: usize) -> u64 {
        u64::from(self.lines[row]).saturating_sub(1)
    }

    /// The number of rows of the file that has a row.
    pub(crate) fn rows_of_file(&self, row: usize) -> usize {
        let at = self.appended.partition_point(|(first, _)| *first <= row);
        let first = at.checked_sub(1).map_or(0, |at| self.appended[at].0);
        self.appended.get(at).map_or(self.frame.height(), |(next, _)| *next) - first
    }

    /// Adds the rows of another table. A column that only one of them has is null in the rows of the other.
    ///
    /// # Errors
    /// When a column has bytes in one of them and texts in the other.
    pub(crate) fn append(&mut self, mut other: Self) -> Result<()> {
        let names = |table: &Self| -> Vec<String> {
            table.frame.get_column_names().into_iter().map(ToString::to_string).collect()
        };
        let (own, others) = (names(self), names(&other));
        let both = |name: &&String| own.contains(name) && others.contains(name);
        let differing =
            own.iter().filter(both).find(|name| self.byte_columns.contains(name) != other.byte_columns.contains(name));
        if let Some(column) = differing {
            let message = format!("the column `{column}` has bytes in one of {} and {}", self.name, other.name);
            return Err(Error::Table { path: PathBuf::from(&other.name), message });
        }
        let added: Vec<String> = others.iter().filter(|name| !own.contains(name)).cloned().collect();
        let all: Vec<String> = own.into_iter().chain(added).collect();
        self.appended.push((self.frame.height(), std::mem::take(&mut other.name)));
        for table in [&mut *self, &mut other] {
            let height = table.frame.height();
            let column = |name: &String| {
                let found = table.frame.column(name).cloned();
                found.unwrap_or_else(|_| Column::full_null(name.as_str().into(), height, &DataType::String))
            };
            table.frame = DataFrame::new(height, all.iter().map(column).collect())?;
        }
        self.frame.vstack_mut_owned(other.frame)?;
        self.lines.append(&mut other.lines);
        self.rejects.append(&mut other.rejects);
        other.byte_columns.retain(|name| !self.byte_columns.contains(name));
        self.byte_columns.append(&mut other.byte_columns);
        Ok(())
    }
}

/// The text of a table, inflated where it is gzipped, and the size of the gzipped file.
fn file_text(path: &Path) -> Result<(Box<dyn Read>, Option<u64>)> {
    let file = retry(|| File::open(path)).map_err(failed(path))?;
    let bytes = file.metadata().map_err(failed(path))?.len();
    Ok(if path.extension().is_some_and(|extension| extension == "gz") {
        (Box::new(MultiGzDecoder::new(file)), Some(bytes))
    } else {
        (Box::new(file), None)
    })
}

/// The rows of a table of text, read one after the other.
pub struct Rows<'t> {
    name: String,
    path: PathBuf,
    reader: csv::Reader<Box<dyn Read + 't>>,
    row: RowStart,
    /// Names of the header, and whether each column is kept.
    columns: Vec<(String, bool)>,
    /// Fields of the header with trailing ones that have no name.
    widest: usize,
    /// Whether lines end with `\r\n`.
    crlf: bool,
    /// Rows with another number of fields than the header so far.
    broken: usize,
    has_ended: bool,
}

impl<'t> Rows<'t> {
    /// Begins to read a table that may be larger than memory, of which the columns `kept` are kept.
    ///
    /// # Errors
    /// As [`Table::read`].
    pub(crate) fn of_file(raw: &Path, path: &Path, required: &[&str], kept: &[&str]) -> Result<Self> {
        let (text, gzipped) = file_text(path)?;
        Self::decode(raw, path, (required, Some(kept)), Bounded::blocks(text, gzipped))
    }

    /// `columns` are the required ones and those that are kept (`None`: all).
    fn decode<R: Read + 't>(
        raw: &Path,
        path: &Path,
        columns: (&[&str], Option<&[&str]>),
        (text, row): (Bounded<R>, RowStart),
    ) -> Result<Self> {
        let bad = |error: std::io::Error| Error::Table { path: path.to_path_buf(), message: error.to_string() };
        let mut text = BufReader::new(text);
        let start = text.fill_buf().map_err(bad)?;
        let line_end = start.iter().position(|&byte| byte == b'\n');
        let crlf = line_end.is_some_and(|end| end > 0 && start[end - 1] == b'\r');
        if !(start.starts_with(&[0xFF, 0xFE]) || start.starts_with(&[0xFE, 0xFF])) {
            let delimiter = delimiter(path, start);
            return Self::begin(raw, path, columns, Box::new(text), row, (crlf, delimiter));
        }
        // The csv reader needs single-byte separators, so a UTF-16 table is decoded as a whole.
        let mut whole = Vec::new();
        loop {
            row.next();
            let some = text.fill_buf().map_err(bad)?;
            if some.is_empty() {
                break;
            }
            whole.extend_from_slice(some);
            let taken = some.len();
            text.consume(taken);
        }
        let whole = decode_text(whole);
        let delimiter = delimiter(path, whole.as_bytes());
        Self::begin(raw, path, columns, Box::new(std::io::Cursor::new(whole)), row, (false, delimiter))
    }

    /// Reads the header. `form`: whether lines end with `\r\n`, and the byte between fields.
    fn begin(
        raw: &Path,
        path: &Path,
        (required, kept): (&[&str], Option<&[&str]>),
        text: Box<dyn Read + 't>,
        row: RowStart,
        form: (bool, u8),
    ) -> Result<Self> {
        let (crlf, delimiter) = form;
        let reader = csv::ReaderBuilder::new().delimiter(delimiter).flexible(true).has_headers(false).from_reader(text);
        let name = path.strip_prefix(raw).unwrap_or(path).to_string_lossy().into_owned();
        let (path, columns) = (path.to_path_buf(), Vec::new());
        let mut rows = Self { name, path, reader, row, columns, widest: 0, crlf, broken: 0, has_ended: false };
        let mut record = csv::ByteRecord::new();
        if !rows.next(&mut record)? {
            return Err(rows.bad("the file is empty".to_owned()));
        }
        if record.len() > MAX_COLUMNS {
            return Err(rows.bad(format!("{} columns, at most {MAX_COLUMNS} are allowed in a table", record.len())));
        }
        let name_of = |field: &[u8]| decode_text(field.to_vec()).trim().to_owned();
        let mut names: Vec<String> = record.iter().map(name_of).collect();
        rows.widest = names.len();
        while names.last().is_some_and(String::is_empty) {
            names.pop();
        }
        if let Some(column) = required.iter().find(|column| !names.iter().any(|name| name == *column)) {
            let found = names.join(", ");
            return Err(Error::MissingColumn { path: rows.path, column: (*column).to_owned(), found });
        }
        let is_kept = |name: &str| kept.is_none_or(|kept| kept.contains(&name));
        rows.columns = names.into_iter().map(|name| (name.clone(), is_kept(&name))).collect();
        Ok(rows)
    }

    fn bad(&self, message: String) -> Error {
        Error::Table { path: self.path.clone(), message }
    }

    /// Reads the next row; false at the end. The fields are bytes at this point, so only reading can fail.
    fn next(&mut self, record: &mut csv::ByteRecord) -> Result<bool> {
        self.row.next();
        self.reader.read_byte_record(record).map_err(|error| self.bad(error.to_string()))
    }

    /// All rows.
    fn whole(mut self) -> Result<Table> {
        self.block(usize::MAX, usize::MAX).map(|(table, _)| table)
    }

    /// The next rows, at most so many, until their text has so many bytes, and whether there may be more.
    ///
    /// # Errors
    /// When the file cannot be read, exceeds the [limits](crate::dicom::limits), or is no table.
    pub(crate) fn block(&mut self, most_rows: usize, most_bytes: usize) -> Result<(Table, bool)> {
        let builder =
            |(name, is_kept): &(String, bool)| is_kept.then(|| StringChunkedBuilder::new(name.as_str().into(), 0));
        let mut columns: Vec<Option<StringChunkedBuilder>> = self.columns.iter().map(builder).collect();
        let (mut rejects, mut lines, mut bytes) = (Vec::new(), Vec::new(), 0usize);
        let mut record = csv::ByteRecord::new();
        while !self.has_ended && bytes < most_bytes && lines.len() < most_rows {
            if !self.next(&mut record)? {
                self.has_ended = true;
                break;
            }
            // After `\r\n`, the reader reports the position of the `\n`.
            let line = record.position().map_or(0, csv::Position::line) + u64::from(self.crlf);
            if !(columns.len()..=self.widest).contains(&record.len()) {
                let error = format!("line {line}: {} fields, the header has {}", record.len(), columns.len());
                rejects.push(Reject { source_path: self.name.clone(), record_id: None, stage: Stage::Table, error });
                self.broken += 1;
                if self.broken > MAX_BAD_ROWS {
                    let message =
                        format!("more than {MAX_BAD_ROWS} rows differ from the header in their number of fields");
                    return Err(self.bad(message));
                }
                continue;
            }
            lines.push(u32::try_from(line).unwrap_or(u32::MAX));
            for (column, field) in columns.iter_mut().zip(&record) {
                let Some(column) = column else { continue };
                bytes = bytes.saturating_add(field.len());
                match std::str::from_utf8(field) {
                    Ok(text) if text.trim().is_empty() => column.append_null(),
                    Ok(text) if !text.contains('\r') => column.append_value(text),
                    _ => column.append_value(decode_text(field.to_vec())),
                }
            }
        }
        let columns = columns.into_iter().flatten().map(|column| Column::from(column.finish().into_series())).collect();
        let frame = DataFrame::new(lines.len(), columns).map_err(|e| self.bad(e.to_string()))?;
        let name = self.name.clone();
        let table = Table { name, frame, lines, unit: LINE, rejects, byte_columns: Vec::new(), appended: Vec::new() };
        Ok((table, !self.has_ended))
    }
}

/// The byte between fields: tab in a `.tsv` file, else the most frequent of comma, semicolon and tab outside of quotes in the
/// first line; the comma at a tie.
fn delimiter(path: &Path, start: &[u8]) -> u8 {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    if name.strip_suffix(".gz").unwrap_or(&name).ends_with(".tsv") {
        return b'\t';
    }
    let (mut counts, mut quoted) = ([(b'\t', 0), (b';', 0), (b',', 0)], false);
    for &byte in start {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => break,
            _ if !quoted => counts.iter_mut().filter(|(known, _)| *known == byte).for_each(|(_, count)| *count += 1),
            _ => {}
        }
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map_or(b',', |(byte, _)| byte)
}

/// The tables (`.csv`, `.csv.gz`) in a folder whose name without this ending `fits`, sorted by path.
///
/// # Errors
/// When the folder cannot be listed, or such a table is a link whose target is missing.
pub(crate) fn tables(folder: &Path, fits: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in file_system::entries(folder)? {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let name = name.strip_suffix(".gz").unwrap_or(&name).strip_suffix(".csv");
        if name.is_some_and(&fits) && file_system::is_file(&entry.path())? {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The table `NAME.csv` or `NAME.csv.gz` in a folder, or in its folder `NAME.csv` or `NAME`, into which archives are unpacked.
///
/// # Errors
/// When the system refuses to say whether it exists, or it is a link whose target is missing.
pub(crate) fn find_table(folder: &Path, name: &str) -> Result<Option<PathBuf>> {
    let inner = [folder.to_path_buf(), folder.join(format!("{name}.csv")), folder.join(name)];
    for path in inner.iter().flat_map(|at| ["csv", "csv.gz"].map(|ending| at.join(format!("{name}.{ending}")))) {
        if file_system::is_file(&path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// The values of a text column, trimmed.
///
/// # Errors
/// When the table has no such column.
pub fn texts<'a>(frame: &'a DataFrame, name: &str) -> Result<Vec<Option<&'a str>>> {
    Ok(frame.column(name)?.str()?.iter().map(|value| value.map(str::trim)).collect())
}

/// The values of a text column; all null where the table has no such column.
pub(crate) fn texts_or_null<'a>(frame: &'a DataFrame, name: &str) -> Vec<Option<&'a str>> {
    texts(frame, name).unwrap_or_else(|_| vec![None; frame.height()])
}

/// The characters of Windows-1252 for 0x80 to 0x9f, where Latin-1 has control characters; five of these are undefined.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', //
    '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// Decodes bytes to text: UTF-16 if they begin with its byte-order mark, else UTF-8 if they are valid UTF-8, else
/// Windows-1252. Line ends become `\n`.
pub fn decode_text(mut bytes: Vec<u8>) -> String {
    let text = match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => utf_16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf_16(rest, u16::from_be_bytes),
        _ => {
            if bytes.starts_with(b"\xef\xbb\xbf") {
                bytes.drain(..3);
            }
            String::from_utf8(bytes).unwrap_or_else(|error| {
                let character = |&byte: &u8| match byte {
                    0x80..=0x9f => WINDOWS_1252[usize::from(byte - 0x80)],
                    _ => char::from(byte),
                };
                error.as_bytes().iter().map(character).collect()
            })
        }
    };
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text }
}

/// Decodes UTF-16 without its mark; invalid units and an odd byte at the end become U+FFFD.
fn utf_16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> String {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut text = String::from_utf16_lossy(&pairs.iter().map(|&pair| unit(pair)).collect::<Vec<_>>());
    text.extend((!rest.is_empty()).then_some(char::REPLACEMENT_CHARACTER));
    text
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
        assert_eq!(table.reject(1, "why").error, "line 4: why", "rejected rows are counted");
        let missing = Table::read(folder.path(), &path, &["c"]).err().unwrap().to_string();
        assert!(missing.contains("no column `c` (the table has: a, b)"), "{missing}");
    }

    #[test]
    fn a_table_is_read_in_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, "a,b,c\n1,x,\n2,y\n3,zzzz,\n4,w,\n5,v,\n").unwrap();
        let blocks = |most_rows, most_bytes| {
            let mut rows = Rows::of_file(folder.path(), &path, &["a", "c"], &["b"]).unwrap();
            let mut found = Vec::new();
            loop {
                let (table, more) = rows.block(most_rows, most_bytes).unwrap();
                let values: Vec<String> =
                    texts(&table.frame, "b").unwrap().into_iter().flatten().map(str::to_owned).collect();
                let places: Vec<String> = (0..values.len()).map(|row| table.place(row)).collect();
                assert!(texts(&table.frame, "a").is_err(), "it takes no memory");
                found.push((values, places, table.rejects.len()));
                if !more {
                    return found;
                }
            }
        };
        let lengths = |found: &[(Vec<String>, Vec<String>, usize)]| -> Vec<usize> {
            found.iter().map(|(values, ..)| values.len()).collect()
        };
        let places = |found: &[(Vec<String>, Vec<String>, usize)]| -> Vec<String> {
            found.iter().flat_map(|(_, places, _)| places.clone()).collect()
        };
        let whole = blocks(usize::MAX, usize::MAX);
        assert_eq!(lengths(&whole), [4]);
        assert_eq!(places(&blocks(1, usize::MAX)), places(&whole));
        assert_eq!(places(&whole)[1], "t.csv, line 4");
        assert_eq!(lengths(&blocks(usize::MAX, 5)), [2, 2], "x and zzzz, w and v");
        assert_eq!(blocks(2, 99).iter().map(|(.., rejects)| rejects).sum::<usize>(), 1);
        assert!(Rows::of_file(folder.path(), &path, &["d"], &[]).is_err());
    }

    #[test]
    fn the_separator_is_found_in_the_header() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let table = Table::read(folder.path(), &path, &["a", "b"]).unwrap();
            let b = texts(&table.frame, "b").unwrap();
            b.into_iter().map(|value| value.map(str::to_owned)).collect::<Vec<_>>()
        };
        let expected = [Some("x, y".to_owned())];
        assert_eq!(of("t.csv", "\"a\";b;\"c, d, e, f\"\n1;x, y;z\n"), expected);
        assert_eq!(of("t.csv", "a\tb\n1\tx, y\n"), expected);
        assert_eq!(of("t.tsv", "a\tb\t,,,\n1\tx, y\tz\n"), expected);
        assert_eq!(of("t.csv", "a,b,c;d\n1,\"x, y\",z\n"), expected);
        let text: Vec<u8> = "\u{feff}a;b\r\n1;x, y\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let path = folder.path().join("u.csv");
        std::fs::write(&path, text).unwrap();
        assert!(Table::read(folder.path(), &path, &["a", "b"]).is_ok());
        assert_eq!(delimiter(Path::new("t.csv"), b"a\n;;;"), b',');
    }

    #[test]
    fn a_table_in_utf_16_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        let text: Vec<u8> = "\u{feff}a,b\r\n1,é\r\n".encode_utf16().flat_map(u16::to_be_bytes).collect();
        std::fs::write(&path, text).unwrap();
        let table = Table::read(folder.path(), &path, &["a", "b"]).unwrap();
        assert_eq!(texts(&table.frame, "b").unwrap(), [Some("é")]);
    }

    #[test]
    fn utf_8_utf_16_and_windows_1252_are_decoded() {
        let cases: [(&[u8], &str); 8] = [
            (b"caf\xe9\r\n", "café\n"),
            (b"5\x969 cm \x93mass\x94\r", "5–9 cm “mass”\n"),
            (b"\x81\x9d", "\u{81}\u{9d}"),
            (b"\xef\xbb\xbfcaf\xc3\xa9", "café"),
            (b"\xef\xbb\xbfcaf\xe9", "café"),
            (b"\xff\xfeA\0\r\0\n\0\x19\x20", "A\n’"),
            (b"\xfe\xff\0A\x20\x19\0", "A’\u{fffd}"),
            (b"\xff\xfe\x00\xd8", "\u{fffd}"),
        ];
        for (bytes, text) in cases {
            assert_eq!(decode_text(bytes.to_vec()), text);
        }
    }
}
