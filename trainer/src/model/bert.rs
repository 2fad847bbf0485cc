//! The report decoder: BERT (Devlin et al. 2019) with its masked-language-model head, as in transformers 4.17. Without the head
//! it is the text encoder of contrastive objectives.
//!
//! Post-norm layers, exact GELU, an additive mask over keys. The MRM release changes two things: the image's latent is added to
//! every position of the embedding output, and the head's decoder is not tied to the word embedding.
//!
//! Shapes: batch `B`, tokens `S`, embed_dim `H`, vocabulary `V`.

use serde::{Deserialize, Serialize};
use tch::nn::{self, Module};
use tch::{Kind, Tensor};

use crate::error::{MAX_DIM, MAX_LAYERS, MAX_POSITIONS, ModelError, check_heads, check_size, check_table};
use crate::model::layers::{WeightInit, attention, dropout, embedding, layer_norm, linear};

/// Epsilon of every layer normalization in BERT.
const LAYER_NORM_EPSILON: f64 = 1e-12;

/// Added to the attention scores of padding.
const MASKED_SCORE: f64 = -10_000.0;

/// The token id of padding; its word embedding gets no gradient.
pub const PADDING_ID: i64 = 0;

/// Sizes of the report decoder. The default is the MRM release's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BertConfig {
    /// Number of token ids, `V`.
    pub vocab_size: i64,
    /// Length of a token's vector, `H`.
    pub embed_dim: i64,
    /// Number of layers.
    pub num_layers: i64,
    /// Attention heads of a layer; the number divides `embed_dim`.
    pub num_heads: i64,
    /// Width of a layer's MLP between its layers.
    pub intermediate: i64,
    /// The longest sequence.
    pub max_positions: i64,
    /// Number of token types (segments).
    pub type_vocab: i64,
    /// Probability of dropping an activation or an attention weight, in training.
    pub dropout: f64,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30_000,
            embed_dim: 384,
            num_layers: 6,
            num_heads: 6,
            intermediate: 1536,
            max_positions: 100,
            type_vocab: 2,
            dropout: 0.1,
        }
    }
}

impl BertConfig {
    /// Checks the sizes.
    ///
    /// # Errors
    /// When no model can have them.
    pub fn validate(&self) -> Result<(), ModelError> {
        check_size("vocab_size", self.vocab_size, MAX_POSITIONS)?;
        check_size("embed_dim", self.embed_dim, MAX_DIM)?;
        check_size("num_layers", self.num_layers, MAX_LAYERS)?;
        check_size("intermediate", self.intermediate, MAX_POSITIONS)?;
        check_size("max_positions", self.max_positions, MAX_POSITIONS)?;
        check_size("type_vocab", self.type_vocab, MAX_DIM)?;
        check_table("max_positions", self.max_positions, self.embed_dim)?;
        check_heads("num_heads", self.num_heads, self.embed_dim)?;
        if (0.0..1.0).contains(&self.dropout) {
            return Ok(());
        }
        Err(ModelError::config("dropout", format!("must be from 0 to below 1, is {}", self.dropout)))
    }
}

/// A dense layer with dropout, and the layer normalization of its sum with the residual.
#[derive(Debug)]
struct Output {
    dense: nn::Linear,
    norm: nn::LayerNorm,
    dropout: f64,
}

impl Output {
    fn new(path: &nn::Path, inputs: i64, config: &BertConfig) -> Self {
        Self {
            dense: linear(&(path / "dense"), inputs, config.embed_dim, WeightInit::XavierUniform),
            norm: layer_norm(&(path / "LayerNorm"), config.embed_dim, LAYER_NORM_EPSILON),
            dropout: config.dropout,
        }
    }

    /// `[B, S, inputs]` and a residual `[B, S, H]` → `[B, S, H]`.
    fn forward(&self, x: &Tensor, residual: &Tensor, train: bool) -> Tensor {
        let branch = dropout(&self.dense.forward(x), self.dropout, train);
        self.norm.forward(&(branch + residual))
    }
}

/// One post-norm layer.
#[derive(Debug)]
struct Layer {
    query: nn::Linear,
    key: nn::Linear,
    value: nn::Linear,
    attention_output: Output,
    intermediate: nn::Linear,
    output: Output,
    num_heads: i64,
    dropout: f64,
}

impl Layer {
    fn new(path: &nn::Path, config: &BertConfig) -> Self {
        let attention = path / "attention";
        let projection =
            |name| linear(&(&attention / "self" / name), config.embed_dim, config.embed_dim, WeightInit::XavierUniform);
        let intermediate = path / "intermediate" / "dense";
        Self {
            query: projection("query"),
            key: projection("key"),
            value: projection("value"),
            attention_output: Output::new(&(&attention / "output"), config.embed_dim, config),
            intermediate: linear(&intermediate, config.embed_dim, config.intermediate, WeightInit::XavierUniform),
            output: Output::new(&(path / "output"), config.intermediate, config),
            num_heads: config.num_heads,
            dropout: config.dropout,
        }
    }

    /// `[B, S, H]` → `[B, S, H]`; `scores` `[B, 1, S, S]` is added to the attention scores.
    fn forward(&self, x: &Tensor, scores: &Tensor, train: bool) -> Tensor {
        let size = x.size();
        let (batch, tokens, embed_dim) = (size[0], size[1], size[2]);
        let split = |projection: &nn::Linear| {
            let y = projection.forward(x).view([batch, tokens, self.num_heads, embed_dim / self.num_heads]);
            y.transpose(1, 2) // [B, heads, S, H/heads]
        };
        let (q, k, v) = (split(&self.query), split(&self.key), split(&self.value));
        let mixed = attention(&q, &k, &v, scores, self.dropout, train);
        let mixed = mixed.transpose(1, 2).reshape([batch, tokens, embed_dim]);
        let x = self.attention_output.forward(&mixed, x, train);
        self.output.forward(&self.intermediate.forward(&x).gelu("none"), &x, train)
    }
}

/// BERT: embeddings, layers and pooler.
#[derive(Debug)]
pub struct Bert {
    words: nn::Embedding,
    positions: nn::Embedding,
    types: nn::Embedding,
    embedding_norm: nn::LayerNorm,
    layers: Vec<Layer>,
    pooler: nn::Linear,
    dropout: f64,
}

/// The masked-language-model head of BERT.
#[derive(Debug)]
pub struct MlmHead {
    dense: nn::Linear,
    norm: nn::LayerNorm,
    decoder: nn::Linear,
}

impl Bert {
    /// Variables `bert.*` under `path`, named as in transformers.
    ///
    /// The release's state also has the position ids, and a pooler that masked record modeling does not use. The model has
    /// both, so that weights are loaded and exported without a table of names.
    pub fn new(path: &nn::Path, config: &BertConfig) -> Self {
        Self::with_pooler(path, config, Self::pooler(path, config))
    }

    /// BERT and its head, whose variables are `cls.*` under `path`. The release's state has the decoder's bias under a second
    /// name, too.
    pub fn with_head(path: &nn::Path, config: &BertConfig) -> (Self, MlmHead) {
        let (init, embed_dim) = (WeightInit::XavierUniform, config.embed_dim);
        let (cls, transform) = (path / "cls" / "predictions", path / "cls" / "predictions" / "transform");
        // The order of the random initializations is that of all versions, so that a seed gives the same model.
        let pooler = Self::pooler(path, config);
        let decoder = linear(&(&cls / "decoder"), embed_dim, config.vocab_size, init);
        if let Some(bias) = &decoder.bs {
            let _ = cls.add("bias", bias.shallow_clone(), false); // the same parameter, trained under the other name
        }
        let bert = Self::with_pooler(path, config, pooler);
        let head = MlmHead {
            dense: linear(&(&transform / "dense"), embed_dim, embed_dim, init),
            norm: layer_norm(&(&transform / "LayerNorm"), embed_dim, LAYER_NORM_EPSILON),
            decoder,
        };
        (bert, head)
    }

    fn pooler(path: &nn::Path, config: &BertConfig) -> nn::Linear {
        let numbers = Tensor::arange(config.max_positions, (Kind::Int64, path.device())).unsqueeze(0);
        let _ = (path / "bert" / "embeddings").add("position_ids", numbers, false);
        let (init, embed_dim) = (WeightInit::XavierUniform, config.embed_dim);
        linear(&(path / "bert" / "pooler" / "dense"), embed_dim, embed_dim, init)
    }

    fn with_pooler(path: &nn::Path, config: &BertConfig, pooler: nn::Linear) -> Self {
        let (bert, embeddings) = (path / "bert", path / "bert" / "embeddings");
        let embed_dim = config.embed_dim;
        Self {
            words: embedding(&(&embeddings / "word_embeddings"), config.vocab_size, embed_dim, Some(PADDING_ID)),
            positions: embedding(&(&embeddings / "position_embeddings"), config.max_positions, embed_dim, None),
            types: embedding(&(&embeddings / "token_type_embeddings"), config.type_vocab, embed_dim, None),
            embedding_norm: layer_norm(&(&embeddings / "LayerNorm"), embed_dim, LAYER_NORM_EPSILON),
            layers: (0..config.num_layers).map(|i| Layer::new(&(&bert / "encoder" / "layer" / i), config)).collect(),
            pooler,
            dropout: config.dropout,
        }
    }

    /// Embeds a report and adds the image: ids `[B, S]`, types `[B, S]` (none means all 0), latent `[B, H]` (none: the report
    /// alone) → `[B, S, H]`. The latent is added after normalization and dropout; the sum is not normalized.
    pub fn embed(&self, ids: &Tensor, types: Option<&Tensor>, latent: Option<&Tensor>, train: bool) -> Tensor {
        let types = types.map_or_else(|| self.types.ws.narrow(0, 0, 1), |types| self.types.forward(types));
        let positions = self.positions.ws.narrow(0, 0, ids.size()[1]); // [S, H]
        let x = self.words.forward(ids) + types + positions; // [B, S, H]
        let x = dropout(&self.embedding_norm.forward(&x), self.dropout, train);
        latent.map_or_else(|| x.shallow_clone(), |latent| &x + latent.unsqueeze(1))
    }

    /// Runs all layers: `[B, S, H]` → `[B, S, H]`. `attention_mask` `[B, S]` is 1 for tokens and 0 for padding.
    pub fn encode(&self, embedded: Tensor, attention_mask: &Tensor, train: bool) -> Tensor {
        let size = attention_mask.size();
        let (batch, tokens) = (size[0], size[1]);
        let padding: Tensor = 1.0 - attention_mask.to_kind(Kind::Float);
        let scores = (padding * MASKED_SCORE).view([batch, 1, 1, tokens]).expand([batch, 1, tokens, tokens], false);
        self.layers.iter().fold(embedded, |x, layer| layer.forward(&x, &scores, train))
    }

    /// The pooled `[CLS]` of the last layer: `[B, S, H]` → `[B, H]`.
    pub fn pooled(&self, hidden: &Tensor) -> Tensor {
        self.pooler.forward(&hidden.select(1, 0)).tanh()
    }
}

impl MlmHead {
    /// Logits of every token id: `[.., H]` → `[.., V]`.
    pub fn predict(&self, hidden: &Tensor) -> Tensor {
        self.decoder.forward(&self.norm.forward(&self.dense.forward(hidden).gelu("none")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn tiny() -> BertConfig {
        BertConfig {
            vocab_size: 20,
            embed_dim: 8,
            num_layers: 2,
            num_heads: 2,
            intermediate: 16,
            max_positions: 6,
            ..BertConfig::default()
        }
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.size(), b.size());
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn padding_does_not_change_the_tokens_before_it() {
        tch::manual_seed(1);
        let store = nn::VarStore::new(Device::Cpu);
        let (bert, head) = Bert::with_head(&store.root(), &tiny());
        let latent = Tensor::randn([1, 8], (Kind::Float, Device::Cpu));
        let run = |ids: &[i64], mask: &[i64]| {
            let (ids, mask) = (Tensor::from_slice(ids).unsqueeze(0), Tensor::from_slice(mask).unsqueeze(0));
            head.predict(&bert.encode(bert.embed(&ids, None, Some(&latent), false), &mask, false))
        };
        let short = run(&[2, 7, 9], &[1, 1, 1]);
        let padded = run(&[2, 7, 9, 0, 0], &[1, 1, 1, 0, 0]);
        assert!(largest_difference(&padded.narrow(1, 0, 3), &short) < 1e-5);
    }

    #[test]
    fn no_types_means_type_zero() {
        let store = nn::VarStore::new(Device::Cpu);
        let bert = Bert::new(&store.root(), &tiny());
        let ids = Tensor::from_slice(&[2_i64, 3, 4]).unsqueeze(0);
        let latent = Tensor::zeros([1, 8], (Kind::Float, Device::Cpu));
        let zeros = bert.embed(&ids, Some(&ids.zeros_like()), Some(&latent), false);
        assert!(largest_difference(&bert.embed(&ids, None, None, false), &zeros) < 1e-6);
    }

    #[test]
    fn dropout_follows_the_seed_and_is_off_in_evaluation() {
        let store = nn::VarStore::new(Device::Cpu);
        let bert = Bert::new(&store.root(), &tiny());
        let ids = Tensor::from_slice(&[2_i64, 3, 4, 5]).unsqueeze(0);
        let mask = ids.ones_like();
        let run = |seed, train| {
            tch::manual_seed(seed);
            bert.encode(bert.embed(&ids, None, None, train), &mask, train)
        };
        // Other tests draw from the same generator at the same time.
        assert!((0..50).any(|_| largest_difference(&run(1, true), &run(1, true)) == 0.0));
        assert!(largest_difference(&run(1, true), &run(2, true)) > 0.0);
        assert_eq!(largest_difference(&run(1, false), &run(2, false)), 0.0);
    }

    #[test]
    fn both_names_of_the_decoder_bias_are_one_parameter() {
        let store = nn::VarStore::new(Device::Cpu);
        let _ = Bert::with_head(&store.root(), &tiny());
        let variables = store.variables();
        let (one, other) = (&variables["cls.predictions.bias"], &variables["cls.predictions.decoder.bias"]);
        assert_eq!(one.data_ptr(), other.data_ptr());
        assert!(one.requires_grad());
        assert_eq!(variables["bert.embeddings.position_ids"].size(), [1, 6]);
        assert!(variables.contains_key("bert.pooler.dense.weight"));
    }
}
