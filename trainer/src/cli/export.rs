//! `trainer export`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::options::Program;
use crate::commands::{self, TARGETS};
use crate::config::{PRESETS, overlay, pretrain_preset};

#[derive(Args)]
pub(super) struct Arguments {
    /// A pretrained or fine-tuned run, or a safetensors file.
    #[arg(value_name = "RUN|FILE")]
    weights: PathBuf,
    /// timm: also classifiers. vit: ViTModel. vit-mae: ViTMAEModel, or ViTMAEForPreTraining where the decoder is MAE's.
    #[arg(long, value_parser = TARGETS)]
    to: String,
    /// A folder that does not exist yet.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Sizes of a file that is in no run; default: mrm-vit-b16.
    #[arg(long, value_parser = PRESETS)]
    preset: Option<String>,
    /// One of the model's settings, laid over the preset; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, program: &Program) -> Result<()> {
    let Arguments { weights, to, out, preset, set } = arguments;
    let sizes = match preset {
        None if set.is_empty() => None,
        preset => Some(overlay(&pretrain_preset(preset.as_deref().unwrap_or(PRESETS[0]))?, None, set)?),
    };
    dataset::cli_println!("{}", commands::export(program.registry, weights, to, sizes, out)?);
    Ok(())
}
