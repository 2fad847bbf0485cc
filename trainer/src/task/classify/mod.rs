//! The task `classify`: a classifier learns the findings of labeled radiographs.

mod adaptive_bins;
mod comparison;
mod curve_charts;
mod curve_table;
mod evaluation;
mod label_counts;
mod label_loss;
mod labels;
mod metric_table;
mod mixup;
mod objective;
mod output;
mod prediction;
mod records;
mod report;
mod results;
mod run_thresholds;
mod scored;
mod small_set;
mod subgroup_table;
mod thresholds;

use std::path::Path;

use anyhow::{Result, bail};
use dataset::Subset;
use dataset::commands::cli::UsageError;
use dataset::transform::Transform;

use super::{
    Comparison, ComparisonRequest, DataSource, Evaluated, EvaluationOption, EvaluationRequest, Metric,
    PredictionRequest, Prepared, Request, Task, Training, data_warnings, lengths, resolve_finetune,
};
use crate::config::{ClassWeights, ClassifyConfig, ConfigFile, FindingTask, FinetuneConfig, Recipe, classify_recipe};
use crate::report::{Run, Section};
use crate::train::distributed::Compute;
use crate::train::run_dir;

use label_loss::balanced_weights;

pub use comparison::{ClassificationComparison, FindingDifference};
pub(crate) use evaluation::labeled_rows;
pub use label_counts::{LabelCounts, OpenLabels, remedy as blank_remedy};
pub use label_loss::LabelLoss;
pub use labels::{Labels, Missing, Uncertain};
pub(crate) use metric_table::add_scores;
pub use objective::{Classification, predict};
pub(crate) use output::write_tables;
pub use records::{LabelPolicy, TaskLabels};
pub(crate) use report::findings_table;
pub(crate) use results::write_with_note;
pub use results::{AtThreshold, ClassificationReport, FindingCalibration, FindingDecisions, FindingScores};
pub(crate) use scored::{Measures, Scored};

/// Classification of findings.
#[derive(Debug, Clone, Copy, Default)]
pub struct Classify;

impl Task for Classify {
    fn kind(&self) -> &'static str {
        "classify"
    }

    fn title(&self) -> &'static str {
        "classification"
    }

    fn names(&self) -> &'static [&'static str] {
        &FindingTask::NAMES
    }

    fn takes(&self, name: &str) -> Result<bool> {
        Ok(FindingTask::is_name(name) && FindingTask::parse(name).map(|_| true)?)
    }

    fn resolve(&self, request: &Request) -> Result<ConfigFile> {
        let task = FindingTask::parse(request.task)?;
        let config = resolve_finetune(
            request,
            |preset| classify_recipe(preset, &task, request.ratio, request.recipe),
            |config| {
                let rows_of =
                    |source| TaskLabels::read(config, source)?.rows(source, Subset::Train, Some(request.ratio));
                let rows = request.source.all().map(rows_of).collect::<Result<Vec<_>>>()?;
                request.source.epoch_records(&lengths(&rows))
            },
            match request.recipe {
                Recipe::Release if !task.has_no_recipe() => None,
                _ => Some(ClassifyConfig::take_length),
            },
        )?;
        ConfigFile::of(self.kind(), &config)
    }

    fn recipes(&self) -> &'static [Recipe] {
        &Recipe::ALL
    }

    fn check(&self, config: &ConfigFile) -> Result<()> {
        config.read::<ClassifyConfig>()?.validate()
    }

    fn prepare<'a>(&self, config: &ConfigFile, source: &'a DataSource) -> Result<Prepared<'a>> {
        let config: ClassifyConfig = config.read()?;
        config.validate().map_err(UsageError::of)?;
        let data = TrainingData::read(&config, source)?;
        let warnings = data.warnings(&config, source)?;
        Ok(Prepared {
            steps: config.optimizer.schedule.steps,
            run: config.run.clone(),
            init: config.keys.provenance.init.clone(),
            warnings,
            build: Box::new(move |compute| data.training(config, source, compute)),
        })
    }

    fn takes_mixtures(&self) -> bool {
        true
    }

    fn evaluation_options(&self) -> &'static [EvaluationOption] {
        &[EvaluationOption::Specificity, EvaluationOption::Subgroups]
    }

    fn evaluate(&self, request: &EvaluationRequest) -> Result<Evaluated> {
        evaluation::evaluate(request)
    }

    fn metrics(&self, evaluation: &serde_json::Value) -> Result<Vec<Metric>> {
        evaluation::metrics(evaluation)
    }

    fn compare(&self, request: &ComparisonRequest) -> Result<Comparison> {
        Comparison::of(&comparison::compare(request)?)
    }

    fn predict(&self, request: &PredictionRequest) -> Result<String> {
        prediction::predict_records(request)
    }

    fn curves(&self) -> &'static [(&'static str, &'static str)] {
        &[("loss", "loss"), ("validate_auroc", "validation AUROC")]
    }

    fn report(&self, runs: &[&Run]) -> Result<Vec<Section>> {
        report::sections(runs)
    }
}

/// The transform for evaluation of a classifier: the shorter side on the encoder's size, the center cut out.
fn evaluation_transform(config: &ClassifyConfig) -> Transform {
    config.data.image.normalized(Transform::evaluate(config.model.vit.image_size as u32))
}

/// Whether pretrained weights come from a run with the same findings, or from no run.
fn same_findings(init: &Path, config: &ClassifyConfig) -> bool {
    let before = run_dir::run_of(init).and_then(|run| run_dir::load_config(&run)).and_then(|file| file.read());
    before.map_or(true, |before: ClassifyConfig| before.findings == config.findings)
}

/// The records and labels of a run.
struct TrainingData {
    /// The labels of its batches.
    labels: Labels,
    /// Rows of each dataset.
    train: Vec<Vec<u32>>,
    train_targets: Vec<Vec<Option<bool>>>,
    /// Rows of each dataset.
    validate: Vec<Vec<u32>>,
    validate_targets: Vec<Vec<Option<bool>>>,
    /// The labels of the training and the validation records by finding, of each dataset.
    counts: Vec<[Vec<LabelCounts>; 2]>,
    /// Records of an epoch.
    epoch: usize,
}

/// Whether some record has a target of a class with this value.
fn has(targets: &[Vec<Option<bool>>], class: usize, wanted: bool) -> bool {
    targets.iter().any(|targets| targets[class] == Some(wanted))
}

/// Whether some class has both values.
fn has_both(targets: &[Vec<Option<bool>>], classes: usize) -> bool {
    (0..classes).any(|class| has(targets, class, true) && has(targets, class, false))
}

impl TrainingData {
    fn read(config: &ClassifyConfig, source: &DataSource) -> Result<Self> {
        let ratio = Some(config.keys.ratio);
        let (mut train, mut train_targets) = (Vec::new(), Vec::new());
        let (mut validate, mut validate_targets, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        let mut known: Vec<String> = Vec::new();
        for source in source.all() {
            let task = TaskLabels::read(config, source)?;
            source.check_ratio(config.keys.ratio)?;
            let rows = [task.rows(source, Subset::Train, ratio)?, task.rows(source, Subset::Validate, None)?];
            train_targets.extend(task.targets(&rows[0]));
            validate_targets.extend(task.targets(&rows[1]));
            let [train_rows, validate_rows] = rows;
            train.push(train_rows);
            validate.push(validate_rows);
            counts.push([task.counts(source, Subset::Train, ratio)?, task.counts(source, Subset::Validate, None)?]);
            // The columns of a loader's labels.
            for finding in source.dataset.findings() {
                if !known.contains(finding) {
                    known.push(finding.clone());
                }
            }
        }
        if !has_both(&train_targets, config.findings.len()) {
            bail!(
                "the {} labeled training records at {}% have no finding with both classes: there is nothing to learn{}",
                train_targets.len(),
                config.keys.ratio,
                counts.first().map_or("", |counts| blank_remedy(&counts[0]))
            );
        }
        let data = &config.data;
        let labels = Labels::among(&known, &config.findings, data.uncertain, &data.uncertain_by_finding, data.missing)?;
        let epoch = source.epoch_records(&lengths(&train))?;
        Ok(Self { labels, train, train_targets, validate, validate_targets, counts, epoch })
    }

    fn warnings(&self, config: &ClassifyConfig, source: &DataSource) -> Result<Vec<String>> {
        let mut warnings = data_warnings(&config.keys.provenance);
        let schedule = &config.optimizer.schedule;
        warnings.extend(schedule.epoch(self.epoch).warning(schedule.steps, schedule.patience));
        let blank = self.counts.first().map_or("", |counts| blank_remedy(&counts[0]));
        for (label, name, remedy) in [(true, "positive", ""), (false, "negative", blank)] {
            let never: Vec<&str> = (config.findings.iter().enumerate())
                .filter(|(class, _)| !has(&self.train_targets, *class, label))
                .map(|(_, finding)| finding.as_str())
                .collect();
            if !never.is_empty() {
                let (count, never) = (self.train_targets.len(), never.join(", "));
                warnings.push(format!("no {name} among the {count} training records of: {never}{remedy}"));
            }
        }
        for source in source.all() {
            warnings.extend(source.ratio_warning(config.keys.ratio, &config.findings)?);
        }
        warnings.extend(small_set::warnings(&config.findings, &self.train_targets, &self.validate_targets));
        Ok(warnings)
    }

    fn training<'a>(self, config: ClassifyConfig, source: &'a DataSource, compute: &Compute) -> Result<Training<'a>> {
        let device = compute.device;
        let Self { labels, train: rows, train_targets, validate, validate_targets, counts, epoch } = self;
        let validate = source.all().map(|source| source.dataset.clone()).zip(validate).collect();
        let mut notes = source.mixture_notes(&lengths(&rows))?;
        let mut label_loss = LabelLoss::smoothed(config.optimizer.label_smoothing);
        if config.optimizer.class_weights == ClassWeights::Balanced {
            let weights = balanced_weights(&train_targets, config.findings.len());
            let of_findings =
                config.findings.iter().zip(&weights).map(|(finding, weight)| format!("{finding} {weight:.2}"));
            notes.push(format!("weights of positive labels: {}", of_findings.collect::<Vec<_>>().join(", ")));
            label_loss = label_loss.weighted(&weights, device);
        }
        let objective = Classification::new(&config.model, labels, evaluation_transform(&config), device)?
            .in_group(&compute.group)
            .validate(validate, validate_targets)
            .layer_decay(config.optimizer.schedule.layer_decay)
            .encoder(config.optimizer.encoder)
            .label_loss(label_loss)
            .mixup(config.data.mixup);
        for (counts, name) in counts.iter().zip(source.names()) {
            let place = if source.others.is_empty() { String::new() } else { format!("{name}: ") };
            for (counts, of) in counts.iter().zip(["training", "validation"]) {
                notes.push(format!(
                    "{place}{of} labels; data.uncertain and data.missing decide what uncertain and blank ones count as:"
                ));
                notes.extend(counts.iter().map(LabelCounts::to_string));
            }
        }
        // A head for other findings is of no use for these.
        let keeps_head = same_findings(Path::new(&config.keys.provenance.init), &config);
        let schedule = config.optimizer.schedule.clone();
        let summary = format!(
            "{} labeled records, {} steps ({:.1} epochs)",
            rows.iter().map(Vec::len).sum::<usize>(),
            schedule.steps,
            schedule.steps as f64 / schedule.epoch(epoch).steps
        );
        let (optimizer, transform) = (config.optimizer.kind.config(), evaluation_transform(&config));
        let (batch_size, transform) = (schedule.batch_size, config.data.image.augmented(transform));
        let loader = move || source.mixture_loader(&rows, batch_size, &config.run, device).transform(transform.clone());
        Ok(Training {
            skip: Box::new(move |name| !keeps_head && name.starts_with("head.")),
            optimizer,
            notes,
            ..Training::finetuning(objective, source, &schedule, loader, summary)
        })
    }
}
