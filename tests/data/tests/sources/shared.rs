//! What the tests of several sources need.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use dataset::Dataset;
use dataset::format::image_codec::{self, GrayPixels};
use dataset::format::record::Record;
use helpers::{args, ok, read_text, rejects};
use ingest::sources::shared::table::{Table, texts};

/// A table as rows of fields by column; for tables without quotes.
pub fn rows(text: &str) -> Vec<HashMap<&str, &str>> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().expect("a header").split(',').collect();
    lines.map(|line| header.iter().copied().zip(line.split(',')).collect()).collect()
}

/// The label codes of a table's row.
pub fn codes(row: &HashMap<&str, &str>, findings: &[String]) -> Vec<Option<i8>> {
    let code = |finding: &String| match row[finding.as_str()] {
        "1.0" | "1" => Some(1),
        "0.0" | "0" => Some(0),
        "-1.0" => Some(-1),
        "" => None,
        other => panic!("{other}"),
    };
    findings.iter().map(code).collect()
}

/// Header and rows of a CSV table.
pub fn table(path: &Path) -> (Vec<String>, Vec<Vec<String>>) {
    let text = fs::read_to_string(path).expect("a table");
    let mut rows = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    (rows.next().expect("a header"), rows.collect())
}

/// The rows of a table with quotes, as fields by column.
pub fn quoted_rows(path: &Path) -> Vec<BTreeMap<String, Option<String>>> {
    let folder = path.parent().expect("a folder");
    let table = Table::read(folder, path, &[]).expect("a table").frame;
    let names: Vec<String> = table.get_column_names_owned().into_iter().map(|name| name.to_string()).collect();
    let columns: Vec<_> = names.iter().map(|name| texts(&table, name).expect("a column")).collect();
    let row = |at: usize| {
        let fields = names.iter().cloned().zip(&columns);
        fields.map(|(name, column)| (name, column[at].map(str::to_owned))).collect()
    };
    (0..table.height()).map(row).collect()
}

/// The first line of a table, plain or gzipped.
pub fn header(path: &Path) -> String {
    read_text(path).lines().next().expect("a header").to_owned()
}

/// The decoded mask of a record by its name: width, height, marked pixels.
pub fn mask(record: &Record, name: &str) -> Option<GrayPixels> {
    let found = record.masks.iter().find(|mask| mask.name == name)?;
    assert_eq!((found.png[24], found.png[25]), (1, 0), "one bit of gray");
    let mask = image_codec::decode(&found.png).expect("a PNG");
    assert_eq!((mask.width, mask.height), (record.width.into(), record.height.into()));
    Some(mask)
}

/// The share of the marked pixels of a mask.
pub fn share(mask: &GrayPixels) -> f64 {
    mask.pixels.iter().filter(|pixel| **pixel > 0).count() as f64 / mask.pixels.len() as f64
}

/// Checks a dataset with `dataset verify`.
pub fn verifies(out: &Path) {
    let printed = ok("dataset", args!["verify", out]);
    assert!(printed.contains("all whole"), "{printed}");
}

/// Appends lines to a file.
pub fn append(path: &Path, lines: &str) {
    let text = fs::read_to_string(path).expect("a file");
    fs::write(path, text + lines).expect("written");
}

/// Asserts that exactly one reject of a path has this stage and these words.
pub fn says(out: &Path, path: &str, stage: &str, words: &str) {
    let found: Vec<_> = rejects(out).into_iter().filter(|reject| reject.source_path == path).collect();
    let fits = found.iter().filter(|reject| reject.stage == stage && reject.error.contains(words)).count();
    assert_eq!(fits, 1, "{path}, {stage}, {words}: {found:?}");
}

pub fn no_images(source: &str, raw: &Path, out: &Path, more: &[&str]) -> Dataset {
    let mut arguments = args![source, raw, out, "--no-images", "--tokenizer", "none"].to_vec();
    arguments.extend(more.iter().map(Into::into));
    ok("ingest", arguments);
    Dataset::open(out).expect("a dataset")
}
