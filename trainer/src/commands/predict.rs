//! `trainer predict`: probabilities of a classifier's findings, for records that need neither labels nor a split.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use arrow_array::{ArrayRef, Float32Array, StringArray};
use dataset::format::csv_table;
use dataset::format::table;
use dataset::store::files;
use tch::Device;
use tch::nn::VarStore;

use super::DataSource;
use super::finetune::evaluation_transform;
use crate::config::AnyConfig;
use crate::model::classifier::VitClassifier;
use crate::task::predict;
use crate::train::run_dir;
use crate::weights::load_tensors;
use crate::weights::source::read_weights;

/// Writes `record_id`, `patient_id`, `study_id` and the probability of each finding, a column named after it, of some rows
/// in their order; as CSV where the name of `out` ends so, else as Parquet. Returns the number of findings.
///
/// # Errors
/// When the weights are not those of a classifier, or no row is given.
pub fn predict_records(source: &DataSource, rows: &[u32], weights: &Path, device: Device, out: &Path) -> Result<usize> {
    let run = run_dir::run_of(weights)?;
    let config = match AnyConfig::load(&run)? {
        AnyConfig::Finetune(config) => config,
        AnyConfig::Segment(_) => bail!(
            "{} is a segmentation run, and predict writes probabilities of findings; `trainer evaluate` writes the masks that \
             it predicts",
            run.display()
        ),
        AnyConfig::Pretrain(_) => bail!(
            "{0} is a pre-training run, which knows no findings; `trainer finetune --init {0}` trains a classifier",
            run.display()
        ),
    };
    if rows.is_empty() {
        bail!("no record to predict for: this subset is empty");
    }
    files::check_place(out)?;
    super::warn_unfinished(&run, config.optimizer.steps);
    let store = VarStore::new(device);
    let model = VitClassifier::new(&store.root(), &config.model)?;
    let loaded = load_tensors(&store, &read_weights(weights)?)?;
    if !loaded.is_complete() {
        bail!("{}: the weights do not fit the configuration of their run: {loaded}", weights.display());
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
    Ok(classes)
}
