//! Encoder and heads: the student, or the teacher.

use tch::Tensor;
use tch::nn;

use super::config::DinoModelConfig;
use super::head::DinoHead;
use crate::error::ModelError;
use crate::model::encoder::{Hidden, VitEncoder};
use crate::model::layers::WeightInit;

/// Initialization of all matrices. At the widths of ViT-B it is as wide as DINO's normal distribution with a standard deviation of
/// 0.02. At a small width, 0.02 makes the first outputs of all images nearly alike, from which the teacher does not recover.
const INIT: WeightInit = WeightInit::XavierUniform;

/// An encoder with its projection heads.
#[derive(Debug)]
pub struct DinoNetwork {
    encoder: VitEncoder,
    head: DinoHead,
    /// The head of patch tokens, where they have one for themselves.
    patch_head: Option<DinoHead>,
}

impl DinoNetwork {
    /// The encoder's variables are under `path` by their usual names, the heads' under `dino_head` and `ibot_head`. `patches`:
    /// whether there is a loss on patch tokens.
    pub fn new(path: &nn::Path, config: &DinoModelConfig, drop_path: f64, patches: bool) -> Self {
        let head = |name| DinoHead::new(&(path / name), config.vit.embed_dim, &config.head, INIT);
        Self {
            encoder: VitEncoder::with_init(path, &config.vit, drop_path, INIT),
            head: head("dino_head"),
            patch_head: (patches && !config.shared_head).then(|| head("ibot_head")),
        }
    }

    /// The tokens of crops of one size, `[N, 1, S, S]` → `[N, 1 + R + L, D]`, after the final norm.
    ///
    /// # Errors
    /// When patches do not fill a crop.
    pub fn tokens(&self, crops: &Tensor, hidden: Option<Hidden>, train: bool) -> Result<Tensor, ModelError> {
        self.encoder.forward_any(crops, hidden, train)
    }

    /// The patch tokens, one after the other: `[N, 1 + R + L, D]` → `[N·L, D]`.
    pub fn patches(&self, tokens: &Tensor) -> Tensor {
        self.encoder.patches_of(tokens).flatten(0, 1)
    }

    /// Scores of class tokens: `[N, D]` → `[N, K]`.
    pub fn scores(&self, cls: &Tensor, frozen: bool) -> Tensor {
        self.head.forward(cls, frozen)
    }

    /// Scores of patch tokens: `[M, D]` → `[M, K]`.
    pub fn patch_scores(&self, patches: &Tensor, frozen: bool) -> Tensor {
        self.patch_head.as_ref().unwrap_or(&self.head).forward(patches, frozen)
    }
}
