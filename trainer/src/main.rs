//! `trainer`: pre-trains, fine-tunes, evaluates.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use dataset::Subset;
use serde::Serialize;
use trainer::commands::{self, DataSource};
use trainer::config::{self, PRESETS, PretrainConfig, SEGMENTATION_TASK, Task, overlay};
use trainer::engine::Outcome;
use trainer::rundir::{self, RunDir};
use trainer::vit::VitConfig;
use trainer::{reconstruct, report};

/// Masked record modeling: pre-training on radiographs with reports, fine-tuning on few labels, evaluation.
///
/// A run that was stopped goes on from its newest checkpoint when the same command is given again.
#[derive(Parser)]
#[command(name = "trainer", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done (or stopped by SIGTERM with a checkpoint), 1 failed, 2 usage.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Shared {
    /// The dataset: a directory or a URL (s3://BUCKET/PREFIX).
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Directory of the run.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// auto, cpu or cuda:N.
    #[arg(long, default_value = "auto")]
    device: String,
}

#[derive(Args)]
struct Settings {
    /// Settings in TOML, laid over the preset.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// One setting, laid over all else; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Updates to make.
    #[arg(long)]
    steps: Option<u64>,
    /// Records of a micro-batch.
    #[arg(long)]
    batch_size: Option<usize>,
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Subcommand)]
enum Command {
    /// Pre-train an encoder by restoring masked patches and words.
    #[command(
        after_help = "Example: trainer pretrain --data data/mimic --run runs/mrm --preset mrm-vit-b16 --split main"
    )]
    Pretrain {
        #[command(flatten)]
        shared: Shared,
        /// Sizes and recipe.
        #[arg(long, value_parser = PRESETS, default_value = "mrm-vit-b16")]
        preset: String,
        /// See only this split's training subset.
        #[arg(long)]
        split: Option<String>,
        /// Start from these weights: a run or a safetensors file.
        #[arg(long, value_name = "RUN|FILE")]
        init: Option<PathBuf>,
        /// Passes over the training records, in place of --steps.
        #[arg(long, conflicts_with = "steps")]
        epochs: Option<f64>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Fine-tune a classifier, or a segmenter, on a share of the labels.
    #[command(
        after_help = "Example: trainer finetune --data data/nih --run runs/nih-1 --task nih14 --init runs/mrm --split main --ratio 1"
    )]
    Finetune {
        #[command(flatten)]
        shared: Shared,
        /// nih14, chexpert5, covid, viral, labels:A,B, or siim (segmentation).
        #[arg(long)]
        task: String,
        /// Pre-trained weights: a run or a safetensors file. Without: start values.
        #[arg(long, value_name = "RUN|FILE")]
        init: Option<PathBuf>,
        /// Sizes; default: those of the run given by --init, else mrm-vit-b16.
        #[arg(long, value_parser = PRESETS)]
        preset: Option<String>,
        #[arg(long)]
        split: String,
        /// Percentage of the training labels; one of the split's ratios.
        #[arg(long, default_value_t = 100.0)]
        ratio: f64,
        #[command(flatten)]
        settings: Settings,
    },
    /// AUROC and average precision of a fine-tuned run, or Dice and IoU, with patient-level bootstrap intervals.
    #[command(after_help = "Example: trainer evaluate --data data/nih --run runs/nih-1 --split main --subset test")]
    Evaluate {
        #[command(flatten)]
        shared: Shared,
        #[arg(long)]
        split: String,
        #[arg(long, value_parser = ["train", "validate", "test"], default_value = "test")]
        subset: String,
        /// Bootstrap draws.
        #[arg(long, default_value_t = 1000)]
        draws: usize,
        /// Segmentation: a predicted mask of fewer pixels counts as empty; default: as in the run's configuration.
        #[arg(long, value_name = "PIXELS")]
        min_area: Option<u64>,
    },
    /// Draw what a pre-trained run restores: masked, restored and original side by side, and the report's words.
    #[command(after_help = "Example: trainer reconstruct --data data/mimic --weights runs/mrm --split main --rows 6")]
    Reconstruct {
        /// The dataset: a directory or a URL (s3://BUCKET/PREFIX).
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// A pre-trained run, or a safetensors file in one.
        #[arg(long, value_name = "RUN|FILE")]
        weights: PathBuf,
        /// auto, cpu or cuda:N.
        #[arg(long, default_value = "auto")]
        device: String,
        /// Take the records from this split's test subset; without: from the whole dataset.
        #[arg(long)]
        split: Option<String>,
        /// How many records, or their identifiers separated by commas.
        #[arg(long, default_value = "6")]
        rows: String,
        /// Default: reconstruction.png in the run; the words go to the .json beside it.
        #[arg(long, value_name = "FILE.png")]
        out: Option<PathBuf>,
        /// Share of the report's words to hide; default: as in the run's training.
        #[arg(long, value_name = "0..1")]
        word_ratio: Option<f64>,
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// One self-contained HTML page over some runs: curves, tables, label efficiency, restored pictures and words.
    #[command(after_help = "Example: trainer report runs/* --out report.html")]
    Report {
        #[arg(required = true)]
        runs: Vec<PathBuf>,
        #[arg(long, value_name = "FILE.html")]
        out: PathBuf,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Pretrain { shared, preset, split, init, epochs, settings } => {
            let device = commands::device(&shared.device)?;
            let source = DataSource::open(&shared.data, split.as_deref())?;
            let mut flags = settings.flags();
            if let Some(epochs) = epochs {
                // A preset that counts in updates would win otherwise.
                flags.extend([format!("optimiser.epochs={epochs:?}"), "optimiser.steps=0".to_owned()]);
            }
            let mut config = overlay(&config::pretrain_preset(&preset)?, settings.file()?.as_deref(), &flags)?;
            commands::resolve_pretrain(&mut config, &source.dataset)?;
            show(&config)?;
            let run = RunDir::open(&shared.run, &config)?;
            tell(commands::pretrain(&config, &source, &run, device, init.as_deref())?, &run);
            Ok(())
        }
        Command::Finetune { shared, task, init, preset, split, ratio, settings } if task == SEGMENTATION_TASK => {
            finetune_segmentation(&shared, init, preset, split, ratio, &settings)
        }
        Command::Finetune { shared, task, init, preset, split, ratio, settings } => {
            let device = commands::device(&shared.device)?;
            let source = DataSource::open(&shared.data, Some(&split))?;
            let task = Task::parse(&task)?;
            let pretrained: Option<PretrainConfig> =
                init.as_ref().filter(|path| path.is_dir()).map(|path| rundir::load_config(path)).transpose()?;
            let preset = preset
                .or_else(|| pretrained.as_ref().map(|p| p.preset.clone()))
                .unwrap_or_else(|| PRESETS[0].to_owned());
            let mut config = config::finetune_preset(&preset, &task, ratio)?;
            config.split = split;
            if let Some(path) = &init {
                config.init = path.to_string_lossy().into_owned();
            }
            if let Some(pretrained) = pretrained {
                config.model.vit = pretrained.model.vit;
                (config.data.mean, config.data.std) = (pretrained.data.mean, pretrained.data.std);
            }
            if let Some(steps) = settings.steps {
                // The recipe's shares of warm-up and evaluations are kept for another number of steps.
                config.optimiser.warmup = config.optimiser.warmup * steps / config.optimiser.steps;
                config.optimiser.evaluate_every = (steps / 20).max(1);
            }
            let config = overlay(&config, settings.file()?.as_deref(), &settings.flags())?;
            commands::check_finetune(&config, &source)?;
            show(&config)?;
            let run = RunDir::open(&shared.run, &config)?;
            tell(commands::finetune(&config, &source, &run, device)?, &run);
            Ok(())
        }
        Command::Evaluate { shared, split, subset, draws, min_area } => {
            let device = commands::device(&shared.device)?;
            let source = DataSource::open(&shared.data, Some(&split))?;
            let subset = Subset::parse(&subset).context("an unknown subset")?;
            if commands::is_segmentation(&shared.run) {
                let report = commands::evaluate_segmentation(&shared.run, &source, subset, device, draws, min_area)?;
                println!("{report}");
                return Ok(());
            }
            ensure!(min_area.is_none(), "--min-area is for segmentation runs; {} is none", shared.run.display());
            let report = commands::evaluate(&shared.run, &source, subset, device, draws)?;
            println!("{report}");
            Ok(())
        }
        Command::Reconstruct { data, weights, device, split, rows, out, word_ratio, seed } => {
            let device = commands::device(&device)?;
            let source = DataSource::open(&data, split.as_deref())?;
            let run = rundir::run_of(&weights)?;
            let chosen = commands::choose_rows(&source, &rows, seed)?;
            let (canvas, restored) =
                reconstruct::reconstruct(&run, &weights, &source.dataset, &chosen, word_ratio, device, seed)?;
            let out = out.unwrap_or_else(|| run.join("reconstruction.png"));
            reconstruct::save(&out, &canvas, &restored)?;
            for record in restored.iter().filter(|record| !record.words.is_empty()) {
                println!("{}: {}", record.record_id, reconstruct::line(&record.words));
            }
            println!("written to {}", out.display());
            Ok(())
        }
        Command::Report { runs, out } => {
            report::write(&runs, &out)?;
            println!("written to {}", out.display());
            Ok(())
        }
    }
}

/// `finetune` for the task `siim`. Sizes are those of the run given by `--init`, but on the preset's image.
fn finetune_segmentation(
    shared: &Shared,
    init: Option<PathBuf>,
    preset: Option<String>,
    split: String,
    ratio: f64,
    settings: &Settings,
) -> Result<()> {
    let device = commands::device(&shared.device)?;
    let source = DataSource::open(&shared.data, Some(&split))?;
    let pretrained: Option<PretrainConfig> =
        init.as_ref().filter(|path| path.is_dir()).map(|path| rundir::load_config(path)).transpose()?;
    let preset =
        preset.or_else(|| pretrained.as_ref().map(|p| p.preset.clone())).unwrap_or_else(|| PRESETS[0].to_owned());
    let mut config = config::segment_preset(&preset, ratio)?;
    config.split = split;
    if let Some(path) = &init {
        config.init = path.to_string_lossy().into_owned();
    }
    if let Some(pretrained) = pretrained {
        config.model.vit = VitConfig { image_size: config.model.vit.image_size, ..pretrained.model.vit };
        (config.data.mean, config.data.std) = (pretrained.data.mean, pretrained.data.std);
    }
    if let Some(steps) = settings.steps {
        // The preset's shares of warm-up and evaluations are kept for another number of steps.
        config.optimiser.warmup = config.optimiser.warmup * steps / config.optimiser.steps;
        config.optimiser.evaluate_every = (steps / 20).max(1);
    }
    let mut config = overlay(&config, settings.file()?.as_deref(), &settings.flags())?;
    config.resolve();
    let prepared = commands::prepare_segmentation(&config, &source, device)?;
    show(&config)?;
    let run = RunDir::open(&shared.run, &config)?;
    tell(prepared.train(&run)?, &run);
    Ok(())
}

impl Settings {
    fn file(&self) -> Result<Option<String>> {
        let read =
            |path: &PathBuf| std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()));
        self.config.as_ref().map(read).transpose()
    }

    /// `--set` and the flags as settings, the flags last.
    fn flags(&self) -> Vec<String> {
        let mut all = self.set.clone();
        all.extend(self.steps.map(|steps| format!("optimiser.steps={steps}")));
        all.extend(self.batch_size.map(|size| format!("optimiser.batch_size={size}")));
        all.extend(self.seed.map(|seed| format!("run.seed={seed}")));
        all
    }
}

fn show<C: Serialize>(config: &C) -> Result<()> {
    println!("{}", toml::to_string(config)?);
    Ok(())
}

fn tell(outcome: Outcome, run: &RunDir) {
    let path = run.path().display();
    match outcome {
        Outcome::Done { best: Some(best) } => println!("done: {path}, best validation score {best:.4}"),
        Outcome::Done { best: None } => println!("done: {path}"),
        Outcome::Stopped { step } => {
            println!("stopped after update {step}; give the same command again to go on ({path})");
        }
    }
}
