//! Batches at any position, without threads.

use std::sync::{Mutex, PoisonError};

use crate::error::Result;
use crate::loader::batch::Batch;
use crate::loader::buffers::BufferPool;
use crate::loader::plan::{Plan, Scratch};
use crate::loader::state::LoaderState;

/// Buffers that are kept for the next batch.
const KEPT: usize = 16;

/// Makes single batches at any position, on the caller's thread: the same ones that a [`Loader`](crate::Loader) with the same
/// settings gives there. With batches of one record in the order of the rows, it is a map from positions to samples.
///
/// Made by [`LoaderBuilder::random_access`](crate::loader::LoaderBuilder::random_access). It can be shared by threads.
pub struct RandomAccess {
    pub(crate) plan: Plan,
    pool: BufferPool,
    scratch: Mutex<Vec<Scratch>>,
}

impl RandomAccess {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { plan, pool: BufferPool::new(KEPT), scratch: Mutex::default() }
    }

    /// Batches of an epoch.
    pub fn batches(&self) -> u64 {
        self.plan.batches
    }

    /// Batch `number` of an epoch.
    ///
    /// # Errors
    /// When an epoch has no such batch, or a record of the batch cannot be read.
    pub fn batch(&self, epoch: u64, number: u64) -> Result<Batch> {
        let index = self.plan.position(&LoaderState { epoch, batch: number, ..LoaderState::default() })?;
        let kept = || self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = kept().pop().unwrap_or_default();
        let mut buffers = self.pool.take();
        self.plan.make(index, self.plan.fetch(index)?, &mut buffers, &mut scratch)?;
        let mut kept = kept();
        if kept.len() < KEPT {
            kept.push(scratch);
        }
        Ok(self.plan.batch(buffers, index, &self.pool))
    }
}
