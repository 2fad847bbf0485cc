//! The encoder of downstream models: all patches, the class token, and a trained position table.
//!
//! It is the pretrained encoder without masking. Its variables are at the root under timm's names, so pretrained weights load
//! into any model that has it.
//!
//! Shapes: batch `B`, tokens `N = 1 + R + L`: class token, `R` registers, `L` patches; embed_dim `D`.

use tch::Tensor;
use tch::nn::{self, Module};

use crate::error::{ModelError, check_shape};
use crate::model::layers::{TOKEN_STD, WeightInit, layer_norm, truncated_normal};
use crate::model::pos_embed::resize_table;
use crate::model::vit::{Block, PatchEmbed, Pooling, VitConfig, blocks, run_blocks};

/// The encoder.
#[derive(Debug)]
pub struct VitEncoder {
    config: VitConfig,
    patch_embed: PatchEmbed,
    cls_token: Tensor,         // [1, 1, D]
    pos_embed: Tensor,         // [1, 1 + L, D], trained
    reg_token: Option<Tensor>, // [1, R, D]
    norm_pre: Option<nn::LayerNorm>,
    blocks: Vec<Block>,
    norm: Option<nn::LayerNorm>,
}

/// Patches of a batch that are hidden from the encoder.
#[derive(Debug, Clone, Copy)]
pub struct Hidden<'a> {
    /// True where a patch is replaced, `[B, L]`, Bool.
    pub mask: &'a Tensor,
    /// What replaces its embedding, `[1, 1, D]`.
    pub token: &'a Tensor,
}

impl VitEncoder {
    /// An encoder with timm's initialization, its variables under `path`. `drop_path` is the probability of a dropped branch in
    /// the last block. The caller has checked both.
    pub fn new(path: &nn::Path, config: &VitConfig, drop_path: f64) -> Self {
        Self::with_init(path, config, drop_path, WeightInit::TruncatedNormal(TOKEN_STD))
    }

    /// [`new`](Self::new) with another initialization of the matrices.
    pub fn with_init(path: &nn::Path, config: &VitConfig, drop_path: f64, init: WeightInit) -> Self {
        let token = |name, tokens| {
            path.add(name, truncated_normal(&[1, tokens, config.embed_dim], TOKEN_STD, path.device()), true)
        };
        let norm = |name| layer_norm(&(path / name), config.embed_dim, config.norm_epsilon);
        Self {
            patch_embed: PatchEmbed::new(&(path / "patch_embed"), config, init),
            cls_token: token("cls_token", 1),
            pos_embed: token("pos_embed", 1 + config.patches()),
            reg_token: (config.register_tokens > 0).then(|| token("reg_token", config.register_tokens)),
            norm_pre: config.pre_norm.then(|| norm("norm_pre")),
            blocks: blocks(&(path / "blocks"), config.num_layers, config.block(), drop_path, init),
            norm: config.final_norm.then(|| norm("norm")),
            config: config.clone(),
        }
    }

    /// The sizes of the encoder.
    pub fn config(&self) -> &VitConfig {
        &self.config
    }

    /// Tokens after the last block, and after the final norm where the encoder has one: image `[B, C, H, W]` → `[B, N, D]`.
    ///
    /// # Errors
    /// When the image has the wrong shape.
    pub fn forward(&self, image: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        self.check_image(image)?;
        self.forward_any(image, None, train)
    }

    /// [`forward`](Self::forward) of square images of any size that patches fill, with some patches hidden. The position table
    /// is resized to their grid.
    ///
    /// # Errors
    /// When the image or the mask has the wrong shape.
    pub fn forward_any(&self, image: &Tensor, hidden: Option<Hidden>, train: bool) -> Result<Tensor, ModelError> {
        let tokens = run_blocks(&self.blocks, self.embed(image, hidden)?, train);
        Ok(self.normalized(tokens))
    }

    /// What stands for each image: tokens of [`forward`](Self::forward) `[B, N, D]` → `[B, D]`.
    pub fn pool(&self, tokens: &Tensor) -> Tensor {
        match self.config.pooling {
            Pooling::Cls => tokens.select(1, 0),
            Pooling::Mean => self.patches_of(tokens).mean_dim([1_i64].as_slice(), false, None),
        }
    }

    /// The patch tokens: `[B, N, D]` → `[B, L, D]`.
    pub fn patches_of(&self, tokens: &Tensor) -> Tensor {
        let prefix = self.config.prefix_tokens();
        tokens.narrow(1, prefix, tokens.size()[1] - prefix)
    }

    /// Tokens after each block, without the final norm: image `[B, C, H, W]` → num_layers × `[B, N, D]`.
    ///
    /// # Errors
    /// When the image has the wrong shape.
    pub fn tokens(&self, image: &Tensor, train: bool) -> Result<Vec<Tensor>, ModelError> {
        self.check_image(image)?;
        let (mut x, mut tokens) = (self.embed(image, None)?, Vec::new());
        for block in &self.blocks {
            x = block.forward(&x, train);
            tokens.push(x.shallow_clone());
        }
        Ok(tokens)
    }

    /// Patch tokens after some blocks (counted from 0, ascending) as maps: image `[B, C, H, W]` → one `[B, D, G, G]` per block,
    /// where `G` is the grid. Blocks after the last of them are not run. A final norm is applied to each (DINOv2's
    /// `get_intermediate_layers`).
    ///
    /// # Errors
    /// When the image has the wrong shape.
    pub fn maps(&self, image: &Tensor, after: &[i64], train: bool) -> Result<Vec<Tensor>, ModelError> {
        self.check_image(image)?;
        let grid = self.config.grid();
        let (mut x, mut maps) = (self.embed(image, None)?, Vec::new());
        for (block, number) in self.blocks.iter().zip(0..) {
            x = block.forward(&x, train);
            for _ in after.iter().filter(|&&wanted| wanted == number) {
                let patches = self.patches_of(&self.normalized(x.shallow_clone())).transpose(1, 2); // [B, D, L]
                maps.push(patches.reshape([-1, self.config.embed_dim, grid, grid]));
            }
            if after.iter().all(|&wanted| wanted <= number) {
                break;
            }
        }
        Ok(maps)
    }

    fn normalized(&self, tokens: Tensor) -> Tensor {
        match &self.norm {
            Some(norm) => norm.forward(&tokens),
            None => tokens,
        }
    }

    fn check_image(&self, image: &Tensor) -> Result<(), ModelError> {
        let vit = &self.config;
        let gray = image.size().get(1) == Some(&1);
        let channels = if gray { 1 } else { vit.in_channels };
        check_shape("image", image, &[-1, channels, vit.image_size, vit.image_size])
    }

    /// Class token, registers and patches, the first and the last with their positions: image `[B, C, H, W]` → `[B, N, D]`.
    fn embed(&self, image: &Tensor, hidden: Option<Hidden>) -> Result<Tensor, ModelError> {
        let vit = &self.config;
        let (batch, side) = (image.size()[0], image.size()[2]);
        if side % vit.patch_size != 0 || image.size()[3] != side {
            let expected = format!("a square image that patches of {} pixels fill", vit.patch_size);
            return Err(ModelError::Shape { tensor: "image".to_owned(), expected, got: image.size() });
        }
        let mut x = self.patch_embed.forward(image);
        if let Some(Hidden { mask, token }) = hidden {
            check_shape("mask", mask, &[batch, x.size()[1]])?;
            x = token.to_kind(x.kind()).where_self(&mask.unsqueeze(-1), &x);
        }
        let prefix = |token: &Tensor| token.expand([batch, -1, vit.embed_dim], false).to_kind(x.kind());
        let x_with_cls = Tensor::cat(&[prefix(&self.cls_token), x.shallow_clone()], 1);
        let mut tokens = if side == vit.image_size {
            x_with_cls + &self.pos_embed
        } else {
            x_with_cls + resize_table(&self.pos_embed, side / vit.patch_size, vit.pos_resize)?
        };
        if let Some(registers) = &self.reg_token {
            let (cls, patches) = (tokens.narrow(1, 0, 1), tokens.narrow(1, 1, tokens.size()[1] - 1));
            let registers = registers.expand([batch, -1, vit.embed_dim], false).to_kind(tokens.kind());
            tokens = Tensor::cat(&[cls, registers, patches], 1);
        }
        Ok(match &self.norm_pre {
            Some(norm) => norm.forward(&tokens),
            None => tokens,
        })
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

    #[test]
    fn registers_are_between_class_token_and_patches_and_masks_hide_patches() {
        tch::manual_seed(2);
        let config = VitConfig {
            image_size: 12,
            patch_size: 4,
            embed_dim: 8,
            num_layers: 1,
            num_heads: 2,
            register_tokens: 2,
            final_norm: true,
            pooling: Pooling::Cls,
            ..VitConfig::default()
        };
        let store = nn::VarStore::new(Device::Cpu);
        let encoder = VitEncoder::new(&store.root(), &config, 0.0);
        let image = Tensor::randn([2, 1, 12, 12], (Kind::Float, Device::Cpu));
        let tokens = encoder.forward(&image, false).unwrap();
        assert_eq!((tokens.size(), encoder.patches_of(&tokens).size()), (vec![2, 12, 8], vec![2, 9, 8]));
        assert_eq!(encoder.pool(&tokens), tokens.select(1, 0));
        let embedded = encoder.embed(&image, None).unwrap();
        let registers = store.variables()["reg_token"].expand([2, 2, 8], false);
        assert_eq!(embedded.narrow(1, 1, 2), registers, "without positions");

        // A masked patch does not depend on its pixels; the others do.
        let mask =
            Tensor::from_slice(&[true, false, false, false, false, false, false, false, false]).expand([2, 9], false);
        let token = Tensor::ones([1, 1, 8], (Kind::Float, Device::Cpu));
        let hidden = encoder.embed(&image, Some(Hidden { mask: &mask, token: &token })).unwrap();
        let position = store.variables()["pos_embed"].narrow(1, 1, 1) + 1.0;
        assert_eq!(hidden.narrow(1, 3, 1), position.expand([2, 1, 8], false));
        assert_eq!(hidden.narrow(1, 4, 8), embedded.narrow(1, 4, 8));

        // Smaller images have the same tokens before the patches.
        let small = Tensor::randn([1, 1, 8, 8], (Kind::Float, Device::Cpu));
        assert_eq!(encoder.forward_any(&small, None, false).unwrap().size(), [1, 7, 8]);
        assert!(encoder.forward(&small, false).is_err());
        assert!(encoder.forward_any(&small.narrow(2, 0, 6), None, false).is_err());
    }
}
