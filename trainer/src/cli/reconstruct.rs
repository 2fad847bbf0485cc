//! `trainer reconstruct`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dataset::commands::cli;

use super::options::DeviceOption;
use crate::commands;
use crate::task::pretrain::{Reconstruction, reconstruct};
use crate::task::{DataSource, RowChoice};

#[derive(Args)]
pub(super) struct Arguments {
    /// The dataset: a directory or a URL (s3://BUCKET/PREFIX).
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// A pre-training run, or a safetensors file in one.
    #[arg(long, value_name = "RUN|FILE", alias = "run")]
    weights: PathBuf,
    #[command(flatten)]
    device: DeviceOption,
    /// Take the records from this split's test subset; without: from the whole dataset.
    #[arg(long)]
    split: Option<String>,
    /// How many records, or their identifiers separated by commas.
    #[arg(long, default_value = "6", value_parser = rows)]
    rows: RowChoice,
    /// Default: reconstruction.png in the run; the tokens are written to the .json beside it.
    #[arg(long, value_name = "FILE.png", value_parser = cli::png)]
    out: Option<PathBuf>,
    /// Share of the report's tokens to mask; default: as in the run's training.
    #[arg(long, value_name = "0..1", value_parser = cli::share)]
    report_mask_ratio: Option<f64>,
    /// The old name of --report-mask-ratio.
    #[arg(long, hide = true, value_parser = word_ratio_is_report_mask_ratio)]
    word_ratio: Option<f64>,
    /// Decides records and masks.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn word_ratio_is_report_mask_ratio(_: &str) -> Result<f64, String> {
    Err("--word-ratio is now --report-mask-ratio".to_owned())
}

/// A number of records, or their identifiers.
fn rows(text: &str) -> Result<RowChoice, String> {
    if let Ok(count) = text.parse() {
        return Ok(RowChoice::Count(count));
    }
    let records: Vec<String> = text.split(',').map(|id| id.trim().to_owned()).collect();
    if records.iter().any(String::is_empty) {
        return Err("give a number of records, or identifiers as ID,ID".to_owned());
    }
    Ok(RowChoice::Records(records))
}

pub(super) fn run(arguments: Arguments) -> Result<()> {
    let Arguments { data, weights, device, split, rows, out, report_mask_ratio, seed, .. } = arguments;
    let device = commands::device(&device.device)?;
    let source = DataSource::open(&data, split.as_deref())?;
    let request =
        Reconstruction { source: &source, weights: &weights, rows: &rows, report_mask_ratio, device, seed, out };
    dataset::cli_println!("{}", reconstruct(&request)?);
    Ok(())
}
