//! AdamW and SGD with momentum, with a state that can be saved: what tch's own optimisers cannot do.
//!
//! The update rules are PyTorch's. A parameter without a gradient is skipped whole: no update, no decay, no step
//! counted. tch 0.24 binds neither fused nor multi-tensor kernels, hence the loop over parameters.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::error::{ModelError, check_shape};

/// Added to the gradient norm when gradients are clipped (`torch.nn.utils.clip_grad_norm_`).
const CLIP_EPSILON: f64 = 1e-6;

/// An update rule and its constants.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum Algorithm {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019): `w -= lr · decay · w` before the update.
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

impl Algorithm {
    /// The release's pre-training optimiser: AdamW with betas 0.9 and 0.95.
    pub const PRETRAINING: Self = Self::AdamW { beta1: 0.9, beta2: 0.95, epsilon: 1e-8 };

    /// The release's fine-tuning optimiser: SGD with momentum 0.9.
    pub const FINE_TUNING: Self = Self::Sgd { momentum: 0.9 };

    /// The tensors of a parameter's state, by PyTorch's names.
    fn buffers(self) -> &'static [&'static str] {
        match self {
            Self::AdamW { .. } => &["exp_avg", "exp_avg_sq"],
            Self::Sgd { .. } => &["momentum_buffer"],
        }
    }
}

/// Name of the count of a parameter's updates in a saved state.
const STEP: &str = "step";

/// Whether weight decay applies to a parameter: not to biases, norms and whatever else has one dimension.
pub fn decays(name: &str, shape: &[i64]) -> bool {
    shape.len() > 1 && name.rsplit('.').next() != Some("bias")
}

/// A trained tensor and how it is treated.
#[derive(Debug)]
pub struct Parameter {
    /// Its name in the checkpoint.
    pub name: String,
    /// The tensor itself, shared with the model.
    pub tensor: Tensor,
    /// Whether weight decay applies; see [`decays`].
    pub decays: bool,
    /// Factor on the learning rate, for layer decay; 1 at the start.
    pub rate_scale: f64,
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
        Parameter { name, tensor, decays, rate_scale: 1.0 }
    };
    variables.into_iter().map(parameter).collect()
}

/// Layer-wise rate decay (BEiT, MAE's fine-tuning): the factor on the rate of a vision transformer's parameter.
///
/// What stands after the blocks has 1, block `i` of `depth` has `decay^(depth - i)`, tokens, positions and the patch
/// projection have `decay^(depth + 1)`. Names are timm's.
pub fn layer_rate(name: &str, depth: i64, decay: f64) -> f64 {
    let layer = match name.split('.').collect::<Vec<_>>().as_slice() {
        ["blocks", block, ..] => block.parse().map_or(depth + 1, |block: i64| block + 1),
        ["cls_token" | "pos_embed" | "patch_embed", ..] => 0,
        _ => depth + 1,
    };
    decay.powi((depth + 1 - layer) as i32)
}

/// The state of one parameter: updates so far, and the algorithm's buffers, each of the parameter's shape.
#[derive(Debug)]
struct State {
    step: i64,
    buffers: Vec<Tensor>,
}

/// An optimiser over named parameters.
#[derive(Debug)]
pub struct Optimiser {
    algorithm: Algorithm,
    weight_decay: f64,
    parameters: Vec<Parameter>,
    states: Vec<Option<State>>, // one a parameter, from its first update on
}

impl Optimiser {
    /// An optimiser that has not made a step.
    pub fn new(algorithm: Algorithm, weight_decay: f64, parameters: Vec<Parameter>) -> Self {
        let states = parameters.iter().map(|_| None).collect();
        Self { algorithm, weight_decay, parameters, states }
    }

    /// The parameters, in the order they were given.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Sets all gradients to zero.
    pub fn zero_grad(&mut self) {
        for parameter in &mut self.parameters {
            parameter.tensor.zero_grad();
        }
    }

    /// Updates every parameter that has a gradient, at learning rate `rate` times its own factor.
    ///
    /// # Errors
    /// When torch fails.
    pub fn step(&mut self, rate: f64) -> Result<(), ModelError> {
        let _guard = tch::no_grad_guard();
        for (parameter, state) in self.parameters.iter_mut().zip(&mut self.states) {
            let gradient = parameter.tensor.f_grad()?;
            if !gradient.defined() {
                continue;
            }
            let rate = rate * parameter.rate_scale;
            let decay = if parameter.decays { self.weight_decay } else { 0.0 };
            let state = state.get_or_insert_with(|| State::new(self.algorithm, &parameter.tensor));
            state.step += 1;
            match self.algorithm {
                Algorithm::AdamW { beta1, beta2, epsilon } => {
                    let step = AdamStep { rate, decay, beta1, beta2, epsilon };
                    step.apply(&mut parameter.tensor, &gradient, state)?;
                }
                Algorithm::Sgd { momentum } => {
                    let buffer = &mut state.buffers[0];
                    let _ = buffer.f_mul_scalar_(momentum)?.f_add_(&gradient)?;
                    if decay != 0.0 {
                        let _ = buffer.f_add_(&(&parameter.tensor * decay))?;
                    }
                    let _ = parameter.tensor.f_sub_(&(&*buffer * rate))?;
                }
            }
        }
        Ok(())
    }

    /// The L2 norm of all gradients together, a scalar; zero where there are none.
    ///
    /// # Errors
    /// When torch fails.
    pub fn grad_norm(&self) -> Result<Tensor, ModelError> {
        norm_of(&self.gradients()?)
    }

    /// Scales all gradients so that their norm is at most `most`, by `most / (norm + 1e-6)` capped at 1. Returns the norm
    /// before; on an accelerator nothing waits for it.
    ///
    /// # Errors
    /// When torch fails.
    pub fn clip_grad_norm(&mut self, most: f64) -> Result<Tensor, ModelError> {
        let _guard = tch::no_grad_guard();
        let mut gradients = self.gradients()?;
        let norm = norm_of(&gradients)?;
        let factor = (norm.f_add_scalar(CLIP_EPSILON)?.f_reciprocal()? * most).f_clamp_max(1.0)?;
        for gradient in &mut gradients {
            let _ = gradient.f_mul_(&factor)?;
        }
        Ok(norm)
    }

    /// The gradients there are.
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
    /// (Int64, one value). Parameters never updated have none. The tensors are shared with the optimiser, not copied.
    pub fn save_state(&self) -> Vec<(String, Tensor)> {
        let mut tensors = Vec::new();
        for (parameter, state) in self.parameters.iter().zip(&self.states) {
            let Some(state) = state else { continue };
            for (buffer, tensor) in self.algorithm.buffers().iter().zip(&state.buffers) {
                tensors.push((format!("{buffer}.{}", parameter.name), tensor.shallow_clone()));
            }
            tensors.push((format!("{STEP}.{}", parameter.name), Tensor::from_slice(&[state.step])));
        }
        tensors
    }

    /// Takes over a state that [`save_state`](Self::save_state) gave. A parameter without a `step` counts as never
    /// updated. On an error the optimiser stays as it was.
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
            for buffer in self.algorithm.buffers() {
                let name = format!("{buffer}.{}", parameter.name);
                let tensor = saved.get(&name).ok_or_else(|| ModelError::MissingState { name: name.clone() })?;
                check_shape(&name, tensor, &parameter.tensor.size())?;
                let mut own = parameter.tensor.detach().f_zeros_like()?;
                own.f_copy_(tensor)?;
                buffers.push(own);
            }
            check_shape(STEP, step, &[1])?;
            states.push(Some(State { step: step.f_int64_value(&[0])?, buffers }));
        }
        self.states = states;
        Ok(())
    }
}

impl State {
    fn new(algorithm: Algorithm, parameter: &Tensor) -> Self {
        let zeros = || parameter.detach().zeros_like();
        Self { step: 0, buffers: algorithm.buffers().iter().map(|_| zeros()).collect() }
    }
}

/// The constants of one AdamW update.
struct AdamStep {
    rate: f64,
    decay: f64,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
}

impl AdamStep {
    /// `w ← w·(1 - rate·decay) - rate·m̂ / (√v̂ + ε)`, with both corrections of the start drawn into two numbers.
    fn apply(&self, parameter: &mut Tensor, gradient: &Tensor, state: &mut State) -> Result<(), ModelError> {
        let [mean, square] = state.buffers.as_mut_slice() else {
            return Ok(());
        }; // AdamW always has two
        let correction1 = 1.0 - self.beta1.powf(state.step as f64);
        let correction2 = (1.0 - self.beta2.powf(state.step as f64)).sqrt();
        if self.decay != 0.0 {
            let _ = parameter.f_mul_scalar_(1.0 - self.rate * self.decay)?;
        }
        let _ = mean.f_lerp_(gradient, 1.0 - self.beta1)?;
        let _ = square.f_lerp_(&gradient.f_square()?, 1.0 - self.beta2)?;
        let denominator = square.f_sqrt()?.f_add_scalar_(self.epsilon * correction2)?;
        let numerator = &*mean * (-self.rate * correction2 / correction1);
        let _ = parameter.f_addcdiv_(&numerator, &denominator)?;
        Ok(())
    }
}

/// The L2 norm of several tensors together.
fn norm_of(tensors: &[Tensor]) -> Result<Tensor, ModelError> {
    if tensors.is_empty() {
        return Ok(Tensor::from(0.0_f32));
    }
    let norms: Vec<Tensor> =
        tensors.iter().map(|tensor| tensor.f_norm()?.f_to_kind(Kind::Float)).collect::<Result<_, _>>()?;
    Ok(Tensor::f_stack(&norms, 0)?.f_norm()?)
}

#[cfg(test)]
mod tests;
