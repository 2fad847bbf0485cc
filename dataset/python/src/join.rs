//! `mrm.join`.

use std::path::PathBuf;

use ::ingest::cli::JoinArguments;
use ::ingest::join::JoinReport;
use clap::{Args, FromArgMatches};
use dataset::join::{JoinCounts, JoinFacts};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::long_call;
use crate::options;
use crate::table_text;

/// Joins a table to a dataset with the options of the command line. Returns the fields of a ``JoinSummary``.
#[pyfunction]
pub fn join<'py>(
    py: Python<'py>,
    data: PathBuf,
    table: Bound<'py, PyAny>,
    options: Bound<'py, PyDict>,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let mut words = options::words(&options)?;
    let text = table_text::add_table(&table, &mut words)?;
    let command = JoinArguments::augment_args(clap::Command::new("join")).allow_negative_numbers(true);
    let matches = command.try_get_matches_from(options::line(&["join"], words, &[&data]));
    let arguments = matches.and_then(|matches| JoinArguments::from_arg_matches(&matches));
    let arguments = arguments.map_err(|error| options::usage(py, &error))?;
    let chosen = arguments.options(text).map_err(|error| options::usage(py, &error))?;
    let report = long_call::run(py, progress.as_ref(), |progress| Ok(arguments.make(&chosen, progress)?))?;
    summary(py, report)
}

/// The fields of a ``JoinSummary``.
fn summary(py: Python<'_>, report: JoinReport) -> PyResult<Bound<'_, PyDict>> {
    let JoinFacts { kind, names, key, on, counts, .. } = report.facts;
    let JoinCounts { rows, matched, unmatched, filtered, unreadable, duplicates, with, without } = counts;
    let fields = PyDict::new(py);
    fields.set_item("name", report.name)?;
    fields.set_item("kind", kind.name())?;
    fields.set_item("names", names)?;
    fields.set_item("key", key)?;
    fields.set_item("on", on)?;
    fields.set_item("rows", rows)?;
    fields.set_item("matched", matched)?;
    fields.set_item("unmatched", unmatched)?;
    fields.set_item("filtered", filtered)?;
    fields.set_item("unreadable", unreadable)?;
    fields.set_item("duplicates", duplicates)?;
    fields.set_item("records_with", with)?;
    fields.set_item("records_without", without)?;
    fields.set_item("unmatched_keys", report.unmatched)?;
    fields.set_item("unreadable_rows", report.unreadable)?;
    fields.set_item("warnings", report.warnings)?;
    fields.set_item("already_done", report.already_done)?;
    Ok(fields)
}
