//! `trainer import`.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use clap::Args;
use dataset::commands::cli::UsageError;

use crate::commands;
use crate::config::{PRESETS, overlay, pretrain_preset};

#[derive(Args)]
pub(super) struct Arguments {
    /// A .pth written by torch.save, a .safetensors, or a folder with model.safetensors; several are written as one, such as an
    /// encoder of images and a BERT.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// A file for the weights under our names, or a folder for an encoder with its sizes, which serves where a run does
    /// (DINOv2, CLIP, ViT).
    #[arg(long, value_name = "FILE.safetensors|FOLDER")]
    out: PathBuf,
    /// Write the tokenizer of a BERT's folder, with the ids of special tokens that `ingest --tokenizer` needs; the rows of its
    /// weights get the same order.
    #[arg(long, value_name = "FILE.json")]
    tokenizer: Option<PathBuf>,
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
    let Arguments { files, out, tokenizer, preset, set, verbose } = arguments;
    if out.extension().is_none_or(|end| end != "safetensors") {
        let [file] = files.as_slice() else {
            return Err(UsageError::of(anyhow!("--out FOLDER takes one encoder: give one file or folder")));
        };
        if tokenizer.is_some() {
            return Err(UsageError::of(anyhow!("--tokenizer goes with --out FILE.safetensors: an encoder has none")));
        }
        dataset::cli_println!("{}", commands::import_encoder(file, out, set)?);
        return Ok(());
    }
    let config = overlay(&pretrain_preset(preset)?, None, set)?;
    let imported = commands::import(files, out, tokenizer.as_deref(), &config)?;
    if *verbose {
        dataset::cli_println!("{}", imported.report.details());
    }
    dataset::cli_println!("{imported}");
    Ok(())
}
