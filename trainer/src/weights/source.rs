//! The weights of a run or of a file, and a model initialized from them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tch::Tensor;
use tch::nn::VarStore;

use crate::model::pos_embed::PosResize;
use crate::train::checkpoint::{BEST, EMA, MODEL, newest_checkpoint};
use crate::train::run_dir::{config_path, load_config, run_of};
use crate::weights::load::{LoadReport, Tensors, check_finite, load_resized};

/// Reads the weights of a run (the best ones, else the newest: their moving average, if there is one) or of a safetensors
/// file.
///
/// # Errors
/// When there is no such run or file, the run has no checkpoint, the file is damaged or of another format, or a weight is not
/// finite.
pub fn read_weights(source: &Path) -> Result<Tensors> {
    let file = weights_file(source)?;
    let tensors = Tensor::read_safetensors(&file).with_context(|| {
        let mut start = Vec::new();
        let _ = File::open(&file).and_then(|file| file.take(2).read_to_end(&mut start));
        let path = file.display();
        if start == b"PK" || start.first() == Some(&0x80) {
            return format!("{path} is a PyTorch file: `trainer import {path} --out FILE.safetensors` first");
        }
        format!("{path} is not a safetensors file, or is damaged")
    })?;
    check_finite(&tensors).with_context(|| file.display().to_string())?;
    Ok(tensors)
}

/// The file that [`read_weights`] reads.
///
/// # Errors
/// When there is none.
pub fn weights_file(source: &Path) -> Result<PathBuf> {
    let newest = newest_checkpoint(source).map(|folder| [folder.join(EMA), folder.join(MODEL)]);
    // An imported encoder has its weights beside its configuration.
    let imported = config_path(source).is_file().then(|| source.join(MODEL));
    let candidates = [source.join(BEST)].into_iter().chain(newest.into_iter().flatten());
    let mut candidates = candidates.chain(imported).chain([source.to_path_buf()]);
    let file = candidates.find(|path| path.is_file());
    if file.is_none() && config_path(source).is_file() {
        bail!("{} has no checkpoint yet; run its training command again, or wait for it", source.display());
    }
    file.with_context(|| format!("{} is neither a run with a checkpoint nor a safetensors file", source.display()))
}

/// How position tables of these weights are resized: as their run says.
fn resize_of(source: &Path) -> PosResize {
    let run = run_of(source).and_then(|run| load_config(&run)?.common());
    run.map_or_else(|_| PosResize::default(), |common| common.encoder.vit.pos_resize)
}

/// Initializes a model with pretrained weights, except for the names that `skip` selects; returns what was loaded. `hint`
/// names the preset that fits weights of other sizes, for the error.
///
/// # Errors
/// When the weights are of a model of other sizes, or of another kind: none of the encoder's blocks fits.
pub fn initialize(
    store: &VarStore,
    source: &Path,
    skip: &dyn Fn(&str) -> bool,
    hint: fn(&[(String, Tensor)]) -> String,
) -> Result<LoadReport> {
    let mut tensors = read_weights(source)?;
    tensors.retain(|(name, _)| !skip(name));
    let report = load_resized(store, tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)), resize_of(source))?;
    let of_encoder = |name: &str| name.starts_with("blocks.") || name.starts_with("patch_embed.");
    let loaded = report.matched.iter().any(|name| of_encoder(name));
    if let Some(name) = report.missing.iter().chain(&report.unexpected).find(|name| of_encoder(name) && loaded) {
        bail!(
            "{} holds an encoder with another number of layers, or of another kind ({name}); choose the --preset it was made \
             with{}",
            source.display(),
            hint(&tensors)
        );
    }
    if let Some(change) = report.mismatched.iter().find(|change| of_encoder(&change.name)) {
        bail!(
            "{} holds weights of another size: {} is {:?} there and {:?} here; choose the --preset they were made with{}",
            source.display(),
            change.name,
            change.from,
            change.to,
            hint(&tensors)
        );
    }
    // Weights of a BERT alone begin the text encoder of a contrast.
    let of_text = |name: &str| name.starts_with("bert_encoder.model.bert.encoder.");
    if let Some(change) = report.mismatched.iter().find(|change| of_text(&change.name)).filter(|_| !loaded) {
        bail!(
            "{} holds a BERT of another size: {} is {:?} there and {:?} here; set model.bert.* to its sizes, as `trainer import` \
             prints them",
            source.display(),
            change.name,
            change.from,
            change.to
        );
    }
    if !loaded && !report.matched.iter().any(|name| of_text(name)) {
        bail!("{} holds no weights of an encoder: {report}", source.display());
    }
    Ok(report)
}
