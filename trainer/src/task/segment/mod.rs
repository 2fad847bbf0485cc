//! The task `segment`: a segmenter learns the masks of a finding.
//!
//! Ground truth is the first of a record's masks, or that of the name `data.mask`. An empty mask says that the finding is absent; no mask says that nobody looked,
//! and such a record is left out of training and evaluation. A source with a table of masks gives a mask to every image in
//! the table, an empty one included.

mod class_dice;
mod evaluation;
mod examples;
mod objective;
mod report;

use anyhow::{Result, bail};
use dataset::Subset;
use dataset::commands::cli::UsageError;
use dataset::format::mask_column::MaskColumn;
use dataset::format::schema::MASKS;
use dataset::transform::{Crop, Transform};

use super::{
    Comparison, ComparisonRequest, DataSource, Evaluated, EvaluationOption, EvaluationRequest, Metric,
    PredictionRequest, Prepared, RecordMetric, Request, Task, Training, compare_records, data_warnings,
    resolve_finetune,
};
use crate::config::{ConfigFile, FinetuneConfig, Recipe, SegmentConfig, segment_recipe};
use crate::report::{Run, Section};
use crate::train::distributed::Compute;
use crate::train::lr_schedule::WarmupPoly;

pub use evaluation::SegmentationReport;
pub use examples::examples_image;
pub use objective::{MaskRule, MaskScore, MaskedDataset, SegmentLoss, Segmentation, SegmentedRecord, segment};

/// Segmentation of a finding's masks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Segment;

impl Task for Segment {
    fn kind(&self) -> &'static str {
        "segment"
    }

    fn title(&self) -> &'static str {
        "segmentation"
    }

    /// The name takes any dataset with masks; SIIM-ACR is the one with published figures.
    fn names(&self) -> &'static [&'static str] {
        &["siim"]
    }

    fn resolve(&self, request: &Request) -> Result<ConfigFile> {
        let records = |config: &SegmentConfig| {
            Ok(training_rows(config, request.source, &with_mask(&masked(config, request.source))?)?.len())
        };
        let defaults = |preset: &str| segment_recipe(preset, request.task, request.ratio, request.recipe);
        ConfigFile::of(self.kind(), &resolve_finetune(request, defaults, records, None)?)
    }

    fn recipes(&self) -> &'static [Recipe] {
        &Recipe::ALL
    }

    fn check(&self, config: &ConfigFile) -> Result<()> {
        config.read::<SegmentConfig>()?.validate()
    }

    fn prepare<'a>(&self, config: &ConfigFile, source: &'a DataSource) -> Result<Prepared<'a>> {
        let config: SegmentConfig = config.read()?;
        config.validate().map_err(UsageError::of)?;
        let schedule = &config.optimizer.schedule;
        let known = with_mask(&masked(&config, source))?;
        let rows = training_rows(&config, source, &known)?;
        let mut validate = source.subset(Subset::Validate, None)?;
        validate.retain(|&row| known[row as usize]);
        let mut warnings = data_warnings(&config.keys.provenance);
        warnings.extend(source.ratio_warning(config.keys.ratio, &[])?);
        warnings.extend(schedule.epoch(rows.len()).warning(schedule.steps, schedule.patience));
        Ok(Prepared {
            steps: schedule.steps,
            run: config.run.clone(),
            init: config.keys.provenance.init.clone(),
            warnings,
            build: Box::new(move |compute| training(config, source, rows, validate, compute)),
        })
    }

    fn evaluation_options(&self) -> &'static [EvaluationOption] {
        &[EvaluationOption::MinArea]
    }

    fn evaluate(&self, request: &EvaluationRequest) -> Result<Evaluated> {
        evaluation::evaluate(request)
    }

    fn metrics(&self, evaluation: &serde_json::Value) -> Result<Vec<Metric>> {
        evaluation::metrics(evaluation)
    }

    fn compare(&self, request: &ComparisonRequest) -> Result<Comparison> {
        const DRAWN: Option<&str> = Some("target_area");
        const METRICS: [RecordMetric; 4] = [
            RecordMetric { key: "dice", column: "dice", title: "Dice", only_where: None },
            RecordMetric { key: "iou", column: "iou", title: "IoU", only_where: None },
            RecordMetric { key: "dice_positive", column: "dice", title: "Dice, something drawn", only_where: DRAWN },
            RecordMetric { key: "iou_positive", column: "iou", title: "IoU, something drawn", only_where: DRAWN },
        ];
        compare_records(request, &METRICS, "target_area")
    }

    fn predict(&self, request: &PredictionRequest) -> Result<String> {
        bail!(
            "{} is a segmentation run, and predict writes probabilities of findings; `trainer evaluate` writes the masks that \
             it predicts",
            request.run.display()
        )
    }

    fn curves(&self) -> &'static [(&'static str, &'static str)] {
        &[("loss", "loss"), ("validate_dice", "validation Dice")]
    }

    fn report(&self, runs: &[&Run]) -> Result<Vec<Section>> {
        report::sections(runs)
    }
}

/// The transform for evaluation: the whole image, whatever its aspect ratio, so that no part of a mask is cut away.
fn evaluation_transform(config: &SegmentConfig) -> Transform {
    let size = config.model.vit.image_size as u32;
    config.data.image.normalized(Transform { crop: Crop::Stretch, ..Transform::evaluate(size) })
}

/// The masks that a run learns.
fn masked(config: &SegmentConfig, source: &DataSource) -> MaskedDataset {
    MaskedDataset { dataset: source.dataset.clone(), mask: config.data.mask_name().map(str::to_owned) }
}

/// Whether each record has a mask.
fn with_mask(MaskedDataset { dataset, mask }: &MaskedDataset) -> Result<Vec<bool>> {
    let mut known = Vec::with_capacity(dataset.len());
    for batch in dataset.columns(&[MASKS])? {
        let masks = MaskColumn::of(&batch);
        known.extend(
            (0..batch.num_rows())
                .map(|row| masks.as_ref().is_some_and(|masks| masks.get(row, mask.as_deref()).is_some())),
        );
    }
    if known.contains(&true) {
        return Ok(known);
    }
    if let Some(name) = mask {
        let known = dataset.mask_names();
        bail!(
            "data.mask: no record has a mask `{name}`{}",
            dataset::name_suggestion::did_you_mean(name, known.iter().map(String::as_str))
        );
    }
    bail!("this dataset has no masks, which segmentation learns from; `ingest siim` and `ingest join` make some")
}

/// Rows of the training records with a mask (`known` says which have one), as often as an epoch has them.
fn training_rows(config: &SegmentConfig, source: &DataSource, known: &[bool]) -> Result<Vec<u32>> {
    let ratio = config.keys.ratio;
    source.check_ratio(ratio)?;
    let mut rows = source.subset(Subset::Train, Some(ratio))?;
    rows.retain(|&row| known[row as usize]);
    if rows.len() < 2 {
        bail!("{} records with a mask at {ratio}% of the training subset: too few", rows.len());
    }
    if config.data.repeat_positives > 1 {
        let MaskedDataset { dataset, mask } = masked(config, source);
        let drawn = dataset.has_drawn_mask(mask.as_deref())?;
        let times = |row: u32| if drawn[row as usize] { config.data.repeat_positives } else { 1 };
        rows = rows.into_iter().flat_map(|row| std::iter::repeat_n(row, times(row))).collect();
    }
    Ok(rows)
}

/// Builds the model; the run keeps the best weights by the validation subset's Dice (`optimizer.select_by`).
fn training<'a>(
    config: SegmentConfig,
    source: &'a DataSource,
    rows: Vec<u32>,
    validate: Vec<u32>,
    compute: &Compute,
) -> Result<Training<'a>> {
    let device = compute.device;
    let schedule = config.optimizer.schedule.clone();
    let transform = evaluation_transform(&config);
    let data = masked(&config, source);
    let objective = Segmentation::new(
        &config.model,
        schedule.layer_decay,
        config.prediction,
        &data,
        validate,
        transform.clone(),
        compute,
    )?
    .encoder(config.optimizer.encoder)
    .minimizing(config.optimizer.loss, config.optimizer.select_by);
    let distinct = rows.chunk_by(|a, b| a == b).count();
    let curve = WarmupPoly {
        peak: schedule.lr,
        floor: 0.0,
        power: config.optimizer.power,
        warmup: schedule.warmup,
        total: schedule.steps,
    };
    let summary = format!("{distinct} records with a mask ({} an epoch), {} steps", rows.len(), schedule.steps);
    let (batch_size, transform) = (schedule.batch_size, config.data.image.augmented(transform));
    let loader = move || {
        let builder = source.training_loader(&rows, batch_size, &config.run, device);
        data.with_masks(builder).transform(transform.clone())
    };
    Ok(Training {
        skip: Box::new(|_| false),
        lr: Box::new(move |step| curve.at(step)),
        ..Training::finetuning(objective, source, &schedule, loader, summary)
    })
}
