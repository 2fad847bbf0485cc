//! Sizes and variants of a vision transformer: those of MRM's release and of the encoders that can be imported.

use serde::{Deserialize, Serialize};

use crate::error::{MAX_DIM, MAX_LAYERS, MAX_SIDE, ModelError, check_heads, check_size, check_table};
use crate::model::pos_embed::PosResize;

/// Epsilon of the layer normalizations of timm, MAE and DINOv2.
pub const LAYER_NORM_EPSILON: f64 = 1e-6;

/// Largest number of register tokens.
const MAX_REGISTERS: i64 = 1024;

/// The MLP of a block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MlpKind {
    /// Two layers with exact GELU between them.
    #[default]
    Gelu,
    /// Two layers with `x · sigmoid(1.702 x)` between them: OpenAI's CLIP.
    QuickGelu,
    /// `fc2(SiLU(a) · b)` with `[a | b] = fc1(x)` (Shazeer 2020), two thirds as wide: DINOv2's giant model.
    Swiglu,
}

/// What stands for a whole image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The mean over the patch tokens: MAE's fine-tuning and MRM.
    #[default]
    Mean,
    /// The class token: DINO, CLIP.
    Cls,
}

/// Names of [`Pooling`] on a command line.
pub const POOLINGS: [&str; 2] = ["mean", "cls"];

impl Pooling {
    /// The pooling of a name of [`POOLINGS`].
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Mean, Self::Cls].into_iter().zip(POOLINGS).find(|(_, known)| *known == name).map(|(pooling, _)| pooling)
    }
}

/// Sizes of a vision transformer. The default is ViT-B/16 on 224 pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VitConfig {
    /// Side of the encoder's square input image, in pixels.
    pub image_size: i64,
    /// Side of a square patch, in pixels.
    pub patch_size: i64,
    /// Length of a token's vector, `D`.
    pub embed_dim: i64,
    /// Number of blocks.
    pub num_layers: i64,
    /// Attention heads of a block; the number divides `embed_dim`.
    pub num_heads: i64,
    /// Width of a block's MLP between its layers, as a multiple of `embed_dim`.
    pub mlp_ratio: f64,
    /// Channels of the patch projection, `C`. Images of one channel are accepted too, as gray images.
    pub in_channels: i64,
    /// The MLP of a block.
    pub mlp: MlpKind,
    /// Register tokens between class token and patches, without positions (Darcet et al. 2024), `R`.
    pub register_tokens: i64,
    /// Initial value of the learned factors on the branches of a block (LayerScale, Touvron et al. 2021); 0: no factors.
    pub layer_scale: f64,
    /// Epsilon of the layer normalizations of the encoder.
    pub norm_epsilon: f64,
    /// Whether the tokens are normalized before the first block, as CLIP's are.
    pub pre_norm: bool,
    /// Whether downstream models keep the normalization after the last block; MAE's and MRM's drop it.
    pub final_norm: bool,
    /// What stands for a whole image downstream.
    pub pooling: Pooling,
    /// How the position table is resized to another grid.
    pub pos_resize: PosResize,
}

/// In what encoders differ beside their sizes.
const VARIANTS: [&str; 8] =
    ["mlp", "register_tokens", "layer_scale", "norm_epsilon", "pre_norm", "final_norm", "pooling", "pos_resize"];

impl Default for VitConfig {
    fn default() -> Self {
        Self {
            image_size: 224,
            patch_size: 16,
            embed_dim: 768,
            num_layers: 12,
            num_heads: 12,
            mlp_ratio: 4.0,
            in_channels: 3,
            mlp: MlpKind::default(),
            register_tokens: 0,
            layer_scale: 0.0,
            norm_epsilon: LAYER_NORM_EPSILON,
            pre_norm: false,
            final_norm: false,
            pooling: Pooling::default(),
            pos_resize: PosResize::default(),
        }
    }
}

impl VitConfig {
    /// Patches along one side of the image.
    pub fn grid(&self) -> i64 {
        self.image_size / self.patch_size
    }

    /// Patches of an image, `L`.
    pub fn patches(&self) -> i64 {
        self.grid() * self.grid()
    }

    /// Tokens before the patches, `1 + R`: class token and registers.
    pub fn prefix_tokens(&self) -> i64 {
        1 + self.register_tokens
    }

    /// The blocks of this encoder.
    pub(crate) fn block(&self) -> BlockConfig {
        BlockConfig {
            embed_dim: self.embed_dim,
            num_heads: self.num_heads,
            mlp_ratio: self.mlp_ratio,
            mlp: self.mlp,
            layer_scale: self.layer_scale,
            norm_epsilon: self.norm_epsilon,
        }
    }

    /// Whether it is the ViT of timm and MAE, of these sizes: without registers, factors, other MLPs and further norms.
    pub fn is_plain(&self) -> bool {
        let plain = Self::default();
        let variant = |vit: &Self| (vit.mlp, vit.register_tokens, vit.layer_scale, vit.pre_norm, vit.norm_epsilon);
        variant(self) == variant(&plain)
    }

    /// What differs from MRM's encoder beside sizes: keys of `[model.vit]` with their values.
    pub(crate) fn variants(&self) -> toml::Table {
        let [mut own, plain] = [self, &Self::default()].map(|vit| toml::Table::try_from(vit).unwrap_or_default());
        own.retain(|key, value| VARIANTS.contains(&key) && plain.get(key) != Some(value));
        own
    }

    /// Checks the sizes.
    ///
    /// # Errors
    /// When no model can have them.
    pub fn validate(&self) -> Result<(), ModelError> {
        check_size("patch_size", self.patch_size, MAX_SIDE)?;
        check_size("image_size", self.image_size, MAX_SIDE)?;
        check_size("embed_dim", self.embed_dim, MAX_DIM)?;
        check_size("num_layers", self.num_layers, MAX_LAYERS)?;
        check_size("in_channels", self.in_channels, MAX_DIM)?;
        check_table("image_size", self.patches(), self.embed_dim)?;
        check_heads("num_heads", self.num_heads, self.embed_dim)?;
        if self.image_size % self.patch_size != 0 {
            let problem = format!("patches of {} pixels do not fill {} pixels", self.patch_size, self.image_size);
            return Err(ModelError::config("image_size", problem));
        }
        if !(0..=MAX_REGISTERS).contains(&self.register_tokens) {
            let problem = format!("must be from 0 to {MAX_REGISTERS}, is {}", self.register_tokens);
            return Err(ModelError::config("register_tokens", problem));
        }
        if !(self.layer_scale.is_finite() && self.layer_scale >= 0.0) {
            let problem = format!("must be 0 (none) or a positive number, is {:?}", self.layer_scale);
            return Err(ModelError::config("layer_scale", problem));
        }
        if !(self.norm_epsilon > 0.0 && self.norm_epsilon < 1.0) {
            let problem = format!("must be above 0 and below 1, is {:?}", self.norm_epsilon);
            return Err(ModelError::config("norm_epsilon", problem));
        }
        check_mlp_ratio(self.mlp_ratio, self.embed_dim)
    }
}

/// Largest ratio of an MLP.
const MAX_MLP_RATIO: f64 = 1024.0;

/// An error unless an MLP with this ratio has at least one value between its layers, and not too many.
pub(crate) fn check_mlp_ratio(ratio: f64, embed_dim: i64) -> Result<(), ModelError> {
    if ratio.is_finite() && ratio <= MAX_MLP_RATIO && embed_dim as f64 * ratio >= 1.0 {
        return Ok(());
    }
    let problem = format!("must give an MLP of at least one value and be at most {MAX_MLP_RATIO}, is {ratio:?}");
    Err(ModelError::config("mlp_ratio", problem))
}

/// Sizes of a transformer block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockConfig {
    /// Length of a token's vector, `D`.
    pub embed_dim: i64,
    /// Attention heads.
    pub num_heads: i64,
    /// Width of the MLP between its layers, as a multiple of `embed_dim`.
    pub mlp_ratio: f64,
    /// The MLP.
    pub mlp: MlpKind,
    /// Initial value of the factors on the branches; 0: no factors.
    pub layer_scale: f64,
    /// Epsilon of the layer normalizations.
    pub norm_epsilon: f64,
}

impl BlockConfig {
    /// A block of timm's ViT.
    pub fn plain(embed_dim: i64, num_heads: i64, mlp_ratio: f64) -> Self {
        let (mlp, layer_scale, norm_epsilon) = (MlpKind::default(), 0.0, LAYER_NORM_EPSILON);
        Self { embed_dim, num_heads, mlp_ratio, mlp, layer_scale, norm_epsilon }
    }

    /// Width of the MLP between its layers. Of SwiGLU it is two thirds, rounded up to a multiple of 8 (DINOv2).
    pub fn mlp_dim(self) -> i64 {
        let dim = (self.embed_dim as f64 * self.mlp_ratio) as i64;
        match self.mlp {
            MlpKind::Swiglu => (dim * 2 / 3 + 7) / 8 * 8,
            MlpKind::Gelu | MlpKind::QuickGelu => dim,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_sizes_are_refused_by_key() {
        let default = VitConfig::default;
        for (key, wrong) in [
            ("image_size", VitConfig { image_size: 225, ..default() }),
            ("num_heads", VitConfig { num_heads: 7, ..default() }),
            ("mlp_ratio", VitConfig { mlp_ratio: 0.0, ..default() }),
            ("register_tokens", VitConfig { register_tokens: -1, ..default() }),
            ("layer_scale", VitConfig { layer_scale: f64::NAN, ..default() }),
            ("norm_epsilon", VitConfig { norm_epsilon: 0.0, ..default() }),
        ] {
            let message = wrong.validate().unwrap_err().to_string();
            assert!(message.starts_with(&format!("{key}:")), "{message}");
        }
        assert!(default().validate().is_ok() && default().is_plain());
        assert!(!VitConfig { register_tokens: 4, ..default() }.is_plain());
    }

    #[test]
    fn a_configuration_of_an_older_version_is_that_of_a_plain_encoder() {
        let old = "image_size = 64\npatch_size = 8\nembed_dim = 128\nnum_layers = 4\nnum_heads = 4\nmlp_ratio = 4.0\n\
                   in_channels = 3\n";
        let vit: VitConfig = toml::from_str(old).unwrap();
        assert!(vit.is_plain() && vit.variants().is_empty());
        let class_token = VitConfig { pooling: Pooling::Cls, ..vit };
        assert_eq!(class_token.variants().to_string(), "pooling = \"cls\"\n");
    }

    #[test]
    fn the_width_of_swiglu_is_that_of_dinov2() {
        let giant = BlockConfig { mlp: MlpKind::Swiglu, ..BlockConfig::plain(1536, 24, 4.0) };
        assert_eq!((giant.mlp_dim(), BlockConfig::plain(1536, 24, 4.0).mlp_dim()), (4096, 6144));
        assert_eq!(BlockConfig { mlp: MlpKind::Swiglu, ..BlockConfig::plain(32, 2, 4.0) }.mlp_dim(), 88);
    }

    #[test]
    fn poolings_have_the_names_of_their_configuration() {
        for name in POOLINGS {
            let pooling = Pooling::parse(name).unwrap();
            assert_eq!(toml::Value::try_from(pooling).unwrap().as_str(), Some(name));
        }
        assert_eq!(Pooling::parse("max"), None);
    }
}
