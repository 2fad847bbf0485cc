//! `trainer bench`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::options::{DeviceOption, Program, SettingOptions};
use crate::commands;
use crate::config::{PRESETS, overlay, pretrain_preset};
use crate::task::{DataSource, pretrain};

#[derive(Args)]
pub(super) struct Arguments {
    /// Take batches from this dataset, loading included.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The model.
    #[arg(long, value_parser = PRESETS, default_value = "mrm-vit-b16")]
    preset: String,
    #[command(flatten)]
    device: DeviceOption,
    /// Steps before the measurement.
    #[arg(long, default_value_t = 3)]
    warmup: u64,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingOptions,
}

pub(super) fn run(arguments: &Arguments, program: &Program) -> Result<()> {
    let Arguments { data, preset, device, warmup, json, settings } = arguments;
    let device = commands::device(&device.device)?;
    let source = data.as_deref().map(|data| DataSource::open(data, None)).transpose()?;
    let mut preset = pretrain_preset(preset)?;
    preset.optimizer.accumulation = 1;
    let steps = settings.steps.unwrap_or(10);
    let flags: Vec<String> = settings.flags().into_iter().chain(program.threads.clone()).collect();
    let mut config = overlay(&preset, settings.file()?.as_deref(), &flags)?;
    pretrain::complete(&mut config, source.as_ref())?;
    let measured = commands::bench(&config, source.as_ref(), device, *warmup, steps)?;
    dataset::cli_println!("{}", if *json { serde_json::to_string(&measured)? } else { measured.to_string() });
    Ok(())
}
