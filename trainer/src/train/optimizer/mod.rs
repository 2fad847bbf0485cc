//! AdamW and SGD with momentum, with a state that can be saved, which tch's own optimizers lack.
//!
//! The formulas are PyTorch's; its fused kernels compute them. A parameter without a gradient is skipped: no change, no
//! weight decay, no step counted. The device decides whether a whole step is skipped, so the host need not wait for it.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::error::{ModelError, check_shape};
use crate::torch::shim::{self, AdamConstants, AdamTensors};

/// Added to the gradient norm when gradients are clipped (`torch.nn.utils.clip_grad_norm_`).
const CLIP_EPSILON: f64 = 1e-6;

/// The optimizers that a configuration can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// SGD with momentum 0.9: the recipe's optimizer for fine-tuning.
    Sgd,
    /// AdamW with torch's constants.
    AdamW,
}

impl OptimizerKind {
    /// The constants of this optimizer in fine-tuning.
    pub fn config(self) -> OptimizerConfig {
        match self {
            Self::Sgd => OptimizerConfig::FINE_TUNING,
            Self::AdamW => OptimizerConfig::ADAMW,
        }
    }
}

/// An optimizer and its constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OptimizerConfig {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019): `w -= lr · decay · w` before Adam's step.
    AdamW {
        /// Decay of the mean of gradients.
        beta1: f64,
        /// Decay of the mean of squared gradients.
        beta2: f64,
        /// Added to the root of the second mean.
        epsilon: f64,
    },
    /// Stochastic gradient descent with momentum, no dampening; weight decay is added to the gradient.
    Sgd {
        /// Decay of the accumulated gradient.
        momentum: f64,
    },
}

impl OptimizerConfig {
    /// The release's pre-training optimizer: AdamW with betas 0.9 and 0.95.
    pub const PRETRAINING: Self = Self::AdamW { beta1: 0.9, beta2: 0.95, epsilon: 1e-8 };

    /// The release's fine-tuning optimizer: SGD with momentum 0.9.
    pub const FINE_TUNING: Self = Self::Sgd { momentum: 0.9 };

    /// AdamW with torch's constants.
    pub const ADAMW: Self = Self::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

    /// The tensors of a parameter's state, by PyTorch's names.
    fn buffers(self) -> &'static [&'static str] {
        match self {
            Self::AdamW { .. } => &["exp_avg", "exp_avg_sq"],
            Self::Sgd { .. } => &["momentum_buffer"],
        }
    }
}

/// Name of the count of a parameter's steps in a saved state.
const STEP: &str = "step";

/// Whether weight decay applies to a parameter: not to biases, norms and other tensors of one dimension.
pub fn decays(name: &str, shape: &[i64]) -> bool {
    shape.len() > 1 && name.rsplit('.').next() != Some("bias")
}

/// A trained tensor, and how the optimizer treats it.
#[derive(Debug)]
pub struct Parameter {
    /// Its name in the checkpoint.
    pub name: String,
    /// The tensor itself, shared with the model.
    pub tensor: Tensor,
    /// Whether weight decay applies; see [`decays`].
    pub decays: bool,
    /// Factor on the learning rate, for layer decay; 1 by default.
    pub lr_scale: f64,
}

/// The trained parameters of a store, sorted by name. A parameter with two names is listed once, under the first.
pub fn parameters(store: &VarStore) -> Vec<Parameter> {
    let mut variables: Vec<(String, Tensor)> =
        store.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad()).collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    let mut seen = std::collections::HashSet::new();
    variables.retain(|(_, tensor)| seen.insert(tensor.data_ptr()));
    let parameter = |(name, tensor): (String, Tensor)| {
        let decays = decays(&name, &tensor.size());
        Parameter { name, tensor, decays, lr_scale: 1.0 }
    };
    variables.into_iter().map(parameter).collect()
}

/// Layer-wise lr decay (BEiT, MAE's fine-tuning): the factor on the lr of a vision transformer's parameter.
///
/// Parameters after the blocks have 1, block `i` of `num_layers` has `decay^(num_layers - i)`; tokens, positions and the
/// patch projection have `decay^(num_layers + 1)`. Names are timm's.
pub fn layer_lr_scale(name: &str, num_layers: i64, decay: f64) -> f64 {
    let layer = match name.split('.').collect::<Vec<_>>().as_slice() {
        ["blocks", block, ..] => block.parse().map_or(num_layers + 1, |block: i64| block + 1),
        ["cls_token" | "pos_embed" | "reg_token" | "patch_embed" | "norm_pre", ..] => 0,
        _ => num_layers + 1,
    };
    decay.powi((num_layers + 1 - layer) as i32)
}

/// The state of one parameter: its number of steps (a float scalar on its device), and the optimizer's buffers, each of
/// the parameter's shape.
#[derive(Debug)]
struct State {
    step: Tensor,
    buffers: Vec<Tensor>,
}

/// The trained parameters of a store around a vision transformer of `num_layers` blocks, each with its
/// [`layer_lr_scale`].
pub fn decayed_parameters(store: &VarStore, num_layers: i64, decay: f64) -> Vec<Parameter> {
    let mut all = parameters(store);
    for parameter in &mut all {
        parameter.lr_scale = layer_lr_scale(&parameter.name, num_layers, decay);
    }
    all
}

/// What the names of parameters beside the encoder begin with: heads, necks, and the norm before a linear head.
const HEADS: [&str; 5] = ["head", "fc_norm", "neck", "decode_head", "auxiliary_head"];

/// Whether a parameter of a fine-tuned model is the encoder's.
pub fn is_of_encoder(name: &str) -> bool {
    !HEADS.contains(&name.split('.').next().unwrap_or_default())
}

/// As [`decayed_parameters`], with `encoder_scale` as a further factor on the learning rate of the encoder's parameters
/// ([`is_of_encoder`]): BenchX's discriminative learning rates.
pub fn encoder_and_head(store: &VarStore, num_layers: i64, decay: f64, encoder_scale: f64) -> Vec<Parameter> {
    let mut all = decayed_parameters(store, num_layers, decay);
    for parameter in all.iter_mut().filter(|parameter| is_of_encoder(&parameter.name)) {
        parameter.lr_scale *= encoder_scale;
    }
    all
}

/// Parameters with the same lr factor and decay: their positions, and their gradients.
type Group = ((f64, bool), Vec<(usize, Tensor)>);

/// An optimizer over named parameters.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    weight_decay: f64,
    parameters: Vec<Parameter>,
    states: Vec<Option<State>>, // one a parameter, from its first step on
}

impl Optimizer {
    /// An optimizer without a state.
    pub fn new(config: OptimizerConfig, weight_decay: f64, parameters: Vec<Parameter>) -> Self {
        let states = parameters.iter().map(|_| None).collect();
        Self { config, weight_decay, parameters, states }
    }

    /// Sets the weight decay of the next steps.
    pub fn set_weight_decay(&mut self, weight_decay: f64) {
        self.weight_decay = weight_decay;
    }

    /// The parameters, in the order they were given.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Drops all gradients.
    ///
    /// # Errors
    /// When torch fails.
    pub fn drop_gradients(&mut self) -> Result<(), ModelError> {
        shim::drop_gradients(self.parameters.iter().map(|parameter| &parameter.tensor))
    }

    /// Makes a step of every parameter that has a gradient, with `lr` times the parameter's own factor. If the float scalar
    /// `skip` (on the parameters' device) is 1, nothing changes.
    ///
    /// # Errors
    /// When torch fails.
    pub fn step(&mut self, lr: f64, skip: Option<&Tensor>) -> Result<(), ModelError> {
        let mut groups: Vec<Group> = Vec::new();
        for (index, (parameter, state)) in self.parameters.iter().zip(&mut self.states).enumerate() {
            let gradient = parameter.tensor.f_grad()?;
            if !gradient.defined() {
                continue;
            }
            if state.is_none() {
                *state = Some(State::new(self.config, &parameter.tensor)?);
            }
            let key = (parameter.lr_scale, parameter.decays);
            match groups.iter_mut().find(|(known, _)| *known == key) {
                Some((_, members)) => members.push((index, gradient)),
                None => groups.push((key, vec![(index, gradient)])),
            }
        }
        for ((scale, decays), members) in &groups {
            let decay = if *decays { self.weight_decay } else { 0.0 };
            let member = |(index, gradient): &'_ (usize, Tensor)| {
                let state = self.states[*index].as_ref()?;
                Some((&self.parameters[*index].tensor, gradient.shallow_clone(), state))
            };
            let members: Vec<(&Tensor, Tensor, &State)> = members.iter().filter_map(member).collect();
            let buffer = |at: usize| members.iter().map(|member| &member.2.buffers[at]).collect::<Vec<_>>();
            match self.config {
                OptimizerConfig::AdamW { beta1, beta2, epsilon } => shim::fused_adamw(
                    &AdamTensors {
                        parameters: members.iter().map(|member| member.0).collect(),
                        gradients: members.iter().map(|member| &member.1).collect(),
                        means: buffer(0),
                        squares: buffer(1),
                        steps: members.iter().map(|member| &member.2.step).collect(),
                    },
                    AdamConstants { lr: lr * scale, beta1, beta2, decay, epsilon },
                    skip,
                )?,
                OptimizerConfig::Sgd { momentum } => {
                    let tensors: Vec<_> = members
                        .iter()
                        .map(|(parameter, gradient, state)| (*parameter, gradient, &state.buffers[0]))
                        .collect();
                    shim::fused_sgd(&tensors, lr * scale, momentum, decay, skip)?;
                }
            }
        }
        Ok(())
    }

    /// Multiplies all gradients by `unscale` (a float scalar on their device; none means 1), then clips their norm to `most`
    /// by the factor `most / (norm + 1e-6)`, at most 1; a `most` of 0 means no clipping. Returns the L2 norm of all
    /// gradients together before clipping, a scalar on the device; the host does not wait for it.
    ///
    /// # Errors
    /// When torch fails.
    pub fn clip_grad_norm(&mut self, most: f64, unscale: Option<&Tensor>) -> Result<Tensor, ModelError> {
        let _guard = tch::no_grad_guard();
        let gradients = self.gradients()?;
        if gradients.is_empty() {
            return Ok(Tensor::from(0.0_f32));
        }
        let mut norm = shim::norm(&gradients)?;
        let mut factor = unscale.map(Tensor::shallow_clone);
        if let Some(unscale) = unscale {
            norm = norm.f_mul(unscale)?;
        }
        if most > 0.0 {
            let limit = (norm.f_add_scalar(CLIP_EPSILON)?.f_reciprocal()? * most).f_clamp_max(1.0)?;
            factor = Some(match factor {
                Some(factor) => factor.f_mul(&limit)?,
                None => limit,
            });
        }
        if let Some(factor) = factor {
            shim::scale(&gradients, &factor)?;
        }
        Ok(norm)
    }

    /// The gradients of the parameters that have one.
    fn gradients(&self) -> Result<Vec<Tensor>, ModelError> {
        let mut gradients = Vec::with_capacity(self.parameters.len());
        for parameter in &self.parameters {
            let gradient = parameter.tensor.f_grad()?;
            if gradient.defined() {
                gradients.push(gradient);
            }
        }
        Ok(gradients)
    }

    /// The state as named tensors: `exp_avg.NAME` and `exp_avg_sq.NAME`, or `momentum_buffer.NAME`, and `step.NAME`
    /// (Int64, one value). Parameters without a step have none. The tensors are shared with the optimizer, not copied.
    pub fn save_state(&self) -> Vec<(String, Tensor)> {
        let mut tensors = Vec::new();
        for (parameter, state) in self.parameters.iter().zip(&self.states) {
            let Some(state) = state else { continue };
            for (buffer, tensor) in self.config.buffers().iter().zip(&state.buffers) {
                tensors.push((format!("{buffer}.{}", parameter.name), tensor.shallow_clone()));
            }
            let step = state.step.to_kind(Kind::Int64).to_device(Device::Cpu).view([1]);
            tensors.push((format!("{STEP}.{}", parameter.name), step));
        }
        tensors
    }

    /// Loads a state that [`save_state`](Self::save_state) returned. A parameter without a `step` counts as one without a
    /// step so far. On an error the optimizer keeps the state it had.
    ///
    /// # Errors
    /// When a buffer is missing or has another shape than its parameter.
    pub fn load_state(&mut self, saved: Vec<(String, Tensor)>) -> Result<(), ModelError> {
        let saved: HashMap<String, Tensor> = saved.into_iter().collect();
        let mut states = Vec::with_capacity(self.parameters.len());
        for parameter in &self.parameters {
            let Some(step) = saved.get(&format!("{STEP}.{}", parameter.name)) else {
                states.push(None);
                continue;
            };
            let mut buffers = Vec::new();
            for buffer in self.config.buffers() {
                let name = format!("{buffer}.{}", parameter.name);
                let tensor = saved.get(&name).ok_or_else(|| ModelError::MissingState { name: name.clone() })?;
                check_shape(&name, tensor, &parameter.tensor.size())?;
                let mut own = parameter.tensor.detach().f_zeros_like()?;
                own.f_copy_(tensor)?;
                buffers.push(own);
            }
            check_shape(STEP, step, &[1])?;
            let step = step.f_get(0)?.f_to_kind(Kind::Float)?.f_to_device(parameter.tensor.device())?;
            states.push(Some(State { step, buffers }));
        }
        self.states = states;
        Ok(())
    }
}

impl State {
    fn new(config: OptimizerConfig, parameter: &Tensor) -> Result<Self, ModelError> {
        let zeros = || parameter.detach().f_zeros_like();
        let buffers = config.buffers().iter().map(|_| zeros()).collect::<Result<_, _>>()?;
        Ok(Self { step: Tensor::f_zeros([], (Kind::Float, parameter.device()))?, buffers })
    }
}

#[cfg(test)]
mod tests;
