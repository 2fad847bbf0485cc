//! Evaluates a run by its task, after the checks that all tasks have.

use std::path::Path;

use anyhow::{Result, bail};
use dataset::Subset;
use tch::Device;

use super::evaluation::check_split;
use super::{DataSource, Evaluated, EvaluationOption, EvaluationOptions, EvaluationRequest, Registry, Task};
use crate::train::run_dir;

/// Evaluates a run on a subset of a split.
///
/// # Errors
/// When the run cannot be read, was trained on another split of this dataset, or its task cannot evaluate it.
pub fn evaluate(
    registry: &Registry,
    run: &Path,
    source: &DataSource,
    subset: Subset,
    device: Device,
    options: EvaluationOptions,
) -> Result<Evaluated> {
    let (task, config) = registry.open(run)?;
    check_options(registry, task, &options, &format!("{} is a {} run", run.display(), task.title()))?;
    let common = config.common()?;
    let mut warnings: Vec<String> = check_split(&common.provenance, source)?.into_iter().collect();
    warnings.extend(run_dir::unfinished(run, common.steps));
    let request =
        EvaluationRequest { run, config: &config, provenance: common.provenance, source, subset, device, options };
    let mut evaluated = task.evaluate(&request)?;
    warnings.append(&mut evaluated.warnings);
    Ok(Evaluated { warnings, ..evaluated })
}

/// An error unless a task has all options that are given. `given_for` says what they are given for.
///
/// # Errors
/// When an option is for another task.
pub fn check_options(registry: &Registry, task: &dyn Task, options: &EvaluationOptions, given_for: &str) -> Result<()> {
    let given = [
        (EvaluationOption::Specificity, options.specificity.is_some()),
        (EvaluationOption::MinArea, options.min_area.is_some()),
        (EvaluationOption::ZeroShot, options.zero_shot.is_some()),
        (EvaluationOption::Subgroups, !options.subgroups.is_empty()),
    ];
    for (option, _) in given.into_iter().filter(|(_, given)| *given) {
        if !task.evaluation_options().contains(&option) {
            bail!("{} is for {} runs; {given_for}", option.flag(), registry.with_option(option));
        }
    }
    Ok(())
}
