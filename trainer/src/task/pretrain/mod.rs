//! The task `pretrain`: masked record modeling on radiographs with reports.

mod objective;
mod reconstruction;
mod record_modeling;
mod report;
mod training_rows;

use std::path::Path;

use anyhow::{Result, bail};
use dataset::commands::cli::UsageError;
use dataset::loader::{LoaderBuilder, StudyOptions, TextOptions, TokenWeights, ViewChoice};
use dataset::store::files;
use dataset::transform::{ASPECT, Crop, Transform};
use tch::Device;

use super::training::unfinished_init;
use super::{DataSource, PredictionRequest, Prepared, Request, Stage, Task, Training, lengths};
use crate::config::{ConfigFile, Epoch, PRESETS, PretrainConfig, Provenance, RANDOM, overlay, pretrain_preset};
use crate::report::{Run, Section};
use crate::task::objective::Objective;
use crate::train::distributed::Compute;
use crate::train::lr_schedule::{WarmupCosine, scaled_lr};
use crate::train::optimizer::OptimizerConfig;
use crate::train::run_dir;

pub use objective::Pretraining;
pub use reconstruction::{ReconstructedRecord, Reconstruction, Token, reconstruct};
pub(in crate::task) use record_modeling::{RecordModeling, image_slots};
pub(in crate::task) use report::sections as reconstruction_sections;
pub use training_rows::TrainingRows;

/// Masked record modeling.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pretrain;

/// Size of the release's vocabulary, for a benchmark without a dataset.
const RELEASE_VOCABULARY: i64 = 30_000;

/// The objective of masked record modeling, which `trainer pretrain` takes by default.
pub const MRM: &str = "mrm";

impl Task for Pretrain {
    fn kind(&self) -> &'static str {
        "pretrain"
    }

    fn title(&self) -> &'static str {
        "pre-training"
    }

    fn stage(&self) -> Stage {
        Stage::Pretraining
    }

    fn names(&self) -> &'static [&'static str] {
        &[MRM]
    }

    fn resolve(&self, request: &Request) -> Result<ConfigFile> {
        let preset = pretrain_preset(request.preset.unwrap_or(PRESETS[0]))?;
        ConfigFile::of(self.kind(), &resolve(request, &preset)?)
    }

    fn check(&self, config: &ConfigFile) -> Result<()> {
        config.read::<PretrainConfig>()?.validate()
    }

    fn prepare<'a>(&self, config: &ConfigFile, source: &'a DataSource) -> Result<Prepared<'a>> {
        prepare(config.read()?, source, |making| {
            let objective = Pretraining::new(&making.config.model, making.compute)?;
            Ok(Box::new(objective.in_place_loss(making.config.run.in_place_loss).record_losses(making.by_record)))
        })
    }

    fn predict(&self, request: &PredictionRequest) -> Result<String> {
        bail!(
            "{0} is a pre-training run, which knows no findings; `trainer finetune --init {0}` trains a classifier",
            request.run.display()
        )
    }

    fn takes_mixtures(&self) -> bool {
        true
    }

    fn curves(&self) -> &'static [(&'static str, &'static str)] {
        &[("loss_image", "image loss"), ("loss_report", "report loss")]
    }

    fn report(&self, runs: &[&Run]) -> Result<Vec<Section>> {
        report::sections(runs)
    }
}

/// The configuration of a request, from the defaults of its objective.
pub(in crate::task) fn resolve(request: &Request, preset: &PretrainConfig) -> Result<PretrainConfig> {
    let mut config = overlay(preset, request.file, &[])?;
    if let Some(epochs) = request.epochs {
        config.take_epochs(epochs);
    }
    let init = request.init.map_or(RANDOM.into(), Path::to_string_lossy).into_owned();
    config.provenance = Provenance { init, ..request.source.provenance() };
    config.tokenizer = request.source.tokenizer();
    let mut config = overlay(&config, None, request.settings)?;
    complete(&mut config, Some(request.source))?;
    Ok(config)
}

/// What an objective is made for.
pub(in crate::task) struct Making<'a> {
    /// The configuration of the run.
    pub config: &'a PretrainConfig,
    /// Whether it shall know the losses of single records.
    pub by_record: bool,
    /// Steps of the run.
    pub steps: u64,
    /// Where it computes.
    pub compute: &'a Compute,
}

/// Makes the objective of a run.
pub(in crate::task) type MakeObjective = fn(&Making) -> Result<Box<dyn Objective>>;

/// Prepares a run whose objective learns from images and reports.
pub(in crate::task) fn prepare(
    config: PretrainConfig,
    source: &DataSource,
    objective: MakeObjective,
) -> Result<Prepared<'_>> {
    config.validate().map_err(UsageError::of)?;
    let rows = TrainingRows::of(&config, source)?;
    let init = config.provenance.init.clone();
    let warnings = unfinished_init(&init).into_iter().chain(other_tokenizer(&config)).collect();
    Ok(Prepared {
        steps: rows.steps(&config),
        run: config.run.clone(),
        init,
        warnings,
        build: Box::new(move |compute| training(config, source, rows, objective, compute)),
    })
}

/// Completes a configuration by what the dataset decides: the vocabulary.
///
/// # Errors
/// When the dataset has no reports to learn from, a larger vocabulary than is set, or a setting is impossible.
pub fn complete(config: &mut PretrainConfig, source: Option<&DataSource>) -> Result<()> {
    let without = if config.model.bert.vocab_size > 0 { config.model.bert.vocab_size } else { RELEASE_VOCABULARY };
    let vocabulary = source.map_or(without, |source| source.vocabulary() as i64);
    if config.model.reads_reports() {
        if vocabulary == 0 {
            bail!("this dataset has no reports to {}, or ingest with a tokenizer", without_reports(config));
        }
        if config.model.bert.vocab_size == 0 {
            config.model.bert.vocab_size = vocabulary;
        }
        if config.model.bert.vocab_size < vocabulary {
            bail!("model.bert.vocab_size is {}, the dataset's vocabulary {vocabulary}", config.model.bert.vocab_size);
        }
    }
    let weights = &config.data.token_weights;
    config.data.token_weights_digest =
        if weights.is_empty() { String::new() } else { files::sha256(Path::new(weights))?.chars().take(16).collect() };
    config.validate().map_err(UsageError::of)
}

/// What reports are for, and what to set where there are none.
fn without_reports(config: &PretrainConfig) -> &'static str {
    if config.model.contrast.is_some() {
        "contrast images with: pretrain with --objective mrm --set model.reconstruct=image-only"
    } else {
        "reconstruct: set model.reconstruct=image-only"
    }
}

/// The loader's transform for pretraining.
pub fn pretrain_transform(config: &PretrainConfig) -> Transform {
    Transform {
        crop: Crop::RandomResized { scale: (config.data.crop_scale, 1.0), aspect: ASPECT },
        flip: config.data.flip,
        mean: config.data.mean as f32,
        std: config.data.std as f32,
        augment: config.data.augment.clone(),
        window: config.data.window,
        window_jitter: config.data.window_jitter,
        ..Transform::pretrain(config.model.input_size() as u32)
    }
}

/// The same without anything random: the center of each image, its shorter side on the size of the input.
pub fn still_transform(config: &PretrainConfig) -> Transform {
    let transform = pretrain_transform(config);
    let crop = Crop::Center { shorter: transform.size };
    Transform { crop, flip: 0.0, augment: Vec::new(), window_jitter: (0.0, 0.0), ..transform }
}

/// A builder of the loader that a run trains with.
///
/// # Errors
/// When the weights of tokens cannot be read, or are not those of the run.
pub fn training_loader(
    config: &PretrainConfig,
    source: &DataSource,
    training: &TrainingRows,
    device: Device,
) -> Result<LoaderBuilder> {
    let mut builder = source
        .mixture_loader(&training.rows, config.optimizer.batch_size, &config.run, device)
        .transform(pretrain_transform(config));
    if config.data.studies > 0 {
        let options = StudyOptions { views: config.data.studies, choose: ViewChoice::Random, prior: 0 };
        let is_whole = training.epoch(config).records >= config.optimizer.batch_size;
        builder = builder.studies(options).drop_last(is_whole);
    }
    if config.model.reads_reports() {
        let (tokens, mask_ratio) = (config.data.tokens as usize, config.data.report_mask_ratio);
        builder = builder.text(TextOptions { tokens, mask_ratio });
    }
    if !config.data.token_weights.is_empty() {
        builder = builder.token_weights(TokenWeights::load(Path::new(&config.data.token_weights))?);
    }
    Ok(builder)
}

/// A warning where the pretrained weights know reports by another tokenizer: the rows of their token tables then belong to
/// other tokens.
fn other_tokenizer(config: &PretrainConfig) -> Option<String> {
    let init = &config.provenance.init;
    let run = run_dir::run_of(Path::new(init)).ok().filter(|_| init != RANDOM)?;
    let before: PretrainConfig = run_dir::load_config(&run).ok()?.read().ok()?;
    let differs = before.model.reads_reports() && before.tokenizer != config.tokenizer;
    (differs && config.model.reads_reports()).then(|| {
        format!(
            "{init} was trained with another tokenizer, so its token tables belong to other tokens; to share one, ingest the \
             second dataset with --tokenizer FIRST/tokenizer.json"
        )
    })
}

fn training<'a>(
    config: PretrainConfig,
    source: &'a DataSource,
    training: TrainingRows,
    objective: MakeObjective,
    compute: &Compute,
) -> Result<Training<'a>> {
    let device = compute.device;
    // Recorded passes have no losses by dataset.
    let by_record = !source.others.is_empty() && !config.run.cuda_graph;
    let steps = training.steps(&config);
    let objective = objective(&Making { config: &config, by_record, steps, compute })?;
    let optimizer = config.optimizer.clone();
    let Epoch { records, steps: per_epoch } = training.epoch(&config);
    let epochs = steps as f64 / per_epoch;
    let curve = WarmupCosine {
        peak: scaled_lr(optimizer.base_lr, optimizer.batch_size * optimizer.accumulation),
        floor: 0.0,
        warmup: epochs * optimizer.warmup_epochs / optimizer.epochs,
        total: epochs,
    };
    let builder = training_loader(&config, source, &training, device)?;
    let samples = match config.data.studies {
        0 => "records".to_owned(),
        _ => format!("studies of {} records", lengths(&training.rows).iter().sum::<usize>()),
    };
    Ok(Training {
        objective,
        summary: format!("{records} {samples}{}, {per_epoch:.1} steps an epoch, {steps} steps", training.description),
        notes: source.mixture_notes(&training.samples)?,
        loader: Box::new(move || builder.clone()),
        source,
        skip: Box::new(|_| false),
        optimizer: OptimizerConfig::PRETRAINING,
        weight_decay: optimizer.weight_decay,
        lr: Box::new(move |step| curve.in_epochs(step, per_epoch)),
        accumulation: optimizer.accumulation,
        clip: optimizer.clip,
        evaluate_every: 0,
        patience: 0,
    })
}
