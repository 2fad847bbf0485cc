//! A baseline tells something about start weights only where it is the same model: what a run's model is, in words, and
//! whether two runs have the same.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::config::{AnyConfig, PRESETS};
use crate::model::vit::VitConfig;
use crate::train::run_dir;
use crate::weights::source::weights_file;

/// The encoder of a run.
#[derive(Debug, Clone, PartialEq)]
struct Model {
    preset: String,
    vit: VitConfig,
}

impl Model {
    fn of(run: &Path) -> Result<Self> {
        let config = AnyConfig::load(run)?;
        Ok(Self { preset: config.preset().to_owned(), vit: config.encoder().0 })
    }

    fn told(&self) -> String {
        told(&self.preset, &self.vit)
    }
}

/// `mrm-vit-b16 (12 blocks of width 768, 12 heads; patches of 16 in images of 224 pixels)`.
fn told(preset: &str, vit: &VitConfig) -> String {
    let VitConfig { image_size, patch_size, embed_dim, num_layers, num_heads, .. } = vit;
    format!(
        "{preset} ({num_layers} blocks of width {embed_dim}, {num_heads} heads; patches of {patch_size} in images of {image_size} pixels)"
    )
}

/// What a fine-tuning run without `--init` trains, and how to choose another model.
pub fn without_init(preset: &str, vit: &VitConfig, chosen: bool) -> String {
    let model = told(preset, vit);
    if chosen {
        return format!("no --init: random initialization of {model}");
    }
    format!(
        "no --init: random initialization of {model}, the default; a baseline for a pre-trained run must be the same model: \
         give that run's --preset ({})",
        PRESETS.join(", ")
    )
}

/// The pre-trained run whose model all starts of a sweep take; none where no start is a run. `starts` are what was typed and
/// the weights that it means.
///
/// # Errors
/// When two starts are runs of different models, or the preset that was asked for is another one.
pub(super) fn of_starts(starts: &[(String, PathBuf)], preset: Option<&str>) -> Result<Option<PathBuf>> {
    let mut first: Option<(&str, PathBuf, Model)> = None;
    for (typed, weights) in starts {
        weights_file(weights)?;
        let Ok(run) = run_dir::run_of(weights) else { continue };
        let model = Model::of(&run)?;
        if let Some(preset) = preset.filter(|preset| *preset != model.preset) {
            bail!(
                "--start {typed} is {}, not {preset}: leave --preset out, and all starts take its model",
                model.told()
            );
        }
        match &first {
            None => first = Some((typed, run, model)),
            Some((other, _, of_other)) if *of_other != model => bail!(
                "--start {other} is {}, --start {typed} is {}: all starts of a sweep must be the same model; make a sweep \
                 for each",
                of_other.told(),
                model.told()
            ),
            Some(_) => {}
        }
    }
    if let Some((_, _, model)) = &first {
        dataset::cli_println!("all starts train the same model: {}", model.told());
    }
    Ok(first.map(|(_, run, _)| run))
}

/// Warns where two runs are of different models: their difference is then not one of the start weights alone.
pub(super) fn remark_different(first: &Path, second: &Path) {
    let (Ok(one), Ok(other)) = (Model::of(first), Model::of(second)) else { return };
    if one.vit != other.vit {
        dataset::cli_eprintln!(
            "warning: the runs train different models: {} is {}, {} is {}; their difference is not one of the start \
             weights alone",
            first.display(),
            one.told(),
            second.display(),
            other.told()
        );
    }
}
