//! `trainer compare`: two evaluated runs of one kind on the same records.

use std::path::Path;

use anyhow::{Result, bail};

use crate::config::Recipe;
use crate::report::StoredEvaluation;
use crate::task::{Comparison, ComparisonRequest, EvaluationOption, Registry, different_models};
use crate::train::run_dir::{config_path, load_config};

/// What a difference between two runs may come from, beside what is compared.
struct Facts {
    kind: String,
    /// Percentage of the training labels.
    ratio: Option<f64>,
    /// How it was fine-tuned; none of a probe, which has a method.
    recipe: Option<String>,
}

/// Compares two runs by their task. Warns of what else may explain a difference: other ratios, recipes or models.
///
/// # Errors
/// When the runs are of different kinds, or their task cannot compare them.
pub fn compare(registry: &Registry, request: &ComparisonRequest) -> Result<Comparison> {
    let (first, second) = (facts(request.first, request)?, facts(request.second, request)?);
    let (task, other) = (registry.of_kind(&first.kind)?, registry.of_kind(&second.kind)?);
    let (of_first, of_second) = (request.first.display(), request.second.display());
    if task.kind() != other.kind() {
        bail!(
            "{of_first} is a {} run, {of_second} a {} run: only runs of one kind can be compared, after you run `trainer \
             evaluate --subset {}` on both",
            task.title(),
            other.title(),
            request.subset
        );
    }
    if request.specificity.is_some() && !task.evaluation_options().contains(&EvaluationOption::Specificity) {
        bail!("--specificity is for {} runs", registry.with_option(EvaluationOption::Specificity));
    }
    let mut comparison = task.compare(request)?;
    if let (Some(ratio), Some(other_ratio)) = (first.ratio, second.ratio)
        && ratio != other_ratio
    {
        comparison.warnings.push(format!(
            "{of_first} was trained on {ratio}% of the labels, {of_second} on {other_ratio}%: a difference may come from the \
             number of labels alone"
        ));
    }
    if let (Some(recipe), Some(other_recipe)) = (first.recipe, second.recipe)
        && recipe != other_recipe
    {
        comparison.warnings.push(format!(
            "{of_first} was trained by the recipe {recipe}, {of_second} by {other_recipe}: a difference may come from the recipe \
             alone"
        ));
    }
    comparison.warnings.extend(different_models(registry, request.first, request.second));
    Ok(comparison)
}

/// The facts of a run; of a result of a probe, which has no configuration, those of its evaluation.
fn facts(run: &Path, request: &ComparisonRequest) -> Result<Facts> {
    if let Ok(StoredEvaluation { header, .. }) = StoredEvaluation::read(run, request.subset)
        && !config_path(run).exists()
    {
        return Ok(Facts { kind: header.kind, ratio: Some(header.ratio), recipe: None });
    }
    let config = load_config(run)?;
    Ok(Facts {
        kind: config.kind().to_owned(),
        ratio: config.get("ratio").and_then(toml::Value::as_float),
        recipe: Some(config.get("recipe").and_then(toml::Value::as_str).unwrap_or(Recipe::default().name()).to_owned()),
    })
}
