//! Evaluates a classifier: AUROC, average precision, calibration, metrics at a threshold, curves and subgroups, with intervals
//! over patients.

use anyhow::{Context, Result, bail};
use dataset::Subset;
use serde::Deserialize;

use super::output::write_tables;
use super::results::ClassificationReport;
use super::scored::{Measures, Scored};
use super::{Classification, TaskLabels, evaluation_transform, predict, run_thresholds};
use crate::config::ClassifyConfig;
use crate::eval::bootstrap::Bootstrap;
use crate::eval::metrics::{SPECIFICITY, Scores};
use crate::task::evaluation::check_specificity;
use crate::task::objective::Objective;
use crate::task::{DataSource, Evaluated, EvaluationRequest, Metric};

/// Evaluates a classifier; writes `evaluation-STEM.json`, and `predictions-STEM`, `metrics-STEM`, `curves-STEM` and
/// `subgroups-STEM` as Parquet and CSV.
pub(super) fn evaluate(request: &EvaluationRequest) -> Result<Evaluated> {
    let EvaluationRequest { source, subset, device, ref options, .. } = *request;
    let specificity = check_specificity(options.specificity.unwrap_or(SPECIFICITY))?;
    let config: ClassifyConfig = request.config.read()?;
    let task = TaskLabels::read(&config, source)?;
    let warnings = request.ratio_warning(config.keys.ratio, &config.findings)?.into_iter().collect();
    let rows = labeled_rows(&task, source, subset)?;
    let transform = evaluation_transform(&config);
    let objective = Classification::new(&config.model, task.labels.clone(), transform.clone(), device)?;
    let weights = request.load_weights(objective.store())?;
    let scored = |rows: Vec<u32>| {
        let scores = predict(objective.model(), &source.dataset, &rows, transform.clone(), device)?;
        Scored::new(source, &task, rows, scores)
    };
    let evaluated = scored(rows)?;
    let thresholds = run_thresholds::of_run(request, &task, &evaluated, scored)?;
    let header = request.header(weights, &evaluated.patients)?;
    let bootstrap = Bootstrap { draws: options.draws, seed: config.run.seed, ..Bootstrap::default() };
    let measures = Measures { bootstrap, specificity, subgroups: &options.subgroups };
    let report = evaluated.report(source, &task, subset, header.clone(), &thresholds, &measures)?;
    write_tables(&request.files(), source, &evaluated, &report)?;
    request.finish(&report, &header, warnings)
}

/// Rows of a subset with a target that counts.
///
/// # Errors
/// When there is none.
pub(crate) fn labeled_rows(task: &TaskLabels, source: &DataSource, subset: Subset) -> Result<Vec<u32>> {
    let rows = task.rows(source, subset, None)?;
    if rows.is_empty() {
        let labeled = |subset| Ok::<_, anyhow::Error>(task.rows(source, subset, None)?.len());
        let [train, validate, test] = [labeled(Subset::Train)?, labeled(Subset::Validate)?, labeled(Subset::Test)?];
        bail!(
            "no labeled record in the {} subset of split `{}` (train {train}, validate {validate}, test {test}); choose \
             --subset, or make a split with --test",
            subset.name(),
            source.split()?.name
        );
    }
    Ok(rows)
}

/// The means over findings.
pub(super) fn metrics(evaluation: &serde_json::Value) -> Result<Vec<Metric>> {
    let report = ClassificationReport::deserialize(evaluation).context("not an evaluation of a classifier")?;
    let Scores { auroc, average_precision, sensitivity, brier, calibration_error } = report.mean;
    let decisions = report.at_threshold.as_ref();
    Ok(vec![
        Metric { key: "auroc", title: "AUROC", value: auroc },
        Metric { key: "average_precision", title: "AUPRC", value: average_precision },
        Metric { key: "sensitivity", title: "sensitivity", value: sensitivity },
        Metric { key: "brier", title: "Brier", value: brier },
        Metric { key: "calibration_error", title: "ECE", value: calibration_error },
        Metric { key: "f1", title: "macro F1", value: decisions.and_then(|decisions| decisions.mean.f1) },
        Metric { key: "micro_f1", title: "micro F1", value: decisions.and_then(|decisions| decisions.micro.f1) },
        Metric { key: "accuracy", title: "accuracy", value: decisions.and_then(|decisions| decisions.mean.accuracy) },
    ])
}
