//! A task of your own beside the built-in ones: regression of the patient's age from the radiograph.
//!
//! ```text
//! custom_task finetune --data data/nih --run runs/age --task age --init runs/mrm --split main
//! custom_task evaluate --data data/nih --run runs/age --split main
//! ```
//! `compare`, `sweep`, `report`, checkpoints, resuming and all settings come with it.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use arrow_array::{Array, Float32Array};
use dataset::format::table::column;
use dataset::transform::Transform;
use dataset::{Batch, Dataset, Subset};
use serde::{Deserialize, Serialize};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};
use trainer::config::{
    ConfigFile, Encoder, FinetuneConfig, FinetuneKeys, ImageData, LrSource, RunConfig, Schedule, TrainingCrop,
    pretrain_preset,
};
use trainer::eval::bootstrap::{Bootstrap, Interval};
use trainer::model::classifier::{ClassifierConfig, VitClassifier};
use trainer::task::objective::{Evaluation, Loss, Objective, images};
use trainer::task::{
    Comparison, ComparisonRequest, DataSource, Evaluated, EvaluationHeader, EvaluationRequest, Metric, Prepared,
    RecordMetric, Registry, Request, Task, Training, compare_records, data_warnings, predict, resolve_finetune,
};
use trainer::train::optimizer::{Parameter, decayed_parameters};

/// The model predicts an age from 0 to this, as a share.
const OLDEST: f32 = 100.0;

/// The sections of `config.toml`; `FinetuneKeys` are the keys above them.
#[derive(Clone, Serialize, Deserialize)]
struct AgeConfig {
    #[serde(flatten)]
    keys: FinetuneKeys,
    model: ClassifierConfig,
    data: ImageData,
    optimizer: Schedule,
    run: RunConfig,
}

impl AgeConfig {
    fn preset(preset: &str, ratio: f64) -> Result<Self> {
        let pretraining = pretrain_preset(preset)?;
        let (vit, data) = (pretraining.model.vit, pretraining.data);
        Ok(Self {
            keys: FinetuneKeys::new(preset, "age", ratio),
            model: ClassifierConfig { vit, classes: 1, ..ClassifierConfig::default() },
            data: ImageData {
                crop_scale: 0.7,
                crop: TrainingCrop::default(),
                flip: 0.5,
                mean: data.mean,
                std: data.std,
                augment: Vec::new(),
                window: data.window,
                window_jitter: (0.0, 0.0),
            },
            optimizer: Schedule {
                lr: 1e-3,
                lr_from: LrSource::default(),
                weight_decay: 0.05,
                layer_decay: 0.75,
                warmup: 100,
                steps: 2_000,
                cosine_steps: 0,
                batch_size: 64,
                accumulation: 1,
                clip: 1.0,
                evaluate_every: 100,
                patience: 0,
            },
            run: RunConfig::default(),
        })
    }

    fn transform(&self) -> Transform {
        self.data.normalized(Transform::evaluate(self.model.vit.image_size as u32))
    }
}

impl FinetuneConfig for AgeConfig {
    fn parts(&mut self) -> (&mut FinetuneKeys, &mut Schedule) {
        (&mut self.keys, &mut self.optimizer)
    }

    fn take_encoder(&mut self, encoder: Encoder) {
        (self.model.vit, self.data.mean, self.data.std) = (encoder.vit, encoder.mean, encoder.std);
    }

    fn validate(&self) -> Result<()> {
        self.model.validate()?;
        self.data.validate()?;
        self.optimizer.validate()?;
        self.run.validate()
    }
}

/// Ages in years by row; none where unknown.
fn ages(dataset: &Dataset) -> Result<Vec<Option<f32>>> {
    let mut ages = Vec::with_capacity(dataset.len());
    for batch in dataset.columns(&["age_years"])? {
        let column = column::<Float32Array>(&batch, "age_years").context("no column `age_years`")?;
        ages.extend((0..column.len()).map(|row| column.is_valid(row).then(|| column.value(row))));
    }
    Ok(ages)
}

/// Rows of a subset whose age is known, and all ages.
fn rows(source: &DataSource, subset: Subset, ratio: Option<f64>) -> Result<(Vec<u32>, Vec<Option<f32>>)> {
    let ages = ages(&source.dataset)?;
    let mut rows = source.subset(subset, ratio)?;
    rows.retain(|&row| ages[row as usize].is_some());
    ensure!(!rows.is_empty(), "no record of known age in the {} subset", subset.name());
    Ok((rows, ages))
}

/// The objective: mean absolute error in years.
struct AgeRegression {
    store: VarStore,
    model: VitClassifier,
    dataset: Arc<Dataset>,
    transform: Transform,
    ages: Vec<Option<f32>>,
    validate: Vec<u32>,
    layer_decay: f64,
}

impl AgeRegression {
    fn new(config: &AgeConfig, source: &DataSource, validate: Vec<u32>, device: Device) -> Result<Self> {
        let store = VarStore::new(device);
        let model = VitClassifier::new(&store.root(), &config.model)?;
        let (dataset, ages) = (source.dataset.clone(), ages(&source.dataset)?);
        let layer_decay = config.optimizer.layer_decay;
        Ok(Self { store, model, dataset, transform: config.transform(), ages, validate, layer_decay })
    }

    /// Predicted ages and absolute errors of some rows of known age.
    fn predict(&self, rows: &[u32]) -> Result<(Vec<f32>, Vec<f64>)> {
        let shares = predict(&self.model, &self.dataset, rows, self.transform.clone(), self.store.device())?;
        let predicted: Vec<f32> = shares.iter().map(|share| share * OLDEST).collect();
        let error = |(&row, age): (&u32, &f32)| f64::from((age - self.ages[row as usize].unwrap_or(f32::NAN)).abs());
        let errors = rows.iter().zip(&predicted).map(error).collect();
        Ok((predicted, errors))
    }
}

impl Objective for AgeRegression {
    fn store(&self) -> &VarStore {
        &self.store
    }

    fn parameters(&self) -> Vec<Parameter> {
        decayed_parameters(&self.store, self.model.config().vit.num_layers, self.layer_decay)
    }

    fn loss(&self, batch: &Batch) -> Result<Loss> {
        let device = self.store.device();
        let ages: Vec<f32> = batch.rows().iter().map(|&row| self.ages[row as usize].unwrap_or(f32::NAN)).collect();
        let target = Tensor::from_slice(&ages).to_device(device); // [B]
        let predicted = self.model.logits(&images(batch, device), true)?.squeeze_dim(1).sigmoid() * f64::from(OLDEST);
        Ok(Loss { total: (predicted - target).abs().mean(Kind::Float), parts: Vec::new(), by_record: Vec::new() })
    }

    fn evaluate(&self) -> Result<Option<Evaluation>> {
        let (_, errors) = self.predict(&self.validate)?;
        let error = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
        Ok(Some(Evaluation { score: -error, values: vec![("error_years".to_owned(), error)] }))
    }
}

/// What `evaluation-test.json` holds.
#[derive(Serialize, Deserialize)]
struct AgeReport {
    #[serde(flatten)]
    header: EvaluationHeader,
    error_years: Interval,
}

impl std::fmt::Display for AgeReport {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Interval { value, low, high, .. } = self.error_years;
        let EvaluationHeader { records, patients, .. } = &self.header;
        write!(f, "{records} records of {patients} patients: mean absolute error {value:.2} ({low:.2}–{high:.2}) years")
    }
}

#[derive(Default)]
struct Age;

impl Task for Age {
    fn kind(&self) -> &'static str {
        "age"
    }

    fn title(&self) -> &'static str {
        "age regression"
    }

    fn names(&self) -> &'static [&'static str] {
        &["age"]
    }

    fn resolve(&self, request: &Request) -> Result<ConfigFile> {
        let defaults = |preset: &str| AgeConfig::preset(preset, request.ratio);
        let records = |config: &AgeConfig| Ok(rows(request.source, Subset::Train, Some(config.keys.ratio))?.0.len());
        ConfigFile::of(self.kind(), &resolve_finetune(request, defaults, records, None)?)
    }

    fn check(&self, config: &ConfigFile) -> Result<()> {
        config.read::<AgeConfig>()?.validate()
    }

    fn prepare<'a>(&self, config: &ConfigFile, source: &'a DataSource) -> Result<Prepared<'a>> {
        let config: AgeConfig = config.read()?;
        config.validate()?;
        source.check_ratio(config.keys.ratio)?;
        let (train, _) = rows(source, Subset::Train, Some(config.keys.ratio))?;
        let (validate, _) = rows(source, Subset::Validate, None)?;
        Ok(Prepared {
            steps: config.optimizer.steps,
            run: config.run.clone(),
            init: config.keys.provenance.init.clone(),
            warnings: data_warnings(&config.keys.provenance),
            build: Box::new(move |compute| {
                let device = compute.device;
                let objective = AgeRegression::new(&config, source, validate, device)?;
                let schedule = config.optimizer.clone();
                let summary = format!("{} records of known age, {} steps", train.len(), schedule.steps);
                let (batch_size, transform) = (schedule.batch_size, config.data.augmented(config.transform()));
                let loader = move || {
                    source.training_loader(&train, batch_size, &config.run, device).transform(transform.clone())
                };
                Ok(Training::finetuning(objective, source, &schedule, loader, summary))
            }),
        })
    }

    fn evaluate(&self, request: &EvaluationRequest) -> Result<Evaluated> {
        let config: AgeConfig = request.config.read()?;
        let (rows, ages) = rows(request.source, request.subset, None)?;
        let objective = AgeRegression::new(&config, request.source, Vec::new(), request.device)?;
        let weights = request.load_weights(objective.store())?;
        let (predicted, errors) = objective.predict(&rows)?;
        let known: Float32Array = rows.iter().map(|&row| ages[row as usize]).collect();
        let patients = request.patients(&rows)?;
        let bootstrap = Bootstrap { draws: request.options.draws, seed: request.seed(), ..Bootstrap::default() };
        let error_years = bootstrap.mean(&errors, &patients).context("no record")?;
        let errors: Float32Array = errors.into_iter().map(|error| Some(error as f32)).collect();
        request.write_predictions(
            &rows,
            vec![
                ("age", Arc::new(known), false),
                ("predicted", Arc::new(Float32Array::from(predicted)), false),
                ("error_years", Arc::new(errors), false),
            ],
        )?;
        let header = request.header(weights, &patients)?;
        request.finish(&AgeReport { header: header.clone(), error_years }, &header, Vec::new())
    }

    fn metrics(&self, evaluation: &serde_json::Value) -> Result<Vec<Metric>> {
        let report = AgeReport::deserialize(evaluation)?;
        Ok(vec![Metric { key: "error_years", title: "error in years", value: Some(report.error_years) }])
    }

    fn compare(&self, request: &ComparisonRequest) -> Result<Comparison> {
        let error =
            RecordMetric { key: "error_years", column: "error_years", title: "error in years", only_where: None };
        compare_records(request, &[error], "age")
    }

    fn curves(&self) -> &'static [(&'static str, &'static str)] {
        &[("loss", "loss"), ("validate_error_years", "validation error in years")]
    }
}

fn main() -> ExitCode {
    trainer::cli::main_with(Registry::builtin().with::<Age>(), std::env::args_os()).into()
}
