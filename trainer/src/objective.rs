//! What is trained: the plug between the engine and a task. The engine knows steps, rates and checkpoints; an objective
//! knows its model, its loss and what "better" means.

use anyhow::Result;
use dataset::Batch;
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// The loss of a batch.
pub struct Loss {
    /// What is differentiated, a scalar.
    pub total: Tensor,
    /// Its parts by name, for the log; scalars.
    pub parts: Vec<(&'static str, Tensor)>,
}

/// What an evaluation during training found.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// Higher is better; the weights with the highest one are kept.
    pub score: f64,
    /// Named values for the log.
    pub values: Vec<(String, f64)>,
}

/// A model with a loss. Implement it to train something else with the same engine.
pub trait Objective {
    /// The variables: trained, saved and restored by the engine.
    fn store(&self) -> &VarStore;

    /// The loss of one batch, in training mode. Randomness comes from torch's generator, which the engine seeds.
    fn loss(&self, batch: &Batch) -> Result<Loss>;

    /// Evaluates the present weights; `None` where there is nothing to evaluate on.
    fn evaluate(&self) -> Result<Option<Evaluation>>;
}

/// Pixels of a batch, `[B, 1, S, S]`, on the device.
pub fn images(batch: &Batch, device: Device) -> Tensor {
    let (count, size) = (batch.len() as i64, batch.size() as i64);
    Tensor::from_slice(batch.images()).view([count, 1, size, size]).to_device(device)
}

/// A token table of a batch, `[B, L]`, on the device.
pub fn tokens(batch: &Batch, ids: &[i64], device: Device) -> Tensor {
    Tensor::from_slice(ids).view([batch.len() as i64, batch.tokens() as i64]).to_device(device)
}
