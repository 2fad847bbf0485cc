//! `trainer pretrain`.

use std::path::Path;

use anyhow::{Result, bail};
use dataset::cli::UsageError;
use arrow_array::ListArray;
use dataset::loader::{LoaderBuilder, TextOptions};
use dataset::transform::{ASPECT, Crop, Transform};
use dataset::{Dataset, Subset, shard};
use tch::Device;

use super::{DataSource, device_name, seed_start_values, unfinished_start};
use crate::config::{PretrainConfig, RANDOM, preset_hint};
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

/// The records that pre-training sees.
pub(super) struct TrainingRows {
    rows: Vec<u32>,
    /// What the log says about their reports.
    told: String,
}

impl TrainingRows {
    /// With a split, its training subset, all of it, since no label is used; else all records. A model that restores
    /// reports alone learns nothing from a record without one, so such records are left out.
    ///
    /// # Errors
    /// When the model restores reports, and no record has one.
    pub(super) fn of(config: &PretrainConfig, source: &DataSource) -> Result<Self> {
        let (mut rows, of) = match &source.split {
            Some(split) => (split.rows(Subset::Train, None), format!("the training subset of split `{}`", split.name)),
            None => ((0..source.dataset.len() as u32).collect(), "this dataset".to_owned()),
        };
        if !config.model.restores_report() {
            return Ok(Self { rows, told: String::new() });
        }
        let known = with_report(&source.dataset)?;
        let (all, reports) = (rows.len(), rows.iter().filter(|&&row| known[row as usize]).count());
        if reports == 0 && all > 0 {
            bail!(
                "none of the {all} records of {of} has a report to restore: set model.restore=image-only, or ingest the \
                 reports"
            );
        }
        let told = if config.model.restores_image() {
            match all - reports {
                0 => " (all with a report)".to_owned(),
                _ => format!(" ({reports} with a report; the others take part in the image loss alone)"),
            }
        } else {
            rows.retain(|&row| known[row as usize]);
            format!(" with a report (the other {} are left out)", all - reports)
        };
        Ok(Self { rows, told })
    }
}

/// Whether each record has a report: a token after `[CLS]`.
fn with_report(dataset: &Dataset) -> Result<Vec<bool>> {
    let totals = &dataset.manifest().totals;
    if totals.reports == totals.records {
        return Ok(vec![true; dataset.len()]); // without reading all tokens of a large dataset
    }
    let mut known = Vec::with_capacity(dataset.len());
    for batch in dataset.columns(&["token_ids"])? {
        let tokens = shard::column::<ListArray>(&batch, "token_ids");
        known.extend((0..batch.num_rows()).map(|row| tokens.is_some_and(|tokens| tokens.value_length(row) > 1)));
    }
    Ok(known)
}

/// The loader of a run's batches.
pub(super) fn loader_builder(
    config: &PretrainConfig,
    source: &DataSource,
    training: &TrainingRows,
    device: Device,
) -> LoaderBuilder {
    let mut builder = source
        .training_loader(&training.rows, config.optimiser.batch_size, &config.run, device)
        .transform(pretrain_transform(config));
    if config.model.restores_report() {
        let (tokens, mask_ratio) = (config.data.tokens as usize, config.data.report_mask_ratio);
        builder = builder.text(TextOptions { tokens, mask_ratio });
    }
    builder
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
        unfinished_start(&config.init).iter().for_each(|remark| dataset::remark!("warning: {remark}"));
        rundir::start_from(objective.store(), init, |_| false, preset_hint)?;
        remark_tokenizer(config, init);
    }
    let optimiser = &config.optimiser;
    let training = TrainingRows::of(config, source)?;
    let records = training.rows.len();
    let loader = |state| Ok(loader_builder(config, source, &training, device).resume(state).build()?);
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
    let (told, device) = (&training.told, device_name(device));
    dataset::say!("{records} records{told}, {per_epoch:.1} updates an epoch, {steps} updates, on {device}");
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
