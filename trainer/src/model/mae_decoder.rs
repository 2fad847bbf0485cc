//! The image decoder of pre-training: reconstructs the masked patches from the visible ones (MAE, He et al. 2022), at the size
//! of the target image (super-resolution).

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn::{self, Init, Module};

use crate::error::{MAX_DIM, MAX_LAYERS, ModelError, check_heads, check_size};
use crate::model::layers::{TOKEN_STD, WeightInit, layer_norm, linear};
use crate::model::pos_embed::{PosEmbed, sin_cos_table};
use crate::model::vit::{Block, BlockConfig, LAYER_NORM_EPSILON, VitConfig, blocks, check_mlp_ratio, run_blocks};

/// Sizes of the image decoder. The default is the MRM release's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecoderConfig {
    /// Length of a token's vector, `W`; a multiple of 4.
    pub embed_dim: i64,
    /// Number of blocks.
    pub num_layers: i64,
    /// Attention heads of a block; the number divides `embed_dim`.
    pub num_heads: i64,
    /// Width of a block's MLP between its layers, as a multiple of `embed_dim`.
    pub mlp_ratio: f64,
}

impl Default for DecoderConfig {
    fn default() -> Self {
        Self { embed_dim: 768, num_layers: 4, num_heads: 6, mlp_ratio: 4.0 }
    }
}

impl DecoderConfig {
    /// Checks the sizes.
    ///
    /// # Errors
    /// When no model can have them.
    pub fn validate(&self) -> Result<(), ModelError> {
        check_size("decoder.embed_dim", self.embed_dim, MAX_DIM)?;
        check_size("decoder.num_layers", self.num_layers, MAX_LAYERS)?;
        check_heads("decoder.num_heads", self.num_heads, self.embed_dim)?;
        check_mlp_ratio(self.mlp_ratio, self.embed_dim)
    }
}

/// Number of codes of views ([`ViewKind::code`](dataset::format::view::ViewKind::code)).
const VIEW_CODES: i64 = 6;

/// The image decoder.
#[derive(Debug)]
pub struct ImageDecoder {
    embed: nn::Linear,
    mask_token: Tensor, // [1, 1, W]
    pos_embed: Tensor,  // [1, 1 + L, W], fixed
    blocks: Vec<Block>,
    norm: nn::LayerNorm,
    pred: nn::Linear,
    view_embed: Option<Tensor>, // [VIEW_CODES, 1, W]
}

impl ImageDecoder {
    /// Variables `decoder_*` and `mask_token` under `path`, for an encoder `vit` and `values` values per target patch. With
    /// `knows_views` it has an embedding of the view of an image.
    ///
    /// # Errors
    /// When no position table has this `embed_dim`.
    pub fn new(
        path: &nn::Path,
        config: &DecoderConfig,
        vit: &VitConfig,
        values: i64,
        pos_embed: PosEmbed,
        knows_views: bool,
    ) -> Result<Self, ModelError> {
        let init = WeightInit::XavierUniform;
        let table = sin_cos_table(config.embed_dim, vit.grid(), pos_embed)?.unsqueeze(0).to_device(path.device());
        let block = BlockConfig::plain(config.embed_dim, config.num_heads, config.mlp_ratio);
        Ok(Self {
            embed: linear(&(path / "decoder_embed"), vit.embed_dim, config.embed_dim, init),
            mask_token: path.var("mask_token", &[1, 1, config.embed_dim], Init::Randn { mean: 0.0, stdev: TOKEN_STD }),
            pos_embed: path.add("decoder_pos_embed", table, false),
            blocks: blocks(&(path / "decoder_blocks"), config.num_layers, block, 0.0, init),
            norm: layer_norm(&(path / "decoder_norm"), config.embed_dim, LAYER_NORM_EPSILON),
            pred: linear(&(path / "decoder_pred"), config.embed_dim, values, init),
            view_embed: knows_views.then(|| {
                let init = Init::Randn { mean: 0.0, stdev: TOKEN_STD };
                path.var("decoder_view_embed", &[VIEW_CODES, 1, config.embed_dim], init)
            }),
        })
    }

    /// Predicts target patches from the encoder's tokens.
    ///
    /// `latent` `[B, 1 + K, D]` has the class token first, then the visible patches in shuffled order; `ids_restore` `[B, L]` is
    /// the position of each patch in the shuffled order. `views` `[B]` (Int64) are the codes of the images' views, for a decoder
    /// that knows views; none means that no view is stated. With `wanted` `[B, R]` only these patches are predicted:
    /// `[B, R, values]`, else all: `[B, L, values]`.
    pub fn forward(
        &self,
        latent: &Tensor,
        ids_restore: &Tensor,
        views: Option<&Tensor>,
        wanted: Option<&Tensor>,
        train: bool,
    ) -> Tensor {
        let x = self.embed.forward(latent); // [B, 1 + K, W]
        let size = x.size();
        let (batch, visible, embed_dim) = (size[0], size[1] - 1, size[2]);
        let patches = ids_restore.size()[1];

        let masks = self.mask_token.expand([batch, patches - visible, embed_dim], false).to_kind(x.kind());
        let shuffled = Tensor::cat(&[x.narrow(1, 1, visible), masks], 1); // [B, L, W]
        let ordered = gather_tokens(&shuffled, ids_restore); // [B, L, W]
        let x = Tensor::cat(&[x.narrow(1, 0, 1), ordered], 1) + &self.pos_embed; // [B, 1 + L, W]
        let x = match (&self.view_embed, views) {
            (None, _) => x,
            (Some(table), Some(views)) => x + table.index_select(0, views),
            (Some(table), None) => x + table.select(0, 0),
        };
        let x = run_blocks(&self.blocks, x, train).narrow(1, 1, patches); // [B, L, W]
        let x = wanted.map_or_else(|| x.shallow_clone(), |wanted| gather_tokens(&x, wanted));
        self.pred.forward(&self.norm.forward(&x))
    }
}

/// Picks tokens of each sequence: `x` `[B, N, D]`, `index` `[B, M]` → `[B, M, D]`.
pub(crate) fn gather_tokens(x: &Tensor, index: &Tensor) -> Tensor {
    let embed_dim = x.size()[2];
    x.gather(1, &index.unsqueeze(-1).expand([-1, -1, embed_dim], false), false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn wanted_patches_are_those_of_the_whole_prediction() {
        tch::manual_seed(1);
        let vit = VitConfig {
            image_size: 12,
            patch_size: 4,
            embed_dim: 16,
            num_heads: 2,
            num_layers: 1,
            ..VitConfig::default()
        };
        let config = DecoderConfig { embed_dim: 8, num_layers: 2, num_heads: 2, mlp_ratio: 2.0 };
        let store = nn::VarStore::new(Device::Cpu);
        let decoder = ImageDecoder::new(&store.root(), &config, &vit, 5, PosEmbed::Release, true).unwrap();

        let latent = Tensor::randn([2, 1 + 3, 16], (Kind::Float, Device::Cpu));
        let order = Tensor::rand([2, 9], (Kind::Float, Device::Cpu)).argsort(1, false);
        let ids_restore = order.argsort(1, false);
        let masked = order.narrow(1, 3, 6);
        let views = Tensor::from_slice(&[1_i64, 4]);
        let all = decoder.forward(&latent, &ids_restore, Some(&views), None, false);
        let some = decoder.forward(&latent, &ids_restore, Some(&views), Some(&masked), false);
        assert_eq!(all.size(), [2, 9, 5]);
        assert!((gather_tokens(&all, &masked) - some).abs().max().double_value(&[]) < 1e-6);
        // Each image has the embedding of its own view; no view stated is the code 0.
        let unknown = decoder.forward(&latent, &ids_restore, None, None, false);
        let zeros = Tensor::from_slice(&[0_i64, 0]);
        assert!(unknown == decoder.forward(&latent, &ids_restore, Some(&zeros), None, false));
        let differences = (&all - &unknown).abs().amax([1_i64, 2].as_slice(), false);
        assert!(differences.min().double_value(&[]) > 1e-4);
    }

    #[test]
    fn impossible_sizes_are_refused_by_key() {
        let wrong = DecoderConfig { num_heads: 5, ..DecoderConfig::default() };
        assert!(wrong.validate().unwrap_err().to_string().starts_with("decoder.num_heads:"));
        assert!(DecoderConfig::default().validate().is_ok());
    }
}
