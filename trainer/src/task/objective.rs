//! What is trained: the plug between the engine and a task. The engine knows steps, rates and checkpoints; an objective
//! knows its model, its loss and what "better" means.

use anyhow::Result;
use dataset::loader::LoaderBuilder;
use dataset::{Batch, HostBuffer};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::torch::shim;
use crate::train::optimizer::{Parameter, parameters};
use crate::train::threads;

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

    /// What is trained, in which order and at which share of the rate: every variable with a gradient, at the full rate.
    /// An objective that freezes a part leaves its parameters out; one with layer decay scales their rates.
    fn parameters(&self) -> Vec<Parameter> {
        parameters(self.store())
    }

    /// The loss of one batch, in training mode. Randomness comes from torch's generator, which the engine seeds.
    fn loss(&self, batch: &Batch) -> Result<Loss>;

    /// Evaluates the present weights; `None` where there is nothing to evaluate on.
    fn evaluate(&self) -> Result<Option<Evaluation>>;
}

/// Pixels of a batch, `[B, 1, S, S]`, on the device.
pub fn images(batch: &Batch, device: Device) -> Tensor {
    let shape = [batch.len() as i64, 1, batch.size() as i64, batch.size() as i64];
    let lent = lend(batch.images(), &shape);
    // A copy in any case: the loader writes to this memory again. To a CUDA device it is the only one, since the loader
    // wrote into pinned memory (`loader_for`), and nobody waits for it: the batch must be kept until the device has come
    // past it, as `step::Stepper` does.
    lent.to_device_(device, Kind::Float, device.is_cuda(), true)
}

/// A tensor over memory of somebody else, which must outlive it.
fn lend(floats: &[f32], shape: &[i64]) -> Tensor {
    assert_eq!(shape.iter().product::<i64>(), floats.len() as i64, "as many floats as the shape says");
    let strides: Vec<i64> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
    // SAFETY: the memory holds as many floats as the shape says, and is only read; the tensor is dropped within the
    // caller's borrow of it.
    unsafe { Tensor::from_blob(floats.as_ptr().cast::<u8>(), shape, &strides, Kind::Float, Device::Cpu) }
}

/// A loader whose batches go to a device. For CUDA it writes pixels into pinned memory, from where they are sent.
pub fn loader_for(device: Device, builder: LoaderBuilder) -> LoaderBuilder {
    let builder = builder.threads(threads::of_loader(device));
    if !device.is_cuda() {
        return builder;
    }
    builder.memory(|floats| {
        let zeros = Tensor::zeros([floats as i64], (Kind::Float, Device::Cpu));
        Box::new(TensorMemory(pinned(&zeros)))
    })
}

/// A contiguous tensor of floats on the host, as memory that a loader writes to.
struct TensorMemory(Tensor);

impl HostBuffer for TensorMemory {
    fn as_slice(&self) -> &[f32] {
        // SAFETY: the tensor has so many contiguous floats on the host, and lives as long as the borrow.
        unsafe { std::slice::from_raw_parts(self.0.data_ptr().cast::<f32>(), self.0.numel()) }
    }

    fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above; nobody else has this tensor.
        unsafe { std::slice::from_raw_parts_mut(self.0.data_ptr().cast::<f32>(), self.0.numel()) }
    }
}

/// A token table of a batch, `[B, L]`, on the device.
pub fn tokens(batch: &Batch, ids: &[i64], device: Device) -> Tensor {
    send(&Tensor::from_slice(ids).view([batch.len() as i64, batch.tokens() as i64]), device)
}

/// A copy in pinned memory; where no more can be pinned, the tensor itself, which is sent slower.
fn pinned(tensor: &Tensor) -> Tensor {
    shim::pin(tensor).unwrap_or_else(|_| tensor.shallow_clone())
}

/// A small host tensor on the device; for CUDA by way of pinned memory, so that nobody waits.
pub fn send(tensor: &Tensor, device: Device) -> Tensor {
    if !device.is_cuda() {
        return tensor.to_device(device);
    }
    pinned(tensor).to_device_(device, tensor.kind(), true, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loader_may_write_to_a_tensor_and_its_pixels_are_lent_as_they_lie() {
        let mut memory = TensorMemory(Tensor::zeros([24], (Kind::Float, Device::Cpu)));
        memory.as_mut_slice().iter_mut().zip(0u8..).for_each(|(float, value)| *float = value.into());
        let lent = lend(&memory.as_slice()[..12], &[2, 1, 2, 3]);
        assert_eq!(lent.data_ptr(), memory.0.data_ptr(), "no copy");
        assert_eq!(lent.double_value(&[1, 0, 1, 2]), 11.0);
        assert!(lent.is_contiguous());
    }
}
