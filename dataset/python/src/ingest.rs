//! `mrm.ingest` and `mrm.phantom`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use ::ingest::cli::{Complete, Listener, Notice, Outcome, PhantomArguments, Request};
use ::ingest::run::CheckedFiles;
use anyhow::Result;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::long_call;
use crate::options;
use crate::table_text;

/// Ingests a source with the options of the command line. Returns the fields of an ``IngestSummary``, and a sentence where too
/// many inputs were rejected.
#[pyfunction]
pub fn ingest<'py>(
    py: Python<'py>,
    source: &str,
    raw: PathBuf,
    out: PathBuf,
    table: Option<Bound<'py, PyAny>>,
    options: Bound<'py, PyDict>,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<(Bound<'py, PyDict>, Option<String>)> {
    let mut words = options::words(&options)?;
    let text = table.map_or(Ok(None), |table| table_text::add_table(&table, &mut words))?;
    let request = Request::parse(options::line(&["ingest", source], words, &[&raw, &out]), text);
    let request = request.map_err(|error| options::usage(py, &error))?;
    let warnings = Mutex::new(Vec::new());
    let notice = |notice| {
        if let Notice::Warning(line) = notice {
            warnings.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    };
    let outcome =
        long_call::run(py, progress.as_ref(), |progress| Ok(request.run(Listener { notice: &notice, progress })?))?;
    summary(py, outcome, warnings.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The fields of an ``IngestSummary``.
fn summary(
    py: Python<'_>,
    outcome: Outcome,
    mut warnings: Vec<String>,
) -> PyResult<(Bound<'_, PyDict>, Option<String>)> {
    let fields = PyDict::new(py);
    let mut too_many = None;
    match outcome {
        Outcome::Complete(complete) => {
            let Complete { summary, reasons, too_many_rejects } = complete;
            let manifest = &summary.manifest;
            fields.set_item("records", manifest.totals.records)?;
            fields.set_item("studies", manifest.totals.studies)?;
            fields.set_item("patients", manifest.totals.patients)?;
            fields.set_item("reports", manifest.totals.reports)?;
            fields.set_item("shards", manifest.shards.len())?;
            fields.set_item("bytes", manifest.totals.bytes)?;
            fields.set_item("mean", manifest.image.mean)?;
            fields.set_item("std", manifest.image.std)?;
            fields.set_item("vocabulary", manifest.text.vocabulary)?;
            fields.set_item("rejects", manifest.rejects.clone())?;
            fields.set_item("unreadable", summary.refused)?;
            fields.set_item("unknown_views", summary.unknown_views)?;
            fields.set_item("constant_images", summary.guards.constant.count)?;
            fields.set_item("burned_in", summary.guards.burned_in.count)?;
            fields.set_item("contradicted_views", summary.guards.views.count)?;
            let checked = summary.checked.map(|CheckedFiles { matched, damaged, missing, unlisted }| {
                BTreeMap::from([
                    ("matched", matched),
                    ("damaged", damaged),
                    ("missing", missing),
                    ("unlisted", unlisted),
                ])
            });
            fields.set_item("checksums", checked)?;
            fields.set_item("resumed_shards", summary.resumed_shards)?;
            fields.set_item("already_done", summary.already_done)?;
            warnings.extend(summary.guards.warnings());
            warnings.extend(reasons);
            too_many = too_many_rejects;
        }
        Outcome::Task(_, task) => {
            fields.set_item("shards", task.shards)?;
            fields.set_item("resumed_shards", task.resumed_shards)?;
            fields.set_item("missing_shards", task.missing)?;
        }
        // The parser refuses the options of these.
        Outcome::Preview(_) | Outcome::Differences(_) => {}
    }
    fields.set_item("warnings", warnings)?;
    Ok((fields, too_many))
}

/// Writes a synthetic raw directory. Returns the numbers of its images, studies and patients.
#[pyfunction]
pub fn phantom(
    py: Python<'_>,
    layout: PathBuf,
    out: PathBuf,
    options: Bound<'_, PyDict>,
    progress: Option<Bound<'_, PyAny>>,
) -> PyResult<(usize, usize, usize)> {
    let arguments: PhantomArguments = options::parse(py, "phantom", &options, &[&layout, &out])?;
    long_call::run(py, progress.as_ref(), |progress| {
        let summary: Result<_> = arguments.write(progress).map_err(Into::into);
        summary.map(|summary| (summary.images, summary.studies, summary.patients))
    })
}
