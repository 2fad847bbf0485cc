//! `trainer compare`: two evaluated runs of one kind on the same records.

use std::path::Path;

use anyhow::{Result, bail};

use crate::report::StoredEvaluation;
use crate::task::{Comparison, ComparisonRequest, EvaluationOption, Registry, different_models};
use crate::train::run_dir::{config_path, load_config};

/// Compares two runs by their task. Warns of what else may explain a difference: other ratios, other models.
///
/// # Errors
/// When the runs are of different kinds, or their task cannot compare them.
pub fn compare(registry: &Registry, request: &ComparisonRequest) -> Result<Comparison> {
    let ((first, ratio), (second, other_ratio)) = (facts(request.first, request)?, facts(request.second, request)?);
    let (task, other) = (registry.of_kind(&first)?, registry.of_kind(&second)?);
    if task.kind() != other.kind() {
        bail!(
            "{} is a {} run, {} a {} run: only runs of one kind can be compared, after you run `trainer evaluate --subset {}` \
             on both",
            request.first.display(),
            task.title(),
            request.second.display(),
            other.title(),
            request.subset
        );
    }
    if request.specificity.is_some() && !task.evaluation_options().contains(&EvaluationOption::Specificity) {
        bail!("--specificity is for {} runs", registry.with_option(EvaluationOption::Specificity));
    }
    let mut comparison = task.compare(request)?;
    if let (Some(of_first), Some(of_second)) = (ratio, other_ratio)
        && of_first != of_second
    {
        comparison.warnings.push(format!(
            "{} was trained on {of_first}% of the labels, {} on {of_second}%: a difference may come from the number of labels \
             alone",
            request.first.display(),
            request.second.display()
        ));
    }
    comparison.warnings.extend(different_models(registry, request.first, request.second));
    Ok(comparison)
}

/// The kind of a run and its percentage of the training labels; of a result of a probe, which has no configuration, those of its
/// evaluation.
fn facts(run: &Path, request: &ComparisonRequest) -> Result<(String, Option<f64>)> {
    if let Ok(StoredEvaluation { header, .. }) = StoredEvaluation::read(run, request.subset)
        && !config_path(run).exists()
    {
        return Ok((header.kind, Some(header.ratio)));
    }
    let config = load_config(run)?;
    Ok((config.kind().to_owned(), config.get("ratio").and_then(toml::Value::as_float)))
}
