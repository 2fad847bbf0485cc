//! UPerNet (Xiao et al. 2018) on a vision transformer, and the auxiliary head beside it, as mmsegmentation builds them.
//!
//! UPerNet needs maps of different sizes, but a transformer's maps have the same size. BEiT's and MAE's segmentation models
//! compute a pyramid with transposed convolutions and pooling (mmsegmentation's `Feature2Pyramid`). Names are
//! mmsegmentation's.

use tch::Tensor;
use tch::nn;

use super::{CLASSES, SegmenterConfig};
use crate::error::ModelError;
use crate::model::batch_norm::BatchNorm;
use crate::model::convolutions::{ConvModule, Deconvolution, PixelClassifier, resize, sides};
use crate::train::distributed::ProcessGroup;

/// Sides to which the pyramid pooling module pools its map (PSPNet, Zhao et al. 2017).
const POOLS: [i64; 4] = [1, 2, 3, 6];

/// The map that the auxiliary head uses: the third, which the pyramid does not change.
const AUXILIARY_MAP: usize = 2;

/// The neck: four maps of one size → 4, 2, 1 and ½ times that size.
#[derive(Debug)]
pub struct Pyramid {
    first: (Deconvolution, BatchNorm, Deconvolution),
    second: Deconvolution,
}

impl Pyramid {
    /// Variables `upsample_4x.*` and `upsample_2x.*` under `path`, for maps of `embed_dim` channels.
    pub fn new(path: &nn::Path, embed_dim: i64, group: &ProcessGroup) -> Self {
        let (four, two) = (path / "upsample_4x", path / "upsample_2x");
        Self {
            first: (
                Deconvolution::new(&(&four / 0), embed_dim, embed_dim),
                BatchNorm::new(&(&four / 1), embed_dim, group),
                Deconvolution::new(&(&four / 3), embed_dim, embed_dim), // 2 is the GELU
            ),
            second: Deconvolution::new(&(&two / 0), embed_dim, embed_dim),
        }
    }

    /// `4 × [B, D, G, G]` → `[B, D, 4G, 4G]`, `[B, D, 2G, 2G]`, `[B, D, G, G]`, `[B, D, ⌊G/2⌋, ⌊G/2⌋]`.
    ///
    /// # Errors
    /// When another process cannot be reached.
    pub fn forward(&self, maps: &[Tensor], train: bool) -> Result<[Tensor; 4], ModelError> {
        let (enlarge, norm, again) = &self.first;
        let doubled = norm.forward(&enlarge.forward(&maps[0]), train)?.gelu("none");
        Ok([
            again.forward(&doubled),
            self.second.forward(&maps[1]),
            maps[2].shallow_clone(),
            maps[3].max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false),
        ])
    }
}

/// The decoding head: pyramid pooling on the smallest map, then a feature pyramid up to the largest map.
#[derive(Debug)]
pub struct UperHead {
    psp_modules: Vec<ConvModule>,
    bottleneck: ConvModule,
    lateral_convs: Vec<ConvModule>,
    fpn_convs: Vec<ConvModule>,
    fpn_bottleneck: ConvModule,
    conv_seg: PixelClassifier,
}

impl UperHead {
    /// A head for maps of `embed_dim` channels, its variables under `path`.
    pub fn new(path: &nn::Path, config: &SegmenterConfig, group: &ProcessGroup) -> Self {
        let (embed_dim, channels) = (config.vit.embed_dim, config.channels);
        let modules = |name: &str, inputs: i64, kernel: i64| -> Vec<ConvModule> {
            (0..3).map(|i| ConvModule::new(&(path / name / i), inputs, channels, kernel, group)).collect()
        };
        let pools = POOLS.len() as i64;
        Self {
            // 0 of each is the pooling.
            psp_modules: (0..pools)
                .map(|i| ConvModule::new(&(path / "psp_modules" / i / 1), embed_dim, channels, 1, group))
                .collect(),
            bottleneck: ConvModule::new(&(path / "bottleneck"), embed_dim + pools * channels, channels, 3, group),
            lateral_convs: modules("lateral_convs", embed_dim, 1),
            fpn_convs: modules("fpn_convs", channels, 3),
            fpn_bottleneck: ConvModule::new(&(path / "fpn_bottleneck"), 4 * channels, channels, 3, group),
            conv_seg: PixelClassifier::new(&(path / "conv_seg"), channels, CLASSES, config.dropout),
        }
    }

    /// A pyramid of maps → logits `[B, 2, H, W]` of the size of the first.
    ///
    /// # Errors
    /// When another process cannot be reached.
    pub fn forward(&self, maps: &[Tensor; 4], train: bool) -> Result<Tensor, ModelError> {
        let lateral = |i: usize| self.lateral_convs[i].forward(&maps[i], train); // [B, channels, Hi, Wi]
        let mut laterals = [lateral(0)?, lateral(1)?, lateral(2)?, self.pooled(&maps[3], train)?];
        for i in (0..3).rev() {
            laterals[i] = &laterals[i] + resize(&laterals[i + 1], sides(&laterals[i]));
        }
        let largest = sides(&laterals[0]);
        let [first, second, third, last] = &laterals;
        let mut outputs: Vec<Tensor> = [first, second, third]
            .into_iter()
            .zip(&self.fpn_convs)
            .map(|(x, module)| Ok(resize(&module.forward(x, train)?, largest)))
            .collect::<Result<_, ModelError>>()?;
        outputs.push(resize(last, largest));
        let fused = self.fpn_bottleneck.forward(&Tensor::cat(&outputs, 1), train)?; // [B, channels, 4G, 4G]
        Ok(self.conv_seg.forward(&fused, train))
    }

    /// The pyramid pooling module: `[B, D, H, W]` → `[B, channels, H, W]`.
    fn pooled(&self, map: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        let mut parts = vec![map.shallow_clone()];
        for (module, side) in self.psp_modules.iter().zip(POOLS) {
            let pooled = module.forward(&map.adaptive_avg_pool2d([side, side]), train)?;
            parts.push(resize(&pooled, sides(map)));
        }
        self.bottleneck.forward(&Tensor::cat(&parts, 1), train)
    }
}

/// The auxiliary head (FCN, Long et al. 2015), which gives the middle of the encoder a loss of its own in training.
#[derive(Debug)]
pub struct FcnHead {
    conv: ConvModule,
    conv_seg: PixelClassifier,
}

impl FcnHead {
    /// A head of one convolution, its variables under `path`.
    pub fn new(path: &nn::Path, config: &SegmenterConfig, group: &ProcessGroup) -> Self {
        let channels = config.auxiliary_channels;
        Self {
            conv: ConvModule::new(&(path / "convs" / 0), config.vit.embed_dim, channels, 3, group),
            conv_seg: PixelClassifier::new(&(path / "conv_seg"), channels, CLASSES, config.dropout),
        }
    }

    /// A pyramid of maps → logits `[B, 2, G, G]`.
    ///
    /// # Errors
    /// When another process cannot be reached.
    pub fn forward(&self, maps: &[Tensor; 4], train: bool) -> Result<Tensor, ModelError> {
        Ok(self.conv_seg.forward(&self.conv.forward(&maps[AUXILIARY_MAP], train)?, train))
    }
}
