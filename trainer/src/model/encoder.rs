//! The encoder of downstream models: all patches, the class token, and a trained position table.
//!
//! It is the pretrained encoder without masking. Its variables are at the root under timm's names, so pretrained weights load
//! into any model that has it.

use tch::Tensor;
use tch::nn;

use crate::error::{ModelError, check_shape};
use crate::model::layers::{TOKEN_STD, WeightInit, truncated_normal};
use crate::model::vit::{Block, PatchEmbed, VitConfig, blocks, run_blocks};

/// The encoder.
#[derive(Debug)]
pub struct VitEncoder {
    config: VitConfig,
    patch_embed: PatchEmbed,
    cls_token: Tensor, // [1, 1, D]
    pos_embed: Tensor, // [1, 1 + L, D], trained
    blocks: Vec<Block>,
}

impl VitEncoder {
    /// An encoder with timm's initialization, its variables under `path`. `drop_path` is the probability of a dropped branch in
    /// the last block. The caller has checked both.
    pub fn new(path: &nn::Path, config: &VitConfig, drop_path: f64) -> Self {
        let init = WeightInit::TruncatedNormal(TOKEN_STD);
        let token = |name, tokens| {
            path.add(name, truncated_normal(&[1, tokens, config.embed_dim], TOKEN_STD, path.device()), true)
        };
        Self {
            patch_embed: PatchEmbed::new(&(path / "patch_embed"), config, init),
            cls_token: token("cls_token", 1),
            pos_embed: token("pos_embed", 1 + config.patches()),
            blocks: blocks(&(path / "blocks"), config.num_layers, config.block(), drop_path, init),
            config: config.clone(),
        }
    }

    /// The sizes of the encoder.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Tokens after the last block, class token first: image `[B, C, H, W]` → `[B, 1 + L, D]`.
    ///
    /// # Errors
    /// When the image has the wrong shape.
    pub fn forward(&self, image: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        Ok(run_blocks(&self.blocks, self.embed(image)?, train))
    }

    /// Tokens after each block, class token first: image `[B, C, H, W]` → num_layers × `[B, 1 + L, D]`.
    ///
    /// # Errors
    /// When the image has the wrong shape.
    pub fn tokens(&self, image: &Tensor, train: bool) -> Result<Vec<Tensor>, ModelError> {
        let (mut x, mut tokens) = (self.embed(image)?, Vec::new());
        for block in &self.blocks {
            x = block.forward(&x, train);
            tokens.push(x.shallow_clone());
        }
        Ok(tokens)
    }

    /// Patch tokens after some blocks (counted from 0, ascending) as maps: image `[B, C, H, W]` → one `[B, D, G, G]` per block,
    /// where `G` is the grid. Blocks after the last of them are not run.
    ///
    /// # Errors
    /// When the image has the wrong shape.
    pub fn maps(&self, image: &Tensor, after: &[i64], train: bool) -> Result<Vec<Tensor>, ModelError> {
        let (grid, patches) = (self.config.grid(), self.config.patches());
        let (mut x, mut maps) = (self.embed(image)?, Vec::new());
        for (block, number) in self.blocks.iter().zip(0..) {
            x = block.forward(&x, train);
            for _ in after.iter().filter(|&&wanted| wanted == number) {
                let patches = x.narrow(1, 1, patches).transpose(1, 2); // [B, D, L]
                maps.push(patches.reshape([-1, self.config.embed_dim, grid, grid]));
            }
            if after.iter().all(|&wanted| wanted <= number) {
                break;
            }
        }
        Ok(maps)
    }

    /// Class token and patches with their positions: image `[B, C, H, W]` → `[B, 1 + L, D]`.
    fn embed(&self, image: &Tensor) -> Result<Tensor, ModelError> {
        let vit = &self.config;
        let gray = image.size().get(1) == Some(&1);
        let channels = if gray { 1 } else { vit.in_channels };
        check_shape("image", image, &[-1, channels, vit.image_size, vit.image_size])?;
        let x = self.patch_embed.forward(image);
        let cls = self.cls_token.expand([image.size()[0], 1, vit.embed_dim], false).to_kind(x.kind());
        Ok(Tensor::cat(&[cls, x], 1) + &self.pos_embed)
    }
}

/// An error unless `drop_path` is a probability below 1.
pub(crate) fn check_drop_path(drop_path: f64) -> Result<(), ModelError> {
    if (0.0..1.0).contains(&drop_path) {
        return Ok(());
    }
    Err(ModelError::config("drop_path", format!("must be from 0 to below 1, is {drop_path}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn a_map_is_the_tokens_of_its_block_row_by_row() {
        tch::manual_seed(1);
        let config = VitConfig {
            image_size: 12,
            patch_size: 4,
            embed_dim: 8,
            num_layers: 3,
            num_heads: 2,
            ..VitConfig::default()
        };
        let store = nn::VarStore::new(Device::Cpu);
        let encoder = VitEncoder::new(&store.root(), &config, 0.0);
        let image = Tensor::randn([2, 1, 12, 12], (Kind::Float, Device::Cpu));
        let tokens = encoder.tokens(&image, false).unwrap();
        let maps = encoder.maps(&image, &[0, 1, 1], false).unwrap();
        assert_eq!((maps.len(), maps[0].size()), (3, vec![2, 8, 3, 3]));
        assert_eq!(maps[1], maps[2]);
        // Row 1, column 2 of the grid is patch 5; the class token is before the patches.
        let cell = maps[1].select(2, 1).select(2, 2); // [B, D]
        assert_eq!(cell, tokens[1].select(1, 1 + 5));
        assert_eq!(encoder.forward(&image, false).unwrap(), tokens[2]);
    }
}
