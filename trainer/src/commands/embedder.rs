//! The encoder of some weights, which embeds radiographs.

use std::path::Path;

use anyhow::{Context, Result, bail};
use dataset::Loader;
use dataset::transform::Transform;
use tch::nn::VarStore;
use tch::{Device, Kind};

use crate::config::{Encoder, RANDOM, preset_hint, pretrain_preset};
use crate::model::classifier::{ClassifierConfig, VitClassifier};
use crate::model::vit::Pooling;
use crate::task::objective::{images, loader_for};
use crate::task::{DataSource, Registry};
use crate::train::run_dir;
use crate::weights::source::{initialize, read_weights};

/// Records of a batch without gradients.
const BATCH: usize = 128;

/// Whose features are computed.
#[derive(Debug, Clone, Copy)]
pub struct EncoderChoice<'a> {
    /// A run, an imported encoder or a safetensors file; none: random weights.
    pub weights: Option<&'a Path>,
    /// Sizes of weights that are in no run; replaces the sizes of a run.
    pub preset: Option<&'a str>,
    /// What stands for an image; none: as the encoder is configured.
    pub pooling: Option<Pooling>,
}

/// An encoder with its weights.
pub(super) struct Embedder {
    model: VitClassifier,
    transform: Transform,
    device: Device,
    /// The weights, in words.
    pub name: String,
    /// What was loaded, in words.
    pub loaded: String,
    /// What the features depend on beside the weights: sizes, and statistics of pixels.
    pub settings: String,
}

/// The encoder of some weights: that of the preset if one is given, else that of their run.
fn encoder(registry: &Registry, weights: Option<&Path>, preset: Option<&str>) -> Result<Encoder> {
    if let Some(preset) = preset {
        let config = pretrain_preset(preset)?;
        return Ok(Encoder { vit: config.model.vit, mean: config.data.mean, std: config.data.std });
    }
    let Some(weights) = weights else { bail!("no --preset is given: it says the sizes of {RANDOM} weights") };
    let unknown = || {
        let hint = read_weights(weights).map_or_else(|_| String::new(), |tensors| preset_hint(&tensors));
        format!("no --preset is given, and no run says the sizes{hint}")
    };
    Ok(registry.load(&run_dir::run_of(weights).with_context(unknown)?)?.common()?.encoder)
}

/// Whether weights have a norm after the last block and none after the pooling.
fn has_own_norm(weights: &Path) -> Result<bool> {
    let tensors = read_weights(weights)?;
    let has = |wanted: &str| tensors.iter().any(|(name, _)| name == wanted);
    Ok(has("norm.weight") && !has("fc_norm.weight"))
}

impl Embedder {
    /// The encoder of a choice; random weights follow from a seed.
    ///
    /// # Errors
    /// When neither a preset nor a run gives the sizes, or the weights do not fit.
    pub fn new(registry: &Registry, choice: &EncoderChoice, seed: u64, device: Device) -> Result<Self> {
        let EncoderChoice { weights, preset, pooling } = *choice;
        let Encoder { mut vit, mean, std } = encoder(registry, weights, preset)?;
        if let Some(pooling) = pooling {
            vit.pooling = pooling;
            // A masked encoder normalizes its tokens before the decoders; the mean over patches is taken without that.
            vit.final_norm |= pooling == Pooling::Cls && weights.map_or(Ok(false), has_own_norm)?;
        }
        let store = VarStore::new(device);
        let config = ClassifierConfig { vit, classes: 1, ..ClassifierConfig::default() };
        tch::manual_seed(seed as i64);
        let model = VitClassifier::new(&store.root(), &config)?;
        let (name, loaded) = if let Some(weights) = weights {
            let report = initialize(&store, weights, &|name| name.starts_with("head."), preset_hint)?;
            (weights.display().to_string(), format!("{}: {report}", weights.display()))
        } else {
            let name = format!("{RANDOM} initialization of seed {seed}");
            (name.clone(), name)
        };
        let settings = format!("{:?}, mean {mean}, std {std}", config.vit);
        let transform = Transform::evaluate(config.vit.image_size as u32);
        let transform = Transform { mean: mean as f32, std: std as f32, ..transform };
        Ok(Self { model, transform, device, name, loaded, settings })
    }

    /// Length of a feature vector.
    pub fn width(&self) -> usize {
        self.model.config().vit.embed_dim as usize
    }

    /// Features of some rows in their order, a batch at a time: the mean over patch tokens or the class token, normalized by the
    /// encoder's final norm where it is configured to keep one, else by `fc_norm` of a fine-tuned run, else by a plain layer
    /// normalization. `take` gets `[B, D]`, row-major.
    ///
    /// # Errors
    /// When a record cannot be read, torch fails, or `take` does.
    pub fn embed(&self, source: &DataSource, rows: &[u32], mut take: impl FnMut(Vec<f32>) -> Result<()>) -> Result<()> {
        let loader = loader_for(self.device, Loader::builder(&source.dataset))
            .rows(rows.to_vec())
            .batch_size(BATCH)
            .shuffle(false)
            .transform(self.transform.clone())
            .build()?;
        for batch in loader {
            let batch = batch?; // must exist until its features are copied: a CUDA device reads its memory meanwhile
            let images = images(&batch, self.device);
            let pooled =
                tch::no_grad(|| self.model.features(&images, false))?.to_kind(Kind::Float).to_device(Device::Cpu);
            take(Vec::<f32>::try_from(&pooled.flatten(0, -1))?)?;
        }
        Ok(())
    }
}
