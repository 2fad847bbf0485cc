//! Reads a table of any kind, by the ending of its name.

use std::path::Path;

use super::table::Table;
use super::{json_lines, parquet_table};
use crate::error::Result;

/// Endings of the names of tables.
pub const ENDINGS: [&str; 8] = ["parquet", "pq", "csv", "tsv", "jsonl", "ndjson", "json", "gz"];

/// Reads `.parquet` and `.pq` as Parquet, `.jsonl`, `.ndjson` and `.json` as JSON lines, anything else as text of separated
/// fields; each but Parquet may be gzipped (`.gz`).
///
/// # Errors
/// When the file cannot be read, or is no such table.
pub fn read(raw: &Path, path: &Path) -> Result<Table> {
    match ending(path).as_str() {
        "parquet" | "pq" => parquet_table::read(raw, path, &[]),
        "jsonl" | "ndjson" | "json" => json_lines::read(raw, path, &[]),
        _ => Table::read(raw, path, &[]),
    }
}

/// Whether a table is text of separated fields.
pub fn is_separated(path: &Path) -> bool {
    !["parquet", "pq", "jsonl", "ndjson", "json"].contains(&ending(path).as_str())
}

/// The ending of a table's name without that of gzip.
fn ending(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    name.rsplit_once('.').map_or(String::new(), |(_, ending)| ending.to_owned())
}
