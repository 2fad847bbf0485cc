//! `trainer pretrain`.

use std::path::Path;

use anyhow::{Result, bail};
use dataset::loader::{LoaderBuilder, TextOptions};
use dataset::transform::{ASPECT, Crop, Transform};
use dataset::{Dataset, Subset};
use tch::Device;

use super::{DataSource, device_name, seed_start_values};
use crate::config::{PretrainConfig, RANDOM};
use crate::engine::{self, Outcome, Settings};
use crate::objective::Objective;
use crate::objectives::Pretraining;
use crate::optimiser::Algorithm;
use crate::rundir::{self, RunDir};
use crate::schedule::{WarmupCosine, scaled_rate};

/// Token ids of the release's tokenizer, for a benchmark without a dataset.
const RELEASE_VOCABULARY: i64 = 30_000;

/// Completes a pre-training configuration by what the dataset decides.
pub fn resolve_pretrain(config: &mut PretrainConfig, dataset: Option<&Dataset>) -> Result<()> {
    let without = if config.model.bert.vocab_size > 0 { config.model.bert.vocab_size } else { RELEASE_VOCABULARY };
    let vocabulary = dataset.map_or(without, |dataset| dataset.manifest().text.vocabulary as i64);
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
    }
    config.validate()
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

/// Rows that pre-training sees: with a split, its training subset, all of it, since no label is used.
fn training_rows(source: &DataSource) -> Result<Vec<u32>> {
    Ok(match &source.split {
        Some(split) => split.rows(Subset::Train, None),
        None => source.dataset.all_rows()?,
    })
}

/// The loader of a run's batches.
pub(super) fn loader_builder(config: &PretrainConfig, source: &DataSource, device: Device) -> Result<LoaderBuilder> {
    let mut builder = source
        .training_loader(&training_rows(source)?, config.optimiser.batch_size, &config.run, device)
        .transform(pretrain_transform(config));
    if config.model.restores_report() {
        let (tokens, mask_ratio) = (config.data.tokens as usize, config.data.report_mask_ratio);
        builder = builder.text(TextOptions { tokens, mask_ratio });
    }
    Ok(builder)
}

/// Warns where the start weights know reports by another tokenizer: their word tables then stand for other words.
fn remark_tokenizer(config: &PretrainConfig, init: &Path) {
    let before = rundir::run_of(init).and_then(|run| rundir::load_config::<PretrainConfig>(&run));
    let other = before.is_ok_and(|before| before.model.restores_report() && before.tokenizer != config.tokenizer);
    if other && config.model.restores_report() {
        dataset::remark!(
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
        rundir::start_from(objective.store(), init, |_| false)?;
        remark_tokenizer(config, init);
    }
    let optimiser = &config.optimiser;
    let records = training_rows(source)?.len();
    let loader = |state| Ok(loader_builder(config, source, device)?.resume(state).build()?);
    let per_epoch = (records / optimiser.batch_size).max(1) as f64 / optimiser.accumulation as f64;
    let steps = match optimiser.steps {
        0 => ((optimiser.epochs * per_epoch).round() as u64).max(1),
        steps => steps,
    };
    let epochs = steps as f64 / per_epoch;
    let schedule = WarmupCosine {
        peak: scaled_rate(optimiser.base_rate, optimiser.batch_size * optimiser.accumulation),
        floor: 0.0,
        warmup: epochs * optimiser.warmup_epochs / optimiser.epochs,
        total: epochs,
    };
    dataset::say!("{records} records, {per_epoch:.1} updates an epoch, {steps} updates, on {}", device_name(device));
    let settings = Settings {
        algorithm: Algorithm::PRETRAINING,
        weight_decay: optimiser.weight_decay,
        rate: &|update| schedule.in_epochs(update, per_epoch),
        steps,
        accumulation: optimiser.accumulation,
        clip: optimiser.clip,
        evaluate_every: 0,
        run: &config.run,
        record_ids: &|rows| source.record_ids(rows),
    };
    engine::train(&objective, &loader, &settings, run)
}
