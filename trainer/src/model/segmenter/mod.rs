//! The downstream segmenter: the encoder without masking, and a head that computes logits of every pixel.
//!
//! As in the segmentation models of BEiT, MAE and the MRM release (built with mmsegmentation): no norm after the encoder, the
//! heads do not use the class token, position table and class token are trained. The encoder's variables are at the root
//! under timm's names, so pretrained weights load as into the classifier; the names `neck`, `decode_head` and
//! `auxiliary_head` are mmsegmentation's.

mod setr;
mod upernet;

use serde::{Deserialize, Serialize};
use tch::Tensor;
use tch::nn;

use crate::error::{MAX_DIM, ModelError, check_size};
use crate::model::convolutions::resize;
use crate::model::encoder::{VitEncoder, check_drop_path};
use crate::model::vit::VitConfig;
use crate::train::distributed::ProcessGroup;

use setr::SetrHead;
use upernet::{FcnHead, Pyramid, UperHead};

/// Classes of a pixel: background, foreground.
pub const CLASSES: i64 = 2;

/// Index of the foreground in logits.
pub const FOREGROUND: i64 = 1;

/// Number of the encoder's maps that UPerNet uses.
const MAPS: usize = 4;

/// The head that turns the encoder's tokens into pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Head {
    /// UPerNet on four blocks, with an auxiliary FCN head in training: the recipe's head.
    #[default]
    Upernet,
    /// Two convolutions with upsampling, on the last of the blocks.
    Setr,
}

/// Configuration of a segmenter. The default is the recipe's: UPerNet on ViT-B/16 at 512 pixels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SegmenterConfig {
    /// The encoder.
    pub vit: VitConfig,
    /// The head.
    pub head: Head,
    /// Blocks whose tokens the head uses, counted from 0, ascending: four for UPerNet, of which SETR uses the last.
    /// Empty: spread over the layers as 3, 5, 7, 11 over twelve.
    pub blocks: Vec<i64>,
    /// Channels of the decoding head.
    pub channels: i64,
    /// Channels of the auxiliary head.
    pub auxiliary_channels: i64,
    /// Probability of a dropped channel before the last convolution of a head.
    pub dropout: f64,
    /// Probability of a dropped branch in the encoder's last block; it rises linearly from 0 in the first.
    pub drop_path: f64,
}

impl Default for SegmenterConfig {
    fn default() -> Self {
        Self {
            vit: VitConfig { image_size: 512, ..VitConfig::default() },
            head: Head::default(),
            blocks: Vec::new(),
            channels: 512,
            auxiliary_channels: 256,
            dropout: 0.1,
            drop_path: 0.1,
        }
    }
}

impl SegmenterConfig {
    /// The blocks whose tokens the head uses: the configured ones, or those of the recipe spread over the layers: 3, 5, 7, 11
    /// of 12 and mmsegmentation's 7, 11, 15, 23 of 24. With fewer than 4 layers, some are repeated.
    pub fn chosen_blocks(&self) -> Vec<i64> {
        if !self.blocks.is_empty() {
            return self.blocks.clone();
        }
        // The maps are taken after these shares of the layers, in twelfths.
        [4, 6, 8, 12].map(|share| ((share * self.vit.num_layers + 6) / 12 - 1).max(0)).to_vec()
    }

    /// Checks the configuration.
    ///
    /// # Errors
    /// When no model can have it.
    pub fn validate(&self) -> Result<(), ModelError> {
        self.vit.validate()?;
        check_size("channels", self.channels, MAX_DIM)?;
        check_size("auxiliary_channels", self.auxiliary_channels, MAX_DIM)?;
        check_drop_path(self.drop_path)?;
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(ModelError::config("dropout", format!("must be from 0 to below 1, is {}", self.dropout)));
        }
        if self.vit.grid() < 2 {
            return Err(ModelError::config("image_size", "a head needs at least 2 × 2 patches"));
        }
        let (blocks, num_layers) = (self.chosen_blocks(), self.vit.num_layers);
        let within = blocks.iter().all(|block| (0..num_layers).contains(block)) && blocks.is_sorted();
        let enough = self.head == Head::Setr || blocks.len() == MAPS;
        if within && enough {
            return Ok(());
        }
        let problem = format!("must be {MAPS} ascending numbers from 0 to {}, is {blocks:?}", num_layers - 1);
        Err(ModelError::config("blocks", problem))
    }
}

/// Logits of a batch.
pub struct SegmenterOutput {
    /// `[B, 2, S, S]`: background, foreground.
    pub logits: Tensor,
    /// Logits of the auxiliary head, of the same shape; in training, if the head has one.
    pub auxiliary: Option<Tensor>,
}

#[derive(Debug)]
enum Decoder {
    Upernet(Box<UperNet>),
    Setr(SetrHead),
}

#[derive(Debug)]
struct UperNet {
    neck: Pyramid,
    decode: UperHead,
    auxiliary: FcnHead,
}

/// The segmenter.
#[derive(Debug)]
pub struct Segmenter {
    config: SegmenterConfig,
    blocks: Vec<i64>,
    encoder: VitEncoder,
    frozen: bool,
    decoder: Decoder,
}

impl Segmenter {
    /// A segmenter with random initialization, its variables under `path`. In training, its batch norms are over the batches of
    /// all processes in `group`.
    ///
    /// # Errors
    /// When no model has this configuration.
    pub fn new(path: &nn::Path, config: &SegmenterConfig, group: &ProcessGroup) -> Result<Self, ModelError> {
        config.validate()?;
        let mut blocks = config.chosen_blocks();
        let encoder = VitEncoder::new(path, &config.vit, config.drop_path);
        let decode_path = path / "decode_head";
        let decoder = match config.head {
            Head::Upernet => Decoder::Upernet(Box::new(UperNet {
                neck: Pyramid::new(&(path / "neck"), config.vit.embed_dim, group),
                decode: UperHead::new(&decode_path, config, group),
                auxiliary: FcnHead::new(&(path / "auxiliary_head"), config, group),
            })),
            Head::Setr => {
                blocks = blocks.split_off(blocks.len() - 1);
                Decoder::Setr(SetrHead::new(&decode_path, config, group))
            }
        };
        Ok(Self { config: config.clone(), blocks, encoder, frozen: false, decoder })
    }

    /// Freezes the encoder: it computes as in an evaluation, and without gradients, in training, too.
    #[must_use]
    pub fn freeze_encoder(mut self, frozen: bool) -> Self {
        self.frozen = frozen;
        self
    }

    /// The model's configuration.
    pub fn config(&self) -> &SegmenterConfig {
        &self.config
    }

    /// Logits of every pixel: image `[B, C, S, S]`, normalized, of 1 channel (gray) or all → `[B, 2, S, S]`.
    ///
    /// # Errors
    /// When the image has the wrong shape.
    pub fn forward(&self, image: &Tensor, train: bool) -> Result<SegmenterOutput, ModelError> {
        let maps = if self.frozen {
            tch::no_grad(|| self.encoder.maps(image, &self.blocks, false))
        } else {
            self.encoder.maps(image, &self.blocks, train)
        }?; // each [B, D, G, G]
        let whole = |logits: &Tensor| resize(logits, [self.config.vit.image_size; 2]);
        Ok(match &self.decoder {
            Decoder::Upernet(upernet) => {
                let UperNet { neck, decode, auxiliary } = &**upernet;
                let pyramid = neck.forward(&maps, train)?;
                SegmenterOutput {
                    logits: whole(&decode.forward(&pyramid, train)?),
                    auxiliary: if train { Some(whole(&auxiliary.forward(&pyramid, train)?)) } else { None },
                }
            }
            Decoder::Setr(head) => SegmenterOutput { logits: whole(&head.forward(&maps[0], train)?), auxiliary: None },
        })
    }
}

#[cfg(test)]
mod tests;
