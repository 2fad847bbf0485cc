//! `dataset doctor`: measures disk, decoding, transform and the assembly of batches apart, and says what limits loading and,
//! with a run of the trainer, training.

#[cfg(feature = "cli")]
pub mod arguments;
mod disk;
mod findings;
mod options;
mod stages;
mod trainer_log;

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::loader::LoaderBuilder;
use crate::random::Stream;
pub use disk::Disk;
pub use findings::{Finding, Limit};
pub use options::Options;
use options::loader;
pub use stages::Stages;
pub use trainer_log::Training;

/// Records that the stages are measured with: few enough that their images stay in the page cache.
const SAMPLE: usize = 512;

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Reading from the storage.
    pub disk: Disk,
    /// The stages of an image on one thread, from the page cache.
    pub stages: Stages,
    /// Threads of the loader.
    pub threads: usize,
    /// Images a second of the loader with these threads, from the page cache: the most that it can give.
    pub loader_images_per_second: f64,
    /// The run of the trainer, where one is given.
    pub training: Option<Training>,
    /// What limits, and what to do.
    pub finding: Finding,
}

/// Measures a dataset; `run` is the directory of a run of the trainer.
///
/// # Errors
/// When the dataset has no images, a record cannot be read, or the run has no log with times of steps.
pub fn examine(dataset: &Arc<Dataset>, options: &Options, run: Option<&Path>) -> Result<Report> {
    let training = run.map(Training::read).transpose()?;
    options.transform.check()?;
    let mut rows = dataset.all_rows()?;
    Stream::new(&[0]).shuffle(&mut rows);
    rows.truncate(SAMPLE);
    if rows.is_empty() {
        return Err(Error::Invalid("the dataset is empty".to_owned()));
    }
    let disk = Disk::measure(dataset, options.threads, options.seconds)?;
    let stages = Stages::measure(dataset, &rows, options)?;
    let loader_images_per_second = loader_rate(loader(dataset, rows, options), options)?;
    let finding = Finding::of(&disk, &stages, loader_images_per_second, training.as_ref());
    Ok(Report { disk, stages, threads: options.threads, loader_images_per_second, training, finding })
}

fn loader_rate(builder: LoaderBuilder, options: &Options) -> Result<f64> {
    let mut loader = builder.build()?;
    // One epoch fills the caches.
    for _ in 0..loader.batches() {
        loader.next_batch()?;
    }
    stages::rate(options.seconds, || Ok(loader.next_batch()?.len()))
}

impl Report {
    /// The report as a table and a few lines.
    pub fn text(&self) -> String {
        let mut lines = vec![self.disk.line()];
        lines.extend(self.stages.lines());
        lines.push(format!(
            "loader      {:>9.0} images/s with {} from the page cache",
            self.loader_images_per_second,
            super::wording::counted(self.threads, "thread")
        ));
        lines.extend(self.training.iter().map(Training::line));
        lines.push(format!("limit       {}", self.finding.text));
        lines.join("\n") + "\n"
    }
}
