//! The downstream classifier: the encoder without masking, the mean over its patch tokens, a linear head.
//!
//! As in MAE's fine-tuning (`models_vit.py`, global pool) and the MRM release: no norm after the encoder, the mean is over
//! patch tokens without the class token, then `fc_norm` and `head`. Class token and position table are trained. BenchX's head
//! is the same (`unifier/blocks/classifier/classifier.py`); norm and initialization are settings there as here. An encoder
//! with a final norm of its own (DINOv2, CLIP) keeps it in place of `fc_norm`, and `vit.pooling` may take its class token.

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::{self, Module};

use crate::error::{MAX_DIM, ModelError, check_size};
use crate::model::encoder::{VitEncoder, check_drop_path};
use crate::model::layers::{layer_norm, truncated_normal, uniform};
use crate::model::vit::{LAYER_NORM_EPSILON, VitConfig};

/// Standard deviation of the head's initialization (MAE, the release, BenchX).
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
    /// Whether pooled features are normalized (`fc_norm`) before the linear layer.
    pub head_norm: bool,
    /// Standard deviation of the truncated normal that the linear layer's weights are drawn from, its bias being 0; 0: torch's
    /// default for linear layers, weights and bias uniform in ±1/√D.
    pub head_std: f64,
}

impl Default for ClassifierConfig {
    fn default() -> Self {
        Self { vit: VitConfig::default(), classes: 14, drop_path: 0.1, head_norm: true, head_std: HEAD_STD }
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
        if !(0.0..=1.0).contains(&self.head_std) {
            return Err(ModelError::config("head_std", format!("must be from 0 to 1, is {}", self.head_std)));
        }
        check_drop_path(self.drop_path)
    }
}

/// The classifier.
#[derive(Debug)]
pub struct VitClassifier {
    config: ClassifierConfig,
    encoder: VitEncoder,
    /// None where the encoder has a final norm, and without `head_norm`.
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
        let norm = || layer_norm(&(path / "fc_norm"), vit.embed_dim, LAYER_NORM_EPSILON);
        let head = Self::head(&(path / "head"), config);
        Ok(Self {
            encoder: VitEncoder::new(path, vit, config.drop_path),
            fc_norm: (config.head_norm && !vit.final_norm).then(norm),
            head,
            config: config.clone(),
        })
    }

    /// The linear layer, initialized as the configuration says.
    fn head(path: &nn::Path, config: &ClassifierConfig) -> nn::Linear {
        let (shape, device) = ([config.classes, config.vit.embed_dim], path.device());
        if config.head_std > 0.0 {
            let ws = path.add("weight", truncated_normal(&shape, config.head_std, device), true);
            return nn::Linear { ws, bs: Some(path.zeros("bias", &[config.classes])) };
        }
        let bound = (config.vit.embed_dim as f64).sqrt().recip();
        let ws = path.add("weight", uniform(&shape, bound, device), true);
        let bs = path.add("bias", uniform(&shape[..1], bound, device), true);
        nn::Linear { ws, bs: Some(bs) }
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

    fn small(image_size: i64) -> ClassifierConfig {
        ClassifierConfig { vit: vit(image_size), classes: 3, ..ClassifierConfig::default() }
    }

    fn classifier(config: &ClassifierConfig) -> (nn::VarStore, VitClassifier) {
        tch::manual_seed(1);
        let store = nn::VarStore::new(Device::Cpu);
        let model = VitClassifier::new(&store.root(), config).unwrap();
        (store, model)
    }

    #[test]
    fn gray_images_give_what_three_equal_channels_give() {
        let (_store, model) = classifier(&ClassifierConfig { drop_path: 0.0, ..small(16) });
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
        let (store, model) = classifier(&small(16));
        let image = Tensor::randn([4, 3, 16, 16], (Kind::Float, Device::Cpu));
        assert!(model.logits(&image, true).unwrap().abs().max().double_value(&[]) < 1e-3);
        let variables = store.variables();
        assert!(variables["pos_embed"].requires_grad() && variables["cls_token"].requires_grad());
    }

    #[test]
    fn norm_and_initialization_of_the_head_are_settings() {
        let (store, model) = classifier(&ClassifierConfig { head_norm: false, drop_path: 0.0, ..small(16) });
        assert!(!store.variables().keys().any(|name| name.starts_with("fc_norm.")));
        let image = Tensor::randn([2, 1, 16, 16], (Kind::Float, Device::Cpu));
        let tokens = model.tokens(&image, false).unwrap().pop().unwrap(); // [2, 1 + 16, 16]
        let mean = tokens.slice(1, 1, None, 1).mean_dim([1_i64].as_slice(), false, None);
        assert!((model.features(&image, false).unwrap() - mean).abs().max().double_value(&[]) < 1e-6);

        // torch.nn.Linear of 16 inputs: weights and bias within ±1/4, uniform.
        let wide = ClassifierConfig { classes: 4_000, head_std: 0.0, ..small(16) };
        let (store, _) = classifier(&wide);
        let variables = store.variables();
        for name in ["head.weight", "head.bias"] {
            let values = &variables[name];
            let (largest, std) = (values.abs().max().double_value(&[]), values.std(true).double_value(&[]));
            assert!(largest <= 0.25 && largest > 0.249, "{name}: {largest}");
            assert!((std - 0.25 / 3.0_f64.sqrt()).abs() < 4e-3, "{name}: {std}");
        }
        let (store, _) = classifier(&ClassifierConfig { head_std: 0.02, ..wide });
        let (weight, bias) = (&store.variables()["head.weight"], &store.variables()["head.bias"]);
        assert!((weight.std(true).double_value(&[]) - 0.02).abs() < 5e-4);
        assert_eq!(bias.abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn a_pretrained_encoder_loads_on_another_grid() {
        let pretrained = nn::VarStore::new(Device::Cpu);
        let config = MrmConfig { vit: vit(16), reconstruct: Reconstruct::ImageOnly, ..MrmConfig::default() };
        let _ = Mrm::new(&pretrained.root(), &config).unwrap();
        let (store, _model) = classifier(&small(24));
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
        let (_store, model) = classifier(&ClassifierConfig { drop_path: 0.0, ..small(16) });
        let image = Tensor::zeros([1, 2, 16, 16], (Kind::Float, Device::Cpu));
        assert!(model.logits(&image, false).is_err());
    }
}
