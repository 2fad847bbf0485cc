//! Memory of Python that the pixels of batches are written to, such as pinned memory of PyTorch.

use std::sync::{Arc, Mutex, PoisonError};

use dataset::HostBuffer;
use pyo3::prelude::*;

/// Buffers of equal length in memory that a Python object owns.
pub struct Lending {
    /// Addresses of the buffers that are not in use.
    free: Mutex<Vec<usize>>,
    floats: usize,
    _owner: Py<PyAny>,
}

impl Lending {
    /// `count` buffers of so many floats, from an address on.
    ///
    /// # Safety
    /// The owner keeps as many floats there in place, and nothing else writes to them.
    pub unsafe fn new(address: usize, count: usize, floats: usize, owner: Py<PyAny>) -> Arc<Self> {
        let free = (0..count).map(|index| address + index * floats * size_of::<f32>()).collect();
        Arc::new(Self { free: Mutex::new(free), floats, _owner: owner })
    }

    /// A buffer of at least this length; from the heap where none is left or they are too small.
    pub fn buffer(self: &Arc<Self>, floats: usize) -> Box<dyn HostBuffer> {
        let take = || self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match (floats <= self.floats).then(take).flatten() {
            Some(address) => Box::new(Lent { address, lending: self.clone() }),
            None => Box::new(vec![0.0; floats]),
        }
    }
}

struct Lent {
    address: usize,
    lending: Arc<Lending>,
}

impl HostBuffer for Lent {
    fn as_slice(&self) -> &[f32] {
        // SAFETY: the owner keeps the memory, and only this value uses it.
        unsafe { std::slice::from_raw_parts(self.address as *const f32, self.lending.floats) }
    }

    fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.address as *mut f32, self.lending.floats) }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.lending.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.address);
    }
}
