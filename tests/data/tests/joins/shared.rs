//! What the tests of joins share.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataset::Dataset;
use helpers::{args, ingest, phantom, write_file};

/// A dataset of some 54 radiographs in the layout of MIMIC-CXR, in a folder `set`.
pub fn mimic(at: &Path) -> PathBuf {
    let (raw, out) = (phantom(at, 40), at.join("set"));
    ingest("mimic-cxr", &raw, &out, &[]);
    out
}

/// The command line of `ingest join` with a table.
pub fn joining(data: impl Into<OsString>, table: &Path, words: &[&str]) -> Vec<OsString> {
    let data: OsString = data.into();
    let mut all = args!["join", data, "--table", table].to_vec();
    all.extend(words.iter().map(Into::into));
    all
}

/// Writes a table of text.
pub fn table(at: &Path, name: &str, header: &str, rows: impl IntoIterator<Item = String>) -> PathBuf {
    let path = at.join(name);
    let lines: Vec<String> = std::iter::once(header.to_owned()).chain(rows).collect();
    write_file(&path, lines.join("\n") + "\n");
    path
}

/// The dataset with joins.
pub fn joined(data: &Path, names: &[&str]) -> Arc<Dataset> {
    Arc::new(Dataset::open(data).expect("a dataset").with_joins(names).expect("joins"))
}

/// The error of opening a dataset with a join.
pub fn refused(data: &Path, name: &str) -> String {
    Dataset::open(data).expect("a dataset").with_joins(&[name]).err().expect("an error").to_string()
}
