//! A baseline says something about an initialization only where it is the same model: names the model of a run, and checks
//! whether runs have the same one.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::Registry;
use crate::config::PRESETS;
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
    fn of(registry: &Registry, run: &Path) -> Result<Self> {
        let common = registry.load(run)?.common()?;
        Ok(Self { preset: common.preset, vit: common.encoder.vit })
    }

    fn name(&self) -> String {
        model_name(&self.preset, &self.vit)
    }
}

/// `mrm-vit-b16 (12 layers of embed_dim 768, 12 heads; patches of 16 in images of 224 pixels)`, with what is not MRM's encoder:
/// `…; final_norm = true, pooling = "cls")`.
fn model_name(preset: &str, vit: &VitConfig) -> String {
    let VitConfig { image_size, patch_size, embed_dim, num_layers, num_heads, .. } = vit;
    let variants: String = vit.variants().iter().map(|(key, value)| format!("; {key} = {value}")).collect();
    format!(
        "{preset} ({num_layers} layers of embed_dim {embed_dim}, {num_heads} heads; patches of {patch_size} in images of \
         {image_size} pixels{variants})"
    )
}

/// The model that a fine-tuning run without `--init` trains, and how to choose another one.
pub fn without_init(preset: &str, vit: &VitConfig, chosen: bool) -> String {
    let model = model_name(preset, vit);
    if chosen {
        return format!("no --init: random initialization of {model}");
    }
    format!(
        "no --init: random initialization of {model}, the default; a baseline for a pretrained run must be the same model: \
         give that run's --preset ({})",
        PRESETS.join(", ")
    )
}

/// The pretrained run whose model all runs of a sweep take, and a message that names the model; none where no initialization
/// is a run. `inits` are the options as they were typed, and the weights that they mean.
///
/// # Errors
/// When two initializations are runs of different models, or the preset that was asked for is another one.
pub fn shared_model(
    registry: &Registry,
    inits: &[(String, PathBuf)],
    preset: Option<&str>,
) -> Result<Option<(PathBuf, String)>> {
    let mut first: Option<(&str, PathBuf, Model)> = None;
    for (typed, weights) in inits {
        weights_file(weights)?;
        let Ok(run) = run_dir::run_of(weights) else { continue };
        let model = Model::of(registry, &run)?;
        if let Some(preset) = preset.filter(|preset| *preset != model.preset) {
            bail!("--init {typed} is {}, not {preset}: leave --preset out, and all runs take its model", model.name());
        }
        match &first {
            None => first = Some((typed, run, model)),
            Some((other, _, of_other)) if *of_other != model => bail!(
                "--init {other} is {}, --init {typed} is {}: all initializations of a sweep must be the same model; make a \
                 sweep for each",
                of_other.name(),
                model.name()
            ),
            Some(_) => {}
        }
    }
    Ok(first.map(|(_, run, model)| (run, format!("all runs train the same model: {}", model.name()))))
}

/// A warning where two runs are of different models: their difference is then not one of the initialization alone.
pub fn different_models(registry: &Registry, first: &Path, second: &Path) -> Option<String> {
    let (one, other) = (Model::of(registry, first).ok()?, Model::of(registry, second).ok()?);
    (one.vit != other.vit).then(|| {
        format!(
            "the runs train different models: {} is {}, {} is {}; their difference is not one of the initialization alone",
            first.display(),
            one.name(),
            second.display(),
            other.name()
        )
    })
}
