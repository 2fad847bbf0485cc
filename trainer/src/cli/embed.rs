//! `trainer embed`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dataset::commands::cli;

use super::options::{DeviceOption, Program, RecordOptions};
use super::training::warn;
use crate::commands::{self, EncoderChoice};
use crate::config::PRESETS;
use crate::model::vit::{POOLINGS, Pooling};

#[derive(Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    records: RecordOptions,
    /// A run or a safetensors file.
    #[arg(long, value_name = "RUN|FILE", alias = "run")]
    weights: PathBuf,
    /// Sizes of weights that are in no run; replaces the sizes of a run.
    #[arg(long, value_parser = PRESETS)]
    preset: Option<String>,
    /// What stands for an image: the mean over patch tokens, or the class token after the final norm. Default: as the encoder
    /// was trained (DINO, DINOv2, CLIP: cls; others: mean).
    #[arg(long, value_parser = POOLINGS)]
    pooling: Option<String>,
    #[command(flatten)]
    device: DeviceOption,
    /// The table to write.
    #[arg(long, value_name = "FILE.parquet", value_parser = cli::parquet)]
    out: PathBuf,
}

pub(super) fn run(arguments: &Arguments, program: &Program) -> Result<()> {
    let Arguments { records, weights, preset, pooling, device, out } = arguments;
    let pooling = pooling.as_deref().and_then(Pooling::parse);
    let choice = EncoderChoice { weights: Some(weights), preset: preset.as_deref(), pooling };
    let device = commands::device(&device.device)?;
    let (source, rows) = records.open()?;
    let embedded = commands::embed(program.registry, &source, &rows, &choice, device, out)?;
    warn(&embedded.warning);
    dataset::cli_println!(
        "{}\n{}, {} features each, written to {}",
        embedded.loaded,
        cli::counted(rows.len(), "record"),
        embedded.features,
        out.display()
    );
    Ok(())
}
