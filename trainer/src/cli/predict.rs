//! `trainer predict`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dataset::commands::cli;

use super::options::{DeviceOption, Program, RecordOptions};
use super::training::warn;
use crate::commands;

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    records: RecordOptions,
    /// A run fine-tuned for classification, or a safetensors file in one.
    #[arg(long, value_name = "RUN|FILE", alias = "run")]
    weights: PathBuf,
    #[command(flatten)]
    device: DeviceOption,
    /// The table to write: record_id, patient_id, study_id, and a column for each finding.
    #[arg(long, value_name = "FILE.csv|FILE.parquet", value_parser = cli::csv_or_parquet)]
    out: PathBuf,
}

pub(super) fn run(arguments: &Arguments, program: &Program) -> Result<()> {
    let Arguments { records, weights, device, out } = arguments;
    let device = commands::device(&device.device)?;
    let (source, rows) = records.open()?;
    let predicted = commands::predict(program.registry, &source, &rows, weights, device, out)?;
    warn(&predicted.warning);
    dataset::cli_println!("{}, written to {}", predicted.text, out.display());
    Ok(())
}
