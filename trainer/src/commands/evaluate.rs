//! `trainer evaluate`: metrics of a fine-tuned run, with intervals.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use arrow_array::{ArrayRef, Float32Array, Int8Array, StringArray};
use dataset::{Dataset, Subset, files, table};
use serde::{Deserialize, Serialize};
use tch::Device;

use super::DataSource;
use super::finetune::{evaluation_transform, labels, task_rows};
use crate::bootstrap::{Bootstrap, Interval};
use crate::config::FinetuneConfig;
use crate::objective::Objective;
use crate::objectives::{Classification, Labels, predict};
use crate::rundir;

/// Scores of one finding, none where it has a single class.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FindingScores {
    pub finding: String,
    pub positives: usize,
    pub negatives: usize,
    pub auroc: Option<Interval>,
    pub average_precision: Option<Interval>,
}

/// What `evaluate` found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EvaluationReport {
    pub split: String,
    pub subset: String,
    pub ratio: f64,
    pub init: String,
    pub records: usize,
    pub patients: usize,
    pub findings: Vec<FindingScores>,
    pub mean_auroc: Option<Interval>,
    pub mean_average_precision: Option<Interval>,
}

/// Evaluates a fine-tuning run on a subset; writes `evaluation-SUBSET.json` and `predictions-SUBSET.parquet`.
pub fn evaluate(
    run: &Path,
    source: &DataSource,
    subset: Subset,
    device: Device,
    draws: usize,
) -> Result<EvaluationReport> {
    let config: FinetuneConfig = rundir::load_config(run)?;
    let (dataset, split) = (&source.dataset, source.split()?);
    let labels = labels(&config, dataset)?;
    let rows = task_rows(&config, source, subset, None)?;
    if rows.is_empty() {
        bail!("no labelled record in the {} subset", subset.name());
    }
    let transform = evaluation_transform(&config);
    let objective = Classification::new(&config.model, labels.clone(), dataset, Vec::new(), transform, device)?;
    let loaded = rundir::load(objective.store(), &rundir::weights(run)?)?;
    if !loaded.is_complete() {
        bail!("the weights do not fit the run's configuration: {loaded}");
    }
    let scores = predict(objective.model(), dataset, &rows, transform, device)?;

    let codes = dataset.labels()?;
    let targets: Vec<Option<bool>> = rows.iter().flat_map(|&row| labels.targets(&codes[row as usize])).collect();
    let names = dataset.texts("patient_id")?;
    let mut number: HashMap<&str, u32> = HashMap::new();
    let patients: Vec<u32> = rows
        .iter()
        .map(|&row| {
            let next = number.len() as u32;
            *number.entry(names[row as usize].as_deref().unwrap_or_default()).or_insert(next)
        })
        .collect();
    let classes = labels.findings.len();
    let bootstrap = Bootstrap { draws, seed: config.run.seed, ..Bootstrap::default() };
    let intervals = bootstrap.classes(&scores, &targets, &patients, classes);
    write_predictions(run, subset, dataset, &rows, &labels, &scores, &targets)?;
    let count =
        |class: usize, wanted| targets.iter().skip(class).step_by(classes).filter(|t| **t == Some(wanted)).count();
    let report = EvaluationReport {
        split: split.name.clone(),
        subset: subset.name().to_owned(),
        ratio: config.ratio,
        init: config.init.clone(),
        records: rows.len(),
        patients: number.len(),
        findings: labels
            .findings
            .iter()
            .enumerate()
            .map(|(class, finding)| FindingScores {
                finding: finding.clone(),
                positives: count(class, true),
                negatives: count(class, false),
                auroc: intervals.auroc[class],
                average_precision: intervals.average_precision[class],
            })
            .collect(),
        mean_auroc: intervals.mean_auroc,
        mean_average_precision: intervals.mean_average_precision,
    };
    files::write_json(&run.join(format!("evaluation-{}.json", subset.name())), &report)?;
    Ok(report)
}

fn write_predictions(
    run: &Path,
    subset: Subset,
    dataset: &Dataset,
    rows: &[u32],
    labels: &Labels,
    scores: &[f32],
    targets: &[Option<bool>],
) -> Result<()> {
    let text = |name: &str| -> Result<ArrayRef> {
        let values = dataset.texts(name)?;
        Ok(Arc::new(rows.iter().map(|&row| values[row as usize].as_deref()).collect::<StringArray>()))
    };
    let classes = labels.findings.len();
    let columns: Vec<String> =
        labels.findings.iter().flat_map(|f| [format!("score {f}"), format!("label {f}")]).collect();
    let mut table: Vec<(&str, ArrayRef, bool)> =
        vec![("record_id", text("record_id")?, false), ("patient_id", text("patient_id")?, false)];
    for class in 0..classes {
        let score: Float32Array = scores.iter().skip(class).step_by(classes).map(|score| Some(*score)).collect();
        let label: Int8Array = targets.iter().skip(class).step_by(classes).map(|t| t.map(i8::from)).collect();
        table.push((&columns[2 * class], Arc::new(score), false));
        table.push((&columns[2 * class + 1], Arc::new(label), true));
    }
    Ok(table::write_table(&run.join(format!("predictions-{}.parquet", subset.name())), table)?)
}

impl std::fmt::Display for EvaluationReport {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let shown = |interval: &Option<Interval>| match interval {
            Some(i) => format!("{:.3} ({:.3}..{:.3})", i.value, i.low, i.high),
            None => "undefined".to_owned(),
        };
        writeln!(
            f,
            "{} records of {} patients, subset {} of split {}",
            self.records, self.patients, self.subset, self.split
        )?;
        writeln!(f, "{:<28}{:>9}{:>9}  {:<24}{:<24}", "finding", "positive", "negative", "AUROC (95%)", "AUPRC (95%)")?;
        for row in &self.findings {
            let (a, p) = (shown(&row.auroc), shown(&row.average_precision));
            writeln!(f, "{:<28}{:>9}{:>9}  {a:<24}{p:<24}", row.finding, row.positives, row.negatives)?;
        }
        write!(
            f,
            "{:<46}  {:<24}{:<24}",
            "mean over defined findings",
            shown(&self.mean_auroc),
            shown(&self.mean_average_precision)
        )
    }
}
