//! `trainer finetune` for segmentation.
//!
//! Ground truth is the `mask` column: an empty mask says that there is nothing to find, no mask at all (null) says that
//! nobody looked, and such a record is left out of training and evaluation. A source with a table of masks gives every
//! image that the table lists a mask, empty ones included.

use std::path::Path;

use anyhow::{Result, bail};
use arrow_array::{Array, BinaryArray};
use dataset::commands::cli::UsageError;
use dataset::format::table;
use dataset::transform::{ASPECT, Crop, Transform};
use dataset::{Dataset, Ratio, Subset};
use rayon::prelude::*;
use tch::Device;

use super::finetune::{Request, Start};
use super::{DataSource, place, seed_start_values, seen_before, unfinished_start};
use crate::config::{self, AnyConfig, Epoch, RANDOM, SEGMENTATION_TASK, SegmentConfig, overlay, preset_hint};
use crate::model::vit::VitConfig;
use crate::task::Segmentation;
use crate::task::objective::Objective;
use crate::train::lr_schedule::WarmupPoly;
use crate::train::optimizer::OptimizerConfig;
use crate::train::run_dir::RunDir;
use crate::train::train_loop::{self, Outcome, Settings};

/// Whether a run is one of segmentation. What is no run at all is not.
pub fn is_segmentation(run: &Path) -> bool {
    matches!(AnyConfig::load(run), Ok(AnyConfig::Segment(_)))
}

/// The transform for evaluation: the whole picture, whatever its aspect, so that no part of a mask is cut away.
pub(super) fn evaluation_transform(config: &SegmentConfig) -> Transform {
    Transform {
        crop: Crop::Stretch,
        mean: config.data.mean as f32,
        std: config.data.std as f32,
        ..Transform::evaluate(config.model.vit.image_size as u32)
    }
}

/// Whether each record has a mask.
pub(super) fn with_mask(dataset: &Dataset) -> Result<Vec<bool>> {
    let mut known = Vec::with_capacity(dataset.len());
    for batch in dataset.columns(&["mask"])? {
        let masks = table::column::<BinaryArray>(&batch, "mask");
        known.extend((0..batch.num_rows()).map(|row| masks.is_some_and(|masks| masks.is_valid(row))));
    }
    if known.contains(&true) {
        return Ok(known);
    }
    bail!("this dataset has no masks, which the task `{SEGMENTATION_TASK}` learns from; `ingest siim` makes some")
}

/// Whether each record has a mask with something drawn.
fn with_drawn_mask(dataset: &Dataset) -> Result<Vec<bool>> {
    let mut drawn = Vec::with_capacity(dataset.len());
    for batch in dataset.columns(&["mask"])? {
        let masks = table::column::<BinaryArray>(&batch, "mask");
        let has_drawn = |row: usize| -> Result<bool> {
            let Some(png) = masks.filter(|masks| masks.is_valid(row)).map(|masks| masks.value(row)) else {
                return Ok(false);
            };
            Ok(dataset::format::image_codec::decode(png)?.pixels.iter().any(|&level| level > 0))
        };
        drawn.extend((0..batch.num_rows()).into_par_iter().map(has_drawn).collect::<Result<Vec<_>>>()?);
    }
    Ok(drawn)
}

/// The configuration of a request: defaults, preset, start weights (their sizes, on the preset's image), file, settings.
pub fn resolve_segmentation(request: &Request) -> Result<SegmentConfig> {
    let start = Start::of(request)?;
    let mut config = config::segment_preset(&start.preset, request.ratio)?;
    (config.dataset, config.split, config.split_members) = request.source.identities();
    (config.init, config.start) = (start.init, start.name);
    if let Some((vit, mean, std)) = start.encoder {
        config.model.vit = VitConfig { image_size: config.model.vit.image_size, ..vit };
        (config.data.mean, config.data.std) = (mean, std);
    }
    config = overlay(&config, request.file, &[])?;
    if let Some(steps) = request.steps {
        config.take_steps(steps);
    } else if let Some(epochs) = request.epochs {
        let settled = overlay(&config, None, request.settings)?;
        let rows = training_rows(&settled, request.source, &with_mask(&request.source.dataset)?)?;
        config.take_epochs(epochs, Epoch::new(rows.len(), settled.optimizer.batch_size, 1));
    }
    let mut config = overlay(&config, None, request.settings)?;
    config.resolve();
    Ok(config)
}

/// Rows of the training records with a mask (`known` says which have one), as often as an epoch has them.
fn training_rows(config: &SegmentConfig, source: &DataSource, known: &[bool]) -> Result<Vec<u32>> {
    let split = source.split()?;
    let ratio = Ratio::from_percent(config.ratio)?;
    split.check_ratio(ratio)?;
    let mut rows = split.rows(Subset::Train, Some(ratio));
    rows.retain(|&row| known[row as usize]);
    if rows.len() < 2 {
        bail!("{} records with a mask at {}% of the training subset: too few", rows.len(), config.ratio);
    }
    if config.data.repeat_positives > 1 {
        let drawn = with_drawn_mask(&source.dataset)?;
        let times = |row: u32| if drawn[row as usize] { config.data.repeat_positives } else { 1 };
        rows = rows.into_iter().flat_map(|row| std::iter::repeat_n(row, times(row))).collect();
    }
    Ok(rows)
}

/// A segmentation run that can begin: data and weights are there and fit.
pub struct Segmenting<'a> {
    config: &'a SegmentConfig,
    source: &'a DataSource,
    objective: Segmentation,
    rows: Vec<u32>,
    device: Device,
}

/// Checks configuration, dataset, split and weights; before anything is written.
pub fn prepare_segmentation<'a>(
    config: &'a SegmentConfig,
    source: &'a DataSource,
    device: Device,
) -> Result<Segmenting<'a>> {
    config.validate().map_err(UsageError::of)?;
    let (dataset, split) = (&source.dataset, source.split()?);
    let known = with_mask(dataset)?;
    let rows = training_rows(config, source, &known)?;
    let mut validate = split.rows(Subset::Validate, None);
    validate.retain(|&row| known[row as usize]);
    seed_start_values(&config.run);
    let objective = Segmentation::new(
        &config.model,
        config.optimizer.layer_decay,
        config.prediction,
        dataset,
        validate,
        evaluation_transform(config),
        device,
    )?;
    if config.init != RANDOM {
        super::initialize(objective.store(), Path::new(&config.init), |_| false, preset_hint)?;
    }
    let seen = seen_before(&config.init, (&config.dataset, &config.split, &config.split_members));
    let optimizer = &config.optimizer;
    let length = Epoch::new(rows.len(), optimizer.batch_size, 1).warning(optimizer.steps, optimizer.patience);
    let of_start = unfinished_start(&config.init).into_iter().chain(seen);
    let remarks = of_start.chain(split.ratio_warning(Ratio::from_percent(config.ratio)?, &[])).chain(length);
    remarks.for_each(|remark| dataset::cli_eprintln!("warning: {remark}"));
    Ok(Segmenting { config, source, objective, rows, device })
}

impl Segmenting<'_> {
    /// Trains; the best weights by the validation subset's mean Dice are kept.
    pub fn train(&self, run: &RunDir) -> Result<Outcome> {
        let Self { config, source, objective, rows, device } = self;
        let optimizer = &config.optimizer;
        let distinct = rows.chunk_by(|a, b| a == b).count();
        dataset::cli_println!(
            "{distinct} records with a mask ({} an epoch), {} updates, on {}",
            rows.len(),
            optimizer.steps,
            place(*device, &config.run)
        );
        let loader = |state| {
            Ok(source
                .training_loader(rows, optimizer.batch_size, &config.run, *device)
                .masks(true)
                .transform(Transform {
                    crop: Crop::RandomResized { scale: (config.data.crop_scale, 1.0), aspect: ASPECT },
                    flip: config.data.flip,
                    ..evaluation_transform(config)
                })
                .resume(state)
                .build()?)
        };
        let schedule = WarmupPoly {
            peak: optimizer.rate,
            floor: 0.0,
            power: optimizer.power,
            warmup: optimizer.warmup,
            total: optimizer.steps,
        };
        let settings = Settings {
            optimizer: OptimizerConfig::ADAMW,
            weight_decay: optimizer.weight_decay,
            lr: &|step| schedule.at(step),
            steps: optimizer.steps,
            accumulation: 1,
            clip: optimizer.clip,
            evaluate_every: optimizer.evaluate_every,
            patience: optimizer.patience,
            run: &config.run,
            record_ids: &|rows| source.record_ids(rows),
            notify: &|message| dataset::cli_eprintln!("{message}"),
        };
        train_loop::train(objective, &loader, &settings, run)
    }
}
