//! The command line of `dataset`.

use std::ffi::OsString;
use std::io::Write;
#[cfg(feature = "export")]
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crate::Dataset;
#[cfg(feature = "export")]
use crate::Subset;
use crate::commands::bench;
use crate::commands::cli::{self, HelpFiles};
use crate::commands::inspect;
use crate::commands::montage;
use crate::commands::progress::{Meter, Progress};
use crate::commands::verify;
#[cfg(feature = "export")]
use crate::export::{self, Format};
use crate::split::draw;
use crate::split::{self, Ratio, SplitOptions, Unit};
use crate::transform::Transform;
use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser, Subcommand};

/// Looks at, checks, splits, measures and exports datasets of radiographs with reports.
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
  dataset inspect data/mimic --rejects")]
    Inspect {
        /// Folder or URL of the dataset.
        dir: PathBuf,
        /// Show this record in full.
        #[arg(long, value_name = "RECORD_ID")]
        row: Option<String>,
        /// Show why inputs were rejected: a count and an example for each reason.
        #[arg(long, conflicts_with = "row")]
        rejects: bool,
        /// List every rejected input: stage, file, record and reason, separated by tabs.
        #[arg(long, requires = "rejects")]
        all: bool,
        /// Write a montage of random images to this PNG.
        #[arg(long, value_name = "FILE.png", value_parser = cli::png)]
        montage: Option<PathBuf>,
        /// Show them as a loader gives them to a model (`pretrain`, `finetune`, `evaluate` as in the recipe), with boxes and
        /// masks [default: as they are stored].
        #[arg(long, value_parser = ["pretrain", "finetune", "evaluate"], requires = "montage")]
        transform: Option<String>,
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
    /// Verify digests, schema, row counts, images, values and splits.
    #[command(after_help = "Example: dataset verify data/mimic")]
    Verify {
        /// Folder or URL of the dataset.
        dir: PathBuf,
        /// Number of threads [default: one for each core].
        #[arg(long, value_parser = cli::count::<1024>)]
        threads: Option<usize>,
    },
    /// Make train, validate and test subsets and nested label ratios; no patient in two of them.
    #[command(after_help = "Examples:
  dataset split data/nih --name main --ratios 1,10,100 --validation 0.1 --test 0.2
  dataset split data/nih --name official --official --validation 0.1
  dataset split data/nih --name published --lists DATA/NIH_ChestX-ray")]
    Split {
        /// Folder or URL of the dataset.
        dir: PathBuf,
        /// Name of the split.
        #[arg(long, value_parser = split_name)]
        name: String,
        /// Percentages of the training subset whose labels may be seen, nested [default: 1,10,100, or those of the lists].
        #[arg(long, value_delimiter = ',', value_parser = cli::ratio)]
        ratios: Vec<Ratio>,
        /// Which records stay together in one subset.
        #[arg(long, value_enum, default_value = "patient")]
        unit: Unit,
        /// Findings to balance: `labels` for all, or names separated by commas.
        #[arg(long, value_delimiter = ',', default_value = "labels")]
        stratify: Vec<String>,
        /// Share of the records for validation [default: 0.1; none with --official and --lists].
        ///
        /// With --official or --lists, whole units are drawn from train where there is no validation subset.
        #[arg(long, value_parser = cli::part)]
        validation: Option<f64>,
        /// Share of the records for the test [default: 0.2; none with --official and --lists].
        ///
        /// With --official or --lists, whole units are drawn from train where there is no test subset.
        #[arg(long, value_parser = cli::part)]
        test: Option<f64>,
        /// Use the source's own subsets.
        #[arg(long, conflicts_with = "lists")]
        official: bool,
        /// Use published lists of image names: files named train_list, train_10, train_1, val_list, test_list in this
        /// folder, with or without .txt and .gz.
        ///
        /// Without a train_list, train is every record that no list of another subset names. An image in lists of several
        /// subsets belongs to test before validate before train. Labels in the lists are ignored.
        #[arg(long, value_name = "DIR")]
        lists: Option<PathBuf>,
        /// Seed that decides among equally good choices; the same seed gives the same split.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Replace the split of this name.
        #[arg(long)]
        overwrite: bool,
    },
    /// Measure how fast batches are loaded on this machine.
    #[command(after_help = "Example: dataset bench data/mimic --transform pretrain --size 448 --seconds 10")]
    Bench {
        /// Folder or URL of the dataset.
        dir: PathBuf,
        /// Number of records in a batch.
        #[arg(long, default_value_t = 64, value_parser = cli::count::<65_536>)]
        batch_size: usize,
        /// `pretrain`, `finetune` or `evaluate` as in the recipe; `none` only reads images.
        #[arg(long, value_parser = ["none", "pretrain", "finetune", "evaluate"], default_value = "pretrain")]
        transform: String,
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
    /// Write the records in a format that other tools read.
    ///
    /// A killed export continues when the same command is run again, and ends with the same bytes. Raw images become PNGs;
    /// PNG and JPEG images keep their bytes.
    #[command(after_help = "Examples:
  dataset export data/mimic --to webdataset /export/mimic-tars --split main --shard-size 1000
  dataset export data/mimic --to hf /export/mimic-hf --split main --subset train --ratio 1
  dataset export data/mimic --to csv /export/mimic-table --no-images")]
    #[cfg(feature = "export")]
    Export {
        /// Folder or URL of the dataset.
        dir: PathBuf,
        /// Folder to write: new, empty, or left by the same command.
        out: PathBuf,
        /// The format.
        #[arg(long, value_enum, value_name = "FORMAT")]
        to: Format,
        /// Divide the records by this split; records in none of its subsets are left out [default: all records].
        #[arg(long, value_name = "NAME")]
        split: Option<String>,
        /// Export this subset of the split only.
        #[arg(long, value_parser = ["train", "validate", "test"], requires = "split")]
        subset: Option<String>,
        /// Of the training subset, export the records whose labels may be seen at this ratio of the split.
        #[arg(long, value_name = "PERCENT", requires = "split", value_parser = cli::ratio)]
        ratio: Option<Ratio>,
        /// Number of records in a tar or Parquet file (webdataset, hf) [default: 2048].
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        shard_size: Option<u32>,
        /// Write the table only (csv).
        #[arg(long)]
        no_images: bool,
        /// Replace the export in OUT.
        #[arg(long)]
        overwrite: bool,
        /// Number of threads [default: one for each core].
        #[arg(long, value_parser = cli::count::<1024>)]
        threads: Option<usize>,
    },
    #[command(flatten)]
    Help(HelpFiles),
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
        Command::Export { dir, out, to, split, subset, ratio, shard_size, no_images, overwrite, threads } => {
            if shard_size.is_some() && to == Format::Csv {
                return Err(usage_error("--shard-size is for webdataset and hf: a CSV export is one table"));
            }
            if no_images && to != Format::Csv {
                return Err(usage_error("--no-images is for csv"));
            }
            if ratio.is_some() && subset.as_deref().is_some_and(|subset| subset != "train") {
                return Err(usage_error("--ratio applies to training records: use --subset train"));
            }
            let options = export::Options {
                format: to,
                split,
                subset: subset.as_deref().and_then(Subset::parse),
                ratio,
                shard_size: shard_size.map_or(export::SHARD_SIZE, |records| records as usize),
                no_images,
                overwrite,
                threads: threads.unwrap_or(0),
            };
            let dataset = Dataset::open(&dir)?;
            let meter = Meter::new("records");
            let outcome = export::run(&dataset, &out, &options, &|step| meter.step(&step));
            meter.finish();
            show(&export_line(&outcome?, &out))?;
            Ok(0)
        }
        Command::Inspect { dir, row, rejects, all, montage: montage_file, transform, size, count, seed } => {
            let dataset = Arc::new(Dataset::open(&dir)?);
            match row {
                _ if rejects && !all => show(&inspect::reject_reasons(&dataset)?)?,
                _ if rejects => show(&inspect::rejects(&dataset)?)?,
                Some(record_id) => show(&inspect::row(&dataset, &record_id)?)?,
                None => show(&inspect::summary(&dataset)?)?,
            }
            if let Some(path) = montage_file {
                let image = match transform {
                    None => montage::stored(&dataset, count, seed)?,
                    Some(name) => montage::transformed(&dataset, count, seed, named_transform(&name, size))?,
                };
                image.save(&path).with_context(|| format!("cannot write {}", path.display()))?;
                show(&format!("montage   {}\n", path.display()))?;
            }
            Ok(0)
        }
        Command::Verify { dir, threads } => {
            let dataset = Dataset::open(&dir)?;
            let bytes: u64 = dataset.manifest().shards.iter().map(|shard| shard.bytes).sum();
            let meter = Meter::new("bytes");
            meter.step(&Progress::Started { records: bytes, done: 0 });
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0)).build()?;
            let started = Instant::now();
            let problems = pool.install(|| verify::verify(&dir, &|done| meter.step(&Progress::Advanced(done))));
            meter.finish();
            let problems = problems?;
            if problems.is_empty() {
                let rate = bytes as f64 / 1e6 / started.elapsed().as_secs_f64();
                let records = cli::counted(dataset.len(), "record");
                show(&format!("{}: {records}, all whole ({rate:.0} MB/s)\n", dir.display()))?;
                return Ok(0);
            }
            problems.iter().for_each(|problem| crate::cli_eprintln!("{problem}"));
            crate::cli_eprintln!("{} in {}", cli::counted(problems.len(), "problem"), dir.display());
            Ok(1)
        }
        Command::Split { dir, name, ratios, unit, stratify, validation, test, official, lists, seed, overwrite } => {
            let dataset = Dataset::open(&dir)?;
            let stratify = if stratify == ["labels"] { Vec::new() } else { stratify };
            let options = SplitOptions { ratios, unit, validation, test, official, lists, stratify, seed };
            let (split, certificate) = draw::make(&dataset, &name, &options)?;
            if !overwrite && let Some(difference) = certificate.replaces(dataset.storage(), &name)? {
                bail!(
                    "split `{name}` exists {difference}; give another --name, or replace it with --overwrite (runs that were trained on it can no longer be evaluated)"
                );
            }
            split.save(dataset.storage(), &certificate)?;
            show(&format!("{certificate}\n"))?;
            show(&format!("written to {}\n", dataset.storage().path(&split::split_path(&name)).display()))?;
            Ok(0)
        }
        Command::Bench { dir, batch_size, transform, size, threads, seconds, no_checksums } => {
            let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
            let opened = Instant::now();
            let dataset = Dataset::open(&dir)?;
            let dataset = Arc::new(if no_checksums { dataset.without_checksums() } else { dataset });
            let (images, first, span) = match transform.as_str() {
                "none" => bench::random_reads(&dataset, threads, seconds)?,
                name => {
                    let transform = named_transform(name, size);
                    bench::batches(&dataset, transform, batch_size, threads, seconds, opened)?
                }
            };
            let rate = images as f64 / span;
            show(&format!(
                "transform {transform}, {}: {rate:.0} images/s, {:.0} for each thread\n",
                cli::counted(threads, "thread"),
                rate / threads as f64
            ))?;
            show(&format!("first batch after {:.0} ms; {images} images in {span:.1} s\n", first * 1000.0))?;
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

/// Parses the name of a split, which is a part of file names.
fn split_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(['/', '\\', '.']) {
        return Err("give a name without `/`, `\\` and `.`".to_owned());
    }
    Ok(text.to_owned())
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

/// A transform of the recipe by its name on the command line.
fn named_transform(name: &str, size: u32) -> Transform {
    match name {
        "pretrain" => Transform::pretrain(size),
        "finetune" => Transform::finetune(size),
        _ => Transform::evaluate(size),
    }
}
