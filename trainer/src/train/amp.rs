//! The number types of a training step: float32, or matrix products in 16 bits with a scaled loss.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::ModelError;
use crate::torch::shim::{self, Reduced};

/// The type in which matrix products are computed. Weights, moments, sums and losses are float32 in all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// float32 throughout.
    #[default]
    Fp32,
    /// bfloat16: the range of float32, 8 bits of precision.
    Bf16,
    /// float16, with a [`LossScale`] that keeps small gradients above zero.
    Fp16,
}

impl Precision {
    /// Runs a forward pass in this precision.
    ///
    /// # Errors
    /// When torch has no autocast for the device.
    pub fn run<T>(self, device: Device, forward: impl FnOnce() -> T) -> Result<T, ModelError> {
        match self {
            Self::Fp32 => Ok(forward()),
            Self::Bf16 => shim::autocast(device, Reduced::BFloat16, forward),
            Self::Fp16 => shim::autocast(device, Reduced::Half, forward),
        }
    }

    /// The 16-bit type of matrix products; none for float32.
    pub fn reduced(self) -> Option<Kind> {
        match self {
            Self::Fp32 => None,
            Self::Bf16 => Some(Kind::BFloat16),
            Self::Fp16 => Some(Kind::Half),
        }
    }

    /// A loss scale, where the precision needs one.
    pub fn loss_scale(self, device: Device) -> Option<LossScale> {
        (self == Self::Fp16).then(|| LossScale::new(LossScaleState::default(), device))
    }
}

/// Steps without an overflow after which a loss scale doubles. This and the next three are the defaults of torch's
/// `GradScaler`.
const GROWTH_INTERVAL: f64 = 2000.0;
const GROWTH: f64 = 2.0;
const BACKOFF: f64 = 0.5;
const INITIAL_SCALE: f64 = 65_536.0;

/// What a checkpoint keeps of a loss scale.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossScaleState {
    /// The factor on the loss.
    pub scale: f64,
    /// Steps since it last changed.
    #[serde(alias = "updates")] // the name in checkpoints of older versions
    pub steps: f64,
}

impl Default for LossScaleState {
    fn default() -> Self {
        Self { scale: INITIAL_SCALE, steps: 0.0 }
    }
}

/// A factor on the loss, so that gradients do not vanish in float16. It halves when gradients overflow, and doubles after
/// 2,000 steps without an overflow. It is kept on the device, so reading it is never needed in a step.
#[derive(Debug)]
pub struct LossScale {
    scale: Tensor,
    steps: Tensor,
}

impl LossScale {
    /// A loss scale that continues from a state.
    pub fn new(state: LossScaleState, device: Device) -> Self {
        let scalar = |value: f64| Tensor::from(value as f32).to_device(device);
        Self { scale: scalar(state.scale), steps: scalar(state.steps) }
    }

    /// The factor, a float scalar.
    pub fn factor(&self) -> &Tensor {
        &self.scale
    }

    /// The factor by which gradients are unscaled, a float scalar.
    pub fn inverse(&self) -> Tensor {
        self.scale.reciprocal()
    }

    /// Adapts the factor after a step; `skip` is the float scalar 1 where gradients overflowed, else 0.
    pub fn adapt(&mut self, skip: &Tensor) {
        let _guard = tch::no_grad_guard();
        let kept: Tensor = 1.0 - skip;
        let steps = (&self.steps + 1.0) * &kept;
        let grows = steps.ge(GROWTH_INTERVAL).to_kind(Kind::Float);
        self.scale = &self.scale * (skip * BACKOFF + &kept * (&grows * (GROWTH - 1.0) + 1.0));
        self.steps = steps * (1.0 - grows);
    }

    /// What a checkpoint keeps.
    pub fn state(&self) -> LossScaleState {
        LossScaleState { scale: self.scale.double_value(&[]), steps: self.steps.double_value(&[]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_halves_on_overflow_and_doubles_after_steps_without_one() {
        let state = LossScaleState { scale: 1024.0, steps: GROWTH_INTERVAL - 2.0 };
        let mut scale = LossScale::new(state, Device::Cpu);
        let (fine, overflow) = (Tensor::from(0.0_f32), Tensor::from(1.0_f32));
        scale.adapt(&fine);
        assert_eq!(scale.state(), LossScaleState { scale: 1024.0, steps: GROWTH_INTERVAL - 1.0 });
        scale.adapt(&fine);
        assert_eq!(scale.state(), LossScaleState { scale: 2048.0, steps: 0.0 });
        scale.adapt(&fine);
        scale.adapt(&overflow);
        assert_eq!(scale.state(), LossScaleState { scale: 1024.0, steps: 0.0 });
        assert_eq!(scale.inverse().double_value(&[]), 1.0 / 1024.0);
    }

    #[test]
    fn only_half_precision_needs_a_scale() {
        assert!(Precision::Fp32.loss_scale(Device::Cpu).is_none() && Precision::Bf16.loss_scale(Device::Cpu).is_none());
        assert_eq!(Precision::Fp16.loss_scale(Device::Cpu).unwrap().state(), LossScaleState::default());
        let x = Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
        let kind = |precision: Precision| precision.run(Device::Cpu, || x.matmul(&x).kind()).unwrap();
        assert_eq!(
            [Precision::Fp32, Precision::Bf16, Precision::Fp16].map(kind),
            [Kind::Float, Kind::BFloat16, Kind::Half]
        );
    }
}
