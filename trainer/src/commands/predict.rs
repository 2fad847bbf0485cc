//! `trainer predict`: a run's task predicts for records that need neither labels nor a split.

use std::path::Path;

use anyhow::Result;
use tch::Device;

use crate::task::{DataSource, PredictionRequest, Registry};
use crate::train::run_dir;

/// What a prediction wrote.
#[derive(Debug)]
pub struct Predicted {
    /// What was written, in words.
    pub text: String,
    /// A warning about an unfinished run.
    pub warning: Option<String>,
}

/// Writes the predictions of some weights for some rows.
///
/// # Errors
/// When the weights are in no run, or the run's task cannot predict.
pub fn predict(
    registry: &Registry,
    source: &DataSource,
    rows: &[u32],
    weights: &Path,
    device: Device,
    out: &Path,
) -> Result<Predicted> {
    let run = run_dir::run_of(weights)?;
    let (task, config) = registry.open(&run)?;
    let warning = run_dir::unfinished(&run, config.common()?.steps);
    let request = PredictionRequest { run: &run, config: &config, weights, source, rows, device, out };
    Ok(Predicted { text: task.predict(&request)?, warning })
}
