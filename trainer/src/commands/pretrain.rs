//! `trainer pretrain`.

use std::path::Path;

use anyhow::{Result, bail};
use dataset::Dataset;
use dataset::commands::cli::UsageError;
use dataset::loader::{LoaderBuilder, TextOptions};
use dataset::transform::{ASPECT, Crop, Transform};
use tch::Device;

use super::training_rows::TrainingRows;
use super::{DataSource, place, seed_start_values, unfinished_start};
use crate::config::{Epoch, PretrainConfig, RANDOM, preset_hint};
use crate::task::Pretraining;
use crate::task::objective::Objective;
use crate::train::lr_schedule::{WarmupCosine, scaled_lr};
use crate::train::optimizer::OptimizerConfig;
use crate::train::run_dir::{self, RunDir};
use crate::train::train_loop::{self, Outcome, Settings};

/// Token ids of the release's tokenizer, for a benchmark without a dataset.
const RELEASE_VOCABULARY: i64 = 30_000;

/// Completes a pre-training configuration by what the dataset decides.
pub fn resolve_pretrain(config: &mut PretrainConfig, dataset: Option<&Dataset>) -> Result<()> {
    let without = if config.model.bert.vocab_size > 0 { config.model.bert.vocab_size } else { RELEASE_VOCABULARY };
    let vocabulary = dataset.map_or(without, |dataset| dataset.manifest().text.vocabulary as i64);
    if config.model.reconstructs_report() {
        if vocabulary == 0 {
            bail!(
                "this dataset has no reports to restore: set model.reconstruct=image-only, or ingest with a tokenizer"
            );
        }
        if config.model.bert.vocab_size == 0 {
            config.model.bert.vocab_size = vocabulary;
        }
        if config.model.bert.vocab_size < vocabulary {
            bail!("model.bert.vocab_size is {}, the dataset's vocabulary {vocabulary}", config.model.bert.vocab_size);
        }
    }
    config.validate().map_err(UsageError::of)
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

/// Updates of a run.
pub fn pretrain_steps(config: &PretrainConfig, source: &DataSource) -> Result<u64> {
    Ok(TrainingRows::of(config, source)?.steps(config))
}

/// The loader of a run's batches.
pub(super) fn loader_builder(
    config: &PretrainConfig,
    source: &DataSource,
    training: &TrainingRows,
    device: Device,
) -> LoaderBuilder {
    let mut builder = source
        .training_loader(&training.rows, config.optimizer.batch_size, &config.run, device)
        .transform(pretrain_transform(config));
    if config.model.reconstructs_report() {
        let (tokens, mask_ratio) = (config.data.tokens as usize, config.data.report_mask_ratio);
        builder = builder.text(TextOptions { tokens, mask_ratio });
    }
    builder
}

/// Warns where the start weights know reports by another tokenizer: their word tables then stand for other words.
fn remark_tokenizer(config: &PretrainConfig, init: &Path) {
    let before = run_dir::run_of(init).and_then(|run| run_dir::load_config::<PretrainConfig>(&run));
    let other = before.is_ok_and(|before| before.model.reconstructs_report() && before.tokenizer != config.tokenizer);
    if other && config.model.reconstructs_report() {
        dataset::cli_eprintln!(
            "warning: {} was trained with another tokenizer, so its word tables stand for other words; to share one, \
             ingest the second dataset with --tokenizer FIRST/tokenizer.json",
            init.display()
        );
    }
}

/// Pre-trains.
pub fn pretrain(config: &PretrainConfig, source: &DataSource, run: &RunDir, device: Device) -> Result<Outcome> {
    seed_start_values(&config.run);
    let objective = Pretraining::new(&config.model, device)?;
    if config.init != RANDOM {
        let init = Path::new(&config.init);
        unfinished_start(&config.init).iter().for_each(|remark| dataset::cli_eprintln!("warning: {remark}"));
        super::initialize(objective.store(), init, |_| false, preset_hint)?;
        remark_tokenizer(config, init);
    }
    let optimizer = &config.optimizer;
    let training = TrainingRows::of(config, source)?;
    let Epoch { records, updates: per_epoch } = training.epoch(config);
    let loader = |state| Ok(loader_builder(config, source, &training, device).resume(state).build()?);
    let steps = training.steps(config);
    let epochs = steps as f64 / per_epoch;
    let schedule = WarmupCosine {
        peak: scaled_lr(optimizer.base_rate, optimizer.batch_size * optimizer.accumulation),
        floor: 0.0,
        warmup: epochs * optimizer.warmup_epochs / optimizer.epochs,
        total: epochs,
    };
    let (told, place) = (&training.told, place(device, &config.run));
    dataset::cli_println!("{records} records{told}, {per_epoch:.1} updates an epoch, {steps} updates, on {place}");
    let settings = Settings {
        optimizer: OptimizerConfig::PRETRAINING,
        weight_decay: optimizer.weight_decay,
        lr: &|step| schedule.in_epochs(step, per_epoch),
        steps,
        accumulation: optimizer.accumulation,
        clip: optimizer.clip,
        evaluate_every: 0,
        patience: 0,
        run: &config.run,
        record_ids: &|rows| source.record_ids(rows),
        notify: &|message| dataset::cli_eprintln!("{message}"),
    };
    train_loop::train(&objective, &loader, &settings, run)
}
