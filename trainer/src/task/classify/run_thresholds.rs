//! The thresholds of a run: those with the highest F1 on the validation subset of the data that it was trained on. They are
//! stored in the run, and serve for evaluations on other datasets, too.

use std::path::Path;

use anyhow::Result;
use dataset::Subset;
use dataset::store::files;
use serde::{Deserialize, Serialize};

use super::TaskLabels;
use super::scored::Scored;
use super::thresholds::Thresholds;
use crate::task::EvaluationRequest;
use crate::weights::source::weights_file;

/// File in a run.
const FILE: &str = "thresholds.json";

/// Thresholds with what they depend on.
#[derive(Serialize, Deserialize)]
struct Stored {
    weights_sha256: String,
    /// The dataset, its joins and its split, and how labels are read.
    data: String,
    #[serde(flatten)]
    thresholds: Thresholds,
}

/// The thresholds of a run for an evaluation of it; or in words, why it has none. `scored` are the records that are evaluated,
/// `predict` gives those of other rows.
///
/// On its own data, they are chosen again unless the run has those of the same weights, split and labels. On another dataset,
/// they are those that the run has.
pub(super) fn of_run(
    request: &EvaluationRequest,
    task: &TaskLabels,
    scored: &Scored,
    predict: impl Fn(Vec<u32>) -> Result<Scored>,
) -> Result<Result<Thresholds, String>> {
    let file = request.run.join(FILE);
    let weights_sha256 = files::sha256(&weights_file(request.run)?)?;
    let stored = read(&file).filter(|stored| stored.weights_sha256 == weights_sha256);
    if !request.is_own_dataset() {
        let missing = "no metrics at a threshold: thresholds are chosen on the validation subset of the data that the run was \
                       trained on; evaluate it there first";
        return Ok(stored.map(|stored| stored.thresholds).ok_or_else(|| missing.to_owned()));
    }
    let provenance = request.source.provenance();
    let data = format!(
        "{:?}, joins {:?}, split {} ({}), labels {:?}",
        provenance.dataset, provenance.joins, provenance.split, provenance.split_members, task.labels
    );
    let thresholds = if let Some(stored) = stored.filter(|stored| stored.data == data) {
        stored.thresholds
    } else {
        let findings = &task.labels.findings;
        let thresholds = if request.subset == Subset::Validate {
            scored.thresholds(findings, Subset::Validate)
        } else {
            let rows = task.rows(request.source, Subset::Validate, None)?;
            let scored = if rows.is_empty() { Scored::empty() } else { predict(rows)? };
            scored.thresholds(findings, Subset::Validate)
        };
        files::write_json(&file, &Stored { weights_sha256, data, thresholds: thresholds.clone() })?;
        thresholds
    };
    if thresholds.values().iter().all(Option::is_none) {
        let why = if thresholds.records == 0 { "has no labeled record" } else { "has no positive record" };
        return Ok(Err(format!("no metrics at a threshold: the validation subset, which chooses thresholds, {why}")));
    }
    Ok(Ok(thresholds))
}

/// The thresholds that a run has; none where the file is missing or of another form.
fn read(file: &Path) -> Option<Stored> {
    files::read_json(file).ok()
}
