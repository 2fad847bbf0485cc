//! The projection head: an MLP of three layers, a unit vector, and its cosine to each prototype.

use tch::nn::{self, Module};
use tch::{Kind, Tensor};

use super::config::DinoHeadConfig;
use crate::model::layers::{TOKEN_STD, WeightInit, linear, truncated_normal};

/// Smallest length that a vector is divided by (`torch.nn.functional.normalize`).
const SMALLEST_NORM: f64 = 1e-12;

/// The head. Its last layer is weight-normalized with lengths fixed at 1 (DINO's `norm_last_layer`): a score is the cosine of the
/// angle between the input and a prototype.
#[derive(Debug)]
pub struct DinoHead {
    mlp: [nn::Linear; 3],
    prototypes: Tensor, // [K, bottleneck]
}

impl DinoHead {
    /// Variables `mlp.0`, `mlp.2`, `mlp.4` and `last_layer.weight` under `path` (DINO's names), for vectors of length `D`.
    pub fn new(path: &nn::Path, embed_dim: i64, config: &DinoHeadConfig, init: WeightInit) -> Self {
        let mlp = path / "mlp";
        let DinoHeadConfig { hidden_dim, bottleneck, prototypes } = *config;
        let last = truncated_normal(&[prototypes, bottleneck], TOKEN_STD, path.device());
        Self {
            mlp: [
                linear(&(&mlp / 0), embed_dim, hidden_dim, init),
                linear(&(&mlp / 2), hidden_dim, hidden_dim, init),
                linear(&(&mlp / 4), hidden_dim, bottleneck, init),
            ],
            prototypes: (path / "last_layer").add("weight", last, true),
        }
    }

    /// Scores of the prototypes: `[N, D]` → `[N, K]`, float32. With `frozen`, the prototypes get no gradient.
    pub fn forward(&self, x: &Tensor, frozen: bool) -> Tensor {
        let [first, second, third] = &self.mlp;
        let x = second.forward(&first.forward(x).gelu("none")).gelu("none");
        let x = unit(&third.forward(&x).to_kind(Kind::Float));
        let prototypes = if frozen { self.prototypes.detach() } else { self.prototypes.shallow_clone() };
        x.matmul(&unit(&prototypes).tr()).to_kind(Kind::Float)
    }
}

/// Vectors of length 1: `[N, D]` → `[N, D]`.
pub(super) fn unit(x: &Tensor) -> Tensor {
    let length = x.square().sum_dim_intlist([-1_i64].as_slice(), true, Kind::Float).sqrt();
    x / length.clamp_min(SMALLEST_NORM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn scores_are_cosines_and_frozen_prototypes_get_no_gradient() {
        tch::manual_seed(1);
        let store = nn::VarStore::new(Device::Cpu);
        let config = DinoHeadConfig { hidden_dim: 12, bottleneck: 4, prototypes: 30 };
        let head = DinoHead::new(&store.root(), 8, &config, WeightInit::XavierUniform);
        let x = Tensor::randn([5, 8], (Kind::Float, Device::Cpu)) * 100.0;
        let scores = head.forward(&x, false);
        assert_eq!(scores.size(), [5, 30]);
        assert!(scores.abs().max().double_value(&[]) <= 1.0 + 1e-6);
        // The length of a prototype does not matter.
        tch::no_grad(|| {
            let _ = store.variables().get_mut("last_layer.weight").unwrap().g_mul_scalar_(7.0);
        });
        assert!((head.forward(&x, false) - scores).abs().max().double_value(&[]) < 1e-5);

        head.forward(&x, true).sum(Kind::Float).backward();
        assert!(!store.variables()["last_layer.weight"].grad().defined());
        assert!(store.variables()["mlp.0.weight"].grad().defined());
        head.forward(&x, false).sum(Kind::Float).backward();
        assert!(store.variables()["last_layer.weight"].grad().defined());
    }
}
