//! The command line: arguments, and one call a command.

mod bench;
mod compare;
mod embed;
mod evaluate;
mod export;
mod finetune;
mod import;
mod options;
mod predict;
mod pretrain;
mod probe;
mod reconstruct;
mod report;
mod sweep;
mod training;

use std::ffi::OsString;

use anyhow::{Result, anyhow};
use clap::{CommandFactory, Parser, Subcommand};
use dataset::commands::cli::{self, HelpFiles, UsageError};

use self::options::Program;
use crate::task::{Registry, Stage};
use crate::torch::{c10d, message, shim};
use crate::train::distributed::{self, Launch};
use crate::train::threads;

/// Masked record modeling: pre-training on radiographs with reports, fine-tuning on few labels, evaluation.
///
/// A run that was stopped continues from its newest checkpoint when the same command is given again.
#[derive(Parser)]
#[command(name = "trainer", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done (or stopped with a checkpoint: --stop-exit-code), 1 failed, 2 usage.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Threads on the CPU [default: OMP_NUM_THREADS, else SLURM_CPUS_PER_TASK, else the cores that this process may use].
    #[arg(long, global = true, value_name = "N", value_parser = cli::count::<{ threads::MOST }>)]
    threads: Option<usize>,
}

#[derive(Subcommand)]
enum Command {
    /// Pretrain an encoder: by reconstructing masked patches and tokens, or by another objective.
    #[command(after_help = "Examples:\n  trainer pretrain --data data/mimic --run runs/mrm --split main\n  \
            trainer pretrain --data data/mimic=0.7 --data data/padchest=0.3 \\\n    --split main --run runs/both")]
    Pretrain(pretrain::Arguments),
    /// Fine-tune a classifier, a segmenter or another task's model on a share of the labels.
    #[command(after_help = "Example:\n  trainer finetune --data data/nih --run runs/nih-1 --task nih14 \\\n    \
            --init runs/mrm --split main --ratio 1")]
    Finetune(finetune::Arguments),
    /// Evaluate a run with patient-level bootstrap intervals: AUROC to calibration, Dice and IoU, or image–text retrieval.
    #[command(
        after_help = "Example: trainer evaluate --data data/nih --run runs/nih-1 --split main --subset test\n         \
        trainer evaluate --data data/mimic --run runs/clip --split main --zero-shot chexpert5"
    )]
    Evaluate(evaluate::Arguments),
    /// Compare two evaluated runs on the same records: differences with a paired bootstrap over patients.
    #[command(after_help = "Example: trainer compare runs/random-1 runs/mrm-1 --subset test")]
    Compare(compare::Arguments),
    /// Fine-tune and evaluate over label ratios, seeds, splits and initializations; one table, one chart.
    #[command(
        after_help = "Example:\n  trainer sweep --data data/nih --out sweeps/nih --task nih14 --split main \\\n    \
            --ratios 1,10,100 --seeds 0,1,2 --init mrm=runs/mrm --init scratch=random\n\n\
            Runs that are done are kept: the same command continues where it was stopped."
    )]
    Sweep(sweep::Arguments),
    /// Write pooled features of radiographs to a Parquet table, one row a record.
    #[command(after_help = "Example: trainer embed --data data/nih --weights runs/mrm --out features.parquet")]
    Embed(embed::Arguments),
    /// Learn from the features of a frozen encoder: logistic regression and nearest neighbors, evaluated on the test subset.
    #[command(after_help = "Example:\n  trainer probe --data data/nih --weights runs/mrm --split main \\\n    \
            --task nih14 --ratio 1,10,100 --out probes/mrm")]
    Probe(probe::Arguments),
    /// Write a classifier's probabilities for radiographs, which need neither labels nor a split.
    #[command(after_help = "Example: trainer predict --data data/new --weights runs/nih-1 --out predictions.csv")]
    Predict(predict::Arguments),
    /// Draw what a pretrained run reconstructs: masked, reconstructed and original images, and the report's tokens.
    #[command(after_help = "Example: trainer reconstruct --data data/mimic --weights runs/mrm --split main --rows 6")]
    Reconstruct(reconstruct::Arguments),
    /// Measure pre-training steps: images a second, utilization, memory, and the time of each phase.
    #[command(after_help = "Example: trainer bench --preset mrm-vit-b16 --batch-size 256 --set run.precision=bf16\n\n\
            Without --data, all steps use the same batch of noise: the step without a loader. --steps is the number of \
            measured steps [default: 10]; --stop-exit-code has no effect.")]
    Bench(bench::Arguments),
    /// Convert weights of PyTorch, timm or Hugging Face to a safetensors file for --init. Nothing in a checkpoint is executed.
    #[command(after_help = "Example: trainer import mae_pretrain_vit_base.pth --out mae.safetensors\n         \
        trainer pretrain --data data/mimic --run runs/mrm --init mae.safetensors")]
    Import(import::Arguments),
    /// Write a run's encoder as a folder that timm or Hugging Face's transformers loads.
    #[command(after_help = "Example: trainer export runs/mrm --to timm --out mrm-timm\n         \
        timm.create_model(\"local-dir:mrm-timm\", pretrained=True)")]
    Export(export::Arguments),
    /// Write one self-contained HTML page over some runs: label efficiency, evaluations, reconstructions, curves, settings.
    #[command(after_help = "Example: trainer report runs/* --out report.html")]
    Report(report::Arguments),
    #[command(flatten)]
    Help(HelpFiles),
}

/// Runs the program with the built-in tasks on a command line, which begins with its name, and returns the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    main_with(Registry::builtin(), arguments)
}

/// Runs the program with the tasks of a registry on a command line.
pub fn main_with(registry: Registry, arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let matches = cli::matches(command(&registry), arguments.clone());
    let cli: Cli = match matches.and_then(|matches| cli::parsed(&matches)) {
        Ok(cli) => cli,
        Err(error) => return cli::answer(&error),
    };
    // Only this process's own command line can be restarted.
    if std::env::args_os().eq(arguments) {
        threads::limit_spinning(cli.threads.unwrap_or(0));
    }
    shim::keep_freed_memory();
    cli::caught(|| run(cli, &registry)).unwrap_or_else(|error| {
        let line = distributed::report(&message::of_error(&error), distributed::was_lost(&error));
        dataset::cli_eprintln!("error: {line}");
        cli::exit_code(&error)
    })
}

/// The command line, with the names of the registry's tasks in the help of `--task` and `--objective`.
fn command(registry: &Registry) -> clap::Command {
    let tasks = format!("What is learned: {}.", registry.names(Stage::Finetuning));
    let objectives = format!("How the encoder is trained: {}.", registry.names(Stage::Pretraining));
    let mut command = Cli::command().long_version(&*version().leak());
    for (subcommand, option, help) in
        [("pretrain", "objective", objectives), ("finetune", "task", tasks.clone()), ("sweep", "task", tasks)]
    {
        command = command.mut_subcommand(subcommand, |command| command.mut_arg(option, |option| option.help(help)));
    }
    command
}

/// What `--version` shows: the program, its libtorch, and what that can use.
fn version() -> String {
    let of_build = |is_there| if is_there { "yes" } else { "no" };
    format!(
        "{}\nlibtorch 2.11.0; CUDA: {}; NCCL: {}; GPUs found: {}",
        env!("CARGO_PKG_VERSION"),
        of_build(tch::utils::has_cudart()),
        of_build(c10d::HAS_NCCL),
        tch::Cuda::device_count()
    )
}

fn run(cli: Cli, registry: &Registry) -> Result<u8> {
    threads::set(cli.threads.unwrap_or(0));
    let trains = matches!(cli.command, Command::Pretrain(_) | Command::Finetune(_));
    let launch = match Launch::from_environment() {
        Ok(launch) => launch,
        // Other commands work alone wherever they are started.
        Err(_) if !trains => None,
        Err(error) => return Err(UsageError::of(error)),
    };
    if let (Some(launch), false, false) = (&launch, trains, matches!(cli.command, Command::Help(_))) {
        let command = "only pretrain and finetune train in several processes";
        return Err(UsageError::of(anyhow!(
            "{} processes were started, but {command}; start this command once",
            launch.world_size
        )));
    }
    let threads = cli.threads.map(|count| format!("run.threads={count}"));
    let program = Program { launch, registry, threads };
    match cli.command {
        Command::Pretrain(arguments) => return pretrain::run(&arguments, &program),
        Command::Finetune(arguments) => return finetune::run(&arguments, &program),
        Command::Sweep(arguments) => return sweep::run(arguments, &program),
        other => run_alone(other, &program)?,
    }
    Ok(0)
}

/// The commands of one process.
fn run_alone(subcommand: Command, program: &Program) -> Result<()> {
    let registry = program.registry;
    match subcommand {
        Command::Pretrain(_) | Command::Finetune(_) | Command::Sweep(_) => Ok(()),
        Command::Help(files) => Ok(files.write(command(registry))?),
        Command::Evaluate(arguments) => evaluate::run(&arguments, program),
        Command::Compare(arguments) => compare::run(&arguments, program),
        Command::Embed(arguments) => embed::run(&arguments, program),
        Command::Probe(arguments) => probe::run(arguments, program),
        Command::Predict(arguments) => predict::run(&arguments, program),
        Command::Reconstruct(arguments) => reconstruct::run(arguments),
        Command::Bench(arguments) => bench::run(&arguments, program),
        Command::Import(arguments) => import::run(&arguments),
        Command::Export(arguments) => export::run(&arguments, program),
        Command::Report(arguments) => report::run(&arguments, program),
    }
}
