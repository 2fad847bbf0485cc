//! `dataset`: look at a dataset, check it, split it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};
use dataset::split::{self, SplitOptions, Unit};
use dataset::{Dataset, inspect, verify};
use indicatif::{ProgressBar, ProgressStyle};

/// Looks at, checks and splits datasets of radiographs with reports.
#[derive(Parser)]
#[command(name = "dataset", version, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 usage.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Say what is in a dataset: counts, views, label prevalence, token lengths, sizes.
    #[command(after_help = "Example: dataset inspect data/mimic --montage look.png")]
    Inspect {
        dir: PathBuf,
        /// Show this record in full.
        #[arg(long, value_name = "RECORD_ID")]
        row: Option<String>,
        /// Draw images into this PNG.
        #[arg(long, value_name = "FILE.png")]
        montage: Option<PathBuf>,
        /// Images of the montage.
        #[arg(long, default_value_t = 24)]
        count: usize,
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Check digests, schema, row counts, decodability and splits.
    #[command(after_help = "Example: dataset verify data/mimic")]
    Verify { dir: PathBuf },
    /// Make train, validate and test subsets and nested label ratios; no patient in two of them.
    #[command(after_help = "Example: dataset split data/nih --name main --ratios 1,10,100 --validation 0.1 --test 0.2")]
    Split {
        dir: PathBuf,
        /// Name of the split.
        #[arg(long)]
        name: String,
        /// Percentages of the training subset, nested.
        #[arg(long, value_delimiter = ',', default_value = "1,10,100")]
        ratios: Vec<f64>,
        /// What must stay together.
        #[arg(long, value_enum, default_value = "patient")]
        unit: UnitArgument,
        /// Findings to balance: `labels` for all of them, or names separated by commas.
        #[arg(long, value_delimiter = ',', default_value = "labels")]
        stratify: Vec<String>,
        /// Share of the records for validation.
        #[arg(long, default_value_t = 0.1)]
        validation: f64,
        /// Share of the records for the test.
        #[arg(long, default_value_t = 0.2)]
        test: f64,
        /// Take the source's own subsets instead.
        #[arg(long, conflicts_with_all = ["validation", "test"])]
        official: bool,
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum UnitArgument {
    Patient,
    Study,
    Image,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Inspect { dir, row, montage, count, seed } => {
            let dataset = Dataset::open(&dir)?;
            match row {
                Some(record_id) => print!("{}", inspect::row(&dataset, &record_id)?),
                None => print!("{}", inspect::summary(&dataset)?),
            }
            if let Some(path) = montage {
                let picture = inspect::montage(&dataset, count, seed)?;
                picture.save(&path).with_context(|| format!("cannot write {}", path.display()))?;
                println!("montage   {}", path.display());
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Verify { dir } => {
            let rows = Dataset::open(&dir)?.len() as u64;
            let bar = ProgressBar::new(rows);
            if let Ok(style) =
                ProgressStyle::with_template("verify {wide_bar} {human_pos}/{human_len} rows, {eta} left")
            {
                bar.set_style(style);
            }
            let problems = verify::verify(&dir, &|done| bar.inc(done))?;
            bar.finish_and_clear();
            if problems.is_empty() {
                println!("{}: {rows} records, all whole", dir.display());
                return Ok(ExitCode::SUCCESS);
            }
            problems.iter().for_each(|problem| eprintln!("{problem}"));
            eprintln!("{} problems in {}", problems.len(), dir.display());
            Ok(ExitCode::FAILURE)
        }
        Command::Split { dir, name, ratios, unit, stratify, validation, test, official, seed } => {
            let dataset = Dataset::open(&dir)?;
            let unit = match unit {
                UnitArgument::Patient => Unit::Patient,
                UnitArgument::Study => Unit::Study,
                UnitArgument::Image => Unit::Image,
            };
            let stratify = if stratify == ["labels"] { Vec::new() } else { stratify };
            let options = SplitOptions { ratios, unit, validation, test, official, stratify, seed };
            let (split, certificate) = split::make(&dataset, &name, &options)?;
            split.save(&dir, &certificate)?;
            println!("{certificate}");
            println!("written to {}", split::split_path(&dir, &name).display());
            Ok(ExitCode::SUCCESS)
        }
    }
}
