//! `trainer`: pre-trains, fine-tunes, evaluates.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::commands::{self, DataSource, Request, Sweep, TARGETS};
use crate::config::{self, MAX_EPOCHS, PRESETS, SEGMENTATION_TASK, overlay};
use crate::eval::metrics::SPECIFICITY;
use crate::model::vit::VitConfig;
use crate::torch::panic;
use crate::torch::shim;
use crate::train::run_dir::RunDir;
use crate::train::threads;
use crate::train::train_loop::Outcome;
use anyhow::{Context, Result, ensure};
use clap::{Args, CommandFactory, Parser, Subcommand};
use dataset::Subset;
use dataset::commands::cli::{self, HelpFiles};
use serde::Serialize;

/// Masked record modeling: pre-training on radiographs with reports, fine-tuning on few labels, evaluation.
///
/// A run that was stopped goes on from its newest checkpoint when the same command is given again.
#[derive(Parser)]
#[command(name = "trainer", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done (or stopped by SIGTERM with a checkpoint), 1 failed, 2 usage.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Threads on the CPU [default: OMP_NUM_THREADS, else SLURM_CPUS_PER_TASK, else the cores that this process may use].
    #[arg(long, global = true, value_name = "N", value_parser = cli::count::<{ threads::MOST }>)]
    threads: Option<usize>,
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
    #[arg(long, default_value = "auto", value_parser = device)]
    device: String,
}

#[derive(Args)]
struct Settings {
    /// Settings in TOML, laid over the preset: sections of a run's config.toml.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// One setting, laid over all else; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Updates to make, in place of the recipe's number; warm-up and evaluations keep their share.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Records of a micro-batch [default: the recipe's].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    batch_size: Option<u64>,
    /// Decides start values, order, augmentation and masks [default: 0].
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    seed: Option<u64>,
}

#[derive(Args)]
struct Length {
    /// Epochs of the training records, in place of --steps; with early stopping, and an evaluation about once an epoch.
    #[arg(long, conflicts_with = "steps", value_name = "E", value_parser = epochs)]
    epochs: Option<f64>,
    /// End a run after so many evaluations without a better validation score; 0: never [default: 10 for labels:A,B and with
    /// --epochs, else 0].
    #[arg(long, value_name = "N")]
    patience: Option<u64>,
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
        #[arg(long, conflicts_with = "steps", value_parser = cli::positive)]
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
        /// nih14, chexpert5, rsna, covid, viral, labels:A,B, or siim (segmentation).
        #[arg(long, value_parser = task)]
        task: String,
        /// Pre-trained weights: a run or a safetensors file. Without: start values.
        #[arg(long, value_name = "RUN|FILE")]
        init: Option<PathBuf>,
        /// Sizes; default: those of the run given by --init, else mrm-vit-b16.
        #[arg(long, value_parser = PRESETS)]
        preset: Option<String>,
        /// Name of the split; `dataset split` makes one.
        #[arg(long)]
        split: String,
        /// Percentage of the training labels; one of the split's ratios.
        #[arg(long, default_value_t = 100.0, value_parser = cli::percent)]
        ratio: f64,
        #[command(flatten)]
        length: Length,
        #[command(flatten)]
        settings: Settings,
    },
    /// Metrics of a fine-tuned run (AUROC to calibration, or Dice and IoU), with patient-level bootstrap intervals.
    #[command(after_help = "Example: trainer evaluate --data data/nih --run runs/nih-1 --split main --subset test")]
    Evaluate {
        #[command(flatten)]
        shared: Shared,
        /// Name of the split; `dataset split` makes one.
        #[arg(long)]
        split: String,
        #[arg(long, value_parser = ["train", "validate", "test"], default_value = "test")]
        subset: String,
        /// Bootstrap draws.
        #[arg(long, default_value_t = 1000, value_parser = draws)]
        draws: usize,
        /// Tell sensitivity at this specificity [default: 0.9].
        #[arg(long, value_name = "0..1", value_parser = cli::share)]
        specificity: Option<f64>,
        /// Segmentation: a predicted mask of fewer pixels counts as empty; default: as in the run's configuration.
        #[arg(long, value_name = "PIXELS")]
        min_area: Option<u64>,
    },
    /// Compare two evaluated runs on the same records: differences with a paired bootstrap over patients.
    #[command(after_help = "Example: trainer compare runs/random-1 runs/mrm-1 --subset test")]
    Compare {
        /// A fine-tuned run that was evaluated on the subset.
        first: PathBuf,
        /// Another one; differences are this one's less the first's.
        second: PathBuf,
        /// train, validate, test, or test-on-NAME for an evaluation on another dataset.
        #[arg(long, default_value = "test", value_parser = evaluated)]
        subset: String,
        /// Bootstrap draws.
        #[arg(long, default_value_t = 1000, value_parser = draws)]
        draws: usize,
        /// Compare sensitivity at this specificity.
        #[arg(long, value_name = "0..1", default_value_t = SPECIFICITY, value_parser = cli::share)]
        specificity: f64,
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Write the differences as JSON, too.
        #[arg(long, value_name = "FILE.json")]
        out: Option<PathBuf>,
    },
    /// Fine-tune and evaluate over label ratios, seeds, splits and start weights; one table, one chart.
    #[command(
        after_help = "Example: trainer sweep --data data/nih --out sweeps/nih --task nih14 --split main --ratios 1,10,100 --seeds 0,1,2 --start mrm=runs/mrm --start scratch=random\n\nRuns that are done are kept: the same command goes on where it was stopped."
    )]
    Sweep {
        /// The dataset: a directory or a URL (s3://BUCKET/PREFIX).
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Folder of the runs, of sweep.md, sweep.json and report.html.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// auto, cpu or cuda:N.
        #[arg(long, default_value = "auto", value_parser = device)]
        device: String,
        /// As for finetune, segmentation left out.
        #[arg(long, value_parser = task)]
        task: String,
        /// Sizes, where no start is a run; else all starts, random ones included, take the model of the runs.
        #[arg(long, value_parser = PRESETS)]
        preset: Option<String>,
        /// Names of splits.
        #[arg(long, value_name = "A,B", value_delimiter = ',', required = true)]
        split: Vec<String>,
        /// Percentages of the training labels.
        #[arg(long, value_name = "1,10,100", value_delimiter = ',', default_value = "100", value_parser = cli::percent)]
        ratios: Vec<f64>,
        /// Seeds of the fine-tuning.
        #[arg(long, value_name = "0,1,2", value_delimiter = ',', default_value = "0")]
        seeds: Vec<u64>,
        /// Start weights and what the table calls them; all are the same model; {split} stands for the split's name. May be repeated.
        #[arg(long, value_name = "NAME=RUN|random", required = true, value_parser = commands::parse_start)]
        start: Vec<(String, String)>,
        /// Bootstrap draws of each evaluation.
        #[arg(long, default_value_t = 1000, value_parser = draws)]
        draws: usize,
        /// Tell sensitivity at this specificity.
        #[arg(long, value_name = "0..1", default_value_t = SPECIFICITY, value_parser = cli::share)]
        specificity: f64,
        /// Settings in TOML, laid over the preset.
        #[arg(long, value_name = "FILE.toml")]
        config: Option<PathBuf>,
        /// One setting, laid over all else; may be repeated.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Updates of each run.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        steps: Option<u64>,
        #[command(flatten)]
        length: Length,
    },
    /// Write pooled features of radiographs to a Parquet table, one row a record.
    #[command(after_help = "Example: trainer embed --data data/nih --weights runs/mrm --out features.parquet")]
    Embed {
        /// The dataset: a directory or a URL (s3://BUCKET/PREFIX).
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// A run or a safetensors file.
        #[arg(long, value_name = "RUN|FILE", alias = "run")]
        weights: PathBuf,
        /// Sizes, for weights that lie in no run; counts before a run's own.
        #[arg(long, value_parser = PRESETS)]
        preset: Option<String>,
        /// auto, cpu or cuda:N.
        #[arg(long, default_value = "auto", value_parser = device)]
        device: String,
        /// Only records of this split.
        #[arg(long)]
        split: Option<String>,
        /// Only this subset of the split.
        #[arg(long, value_parser = ["train", "validate", "test"], requires = "split")]
        subset: Option<String>,
        /// The table to write.
        #[arg(long, value_name = "FILE.parquet", value_parser = cli::parquet)]
        out: PathBuf,
    },
    /// Write the probabilities that a classifier gives to radiographs, which need neither labels nor a split.
    #[command(after_help = "Example: trainer predict --data data/new --weights runs/nih-1 --out predictions.csv")]
    Predict {
        /// The dataset: a directory or a URL (s3://BUCKET/PREFIX).
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// A run fine-tuned for classification, or a safetensors file in one.
        #[arg(long, value_name = "RUN|FILE", alias = "run")]
        weights: PathBuf,
        /// auto, cpu or cuda:N.
        #[arg(long, default_value = "auto")]
        device: String,
        /// Only records of this split.
        #[arg(long)]
        split: Option<String>,
        /// Only this subset of the split.
        #[arg(long, value_parser = ["train", "validate", "test"], requires = "split")]
        subset: Option<String>,
        /// The table to write: record_id, patient_id, study_id, and a column for each finding.
        #[arg(long, value_name = "FILE.csv|FILE.parquet", value_parser = cli::csv_or_parquet)]
        out: PathBuf,
    },
    /// Draw what a pre-trained run restores: masked, restored and original side by side, and the report's words.
    #[command(after_help = "Example: trainer reconstruct --data data/mimic --weights runs/mrm --split main --rows 6")]
    Reconstruct {
        /// The dataset: a directory or a URL (s3://BUCKET/PREFIX).
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// A pre-trained run, or a safetensors file in one.
        #[arg(long, value_name = "RUN|FILE", alias = "run")]
        weights: PathBuf,
        /// auto, cpu or cuda:N.
        #[arg(long, default_value = "auto", value_parser = device)]
        device: String,
        /// Take the records from this split's test subset; without: from the whole dataset.
        #[arg(long)]
        split: Option<String>,
        /// How many records, or their identifiers separated by commas.
        #[arg(long, default_value = "6")]
        rows: String,
        /// Default: reconstruction.png in the run; the words go to the .json beside it.
        #[arg(long, value_name = "FILE.png", value_parser = cli::png)]
        out: Option<PathBuf>,
        /// Share of the report's words to hide; default: as in the run's training.
        #[arg(long, value_name = "0..1", value_parser = cli::share)]
        word_ratio: Option<f64>,
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Measure pre-training steps: images a second, utilization, memory, where the time goes.
    #[command(
        after_help = "Example: trainer bench --preset mrm-vit-b16 --batch-size 256 --set run.precision=bf16\n\nWithout --data, one batch of noise is used again and again: the step without a loader."
    )]
    Bench {
        /// Take batches from this dataset, loading included.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        #[arg(long, value_parser = PRESETS, default_value = "mrm-vit-b16")]
        preset: String,
        /// auto, cpu or cuda:N.
        #[arg(long, default_value = "auto", value_parser = device)]
        device: String,
        /// Updates before the clock starts.
        #[arg(long, default_value_t = 3)]
        warmup: u64,
        /// One JSON object instead of text.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Weights of PyTorch, timm or Hugging Face as a safetensors file for --init. Nothing in a checkpoint is executed.
    #[command(after_help = "Example: trainer import mae_pretrain_vit_base.pth --out mae.safetensors\n         \
        trainer pretrain --data data/mimic --run runs/mrm --init mae.safetensors")]
    Import {
        /// A .pth written by torch.save, a .safetensors, or a folder with model.safetensors.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Where the weights go, under our names.
        #[arg(long, value_name = "FILE.safetensors")]
        out: PathBuf,
        /// The model to compare with.
        #[arg(long, value_parser = PRESETS, default_value = "mrm-vit-b16")]
        preset: String,
        /// One of the model's settings, laid over the preset; may be repeated.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Say of every tensor whether it fits.
        #[arg(long)]
        verbose: bool,
    },
    /// A run's encoder as a folder that timm or Hugging Face's transformers loads.
    #[command(after_help = "Example: trainer export runs/mrm --to timm --out mrm-timm\n         \
        timm.create_model(\"local-dir:mrm-timm\", pretrained=True)")]
    Export {
        /// A pre-trained or fine-tuned run, or a safetensors file.
        #[arg(value_name = "RUN|FILE")]
        weights: PathBuf,
        /// timm: also classifiers. vit: ViTModel. vit-mae: ViTMAEModel, or ViTMAEForPreTraining where the decoder is MAE's.
        #[arg(long, value_parser = TARGETS)]
        to: String,
        /// A folder that is not there yet.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Sizes of a file that lies in no run; default: mrm-vit-b16.
        #[arg(long, value_parser = PRESETS)]
        preset: Option<String>,
        /// One of the model's settings, laid over the preset; may be repeated.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
    /// One self-contained HTML page over some runs: curves, tables, label efficiency, restored pictures and words.
    #[command(after_help = "Example: trainer report runs/* --out report.html")]
    Report {
        /// Runs, or folders with runs in them.
        #[arg(required = true)]
        runs: Vec<PathBuf>,
        /// The page to write.
        #[arg(long, value_name = "FILE.html")]
        out: PathBuf,
    },
    #[command(flatten)]
    Help(HelpFiles),
}

/// Runs the program on the arguments of this process.
pub fn main() -> ExitCode {
    let cli: Cli = cli::parse();
    threads::limit_spinning(cli.threads.unwrap_or(0));
    panic::install_hook();
    shim::keep_freed_memory();
    let (told, code) = match std::panic::catch_unwind(AssertUnwindSafe(|| run(cli))) {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(error)) => (panic::of_error(&error), cli::exit_code(&error)),
        Err(panic) => (panic::of_panic(&panic), ExitCode::FAILURE),
    };
    dataset::cli_eprintln!("error: {told}");
    code
}

fn run(cli: Cli) -> Result<()> {
    threads::set(cli.threads.unwrap_or(0));
    let threads = cli.threads.map(|count| format!("run.threads={count}"));
    match cli.command {
        Command::Help(files) => Ok(files.write(Cli::command())?),
        Command::Pretrain { shared, preset, split, init, epochs, settings } => {
            let device = commands::device(&shared.device)?;
            let source = DataSource::open(&shared.data, split.as_deref())?;
            let mut config = overlay(&config::pretrain_preset(&preset)?, settings.file()?.as_deref(), &[])?;
            if let Some(epochs) = epochs {
                config.take_epochs(epochs);
            }
            (config.dataset, config.split, config.split_members) = source.identities();
            config.tokenizer = source.tokenizer();
            if let Some(path) = &init {
                config.init = path.to_string_lossy().into_owned();
            }
            let flags: Vec<String> = settings.flags().into_iter().chain(threads).collect();
            let mut config = overlay(&config, None, &flags)?;
            commands::resolve_pretrain(&mut config, Some(&source.dataset))?;
            show(&config)?;
            let run = RunDir::open(&shared.run, &config, commands::pretrain_steps(&config, &source)?)?;
            let (data, init) = (quoted(&shared.data), quoted(run.path()));
            let split = split.as_deref().unwrap_or("NAME");
            let next = format!(
                "trainer finetune --data {data} --run RUN --task TASK --split {split} --ratio 1 --init {init}, or trainer \
                 reconstruct --data {data} --weights {init}"
            );
            tell(commands::pretrain(&config, &source, &run, device)?, &run, &next);
            Ok(())
        }
        Command::Finetune { shared, task, init, preset, split, ratio, length, settings } => {
            let device = commands::device(&shared.device)?;
            let source = DataSource::open(&shared.data, Some(&split))?;
            let (file, mut flags) = (settings.file()?, settings.flags());
            flags.extend(length.patience().into_iter().chain(threads));
            let request = Request {
                task: &task,
                init: init.as_deref(),
                preset: preset.as_deref(),
                source: &source,
                ratio,
                steps: settings.steps,
                epochs: length.epochs,
                file: file.as_deref(),
                settings: &flags,
            };
            if task == SEGMENTATION_TASK {
                let config = commands::resolve_segmentation(&request)?;
                tell_model(&request, &config.preset, &config.model.vit);
                let prepared = commands::prepare_segmentation(&config, &source, device)?;
                show(&config)?;
                let run = RunDir::open(&shared.run, &config, config.optimizer.steps)?;
                tell(prepared.train(&run)?, &run, &evaluation(&shared, &source));
                return Ok(());
            }
            let config = commands::resolve_finetune(&request)?;
            tell_model(&request, &config.preset, &config.model.vit);
            let prepared = commands::prepare_finetune(config, &source)?;
            prepared.remarks().iter().for_each(|remark| dataset::cli_eprintln!("warning: {remark}"));
            show(prepared.config())?;
            let run = RunDir::open(&shared.run, prepared.config(), prepared.config().optimizer.steps)?;
            tell(prepared.train(&run, device)?, &run, &evaluation(&shared, &source));
            Ok(())
        }
        Command::Evaluate { shared, split, subset, draws, specificity, min_area } => {
            let device = commands::device(&shared.device)?;
            let source = DataSource::open(&shared.data, Some(&split))?;
            let subset = Subset::parse(&subset).context("an unknown subset")?;
            if commands::is_segmentation(&shared.run) {
                ensure!(specificity.is_none(), "--specificity is for classifiers; {} is none", shared.run.display());
                let report = commands::evaluate_segmentation(&shared.run, &source, subset, device, draws, min_area)?;
                dataset::cli_println!("{report}");
                return Ok(());
            }
            ensure!(min_area.is_none(), "--min-area is for segmentation runs; {} is none", shared.run.display());
            let specificity = specificity.unwrap_or(SPECIFICITY);
            let report = commands::evaluate(&shared.run, &source, subset, device, draws, specificity)?;
            dataset::cli_println!("{report}");
            Ok(())
        }
        Command::Reconstruct { data, weights, device, split, rows, out, word_ratio, seed } => {
            let device = commands::device(&device)?;
            let source = DataSource::open(&data, split.as_deref())?;
            commands::reconstruct(&source, &weights, &rows, word_ratio, device, seed, out)
        }
        Command::Bench { data, preset, device, warmup, json, settings } => {
            let device = commands::device(&device)?;
            let source = data.map(|data| DataSource::open(&data, None)).transpose()?;
            let mut preset = config::pretrain_preset(&preset)?;
            preset.optimizer.accumulation = 1;
            let updates = settings.steps.unwrap_or(10);
            let flags: Vec<String> = settings.flags().into_iter().chain(threads).collect();
            let mut config = overlay(&preset, settings.file()?.as_deref(), &flags)?;
            commands::resolve_pretrain(&mut config, source.as_ref().map(|source| source.dataset.as_ref()))?;
            let measured = commands::bench(&config, source.as_ref(), device, warmup, updates)?;
            dataset::cli_println!("{}", if json { serde_json::to_string(&measured)? } else { measured.to_string() });
            Ok(())
        }
        Command::Compare { first, second, subset, draws, specificity, seed, out } => {
            let comparison = commands::compare(&first, &second, &subset, draws, seed, specificity)?;
            if let Some(out) = out {
                dataset::store::files::write_json(&out, &comparison)?;
            }
            dataset::cli_println!("{comparison}");
            Ok(())
        }
        Command::Sweep {
            data,
            out,
            device,
            task,
            preset,
            split,
            ratios,
            seeds,
            start,
            draws,
            specificity,
            config,
            mut set,
            steps,
            length,
        } => {
            let device = commands::device(&device)?;
            let file = config.map(|path| read_text(&path)).transpose()?;
            set.extend(length.patience().into_iter().chain(threads));
            let swept = commands::sweep(
                &Sweep {
                    data: &data,
                    out: &out,
                    task: &task,
                    preset: preset.as_deref(),
                    splits: split,
                    ratios,
                    seeds,
                    starts: start,
                    steps,
                    epochs: length.epochs,
                    file: file.as_deref(),
                    settings: set,
                    draws,
                    specificity,
                },
                device,
            )?;
            if swept.stopped {
                dataset::cli_println!("stopped; give the same command again to go on ({})", out.display());
                return Ok(());
            }
            commands::report(&swept.runs, &out.join("report.html"))?;
            dataset::cli_println!(
                "\n{}\nwritten to {}",
                commands::sweep_table(&swept.cells),
                out.join("report.html").display()
            );
            Ok(())
        }
        Command::Embed { data, weights, preset, device, split, subset, out } => {
            let device = commands::device(&device)?;
            let source = DataSource::open(&data, split.as_deref())?;
            let rows = source.rows(subset.as_deref())?;
            let width = commands::embed(&source, &rows, &weights, preset.as_deref(), device, &out)?;
            dataset::cli_println!(
                "{}, {width} features each, written to {}",
                cli::counted(rows.len(), "record"),
                out.display()
            );
            Ok(())
        }
        Command::Predict { data, weights, device, split, subset, out } => {
            let device = commands::device(&device)?;
            let source = DataSource::open(&data, split.as_deref())?;
            let rows = source.rows(subset.as_deref())?;
            let findings = commands::predict_records(&source, &rows, &weights, device, &out)?;
            let (records, findings) = (cli::counted(rows.len(), "record"), cli::counted(findings, "finding"));
            dataset::cli_println!("{records}, probabilities of {findings}, written to {}", out.display());
            Ok(())
        }
        Command::Import { file, out, preset, set, verbose } => {
            let config = overlay(&config::pretrain_preset(&preset)?, None, &set)?;
            let imported = commands::import(&file, &out, &config)?;
            if verbose {
                dataset::cli_println!("{}", imported.report.details());
            }
            dataset::cli_println!("{imported}");
            Ok(())
        }
        Command::Export { weights, to, out, preset, set } => {
            let sizes = match preset {
                None if set.is_empty() => None,
                preset => {
                    let preset = config::pretrain_preset(preset.as_deref().unwrap_or(PRESETS[0]))?;
                    Some(overlay(&preset, None, &set)?)
                }
            };
            dataset::cli_println!("{}", commands::export(&weights, &to, sizes, &out)?);
            Ok(())
        }
        Command::Report { runs, out } => {
            commands::report(&runs, &out)?;
            dataset::cli_println!("written to {}", out.display());
            Ok(())
        }
    }
}

impl Length {
    /// As a setting.
    fn patience(&self) -> Option<String> {
        self.patience.map(|evaluations| format!("optimizer.patience={evaluations}"))
    }
}

impl Settings {
    fn file(&self) -> Result<Option<String>> {
        self.config.as_deref().map(read_text).transpose()
    }

    /// `--set` and the flags as settings, the flags last.
    fn flags(&self) -> Vec<String> {
        let mut all = self.set.clone();
        all.extend(self.steps.map(|steps| format!("optimizer.steps={steps}")));
        all.extend(self.batch_size.map(|size| format!("optimizer.batch_size={size}")));
        all.extend(self.seed.map(|seed| format!("run.seed={seed}")));
        all
    }
}

/// A number of epochs.
fn epochs(text: &str) -> Result<f64, String> {
    let found = cli::positive(text).ok().filter(|epochs| *epochs <= MAX_EPOCHS);
    found.ok_or_else(|| format!("give a number above 0, at most {MAX_EPOCHS}"))
}

/// The name of a device; whether it is there is seen when it is used.
fn device(text: &str) -> Result<String, String> {
    let known =
        matches!(text, "auto" | "cpu") || text.strip_prefix("cuda:").is_some_and(|at| at.parse::<usize>().is_ok());
    if known { Ok(text.to_owned()) } else { Err("give auto, cpu or cuda:N".to_owned()) }
}

/// The name of a task.
fn task(text: &str) -> Result<String, String> {
    if text != SEGMENTATION_TASK {
        config::Task::parse(text).map_err(|error| error.to_string())?;
    }
    Ok(text.to_owned())
}

/// A number of bootstrap draws.
fn draws(text: &str) -> Result<usize, String> {
    match text.trim().parse() {
        Ok(draws) if (10..=100_000).contains(&draws) => Ok(draws),
        _ => Err("give a number from 10 to 100000".to_owned()),
    }
}

/// What was evaluated: a subset of the run's own dataset, or of another one.
fn evaluated(text: &str) -> Result<String, String> {
    let subset = text.split_once("-on-").map_or(text, |(subset, _)| subset);
    match Subset::parse(subset).filter(|parsed| parsed.name() == subset) {
        Some(_) => Ok(text.to_owned()),
        None => Err("give train, validate, test, or one of them with -on-NAME".to_owned()),
    }
}

/// A word for a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:=+,".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn show<C: Serialize>(config: &C) -> Result<()> {
    dataset::cli_println!("{}", toml::to_string(config)?);
    Ok(())
}

/// Says which model is trained where no start weights decide it.
fn tell_model(request: &Request, preset: &str, vit: &VitConfig) {
    if request.init.is_none() {
        dataset::cli_eprintln!("{}", commands::without_init(preset, vit, request.preset.is_some()));
    }
}

/// How to evaluate a run.
fn evaluation(shared: &Shared, source: &DataSource) -> String {
    let split = source.split.as_ref();
    let tests = split.is_some_and(|split| !split.rows(Subset::Test, None).is_empty());
    format!(
        "trainer evaluate --data {} --run {} --split {} --subset {}",
        quoted(&shared.data),
        quoted(&shared.run),
        split.map_or("NAME", |split| split.name.as_str()),
        if tests { "test" } else { "validate" }
    )
}

fn tell(outcome: Outcome, run: &RunDir, next: &str) {
    // Without a slash at its end.
    let path: PathBuf = run.path().components().collect();
    let path = path.display();
    match outcome {
        Outcome::Done { best: Some(best) } => dataset::cli_println!("done: {path}, best validation score {best:.4}"),
        Outcome::Done { best: None } => dataset::cli_println!("done: {path}"),
        Outcome::Stopped { step } => {
            dataset::cli_println!("stopped after update {step}; give the same command again to go on ({path})");
            return;
        }
    }
    dataset::cli_eprintln!("the log: {path}/metrics.jsonl; next: {next}");
}
