//! `ingest`: raw radiographs and reports in, training-ready shards out.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use crate::image::intensity::Tone;
use crate::image::pipeline::Fit;
use crate::report::tokenizer;
use crate::run::path_hash;
use crate::run::plan::{Plan, Source};
use crate::run::preview;
use crate::run::{self, Options, ReportText, Summary, TokenizerChoice};
use crate::sources::{self, LabelWord, TableOptions};
use anyhow::{Result, bail};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use dataset::commands::cli::{self, HelpFiles, count, counted};
use dataset::commands::progress::{Meter, Progress};
use dataset::format::record::ImageEncoding;
use dataset::format::shard::ImageCompression;
use phantom::{self, Layout};

/// Turns raw radiographs (DICOM, PNG, JPEG) and reports into sharded Parquet with token ids and resized images.
///
/// A killed run, started again with the same command, goes on where it was and ends with the same bytes.
#[derive(Parser)]
#[command(name = "ingest", version, arg_required_else_help = true, subcommand_required = true)]
#[command(after_help = "To begin without any data:
  ingest phantom mimic-cxr raw --studies 200
  ingest mimic-cxr raw data

`ingest SOURCE --help` tells a source's options. Exit codes: 0 done, 1 failed, 2 usage, 3 done but too many rejects.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[expect(clippy::large_enum_variant, reason = "there is one value, parsed once")]
#[derive(Subcommand)]
enum Command {
    /// MIMIC-CXR or MIMIC-CXR-JPG: `files/`, reports, metadata, split and label tables.
    #[command(after_help = "Examples:
  ingest mimic-cxr /raw/mimic-cxr data/mimic
  ingest mimic-cxr /raw/mimic-cxr data/mimic --tone mimic-cxr-jpg --report-text findings+impression --jobs 16
  ingest mimic-cxr /raw/mimic-cxr s3://bucket/mimic --reports /raw/mimic-cxr-reports")]
    MimicCxr {
        #[command(flatten)]
        arguments: IngestArguments,
        /// Folder of the reports (of files/pNN/pNNNNNNNN/sNNNNNNNN.txt) where they are not below RAW_DIR.
        #[arg(long, value_name = "DIR")]
        reports: Option<PathBuf>,
        /// The label table. Default: that of CheXpert, else that of NegBio.
        #[arg(long, value_enum)]
        labels: Option<sources::Labeller>,
        /// The files to take. Default: the kind there is for more radiographs; JPG at a tie.
        #[arg(long, value_enum)]
        images: Option<sources::Pictures>,
    },
    /// CheXpert v1.0, v1.0-small or Plus: `train.csv`, `valid.csv` and the pictures they name.
    #[command(after_help = "Example: ingest chexpert /raw/CheXpert-v1.0-small data/chexpert")]
    Chexpert(IngestArguments),
    /// NIH ChestX-ray14: `Data_Entry_2017*.csv`, PNGs, lists and boxes.
    #[command(after_help = "Example: ingest nih /raw/nih data/nih --image-encoding png")]
    Nih(IngestArguments),
    /// COVID-19 Image Data Collection: `metadata.csv` and `images/`.
    #[command(after_help = "Example: ingest covid /raw/covid-chestxray-dataset data/covid --max-reject-rate 0.2")]
    Covid(IngestArguments),
    /// RSNA Pneumonia Detection Challenge: `stage_2_train_images/`, `stage_2_train_labels.csv`, boxes and classes.
    #[command(after_help = "Example: ingest rsna /raw/rsna data/rsna")]
    Rsna(IngestArguments),
    /// SIIM-ACR Pneumothorax: `dicom-images-train/`, `train-rle.csv`; masks.
    #[command(after_help = "Example: ingest siim /raw/siim data/siim")]
    Siim(IngestArguments),
    /// Open-i, Indiana University: XML reports and the images they name.
    #[command(after_help = "Example: ingest openi /raw/openi data/openi")]
    Openi(IngestArguments),
    /// Any directory of DICOM, PNG and JPEG files, with an optional table.
    #[command(after_help = FOLDER_EXAMPLES)]
    Folder(FolderArguments),
    /// Write a synthetic raw directory in a source's layout, to try everything on without a license.
    #[command(
        after_help = "Example: ingest phantom mimic-cxr raw --studies 1000 --size 256, then ingest mimic-cxr raw data"
    )]
    Phantom {
        /// The source whose layout it has.
        #[arg(value_enum)]
        layout: Layout,
        /// Directory to write: new, empty, or left by the same command.
        out: PathBuf,
        /// Studies to draw; some have two pictures.
        #[arg(long, value_name = "N", value_parser = count::<10_000_000>)]
        studies: usize,
        /// Another seed draws other patients.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Nominal shorter side of the pictures in pixels.
        #[arg(long, default_value_t = phantom::DEFAULT_SIZE, value_parser = phantom_size)]
        size: usize,
    },
    #[command(flatten)]
    Help(HelpFiles),
}

#[derive(Args)]
struct IngestArguments {
    /// Directory of the raw data.
    raw_dir: PathBuf,
    /// Directory of the dataset to be written, or a URL: s3://BUCKET/PREFIX, file:///DIR.
    out: PathBuf,
    /// Side of the stored image (see --fit).
    #[arg(long, default_value_t = run::SIZE, value_parser = clap::value_parser!(u32).range(1..=8192))]
    size: u32,
    /// How images take that size: shorter side (never enlarged), padded square, or stretched square.
    #[arg(long, value_enum, default_value_t)]
    fit: Fit,
    /// How a picture is stored: raw is the fastest to read, PNG half as large, JPEG a fifth and lossy.
    #[arg(long, value_enum, default_value = "raw")]
    image_encoding: ImageEncoding,
    /// Compression of the image pages.
    #[arg(long, value_enum, default_value_t)]
    compression: ImageCompression,
    /// A tokenizer.json, `train` (on the reports at hand), or `none`.
    #[arg(long, value_name = "FILE|train|none", default_value = "train")]
    tokenizer: String,
    /// Vocabulary of a trained tokenizer.
    #[arg(long, default_value_t = tokenizer::VOCABULARY, value_parser = count::<1_000_000>)]
    vocab_size: usize,
    /// Longest token row, [CLS] included.
    #[arg(long, default_value_t = run::MAX_TOKENS as u32, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    max_tokens: u32,
    /// Part of the report that is tokenized.
    #[arg(long, value_enum, default_value_t)]
    report_text: ReportText,
    /// Radiographs of one Parquet file.
    #[arg(long, default_value_t = run::ROWS_PER_SHARD as u32, value_parser = clap::value_parser!(u32).range(1..))]
    rows_per_shard: u32,
    /// Threads; decides no byte of the result. Default: one a core.
    #[arg(long, value_parser = count::<1024>)]
    jobs: Option<usize>,
    /// From stored values to 8 bit.
    #[arg(long, value_enum, default_value_t)]
    tone: Tone,
    /// Take the tables and reports alone.
    #[arg(long)]
    no_images: bool,
    /// Take the first N radiographs only.
    #[arg(long, value_name = "N", value_parser = count::<{ u32::MAX as usize }>)]
    limit: Option<usize>,
    /// Share of rejected inputs above which the run ends with exit code 3; with --limit, of the radiographs taken.
    #[arg(long, default_value_t = run::MAX_REJECT_RATE, value_parser = cli::share)]
    max_reject_rate: f64,
    /// Replace the dataset that OUT holds.
    #[arg(long)]
    overwrite: bool,
    /// Take in the inputs that the system refused to read when the dataset in OUT was made (no permission, a failing disk).
    #[arg(long, conflicts_with_all = ["overwrite", "check_input", "dry_run"])]
    retry_rejects: bool,
    /// Where a dataset for an object store grows, and what resumes it lies. Default: mrm/staging in the user's cache.
    #[arg(long, value_name = "DIR")]
    staging: Option<PathBuf>,
    /// Read every input of the finished dataset in OUT again, and name those that changed; write nothing.
    #[arg(long, conflicts_with_all = ["overwrite", "dry_run"])]
    check_input: bool,
    /// Say what would be ingested, and write nothing.
    #[arg(long)]
    dry_run: bool,
}

fn phantom_size(text: &str) -> Result<usize, String> {
    let sizes = phantom::SIZES;
    let size = text.trim().parse().ok().filter(|size| sizes.contains(size));
    size.ok_or_else(|| format!("give a number from {} to {}", sizes.start(), sizes.end()))
}

impl IngestArguments {
    fn options(&self) -> Options {
        let defaults = Options::default();
        Options {
            size: self.size,
            fit: self.fit,
            encoding: self.image_encoding,
            compression: self.compression,
            tone: self.tone,
            tokenizer: match self.tokenizer.as_str() {
                "none" => TokenizerChoice::None,
                "train" => TokenizerChoice::Train(self.vocab_size),
                path => TokenizerChoice::File(PathBuf::from(path)),
            },
            max_tokens: self.max_tokens as usize,
            report_text: self.report_text,
            rows_per_shard: self.rows_per_shard as usize,
            no_images: self.no_images,
            limit: self.limit,
            jobs: self.jobs.unwrap_or(defaults.jobs),
            overwrite: self.overwrite,
            retry_rejects: self.retry_rejects,
            staging: self.staging.clone(),
        }
    }
}

const FOLDER_EXAMPLES: &str = "Examples:\n  \
    ingest folder /raw/ward data/ward\n  \
    ingest folder /raw/ward data/ward --table list.csv --image-column file --patient-column mrn \\\n    \
    --report-column report --label-columns Effusion,Edema\n  \
    ingest folder /raw/ward data/ward --table list.csv --image-column file --label-columns Effusion \\\n    \
    --label-map 'abnormal=1,normal=0,unclear=-1' --class-column diagnosis --dry-run";

#[derive(Args)]
struct FolderArguments {
    #[command(flatten)]
    common: IngestArguments,
    /// Table that names the images, separated by commas, semicolons or tabs, plain or gzipped. Without one, the first
    /// folder of a path is its patient.
    #[arg(long, value_name = "FILE", requires = "image_column")]
    table: Option<PathBuf>,
    /// Column of image paths (relative to RAW_DIR or to the table, or absolute), or of file names found anywhere below
    /// RAW_DIR.
    #[arg(long, value_name = "C", requires = "table")]
    image_column: Option<String>,
    /// Column of report texts, or of paths of text files.
    #[arg(long, value_name = "C", requires = "table")]
    report_column: Option<String>,
    /// Column of patients; without it every image is a patient of its own.
    #[arg(long, value_name = "C", requires = "table")]
    patient_column: Option<String>,
    /// Column of studies; without it every image is a study of its own.
    #[arg(long, value_name = "C", requires = "table")]
    study_column: Option<String>,
    /// Column of views (PA, AP, LATERAL …); without it they come from the DICOM headers.
    #[arg(long, value_name = "C", requires = "table")]
    view_column: Option<String>,
    /// Column of train, validate, test, or other words for them (training, val, dev, holdout …).
    #[arg(long, value_name = "C", requires = "table")]
    subset_column: Option<String>,
    /// Column of the sex: F, M, O, or the words.
    #[arg(long, value_name = "C", requires = "table")]
    sex_column: Option<String>,
    /// Column of the age: years (34, 34.5) or DICOM's form (034Y, 006M).
    #[arg(long, value_name = "C", requires = "table")]
    age_column: Option<String>,
    /// Columns of findings: 1, 0, -1 (uncertain) or blank, or words: yes, no, positive, absent, maybe, unknown …
    #[arg(long, value_name = "A,B", value_delimiter = ',', requires = "table")]
    label_columns: Vec<String>,
    /// What other words of the label columns mean: 1, 0, -1 or blank. COLUMN:WORD=CODE is for one column.
    #[arg(long, value_name = "WORD=CODE,…", value_delimiter = ',', requires = "table", allow_hyphen_values = true)]
    label_map: Vec<LabelWord>,
    /// Columns of class names (bacteria, virus, normal): each class becomes a finding, 1 in its rows and 0 in others.
    #[arg(long, value_name = "C", value_delimiter = ',', requires = "table")]
    class_column: Vec<String>,
    /// Take the patient from the PatientID of the DICOM headers, and store it as it stands there.
    #[arg(long, conflicts_with = "patient_column")]
    patient_from_header: bool,
    /// Store hashes in place of paths, and in place of identifiers that are made of paths.
    #[arg(long)]
    hash_paths: bool,
    /// Write a table of what each hash stands for; keep it outside of OUT.
    #[arg(long, value_name = "FILE", requires = "hash_paths")]
    path_map: Option<PathBuf>,
}

impl FolderArguments {
    fn source(&self) -> sources::Folder {
        let table = self.table.clone().zip(self.image_column.clone()).map(|(table, image_column)| TableOptions {
            table,
            image_column,
            report_column: self.report_column.clone(),
            patient_column: self.patient_column.clone(),
            study_column: self.study_column.clone(),
            view_column: self.view_column.clone(),
            subset_column: self.subset_column.clone(),
            sex_column: self.sex_column.clone(),
            age_column: self.age_column.clone(),
            label_columns: self.label_columns.clone(),
            class_columns: self.class_column.clone(),
            label_map: self.label_map.clone(),
        });
        sources::Folder { table, patient_from_header: self.patient_from_header, hash_paths: self.hash_paths }
    }
}

/// Runs the program on the arguments of this process.
pub fn main() -> ExitCode {
    main_with(&[])
}

/// Runs the program with further sources: each is a subcommand of its name, with the options that all sources share.
pub fn main_with(sources: &[&dyn Source]) -> ExitCode {
    let own = |source: &&dyn Source| IngestArguments::augment_args(clap::Command::new(source.name()));
    let matches = cli::matches(Cli::command().subcommands(sources.iter().map(own)));
    cli::outcome(|| {
        let given = matches.subcommand();
        let found = given.and_then(|(name, given)| Some((sources.iter().find(|source| source.name() == name)?, given)));
        match found {
            Some((source, given)) => ingest_source(*source, &IngestArguments::from_arg_matches(given)?),
            None => run(cli::parsed(&matches)),
        }
    })
}

fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::MimicCxr { arguments, reports, labels, images } => {
            let no_images = arguments.no_images;
            let source = sources::MimicCxr { no_images, pictures: images, labeller: labels, reports };
            ingest_source(&source, &arguments)
        }
        Command::Chexpert(arguments) => {
            ingest_source(&sources::Chexpert { no_images: arguments.no_images }, &arguments)
        }
        Command::Nih(arguments) => ingest_source(&sources::Nih { no_images: arguments.no_images }, &arguments),
        Command::Covid(arguments) => ingest_source(&sources::Covid { no_images: arguments.no_images }, &arguments),
        Command::Rsna(arguments) => ingest_source(&sources::Rsna, &arguments),
        Command::Siim(arguments) => ingest_source(&sources::Siim, &arguments),
        Command::Openi(arguments) => ingest_source(&sources::OpenI { reports_alone: arguments.no_images }, &arguments),
        Command::Folder(arguments) => {
            ingest_mapped(&arguments.source(), &arguments.common, arguments.path_map.as_deref())
        }
        Command::Phantom { layout, out, studies, seed, size } => {
            write_phantom(layout, &out, &phantom::Options { studies, seed, size })
        }
        Command::Help(files) => files.write(Cli::command()).map(|()| ExitCode::SUCCESS).map_err(Into::into),
    }
}

fn write_phantom(layout: Layout, out: &Path, options: &phantom::Options) -> Result<ExitCode> {
    let meter = Meter::new("studies");
    meter.step(&Progress::Started { records: options.studies as u64, done: 0 });
    let summary = phantom::write(layout, out, options, |studies| meter.step(&Progress::Advanced(studies)));
    meter.finish();
    let summary = summary?;
    dataset::cli_println!(
        "{}: {} of {} and {}",
        out.display(),
        counted(summary.images, "image"),
        counted(summary.studies, "study"),
        counted(summary.patients, "patient")
    );
    Ok(ExitCode::SUCCESS)
}

fn ingest_source(source: &dyn Source, arguments: &IngestArguments) -> Result<ExitCode> {
    ingest_mapped(source, arguments, None)
}

/// Ingests, and writes what the hashes of paths stand for to `path_map`.
fn ingest_mapped(source: &dyn Source, arguments: &IngestArguments, path_map: Option<&Path>) -> Result<ExitCode> {
    // An error here is none of the directory's kind: no permission, a server that does not answer.
    let raw = std::fs::metadata(&arguments.raw_dir);
    if raw.as_ref().is_ok_and(|found| !found.is_dir())
        || raw.is_err_and(|error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
    {
        bail!(
            "{} is no directory; give the one that holds the raw data of `{}` (docs/datasets.md shows how it must lie)",
            arguments.raw_dir.display(),
            source.name()
        );
    }
    let options = arguments.options();
    // Planning may take minutes: what can be wrong without it is said first.
    options.check()?;
    let started = Instant::now();
    let mut plan = source.plan(&arguments.raw_dir)?;
    dataset::cli_eprintln!(
        "{}: {} radiographs planned, {} inputs left out, {:.1} s",
        source.name(),
        plan.records.len(),
        plan.rejects.len(),
        started.elapsed().as_secs_f64()
    );
    preview::plan_reasons(&plan, preview::FEW_REASONS).iter().for_each(|line| dataset::cli_eprintln!("{line}"));
    for remark in plan.remarks.iter().cloned().chain(source.remarks(&plan)) {
        dataset::cli_eprintln!("warning: {remark}");
    }
    if arguments.dry_run {
        if plan.records.is_empty() {
            return Err(preview::empty(source.name(), &arguments.raw_dir, &plan).into());
        }
        plan.records.truncate(options.limit.unwrap_or(usize::MAX));
        dataset::cli_println!("{}", preview::page(&plan).trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.check_input {
        return check_input(arguments, plan, options.jobs);
    }
    if let Some(path) = path_map {
        path_hash::write_map(path, &arguments.out, &plan)?;
    }
    let planned_rejects = plan.rejects.len() as u64;
    let meter = Meter::new("radiographs");
    let outcome =
        crate::run(source.name(), &arguments.raw_dir, &arguments.out, plan, &options, &|step| meter.step(&step));
    meter.finish();
    let summary = outcome?;
    tell(&summary, &arguments.out);
    // Those of the plan are printed already.
    if summary.manifest.rejects.values().sum::<u64>() > planned_rejects {
        for line in preview::dataset_reasons(&arguments.out, preview::FEW_REASONS)? {
            dataset::cli_eprintln!("{line}");
        }
    }
    if summary.reject_rate() > arguments.max_reject_rate {
        dataset::cli_eprintln!(
            "{:.1}% of the inputs were rejected, more than --max-reject-rate {}: see `dataset inspect {} --rejects`",
            summary.reject_rate() * 100.0,
            arguments.max_reject_rate,
            arguments.out.display()
        );
        return Ok(ExitCode::from(3));
    }
    Ok(ExitCode::SUCCESS)
}

/// Names of changed inputs that are printed; the rest is counted.
const SHOWN: usize = 20;

fn check_input(arguments: &IngestArguments, plan: Plan, jobs: usize) -> Result<ExitCode> {
    let meter = Meter::new("radiographs");
    let outcome =
        crate::run::resume::check_input(&arguments.raw_dir, &arguments.out, plan, jobs, &|step| meter.step(&step));
    meter.finish();
    let differing = outcome?;
    if differing.is_empty() {
        dataset::cli_println!("{}: the input is what it was", arguments.out.display());
        return Ok(ExitCode::SUCCESS);
    }
    differing.iter().take(SHOWN).for_each(|said| dataset::cli_println!("{said}"));
    if differing.len() > SHOWN {
        dataset::cli_println!("… and {} more", differing.len() - SHOWN);
    }
    bail!(
        "{}: {} inputs are not what they were; take another OUT or --overwrite to ingest them anew",
        arguments.out.display(),
        differing.len()
    )
}

fn tell(summary: &Summary, out: &Path) {
    let manifest = &summary.manifest;
    if summary.already_done {
        dataset::cli_println!("{} holds this dataset already: nothing to do", out.display());
    } else if summary.resumed_shards > 0 {
        dataset::cli_println!("went on after {}", counted(summary.resumed_shards, "finished shard"));
    }
    let totals = &manifest.totals;
    dataset::cli_println!(
        "{}: {} of {} and {}, {} with a report, {}, {:.1} MB",
        out.display(),
        counted(totals.records as usize, "record"),
        counted(totals.studies as usize, "study"),
        counted(totals.patients as usize, "patient"),
        totals.reports,
        counted(manifest.shards.len(), "shard"),
        totals.bytes as f64 / 1e6
    );
    dataset::cli_println!(
        "pixels: mean {:.4}, std {:.4}; vocabulary: {}",
        manifest.image.mean,
        manifest.image.std,
        manifest.text.vocabulary
    );
    if summary.unknown_views > 0 {
        let records = counted(summary.unknown_views as usize, "record");
        dataset::cli_println!(
            "views: {records} without one, since the ViewPosition of the DICOM header is no view code"
        );
    }
    for (stage, count) in &manifest.rejects {
        dataset::cli_println!(
            "rejects at stage {stage}: {count} (`dataset inspect {} --rejects` lists them)",
            out.display()
        );
    }
    if summary.refused > 0 {
        dataset::cli_println!(
            "inputs that could not be read: {}; once they can, the same command with --retry-rejects takes them in",
            summary.refused
        );
    }
}
