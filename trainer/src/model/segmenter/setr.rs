//! A small head like that of SETR (Zheng et al. 2021, progressive upsampling): convolutions on the last block's map, each of
//! which doubles its sides.
//!
//! Use it if UPerNet's 40 million weights are too many for the labels or the machine. SETR has four convolutions of 256
//! channels. Here two of them reach a quarter of the image's side; the bilinear resize that ends every head does the rest.

use tch::Tensor;
use tch::nn::{self, Module};

use super::{CLASSES, SegmenterConfig};
use crate::error::ModelError;
use crate::model::convolutions::{ConvModule, PixelClassifier, resize, sides};
use crate::model::layers::layer_norm;
use crate::model::vit::LAYER_NORM_EPSILON;
use crate::train::distributed::ProcessGroup;

/// Convolutions before the classifier.
const STAGES: i64 = 2;

/// The head.
#[derive(Debug)]
pub struct SetrHead {
    norm: nn::LayerNorm,
    up_convs: Vec<ConvModule>,
    conv_seg: PixelClassifier,
}

impl SetrHead {
    /// A head for maps of `embed_dim` channels, its variables under `path`.
    pub fn new(path: &nn::Path, config: &SegmenterConfig, group: &ProcessGroup) -> Self {
        let (embed_dim, channels) = (config.vit.embed_dim, config.channels);
        let stage = |i: i64| {
            let inputs = if i == 0 { embed_dim } else { channels };
            ConvModule::new(&(path / "up_convs" / i / 0), inputs, channels, 3, group) // 1 is the resize
        };
        Self {
            norm: layer_norm(&(path / "norm"), embed_dim, LAYER_NORM_EPSILON),
            up_convs: (0..STAGES).map(stage).collect(),
            conv_seg: PixelClassifier::new(&(path / "conv_seg"), channels, CLASSES, config.dropout),
        }
    }

    /// A map `[B, D, G, G]` → logits `[B, 2, 4G, 4G]`.
    ///
    /// # Errors
    /// When another process cannot be reached.
    pub fn forward(&self, map: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        let normed = self.norm.forward(&map.permute([0, 2, 3, 1])).permute([0, 3, 1, 2]); // over D
        let upsampled = self.up_convs.iter().try_fold(normed, |x, module| {
            let x = module.forward(&x, train)?;
            let [height, width] = sides(&x);
            Ok::<_, ModelError>(resize(&x, [2 * height, 2 * width]))
        })?;
        Ok(self.conv_seg.forward(&upsampled, train))
    }
}
