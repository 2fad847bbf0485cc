//! Tables in JSON lines, plain or gzipped: an object a line, a column for each key.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde_json::{Map, Value};

use super::table::Table;
use super::table_builder::TableBuilder;
use crate::dicom::limits::table::Bounded;
use crate::error::{Error, Result};
use crate::file_system::{failed, retry};

/// Reads a table; its path in rejects is relative to `raw`. Lists and objects in a field become JSON text. A line that is no
/// object becomes a reject; an empty line is ignored.
///
/// # Errors
/// When the file cannot be read, exceeds the [limits](crate::dicom::limits), or lacks one of the `required` columns.
pub fn read(raw: &Path, path: &Path, required: &[&str]) -> Result<Table> {
    let file = retry(|| File::open(path)).map_err(failed(path))?;
    let bytes = file.metadata().map_err(failed(path))?.len();
    let is_packed = path.extension().is_some_and(|extension| extension == "gz");
    let text: Box<dyn Read> = if is_packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let bad = |error: std::io::Error| Error::Table { path: path.to_path_buf(), message: error.to_string() };
    let (text, row) = Bounded::table(text, is_packed.then_some(bytes));
    let mut text = BufReader::new(text);
    let mut table = TableBuilder::new(raw, path, "line");
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        row.next();
        if text.read_until(b'\n', &mut line).map_err(bad)? == 0 {
            break;
        }
        let content = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line).trim_ascii();
        if content.is_empty() {
            continue;
        }
        match serde_json::from_slice::<Map<String, Value>>(content) {
            Ok(fields) => table.row(number, fields.into_iter().map(|(name, value)| (name, field(value))))?,
            Err(error) => table.reject(number, &format!("no JSON object: {error}"))?,
        }
    }
    table.finish(required)
}

/// A value as the text of a field; `None` where there is none.
fn field(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::texts;
    use super::*;

    #[test]
    fn keys_become_columns_and_bad_lines_rejects() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.jsonl");
        let text = "\u{feff}{\"a\": \"x\", \"b\": 1.0}\n\n{\"a\": null, \"c\": true}\r\n[1]\n{\"b\": [\"y\", 2], \"a\": \" \"}";
        std::fs::write(&path, text).unwrap();
        let table = read(folder.path(), &path, &["a"]).unwrap();
        let of = |name: &str| texts(&table.frame, name).unwrap();
        assert_eq!(of("a"), [Some("x"), None, None]);
        assert_eq!(of("b"), [Some("1.0"), None, Some("[\"y\",2]")]);
        assert_eq!(of("c"), [None, Some("true"), None]);
        assert_eq!(table.rejects.len(), 1);
        assert!(table.rejects[0].error.starts_with("line 4: no JSON object: "), "{:?}", table.rejects);
        assert_eq!(table.reject(2, "why").error, "line 5: why");
        let missing = read(folder.path(), &path, &["d"]).err().unwrap().to_string();
        assert!(missing.contains("no column `d` (the table has: a, b, c)"), "{missing}");
        std::fs::write(&path, format!("{{\"a\": \"{}\"}}", "x".repeat(9 << 20))).unwrap();
        assert!(read(folder.path(), &path, &[]).err().unwrap().to_string().contains("a row is longer than"));
    }
}
