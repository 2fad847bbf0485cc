//! The task `dino`: self-distillation on radiographs, without reports.

mod objective;
mod schedules;

use std::path::Path;

use anyhow::{Result, bail};
use dataset::Subset;
use dataset::commands::cli::UsageError;
use dataset::loader::LoaderBuilder;
use dataset::transform::{ASPECT, Crop, Transform};
use tch::Device;

use super::training::unfinished_init;
use super::{DataSource, PredictionRequest, Prepared, Request, Stage, Task, Training, lengths};
use crate::config::{ConfigFile, DinoConfig, Encoder, Epoch, PRESETS, Provenance, RANDOM, dino_preset, overlay};
use crate::model::vit::{Pooling, VitConfig};
use crate::train::distributed::Compute;
use crate::train::optimizer::OptimizerConfig;
use crate::train::run_dir;

pub use objective::{Crops, Distillation, PatchMasks};
pub use schedules::Schedules;

/// Self-distillation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dino;

/// The objective on class tokens alone.
const DINO: &str = "dino";
/// The objective on class tokens and masked patches.
const DINO_IBOT: &str = "dino-ibot";

impl Task for Dino {
    fn kind(&self) -> &'static str {
        DINO
    }

    fn title(&self) -> &'static str {
        "self-distillation"
    }

    fn stage(&self) -> Stage {
        Stage::Pretraining
    }

    fn names(&self) -> &'static [&'static str] {
        &[DINO, DINO_IBOT]
    }

    fn resolve(&self, request: &Request) -> Result<ConfigFile> {
        let mut config = dino_preset(request.preset.unwrap_or(PRESETS[0]))?;
        if request.task == DINO_IBOT {
            config.loss.patch_weight = 1.0;
        }
        if let Some(Encoder { vit, mean, std }) = request.init.map(encoder_of).transpose()?.flatten() {
            config.model.vit = VitConfig { final_norm: true, pooling: Pooling::Cls, ..vit };
            (config.data.mean, config.data.std) = (mean, std);
        }
        let mut config = overlay(&config, request.file, &[])?;
        if let Some(epochs) = request.epochs {
            config.take_epochs(epochs);
        }
        let init = request.init.map_or(RANDOM.into(), Path::to_string_lossy).into_owned();
        config.provenance = Provenance { init, ..request.source.provenance() };
        let config = overlay(&config, None, request.settings)?;
        config.validate().map_err(UsageError::of)?;
        ConfigFile::of(self.kind(), &config)
    }

    fn check(&self, config: &ConfigFile) -> Result<()> {
        config.read::<DinoConfig>()?.validate()
    }

    fn prepare<'a>(&self, config: &ConfigFile, source: &'a DataSource) -> Result<Prepared<'a>> {
        let config: DinoConfig = config.read()?;
        config.validate().map_err(UsageError::of)?;
        let rows = rows(source)?;
        let epoch = Epoch::new(
            source.epoch_records(&lengths(&rows))?,
            config.optimizer.batch_size,
            config.optimizer.accumulation,
        );
        let steps = match config.optimizer.steps {
            0 => epoch.steps_of(config.optimizer.epochs),
            steps => steps,
        };
        let init = config.provenance.init.clone();
        Ok(Prepared {
            steps,
            run: config.run.clone(),
            warnings: unfinished_init(&init).into_iter().collect(),
            init,
            build: Box::new(move |compute| training(config, source, rows, epoch, steps, compute)),
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
        &[
            ("loss_cls", "loss of class tokens"),
            ("loss_patch", "loss of masked patches"),
            ("teacher_entropy", "entropy of the teacher's distributions"),
            ("teacher_spread", "entropy of their mean over a batch"),
        ]
    }
}

/// The encoder of the run or the imported folder that pretrained weights belong to, whose sizes the run takes; none for a file
/// that is in no run.
fn encoder_of(init: &Path) -> Result<Option<Encoder>> {
    let Ok(run) = run_dir::run_of(init) else { return Ok(None) };
    Ok(Some(run_dir::load_config(&run)?.common()?.encoder))
}

/// Rows of each dataset: of the training subset with a split, else all.
fn rows(source: &DataSource) -> Result<Vec<Vec<u32>>> {
    let rows_of = |source: &DataSource| match &source.split {
        Some(split) => Ok(split.rows(Subset::Train, None)),
        None => Ok(source.dataset.all_rows()?),
    };
    source.all().map(rows_of).collect()
}

/// A builder of the loader that a run trains with: the image is the first global crop, the groups of crops are the second one and
/// the local ones.
pub fn training_loader(config: &DinoConfig, source: &DataSource, rows: &[Vec<u32>], device: Device) -> LoaderBuilder {
    let (data, side) = (&config.data, config.model.vit.image_size as u32);
    let crop = |size: u32, scale| Transform {
        crop: Crop::RandomResized { scale, aspect: ASPECT },
        flip: data.flip,
        mean: data.mean as f32,
        std: data.std as f32,
        augment: data.augment.clone(),
        window: data.window,
        window_jitter: data.window_jitter,
        ..Transform::pretrain(size)
    };
    let global = crop(side, data.global_scale);
    let mut groups = vec![(global.clone(), 1)];
    if data.local_crops > 0 {
        groups.push((crop(data.local_size as u32, data.local_scale), data.local_crops));
    }
    source.mixture_loader(rows, config.optimizer.batch_size, &config.run, device).transform(global).crops(groups)
}

fn training<'a>(
    config: DinoConfig,
    source: &'a DataSource,
    rows: Vec<Vec<u32>>,
    Epoch { records, steps: per_epoch }: Epoch,
    steps: u64,
    compute: &Compute,
) -> Result<Training<'a>> {
    let objective = Distillation::new(&config, steps, compute)?;
    let (schedules, optimizer) = (objective.schedules().clone(), config.optimizer.clone());
    let builder = training_loader(&config, source, &rows, compute.device);
    let crops = 2 + config.data.local_crops;
    Ok(Training {
        objective: Box::new(objective),
        summary: format!("{records} records of {crops} crops, {per_epoch:.1} steps an epoch, {steps} steps"),
        notes: source.mixture_notes(&lengths(&rows))?,
        loader: Box::new(move || builder.clone()),
        source,
        skip: Box::new(|_| false),
        optimizer: OptimizerConfig::ADAMW,
        weight_decay: optimizer.weight_decay,
        lr: Box::new(move |step| schedules.lr(step)),
        accumulation: optimizer.accumulation,
        clip: optimizer.clip,
        evaluate_every: 0,
        patience: 0,
    })
}
