//! `mrm.split`, `mrm.export` and `mrm.verify`: the commands of the program `dataset` that take long.

use std::path::PathBuf;

use ::dataset::commands::arguments::VerifyArguments;
use ::dataset::commands::export::ExportArguments;
use ::dataset::commands::split::SplitArguments;
use ::dataset::export::{Summary, run as run_export};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors;
use crate::long_call;
use crate::options;
use crate::split::Split;

/// Makes a split and stores it in the dataset.
#[pyfunction]
pub fn split(py: Python<'_>, data: PathBuf, options: Bound<'_, PyDict>) -> PyResult<Split> {
    let arguments: SplitArguments = options::parse(py, "split", &options, &[&data])?;
    long_call::run(py, None, |progress| {
        let dataset = dataset::Dataset::open(&data)?;
        let (split, _) = arguments.run(&dataset, progress)?;
        Ok(Split::load(&dataset, &split.name)?)
    })
}

/// Exports a dataset. Returns the fields of an ``ExportSummary``: records, pieces, those of an earlier run, whether nothing
/// was to do.
#[pyfunction]
pub fn export(
    py: Python<'_>,
    data: PathBuf,
    out: PathBuf,
    options: Bound<'_, PyDict>,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<(usize, usize, usize, bool)> {
    let arguments: ExportArguments = options::parse(py, "export", &options, &[&data, &out])?;
    let options = arguments.options().map_err(|message| errors::raise(py, "ArgumentError", message))?;
    long_call::run(py, progress.as_ref(), |progress| {
        let summary = run_export(&dataset::Dataset::open(&data)?, &out, &options, progress)?;
        let Summary { records, resumed, pieces, already_done } = summary;
        Ok((records, pieces, resumed, already_done))
    })
}

/// The problems of a dataset, a line each.
#[pyfunction]
pub fn verify(
    py: Python<'_>,
    data: PathBuf,
    options: Bound<'_, PyDict>,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<Vec<String>> {
    let arguments: VerifyArguments = options::parse(py, "verify", &options, &[&data])?;
    long_call::run(py, progress.as_ref(), |progress| Ok(arguments.run(progress)?))
}
