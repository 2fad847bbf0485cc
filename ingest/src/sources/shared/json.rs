//! JSON files of a raw directory.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::dicom::limits::MAX_TABLE_BYTES;
use crate::error::{Error, Result};
use crate::file_system::{failed, retry};

/// An entry of a list or a dictionary: one of another form becomes a reject.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Entry<T> {
    /// Of the form that is read.
    Fit(T),
    /// Of another form.
    Other(IgnoredAny),
}

/// Reads a JSON file.
///
/// # Errors
/// When the file cannot be read, is larger than a table may be, or has another form.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let file = retry(|| File::open(path)).map_err(failed(path))?;
    let text = BufReader::with_capacity(1 << 16, file.take(MAX_TABLE_BYTES));
    serde_json::from_reader(text).map_err(|error| {
        if error.is_io() {
            failed(path)(error.into())
        } else {
            Error::Table { path: path.to_path_buf(), message: error.to_string() }
        }
    })
}
