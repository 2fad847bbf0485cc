//! CUDA graphs: work of a device that is recorded once and repeated with one call, instead of one call per kernel.
//!
//! A repetition reads and writes the memory that the recorded work has read and written. Random numbers continue from the
//! seed and the offset that the device's default generator has at the call.

#[cfg(cuda)]
use std::ffi::{c_char, c_int, c_void};

#[cfg(cuda)]
use super::checked;
use crate::error::ModelError;

/// Whether this program was built with CUDA graphs.
pub(crate) const HAS_CUDA_GRAPHS: bool = cfg!(cuda);

#[cfg(cuda)]
unsafe extern "C" {
    fn mrm_graph_new(device: c_int, graph: *mut *mut c_void) -> *mut c_char;
    fn mrm_graph_enter(graph: *mut c_void) -> *mut c_char;
    fn mrm_graph_leave(graph: *mut c_void) -> *mut c_char;
    fn mrm_graph_begin(graph: *mut c_void, other: *mut c_void) -> *mut c_char;
    fn mrm_graph_end(graph: *mut c_void) -> *mut c_char;
    fn mrm_graph_replay(graph: *mut c_void) -> *mut c_char;
    fn mrm_graph_drop(graph: *mut c_void);
}

/// A graph of one device, with a stream of its own to record on.
#[cfg(cuda)]
#[derive(Debug)]
pub(crate) struct CudaGraph(*mut c_void);

/// What ends when it is dropped, also after an error or a panic.
#[cfg(cuda)]
struct Ending<'a>(&'a CudaGraph, unsafe extern "C" fn(*mut c_void) -> *mut c_char);

#[cfg(cuda)]
impl Ending<'_> {
    fn end(self) -> Result<(), ModelError> {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: the graph lives as long as the borrow.
        checked(unsafe { this.1(this.0.0) })
    }
}

#[cfg(cuda)]
impl Drop for Ending<'_> {
    fn drop(&mut self) {
        // SAFETY: as above. The first error is the one that counts.
        let _ = checked(unsafe { self.1(self.0.0) });
    }
}

#[cfg(cuda)]
impl CudaGraph {
    /// An empty graph of the device with this index.
    ///
    /// # Errors
    /// When there is no such device.
    pub(crate) fn new(index: usize) -> Result<Self, ModelError> {
        let mut graph = std::ptr::null_mut();
        // SAFETY: the pointer is valid for one write.
        checked(unsafe { mrm_graph_new(index as c_int, &raw mut graph) })?;
        Ok(Self(graph))
    }

    /// Runs `body` on the stream of the graph, after the work of the current stream and before its later work.
    ///
    /// # Errors
    /// That of `body`, or when torch fails.
    pub(crate) fn beside<T, E: From<ModelError>>(&self, body: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        // SAFETY: the graph lives as long as `self`.
        checked(unsafe { mrm_graph_enter(self.0) })?;
        let ending = Ending(self, mrm_graph_leave);
        let result = body()?;
        ending.end()?;
        Ok(result)
    }

    /// Records the work of `body`, which is not done; to be called [`beside`](Self::beside) other work. Its memory is of a pool
    /// that belongs to the graph and to `other`: what it gives is valid until one of them is repeated.
    ///
    /// # Errors
    /// That of `body`, or when torch fails, such as for work that cannot be recorded.
    pub(crate) fn record<T, E: From<ModelError>>(
        &self,
        other: Option<&Self>,
        body: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        // SAFETY: both graphs live through the call.
        checked(unsafe { mrm_graph_begin(self.0, other.map_or(std::ptr::null_mut(), |graph| graph.0)) })?;
        let ending = Ending(self, mrm_graph_end);
        let result = body()?;
        ending.end()?;
        Ok(result)
    }

    /// Repeats the recorded work on the current stream.
    ///
    /// # Errors
    /// When nothing was recorded, or torch fails.
    pub(crate) fn replay(&self) -> Result<(), ModelError> {
        // SAFETY: the graph lives as long as `self`.
        checked(unsafe { mrm_graph_replay(self.0) })
    }
}

#[cfg(cuda)]
impl Drop for CudaGraph {
    fn drop(&mut self) {
        // SAFETY: `mrm_graph_new` made the graph, and it is dropped once.
        unsafe { mrm_graph_drop(self.0) }
    }
}

/// A graph, of which a program without CUDA has none.
#[cfg(not(cuda))]
#[derive(Debug)]
pub(crate) struct CudaGraph(std::convert::Infallible);

#[cfg(not(cuda))]
impl CudaGraph {
    pub(crate) fn new(_index: usize) -> Result<Self, ModelError> {
        Err(ModelError::Torch(tch::TchError::Torch("this program was built without CUDA graphs".to_owned())))
    }

    pub(crate) fn beside<T, E: From<ModelError>>(&self, _body: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        match self.0 {}
    }

    pub(crate) fn record<T, E: From<ModelError>>(
        &self,
        _other: Option<&Self>,
        _body: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        match self.0 {}
    }

    pub(crate) fn replay(&self) -> Result<(), ModelError> {
        match self.0 {}
    }
}
