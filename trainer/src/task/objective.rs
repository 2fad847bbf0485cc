//! The interface between the training loop and a task. The loop knows steps, learning rates and checkpoints; an objective
//! knows its model, its loss and its score.

use anyhow::Result;
use dataset::loader::LoaderBuilder;
use dataset::{Batch, HostBuffer};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use crate::torch::shim;
use crate::train::optimizer::{Parameter, parameters};
use crate::train::threads;
use crate::train::timing::sending;

/// The loss of a batch.
pub struct Loss {
    /// The loss to differentiate, a scalar.
    pub total: Tensor,
    /// Parts of the loss by name, for the log; scalars.
    pub parts: Vec<(&'static str, Tensor)>,
    /// Losses of single records, for the log by dataset; empty where they are not known.
    pub by_record: Vec<RecordLosses>,
}

/// The losses of the records of a batch, without gradients. The loss of a dataset is the sum of those of its records, divided by
/// the sum of their counts.
pub struct RecordLosses {
    /// Name in the log.
    pub name: &'static str,
    /// The losses, each times its count: `[B]`.
    pub sums: Tensor,
    /// What they are means over, such as the labels that count: `[B]`.
    pub counts: Tensor,
}

/// The result of an evaluation during training.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// Higher is better; the run keeps the weights with the highest score.
    pub score: f64,
    /// Named values for the log.
    pub values: Vec<(String, f64)>,
}

/// A model with a loss. A [`Task`](super::Task) gives one to the training loop.
pub trait Objective {
    /// The variables, which the loop trains, saves and loads.
    fn store(&self) -> &VarStore;

    /// The trained parameters, with factors on their learning rates; by default every variable with a gradient, with the
    /// factor 1. An objective that freezes a part omits its parameters; one with layer decay sets the factors.
    fn parameters(&self) -> Vec<Parameter> {
        parameters(self.store())
    }

    /// Called before the passes of step `step`, from 0: an objective with schedules of its own takes their values here.
    ///
    /// # Errors
    /// When torch fails.
    fn before_step(&self, step: u64) -> Result<()> {
        let _ = step;
        Ok(())
    }

    /// The weight decay of step `step`, from 0; none: that of [`Training`](super::Training).
    fn weight_decay(&self, step: u64) -> Option<f64> {
        let _ = step;
        None
    }

    /// Called after the optimizer's step `step`, from 0. Variables without a gradient in [`store`](Self::store) are the state of
    /// an objective that is changed here, such as a teacher: checkpoints have them, and all processes start with the main one's.
    /// Where the float scalar `skipped` (on the device) is 1, the step was skipped and nothing may change.
    ///
    /// # Errors
    /// When torch fails, or a process cannot be reached.
    fn after_step(&self, step: u64, skipped: &Tensor) -> Result<()> {
        let _ = (step, skipped);
        Ok(())
    }

    /// The loss of one batch, in training mode. Random numbers come from torch's generator, which the loop seeds for each
    /// step.
    ///
    /// # Errors
    /// When the batch does not fit the model, or torch fails.
    fn loss(&self, batch: &Batch) -> Result<Loss>;

    /// The loss in two parts, for passes that are captured once and repeated (`run.cuda_graph`); none where the objective has
    /// no such form.
    fn staged(&self) -> Option<&dyn Staged> {
        None
    }

    /// Evaluates the present weights; `None` without records to evaluate on.
    ///
    /// # Errors
    /// When a record cannot be read, or torch fails.
    fn evaluate(&self) -> Result<Option<Evaluation>>;
}

/// A loss whose computation depends on the shapes of its inputs alone: the same operations in the same order, and no value
/// that the host reads or sends. [`Objective::loss`] is the same loss up to rounding.
pub trait Staged {
    /// Sends what the loss of a batch needs to the device, as new tensors in a fixed order. Batches differ in few shapes. None
    /// for a batch that has to be computed by [`Objective::loss`].
    ///
    /// # Errors
    /// When torch fails.
    fn stage(&self, batch: &Batch) -> Result<Option<Vec<Tensor>>>;

    /// The loss of the tensors that [`stage`](Self::stage) gives, in training mode.
    ///
    /// # Errors
    /// When the tensors do not fit the model, or torch fails.
    fn loss_of(&self, inputs: &[Tensor]) -> Result<Loss>;
}

/// Pixels of a batch, `[B, 1, S, S]`, of studies `[B·V, 1, S, S]`, on the device.
pub fn images(batch: &Batch, device: Device) -> Tensor {
    let shape = [(batch.len() * batch.slots()) as i64, 1, batch.size() as i64, batch.size() as i64];
    let borrowed = tensor_over(batch.images(), &shape);
    // Always a copy, since the loader writes to this memory again. On CUDA it is the only copy, from pinned memory
    // (`loader_for`), and asynchronous: the batch must exist until the device has read it, as `step::Stepper` ensures.
    sending(|| borrowed.to_device_(device, Kind::Float, device.is_cuda(), true))
}

/// A group of crops of a batch on the device, crop by crop: `[n·B, 1, S, S]`, the first crops of all images before the second
/// ones; none where the loader makes no such group.
pub fn crops(batch: &Batch, group: usize, device: Device) -> Option<Tensor> {
    let (count, side) = batch.crop_shapes().nth(group)?;
    let shape = [batch.len() as i64, count as i64, 1, side as i64, side as i64];
    let borrowed = tensor_over(batch.crops(group), &shape);
    // Always a copy, as of `images`.
    let sent = sending(|| borrowed.to_device_(device, Kind::Float, device.is_cuda(), true));
    Some(sent.transpose(0, 1).flatten(0, 1))
}

/// A tensor over borrowed memory, which must outlive it.
fn tensor_over(floats: &[f32], shape: &[i64]) -> Tensor {
    assert_eq!(shape.iter().product::<i64>(), floats.len() as i64, "as many floats as the shape says");
    let strides: Vec<i64> = (0..shape.len()).map(|axis| shape[axis + 1..].iter().product()).collect();
    // SAFETY: the memory holds as many floats as the shape says, and is only read; the tensor is dropped within the
    // caller's borrow of it.
    unsafe { Tensor::from_blob(floats.as_ptr().cast::<u8>(), shape, &strides, Kind::Float, Device::Cpu) }
}

/// A loader for a device. For CUDA it writes pixels into pinned memory.
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

/// Memory that a loader writes to: a contiguous tensor of floats on the host.
struct TensorMemory(Tensor);

impl HostBuffer for TensorMemory {
    fn as_slice(&self) -> &[f32] {
        // SAFETY: the tensor has so many contiguous floats on the host, and lives as long as the borrow.
        unsafe { std::slice::from_raw_parts(self.0.data_ptr().cast::<f32>(), self.0.numel()) }
    }

    fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above; the borrow of this tensor is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.0.data_ptr().cast::<f32>(), self.0.numel()) }
    }
}

/// A token table of a batch, `[B, L]`, on the device.
pub fn tokens(batch: &Batch, ids: &[i64], device: Device) -> Tensor {
    send(&Tensor::from_slice(ids).view([batch.len() as i64, batch.tokens() as i64]), device)
}

/// A copy in pinned memory; if no more can be pinned, the tensor itself, whose transfer is slower.
fn pinned(tensor: &Tensor) -> Tensor {
    shim::pin(tensor).unwrap_or_else(|_| tensor.shallow_clone())
}

/// A small host tensor on the device; for CUDA through pinned memory, so that the host does not wait.
pub fn send(tensor: &Tensor, device: Device) -> Tensor {
    sending(|| {
        if device.is_cuda() {
            pinned(tensor).to_device_(device, tensor.kind(), true, false)
        } else {
            tensor.to_device(device)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loader_may_write_to_a_tensor_whose_pixels_are_not_copied() {
        let mut memory = TensorMemory(Tensor::zeros([24], (Kind::Float, Device::Cpu)));
        memory.as_mut_slice().iter_mut().zip(0u8..).for_each(|(float, value)| *float = value.into());
        let borrowed = tensor_over(&memory.as_slice()[..12], &[2, 1, 2, 3]);
        assert_eq!(borrowed.data_ptr(), memory.0.data_ptr(), "no copy");
        assert_eq!(borrowed.double_value(&[1, 0, 1, 2]), 11.0);
        assert!(borrowed.is_contiguous());
    }
}
