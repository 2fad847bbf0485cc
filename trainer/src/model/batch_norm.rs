//! Batch norm over the whole batch, also where several processes share it (synchronized batch norm).

use tch::nn::{self, Init, ModuleT};
use tch::{Kind, Tensor};

use crate::error::ModelError;
use crate::train::distributed::ProcessGroup;

/// torch's defaults.
const EPSILON: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// A batch norm over `[B, C, H, W]`; weight 1, bias 0. The running mean and variance are variables like the others.
#[derive(Debug)]
pub struct BatchNorm {
    norm: nn::BatchNorm,
    group: ProcessGroup,
}

impl BatchNorm {
    /// Variables `weight`, `bias`, `running_mean` and `running_var` under `path`. In training, mean and variance are those of
    /// the batches of all processes in `group`.
    pub fn new(path: &nn::Path, channels: i64, group: &ProcessGroup) -> Self {
        let config =
            nn::BatchNormConfig { ws_init: Init::Const(1.0), eps: EPSILON, momentum: MOMENTUM, ..Default::default() };
        Self { norm: nn::batch_norm2d(path, channels, config), group: group.clone() }
    }

    /// `[B, C, H, W]` → the same. Training changes the running statistics.
    ///
    /// # Errors
    /// When another process cannot be reached.
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        if !train || self.group.world_size() == 1 {
            return Ok(self.norm.forward_t(x, train));
        }
        let (over, shape): ([i64; 3], [i64; 4]) = ([0, 2, 3], [1, -1, 1, 1]);
        let float = x.to_kind(Kind::Float);
        let sum = |x: &Tensor| x.sum_dim_intlist(over.as_slice(), false, Kind::Float); // [C]
        let own = Tensor::from((x.numel() as i64 / x.size()[1]) as f32).to_device(x.device()).view([1]);
        let all = self.group.sum_with_gradient(&Tensor::cat(&[sum(&float), own], 0))?; // [C + 1]
        let channels = x.size()[1];
        let count = all.narrow(0, channels, 1).detach();
        let mean = all.narrow(0, 0, channels) / &count;
        let centered = float - mean.view(shape);
        // Two sums instead of one of squares: the difference of two large numbers would lose digits.
        let variance = self.group.sum_with_gradient(&sum(&centered.square()))? / &count;
        self.average(&mean, &(&variance * &count / (&count - 1.0).clamp_min(1.0)));
        let mut y = centered * (variance + EPSILON).rsqrt().view(shape);
        if let (Some(weight), Some(bias)) = (&self.norm.ws, &self.norm.bs) {
            y = y * weight.view(shape) + bias.view(shape);
        }
        Ok(y.to_kind(x.kind()))
    }

    /// Moves the running statistics towards those of a batch, whose variance is the unbiased one.
    fn average(&self, mean: &Tensor, variance: &Tensor) {
        let _guard = tch::no_grad_guard();
        for (running, new) in [(&self.norm.running_mean, mean), (&self.norm.running_var, variance)] {
            let _ = running.shallow_clone().lerp_(&new.detach(), MOMENTUM);
        }
    }
}
