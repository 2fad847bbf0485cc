//! The arguments of `dataset doctor`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::{Options, Report, examine};
use crate::commands::cli;
use crate::commands::transform_arguments::{self, Augmentations, WindowArguments, named_transform};
use crate::dataset::Dataset;
use crate::error::{Error, Result};

/// Measure storage, decoding, transform and the assembly of batches apart, and say what limits loading.
#[derive(Args)]
pub struct DoctorArguments {
    /// Folder or URL of the dataset.
    dir: PathBuf,
    /// A run of `trainer` on this machine: says whether loading or computing limits it. Give its transform and size, too.
    #[arg(long, value_name = "RUN")]
    with_trainer: Option<PathBuf>,
    /// The transform of the recipe.
    #[arg(long, value_parser = transform_arguments::NAMES, default_value = "pretrain")]
    transform: String,
    /// Side of the transformed image in pixels.
    #[arg(long, default_value_t = 448, value_parser = clap::value_parser!(u32).range(8..=8192))]
    size: u32,
    /// Augmentations of the cropped image, a JSON list: `[{"kind": "gamma", "gamma": [0.8, 1.25]}]`.
    #[arg(long, value_name = "LIST", default_value = "[]", hide_default_value = true)]
    augment: Augmentations,
    #[command(flatten)]
    windows: WindowArguments,
    /// Number of records in a batch.
    #[arg(long, default_value_t = 64, value_parser = cli::count::<65_536>)]
    batch_size: usize,
    /// Number of threads of the loader [default: one for each core].
    #[arg(long, value_parser = cli::count::<1024>)]
    threads: Option<usize>,
    /// Duration of each of the seven measurements in seconds.
    #[arg(long, default_value_t = 2.0, value_parser = cli::positive)]
    seconds: f64,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

impl DoctorArguments {
    /// Measures, and returns the report in the chosen form.
    ///
    /// # Errors
    /// As [`examine`].
    pub fn run(self) -> Result<String> {
        let dataset = Arc::new(Dataset::open(&self.dir)?);
        let options = Options {
            transform: named_transform(&self.transform, self.size, &self.augment, self.windows),
            batch_size: self.batch_size,
            threads: self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
            seconds: self.seconds,
        };
        let report: Report = examine(&dataset, &options, self.with_trainer.as_deref())?;
        if !self.json {
            return Ok(report.text());
        }
        let json = serde_json::to_string_pretty(&report).map_err(Error::json(&self.dir))?;
        Ok(json + "\n")
    }
}
