//! A run that can begin, and its training: what is the same for all tasks.

use std::path::Path;

use anyhow::{Result, anyhow};
use dataset::commands::cli::{UsageError, counted};
use dataset::loader::LoaderBuilder;
use dataset::{Loader, LoaderState, random};
use tch::Device;

use super::data_source::{DataSource, loader_threads};
use super::objective::Objective;
use crate::config::{DatasetId, Provenance, RANDOM, RunConfig, Schedule, preset_hint};
use crate::train::cuda_graph;
use crate::train::distributed::{Compute, ProcessGroup};
use crate::train::lr_range_test::{self, RangeTest};
use crate::train::lr_schedule::{WarmupCosine, WarmupWave};
use crate::train::optimizer::OptimizerConfig;
use crate::train::run_dir::{self, RunDir};
use crate::train::threads::{self, Threads};
use crate::train::train_loop::{self, Outcome, Settings};
use crate::weights::LoadReport;
use crate::weights::source::initialize;

/// A run whose configuration, dataset and split fit; nothing is written, and no model is built yet.
pub struct Prepared<'a> {
    /// Steps of the whole run.
    pub steps: u64,
    /// Section `[run]` of its configuration.
    pub run: RunConfig,
    /// The pretrained run or file, or [`RANDOM`].
    pub init: String,
    /// What is weak in the data or the settings, but no error.
    pub warnings: Vec<String>,
    /// Builds the model on a device; collectives of its objective go to the group.
    pub build: Build<'a>,
}

/// Builds the model of a run, and loads what it learns from.
pub type Build<'a> = Box<dyn FnOnce(&Compute) -> Result<Training<'a>> + 'a>;

/// What the training loop needs of a task.
pub struct Training<'a> {
    /// The model, its loss, and its evaluation during training.
    pub objective: Box<dyn Objective + 'a>,
    /// Makes the loader of training batches.
    pub loader: Box<dyn Fn() -> LoaderBuilder + 'a>,
    /// The dataset, for messages that name records.
    pub source: &'a DataSource,
    /// Whether a tensor of the pretrained weights is left out.
    pub skip: Box<dyn Fn(&str) -> bool + 'a>,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
    /// Its weight decay.
    pub weight_decay: f64,
    /// Learning rate of step `n`, from 0.
    pub lr: Box<dyn Fn(u64) -> f64 + 'a>,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Largest gradient norm; 0: no clipping.
    pub clip: f64,
    /// Steps between two evaluations; 0: none.
    pub evaluate_every: u64,
    /// Evaluations without a better score after which the run ends; 0: it makes all its steps.
    pub patience: u64,
    /// Lines about the data, shown before the first step.
    pub notes: Vec<String>,
    /// Records and length in one line: `48 records, 6.0 steps an epoch, 12 steps`.
    pub summary: String,
}

impl<'a> Training<'a> {
    /// Fine-tuning as most tasks do it: AdamW, half a cosine (or more, by `cosine_steps`) after the warm-up, all pretrained tensors but those of a head.
    /// The fields may be changed afterwards.
    pub fn finetuning(
        objective: impl Objective + 'a,
        source: &'a DataSource,
        schedule: &Schedule,
        loader: impl Fn() -> LoaderBuilder + 'a,
        summary: String,
    ) -> Self {
        let (warmup, total) = (schedule.warmup as f64, schedule.steps as f64);
        let curve = WarmupCosine { peak: schedule.lr, floor: 0.0, warmup, total };
        let wave = WarmupWave { peak: schedule.lr, warmup, half: schedule.cosine_steps as f64 };
        let ends_with_run = schedule.cosine_steps == 0;
        Self {
            objective: Box::new(objective),
            loader: Box::new(loader),
            source,
            skip: Box::new(|name| name.starts_with("head.")),
            optimizer: OptimizerConfig::ADAMW,
            weight_decay: schedule.weight_decay,
            lr: Box::new(move |step| if ends_with_run { curve.in_steps(step) } else { wave.in_steps(step) }),
            accumulation: schedule.accumulation,
            clip: schedule.clip,
            evaluate_every: schedule.evaluate_every,
            patience: schedule.patience,
            notes: Vec::new(),
            summary,
        }
    }
}

/// A run with its model built and its pretrained weights loaded.
pub struct TrainingRun<'a> {
    training: Training<'a>,
    group: ProcessGroup,
    steps: u64,
    run: RunConfig,
    /// What was loaded, which records there are, and where the run computes: lines to show before the first step.
    pub notes: Vec<String>,
}

impl<'a> Prepared<'a> {
    /// Builds the model, and loads the pretrained weights.
    ///
    /// # Errors
    /// When the weights do not fit the model.
    pub fn begin(self, compute: &Compute) -> Result<TrainingRun<'a>> {
        seed_initialization(&self.run);
        let mut training = (self.build)(compute)?;
        if self.run.cuda_graph {
            cuda_graph::check(&*training.objective, &compute.group).map_err(UsageError::of)?;
        }
        let mut notes = Vec::new();
        if self.init != RANDOM {
            let source = Path::new(&self.init);
            let report = initialize(training.objective.store(), source, &*training.skip, preset_hint)?;
            notes.push(format!("{}: {report}", source.display()));
            notes.extend(other_vocabulary(&report));
        }
        notes.append(&mut training.notes);
        notes.push(format!("{}, on {}", training.summary, place(compute, &self.run)));
        Ok(TrainingRun { training, group: compute.group.clone(), steps: self.steps, run: self.run, notes })
    }
}

impl TrainingRun<'_> {
    /// Trains, continuing from the newest checkpoint in `run`, which only the main process of a group has. `notify` gets the
    /// messages of the run, one line each.
    ///
    /// # Errors
    /// As [`train_loop::train`]; also when a batch cannot be divided among the processes.
    pub fn train(&self, run: Option<&RunDir>, notify: &dyn Fn(&str)) -> Result<Outcome> {
        let objective = &*self.training.objective;
        self.with_settings(notify, |settings, loader| train_loop::train(objective, loader, settings, run, &self.group))
    }

    /// Trains with a growing learning rate ([`lr_range_test`]) and returns the curve of the loss. The weights are of no use
    /// afterwards: build the run again.
    ///
    /// # Errors
    /// When a record cannot be read, a process is lost, torch fails, or no learning rate lowers the loss.
    pub fn range_test(&self, notify: &dyn Fn(&str)) -> Result<Option<RangeTest>> {
        let objective = &*self.training.objective;
        self.with_settings(notify, |settings, loader| lr_range_test::run(objective, loader, settings, &self.group))
    }

    /// The loader of this process's share of the batches, at a position.
    fn loader(&self, state: LoaderState, notify: &dyn Fn(&str)) -> Result<Loader> {
        let Self { training, group, .. } = self;
        let (rank, world_size) = (group.rank(), group.world_size());
        let builder = (training.loader)();
        let batch = builder.global_batch_size();
        if !batch.is_multiple_of(world_size) {
            return Err(UsageError::of(anyhow!(
                "a batch of {batch} records cannot be divided among {world_size} processes: set optimizer.batch_size, which \
                 is the batch of all of them, to a multiple of {world_size}"
            )));
        }
        let loader = builder.distributed(rank, world_size).resume(state).build()?;
        for dataset in loader.tokenized().into_iter().filter(|_| group.is_main()) {
            notify(&format!(
                "{}: its reports were made by another tokenizer, and are tokenized again as they are loaded",
                training.source.names()[dataset]
            ));
        }
        Ok(loader)
    }

    /// Calls `act` with what a training loop needs to know, and with what makes its loader at a position.
    fn with_settings<T>(
        &self,
        notify: &dyn Fn(&str),
        act: impl FnOnce(&Settings, &dyn Fn(LoaderState) -> Result<Loader>) -> Result<T>,
    ) -> Result<T> {
        let training = &self.training;
        let datasets = training.source.names();
        let settings = Settings {
            optimizer: training.optimizer,
            weight_decay: training.weight_decay,
            lr: &training.lr,
            steps: self.steps,
            accumulation: training.accumulation,
            clip: training.clip,
            evaluate_every: training.evaluate_every,
            patience: training.patience,
            run: &self.run,
            datasets: &datasets,
            record_ids: &|records| training.source.record_ids(records),
            notify,
        };
        act(&settings, &|state| self.loader(state, notify))
    }
}

/// Seeds torch's generator, which gives random initializations.
fn seed_initialization(run: &RunConfig) {
    // The text is part of the seed: another one would change the initialization of every run.
    tch::manual_seed(random::mix(&[run.seed, random::digest("start values")]) as i64);
}

/// Sets the threads of a run; returns the device and the numbers of threads, in words.
fn place(compute: &Compute, run: &RunConfig) -> String {
    let (device, world_size) = (compute.device, compute.group.world_size());
    let Threads { count, from } = threads::set(run.threads);
    let loader = loader_threads(device, run);
    let all = if world_size > 1 { format!("{world_size} processes, each on ") } else { String::new() };
    format!("{all}{} with {} ({from}) and {loader} of the loader", device_name(device), counted(count, "thread"))
}

/// A note where the weights know another number of tokens than the run's tokenizer.
fn other_vocabulary(report: &LoadReport) -> Option<String> {
    let change = report.mismatched.iter().find(|change| change.name.ends_with("word_embeddings.weight"))?;
    let [theirs, ours] = [&change.from, &change.to].map(|shape| shape.first().copied().unwrap_or(0));
    (theirs != ours).then(|| {
        format!(
            "the weights know {theirs} tokens, this run {ours}: their table of tokens is not used. Ingest with their tokenizer \
             (ingest --tokenizer FILE) to use it"
        )
    })
}

/// A device as it is typed.
pub(crate) fn device_name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".to_owned(),
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// Warnings about the pretrained weights of a run: that their run is unfinished, or has seen records that the split may test
/// on.
pub fn data_warnings(provenance: &Provenance) -> Vec<String> {
    unfinished_init(&provenance.init).into_iter().chain(seen_before(provenance)).collect()
}

/// A warning where the pretrained weights, or those that they were initialized with, were trained on records of this dataset
/// that its split may test on.
fn seen_before(provenance: &Provenance) -> Option<String> {
    let mut init = provenance.init.clone();
    // Runs that began with runs; a chain is not longer than this.
    for _ in 0..16 {
        let run = run_dir::run_of(Path::new(&init)).ok()?;
        let before = run_dir::load_config(&run).ok()?.common().ok()?.provenance;
        let differs = |(id, members): &(&DatasetId, &str)| before.split_of(id).is_some_and(|known| known != *members);
        if provenance.datasets().any(|dataset| differs(&dataset)) {
            let how =
                if before.split.is_empty() { "all records".to_owned() } else { format!("split `{}`", before.split) };
            return Some(format!(
                "{} was trained on {how} of this dataset: split `{}` may test on patients it has seen, and its metrics on \
                 that subset are then too high",
                run.display(),
                provenance.split
            ));
        }
        init = before.init;
    }
    None
}

/// A warning where pretrained weights are those of a run that has not made all its steps. A file is what the user chose.
pub(crate) fn unfinished_init(init: &str) -> Option<String> {
    let run = Path::new(init);
    let config = run.is_dir().then(|| run_dir::load_config(run).ok()).flatten()?;
    run_dir::unfinished(run, config.common().ok()?.steps)
}
