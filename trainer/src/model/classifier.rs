//! The downstream classifier: the encoder without masking, the mean over its patch tokens, a linear head.
//!
//! As in MAE's fine-tuning (`models_vit.py`, global pool) and the MRM release: no norm after the encoder, the mean is over
//! patch tokens without the class token, then `fc_norm` and `head`. Class token and position table are trained. An encoder
//! with a final norm of its own (DINOv2, CLIP) keeps it in place of `fc_norm`, and `vit.pooling` may take its class token.

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::{self, Module};

use crate::error::{MAX_DIM, ModelError, check_size};
use crate::model::encoder::{VitEncoder, check_drop_path};
use crate::model::layers::{layer_norm, truncated_normal};
use crate::model::vit::{LAYER_NORM_EPSILON, VitConfig};

/// Standard deviation of the head's initialization (MAE).
const HEAD_STD: f64 = 2e-5;

/// Configuration of a classifier. The default is that of the MRM release on NIH ChestX-ray14.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifierConfig {
    /// The encoder.
    pub vit: VitConfig,
    /// Number of logits.
    pub classes: i64,
    /// Probability of a dropped branch in the last block; it rises linearly from 0 in the first.
    pub drop_path: f64,
}

impl Default for ClassifierConfig {
    fn default() -> Self {
        Self { vit: VitConfig::default(), classes: 14, drop_path: 0.1 }
    }
}

impl ClassifierConfig {
    /// Checks the configuration.
    ///
    /// # Errors
    /// When no model can have it.
    pub fn validate(&self) -> Result<(), ModelError> {
        self.vit.validate()?;
        check_size("classes", self.classes, MAX_DIM)?;
        check_drop_path(self.drop_path)
    }
}

/// The classifier.
#[derive(Debug)]
pub struct VitClassifier {
    config: ClassifierConfig,
    encoder: VitEncoder,
    /// None where the encoder has a final norm.
    fc_norm: Option<nn::LayerNorm>,
    head: nn::Linear,
}

impl VitClassifier {
    /// A classifier with timm's initialization, its variables under `path`.
    ///
    /// # Errors
    /// When no model has this configuration.
    pub fn new(path: &nn::Path, config: &ClassifierConfig) -> Result<Self, ModelError> {
        config.validate()?;
        let vit = &config.vit;
        let head_path = path / "head";
        let head = truncated_normal(&[config.classes, vit.embed_dim], HEAD_STD, path.device());
        Ok(Self {
            encoder: VitEncoder::new(path, vit, config.drop_path),
            fc_norm: (!vit.final_norm).then(|| layer_norm(&(path / "fc_norm"), vit.embed_dim, LAYER_NORM_EPSILON)),
            head: nn::Linear {
                ws: head_path.add("weight", head, true),
                bs: Some(head_path.zeros("bias", &[config.classes])),
            },
            config: config.clone(),
        })
    }

    /// The model's configuration.
    pub fn config(&self) -> &ClassifierConfig {
        &self.config
    }

    /// Tokens after each block, class token first: image `[B, C, H, W]` → num_layers × `[B, 1 + R + L, D]`.
    ///
    /// # Errors
    /// When the image has the wrong shape.
    pub fn tokens(&self, image: &Tensor, train: bool) -> Result<Vec<Tensor>, ModelError> {
        self.encoder.tokens(image, train)
    }

    /// Pooled features: image `[B, C, H, W]`, normalized, of 1 channel (gray) or all → `[B, D]`.
    ///
    /// # Errors
    /// When the image has the wrong shape.
    pub fn features(&self, image: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        let pooled = self.encoder.pool(&self.encoder.forward(image, train)?);
        Ok(match &self.fc_norm {
            Some(norm) => norm.forward(&pooled),
            None => pooled,
        })
    }

    /// Logits of the classes: image `[B, C, H, W]` → `[B, classes]`.
    ///
    /// # Errors
    /// When the image has the wrong shape.
    pub fn logits(&self, image: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        Ok(self.classify(&self.features(image, train)?))
    }

    /// Logits of pooled features: `[B, D]` → `[B, classes]`.
    pub fn classify(&self, features: &Tensor) -> Tensor {
        self.head.forward(features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::mrm::{Mrm, MrmConfig, Reconstruct};
    use crate::weights::load::load_state;
    use tch::{Device, Kind};

    fn vit(image_size: i64) -> VitConfig {
        VitConfig { image_size, patch_size: 4, embed_dim: 16, num_layers: 2, num_heads: 2, ..VitConfig::default() }
    }

    fn classifier(config: &ClassifierConfig) -> (nn::VarStore, VitClassifier) {
        tch::manual_seed(1);
        let store = nn::VarStore::new(Device::Cpu);
        let model = VitClassifier::new(&store.root(), config).unwrap();
        (store, model)
    }

    #[test]
    fn gray_images_give_what_three_equal_channels_give() {
        let (_store, model) = classifier(&ClassifierConfig { vit: vit(16), classes: 3, drop_path: 0.0 });
        let gray = Tensor::randn([2, 1, 16, 16], (Kind::Float, Device::Cpu));
        let logits = model.logits(&gray, false).unwrap();
        assert_eq!(logits.size(), [2, 3]);
        let repeated = model.logits(&gray.repeat([1, 3, 1, 1]), false).unwrap();
        assert!((logits - repeated).abs().max().double_value(&[]) < 1e-6);
        let tokens = model.tokens(&gray, false).unwrap();
        assert_eq!((tokens.len(), tokens[1].size()), (2, vec![2, 17, 16]));
    }

    #[test]
    fn an_untrained_head_has_logits_near_zero() {
        let (store, model) = classifier(&ClassifierConfig { vit: vit(16), classes: 3, drop_path: 0.1 });
        let image = Tensor::randn([4, 3, 16, 16], (Kind::Float, Device::Cpu));
        assert!(model.logits(&image, true).unwrap().abs().max().double_value(&[]) < 1e-3);
        let variables = store.variables();
        assert!(variables["pos_embed"].requires_grad() && variables["cls_token"].requires_grad());
    }

    #[test]
    fn a_pretrained_encoder_loads_on_another_grid() {
        let pretrained = nn::VarStore::new(Device::Cpu);
        let config = MrmConfig { vit: vit(16), reconstruct: Reconstruct::ImageOnly, ..MrmConfig::default() };
        let _ = Mrm::new(&pretrained.root(), &config).unwrap();
        let (store, _model) = classifier(&ClassifierConfig { vit: vit(24), classes: 3, drop_path: 0.1 });
        let state = pretrained.variables();
        let report = load_state(&store, state.iter().map(|(name, tensor)| (name.as_str(), tensor))).unwrap();
        assert_eq!(report.missing, ["fc_norm.bias", "fc_norm.weight", "head.bias", "head.weight"]);
        assert_eq!(report.resized.len(), 1);
        assert!(report.mismatched.is_empty());
        assert!(report.unexpected.contains(&"norm.weight".to_owned()));
        let (ours, theirs) = (store.variables(), pretrained.variables());
        assert_eq!(ours["blocks.1.mlp.fc2.weight"], theirs["blocks.1.mlp.fc2.weight"]);
    }

    #[test]
    fn impossible_configurations_and_images_are_refused() {
        assert!(ClassifierConfig { classes: 0, ..ClassifierConfig::default() }.validate().is_err());
        assert!(ClassifierConfig { drop_path: 1.0, ..ClassifierConfig::default() }.validate().is_err());
        let (_store, model) = classifier(&ClassifierConfig { vit: vit(16), classes: 3, drop_path: 0.0 });
        let image = Tensor::zeros([1, 2, 16, 16], (Kind::Float, Device::Cpu));
        assert!(model.logits(&image, false).is_err());
    }
}
