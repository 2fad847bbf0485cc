//! Probabilities of a classifier's findings, for records that need neither labels nor a split.

use std::sync::Arc;

use anyhow::{Result, bail};
use arrow_array::{ArrayRef, Float32Array, StringArray};
use dataset::commands::cli::counted;
use dataset::format::csv_table;
use dataset::format::table;
use dataset::store::files;
use tch::nn::VarStore;

use super::{evaluation_transform, predict};
use crate::config::ClassifyConfig;
use crate::model::classifier::VitClassifier;
use crate::task::PredictionRequest;
use crate::weights::load_tensors;
use crate::weights::source::read_weights;

/// Writes `record_id`, `patient_id`, `study_id` and the probability of each finding, a column named after it, of the
/// request's rows; as CSV where the name of `out` ends so, else as Parquet.
///
/// # Errors
/// When no row is given, or the weights do not fit.
pub(super) fn predict_records(request: &PredictionRequest) -> Result<String> {
    let PredictionRequest { source, rows, device, out, .. } = *request;
    let config: ClassifyConfig = request.config.read()?;
    if rows.is_empty() {
        bail!("no record to predict for: this subset is empty");
    }
    files::check_place(out)?;
    let store = VarStore::new(device);
    let model = VitClassifier::new(&store.root(), &config.model)?;
    let report = load_tensors(&store, &read_weights(request.weights)?)?;
    if !report.is_complete() {
        bail!("{}: the weights do not fit the configuration of their run: {report}", request.weights.display());
    }
    let scores = predict(&model, &source.dataset, rows, evaluation_transform(&config), device)?;

    let mut columns: Vec<(&str, ArrayRef, bool)> = Vec::new();
    for name in ["record_id", "patient_id", "study_id"] {
        let values = source.dataset.texts(name)?;
        let of_rows: StringArray = rows.iter().map(|&row| values[row as usize].as_deref()).collect();
        columns.push((name, Arc::new(of_rows), name != "record_id"));
    }
    let classes = config.findings.len();
    for (class, finding) in config.findings.iter().enumerate() {
        let of_class: Float32Array = scores.iter().skip(class).step_by(classes).copied().map(Some).collect();
        columns.push((finding, Arc::new(of_class), false));
    }
    if out.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
        csv_table::write(out, &columns)?;
    } else {
        table::write_table(out, columns)?;
    }
    Ok(format!("{}, probabilities of {}", counted(rows.len(), "record"), counted(classes, "finding")))
}
