//! `trainer import`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::commands;
use crate::config::{PRESETS, overlay, pretrain_preset};

#[derive(Args)]
pub(super) struct Arguments {
    /// A .pth written by torch.save, a .safetensors, or a folder with model.safetensors; several are written as one, such as an
    /// encoder of images and a BERT.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Where the weights are written, under our names.
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// Write the tokenizer of a BERT's folder, with the ids of special tokens that `ingest --tokenizer` needs; the rows of its
    /// weights get the same order.
    #[arg(long, value_name = "FILE.json")]
    tokenizer: Option<PathBuf>,
    /// The model to compare with.
    #[arg(long, value_parser = PRESETS, default_value = "mrm-vit-b16")]
    preset: String,
    /// One of the model's settings, laid over the preset; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// List every tensor, and whether it fits.
    #[arg(long)]
    verbose: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { files, out, tokenizer, preset, set, verbose } = arguments;
    let config = overlay(&pretrain_preset(preset)?, None, set)?;
    let imported = commands::import(files, out, tokenizer.as_deref(), &config)?;
    if *verbose {
        dataset::cli_println!("{}", imported.report.details());
    }
    dataset::cli_println!("{imported}");
    Ok(())
}
