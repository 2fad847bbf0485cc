//! The loader's threads, as Python's `Loader` uses them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dataset::loader::{
    EpochLength, LoaderBuilder, LoaderState, MixturePart, OnError, StudyOptions, TextOptions, TextSource, TokenWeights,
    ViewChoice, Weights,
};
use dataset::tokenizer::ReportTokenizer;
use dataset::transform::Transform;
use pyo3::prelude::*;

use crate::array::Array;
use crate::batch::{Batch, Loaded, Origin};
use crate::dataset::{Dataset, waiting};
use crate::errors::{self, or_raise};
use crate::pinned::Lending;
use crate::process::Process;

/// Longest wait for a batch before signals are looked at.
const WAIT: Duration = Duration::from_millis(100);

/// Settings of a loader, read from the attributes of a Python object.
#[derive(FromPyObject)]
pub struct Settings<'py> {
    /// Those of each dataset; all records where it is `None`.
    rows: Vec<Option<Bound<'py, Array>>>,
    /// `None` for one dataset alone.
    mixture: Option<MixtureSettings>,
    tokenizer: Option<PathBuf>,
    batch_size: usize,
    seed: u64,
    rank: usize,
    world_size: usize,
    /// JSON of a [`Transform`].
    transform: String,
    /// The same for each group of crops, and their number.
    crops: Vec<(String, usize)>,
    /// Views, whether they are drawn, views of the study before.
    studies: Option<(usize, bool, usize)>,
    /// Of each text: tokens, share of words to mask, section, number of sentences; the whole report where both are `None`.
    texts: Vec<(usize, f64, Option<String>, Option<usize>)>,
    token_weights: Option<BTreeMap<String, f32>>,
    token_weights_file: Option<PathBuf>,
    shuffle: bool,
    drop_last: bool,
    boxes: bool,
    masks: bool,
    mask_name: Option<String>,
    skip_errors: bool,
    threads: usize,
    prefetch: usize,
    /// Address, number of buffers, floats of each, owner.
    memory: Option<(usize, usize, usize, Py<PyAny>)>,
}

/// Shares of several datasets, and the length of an epoch.
#[derive(FromPyObject)]
pub struct MixtureSettings {
    weights: Option<Vec<f64>>,
    temperature: f64,
    /// Number of the dataset that is seen once.
    epoch_of: Option<usize>,
    epoch_records: Option<u64>,
}

impl MixtureSettings {
    fn weights(&self) -> Weights {
        self.weights.clone().map_or(Weights::Temperature(self.temperature), Weights::Shares)
    }

    fn length(&self) -> EpochLength {
        match (self.epoch_of, self.epoch_records) {
            (Some(part), _) => EpochLength::Once(part),
            (None, Some(records)) => EpochLength::Records(records),
            (None, None) => EpochLength::Sum,
        }
    }
}

impl Settings<'_> {
    /// What is loaded.
    fn loaded(&self) -> Loaded {
        let weights = self.token_weights.is_some() || self.token_weights_file.is_some();
        Loaded { boxes: self.boxes, masks: self.masks, studies: self.studies.is_some(), weights }
    }

    /// One dataset or a mixture, with the chosen rows of each.
    fn parts(&self, py: Python<'_>, datasets: &[Arc<dataset::Dataset>]) -> PyResult<LoaderBuilder> {
        let wrong = || errors::raise(py, "ArgumentError", "rows: not a read-only array of uint32");
        let mut parts = Vec::new();
        for (number, dataset) in datasets.iter().enumerate() {
            let mut part = MixturePart::new(dataset);
            if let Some(Some(rows)) = self.rows.get(number) {
                part = part.rows(rows.get().elements::<u32>().ok_or_else(wrong)?.to_vec());
            }
            parts.push(part);
        }
        Ok(match (&self.mixture, parts.as_slice()) {
            (None, [part]) => dataset::Loader::of(part.clone()),
            (mixture, _) => {
                let (weights, length) = mixture.as_ref().map_or_else(Default::default, |m| (m.weights(), m.length()));
                dataset::Loader::mixture(parts, weights, length)
            }
        })
    }

    fn builder(&self, py: Python<'_>, datasets: &[Arc<dataset::Dataset>]) -> PyResult<LoaderBuilder> {
        let crops = self.crops.iter().map(|(transform, count)| Ok((read_transform(py, transform)?, *count)));
        let mut builder = self
            .parts(py, datasets)?
            .batch_size(self.batch_size)
            .seed(self.seed)
            .distributed(self.rank, self.world_size)
            .transform(read_transform(py, &self.transform)?)
            .crops(crops.collect::<PyResult<_>>()?)
            .shuffle(self.shuffle)
            .drop_last(self.drop_last)
            .boxes(self.boxes)
            .masks(self.masks)
            .on_error(if self.skip_errors { OnError::Skip } else { OnError::Stop })
            .threads(self.threads)
            .prefetch(self.prefetch);
        if let Some(path) = &self.tokenizer {
            builder = builder.tokenizer(Arc::new(or_raise(py, ReportTokenizer::load(path))?));
        }
        if let Some(name) = &self.mask_name {
            builder = builder.mask_name(name);
        }
        if let Some((views, is_random, prior)) = self.studies {
            let choose = if is_random { ViewChoice::Random } else { ViewChoice::First };
            builder = builder.studies(StudyOptions { views, choose, prior });
        }
        let texts = self.texts.iter().map(|(tokens, mask_ratio, section, sentences)| {
            let source = match (section, sentences) {
                (Some(name), _) => TextSource::Section(name.clone()),
                (None, Some(count)) => TextSource::Sentences(*count),
                (None, None) => TextSource::Report,
            };
            (source, TextOptions { tokens: *tokens, mask_ratio: *mask_ratio })
        });
        builder = builder.texts(texts.collect());
        if let Some(weights) = &self.token_weights {
            builder = builder.token_weights(or_raise(py, TokenWeights::new(weights.clone()))?);
        }
        if let Some(path) = &self.token_weights_file {
            builder = builder.token_weights(or_raise(py, TokenWeights::load(path))?);
        }
        if let Some((address, count, floats, owner)) = &self.memory {
            // SAFETY: `mrm.torch` gives the address and the size of a tensor's memory, with the tensor.
            let lending = unsafe { Lending::new(*address, *count, *floats, owner.clone_ref(py)) };
            builder = builder.memory(move |floats| lending.buffer(floats));
        }
        Ok(builder)
    }
}

/// A transform of its JSON.
fn read_transform(py: Python<'_>, text: &str) -> PyResult<Transform> {
    let read = serde_json::from_str(text).map_err(|error| error.to_string());
    let checked = read.and_then(|transform: Transform| match transform.check() {
        Ok(()) => Ok(transform),
        Err(error) => Err(error.to_string()),
    });
    checked.map_err(|error| errors::raise(py, "ArgumentError", format!("transform: {error}")))
}

/// Raises `mrm.ArgumentError` where a transform, as JSON, is impossible.
#[pyfunction]
pub fn check_transform(py: Python<'_>, text: &str) -> PyResult<()> {
    read_transform(py, text).map(drop)
}

/// The threads that make batches.
#[pyclass(frozen, module = "mrm._mrm")]
pub struct Loader {
    /// `None` once it is closed. Locked while detached: another thread may wait for a batch.
    running: Mutex<Option<dataset::Loader>>,
    origin: Arc<Origin>,
    locations: Vec<String>,
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
    fn new(py: Python<'_>, datasets: Vec<PyRef<'_, Dataset>>, settings: Settings<'_>) -> PyResult<Self> {
        let opened = datasets.iter().map(|dataset| dataset.get(py)).collect::<PyResult<Vec<_>>>()?;
        let builder = settings.builder(py, &opened)?;
        let is_remote = opened.iter().any(|dataset| dataset.storage().as_folder().is_none());
        let loader = waiting(py, is_remote, || builder.build())?;
        let locations = opened.iter().map(|dataset| dataset.storage().path("").display().to_string()).collect();
        let lacks_images = !loader.without_images().is_empty();
        let origin = Origin::new(opened, loader.findings(), settings.loaded(), lacks_images);
        Ok(Self { running: Mutex::new(Some(loader)), origin, locations, process: Process::this() })
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
                    return Ok(Some(Batch::new(*batch, &self.origin)));
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

    /// Names of the columns of a batch's labels.
    #[getter]
    fn findings(&self) -> Vec<String> {
        self.origin.findings.clone()
    }

    /// Numbers of the datasets whose reports are tokenized when they are loaded.
    #[getter]
    fn tokenized(&self, py: Python<'_>) -> PyResult<Vec<usize>> {
        self.with(py, |loader| Ok(loader.tokenized()))
    }

    /// Epoch, batch and order of the next batch, and the records drawn of each dataset of a mixture.
    fn state(&self, py: Python<'_>) -> PyResult<(u64, u64, u64, Vec<u64>)> {
        let state = self.with(py, |loader| Ok(loader.state()))?;
        Ok((state.epoch, state.batch, state.order, state.drawn))
    }

    /// Continues at another position.
    fn seek(&self, py: Python<'_>, epoch: u64, batch: u64, order: u64, drawn: Vec<u64>) -> PyResult<()> {
        self.with(py, |loader| loader.seek(&LoaderState { epoch, batch, order, drawn }))
    }

    /// Ends the threads and waits for them.
    fn close(&self, py: Python<'_>) {
        if self.process.is_this() {
            py.detach(|| drop(self.running.lock().unwrap_or_else(PoisonError::into_inner).take()));
        }
    }

    fn __repr__(&self) -> String {
        format!("<threads that load {}>", self.locations.join(", "))
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
    origin: Arc<Origin>,
}

#[pymethods]
impl RandomAccess {
    #[new]
    fn new(py: Python<'_>, dataset: &Dataset, settings: Settings<'_>) -> PyResult<Self> {
        let opened = dataset.get(py)?;
        let builder = settings.builder(py, std::slice::from_ref(&opened))?;
        let access = waiting(py, opened.storage().as_folder().is_none(), || builder.random_access())?;
        let findings = opened.findings().to_vec();
        Ok(Self { access, origin: Origin::new(vec![opened], &findings, settings.loaded(), false) })
    }

    /// Batches of an epoch.
    #[getter]
    fn batches(&self) -> u64 {
        self.access.batches()
    }

    /// A batch of an epoch.
    fn batch(&self, py: Python<'_>, epoch: u64, number: u64) -> PyResult<Batch> {
        let batch = or_raise(py, py.detach(|| self.access.batch(epoch, number)))?;
        Ok(Batch::new(batch, &self.origin))
    }
}
