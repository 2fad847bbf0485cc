//! Configuration of an imported encoder: the common keys, so that it serves where a run does.

use serde::{Deserialize, Serialize};

use super::{Encoder, RANDOM};
use crate::model::vit::VitConfig;

/// `kind` of a folder that `trainer import` wrote. No task trains it.
pub const IMPORTED: &str = "imported";

/// What the `config.toml` of an imported encoder holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportedConfig {
    /// The preset whose recipe suits an encoder of this width.
    pub preset: String,
    /// [`RANDOM`]: it did not start from a run.
    pub init: String,
    /// The imported file.
    pub source: String,
    /// Kind of encoder, such as `DINOv2`.
    pub family: String,
    /// The encoder.
    pub model: ImportedModel,
    /// Statistics of its pixels.
    pub data: ImportedData,
}

/// Section `[model]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportedModel {
    /// Sizes of the vision transformer.
    pub vit: VitConfig,
}

/// Section `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImportedData {
    /// Mean of the pixels, 0 to 1.
    pub mean: f64,
    /// Standard deviation of the pixels, 0 to 1.
    pub std: f64,
}

impl ImportedConfig {
    /// The configuration of an encoder that was read from a file.
    pub fn new(source: &str, family: &str, Encoder { vit, mean, std }: Encoder) -> Self {
        Self {
            preset: recipe(vit.embed_dim).to_owned(),
            init: RANDOM.to_owned(),
            source: source.to_owned(),
            family: family.to_owned(),
            model: ImportedModel { vit },
            data: ImportedData { mean, std },
        }
    }
}

/// The preset whose fine-tuning recipe suits a width.
fn recipe(embed_dim: i64) -> &'static str {
    match embed_dim {
        ..=192 => "mrm-vit-tiny",
        193..=512 => "mrm-vit-s16",
        _ => "mrm-vit-b16",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, PRESETS};

    #[test]
    fn other_runs_can_start_from_it() {
        let vit = VitConfig { patch_size: 14, image_size: 518, final_norm: true, ..VitConfig::default() };
        let encoder = Encoder { vit, mean: 0.5307, std: 0.2583 };
        let config = ImportedConfig::new("model.safetensors", "DINOv2", encoder.clone());
        let file = ConfigFile::of(IMPORTED, &config).unwrap();
        let common = ConfigFile::parse(file.text(), "config.toml").unwrap().common().unwrap();
        assert_eq!((common.encoder, common.steps, common.preset.as_str()), (encoder, 0, "mrm-vit-b16"));
        assert!([96, 384, 1536].into_iter().all(|width| PRESETS.contains(&recipe(width))));
    }
}
