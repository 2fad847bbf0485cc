//! Safe functions over PyTorch's c10d (`c10d.cpp`, `nccl.cpp`): the store by which the processes of a job find each other,
//! collectives over their tensors, and the gradient reducer of `DistributedDataParallel`.

use std::ffi::{CString, c_char, c_int, c_void};
use std::time::Duration;

use tch::{Device, Tensor};
use torch_sys::C_tensor;

use super::error_text;

/// Whether this program was built with NCCL, which CUDA devices exchange gradients by.
pub const HAS_NCCL: bool = cfg!(cuda);

type Tensors = *const *mut C_tensor;

unsafe extern "C" {
    fn mrm_store_open(
        host: *const c_char,
        port: u16,
        serves: c_int,
        world: c_int,
        timeout: i64,
        prefix: *const c_char,
        out: *mut *mut c_void,
    ) -> *mut c_char;
    fn mrm_store_set(store: *mut c_void, key: *const c_char, value: *const u8, length: usize) -> *mut c_char;
    fn mrm_store_has(store: *mut c_void, key: *const c_char, has: *mut c_int) -> *mut c_char;
    fn mrm_store_get(store: *mut c_void, key: *const c_char, value: *mut *mut u8, length: *mut usize) -> *mut c_char;
    fn mrm_store_share(store: *mut c_void) -> *mut c_void;
    fn mrm_store_drop(store: *mut c_void);
    fn mrm_group_join(
        store: *mut c_void,
        rank: c_int,
        world: c_int,
        timeout: i64,
        for_cuda: c_int,
        out: *mut *mut c_void,
    ) -> *mut c_char;
    #[cfg(cuda)]
    fn mrm_group_add_nccl(group: *mut c_void, device: c_int) -> *mut c_char;
    fn mrm_group_sum(group: *mut c_void, tensors: Tensors, count: usize) -> *mut c_char;
    fn mrm_group_broadcast(group: *mut c_void, tensors: Tensors, count: usize, root: c_int) -> *mut c_char;
    fn mrm_group_sum_with_gradient(group: *mut c_void, tensor: *const C_tensor, out: *mut C_tensor) -> *mut c_char;
    fn mrm_group_gather_with_gradient(group: *mut c_void, tensor: *const C_tensor, out: *mut C_tensor) -> *mut c_char;
    fn mrm_group_shutdown(group: *mut c_void) -> *mut c_char;
    fn mrm_group_drop(group: *mut c_void);
    fn mrm_reducer_new(
        group: *mut c_void,
        tensors: Tensors,
        count: usize,
        bucket_bytes: i64,
        out: *mut *mut c_void,
    ) -> *mut c_char;
    fn mrm_reducer_before_forward(reducer: *mut c_void) -> *mut c_char;
    fn mrm_reducer_before_backward(reducer: *mut c_void, loss: *const C_tensor) -> *mut c_char;
    fn mrm_reducer_drop(reducer: *mut c_void);
    fn free(pointer: *mut c_void);
}

/// An error of c10d: a peer that cannot be reached, a timeout, tensors that do not fit.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct C10dError(String);

impl C10dError {
    /// An error with this message.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Turns the error text of a call into an error.
fn checked(error: *mut c_char) -> Result<(), C10dError> {
    let Some(text) = error_text::take(error) else { return Ok(()) };
    // torch begins some messages with the place in its source.
    let text = text.strip_prefix('[').and_then(|rest| rest.split_once("] ")).map_or(text.as_str(), |(_, text)| text);
    Err(C10dError::new(text))
}

fn text(value: &str) -> Result<CString, C10dError> {
    CString::new(value).map_err(|_| C10dError::new(format!("`{value}` contains a zero byte")))
}

fn pointers(tensors: &[Tensor]) -> Vec<*mut C_tensor> {
    tensors.iter().map(|tensor| tensor.as_ptr().cast_mut()).collect()
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A key-value store in one of the processes, which all of them reach (c10d's `TCPStore`).
#[derive(Debug)]
pub struct Store(*mut c_void);

// SAFETY: `TCPStore` locks its connection in every call.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Connects to the store at `host:port`, or serves it there. Waits up to `timeout` for the server. Keys begin with `prefix`.
    ///
    /// # Errors
    /// When the port is taken, or there is no server.
    pub fn open(
        host: &str,
        port: u16,
        serves: bool,
        world_size: usize,
        prefix: &str,
        timeout: Duration,
    ) -> Result<Self, C10dError> {
        let (host, prefix) = (text(host)?, text(prefix)?);
        let (mut store, serves, world) = (std::ptr::null_mut(), c_int::from(serves), world_size as c_int);
        let timeout = milliseconds(timeout);
        // SAFETY: both texts live through the call, and the last pointer is valid for one write.
        checked(unsafe {
            mrm_store_open(host.as_ptr(), port, serves, world, timeout, prefix.as_ptr(), &raw mut store)
        })?;
        Ok(Self(store))
    }

    /// Writes a value.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), C10dError> {
        let key = text(key)?;
        // SAFETY: key and value live through the call.
        checked(unsafe { mrm_store_set(self.0, key.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// The value of a key, if there is one.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, C10dError> {
        let key = text(key)?;
        let mut has = 0;
        // SAFETY: the key lives through the call, and the last pointer is valid for one write.
        checked(unsafe { mrm_store_has(self.0, key.as_ptr(), &raw mut has) })?;
        if has == 0 {
            return Ok(None);
        }
        let (mut value, mut length) = (std::ptr::null_mut(), 0);
        // SAFETY: as above.
        checked(unsafe { mrm_store_get(self.0, key.as_ptr(), &raw mut value, &raw mut length) })?;
        // SAFETY: c10d.cpp returns so many bytes from `malloc`, which the caller must free.
        let copied = unsafe {
            let copied = std::slice::from_raw_parts(value, length).to_vec();
            free(value.cast());
            copied
        };
        Ok(Some(copied))
    }
}

impl Store {
    /// Another handle to the same connection; the server lives as long as the last one.
    #[must_use]
    pub fn share(&self) -> Self {
        // SAFETY: the store lives through the call, which makes a handle of its own.
        Self(unsafe { mrm_store_share(self.0) })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: `open` made it, and it is dropped once; a group holds a reference of its own.
        unsafe { mrm_store_drop(self.0) }
    }
}

/// The processes of a job (c10d's `ProcessGroup`): tensors on the CPU travel by Gloo, tensors on CUDA devices by NCCL, or by
/// Gloo where several processes share a device.
#[derive(Debug)]
pub struct Group(*mut c_void);

impl Group {
    /// Connects this process, as `rank`, with all others. Each collective fails after `timeout`. With `nccl`, tensors on
    /// `device` travel by NCCL.
    ///
    /// # Errors
    /// When another process cannot be reached, or NCCL cannot be used.
    pub fn join(
        store: &Store,
        rank: usize,
        world_size: usize,
        device: Device,
        nccl: bool,
        timeout: Duration,
    ) -> Result<Self, C10dError> {
        let (rank, world, timeout) = (rank as c_int, world_size as c_int, milliseconds(timeout));
        let by_gloo = c_int::from(device.is_cuda() && !nccl);
        let mut group = std::ptr::null_mut();
        // SAFETY: the store lives through the call, and the last pointer is valid for one write.
        checked(unsafe { mrm_group_join(store.0, rank, world, timeout, by_gloo, &raw mut group) })?;
        let group = Self(group);
        if nccl {
            group.add_nccl(device)?;
        }
        Ok(group)
    }

    #[cfg(cuda)]
    fn add_nccl(&self, device: Device) -> Result<(), C10dError> {
        let Device::Cuda(index) = device else { return Ok(()) };
        // SAFETY: the group lives through the call.
        checked(unsafe { mrm_group_add_nccl(self.0, index as c_int) })
    }

    #[cfg(not(cuda))]
    #[expect(clippy::unused_self, reason = "the signature with NCCL")]
    fn add_nccl(&self, _device: Device) -> Result<(), C10dError> {
        Err(C10dError::new("this program was built without NCCL"))
    }

    /// Replaces each tensor by the sum of those of all ranks. The ranks give lists of the same shapes, of one kind, on the
    /// group's device or on the CPU. All ranks get the same bits.
    ///
    /// # Errors
    /// When a process cannot be reached, or the lists do not fit.
    pub fn sum(&self, tensors: &[Tensor]) -> Result<(), C10dError> {
        let list = pointers(tensors);
        // SAFETY: the tensors live through the call.
        checked(unsafe { mrm_group_sum(self.0, list.as_ptr(), list.len()) })
    }

    /// Replaces each tensor by that of rank `root`.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    pub fn broadcast(&self, tensors: &[Tensor], root: usize) -> Result<(), C10dError> {
        let list = pointers(tensors);
        // SAFETY: the tensors live through the call.
        checked(unsafe { mrm_group_broadcast(self.0, list.as_ptr(), list.len(), root as c_int) })
    }

    /// The sum of the tensors of all ranks, through which gradients flow.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    pub fn sum_with_gradient(&self, tensor: &Tensor) -> Result<Tensor, C10dError> {
        let mut sum = Tensor::new();
        // SAFETY: the tensor lives through the call, and `sum` is a valid handle to write to.
        checked(unsafe { mrm_group_sum_with_gradient(self.0, tensor.as_ptr(), sum.as_mut_ptr()) })?;
        Ok(sum)
    }

    /// The tensors of all ranks, which have the same shape, stacked: `[...]` → `[world_size, ...]`. Gradients flow to each
    /// rank's own tensor.
    ///
    /// # Errors
    /// As [`sum`](Self::sum).
    pub fn gather_with_gradient(&self, tensor: &Tensor) -> Result<Tensor, C10dError> {
        let mut gathered = Tensor::new();
        // SAFETY: the tensor lives through the call, and `gathered` is a valid handle to write to.
        checked(unsafe { mrm_group_gather_with_gradient(self.0, tensor.as_ptr(), gathered.as_mut_ptr()) })?;
        Ok(gathered)
    }

    /// Ends the connections; a process calls it before it exits without an error.
    ///
    /// # Errors
    /// When a backend fails.
    pub fn shutdown(&self) -> Result<(), C10dError> {
        // SAFETY: the group lives through the call.
        checked(unsafe { mrm_group_shutdown(self.0) })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: `join` made it, and it is dropped once.
        unsafe { mrm_group_drop(self.0) }
    }
}

/// Averages gradients over the ranks while the backward pass is still running (c10d's `Reducer`, the engine of
/// `DistributedDataParallel`).
#[derive(Debug)]
pub struct Reducer(*mut c_void);

impl Reducer {
    /// A reducer of these leaf tensors, the same on all ranks, in buckets of at most `bucket_bytes`.
    ///
    /// # Errors
    /// When the ranks have other tensors, or cannot be reached.
    pub fn new(group: &Group, parameters: &[Tensor], bucket_bytes: usize) -> Result<Self, C10dError> {
        let list = pointers(parameters);
        let mut reducer = std::ptr::null_mut();
        // SAFETY: group and tensors live through the call; the reducer keeps references of its own.
        checked(unsafe { mrm_reducer_new(group.0, list.as_ptr(), list.len(), bucket_bytes as i64, &raw mut reducer) })?;
        Ok(Self(reducer))
    }

    /// To be called before the last forward pass of a step.
    ///
    /// # Errors
    /// When a rank cannot be reached.
    pub fn before_forward(&self) -> Result<(), C10dError> {
        // SAFETY: the reducer lives through the call.
        checked(unsafe { mrm_reducer_before_forward(self.0) })
    }

    /// To be called before the backward pass of that forward pass's loss; after it, each gradient is the mean over the ranks.
    ///
    /// # Errors
    /// When torch fails.
    pub fn before_backward(&self, loss: &Tensor) -> Result<(), C10dError> {
        // SAFETY: reducer and tensor live through the call.
        checked(unsafe { mrm_reducer_before_backward(self.0, loss.as_ptr()) })
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: `new` made it, and it is dropped once.
        unsafe { mrm_reducer_drop(self.0) }
    }
}
