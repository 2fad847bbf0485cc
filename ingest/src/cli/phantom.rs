//! The subcommand `phantom`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dataset::commands::cli::{count, counted};
use dataset::commands::progress::{Meter, Progress};
use phantom::{Layout, Options};

pub const EXAMPLE: &str =
    "Example: ingest phantom mimic-cxr raw --studies 1000 --size 256, then ingest mimic-cxr raw data";

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
    pub fn run(self) -> Result<u8> {
        let options = Options { studies: self.studies, seed: self.seed, size: self.size };
        let meter = Meter::new("studies");
        meter.step(&Progress::Started { records: options.studies as u64, done: 0 });
        let advance = |studies| meter.step(&Progress::Advanced(studies));
        let summary = phantom::write(self.layout, &self.out, &options, advance);
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
