//! The command line of `dataset`.

use std::ffi::OsString;
use std::io::Write;
#[cfg(feature = "export")]
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::Dataset;
use crate::commands::bench;
use crate::commands::cli::{self, HelpFiles, UsageError};
use crate::commands::doctor::arguments::DoctorArguments;
use crate::commands::duplicates::Duplicates;
#[cfg(feature = "export")]
use crate::commands::export::ExportArguments;
use crate::commands::inspect;
use crate::commands::mixture::{MixtureArguments, WeightedData};
use crate::commands::montage;
use crate::commands::progress::{Meter, OnProgress};
use crate::commands::split::SplitArguments;
use crate::commands::study_arguments::StudyArguments;
use crate::commands::transform_arguments::{self, Augmentations, WindowArguments, named_transform};
use crate::commands::verify;
#[cfg(feature = "export")]
use crate::export;
use crate::loader::{Loader, MixturePart};
use crate::split;
use anyhow::{Context, Result, anyhow};
use clap::{Args, CommandFactory, Parser, Subcommand};

/// Inspect, verify, split, measure and export datasets of radiographs with reports.
#[derive(Parser)]
#[command(name = "dataset", version, arg_required_else_help = true)]
#[command(
    after_help = "DIR is a folder or a URL: s3://BUCKET/PREFIX (set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION; \
    AWS_ENDPOINT_URL for other stores), gs://BUCKET/PREFIX (GOOGLE_APPLICATION_CREDENTIALS), az://CONTAINER/PREFIX \
    (AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY), https://HOST/PATH (read only), file:///FOLDER. \
    MRM_STORE_TIMEOUT: seconds for which failing requests are repeated, default 120.\n\nExit codes: 0 done, 1 failed, 2 \
    usage."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the contents of a dataset: counts, views, label prevalence, token lengths, sizes.
    #[command(after_help = "Examples:
  dataset inspect data/mimic --montage look.png
  dataset inspect data/rsna --montage look.png --transform finetune --size 224
  dataset inspect data/rsna --montage look.png --transform evaluate --count 4 \\
      --augment '[{\"kind\": \"affine\", \"degrees\": [-15, 15]}, {\"kind\": \"gamma\", \"gamma\": [0.7, 1.5]}]'
  dataset inspect data/mimic --join cxr-lt
  dataset inspect data/mimic --rejects")]
    Inspect {
        /// Folder or URL of the dataset.
        dir: PathBuf,
        /// Show this record in full.
        #[arg(long, value_name = "RECORD_ID")]
        row: Option<String>,
        /// Use the labels, boxes, masks and texts of this join instead of the dataset's own; may be repeated.
        #[arg(long, value_name = "NAME", conflicts_with_all = ["rejects", "duplicates"])]
        join: Vec<String>,
        /// Show why inputs were rejected: a count and an example for each reason.
        #[arg(long, conflicts_with = "row")]
        rejects: bool,
        /// List every rejected input: stage, file, record and reason, separated by tabs.
        #[arg(long, requires = "rejects")]
        all: bool,
        /// List records with equal stored pixels, with their patients and subsets; every image is read.
        #[arg(long, conflicts_with_all = ["row", "rejects", "montage"])]
        duplicates: bool,
        /// Take the subsets of this split [default: the source's own].
        #[arg(long, value_name = "NAME", requires = "duplicates")]
        split: Option<String>,
        /// Print the list as JSON.
        #[arg(long, requires = "duplicates")]
        json: bool,
        /// Write a montage of random images to this PNG.
        #[arg(long, value_name = "FILE.png", value_parser = cli::png)]
        montage: Option<PathBuf>,
        /// Show them as a loader gives them to a model (`pretrain`, `finetune`, `evaluate` as in the recipe), with boxes and
        /// masks [default: as they are stored].
        #[arg(long, value_parser = transform_arguments::NAMES, requires = "montage")]
        transform: Option<String>,
        /// Show in each row one image without and with these augmentations, a JSON list: each at the lower and at the upper
        /// end of its ranges, then all together.
        #[arg(long, value_name = "LIST", requires = "transform", default_value = "[]", hide_default_value = true)]
        augment: Augmentations,
        #[command(flatten)]
        windows: WindowArguments,
        /// Side of the transformed image in pixels.
        #[arg(long, default_value_t = 224, requires = "transform", value_parser = clap::value_parser!(u32).range(8..=8192))]
        size: u32,
        /// Number of images.
        #[arg(long, default_value_t = 24, value_parser = cli::count::<10_000>, requires = "montage")]
        count: usize,
        /// Seed that selects the images.
        #[arg(long, default_value_t = 0, requires = "montage")]
        seed: u64,
    },
    #[command(after_help = "Example: dataset verify data/mimic")]
    Verify(VerifyArguments),
    #[command(after_help = "Examples:
  dataset split data/nih --name main --ratios 1,10,100 --validation 0.1 --test 0.2
  dataset split data/nih --name official --official --validation 0.1
  dataset split data/nih --name published --lists DATA/NIH_ChestX-ray
  dataset split data/mimic --name long-tail --labels cxr-lt --subset-from cxr-lt-subsets")]
    Split(SplitArguments),
    /// Measure how fast batches are loaded on this machine, from one dataset or from a mixture of several.
    #[command(after_help = "Examples:
  dataset bench data/mimic --transform pretrain --size 448 --seconds 10
  dataset bench data/mimic=0.7 data/padchest=0.3 --epoch-of data/mimic
  dataset bench data/mimic --studies --views 2 --prior 1")]
    Bench {
        /// Folder or URL of the dataset. Give several to load a mixture, each with its weight. Without weights, each dataset's
        /// share is proportional to its number of records.
        #[arg(required = true, value_name = "DIR[=WEIGHT]")]
        data: Vec<WeightedData>,
        #[command(flatten)]
        mixture: MixtureArguments,
        #[command(flatten)]
        studies: StudyArguments,
        /// Number of records in a batch, or of studies.
        #[arg(long, default_value_t = 64, value_parser = cli::count::<65_536>)]
        batch_size: usize,
        /// `pretrain`, `finetune` or `evaluate` as in the recipe; `none` only reads images.
        #[arg(long, value_parser = ["none", "pretrain", "finetune", "evaluate"], default_value = "pretrain")]
        transform: String,
        /// Augmentations of the cropped image, a JSON list: `[{"kind": "gamma", "gamma": [0.8, 1.25]}]`.
        #[arg(long, value_name = "LIST", default_value = "[]", hide_default_value = true)]
        augment: Augmentations,
        #[command(flatten)]
        windows: WindowArguments,
        /// Side of the transformed image in pixels.
        #[arg(long, default_value_t = 448, value_parser = clap::value_parser!(u32).range(8..=8192))]
        size: u32,
        /// Number of threads [default: one for each core].
        #[arg(long, value_parser = cli::count::<1024>)]
        threads: Option<usize>,
        /// Duration of the measurement in seconds.
        #[arg(long, default_value_t = 10.0, value_parser = cli::positive)]
        seconds: f64,
        /// Do not compare images and columns with their checksums, to measure what that costs.
        #[arg(long)]
        no_checksums: bool,
    },
    #[command(after_help = "Examples:
  dataset doctor data/mimic --transform pretrain --size 448
  dataset doctor data/mimic --transform finetune --size 224 --with-trainer runs/nih --json")]
    Doctor(DoctorArguments),
    #[command(after_help = "Examples:
  dataset export data/mimic --to webdataset /export/mimic-tars --split main --shard-size 1000
  dataset export data/mimic --to hf /export/mimic-hf --split main --subset train --ratio 1
  dataset export data/mimic --to csv /export/mimic-table --no-images")]
    #[cfg(feature = "export")]
    Export(ExportArguments),
    #[command(flatten)]
    Help(HelpFiles),
}

/// Verify digests, schema, row counts, images, values, joins and splits.
#[derive(Args)]
pub struct VerifyArguments {
    /// Folder or URL of the dataset.
    pub dir: PathBuf,
    /// Number of threads [default: one for each core].
    #[arg(long, value_parser = cli::count::<1024>)]
    threads: Option<usize>,
}

impl VerifyArguments {
    /// The problems of the dataset, a line each.
    ///
    /// # Errors
    /// As [`verify::verify`].
    pub fn run(&self, progress: &OnProgress) -> Result<Vec<String>, crate::Error> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads.unwrap_or(0)).build();
        let pool = pool.map_err(|error| crate::Error::Invalid(error.to_string()))?;
        pool.install(|| verify::verify(&self.dir, progress))
    }
}

/// Runs the program on a command line, which begins with its name, and returns the exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    cli::outcome(|| run(cli::parsed(&cli::matches(Cli::command(), arguments)?)?))
}

fn run(cli: Cli) -> Result<u8> {
    match cli.command {
        Command::Help(files) => {
            files.write(Cli::command())?;
            Ok(0)
        }
        #[cfg(feature = "export")]
        Command::Export(arguments) => {
            let options = arguments.options().map_err(usage_error)?;
            let dataset = Dataset::open(&arguments.dir)?;
            let meter = Meter::new("records");
            let outcome = export::run(&dataset, &arguments.out, &options, &|step| meter.step(step));
            meter.finish();
            show(&export_line(&outcome?, &arguments.out))?;
            Ok(0)
        }
        Command::Inspect { dir, duplicates: true, split, json, .. } => {
            let meter = Meter::new("images");
            let found = Duplicates::of(&Dataset::open(&dir)?, split.as_deref(), &|step| meter.step(step));
            meter.finish();
            let found = found?;
            show(&if json { found.json()? } else { found.page() })?;
            Ok(0)
        }
        Command::Inspect {
            dir,
            row,
            join,
            rejects,
            all,
            montage: montage_file,
            transform,
            augment,
            windows,
            size,
            count,
            seed,
            ..
        } => {
            let dataset = Arc::new(Dataset::open(&dir)?.with_joins(&join)?);
            match row {
                _ if rejects && !all => show(&inspect::reject_reasons(&dataset)?)?,
                _ if rejects => show(&inspect::rejects(&dataset)?)?,
                Some(record_id) => show(&inspect::row(&dataset, &record_id)?)?,
                None => show(&inspect::summary(&dataset)?)?,
            }
            if let Some(path) = montage_file {
                let image = match transform {
                    None if windows != WindowArguments::default() => {
                        return Err(UsageError::of(anyhow!("--window and --window-jitter need --transform")));
                    }
                    None => montage::stored(&dataset, count, seed)?,
                    Some(name) => {
                        let transform = named_transform(&name, size, &augment, windows);
                        let draw = if augment.0.is_empty() { montage::transformed } else { montage::augmented };
                        draw(&dataset, count, seed, &transform)?
                    }
                };
                image.save(&path).with_context(|| format!("cannot write {}", path.display()))?;
                show(&format!("montage   {}\n", path.display()))?;
            }
            Ok(0)
        }
        Command::Verify(arguments) => {
            let dir = &arguments.dir;
            let manifest = Dataset::open(dir)?.manifest().clone();
            let meter = Meter::new("bytes");
            let started = Instant::now();
            let problems = arguments.run(&|step| meter.step(step));
            meter.finish();
            let problems = problems?;
            if problems.is_empty() {
                let bytes: u64 = manifest.shards.iter().map(|shard| shard.bytes).sum();
                let rate = bytes as f64 / 1e6 / started.elapsed().as_secs_f64();
                let records = cli::counted(manifest.totals.records as usize, "record");
                show(&format!("{}: {records}, all whole ({rate:.0} MB/s)\n", dir.display()))?;
                return Ok(0);
            }
            problems.iter().for_each(|problem| crate::cli_eprintln!("{problem}"));
            crate::cli_eprintln!("{} in {}", cli::counted(problems.len(), "problem"), dir.display());
            Ok(1)
        }
        Command::Split(arguments) => {
            let dataset = Dataset::open(&arguments.dir)?;
            let meter = Meter::new("images");
            let made = arguments.run(&dataset, &|step| meter.step(step));
            meter.finish();
            let (split, certificate) = made?;
            show(&format!("{certificate}\n"))?;
            let path = dataset.storage().path(&split::split_path(&split.name));
            show(&format!("written to {}\n", path.display()))?;
            Ok(0)
        }
        Command::Doctor(arguments) => {
            show(&arguments.run()?)?;
            Ok(0)
        }
        Command::Bench {
            data,
            mixture,
            studies,
            batch_size,
            transform,
            augment,
            windows,
            size,
            threads,
            seconds,
            no_checksums,
        } => {
            let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
            let (opened, mixed) = (Instant::now(), mixture.mixture(&data)?);
            let open = |data: &WeightedData| -> Result<Arc<Dataset>> {
                let dataset = Dataset::open(&data.location)?;
                Ok(Arc::new(if no_checksums { dataset.without_checksums() } else { dataset }))
            };
            let datasets = data.iter().map(open).collect::<Result<Vec<_>>>()?;
            let studies = studies.options();
            let ((images, first, span), by_dataset) = if transform == "none" {
                let ([dataset], None) = (datasets.as_slice(), studies) else {
                    return Err(UsageError::of(anyhow!(
                        "--transform none reads the images of one dataset, one by one"
                    )));
                };
                (bench::random_reads(dataset, threads, seconds)?, Vec::new())
            } else {
                let mut builder = match mixed {
                    Some((weights, length)) => {
                        Loader::mixture(datasets.iter().map(MixturePart::new).collect(), weights, length)
                    }
                    None => Loader::builder(&datasets[0]),
                };
                if let Some(tokenizer) = mixture.tokenizer()? {
                    builder = builder.tokenizer(tokenizer);
                }
                if let Some(studies) = studies {
                    builder = builder.studies(studies);
                }
                let transform = named_transform(&transform, size, &augment, windows);
                let builder = builder.batch_size(batch_size).transform(transform).threads(threads);
                bench::batches(&datasets, builder, seconds, opened)?
            };
            let rate = images as f64 / span;
            show(&format!(
                "transform {transform}, {}: {rate:.0} images/s, {:.0} for each thread\n",
                cli::counted(threads, "thread"),
                rate / threads as f64
            ))?;
            show(&format!("first batch after {:.0} ms; {images} images in {span:.1} s\n", first * 1000.0))?;
            let samples: u64 = by_dataset.iter().sum();
            if studies.is_some() {
                show(&format!(
                    "{:.0} studies/s, {:.2} images each\n",
                    samples as f64 / span,
                    images as f64 / samples.max(1) as f64
                ))?;
            }
            for (data, count) in data.iter().zip(by_dataset).filter(|_| datasets.len() > 1) {
                let share = count as f64 * 100.0 / samples.max(1) as f64;
                show(&format!("{share:.1}% from {}\n", data.location.display()))?;
            }
            Ok(0)
        }
    }
}

/// The outcome of an export in words.
#[cfg(feature = "export")]
fn export_line(summary: &export::Summary, out: &Path) -> String {
    let contents = format!("{}: {}", out.display(), cli::counted(summary.records, "record"));
    match summary {
        export::Summary { already_done: true, .. } => {
            format!("{contents}; it contains this export already: nothing to do\n")
        }
        export::Summary { resumed: 0, .. } => format!("{contents}\n"),
        export::Summary { resumed, pieces, .. } => {
            format!("{contents}; continued after {resumed} of {pieces} pieces\n")
        }
    }
}

/// A usage error as clap shows it.
#[cfg(feature = "export")]
fn usage_error(message: &str) -> anyhow::Error {
    Cli::command().error(clap::error::ErrorKind::ArgumentConflict, message).into()
}

/// Writes to stdout. A closed pipe (`dataset inspect DIR | head`) is not a failure.
fn show(text: &str) -> std::io::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
