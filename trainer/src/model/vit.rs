//! The vision transformer (Dosovitskiy et al. 2021): patch projection and pre-norm blocks, with timm's names.
//!
//! The masked encoder, its image decoder and the downstream models share these parts. Blocks are as in timm 0.3.2, which the
//! MRM release pins: `x + attention(norm1(x))`, then `x + mlp(norm2(x))`, exact GELU, no dropout.
//!
//! Shapes: batch `B`, channels `C`, patch side `p`, patches `L`, tokens `N`, embed_dim `D`.

use tch::nn::{self, Init, Module};
use tch::{Kind, Tensor};

use crate::model::layers::{WeightInit, layer_norm, linear, patch_projection};
use crate::model::patches::projection_patches;

pub(crate) use crate::model::vit_config::check_mlp_ratio;
pub use crate::model::vit_config::{BlockConfig, LAYER_NORM_EPSILON, MlpKind, POOLINGS, Pooling, VitConfig};

/// The patch projection: a convolution whose stride equals its kernel size, computed as one matrix product.
#[derive(Debug)]
pub struct PatchEmbed {
    weight: Tensor, // [D, C, p, p]
    bias: Tensor,   // [D]
    patch_size: i64,
}

impl PatchEmbed {
    /// Variables `proj.weight` and `proj.bias` under `path`.
    pub fn new(path: &nn::Path, config: &VitConfig, init: WeightInit) -> Self {
        let (weight, bias) =
            patch_projection(&(path / "proj"), config.in_channels, config.patch_size, config.embed_dim, init);
        Self { weight, bias, patch_size: config.patch_size }
    }

    /// The patches of an image `[B, C, H, W]`, ready to be embedded: `[B, L, C·p·p]`.
    pub fn cut(&self, image: &Tensor) -> Tensor {
        projection_patches(image, self.patch_size)
    }

    /// Embeds any number of patches: `[B, N, C·p·p]` → `[B, N, D]`.
    ///
    /// Patches of one channel are those of a gray image repeated on all channels: the weight summed over its channels gives
    /// the same result.
    pub fn embed(&self, patches: &Tensor) -> Tensor {
        let values = patches.size()[2];
        let weight = if values == self.patch_size * self.patch_size {
            self.weight.sum_dim_intlist([1_i64].as_slice(), false, None) // [D, p, p]
        } else {
            self.weight.shallow_clone()
        };
        patches.linear(&weight.view([-1, values]), Some(&self.bias))
    }

    /// Embeds a whole image: `[B, C, H, W]` → `[B, L, D]`.
    pub fn forward(&self, image: &Tensor) -> Tensor {
        self.embed(&self.cut(image))
    }
}

/// Multi-head self-attention with one projection for `[q | k | v]`, each of which has the heads one after the other.
#[derive(Debug)]
pub struct Attention {
    qkv: nn::Linear,
    proj: nn::Linear,
    num_heads: i64,
}

impl Attention {
    fn new(path: &nn::Path, config: BlockConfig, init: WeightInit) -> Self {
        let embed_dim = config.embed_dim;
        Self {
            qkv: linear(&(path / "qkv"), embed_dim, 3 * embed_dim, init),
            proj: linear(&(path / "proj"), embed_dim, embed_dim, init),
            num_heads: config.num_heads,
        }
    }

    /// `[B, N, D]` → `[B, N, D]`.
    fn forward(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        let (batch, tokens, embed_dim) = (size[0], size[1], size[2]);
        let qkv = self.qkv.forward(x).view([batch, tokens, 3, self.num_heads, embed_dim / self.num_heads]);
        // One `unbind`: three `get`s would each make a gradient of all of [q | k | v].
        let qkv = qkv.permute([2, 0, 3, 1, 4]).unbind(0); // 3 of [B, heads, N, D/heads]
        let mixed =
            Tensor::scaled_dot_product_attention::<Tensor>(&qkv[0], &qkv[1], &qkv[2], None, 0.0, false, None, false);
        self.proj.forward(&mixed.transpose(1, 2).reshape([batch, tokens, embed_dim]))
    }
}

/// Factor within the sigmoid of quick-GELU (CLIP).
const QUICK_GELU: f64 = 1.702;

/// The MLP of a block.
#[derive(Debug)]
pub struct Mlp {
    kind: MlpKind,
    fc1: nn::Linear,
    fc2: nn::Linear,
}

impl Mlp {
    fn new(path: &nn::Path, config: BlockConfig, init: WeightInit) -> Self {
        let mlp_dim = config.mlp_dim();
        let first = if config.mlp == MlpKind::Swiglu { 2 * mlp_dim } else { mlp_dim };
        Self {
            kind: config.mlp,
            fc1: linear(&(path / "fc1"), config.embed_dim, first, init),
            fc2: linear(&(path / "fc2"), mlp_dim, config.embed_dim, init),
        }
    }

    /// `[.., D]` → `[.., D]`.
    fn forward(&self, x: &Tensor) -> Tensor {
        let x = self.fc1.forward(x);
        let x = match self.kind {
            MlpKind::Gelu => x.gelu("none"),
            MlpKind::QuickGelu => &x * (&x * QUICK_GELU).sigmoid(),
            MlpKind::Swiglu => {
                let parts = x.chunk(2, -1);
                parts[0].silu() * &parts[1]
            }
        };
        self.fc2.forward(&x)
    }
}

/// A pre-norm transformer block.
#[derive(Debug)]
pub struct Block {
    norm1: nn::LayerNorm,
    attn: Attention,
    norm2: nn::LayerNorm,
    mlp: Mlp,
    /// Factors on both branches, `[D]` each (LayerScale).
    scales: Option<[Tensor; 2]>,
    drop_path: f64,
}

impl Block {
    /// A block that drops each of its two branches with probability `drop_path` (0 to below 1), in training only.
    pub fn new(path: &nn::Path, config: BlockConfig, drop_path: f64, init: WeightInit) -> Self {
        Self {
            norm1: layer_norm(&(path / "norm1"), config.embed_dim, config.norm_epsilon),
            attn: Attention::new(&(path / "attn"), config, init),
            norm2: layer_norm(&(path / "norm2"), config.embed_dim, config.norm_epsilon),
            mlp: Mlp::new(&(path / "mlp"), config, init),
            scales: (config.layer_scale > 0.0).then(|| {
                let scale = |name| (path / name).var("gamma", &[config.embed_dim], Init::Const(config.layer_scale));
                [scale("ls1"), scale("ls2")]
            }),
            drop_path,
        }
    }

    /// `[B, N, D]` → `[B, N, D]`.
    pub fn forward(&self, x: &Tensor, train: bool) -> Tensor {
        let x = x + self.drop(self.scaled(self.attn.forward(&self.norm1.forward(x)), 0), train);
        let branch = self.drop(self.scaled(self.mlp.forward(&self.norm2.forward(&x)), 1), train);
        x + branch
    }

    /// A branch times its factors, where the block has some.
    fn scaled(&self, branch: Tensor, which: usize) -> Tensor {
        match &self.scales {
            Some(scales) => branch * &scales[which],
            None => branch,
        }
    }

    /// Stochastic depth (Huang et al. 2016) per sample: a branch is dropped, or scaled up to keep its expectation.
    fn drop(&self, branch: Tensor, train: bool) -> Tensor {
        if !train || self.drop_path == 0.0 {
            return branch;
        }
        let keep = 1.0 - self.drop_path;
        let kept = Tensor::rand([branch.size()[0], 1, 1], (Kind::Float, branch.device())) + keep; // [B, 1, 1]
        branch * (kept.floor() / keep)
    }
}

/// Blocks `0`, `1`, … under `path`; the probability of a dropped branch rises linearly from 0 to `drop_path`.
pub fn blocks(path: &nn::Path, num_layers: i64, config: BlockConfig, drop_path: f64, init: WeightInit) -> Vec<Block> {
    let last = (num_layers - 1).max(1) as f64;
    (0..num_layers).map(|i| Block::new(&(path / i), config, drop_path * i as f64 / last, init)).collect()
}

/// Runs `x` `[B, N, D]` through all blocks.
pub fn run_blocks(blocks: &[Block], x: Tensor, train: bool) -> Tensor {
    blocks.iter().fold(x, |x, block| block.forward(&x, train))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn tiny() -> BlockConfig {
        BlockConfig::plain(8, 2, 4.0)
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.size(), b.size());
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn the_projection_is_the_convolution() {
        tch::manual_seed(1);
        let config = VitConfig { image_size: 12, patch_size: 4, embed_dim: 8, ..VitConfig::default() };
        let store = nn::VarStore::new(Device::Cpu);
        let embed = PatchEmbed::new(&store.root(), &config, WeightInit::XavierUniform);
        let image = Tensor::randn([2, 3, 12, 12], (Kind::Float, Device::Cpu));
        let expected = image.conv2d(&embed.weight, Some(&embed.bias), [4, 4], [0, 0], [1, 1], 1);
        let expected = expected.flatten(2, 3).transpose(1, 2);
        assert!(largest_difference(&embed.forward(&image), &expected) < 1e-5);
    }

    #[test]
    fn one_channel_embeds_as_the_same_image_on_three() {
        tch::manual_seed(1);
        let config = VitConfig { image_size: 8, patch_size: 4, embed_dim: 8, ..VitConfig::default() };
        let store = nn::VarStore::new(Device::Cpu);
        let embed = PatchEmbed::new(&store.root(), &config, WeightInit::XavierUniform);
        let gray = Tensor::randn([2, 1, 8, 8], (Kind::Float, Device::Cpu));
        let repeated = embed.forward(&gray.repeat([1, 3, 1, 1]));
        assert!(largest_difference(&embed.forward(&gray), &repeated) < 1e-5);
    }

    #[test]
    fn names_are_those_of_timm() {
        let store = nn::VarStore::new(Device::Cpu);
        let _ = blocks(&(store.root() / "blocks"), 2, tiny(), 0.0, WeightInit::XavierUniform);
        let names = store.variables();
        assert_eq!(names.len(), 24);
        for name in
            ["norm1.weight", "attn.qkv.bias", "attn.proj.weight", "norm2.bias", "mlp.fc1.weight", "mlp.fc2.bias"]
        {
            assert!(names.contains_key(&format!("blocks.1.{name}")), "{name}");
        }
    }

    #[test]
    fn drop_path_rises_with_the_layer_and_acts_in_training_only() {
        tch::manual_seed(3);
        let store = nn::VarStore::new(Device::Cpu);
        let stack = blocks(&store.root(), 3, tiny(), 0.5, WeightInit::XavierUniform);
        assert_eq!(stack.iter().map(|block| block.drop_path).collect::<Vec<_>>(), [0.0, 0.25, 0.5]);

        let branch = Tensor::ones([10_000, 1, 1], (Kind::Float, Device::Cpu));
        assert_eq!(largest_difference(&stack[2].drop(branch.copy(), false), &branch), 0.0);
        let dropped = stack[2].drop(branch, true);
        assert_eq!(dropped.max().double_value(&[]), 2.0);
        assert!((dropped.mean(Kind::Float).double_value(&[]) - 1.0).abs() < 0.05);
    }

    #[test]
    fn swiglu_and_layer_scale_compute_their_formulas() {
        tch::manual_seed(5);
        let store = nn::VarStore::new(Device::Cpu);
        let config = BlockConfig { mlp: MlpKind::Swiglu, layer_scale: 0.25, ..tiny() };
        let block = Block::new(&store.root(), config, 0.0, WeightInit::TruncatedNormal(0.5));
        let v = store.variables();
        assert_eq!((v["ls2.gamma"].size(), v["mlp.fc1.weight"].size()), (vec![8], vec![48, 8]));
        let x = Tensor::randn([1, 3, 8], (Kind::Float, Device::Cpu));
        let normed = block.norm2.forward(&x);
        let both = normed.matmul(&v["mlp.fc1.weight"].tr()) + &v["mlp.fc1.bias"];
        let (gate, value) = (both.narrow(2, 0, 24), both.narrow(2, 24, 24));
        let expected = (&gate / ((-&gate).exp() + 1.0) * value).matmul(&v["mlp.fc2.weight"].tr()) + &v["mlp.fc2.bias"];
        assert!(largest_difference(&block.mlp.forward(&normed), &expected) < 1e-5);
        let attended = &x + block.attn.forward(&block.norm1.forward(&x)) * 0.25;
        let whole = &attended + block.mlp.forward(&block.norm2.forward(&attended)) * 0.25;
        assert!(largest_difference(&block.forward(&x, false), &whole) < 1e-6);
    }
}
