//! The processes of a run, and the collectives that a task may call.

use std::rc::Rc;

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::failure;
use super::join::{self, Agreement, Joined, Timeouts};
use super::launcher::Launch;
use super::watchdog::Activity;
use crate::error::ModelError;
use crate::torch::c10d::{C10dError, Group, Reducer};

/// The processes of a run. A run of one process has a group of its own, whose collectives return at once. A clone is the same
/// group.
///
/// In a collective, each process waits for all others: every rank must call the same ones in the same order, with tensors of
/// the same shapes and kinds. All ranks get the same bits, and the same ones in every run of as many processes.
#[derive(Clone, Default)]
pub struct ProcessGroup(Option<Rc<Members>>);

struct Members {
    rank: usize,
    world_size: usize,
    /// Dropped in this order: no collective may run when the connections end.
    joined: Joined,
}

/// Where a run computes.
#[derive(Clone, Debug)]
pub struct Compute {
    /// The device of this process.
    pub device: Device,
    /// The processes that train together.
    pub group: ProcessGroup,
}

impl Compute {
    /// One process on a device.
    pub fn on(device: Device) -> Self {
        Self { device, group: ProcessGroup::single() }
    }
}

impl std::fmt::Debug for ProcessGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "rank {} of {}", self.rank(), self.world_size())
    }
}

impl ProcessGroup {
    /// One process.
    pub fn single() -> Self {
        Self(None)
    }

    /// Joins the processes that a launcher has started. Tensors on CUDA devices travel by NCCL where each process has a device
    /// of its own (`own_device`), else by Gloo.
    ///
    /// # Errors
    /// When a process is missing, or differs in something that all must agree on.
    pub fn join(
        launch: &Launch,
        device: Device,
        own_device: bool,
        agreement: &Agreement,
        timeouts: Timeouts,
        notify: &dyn Fn(&str),
    ) -> Result<Self> {
        let joined = join::join(launch, device, device.is_cuda() && own_device, agreement, timeouts, notify)?;
        failure::watch(&joined.watchdog.job);
        let group = Self(Some(Rc::new(Members { rank: launch.rank, world_size: launch.world_size, joined })));
        group.barrier()?;
        Ok(group)
    }

    /// Number of this process, from 0.
    pub fn rank(&self) -> usize {
        self.0.as_ref().map_or(0, |members| members.rank)
    }

    /// Number of processes.
    pub fn world_size(&self) -> usize {
        self.0.as_ref().map_or(1, |members| members.world_size)
    }

    /// Whether this is rank 0, which alone writes files and messages.
    pub fn is_main(&self) -> bool {
        self.rank() == 0
    }

    /// Replaces each tensor by the sum of those of all ranks. All are of one kind, on one device.
    ///
    /// # Errors
    /// When a process cannot be reached.
    pub fn sum(&self, tensors: &[Tensor]) -> Result<(), ModelError> {
        self.collective((), |group| group.sum(tensors))
    }

    /// The sum of the tensors of all ranks, through which gradients flow: for `y = Σ x_r`, the gradient of `x_r` is the sum of
    /// the ranks' gradients of `y`.
    ///
    /// # Errors
    /// When a process cannot be reached.
    pub fn sum_with_gradient(&self, tensor: &Tensor) -> Result<Tensor, ModelError> {
        self.collective(tensor.shallow_clone(), |group| group.sum_with_gradient(tensor))
    }

    /// The tensors of all ranks, which have one shape, in the order of the ranks: `[N, ...]` → `[world_size · N, ...]`.
    /// Gradients flow to each rank's own tensor from the losses of all ranks. Contrastive losses need it.
    ///
    /// # Errors
    /// When a process cannot be reached.
    pub fn gather_with_gradient(&self, tensor: &Tensor) -> Result<Tensor, ModelError> {
        let gathered = self.collective(tensor.unsqueeze(0), |group| group.gather_with_gradient(tensor))?;
        Ok(gathered.flatten(0, 1))
    }

    /// `sum / count` over all ranks, where each gives its own sum and its own count (scalars; a count of 0 in all is taken as 1): a
    /// scalar whose mean over the ranks is the mean of the whole batch. Gradients flow through the sum.
    ///
    /// # Errors
    /// When a process cannot be reached.
    pub fn mean(&self, sum: &Tensor, count: &Tensor) -> Result<Tensor, ModelError> {
        if self.0.is_none() {
            return Ok(sum / above_zero(count));
        }
        let all = count.detach().to_kind(Kind::Float).copy();
        self.sum(std::slice::from_ref(&all))?;
        Ok(sum * self.world_size() as f64 / above_zero(&all))
    }

    /// Whether this holds for any rank.
    ///
    /// # Errors
    /// When a process cannot be reached.
    pub fn any(&self, here: bool) -> Result<bool, ModelError> {
        if self.0.is_none() {
            return Ok(here);
        }
        let flag = Tensor::from(i32::from(here));
        self.sum(std::slice::from_ref(&flag))?;
        Ok(flag.int64_value(&[]) > 0)
    }

    /// Replaces each tensor by that of rank 0.
    ///
    /// # Errors
    /// When a process cannot be reached.
    pub fn broadcast(&self, tensors: &[Tensor]) -> Result<(), ModelError> {
        self.collective((), |group| group.broadcast(tensors, 0))
    }

    /// The bytes that rank 0 gives.
    ///
    /// # Errors
    /// When a process cannot be reached.
    pub fn broadcast_bytes(&self, bytes: &[u8]) -> Result<Vec<u8>, ModelError> {
        if self.0.is_none() {
            return Ok(bytes.to_vec());
        }
        let length = Tensor::from(if self.is_main() { bytes.len() as i64 } else { 0 });
        self.broadcast(std::slice::from_ref(&length))?;
        let content = if self.is_main() {
            Tensor::from_slice(bytes)
        } else {
            Tensor::f_zeros([length.int64_value(&[])], (Kind::Uint8, Device::Cpu))?
        };
        self.broadcast(std::slice::from_ref(&content))?;
        Ok(Vec::<u8>::try_from(&content)?)
    }

    /// Returns when all ranks have called it.
    ///
    /// # Errors
    /// When a process cannot be reached.
    pub fn barrier(&self) -> Result<(), ModelError> {
        self.any(false).map(drop)
    }

    /// A reducer of gradients; none in a run of one process.
    pub(super) fn reducer(&self, parameters: &[Tensor], bucket_bytes: usize) -> Result<Option<Reducer>, ModelError> {
        self.collective(None, |group| Reducer::new(group, parameters, bucket_bytes).map(Some))
    }

    /// Notes what this process does until the returned value is dropped.
    pub fn during(&self, activity: Activity) -> During<'_> {
        let before = self.0.as_ref().map(|members| members.joined.watchdog.job.set(activity));
        During { group: self, before }
    }

    /// Ends the connections, after all ranks have called it.
    ///
    /// # Errors
    /// When a process cannot be reached.
    pub fn leave(&self) -> Result<(), ModelError> {
        self.barrier()?;
        if let Some(members) = &self.0 {
            members.joined.watchdog.job.leave();
            members.joined.group.shutdown()?;
        }
        Ok(())
    }

    /// Calls a collective; the watchdog knows that this process waits.
    fn collective<T>(&self, alone: T, call: impl FnOnce(&Group) -> Result<T, C10dError>) -> Result<T, ModelError> {
        let Some(members) = &self.0 else { return Ok(alone) };
        let _waiting = self.during(Activity::Waiting);
        Ok(call(&members.joined.group)?)
    }
}

/// A count, with 1 in place of 0.
fn above_zero(count: &Tensor) -> Tensor {
    count + count.eq(0.0).to_kind(count.kind())
}

/// What a process does until this is dropped; then it does again what it did before.
pub struct During<'a> {
    group: &'a ProcessGroup,
    before: Option<Activity>,
}

impl Drop for During<'_> {
    fn drop(&mut self) {
        if let (Some(members), Some(before)) = (&self.group.0, self.before) {
            members.joined.watchdog.job.set(before);
        }
    }
}
