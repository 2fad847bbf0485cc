//! The `ingest` command.

use std::path::PathBuf;

use clap::Parser;
use ingest::phantom::{self, Layout, Options};

/// Raw radiographs and reports to training-ready shards.
#[derive(Parser)]
enum Command {
    /// Write a synthetic raw directory in a source's layout.
    Phantom {
        /// Layout: mimic-cxr.
        layout: Layout,
        /// Directory to write: new, empty, or left by the same command.
        out: PathBuf,
        /// Number of studies.
        #[arg(long)]
        studies: usize,
        /// Seed of everything.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Nominal shorter side of the pictures in pixels.
        #[arg(long, default_value_t = phantom::DEFAULT_SIZE)]
        size: usize,
    },
}

fn main() -> anyhow::Result<()> {
    let Command::Phantom {
        layout,
        out,
        studies,
        seed,
        size,
    } = Command::parse();
    let summary = phantom::write(
        layout,
        &out,
        &Options {
            studies,
            seed,
            size,
        },
        |_| {},
    )?;
    println!(
        "{} patients, {} studies, {} images in {}",
        summary.patients,
        summary.studies,
        summary.images,
        out.display()
    );
    Ok(())
}
