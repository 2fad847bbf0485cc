//! What the subcommands do, from a resolved configuration on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow_array::{ArrayRef, Float32Array, Int8Array, StringArray};
use dataset::loader::TextOptions;
use dataset::transform::{ASPECT, Crop, Transform};
use dataset::{Dataset, Loader, Split, Subset, files, random, table};
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::bootstrap::{Bootstrap, Interval};
use crate::config::{FinetuneConfig, PretrainConfig, Rule, Task};
use crate::engine::{self, Outcome, Settings};
use crate::objective::{Objective, loader_for};
use crate::objectives::{Classification, Labels, Pretraining, predict};
use crate::optimiser::Algorithm;
use crate::rundir::{self, RunDir};
use crate::schedule::{WarmupCosine, scaled_rate};

/// `auto`, `cpu` or `cuda:N`.
pub fn device(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" => Ok(Device::cuda_if_available()),
        other => {
            let index = other.strip_prefix("cuda:").and_then(|index| index.parse::<usize>().ok());
            let index = index.with_context(|| format!("no device `{other}`: give auto, cpu or cuda:N"))?;
            let found = tch::Cuda::device_count();
            if (index as i64) < found {
                return Ok(Device::Cuda(index));
            }
            bail!("no device cuda:{index} here ({found} CUDA devices found)")
        }
    }
}

/// Where a run's data comes from.
pub struct DataSource {
    pub dataset: Arc<Dataset>,
    pub split: Option<Split>,
}

impl DataSource {
    /// Opens a dataset and, if one is named, its split.
    pub fn open(folder: &Path, split: Option<&str>) -> Result<Self> {
        let dataset = Arc::new(Dataset::open(folder)?);
        let split = split.map(|name| Split::load(&dataset, name)).transpose()?;
        Ok(Self { dataset, split })
    }

    fn split(&self) -> Result<&Split> {
        self.split.as_ref().context("this needs --split NAME; `dataset split` makes one")
    }
}

/// Completes a pre-training configuration by what the dataset decides.
pub fn resolve_pretrain(config: &mut PretrainConfig, dataset: &Dataset) -> Result<()> {
    let vocabulary = dataset.manifest().text.vocabulary as i64;
    if config.model.restores_report() {
        if vocabulary == 0 {
            bail!("this dataset has no reports to restore: set model.restore=image-only, or ingest with a tokenizer");
        }
        if config.model.bert.vocab_size == 0 {
            config.model.bert.vocab_size = vocabulary;
        }
        if config.model.bert.vocab_size < vocabulary {
            bail!("model.bert.vocab_size is {}, the dataset's vocabulary {vocabulary}", config.model.bert.vocab_size);
        }
        if config.data.tokens > config.model.bert.max_positions {
            bail!(
                "data.tokens is {}, the report decoder has {} positions",
                config.data.tokens,
                config.model.bert.max_positions
            );
        }
    }
    config.model.validate()?;
    Ok(())
}

/// The loader's transform for pre-training.
pub fn pretrain_transform(config: &PretrainConfig) -> Transform {
    Transform {
        crop: Crop::RandomResized { scale: (config.data.crop_scale, 1.0), aspect: ASPECT },
        flip: config.data.flip,
        mean: config.data.mean as f32,
        std: config.data.std as f32,
        ..Transform::pretrain(config.model.input_size() as u32)
    }
}

/// Pre-trains. With a split, its training subset alone is seen, all of it: no label is used.
pub fn pretrain(
    config: &PretrainConfig,
    source: &DataSource,
    run: &RunDir,
    device: Device,
    init: Option<&Path>,
) -> Result<Outcome> {
    tch::manual_seed(random::mix(&[config.run.seed, random::digest("start values")]) as i64);
    let objective = Pretraining::new(&config.model, device)?;
    if let Some(path) = init {
        println!("{}: {}", path.display(), rundir::load(objective.store(), &rundir::weights(path)?)?);
    }
    let rows = match &source.split {
        Some(split) => split.rows(Subset::Train, None),
        None => (0..source.dataset.len() as u32).collect(),
    };
    let optimiser = &config.optimiser;
    let text = config
        .model
        .restores_report()
        .then_some(TextOptions { tokens: config.data.tokens as usize, mask_ratio: config.data.report_mask_ratio });
    let records = rows.len();
    let loader = |state| {
        let mut builder = loader_for(device, Loader::builder(&source.dataset))
            .rows(rows.clone())
            .batch_size(optimiser.batch_size)
            .seed(config.run.seed)
            .transform(pretrain_transform(config))
            .drop_last(records >= optimiser.batch_size)
            .threads(config.run.loader_threads)
            .resume(state);
        if let Some(text) = &text {
            builder = builder.text(text.clone());
        }
        Ok(builder.build()?)
    };
    let micro = (records / optimiser.batch_size).max(1) as u64;
    let per_epoch = (micro / optimiser.accumulation as u64).max(1);
    let steps =
        if optimiser.steps > 0 { optimiser.steps } else { (optimiser.epochs * per_epoch as f64).round() as u64 };
    let epochs = steps as f64 / per_epoch as f64;
    let schedule = WarmupCosine {
        peak: scaled_rate(optimiser.base_rate, optimiser.batch_size * optimiser.accumulation),
        floor: 0.0,
        warmup: epochs * optimiser.warmup_epochs / optimiser.epochs,
        total: epochs,
    };
    println!("{records} records, {per_epoch} updates an epoch, {steps} updates, on {device:?}");
    let settings = Settings {
        algorithm: Algorithm::PRETRAINING,
        weight_decay: optimiser.weight_decay,
        rate: &|update| schedule.in_epochs(update, per_epoch),
        steps,
        accumulation: optimiser.accumulation,
        clip: optimiser.clip,
        seed: config.run.seed,
        log_every: config.run.log_every,
        checkpoint_every: config.run.checkpoint_every,
        evaluate_every: 0,
        keep_last: config.run.keep_last,
    };
    engine::train(&objective, &loader, &settings, run)
}

/// Rows to look at: so many of the test subset (or of all records) drawn with a seed, or those named.
pub fn choose_rows(source: &DataSource, wanted: &str, seed: u64) -> Result<Vec<u32>> {
    let Ok(count) = wanted.parse::<usize>() else {
        return wanted.split(',').map(|id| Ok(source.dataset.row_of(id.trim())? as u32)).collect();
    };
    let mut rows = match &source.split {
        Some(split) => split.rows(Subset::Test, None),
        None => (0..source.dataset.len() as u32).collect(),
    };
    random::Stream::new(&[seed, random::digest("rows")]).shuffle(&mut rows);
    rows.truncate(count);
    if rows.is_empty() {
        bail!("no record to restore");
    }
    Ok(rows)
}

/// The transform for evaluation of a classifier.
pub fn evaluation_transform(config: &FinetuneConfig) -> Transform {
    Transform {
        mean: config.data.mean as f32,
        std: config.data.std as f32,
        ..Transform::evaluate(config.model.vit.image_size as u32)
    }
}

/// The labels of a run's task in a dataset.
fn labels(config: &FinetuneConfig, dataset: &Dataset) -> Result<Labels> {
    Labels::new(dataset, &config.findings, config.data.uncertain, config.data.missing)
}

/// Rows of a subset that count for the task.
fn task_rows(config: &FinetuneConfig, source: &DataSource, subset: Subset, ratio: Option<f64>) -> Result<Vec<u32>> {
    let rows = labels(config, &source.dataset)?.labelled(&source.dataset, source.split()?.rows(subset, ratio))?;
    let only_with = Task::parse(&config.task)?.only_with;
    if only_with.is_empty() {
        return Ok(rows);
    }
    let known = source.dataset.findings();
    let columns: Vec<usize> =
        known.iter().enumerate().filter(|(_, name)| only_with.contains(name)).map(|(i, _)| i).collect();
    let codes = source.dataset.labels()?;
    Ok(rows.into_iter().filter(|&row| columns.iter().any(|&column| codes[row as usize][column] == Some(1))).collect())
}

/// Whether dataset and split have what a fine-tuning run asks for; before anything is written.
pub fn check_finetune(config: &FinetuneConfig, source: &DataSource) -> Result<()> {
    config.model.validate()?;
    labels(config, &source.dataset)?;
    let ratios = source.split()?.ratios();
    if !ratios.contains(&config.ratio) {
        let known: Vec<String> = ratios.iter().map(f64::to_string).collect();
        bail!("split `{}` has no ratio {}; it has: {}", config.split, config.ratio, known.join(", "));
    }
    Ok(())
}

/// Fine-tunes a classifier; the best weights by the validation subset are kept.
pub fn finetune(config: &FinetuneConfig, source: &DataSource, run: &RunDir, device: Device) -> Result<Outcome> {
    tch::manual_seed(random::mix(&[config.run.seed, random::digest("start values")]) as i64);
    let dataset = &source.dataset;
    let validate = task_rows(config, source, Subset::Validate, None)?;
    let objective = Classification::new(
        &config.model,
        labels(config, dataset)?,
        dataset,
        validate,
        evaluation_transform(config),
        device,
    )?;
    if config.init != "random" {
        let path = PathBuf::from(&config.init);
        println!("{}: {}", path.display(), rundir::load(objective.store(), &rundir::weights(&path)?)?);
    }
    let rows = task_rows(config, source, Subset::Train, Some(config.ratio))?;
    if rows.is_empty() {
        bail!("no labelled record at {}% of the training subset", config.ratio);
    }
    println!("{} labelled records, {} updates, on {device:?}", rows.len(), config.optimiser.steps);
    let optimiser = &config.optimiser;
    let loader = |state| {
        Ok(loader_for(device, Loader::builder(dataset))
            .rows(rows.clone())
            .batch_size(optimiser.batch_size)
            .seed(config.run.seed)
            .transform(Transform {
                crop: Crop::RandomResized { scale: (config.data.crop_scale, 1.0), aspect: ASPECT },
                flip: config.data.flip,
                mean: config.data.mean as f32,
                std: config.data.std as f32,
                ..Transform::finetune(config.model.vit.image_size as u32)
            })
            .drop_last(rows.len() >= optimiser.batch_size)
            .threads(config.run.loader_threads)
            .resume(state)
            .build()?)
    };
    let schedule = WarmupCosine {
        peak: optimiser.rate,
        floor: 0.0,
        warmup: optimiser.warmup as f64,
        total: optimiser.steps as f64,
    };
    let settings = Settings {
        algorithm: match optimiser.rule {
            Rule::Sgd => Algorithm::FINE_TUNING,
            Rule::Adamw => Algorithm::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
        },
        weight_decay: optimiser.weight_decay,
        rate: &|update| schedule.in_updates(update),
        steps: optimiser.steps,
        accumulation: 1,
        clip: optimiser.clip,
        seed: config.run.seed,
        log_every: config.run.log_every,
        checkpoint_every: config.run.checkpoint_every,
        evaluate_every: optimiser.evaluate_every,
        keep_last: config.run.keep_last,
    };
    engine::train(&objective, &loader, &settings, run)
}

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
