//! The layers that all models use, with the release's initialization.
//!
//! Random values are drawn from torch's default generator, so `tch::manual_seed` makes a model reproducible.

use tch::nn::{self, Init};
use tch::{Device, Kind, Tensor};

/// Standard deviation of the initialization of tokens and embeddings (timm, MAE, BERT).
pub const TOKEN_STD: f64 = 0.02;

/// Where timm truncates its normal distribution: at ±2, not at two standard deviations.
const TRUNCATION: f64 = 2.0;

/// Initialization of a linear layer's weight; its bias starts at zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WeightInit {
    /// Uniform in ±√(6 / (inputs + outputs)) (Glorot and Bengio 2010): pre-training, as in MAE and the release.
    XavierUniform,
    /// Normal with this standard deviation, truncated at ±2: timm's vision transformer.
    TruncatedNormal(f64),
}

impl WeightInit {
    /// Initializes a weight `[outputs, ..]`; the product of the other dimensions is the number of inputs.
    fn tensor(self, dims: &[i64], device: Device) -> Tensor {
        match self {
            Self::XavierUniform => {
                let (outputs, inputs) = (dims[0], dims[1..].iter().product::<i64>());
                let bound = (6.0 / (inputs + outputs) as f64).sqrt();
                uniform(dims, bound, device)
            }
            Self::TruncatedNormal(std) => truncated_normal(dims, std, device),
        }
    }
}

/// Normal values with standard deviation `std`, truncated at ±2 (timm's `trunc_normal_`).
pub fn truncated_normal(dims: &[i64], std: f64, device: Device) -> Tensor {
    Tensor::empty(dims, (Kind::Float, device)).normal_(0.0, std).clamp_(-TRUNCATION, TRUNCATION)
}

/// Uniform values in ±`bound`.
pub fn uniform(dims: &[i64], bound: f64, device: Device) -> Tensor {
    Tensor::empty(dims, (Kind::Float, device)).uniform_(-bound, bound)
}

/// A linear layer `[.., inputs] → [.., outputs]` with variables `weight` `[outputs, inputs]` and `bias` `[outputs]`.
pub fn linear(path: &nn::Path, inputs: i64, outputs: i64, init: WeightInit) -> nn::Linear {
    let ws = path.add("weight", init.tensor(&[outputs, inputs], path.device()), true);
    let bs = path.zeros("bias", &[outputs]);
    nn::Linear { ws, bs: Some(bs) }
}

/// Weight `[outputs, channels, patch, patch]` and bias `[outputs]` of a patch projection, named as those of a
/// convolution. With Xavier the weight is initialized as a matrix `[outputs, channels · patch²]`; else both have torch's
/// default for convolutions, ±1/√inputs, since timm initializes linear layers only.
pub fn patch_projection(
    path: &nn::Path,
    channels: i64,
    patch: i64,
    outputs: i64,
    init: WeightInit,
) -> (Tensor, Tensor) {
    let dims = [outputs, channels, patch, patch];
    let bound = 1.0 / ((channels * patch * patch) as f64).sqrt();
    let weight = match init {
        WeightInit::XavierUniform => init.tensor(&dims, path.device()),
        WeightInit::TruncatedNormal(_) => uniform(&dims, bound, path.device()),
    };
    let weight = path.add("weight", weight, true);
    let bias = path.add("bias", uniform(&[outputs], bound, path.device()), true);
    (weight, bias)
}

/// A layer normalization over the last dimension, of size `embed_dim`; weight 1 and bias 0.
pub fn layer_norm(path: &nn::Path, embed_dim: i64, epsilon: f64) -> nn::LayerNorm {
    nn::layer_norm(path, vec![embed_dim], nn::LayerNormConfig { eps: epsilon, ..Default::default() })
}

/// An embedding `[..] → [.., embed_dim]` with normal initialization. The row `padding` is zero and never receives a gradient;
/// an optimizer's weight decay still applies to it.
pub fn embedding(path: &nn::Path, count: i64, embed_dim: i64, padding: Option<i64>) -> nn::Embedding {
    let config = nn::EmbeddingConfig {
        ws_init: Init::Randn { mean: 0.0, stdev: TOKEN_STD },
        padding_idx: padding.unwrap_or(-1),
        ..Default::default()
    };
    let embedding = nn::embedding(path, count, embed_dim, config);
    if let Some(row) = padding {
        tch::no_grad(|| {
            let _ = embedding.ws.get(row).zero_();
        });
    }
    embedding
}

/// Values of a 16-bit random number, which dropout on a CPU compares with the probability.
const LEVELS: f64 = 65_536.0;

/// Dropout with probability `p`, in training only: a value becomes zero, or is scaled up to keep its expectation.
///
/// On a CPU, torch draws one number of double precision per value, on one thread, which takes a fifth of a training step.
/// Here one draw of 64 bits from torch's default generator serves four values, and `p` is rounded to 1/65536.
pub fn dropout(x: &Tensor, p: f64, train: bool) -> Tensor {
    if !train || p == 0.0 {
        return x.shallow_clone();
    }
    if x.device() != Device::Cpu {
        return x.dropout(p, train);
    }
    let dropped = (p * LEVELS).round();
    let count = x.numel() as i64;
    let bits = Tensor::empty([(count + 3) / 4], (Kind::Int64, Device::Cpu)).random_from_(i64::MIN, None);
    let levels = bits.view_dtype(Kind::Int16).narrow(0, 0, count).view(x.size().as_slice()); // -32768 to 32767
    let kept = levels.ge(dropped - LEVELS / 2.0).to_kind(x.kind());
    x * (kept * (LEVELS / (LEVELS - dropped)))
}

/// Attention with an additive mask `scores`, and dropout of its weights with probability `p` in training.
///
/// Queries, keys and values are `[B, heads, S, D]`, `scores` broadcasts to `[B, heads, S, S]`. Torch's fused kernel has no
/// dropout on a CPU; there the weights are computed explicitly and go through [`dropout`].
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, scores: &Tensor, p: f64, train: bool) -> Tensor {
    let p = if train { p } else { 0.0 };
    if p == 0.0 || q.device() != Device::Cpu {
        return Tensor::scaled_dot_product_attention(q, k, v, Some(scores), p, false, None, false);
    }
    let scale = (q.size()[3] as f64).sqrt().recip();
    let weights = ((q * scale).matmul(&k.transpose(2, 3)) + scores).softmax(-1, None); // [B, heads, S, S]
    dropout(&weights, p, train).matmul(v)
}

/// Lengths below this count as this in [`unit_vectors`].
const SHORTEST: f64 = 1e-12;

/// Vectors `[N, P]` divided by their lengths, in float32.
pub(crate) fn unit_vectors(vectors: &Tensor) -> Tensor {
    let vectors = vectors.to_kind(Kind::Float);
    let length = vectors.norm_scalaropt_dim(2.0, [1_i64].as_slice(), true);
    &vectors / length.clamp_min(SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn largest(values: &Tensor) -> f64 {
        values.abs().max().double_value(&[])
    }

    #[test]
    fn xavier_stays_within_its_bound_and_reaches_it() {
        tch::manual_seed(1);
        let store = nn::VarStore::new(Device::Cpu);
        let layer = linear(&store.root(), 100, 50, WeightInit::XavierUniform);
        let bound = (6.0_f64 / 150.0).sqrt();
        assert!(largest(&layer.ws) <= bound && largest(&layer.ws) > 0.99 * bound);
        assert_eq!(layer.bs.map(|bias| largest(&bias)), Some(0.0));
    }

    #[test]
    fn the_padding_row_is_zero_and_gets_no_gradient() {
        let store = nn::VarStore::new(Device::Cpu);
        let words = embedding(&store.root(), 10, 4, Some(0));
        assert_eq!(largest(&words.ws.get(0)), 0.0);
        nn::Module::forward(&words, &Tensor::from_slice(&[0_i64, 3])).sum(Kind::Float).backward();
        assert_eq!(largest(&words.ws.grad().get(0)), 0.0);
        assert_eq!(largest(&words.ws.grad().get(3)), 1.0);
    }

    #[test]
    fn the_truncated_normal_has_the_asked_deviation() {
        tch::manual_seed(2);
        let values = truncated_normal(&[100_000], 2e-5, Device::Cpu);
        let std = values.std(true).double_value(&[]);
        assert!((std / 2e-5 - 1.0).abs() < 0.02, "{std}");
    }

    #[test]
    fn dropout_keeps_the_expectation_and_the_gradient_follows_its_mask() {
        tch::manual_seed(3);
        let x = Tensor::ones([1001, 101], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let y = dropout(&x, 0.1, true);
        assert!((y.mean(Kind::Double).double_value(&[]) - 1.0).abs() < 0.005);
        let dropped = y.eq(0.0).to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        assert!((dropped - 0.1).abs() < 0.004, "{dropped}");
        assert!((y.max().double_value(&[]) - 1.0 / 0.9).abs() < 1e-4);
        y.sum(Kind::Float).backward();
        assert_eq!(x.grad(), y.detach());
        assert_eq!(dropout(&x, 0.1, false), x);
        assert_eq!(dropout(&x, 0.0, true), x);
    }

    #[test]
    fn explicit_attention_equals_the_fused_one() {
        tch::manual_seed(4);
        let random = || Tensor::randn([2, 3, 5, 4], (Kind::Float, Device::Cpu));
        let (q, k, v) = (random(), random(), random());
        let scores = Tensor::from_slice(&[0.0_f32, 0.0, 0.0, -1e4, 0.0]).expand([2, 1, 5, 5], false);
        let fused = attention(&q, &k, &v, &scores, 0.1, false);
        let written = attention(&q, &k, &v, &scores, 1e-9, true); // rounds to no dropout
        assert!(largest(&(fused - written)) < 1e-6);
    }
}
