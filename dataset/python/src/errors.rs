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
    match error {
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
        E::Split { .. } => raise(py, "SplitError", message),
        E::Export { path: at, .. } => with_details(py, "ExportError", message, &[("path", path(at))]),
        E::State(_) => raise(py, "StateError", message),
        E::Invalid(_) => raise(py, "ArgumentError", message),
        _ => raise(py, "Error", message),
    }
}

/// A result of the crate `dataset` as one of Python.
pub fn told<T>(py: Python<'_>, result: dataset::Result<T>) -> PyResult<T> {
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
