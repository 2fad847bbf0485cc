//! `trainer compare`: two evaluated runs of one kind on the same records.

use anyhow::{Result, bail};

use crate::task::{Comparison, ComparisonRequest, EvaluationOption, Registry, different_models};
use crate::train::run_dir::load_config;

/// Compares two runs by their task. Warns of what else may explain a difference: other ratios, other models.
///
/// # Errors
/// When the runs are of different kinds, or their task cannot compare them.
pub fn compare(registry: &Registry, request: &ComparisonRequest) -> Result<Comparison> {
    let (first, second) = (load_config(request.first)?, load_config(request.second)?);
    let task = registry.of_kind(first.kind())?;
    let other = registry.of_kind(second.kind())?;
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
    let ratio = |config: &crate::config::ConfigFile| config.get("ratio").and_then(toml::Value::as_float);
    if let (Some(of_first), Some(of_second)) = (ratio(&first), ratio(&second))
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
