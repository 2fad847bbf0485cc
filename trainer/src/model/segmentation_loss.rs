//! The losses of segmentation: focal, Dice and cross-entropy, as mmsegmentation computes them.
//!
//! The first two differ from their papers in details that change the numbers; each function documents them.
//! Logits are `[B, 2, H, W]` (background, foreground), targets `[B, H, W]` with 0, 1, or [`IGNORED`] where a pixel has no
//! ground truth. `tests/golden/seg_losses` holds values and gradients.

use dataset::transform::geometry::IGNORED;
use tch::{Kind, Reduction, Tensor};

use crate::model::segmenter::CLASSES;

/// Weight of positives in the focal loss; negatives have `1 - ALPHA`.
const ALPHA: f64 = 0.5;

/// Exponent of the focal loss, which reduces the loss of pixels that are already right.
const GAMMA: f64 = 2.0;

/// Added to numerator and denominator of the Dice loss.
const SMOOTH: f64 = 1.0;

/// Weights of the losses of a head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadLoss {
    /// Weight of the focal loss.
    pub focal: f64,
    /// Weight of the Dice loss.
    pub dice: f64,
}

impl HeadLoss {
    /// Weights of the decoding head.
    pub const DECODE: Self = Self { focal: 2.0, dice: 1.0 };

    /// Weights of the auxiliary head.
    pub const AUXILIARY: Self = Self { focal: 0.8, dice: 0.4 };

    /// The class weights of the recipe's Dice loss: the foreground alone.
    pub const FOREGROUND_ONLY: [f64; CLASSES as usize] = [0.0, 1.0];

    /// The weighted sum, the focal loss and the Dice loss; scalars. Logits are `[B, 2, H, W]`, targets `[B, H, W]`.
    pub fn of(self, logits: &Tensor, target: &Tensor) -> (Tensor, Tensor, Tensor) {
        let (focal, dice) = (focal(logits, target), dice(logits, target, Self::FOREGROUND_ONLY));
        (&focal * self.focal + &dice * self.dice, focal, dice)
    }
}

/// Weight of the auxiliary head beside the decoding head where both have the [`cross_entropy`] (mmsegmentation's UPerNet).
pub const AUXILIARY_CROSS_ENTROPY: f64 = 0.4;

/// The cross-entropy of a softmax; a scalar.
///
/// As with the focal loss, ignored pixels add nothing to the sum, but the mean divides by all `B·H·W` pixels.
pub fn cross_entropy(logits: &Tensor, target: &Tensor) -> Tensor {
    let classes = target.to_kind(Kind::Int64);
    let sum = logits.cross_entropy_loss::<Tensor>(&classes, None, Reduction::Sum, i64::from(IGNORED), 0.0);
    sum / target.numel() as f64
}

/// The focal loss (Lin et al. 2017) of a sigmoid for each class, alpha 0.5, gamma 2; a scalar.
///
/// Ignored pixels add nothing to the sum, but the mean divides by all `B·2·H·W` values, ignored ones included.
pub fn focal(logits: &Tensor, target: &Tensor) -> Tensor {
    let (classes, valid) = one_hot(target); // [B, 2, H, W], [B, 1, H, W]
    let probability = logits.sigmoid();
    let others: Tensor = 1.0 - &classes;
    let wrong: Tensor = (1.0 - &probability) * &classes + &probability * &others; // 1 - p_t
    let weight = (&classes * ALPHA + &others * (1.0 - ALPHA)) * wrong.pow_tensor_scalar(GAMMA);
    let each = logits.binary_cross_entropy_with_logits::<Tensor>(&classes, None, None, Reduction::None);
    (each * weight * valid).mean(Kind::Float)
}

/// The Dice loss of a softmax, with squared probabilities in the denominator (Milletari et al. 2016); a scalar.
///
/// Per class and image `1 - (2·Σ p·t·valid + 1) / (Σ (p² + t²) + 1)`; then the mean over images, times the weight of the
/// class. The sum over classes is divided by the number of classes, those of weight 0 included. An ignored pixel is left
/// out of the numerator alone; in the denominator it counts as foreground.
pub fn dice(logits: &Tensor, target: &Tensor, class_weights: [f64; CLASSES as usize]) -> Tensor {
    let (classes, valid) = one_hot(target); // [B, 2, H, W], [B, 1, H, W]
    let probability = logits.softmax(1, Kind::Float);
    let sum = |x: Tensor| x.sum_dim_intlist([2_i64, 3].as_slice(), false, Kind::Float); // [B, 2]
    let both = sum(&probability * &classes * valid);
    let all = sum(probability.square() + classes.square());
    let each: Tensor = 1.0 - (both * 2.0 + SMOOTH) / (all + SMOOTH);
    let by_class = each.mean_dim([0_i64].as_slice(), false, Kind::Float); // [2]
    let classes = (0_i64..).zip(class_weights).filter(|(_, weight)| *weight != 0.0);
    let weighted: Vec<Tensor> = classes.map(|(class, weight)| by_class.get(class) * weight).collect();
    Tensor::stack(&weighted, 0).sum(Kind::Float) / CLASSES as f64
}

/// The target as one map per class, where ignored pixels count as foreground: `[B, H, W]` → `[B, 2, H, W]`; and the valid
/// pixels, `[B, 1, H, W]`.
fn one_hot(target: &Tensor) -> (Tensor, Tensor) {
    let foreground = target.ne(0).to_kind(Kind::Float);
    let valid = target.ne(i64::from(IGNORED)).to_kind(Kind::Float);
    (Tensor::stack(&[1.0 - &foreground, foreground], 1), valid.unsqueeze(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn a_right_and_certain_prediction_has_no_loss() {
        let target = Tensor::from_slice(&[0_i64, 1, 1, 0]).view([1, 2, 2]);
        let (classes, _) = one_hot(&target);
        let logits = (classes * 2.0 - 1.0) * 50.0;
        let (total, focal, dice) = HeadLoss::DECODE.of(&logits, &target);
        for loss in [total, focal, dice] {
            assert!(loss.double_value(&[]).abs() < 1e-6);
        }
    }

    #[test]
    fn cross_entropy_divides_by_all_pixels() {
        let logits = [[0.2_f64, -1.0, 3.0], [1.5, 0.5, -2.0]]; // background, foreground of three pixels
        let target = [0_u8, 1, IGNORED];
        let tensor = Tensor::from_slice(&logits.concat()).view([1, 2, 1, 3]);
        let found = cross_entropy(&tensor, &Tensor::from_slice(&target).view([1, 1, 3])).double_value(&[]);
        let of_pixel = |pixel: usize| {
            let all = logits[0][pixel].exp() + logits[1][pixel].exp();
            -(logits[usize::from(target[pixel])][pixel].exp() / all).ln()
        };
        assert!((found - (of_pixel(0) + of_pixel(1)) / 3.0).abs() < 1e-12, "{found}");
    }

    #[test]
    fn ignored_pixels_give_the_focal_loss_no_gradient() {
        tch::manual_seed(1);
        let target = Tensor::from_slice(&[0_i64, 1, 255, 0]).view([1, 2, 2]);
        let logits = Tensor::randn([1, 2, 2, 2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        focal(&logits, &target).backward();
        let gradient = logits.grad();
        assert_eq!(gradient.select(2, 1).select(2, 0).abs().max().double_value(&[]), 0.0);
        assert!(gradient.select(2, 0).abs().min().double_value(&[]) > 0.0);
    }
}
