//! `trainer import`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::commands;
use crate::config::{PRESETS, overlay, pretrain_preset};

#[derive(Args)]
pub(super) struct Arguments {
    /// A .pth written by torch.save, a .safetensors, or a folder with model.safetensors.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A file for the weights under our names, or a folder for an encoder with its sizes, which serves where a run does
    /// (DINOv2, CLIP, ViT).
    #[arg(long, value_name = "FILE.safetensors|FOLDER")]
    out: PathBuf,
    /// The model to compare a file with.
    #[arg(long, value_parser = PRESETS, default_value = "mrm-vit-b16")]
    preset: String,
    /// One of the model's settings, laid over the preset, or over what is read of an encoder; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// List every tensor, and whether it fits.
    #[arg(long)]
    verbose: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { file, out, preset, set, verbose } = arguments;
    if out.extension().is_none_or(|end| end != "safetensors") {
        dataset::cli_println!("{}", commands::import_encoder(file, out, set)?);
        return Ok(());
    }
    let config = overlay(&pretrain_preset(preset)?, None, set)?;
    let imported = commands::import(file, out, &config)?;
    if *verbose {
        dataset::cli_println!("{}", imported.report.details());
    }
    dataset::cli_println!("{imported}");
    Ok(())
}
