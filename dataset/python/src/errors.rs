//! Rust errors as exceptions of `mrm.errors`, with the same texts.

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// An exception of a class in `mrm.errors`.
pub fn raise(py: Python<'_>, class: &str, message: impl Into<String>) -> PyErr {
    with_details(py, class, message.into(), &[])
}

/// The exception of an error of the crate `dataset`.
pub fn of_dataset(py: Python<'_>, error: &dataset::Error) -> PyErr {
    use dataset::Error as E;
    let message = error.to_string();
    let path = |path: &std::path::Path| path.display().to_string();
    match error.innermost() {
        E::Io { path: at, .. } => with_details(py, "FileError", message, &[("path", path(at))]),
        E::Store { url, .. } => with_details(py, "StoreError", message, &[("path", url.clone())]),
        E::NotADataset { path: at } => with_details(py, "NotADatasetError", message, &[("path", path(at))]),
        E::Version { path: at, .. } => with_details(py, "FormatVersionError", message, &[("path", path(at))]),
        E::Parquet { path: at, .. } | E::Json { path: at, .. } => {
            with_details(py, "DamagedError", message, &[("path", path(at))])
        }
        E::Shard { shard, .. } | E::Row { shard, .. } | E::Damaged { shard, .. } => {
            with_details(py, "DamagedError", message, &[("path", shard.clone())])
        }
        E::UnknownRecord { .. } => raise(py, "UnknownRecordError", message),
        E::Join { .. } => raise(py, "JoinError", message),
        E::Split { .. } | E::SplitExists { .. } => raise(py, "SplitError", message),
        E::Export { path: at, .. } => with_details(py, "ExportError", message, &[("path", path(at))]),
        E::State(_) => raise(py, "StateError", message),
        E::Invalid(_) | E::Tokenizer(_) => raise(py, "ArgumentError", message),
        _ => raise(py, "Error", message),
    }
}

/// The exception of an error of any crate, with the text that the command line prints.
pub fn of_any(py: Python<'_>, error: &anyhow::Error) -> PyErr {
    let message = format!("{error:#}");
    if let Some(error) = error.downcast_ref::<dataset::Error>() {
        of_dataset(py, error)
    } else if let Some(error) = error.downcast_ref::<ingest::Error>() {
        of_ingest(py, error, message)
    } else if let Some(error) = error.downcast_ref::<phantom::Error>() {
        of_phantom(py, error, message)
    } else {
        raise(py, "Error", message)
    }
}

fn of_ingest(py: Python<'_>, error: &ingest::Error, message: String) -> PyErr {
    use ingest::Error as E;
    let (class, path) = match error {
        E::Dataset(error) => return of_dataset(py, error),
        E::Io { path, .. } | E::Unreadable { path, .. } | E::UnreadableReport { path, .. } => ("FileError", path),
        E::MissingTable { folder: path, .. }
        | E::MissingColumn { path, .. }
        | E::Table { path, .. }
        | E::NoDirectory { path, .. }
        | E::Empty { path, .. } => ("RawDataError", path),
        E::UnknownColumn { path, .. } => ("ArgumentError", path),
        E::Output { path, .. } => ("OutputError", path),
        E::Labels { .. } | E::Polars(_) => return raise(py, "RawDataError", message),
        E::Options(_) | E::Tokenizer(_) | E::TaskVariables(_) => return raise(py, "ArgumentError", message),
        _ => return raise(py, "Error", message),
    };
    with_details(py, class, message, &[("path", path.display().to_string())])
}

fn of_phantom(py: Python<'_>, error: &phantom::Error, message: String) -> PyErr {
    use phantom::Error as E;
    let (class, path) = match error {
        E::Foreign { path } | E::Other { path, .. } => ("OutputError", path),
        E::Read { path, .. } | E::Write { path, .. } => ("FileError", path),
        E::Size { .. } => return raise(py, "ArgumentError", message),
        _ => return raise(py, "Error", message),
    };
    with_details(py, class, message, &[("path", path.display().to_string())])
}

/// A result of the crate `dataset` as one of Python.
pub fn or_raise<T>(py: Python<'_>, result: dataset::Result<T>) -> PyResult<T> {
    result.map_err(|error| of_dataset(py, &error))
}

fn with_details(py: Python<'_>, class: &str, message: String, details: &[(&str, String)]) -> PyErr {
    let make = || -> PyResult<PyErr> {
        let class = py.import("mrm.errors")?.getattr(class)?;
        let attributes = PyDict::new(py);
        for (name, value) in details {
            attributes.set_item(name, value)?;
        }
        Ok(PyErr::from_value(class.call((message,), Some(&attributes))?))
    };
    make().unwrap_or_else(|error| error)
}
