//! `trainer finetune` for classification.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use dataset::commands::cli::UsageError;
use dataset::transform::{ASPECT, Crop, Transform};
use dataset::{Ratio, Subset};
use tch::Device;

use super::{Codes, DataSource, place, seed_start_values, seen_before, unfinished_start};
use crate::config::{self, AnyConfig, Epoch, FinetuneConfig, PRESETS, RANDOM, RANDOM_NAME, Task, overlay, preset_hint};
use crate::model::vit::VitConfig;
use crate::task::objective::Objective;
use crate::task::{Classification, LabelCounts, Labels, blank_remedy};
use crate::train::lr_schedule::WarmupCosine;
use crate::train::run_dir::{self, RunDir};
use crate::train::train_loop::{self, Outcome, Settings};

/// The transform for evaluation of a classifier.
pub fn evaluation_transform(config: &FinetuneConfig) -> Transform {
    Transform {
        mean: config.data.mean as f32,
        std: config.data.std as f32,
        ..Transform::evaluate(config.model.vit.image_size as u32)
    }
}

/// The labels of a run's task in a dataset, and which records count for it.
pub(super) struct TaskLabels {
    pub labels: Labels,
    /// Codes of all records.
    codes: Arc<Codes>,
    /// Places of the findings of which one must be positive; none: all records count.
    only_with: Vec<usize>,
}

impl TaskLabels {
    pub(super) fn read(config: &FinetuneConfig, source: &DataSource) -> Result<Self> {
        let (data, dataset) = (&config.data, &source.dataset);
        let labels = Labels::new(dataset, &config.findings, data.uncertain, &data.uncertain_by_finding, data.missing)?;
        let wanted = Task::parse(&config.task)?.only_with;
        let only_with = (0..dataset.findings().len()).filter(|&at| wanted.contains(&dataset.findings()[at])).collect();
        Ok(Self { labels, codes: source.labels()?, only_with })
    }

    /// Rows of a subset with at least one target that counts.
    pub(super) fn rows(&self, source: &DataSource, subset: Subset, ratio: Option<f64>) -> Result<Vec<u32>> {
        let mut rows = source.split()?.rows(subset, ratio.map(Ratio::from_percent).transpose()?);
        rows.retain(|&row| {
            let codes = &self.codes[row as usize];
            self.asks_for(codes) && self.labels.targets(codes).iter().any(Option::is_some)
        });
        Ok(rows)
    }

    /// Whether a record counts for the task, by its codes.
    fn asks_for(&self, codes: &[Option<i8>]) -> bool {
        self.only_with.is_empty() || self.only_with.iter().any(|&column| codes[column] == Some(1))
    }

    /// The labels of a subset by finding, and how they are counted; blank ones included.
    pub(super) fn counts(&self, source: &DataSource, subset: Subset, ratio: Option<f64>) -> Result<Vec<LabelCounts>> {
        let rows = source.split()?.rows(subset, ratio.map(Ratio::from_percent).transpose()?);
        let codes = rows.iter().map(|&row| self.codes[row as usize].as_slice());
        Ok(self.labels.counts(codes.filter(|codes| self.asks_for(codes))))
    }

    /// Targets of some rows, one list a row.
    pub(super) fn targets(&self, rows: &[u32]) -> Vec<Vec<Option<bool>>> {
        rows.iter().map(|&row| self.labels.targets(&self.codes[row as usize])).collect()
    }
}

/// What was asked of a fine-tuning run.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub task: &'a str,
    /// Start weights; none for start values.
    pub init: Option<&'a Path>,
    /// None: that of the start weights' run, else the first one.
    pub preset: Option<&'a str>,
    /// The dataset, with the split to train on.
    pub source: &'a DataSource,
    /// Percentage of the training labels.
    pub ratio: f64,
    pub steps: Option<u64>,
    /// In place of `steps`.
    pub epochs: Option<f64>,
    /// A configuration file's text.
    pub file: Option<&'a str>,
    /// `key=value`.
    pub settings: &'a [String],
}

/// What the start weights of a request decide.
pub(super) struct Start {
    pub preset: String,
    /// Sizes of the encoder of the run they come from, mean and standard deviation of its pixels; none without a run.
    pub encoder: Option<(VitConfig, f64, f64)>,
    /// Where they lie, or [`RANDOM`].
    pub init: String,
    /// What tables call them.
    pub name: String,
}

impl Start {
    /// # Errors
    /// When they come from a run of another preset than the request's.
    pub fn of(request: &Request) -> Result<Self> {
        let Some(init) = request.init else {
            let preset = request.preset.unwrap_or(PRESETS[0]).to_owned();
            return Ok(Self { preset, encoder: None, init: RANDOM.to_owned(), name: RANDOM_NAME.to_owned() });
        };
        if init == Path::new(RANDOM) && !init.exists() {
            return Err(UsageError::of(anyhow!("--init {RANDOM}: leave --init out for a random start")));
        }
        // A file belongs to the run that it lies in; a folder must be one.
        let run = if init.is_file() { run_dir::run_of(init).ok() } else { Some(init.to_path_buf()) };
        let config = run.as_deref().map(AnyConfig::load).transpose()?;
        let of_run = config.as_ref().map(AnyConfig::preset);
        if let (Some(of_run), Some(preset)) = (of_run, request.preset)
            && of_run != preset
        {
            bail!("{} is of a run of preset {of_run}, not {preset}: leave --preset out", init.display());
        }
        let preset = request.preset.or(of_run).unwrap_or(PRESETS[0]).to_owned();
        let named = run.as_deref().unwrap_or(init);
        // The same place is written in one way: without a slash at its end, and without `./` before it.
        let init: PathBuf = init.components().filter(|part| *part != Component::CurDir).collect();
        let name = format!("pre-trained ({})", named.file_name().unwrap_or(named.as_os_str()).to_string_lossy());
        let encoder = config.map(AnyConfig::encoder);
        Ok(Self { preset, init: init.to_string_lossy().into_owned(), name, encoder })
    }
}

/// The configuration of a request: defaults, preset, start weights, file, settings, in this order.
pub fn resolve_finetune(request: &Request) -> Result<FinetuneConfig> {
    let task = Task::parse(request.task)?;
    let start = Start::of(request)?;
    let mut config = config::finetune_preset(&start.preset, &task, request.ratio)?;
    (config.dataset, config.split, config.split_members) = request.source.identities();
    (config.init, config.start) = (start.init, start.name);
    if let Some((vit, mean, std)) = start.encoder {
        (config.model.vit, config.data.mean, config.data.std) = (vit, mean, std);
    }
    if task.has_no_recipe() {
        let epoch = epoch_of(&config, request)?;
        config.take_default_length(epoch);
    }
    config = overlay(&config, request.file, &[])?;
    if let Some(steps) = request.steps {
        config.take_steps(steps);
    } else if let Some(epochs) = request.epochs {
        let epoch = epoch_of(&config, request)?;
        config.take_epochs(epochs, epoch);
    }
    overlay(&config, None, request.settings)
}

/// An epoch of the training records, by the request's settings.
fn epoch_of(config: &FinetuneConfig, request: &Request) -> Result<Epoch> {
    let settled = overlay(&overlay(config, request.file, &[])?, None, request.settings)?;
    let task = TaskLabels::read(&settled, request.source)?;
    request.source.split()?.check_ratio(Ratio::from_percent(request.ratio)?)?;
    let records = task.rows(request.source, Subset::Train, Some(request.ratio))?.len();
    Ok(Epoch::new(records, settled.optimizer.batch_size, settled.optimizer.accumulation))
}

/// Whether start weights come from a run with the same findings, or from no run.
fn same_findings(init: &Path, config: &FinetuneConfig) -> bool {
    match run_dir::run_of(init).and_then(|run| AnyConfig::load(&run)) {
        Ok(AnyConfig::Finetune(before)) => before.findings == config.findings,
        _ => true,
    }
}

/// A fine-tuning run that can begin: dataset and split have what it asks for.
pub struct Finetuning<'a> {
    config: FinetuneConfig,
    source: &'a DataSource,
    labels: Labels,
    train: Vec<u32>,
    validate: Vec<u32>,
    validate_targets: Vec<Vec<Option<bool>>>,
    /// The labels of the training and the validation records by finding.
    counts: [Vec<LabelCounts>; 2],
    remarks: Vec<String>,
}

/// Checks configuration, dataset and split; before anything is written.
pub fn prepare_finetune(config: FinetuneConfig, source: &DataSource) -> Result<Finetuning<'_>> {
    config.validate().map_err(UsageError::of)?;
    let task = TaskLabels::read(&config, source)?;
    source.split()?.check_ratio(Ratio::from_percent(config.ratio)?)?;
    let train = task.rows(source, Subset::Train, Some(config.ratio))?;
    let validate = task.rows(source, Subset::Validate, None)?;
    let (targets, validate_targets) = (task.targets(&train), task.targets(&validate));
    let has = |targets: &[Vec<Option<bool>>], class: usize, wanted| targets.iter().any(|t| t[class] == Some(wanted));
    let both = |targets: &[Vec<Option<bool>>]| {
        (0..config.findings.len()).any(|class| has(targets, class, true) && has(targets, class, false))
    };
    let counts =
        [task.counts(source, Subset::Train, Some(config.ratio))?, task.counts(source, Subset::Validate, None)?];
    if !both(&targets) {
        bail!(
            "the {} labeled training records at {}% have no finding with both classes: there is nothing to learn{}",
            train.len(),
            config.ratio,
            blank_remedy(&counts[0])
        );
    }
    let seen = seen_before(&config.init, (&config.dataset, &config.split, &config.split_members));
    let mut remarks: Vec<String> = unfinished_start(&config.init).into_iter().chain(seen).collect();
    let optimizer = &config.optimizer;
    let epoch = Epoch::new(train.len(), optimizer.batch_size, optimizer.accumulation);
    remarks.extend(epoch.warning(optimizer.steps, optimizer.patience));
    for (label, name, remedy) in [(true, "positive", ""), (false, "negative", blank_remedy(&counts[0]))] {
        let never: Vec<&str> = (config.findings.iter().enumerate())
            .filter(|(class, _)| !has(&targets, *class, label))
            .map(|(_, finding)| finding.as_str())
            .collect();
        if !never.is_empty() {
            let (count, never) = (train.len(), never.join(", "));
            remarks.push(format!("no {name} among the {count} training records of: {never}{remedy}"));
        }
    }
    remarks.extend(source.split()?.ratio_warning(Ratio::from_percent(config.ratio)?, &config.findings));
    if !both(&validate_targets) {
        remarks.push(format!(
            "the {} labeled validation records have no finding with both classes: the last weights will be kept, not \
             the best",
            validate.len()
        ));
    }
    Ok(Finetuning { labels: task.labels, config, source, train, validate, validate_targets, counts, remarks })
}

impl Finetuning<'_> {
    /// The configuration.
    pub fn config(&self) -> &FinetuneConfig {
        &self.config
    }

    /// What is weak in the data, but no error.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Trains; the best weights by the validation subset's mean AUROC are kept.
    pub fn train(self, run: &RunDir, device: Device) -> Result<Outcome> {
        let Self { config, source, labels, train: rows, validate, validate_targets, counts, .. } = self;
        seed_start_values(&config.run);
        let dataset = &source.dataset;
        let objective = Classification::new(&config.model, labels, dataset, evaluation_transform(&config), device)?
            .validate(validate, validate_targets)
            .layer_decay(config.optimizer.layer_decay)
            .linear_probe(config.optimizer.linear_probe);
        if config.init != RANDOM {
            let init = Path::new(&config.init);
            // A head of other findings says nothing about these.
            let leave: fn(&str) -> bool =
                if same_findings(init, &config) { |_| false } else { |name| name.starts_with("head.") };
            super::initialize(objective.store(), init, leave, preset_hint)?;
        }
        let optimizer = &config.optimizer;
        for (counts, of) in counts.iter().zip(["training", "validation"]) {
            dataset::cli_println!(
                "{of} labels; data.uncertain and data.missing say what uncertain and blank ones count as:"
            );
            counts.iter().for_each(|count| dataset::cli_println!("{count}"));
        }
        let epoch = Epoch::new(rows.len(), optimizer.batch_size, optimizer.accumulation);
        dataset::cli_println!(
            "{} labeled records, {} updates ({:.1} epochs), on {}",
            rows.len(),
            optimizer.steps,
            optimizer.steps as f64 / epoch.updates,
            place(device, &config.run)
        );
        let loader = |state| {
            Ok(source
                .training_loader(&rows, optimizer.batch_size, &config.run, device)
                .transform(Transform {
                    crop: Crop::RandomResized { scale: (config.data.crop_scale, 1.0), aspect: ASPECT },
                    flip: config.data.flip,
                    ..evaluation_transform(&config)
                })
                .resume(state)
                .build()?)
        };
        let schedule = WarmupCosine {
            peak: optimizer.rate,
            floor: 0.0,
            warmup: optimizer.warmup as f64,
            total: optimizer.steps as f64,
        };
        let settings = Settings {
            optimizer: optimizer.rule.config(),
            weight_decay: optimizer.weight_decay,
            lr: &|step| schedule.in_steps(step),
            steps: optimizer.steps,
            accumulation: optimizer.accumulation,
            clip: optimizer.clip,
            evaluate_every: optimizer.evaluate_every,
            patience: optimizer.patience,
            run: &config.run,
            record_ids: &|rows| source.record_ids(rows),
            notify: &|message| dataset::cli_eprintln!("{message}"),
        };
        train_loop::train(&objective, &loader, &settings, run)
    }
}
