//! The number types of a training step: float, or products in half the size with a scaled loss.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::error::ModelError;
use crate::torch::shim::{self, Reduced};

/// In what products are computed; weights, moments, sums and losses are floats in all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Float throughout.
    #[default]
    Fp32,
    /// bfloat16: the range of a float, 8 bits of precision.
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

    /// A loss scale, where one is needed.
    pub fn loss_scale(self, device: Device) -> Option<LossScale> {
        (self == Self::Fp16).then(|| LossScale::new(LossScaleState::default(), device))
    }
}

/// Updates without an overflow after which a loss scale doubles (torch's `GradScaler`, as the next three).
const GROWTH_INTERVAL: f64 = 2000.0;
const GROWTH: f64 = 2.0;
const BACKOFF: f64 = 0.5;
const FIRST_SCALE: f64 = 65_536.0;

/// What a checkpoint keeps of a loss scale.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LossScaleState {
    /// The factor on the loss.
    pub scale: f64,
    /// Updates since it last changed.
    pub updates: f64,
}

impl Default for LossScaleState {
    fn default() -> Self {
        Self { scale: FIRST_SCALE, updates: 0.0 }
    }
}

/// A factor on the loss, so that gradients do not vanish in float16. It halves where gradients overflow, and doubles
/// after 2,000 updates without. It lives on the device, and nothing waits for it.
#[derive(Debug)]
pub struct LossScale {
    scale: Tensor,
    updates: Tensor,
}

impl LossScale {
    /// A loss scale that goes on from a state.
    pub fn new(state: LossScaleState, device: Device) -> Self {
        let scalar = |value: f64| Tensor::from(value as f32).to_device(device);
        Self { scale: scalar(state.scale), updates: scalar(state.updates) }
    }

    /// The factor, a float scalar.
    pub fn factor(&self) -> &Tensor {
        &self.scale
    }

    /// What takes the factor out of the gradients again.
    pub fn inverse(&self) -> Tensor {
        self.scale.reciprocal()
    }

    /// Follows an update; `skip` is the float scalar 1 where gradients overflowed, else 0.
    pub fn follow(&mut self, skip: &Tensor) {
        let _guard = tch::no_grad_guard();
        let kept: Tensor = 1.0 - skip;
        let updates = (&self.updates + 1.0) * &kept;
        let grows = updates.ge(GROWTH_INTERVAL).to_kind(Kind::Float);
        self.scale = &self.scale * (skip * BACKOFF + &kept * (&grows * (GROWTH - 1.0) + 1.0));
        self.updates = updates * (1.0 - grows);
    }

    /// What a checkpoint keeps.
    pub fn state(&self) -> LossScaleState {
        LossScaleState { scale: self.scale.double_value(&[]), updates: self.updates.double_value(&[]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_halves_on_overflow_and_doubles_after_a_quiet_time() {
        let state = LossScaleState { scale: 1024.0, updates: GROWTH_INTERVAL - 2.0 };
        let mut scale = LossScale::new(state, Device::Cpu);
        let (fine, overflow) = (Tensor::from(0.0_f32), Tensor::from(1.0_f32));
        scale.follow(&fine);
        assert_eq!(scale.state(), LossScaleState { scale: 1024.0, updates: GROWTH_INTERVAL - 1.0 });
        scale.follow(&fine);
        assert_eq!(scale.state(), LossScaleState { scale: 2048.0, updates: 0.0 });
        scale.follow(&fine);
        scale.follow(&overflow);
        assert_eq!(scale.state(), LossScaleState { scale: 1024.0, updates: 0.0 });
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
