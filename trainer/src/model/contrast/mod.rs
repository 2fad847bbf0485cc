//! Image–text contrast beside masked record modeling: the encoder's visible patches and the pooled `[CLS]` of BERT are projected
//! to vectors of one length, and pairs of an image and its report are told from other pairs. Equations: docs/objectives.md.
//!
//! The model contains [`Mrm`], whose variables keep their names, so that its runs can be used wherever those of masked record
//! modeling are. Where reports are reconstructed, too, the same BERT reads them: masked and with the image for the
//! reconstruction, whole and alone for the contrast (as FLAVA's text encoder, Singh et al. 2022).
//!
//! Shapes: images `I`, patches `L`, visible patches `K`, embed_dim `D`; reports `R`, tokens `S`; vectors of length `P`; pairs
//! `M`.

mod losses;

use std::rc::Rc;

use tch::nn::{self, Module};
use tch::{Kind, Tensor};

use crate::error::{ModelError, check_shape};
use crate::model::bert::Bert;
use crate::model::layers::{WeightInit, linear, unit_vectors};
use crate::model::mrm::{ContrastConfig, ContrastLoss, Mrm, MrmConfig, bert_path};

pub use losses::{PairLoss, info_nce, pairwise_sigmoid, weighted_info_nce};

/// The model.
#[derive(Debug)]
pub struct ContrastModel {
    config: ContrastConfig,
    mrm: Mrm,
    bert: Rc<Bert>,
    image_projection: nn::Linear,
    text_projection: nn::Linear,
    /// Logarithm of the factor on similarities, a scalar.
    logit_scale: Tensor,
    /// `siglip`: added to the logits, a scalar.
    logit_bias: Option<Tensor>,
    /// From which patches are visible to the weight of a pair, before its softplus: `L` → 1.
    correlation: Option<nn::Linear>,
}

impl ContrastModel {
    /// A randomly initialized model, its variables under `path` (the store's root, so that encoders load).
    ///
    /// # Errors
    /// When no model has this configuration, or it has no section `contrast`.
    pub fn new(path: &nn::Path, config: &MrmConfig) -> Result<Self, ModelError> {
        let Some(contrast) = config.contrast.clone() else {
            return Err(ModelError::config("contrast", "this model has no contrast of images and reports"));
        };
        let mrm = Mrm::new(path, config)?;
        let bert = mrm.bert().map_or_else(|| Rc::new(Bert::new(&bert_path(path), &config.bert)), Rc::clone);
        let projection = |name, inputs| linear(&(path / name), inputs, contrast.projection, WeightInit::XavierUniform);
        let scalar =
            |name, value: f64, trained| path.add(name, Tensor::from(value as f32).to_device(path.device()), trained);
        // Weights and bias of zero: all pairs count alike at first, as in MaCo's code.
        let correlation = contrast.correlation.then(|| {
            let path = path / "correlation";
            nn::Linear { ws: path.zeros("weight", &[1, config.vit.patches()]), bs: Some(path.zeros("bias", &[1])) }
        });
        Ok(Self {
            image_projection: projection("image_projection", config.vit.embed_dim),
            text_projection: projection("text_projection", config.bert.embed_dim),
            logit_scale: scalar("logit_scale", -contrast.temperature.ln(), contrast.learn_temperature),
            logit_bias: (contrast.loss == ContrastLoss::Siglip)
                .then(|| scalar("logit_bias", contrast.logit_bias, true)),
            correlation,
            config: contrast,
            bert,
            mrm,
        })
    }

    /// Length of the vectors that are compared, `P`.
    pub fn vector_length(&self) -> i64 {
        self.config.projection
    }

    /// The encoder and the decoders.
    pub fn mrm(&self) -> &Mrm {
        &self.mrm
    }

    /// The encoder and the decoders, to choose how they compute.
    pub fn mrm_mut(&mut self) -> &mut Mrm {
        &mut self.mrm
    }

    /// Lowers the factor on similarities to the largest one of `clip`, where a step has made it larger. To be called before a
    /// forward pass.
    ///
    /// # Errors
    /// When torch fails.
    pub fn limit_scale(&self) -> Result<(), ModelError> {
        if self.config.loss == ContrastLoss::Clip {
            let mut scale = self.logit_scale.shallow_clone();
            let _ = tch::no_grad(|| scale.f_clamp_max_(ContrastConfig::MAX_SCALE.ln()))?;
        }
        Ok(())
    }

    /// The temperature, a scalar without a gradient.
    pub fn temperature(&self) -> Tensor {
        (-self.logit_scale.detach()).exp()
    }

    /// Vectors of images, of length 1: the encoder's tokens `[I, 1 + K, D]` → the projected mean of the patches, `[I, P]`, in
    /// float32.
    ///
    /// # Errors
    /// When the tokens have the wrong shape.
    pub fn image_vectors(&self, latent: &Tensor) -> Result<Tensor, ModelError> {
        check_shape("latent", latent, &[-1, -1, self.mrm.config().vit.embed_dim])?;
        let patches = latent.narrow(1, 1, latent.size()[1] - 1).mean_dim([1_i64].as_slice(), false, None); // [I, D]
        Ok(unit_vectors(&self.image_projection.forward(&patches)))
    }

    /// Vectors of reports, of length 1: token ids and attention mask (1 for tokens, 0 for padding) `[R, S]` → the projected
    /// pooled `[CLS]`, `[R, P]`, in float32.
    ///
    /// # Errors
    /// When the ids have the wrong shape or are too many.
    pub fn text_vectors(&self, ids: &Tensor, attention_mask: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        check_shape("ids", ids, &[-1, -1])?;
        check_shape("attention_mask", attention_mask, &ids.size())?;
        let (reports, tokens) = ids.size2()?;
        let longest = self.mrm.config().bert.max_positions;
        if tokens > longest {
            let expected = format!("at most {longest} tokens");
            return Err(ModelError::Shape { tensor: "ids".to_owned(), expected, got: ids.size() });
        }
        if reports == 0 {
            return Ok(Tensor::f_zeros([0, self.config.projection], (Kind::Float, ids.device()))?);
        }
        let embedded = self.bert.embed(ids, None, None, train);
        let hidden = self.bert.encode(embedded, attention_mask, train); // [R, S, H]
        Ok(unit_vectors(&self.text_projection.forward(&self.bert.pooled(&hidden))))
    }

    /// MaCo's correlation weights: which patches are masked, `[I, L]` (0 visible, 1 masked) → the softplus of a linear function
    /// of the visible ones, `[I]`; none where the model has no such weights.
    pub fn correlation_weights(&self, mask: &Tensor) -> Option<Tensor> {
        let linear = self.correlation.as_ref()?;
        Some(linear.forward(&(1.0 - mask)).squeeze_dim(1).to_kind(Kind::Float).softplus())
    }

    /// The loss of pairs: vectors of images and of reports, `[M, P]` each, with correlation weights `[M]` where the model has
    /// them. `keys` `[M]` (Int64) are equal for pairs with the same report, which are no negatives of one another. Without a
    /// pair the loss is 0.
    ///
    /// # Errors
    /// When the tensors have other shapes.
    pub fn pair_loss(
        &self,
        images: &Tensor,
        texts: &Tensor,
        weights: Option<&Tensor>,
        keys: &Tensor,
    ) -> Result<PairLoss, ModelError> {
        let pairs = keys.size()[0];
        check_shape("images", images, &[pairs, self.config.projection])?;
        check_shape("texts", texts, &[pairs, self.config.projection])?;
        if pairs == 0 {
            // A sum over nothing has a gradient, which is zero.
            return Ok(PairLoss {
                total: images.sum(Kind::Float) + texts.sum(Kind::Float),
                each: keys.to_kind(Kind::Float),
            });
        }
        // In float64, which autocast leaves alone: of bfloat16, a scale of 100 would leave errors of 0.4.
        let [images, texts] = [images, texts].map(|vectors| vectors.to_kind(Kind::Double));
        let similarities = images.matmul(&texts.transpose(0, 1)).to_kind(Kind::Float); // [M, M]
        let scaled = similarities * self.logit_scale.exp();
        let logits = self.logit_bias.as_ref().map_or_else(|| scaled.shallow_clone(), |bias| &scaled + bias);
        let others = Tensor::f_eye(pairs, (Kind::Float, keys.device()))?.eq(0.0);
        let left_out = keys.unsqueeze(0).eq_tensor(&keys.unsqueeze(1)).logical_and(&others);
        Ok(match (self.config.loss, weights) {
            (ContrastLoss::Siglip, _) => pairwise_sigmoid(&logits, &left_out),
            (ContrastLoss::Clip, Some(weights)) => weighted_info_nce(&logits, &left_out, weights),
            (ContrastLoss::Clip, None) => info_nce(&logits, &left_out),
        })
    }
}

#[cfg(test)]
mod tests;
