//! What the tests of several sources need.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use dataset::Dataset;
use helpers::{args, ok, rejects};

/// A table as rows of fields by column; for tables without quotes.
pub fn rows(text: &str) -> Vec<HashMap<&str, &str>> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().expect("a header").split(',').collect();
    lines.map(|line| header.iter().copied().zip(line.split(',')).collect()).collect()
}

/// The label codes of a table's row.
pub fn codes(row: &HashMap<&str, &str>, findings: &[String]) -> Vec<Option<i8>> {
    let code = |finding: &String| match row[finding.as_str()] {
        "1.0" => Some(1),
        "0.0" => Some(0),
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
