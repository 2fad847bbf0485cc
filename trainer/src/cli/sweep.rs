//! `trainer sweep`.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::Args;
use dataset::commands::cli::{self, UsageError};

use super::options::{
    DeviceOption, EvaluationArguments, LengthOptions, LrOption, Program, StopOption, lr, lr_settings, read_text,
};
use super::training::warn;
use crate::commands::{self, Axis, InitChoice, Progress, Sweep, sweep_table};
use crate::config::{PRESETS, Recipe};
use crate::report;

#[derive(Args)]
pub(super) struct Arguments {
    /// The dataset: a directory or a URL (s3://BUCKET/PREFIX).
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Folder of the runs, of sweep.md, sweep.json and report.html.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    device: DeviceOption,
    /// What is learned. Replaced by the names of the program's tasks.
    #[arg(long, value_name = "TASK")]
    task: String,
    /// Sizes, where no initialization is a run; else all runs, random ones included, train the model of that run.
    #[arg(long, value_parser = PRESETS)]
    preset: Option<String>,
    /// Use the labels, boxes, masks and texts of this join instead of the dataset's own; may be repeated.
    #[arg(long, value_name = "NAME")]
    join: Vec<String>,
    /// Names of splits.
    #[arg(long, value_name = "A,B", value_delimiter = ',', required = true)]
    split: Vec<String>,
    /// Percentages of the training labels.
    #[arg(long, value_name = "1,10,100", value_delimiter = ',', default_value = "100", value_parser = cli::percent)]
    ratios: Vec<f64>,
    /// Ways of fine-tuning, each a column of the table: that of MRM's authors, or BenchX's (slower encoder, early stopping;
    /// segmentation on a frozen encoder).
    #[arg(long, value_name = "release,benchx", value_delimiter = ',', default_value = "release", value_parser = Recipe::parse)]
    recipe: Vec<Recipe>,
    /// Seeds of the fine-tuning [default: 0; with the recipe benchx 42,0,1].
    #[arg(long, value_name = "0,1,2", value_delimiter = ',')]
    seeds: Option<Vec<u64>>,
    /// Highest learning rate [default: the recipe's]. Several: all are tried in each cell, and the best one on the validation
    /// subset is evaluated; auto: by a range test on the training records of each run.
    #[arg(long, value_name = "auto|1e-3,3e-4", value_delimiter = ',', value_parser = lr)]
    lr: Vec<LrOption>,
    /// Try all of these values in each cell, and evaluate the best one on the validation subset; may be repeated, for all
    /// combinations.
    #[arg(long, value_name = "KEY=VALUE,VALUE", value_parser = commands::parse_axis)]
    grid: Vec<Axis>,
    /// An initialization and its name in the table; all are of the same model; {split} is replaced by the split's name. May
    /// be repeated.
    #[arg(long, value_name = "NAME=RUN|random", required = true, value_parser = commands::parse_init)]
    init: Vec<InitChoice>,
    /// The old name of --init.
    #[arg(long, hide = true, value_parser = start_is_init)]
    start: Option<String>,
    #[command(flatten)]
    evaluation: EvaluationArguments,
    /// Settings in TOML, laid over the preset.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// One setting, laid over all others; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Steps of each run.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    #[command(flatten)]
    length: LengthOptions,
    #[command(flatten)]
    stop: StopOption,
}

fn start_is_init(_: &str) -> Result<String, String> {
    Err("--start is now --init".to_owned())
}

/// The learning rates, and whether a range test gives them.
fn learning_rates(options: Vec<LrOption>) -> Result<(Vec<String>, bool)> {
    if options.contains(&LrOption::Auto) {
        if options.len() > 1 {
            return Err(UsageError::of(anyhow!("--lr: give auto or numbers, not both")));
        }
        return Ok((Vec::new(), true));
    }
    let number = |option| match option {
        LrOption::Number(number) => Some(number),
        LrOption::Auto => None,
    };
    Ok((options.into_iter().filter_map(number).collect(), false))
}

/// Returns the exit code.
pub(super) fn run(arguments: Arguments, program: &Program) -> Result<u8> {
    let device = commands::device(&arguments.device.device)?;
    let file = arguments.config.as_deref().map(read_text).transpose()?;
    let (lr, lr_auto) = learning_rates(arguments.lr)?;
    let mut grid = arguments.grid;
    let mut settings = arguments.set;
    match lr.as_slice() {
        [] => {}
        [only] => settings.extend(lr_settings(only)),
        _ => grid.insert(0, Axis::lr(lr)),
    }
    if lr_auto && grid.iter().any(|axis| axis.key == "optimizer.lr") {
        return Err(UsageError::of(anyhow!("--lr auto and --grid optimizer.lr: give one of them")));
    }
    settings.extend(arguments.length.patience().into_iter().chain(program.threads.clone()));
    let sweep = Sweep {
        data: &arguments.data,
        out: &arguments.out,
        task: &arguments.task,
        preset: arguments.preset.as_deref(),
        joins: arguments.join,
        splits: arguments.split,
        ratios: arguments.ratios,
        recipes: arguments.recipe,
        seeds: arguments.seeds,
        inits: arguments.init,
        grid,
        lr_auto,
        steps: arguments.steps,
        epochs: arguments.length.epochs,
        file: file.as_deref(),
        settings,
        options: arguments.evaluation.options(),
    };
    let plan = sweep.plan(program.registry)?;
    plan.model.iter().for_each(|model| dataset::cli_println!("{model}"));
    warn(&plan.warnings);
    let progress = Progress {
        line: &|line| dataset::cli_println!("{line}"),
        message: &|message| dataset::cli_eprintln!("{message}"),
    };
    let swept = plan.run(device, &progress)?;
    if swept.stopped {
        dataset::cli_println!("stopped; give the same command again to continue ({})", arguments.out.display());
        return Ok(arguments.stop.exit_code());
    }
    let page = arguments.out.join("report.html");
    warn(&report::report(program.registry, &swept.runs, &page)?.warnings);
    dataset::cli_println!("\n{}\nwritten to {}", sweep_table(&swept), page.display());
    Ok(0)
}
