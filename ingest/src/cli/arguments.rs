//! The arguments that all sources share.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use dataset::commands::cli::{self, count};
use dataset::format::record::ImageEncoding;
use dataset::format::shard::ImageCompression;

use crate::image::intensity::Intensity;
use crate::image::resize::Resize;
use crate::report::tokenizer;
use crate::run::tasks::Task;
use crate::run::{self, Options, PixelBits, ReportText, SourceDigest, TokenizerChoice};

#[derive(Args)]
pub struct CommonArguments {
    /// Directory of the raw data.
    pub raw_dir: PathBuf,
    /// Directory of the dataset to write, or a URL: s3://BUCKET/PREFIX, file:///DIR.
    pub out: PathBuf,
    #[command(flatten)]
    renamed: RenamedOptions,
    /// Side of the stored images in pixels (see --resize).
    #[arg(long, default_value_t = run::SIZE, value_parser = clap::value_parser!(u32).range(1..=8192))]
    size: u32,
    /// How images are brought to that size: shorter side (never enlarged), padded square, or stretched square.
    #[arg(long, value_enum, default_value_t)]
    resize: Resize,
    /// How images are stored: raw is the fastest to read, PNG takes half of the space, JPEG a fifth and is lossy.
    #[arg(long, value_enum, default_value = "raw")]
    image_encoding: ImageEncoding,
    /// Bits of a stored pixel. 8: gray levels of the window of each image. 16: up to 16 bits of the detector, with the window
    /// beside them; as raw pixels or PNG.
    #[arg(long, value_enum, default_value_t)]
    bits: PixelBits,
    /// Compression of the pages of the image column.
    #[arg(long, value_enum, default_value_t)]
    compression: ImageCompression,
    /// A tokenizer.json, `train` (on the reports of this run), or `none`.
    #[arg(long, value_name = "FILE|train|none", default_value = "train")]
    tokenizer: String,
    /// Size of the vocabulary of a trained tokenizer.
    #[arg(long, default_value_t = tokenizer::VOCABULARY, value_parser = count::<1_000_000>)]
    vocab_size: usize,
    /// Longest list of token ids, [CLS] included.
    #[arg(long, default_value_t = run::MAX_TOKENS as u32, value_parser = clap::value_parser!(u32).range(2..=100_000))]
    max_tokens: u32,
    /// Part of the report that is stored and tokenized.
    #[arg(long, value_enum, default_value_t)]
    report_text: ReportText,
    /// Digest of the raw files that records store.
    #[arg(long, value_enum, default_value_t)]
    source_digest: SourceDigest,
    /// Compare the raw files with the SHA-256 in this list (SHA256SUMS.txt of PhysioNet) while they are read; may be repeated.
    /// Its paths are relative to its folder or to RAW_DIR. A damaged image is rejected, a damaged table ends the run.
    #[arg(long, value_name = "FILE", conflicts_with = "check_input")]
    check_sums: Vec<PathBuf>,
    /// Leave out images whose stored pixels all have one value.
    #[arg(long)]
    reject_constant: bool,
    /// Leave out DICOM files whose header states text in the pixels (BurnedInAnnotation YES).
    #[arg(long)]
    reject_burned_in: bool,
    /// Radiographs in a Parquet file.
    #[arg(long, default_value_t = run::ROWS_PER_SHARD as u32, value_parser = clap::value_parser!(u32).range(1..))]
    rows_per_shard: u32,
    /// Threads; they do not change the bytes of the dataset. Default: one for each core.
    #[arg(long, value_parser = count::<1024>)]
    jobs: Option<usize>,
    /// Transform from stored values to 8 bits; with --bits 16, the window that is stored.
    #[arg(long, value_enum, default_value_t)]
    intensity: Intensity,
    /// Ingest tables and reports without images.
    #[arg(long)]
    pub no_images: bool,
    /// Ingest only the first N radiographs.
    #[arg(long, value_name = "N", value_parser = count::<{ u32::MAX as usize }>)]
    limit: Option<usize>,
    /// Share of rejected inputs above which the exit code is 3; with --limit, of the radiographs that were tried.
    #[arg(long, default_value_t = run::MAX_REJECT_RATE, value_parser = cli::share)]
    pub max_reject_rate: f64,
    /// Replace the dataset in OUT.
    #[arg(long)]
    overwrite: bool,
    /// Make the shards whose number is I modulo N; other processes, on any machines, make the others, and the last one
    /// completes the dataset. `auto`, also without a value, takes I and N from SLURM_ARRAY_TASK_…, RANK and WORLD_SIZE, or
    /// the variables of srun.
    #[arg(long, value_name = "I/N|auto", num_args = 0..=1, default_missing_value = "auto")]
    #[arg(conflicts_with_all = ["overwrite", "retry_rejects", "check_input", "dry_run"])]
    pub task: Option<TaskChoice>,
    /// Complete a dataset whose shards were all made by tasks, or list those that are missing.
    #[arg(long, conflicts_with_all = ["task", "overwrite", "retry_rejects", "check_input", "dry_run"])]
    pub finish: bool,
    /// Add inputs that could not be read when the dataset in OUT was written (no permission, a failing disk).
    #[arg(long, conflicts_with_all = ["overwrite", "check_input", "dry_run"])]
    retry_rejects: bool,
    /// Folder in which a dataset for an object store is prepared. Default: mrm/staging in the user's cache.
    #[arg(long, value_name = "DIR")]
    staging: Option<PathBuf>,
    /// Take over the lock that a killed run on another machine left in the object store of OUT. Make sure that it does not run.
    #[arg(long, conflicts_with_all = ["check_input", "dry_run"])]
    break_lock: bool,
    /// Read every input of the finished dataset in OUT again, except mask files, and list those that changed; write nothing.
    #[arg(long, conflicts_with_all = ["overwrite", "dry_run"])]
    pub check_input: bool,
    /// Print what would be ingested; write nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// How the task of a process is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskChoice {
    /// By environment variables.
    Auto,
    /// On the command line.
    Given(Task),
}

impl FromStr for TaskChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::Given) }
    }
}

/// Former names of options. Each gives a usage error with the new name.
#[derive(Args)]
struct RenamedOptions {
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "", value_parser = renamed_to_intensity)]
    tone: Option<Infallible>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "", value_parser = renamed_to_resize)]
    fit: Option<Infallible>,
}

fn renamed_to_intensity(value: &str) -> Result<Infallible, String> {
    Err(renamed("--tone", "--intensity", value))
}

fn renamed_to_resize(value: &str) -> Result<Infallible, String> {
    Err(renamed("--fit", "--resize", value))
}

fn renamed(old: &str, new: &str, value: &str) -> String {
    format!("{old} is now called {new}; give {}", [new, value].join(" ").trim_end())
}

impl CommonArguments {
    /// The options of a run.
    pub fn options(&self) -> Options {
        let defaults = Options::default();
        Options {
            size: self.size,
            resize: self.resize,
            encoding: self.image_encoding,
            bits: self.bits,
            compression: self.compression,
            intensity: self.intensity,
            tokenizer: match self.tokenizer.as_str() {
                "none" => TokenizerChoice::None,
                "train" => TokenizerChoice::Train(self.vocab_size),
                path => TokenizerChoice::File(PathBuf::from(path)),
            },
            max_tokens: self.max_tokens as usize,
            report_text: self.report_text,
            source_digest: self.source_digest,
            check_sums: self.check_sums.clone(),
            reject_constant: self.reject_constant,
            reject_burned_in: self.reject_burned_in,
            rows_per_shard: self.rows_per_shard as usize,
            no_images: self.no_images,
            limit: self.limit,
            jobs: self.jobs.unwrap_or(defaults.jobs),
            overwrite: self.overwrite,
            retry_rejects: self.retry_rejects,
            staging: self.staging.clone(),
            break_lock: self.break_lock,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    fn parse(options: &[&str]) -> Result<CommonArguments, clap::Error> {
        let command = CommonArguments::augment_args(clap::Command::new("ingest"));
        let matches = command.try_get_matches_from([&["ingest", "raw", "out"], options].concat())?;
        CommonArguments::from_arg_matches(&matches)
    }

    #[test]
    fn former_names_give_a_usage_error_with_the_new_name() {
        for (old, new) in [("--tone", "--intensity"), ("--fit", "--resize")] {
            for options in [&[old, "pad"] as &[&str], &[old], &[&format!("{old}=pad")]] {
                let error = parse(options).err().expect("an error");
                assert_eq!(error.exit_code(), 2);
                let message = error.to_string();
                assert!(message.contains(&format!("{old} is now called {new}; give {new}")), "{message}");
            }
        }
        let parsed = parse(&["--intensity", "minmax", "--resize", "pad"]).expect("valid options").options();
        assert_eq!((parsed.intensity, parsed.resize), (Intensity::Minmax, Resize::Pad));
    }
}
