//! How the gradients of the ranks become those of the whole batch.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::group::ProcessGroup;
use super::watchdog::Activity;
use crate::error::ModelError;
use crate::torch::c10d::{C10dError, Reducer};
use crate::torch::shim;
use crate::train::optimizer::Parameter;

/// Largest size of a bucket of gradients: the default of `DistributedDataParallel`.
const BUCKET_BYTES: usize = 25 << 20;

/// The methods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncKind {
    /// Buckets, each summed as soon as its gradients are there, while the backward pass continues.
    #[default]
    Buckets,
    /// All gradients at once, after the backward pass.
    Coalesced,
}

/// Averages gradients over the ranks. In a run of one process it does nothing.
pub struct GradientSync {
    group: ProcessGroup,
    parameters: Vec<Tensor>,
    reducer: Option<Reducer>,
}

impl GradientSync {
    /// For these parameters, which all ranks have in the same order.
    ///
    /// # Errors
    /// When the ranks have other parameters.
    pub fn new(kind: SyncKind, group: &ProcessGroup, parameters: &[Parameter]) -> Result<Self, ModelError> {
        let parameters: Vec<Tensor> = parameters.iter().map(|parameter| parameter.tensor.shallow_clone()).collect();
        let reducer = match kind {
            SyncKind::Buckets => group.reducer(&parameters, BUCKET_BYTES)?,
            SyncKind::Coalesced => None,
        };
        Ok(Self { group: group.clone(), parameters, reducer })
    }

    /// For a run of one process.
    pub fn single() -> Self {
        Self { group: ProcessGroup::single(), parameters: Vec::new(), reducer: None }
    }

    /// The factor on the loss of each rank.
    pub fn loss_factor(&self) -> f64 {
        // The reducer divides gradients by the number of ranks itself.
        if self.reducer.is_some() { 1.0 } else { 1.0 / self.group.world_size() as f64 }
    }

    /// To be called before the forward pass of a step's last micro-batch.
    ///
    /// # Errors
    /// When a process cannot be reached.
    pub fn before_forward(&self) -> Result<(), ModelError> {
        Ok(self.reducer.as_ref().map_or(Ok(()), Reducer::before_forward)?)
    }

    /// Computes the gradients of a loss; with `is_last`, those of the last micro-batch of a step.
    ///
    /// # Errors
    /// When a process cannot be reached.
    pub fn backward(&self, loss: &Tensor, is_last: bool) -> Result<(), ModelError> {
        match &self.reducer {
            Some(reducer) if is_last => {
                reducer.before_backward(loss)?;
                let _waiting = self.group.during(Activity::Waiting);
                loss.f_backward().map_err(of_reducer)?;
            }
            _ => loss.f_backward()?,
        }
        Ok(())
    }

    /// After the last micro-batch: every gradient becomes that of the whole batch, and `values` (floats on the parameters'
    /// device) the mean over the ranks.
    ///
    /// # Errors
    /// When a process cannot be reached.
    pub fn finish(&self, values: &Tensor) -> Result<(), ModelError> {
        if self.group.world_size() == 1 {
            return Ok(());
        }
        let _guard = tch::no_grad_guard();
        let mut values = values.shallow_clone();
        let _ = values.f_div_scalar_(self.group.world_size() as f64)?;
        let mut all = vec![values];
        if self.reducer.is_none() {
            all.extend(self.gradients()?);
        }
        self.group.sum(&all)
    }

    /// The gradients that any rank has. Where this rank has none, zeros take their place: all ranks sum the same list. A
    /// parameter without a gradient on any rank keeps none, and the optimizer skips it.
    fn gradients(&self) -> Result<Vec<Tensor>, ModelError> {
        let own: Vec<i32> = self.parameters.iter().map(|parameter| i32::from(parameter.grad().defined())).collect();
        let defined = Tensor::from_slice(&own).to_device(Device::Cpu);
        self.group.sum(std::slice::from_ref(&defined))?;
        let defined = Vec::<i32>::try_from(&defined)?;
        let mut gradients = Vec::with_capacity(self.parameters.len());
        for (parameter, _) in self.parameters.iter().zip(defined).filter(|(_, ranks)| *ranks > 0) {
            if !parameter.grad().defined() {
                shim::set_gradient(parameter, &parameter.detach().f_zeros_like()?)?;
            }
            gradients.push(parameter.grad().to_kind(Kind::Float));
        }
        Ok(gradients)
    }
}

/// An error of a backward pass in which the reducer exchanges gradients.
fn of_reducer(error: tch::TchError) -> ModelError {
    let text = error.to_string();
    let is_lost =
        ["gloo", "nccl", "peer", "socket", "connection"].iter().any(|word| text.to_lowercase().contains(word));
    if is_lost { C10dError::new(text.lines().next().unwrap_or_default()).into() } else { error.into() }
}
