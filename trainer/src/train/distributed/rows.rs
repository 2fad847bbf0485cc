//! Gathers rows of all ranks for losses that compare every record of a batch with every other one.

use tch::{Device, Kind, Tensor};

use super::group::ProcessGroup;
use crate::error::ModelError;

/// How many rows each rank has, which the ranks have exchanged.
#[derive(Debug)]
pub struct Rows<'a> {
    group: &'a ProcessGroup,
    counts: Vec<i64>,
}

impl ProcessGroup {
    /// Tells all ranks how many rows each has: the first of the collectives with which [`Rows::gather`] is called.
    ///
    /// # Errors
    /// When a process cannot be reached.
    pub fn rows(&self, own: i64) -> Result<Rows<'_>, ModelError> {
        let mut counts = vec![0; self.world_size()];
        counts[self.rank()] = own;
        if self.world_size() > 1 {
            let all = Tensor::from_slice(&counts).to_device(Device::Cpu);
            self.sum(std::slice::from_ref(&all))?;
            counts = Vec::<i64>::try_from(&all)?;
        }
        Ok(Rows { group: self, counts })
    }
}

impl Rows<'_> {
    /// The position of this rank's first row among those of all.
    pub fn start(&self) -> i64 {
        self.counts[..self.group.rank()].iter().sum()
    }

    /// The rows of all ranks, in the order of the ranks: `[n, ...]`, where ranks may have another `n` each → `[Σ n, ...]`.
    ///
    /// Gradients are those of a loss that *every rank computes whole, of the gathered rows*, so that it is the same number on
    /// all: the mean over the ranks of the gradients of its parameters, which training takes, is then the gradient of one
    /// process with all rows. The backward pass calls no collective, so ranks may differ in what their losses depend on. For
    /// losses that are not the same on all ranks there is [`ProcessGroup::gather_with_gradient`].
    ///
    /// # Errors
    /// When a process cannot be reached.
    pub fn gather(&self, rows: &Tensor) -> Result<Tensor, ModelError> {
        let ranks = self.counts.len();
        if ranks == 1 {
            return Ok(rows.shallow_clone());
        }
        let longest = self.counts.iter().copied().max().unwrap_or(0);
        let mut shape = rows.size();
        shape[0] = longest - shape[0];
        let padding = Tensor::f_zeros(shape.as_slice(), (rows.kind(), rows.device()))?;
        let padded = Tensor::f_cat(&[rows.detach(), padding], 0)?;
        let all = self.group.gather_with_gradient(&padded)?; // [world_size · longest, ...], without a gradient
        let mut parts: Vec<Tensor> =
            (0..).zip(&self.counts).map(|(rank, &n)| all.narrow(0, rank * longest, n)).collect();
        parts[self.group.rank()] = scaled(rows, ranks as f64)?;
        Ok(Tensor::f_cat(&parts, 0)?)
    }
}

/// The same values, whose gradients are multiplied by a factor: a rank's rows have their gradient on this rank alone, and the
/// mean over the ranks divides it.
fn scaled(rows: &Tensor, factor: f64) -> Result<Tensor, ModelError> {
    if !rows.requires_grad() || !matches!(rows.kind(), Kind::Float | Kind::Double) {
        return Ok(rows.shallow_clone());
    }
    Ok(rows.f_add(&(rows - rows.detach()).f_mul_scalar(factor - 1.0)?)?)
}
