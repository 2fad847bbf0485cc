//! The subcommand `phantom`. The comment of its arguments is the text of `--help`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dataset::commands::cli::{count, counted};
use dataset::commands::progress::{Meter, OnProgress};
use phantom::{Error, Layout, Options, Summary};

pub const EXAMPLE: &str =
    "Example: ingest phantom mimic-cxr raw --studies 1000 --size 256, then ingest mimic-cxr raw data";

/// Write a synthetic raw directory in a source's layout, to try everything without a license.
#[derive(Args)]
pub struct PhantomArguments {
    /// The source whose layout is written.
    #[arg(value_enum)]
    layout: Layout,
    /// Directory to write: new, empty, or left by the same command.
    out: PathBuf,
    /// Number of studies; some have two images.
    #[arg(long, value_name = "N", value_parser = count::<10_000_000>)]
    studies: usize,
    /// Seed of the patients.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Nominal shorter side of the images in pixels.
    #[arg(long, default_value_t = phantom::DEFAULT_SIZE, value_parser = size)]
    size: usize,
}

fn size(text: &str) -> Result<usize, String> {
    let sizes = phantom::SIZES;
    let size = text.trim().parse().ok().filter(|size| sizes.contains(size));
    size.ok_or_else(|| format!("give a number from {} to {}", sizes.start(), sizes.end()))
}

impl PhantomArguments {
    /// Writes the directory.
    ///
    /// # Errors
    /// As [`phantom::write`].
    pub fn write(&self, progress: &OnProgress) -> Result<Summary, Error> {
        let options = Options { studies: self.studies, seed: self.seed, size: self.size };
        phantom::write(self.layout, &self.out, &options, progress)
    }

    /// Writes the directory, and prints the progress and the result.
    pub(super) fn run(self) -> Result<u8> {
        let meter = Meter::new("studies");
        let summary = self.write(&|step| meter.step(step));
        meter.finish();
        let summary = summary?;
        dataset::cli_println!(
            "{}: {} of {} and {}",
            self.out.display(),
            counted(summary.images, "image"),
            counted(summary.studies, "study"),
            counted(summary.patients, "patient")
        );
        Ok(0)
    }
}
