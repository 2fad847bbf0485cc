//! `trainer pretrain`.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::Args;
use dataset::commands::cli::{self, UsageError};

use super::options::{Program, SettingOptions, TrainingOptions};
use super::training::{RunRequest, quoted, train};
use crate::config::{PRESETS, Recipe};
use crate::task::pretrain::MRM;
use crate::task::{Pretrain, Request, Stage, Task};

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    run: TrainingOptions,
    /// How the encoder is trained. Replaced by the names of the program's objectives.
    #[arg(long, value_name = "NAME", default_value = MRM)]
    objective: String,
    /// Sizes and recipe.
    #[arg(long, value_parser = PRESETS, default_value = "mrm-vit-b16")]
    preset: String,
    /// Train on this split's training subset alone. Without it, all records are used, those of the test subset too.
    #[arg(long)]
    split: Option<String>,
    /// Start from these weights: a run or a safetensors file.
    #[arg(long, value_name = "RUN|FILE")]
    init: Option<PathBuf>,
    /// Epochs of the training records, in place of --steps.
    #[arg(long, conflicts_with = "steps", value_parser = cli::positive)]
    epochs: Option<f64>,
    #[command(flatten)]
    settings: SettingOptions,
}

pub(super) fn run(arguments: &Arguments, program: &Program) -> Result<u8> {
    let Arguments { run, objective, preset, split, init, epochs, settings } = arguments;
    let task = program.registry.named(Stage::Pretraining, objective)?;
    if run.data.len() > 1 && !task.takes_mixtures() {
        return Err(UsageError::of(anyhow!("--objective {objective} trains on one dataset: give one --data")));
    }
    let source = run.open(split.as_deref())?;
    let flags: Vec<String> = settings.flags().into_iter().chain(program.threads.clone()).collect();
    let config = task.resolve(&Request {
        task: objective,
        init: init.as_deref(),
        init_name: None,
        model: None,
        preset: Some(preset),
        recipe: Recipe::default(),
        source: &source,
        ratio: 100.0,
        steps: settings.steps,
        epochs: *epochs,
        file: settings.file()?.as_deref(),
        settings: &flags,
    })?;
    let (data, weights) = (quoted(run.first()), quoted(&run.run));
    let split = split.as_deref().unwrap_or("NAME");
    let mut next =
        format!("trainer finetune --data {data} --run RUN --task TASK --split {split} --ratio 1 --init {weights}");
    if task.kind() == Pretrain.kind() {
        next += &format!(", or trainer reconstruct --data {data} --weights {weights}");
    }
    if !task.evaluation_options().is_empty() {
        next += &format!(", or trainer evaluate --data {data} --run {weights} --split {split}");
    }
    train(&RunRequest {
        task,
        config: &config,
        source: &source,
        options: run,
        launch: program.launch.as_ref(),
        stop_exit_code: settings.stop.exit_code(),
        with_tested_lr: None,
        next: &next,
    })
}
