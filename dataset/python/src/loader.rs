//! The loader's threads, as Python's `Loader` uses them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dataset::loader::{LoaderBuilder, LoaderState, OnError, TextOptions};
use dataset::transform::Transform;
use pyo3::prelude::*;

use crate::array::Array;
use crate::batch::Batch;
use crate::dataset::{Dataset, waiting};
use crate::errors::{self, or_raise};
use crate::pinned::Lending;
use crate::process::Process;

/// Longest wait for a batch before signals are looked at.
const WAIT: Duration = Duration::from_millis(100);

/// Settings of a loader, read from the attributes of a Python object.
#[derive(FromPyObject)]
pub struct Settings<'py> {
    /// All records where it is `None`.
    rows: Option<Bound<'py, Array>>,
    batch_size: usize,
    seed: u64,
    rank: usize,
    world_size: usize,
    /// JSON of a [`Transform`].
    transform: String,
    /// Tokens, and the share of words to mask.
    text: Option<(usize, f64)>,
    shuffle: bool,
    drop_last: bool,
    boxes: bool,
    masks: bool,
    skip_errors: bool,
    threads: usize,
    prefetch: usize,
    /// Address, number of buffers, floats of each, owner.
    memory: Option<(usize, usize, usize, Py<PyAny>)>,
}

impl Settings<'_> {
    fn builder(&self, py: Python<'_>, dataset: &Arc<dataset::Dataset>) -> PyResult<LoaderBuilder> {
        let transform: Transform = serde_json::from_str(&self.transform)
            .map_err(|error| errors::raise(py, "ArgumentError", format!("transform: {error}")))?;
        let mut builder = dataset::Loader::builder(dataset)
            .batch_size(self.batch_size)
            .seed(self.seed)
            .distributed(self.rank, self.world_size)
            .transform(transform)
            .shuffle(self.shuffle)
            .drop_last(self.drop_last)
            .boxes(self.boxes)
            .masks(self.masks)
            .on_error(if self.skip_errors { OnError::Skip } else { OnError::Stop })
            .threads(self.threads)
            .prefetch(self.prefetch);
        if let Some(rows) = &self.rows {
            let wrong = || errors::raise(py, "ArgumentError", "rows: not a read-only array of uint32");
            builder = builder.rows(rows.get().elements::<u32>().ok_or_else(wrong)?.to_vec());
        }
        if let Some((tokens, mask_ratio)) = self.text {
            builder = builder.text(TextOptions { tokens, mask_ratio });
        }
        if let Some((address, count, floats, owner)) = &self.memory {
            // SAFETY: `mrm.torch` gives the address and the size of a tensor's memory, with the tensor.
            let lending = unsafe { Lending::new(*address, *count, *floats, owner.clone_ref(py)) };
            builder = builder.memory(move |floats| lending.buffer(floats));
        }
        Ok(builder)
    }
}

/// The threads that make batches.
#[pyclass(frozen, module = "mrm._mrm")]
pub struct Loader {
    /// `None` once it is closed. Locked while detached: another thread may wait for a batch.
    running: Mutex<Option<dataset::Loader>>,
    dataset: Arc<dataset::Dataset>,
    location: PathBuf,
    has_boxes: bool,
    has_masks: bool,
    process: Process,
}

impl Loader {
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut dataset::Loader) -> dataset::Result<T> + Send,
    ) -> PyResult<T> {
        self.process.check(py, "loader")?;
        let outcome = py.detach(|| {
            let mut loader = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            loader.as_mut().map(work)
        });
        match outcome {
            Some(result) => or_raise(py, result),
            None => Err(errors::raise(py, "ClosedError", "the loader is closed: make a new one")),
        }
    }
}

#[pymethods]
impl Loader {
    #[new]
    fn new(py: Python<'_>, dataset: &Dataset, settings: Settings<'_>) -> PyResult<Self> {
        let opened = dataset.get(py)?;
        let builder = settings.builder(py, &opened)?;
        let (has_boxes, has_masks) = (settings.boxes, settings.masks);
        let loader = waiting(py, opened.storage().as_folder().is_none(), || builder.build())?;
        let location = opened.storage().path("");
        let (running, process) = (Mutex::new(Some(loader)), Process::this());
        Ok(Self { running, dataset: opened, location, has_boxes, has_masks, process })
    }

    /// The next batch of an epoch; `None` where the position is in another one.
    fn next(&self, py: Python<'_>, epoch: u64) -> PyResult<Option<Batch>> {
        enum Outcome {
            End,
            Wait,
            Made(Box<dataset::Batch>),
        }
        loop {
            let outcome = self.with(py, |loader| {
                if loader.state().epoch != epoch {
                    return Ok(Outcome::End);
                }
                Ok(loader.next_batch_within(WAIT)?.map_or(Outcome::Wait, |batch| Outcome::Made(Box::new(batch))))
            })?;
            match outcome {
                Outcome::End => return Ok(None),
                Outcome::Made(batch) => {
                    return Ok(Some(Batch::new(*batch, &self.dataset, self.has_boxes, self.has_masks)));
                }
                Outcome::Wait => py.check_signals()?,
            }
        }
    }

    /// Batches of an epoch.
    #[getter]
    fn batches(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |loader| Ok(loader.batches()))
    }

    /// Records of an epoch, over all ranks.
    #[getter]
    fn records(&self, py: Python<'_>) -> PyResult<usize> {
        self.with(py, |loader| Ok(loader.records()))
    }

    /// Records that were left out so far because they could not be read.
    #[getter]
    fn skipped(&self, py: Python<'_>) -> PyResult<u64> {
        self.with(py, |loader| Ok(loader.skipped()))
    }

    /// Epoch, batch and order of the next batch.
    fn state(&self, py: Python<'_>) -> PyResult<(u64, u64, u64)> {
        let state = self.with(py, |loader| Ok(loader.state()))?;
        Ok((state.epoch, state.batch, state.order))
    }

    /// Continues at another position.
    fn seek(&self, py: Python<'_>, epoch: u64, batch: u64, order: u64) -> PyResult<()> {
        self.with(py, |loader| loader.seek(LoaderState { epoch, batch, order }))
    }

    /// Ends the threads and waits for them.
    fn close(&self, py: Python<'_>) {
        if self.process.is_this() {
            py.detach(|| drop(self.running.lock().unwrap_or_else(PoisonError::into_inner).take()));
        }
    }

    fn __repr__(&self) -> String {
        format!("<threads that load {}>", self.location.display())
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        let loader = self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if self.process.is_this() {
            // The threads never ask for the interpreter, so that waiting for them while attached ends.
            drop(loader);
        } else {
            // Waiting for a thread that is not in this process would never end.
            std::mem::forget(loader);
        }
    }
}

/// Samples at any position, made on the thread that asks for them.
#[pyclass(frozen, module = "mrm._mrm")]
pub struct RandomAccess {
    access: dataset::loader::RandomAccess,
    dataset: Arc<dataset::Dataset>,
    has_boxes: bool,
    has_masks: bool,
}

#[pymethods]
impl RandomAccess {
    #[new]
    fn new(py: Python<'_>, dataset: &Dataset, settings: Settings<'_>) -> PyResult<Self> {
        let opened = dataset.get(py)?;
        let builder = settings.builder(py, &opened)?;
        let access = waiting(py, opened.storage().as_folder().is_none(), || builder.random_access())?;
        Ok(Self { access, dataset: opened, has_boxes: settings.boxes, has_masks: settings.masks })
    }

    /// Batches of an epoch.
    #[getter]
    fn batches(&self) -> u64 {
        self.access.batches()
    }

    /// A batch of an epoch.
    fn batch(&self, py: Python<'_>, epoch: u64, number: u64) -> PyResult<Batch> {
        let batch = or_raise(py, py.detach(|| self.access.batch(epoch, number)))?;
        Ok(Batch::new(batch, &self.dataset, self.has_boxes, self.has_masks))
    }
}
