//! `trainer finetune`.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::Args;
use dataset::Subset;
use dataset::commands::cli::{self, UsageError};

use super::options::{LengthOptions, LrOption, Program, SettingOptions, TrainingOptions, lr, lr_settings};
use super::training::{RunRequest, quoted, train};
use crate::config::{PRESETS, Recipe};
use crate::task::{Request, Stage, check_recipe, without_init};
use crate::train::lr_range_test::settings_of;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    run: TrainingOptions,
    /// What is learned. Replaced by the names of the program's tasks.
    #[arg(long, value_name = "TASK")]
    task: String,
    /// Pretrained weights: a run or a safetensors file. Without: random initialization.
    #[arg(long, value_name = "RUN|FILE")]
    init: Option<PathBuf>,
    /// Sizes; default: those of the run given by --init, else mrm-vit-b16.
    #[arg(long, value_parser = PRESETS)]
    preset: Option<String>,
    /// Way of fine-tuning: that of MRM's authors, or BenchX's (slower encoder, early stopping; segmentation on a frozen
    /// encoder).
    #[arg(long, default_value = "release", value_name = "release|benchx", value_parser = Recipe::parse)]
    recipe: Recipe,
    /// Highest learning rate [default: the recipe's]; auto: by a range test on the training records.
    #[arg(long, value_name = "auto|LR", value_parser = lr)]
    lr: Option<LrOption>,
    /// Name of the split; `dataset split` makes one.
    #[arg(long)]
    split: String,
    /// Percentage of the training labels; one of the split's ratios.
    #[arg(long, default_value_t = 100.0, value_parser = cli::percent)]
    ratio: f64,
    #[command(flatten)]
    length: LengthOptions,
    #[command(flatten)]
    settings: SettingOptions,
}

pub(super) fn run(arguments: &Arguments, program: &Program) -> Result<u8> {
    let Arguments { run, task, init, preset, recipe, lr, split, ratio, length, settings } = arguments;
    let (name, task) = (task, program.registry.named(Stage::Finetuning, task)?);
    check_recipe(task, name, *recipe)?;
    if run.data.len() > 1 && !task.takes_mixtures() {
        return Err(UsageError::of(anyhow!("--task {name} trains on one dataset: give one --data")));
    }
    let source = run.open(Some(split))?;
    let mut flags = settings.flags();
    flags.extend(length.patience().into_iter().chain(program.threads.clone()));
    if let Some(LrOption::Number(number)) = lr {
        flags.extend(lr_settings(number));
    }
    let (file, model) = (settings.file()?, program.registry.pretrained(init.as_deref())?);
    let request = Request {
        task: name,
        init: init.as_deref(),
        init_name: None,
        model: model.as_ref(),
        preset: preset.as_deref(),
        recipe: *recipe,
        source: &source,
        ratio: *ratio,
        steps: settings.steps,
        epochs: length.epochs,
        file: file.as_deref(),
        settings: &flags,
    };
    let config = task.resolve(&request)?;
    let with_tested_lr = |lr: f64| {
        let settings = [&flags[..], &settings_of(lr)?].concat();
        task.resolve(&Request { settings: &settings, ..request })
    };
    if init.is_none() && program.launch.as_ref().is_none_or(|launch| launch.rank == 0) {
        let common = config.common()?;
        dataset::cli_eprintln!("{}", without_init(&common.preset, &common.encoder.vit, preset.is_some()));
    }
    let tests = source.split.as_ref().is_some_and(|split| !split.rows(Subset::Test, None).is_empty());
    let next = format!(
        "trainer evaluate --data {} --run {} --split {split} --subset {}",
        quoted(run.first()),
        quoted(&run.run),
        if tests { "test" } else { "validate" }
    );
    train(&RunRequest {
        task,
        config: &config,
        source: &source,
        options: run,
        launch: program.launch.as_ref(),
        stop_exit_code: settings.stop.exit_code(),
        with_tested_lr: (*lr == Some(LrOption::Auto)).then_some(&with_tested_lr),
        next: &next,
    })
}
