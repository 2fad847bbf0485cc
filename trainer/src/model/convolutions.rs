//! The convolutional layers of segmentation heads, with the names and initialization of mmsegmentation and its `mmcv`.
//!
//! A convolution before a norm has no bias; its weight has Kaiming's normal initialization over outputs (He et al. 2015).
//! Running means and variances of batch norms are variables like the others, so every checkpoint has them.

use tch::nn;
use tch::{Device, Kind, Tensor};

use crate::error::ModelError;
use crate::model::batch_norm::BatchNorm;
use crate::train::distributed::ProcessGroup;

/// Standard deviation of the initialization of a head's last convolution (mmsegmentation's `conv_seg`).
const CLASSIFIER_STD: f64 = 0.01;

/// mmcv's `ConvModule`: convolution without bias, batch norm, ReLU. It keeps the sides of a map.
#[derive(Debug)]
pub struct ConvModule {
    weight: Tensor, // [O, I, k, k]
    norm: BatchNorm,
    padding: i64,
}

impl ConvModule {
    /// Variables `conv.weight` and `bn.*` under `path`; `kernel` is odd. The norm is over the batches of all processes.
    pub fn new(path: &nn::Path, inputs: i64, outputs: i64, kernel: i64, group: &ProcessGroup) -> Self {
        let std = (2.0 / (outputs * kernel * kernel) as f64).sqrt();
        let weight = normal(&[outputs, inputs, kernel, kernel], std, path.device());
        Self {
            weight: (path / "conv").add("weight", weight, true),
            norm: BatchNorm::new(&(path / "bn"), outputs, group),
            padding: kernel / 2,
        }
    }

    /// `[B, I, H, W]` → `[B, O, H, W]`. Training changes the running statistics.
    ///
    /// # Errors
    /// When another process cannot be reached.
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        let padding = [self.padding; 2];
        let convolved = x.conv2d::<Tensor>(&self.weight, None, [1, 1], padding, [1, 1], 1);
        Ok(self.norm.forward(&convolved, train)?.relu())
    }
}

/// A transposed convolution with kernel and stride 2: it doubles the sides of a map.
#[derive(Debug)]
pub struct Deconvolution {
    weight: Tensor, // [I, O, 2, 2]
    bias: Tensor,   // [O]
}

impl Deconvolution {
    /// Variables `weight` and `bias` under `path`, with torch's initialization.
    pub fn new(path: &nn::Path, inputs: i64, outputs: i64) -> Self {
        let bound = 1.0 / ((outputs * 4) as f64).sqrt();
        let uniform = |dims: &[i64]| Tensor::empty(dims, (Kind::Float, path.device())).uniform_(-bound, bound);
        Self {
            weight: path.add("weight", uniform(&[inputs, outputs, 2, 2]), true),
            bias: path.add("bias", uniform(&[outputs]), true),
        }
    }

    /// `[B, I, H, W]` → `[B, O, 2·H, 2·W]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.conv_transpose2d(&self.weight, Some(&self.bias), [2, 2], [0, 0], [0, 0], 1, [1, 1])
    }
}

/// The last layer of a head: in training whole channels are dropped, then a 1×1 convolution computes the logits.
#[derive(Debug)]
pub struct PixelClassifier {
    weight: Tensor, // [classes, I, 1, 1]
    bias: Tensor,   // [classes]
    dropout: f64,
}

impl PixelClassifier {
    /// Variables `weight` and `bias` under `path`; `dropout` is the probability of a dropped channel.
    pub fn new(path: &nn::Path, inputs: i64, classes: i64, dropout: f64) -> Self {
        let weight = normal(&[classes, inputs, 1, 1], CLASSIFIER_STD, path.device());
        Self { weight: path.add("weight", weight, true), bias: path.zeros("bias", &[classes]), dropout }
    }

    /// `[B, I, H, W]` → `[B, classes, H, W]`.
    pub fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let kept = if train && self.dropout > 0.0 { x.feature_dropout(self.dropout, true) } else { x.shallow_clone() };
        kept.conv2d(&self.weight, Some(&self.bias), [1, 1], [0, 0], [1, 1], 1)
    }
}

/// Bilinear resize of `[B, C, H, W]` to other sides, corners not aligned, as in mmsegmentation's heads.
pub fn resize(x: &Tensor, sides: [i64; 2]) -> Tensor {
    if x.size()[2..] == sides { x.shallow_clone() } else { x.upsample_bilinear2d(sides, false, None, None) }
}

/// Height and width of `[B, C, H, W]`.
pub fn sides(x: &Tensor) -> [i64; 2] {
    let size = x.size();
    [size[2], size[3]]
}

fn normal(dims: &[i64], std: f64, device: Device) -> Tensor {
    Tensor::empty(dims, (Kind::Float, device)).normal_(0.0, std)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_statistics_are_variables_that_training_changes_and_evaluation_uses() {
        tch::manual_seed(1);
        let store = nn::VarStore::new(Device::Cpu);
        let module = ConvModule::new(&store.root(), 3, 4, 3, &ProcessGroup::single());
        let mut names: Vec<String> = store.variables().into_keys().collect();
        names.sort();
        assert_eq!(names, ["bn.bias", "bn.running_mean", "bn.running_var", "bn.weight", "conv.weight"]);
        assert_eq!(store.trainable_variables().len(), 3);
        let x = Tensor::randn([2, 3, 5, 7], (Kind::Float, Device::Cpu));
        let before = module.forward(&x, false).unwrap();
        assert_eq!(before.size(), [2, 4, 5, 7]);
        assert_eq!(before, module.forward(&x, false).unwrap());
        let _ = module.forward(&x, true).unwrap();
        assert!(store.variables()["bn.running_mean"].abs().max().double_value(&[]) > 0.0);
        assert_ne!(before, module.forward(&x, false).unwrap());
    }

    #[test]
    fn a_deconvolution_writes_each_pixel_into_a_square_of_its_own() {
        let store = nn::VarStore::new(Device::Cpu);
        let layer = Deconvolution::new(&store.root(), 1, 1);
        let x = Tensor::from_slice(&[1.0_f32, 2.0]).view([1, 1, 1, 2]);
        let y = layer.forward(&x);
        assert_eq!(y.size(), [1, 1, 2, 4]);
        let expected = &layer.weight.get(0).get(0) * 2.0 + layer.bias.get(0); // [2, 2]
        assert!((y.get(0).get(0).narrow(1, 2, 2) - expected).abs().max().double_value(&[]) < 1e-6);
    }
}
