//! An opened dataset.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow_array::{RecordBatch, StructArray};
use arrow_schema::{DataType, Field, Schema};
use dataset::format::manifest::{REJECTS, TOKENIZER};
use dataset::format::mask_column::{HAS_MASK, has_mask_field, with_has_mask};
use dataset::format::schema::{BINARY, MASKS};
use dataset::format::table;
use dataset::name_suggestion::did_you_mean;
use dataset::split::stored::known_splits;
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::array::Array;
use crate::errors::{self, or_raise};
use crate::image::Image;
use crate::json::json;
use crate::long_call;
use crate::process::{Process, detached};
use crate::record::{Parts, Record};
use crate::split::Split;
use crate::table::Table;

/// A dataset of radiographs with reports. Made by ``mrm.open``. ``len(data)`` is the number of records; ``data[5]`` and
/// ``data["record id"]`` are records.
///
/// It can be shared by threads, and be pickled: the copy opens the dataset again. In a forked process it opens a local folder
/// again by itself; a dataset in an object store must be opened there.
#[pyclass(frozen, module = "mrm")]
pub struct Dataset {
    location: PathBuf,
    /// Names of the joins that it is seen with.
    joins: Vec<String>,
    /// `None` once it is closed. Locked while attached and for a moment only, so that no other thread holds it at a fork.
    opened: Mutex<Option<Opened>>,
}

#[derive(Clone)]
struct Opened {
    dataset: Arc<dataset::Dataset>,
    process: Process,
}

impl Opened {
    fn new(py: Python<'_>, location: &PathBuf, joins: &[String]) -> PyResult<Self> {
        let is_remote = location.to_string_lossy().contains("://");
        let dataset = waiting(py, is_remote, || dataset::Dataset::open(location)?.with_joins(joins))?;
        Ok(Self { dataset: Arc::new(dataset), process: Process::this() })
    }
}

impl Dataset {
    fn lock(&self) -> MutexGuard<'_, Option<Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The dataset, opened in this process.
    pub fn get(&self, py: Python<'_>) -> PyResult<Arc<dataset::Dataset>> {
        let Some(opened) = self.lock().clone() else {
            let message = format!("the dataset {} is closed: open it again with mrm.open", self.location.display());
            return Err(errors::raise(py, "ClosedError", message));
        };
        if opened.process.is_this() {
            return Ok(opened.dataset);
        }
        if opened.dataset.storage().as_folder().is_none() {
            opened.process.check(py, "dataset")?;
        }
        let here = Opened::new(py, &self.location, &self.joins)?;
        *self.lock() = Some(here.clone());
        Ok(here.dataset)
    }

    /// Does work with the dataset while other threads of Python run.
    pub fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&Arc<dataset::Dataset>) -> dataset::Result<T> + Send,
    ) -> PyResult<T> {
        let dataset = self.get(py)?;
        waiting(py, dataset.storage().as_folder().is_none(), || work(&dataset))
    }

    /// The row of an index, negative ones from the end, or of an identifier.
    fn row(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<usize> {
        if let Ok(record_id) = key.extract::<String>() {
            return self.with(py, |dataset| dataset.row_of(&record_id));
        }
        let length = self.get(py)?.len();
        let index: i64 = key.extract().map_err(|_| {
            pyo3::exceptions::PyTypeError::new_err("a dataset is indexed by the number of a record or its record_id")
        })?;
        let row = if index < 0 { index + length as i64 } else { index };
        if (0..length as i64).contains(&row) {
            return Ok(row as usize);
        }
        Err(PyIndexError::new_err(format!("record {index} of a dataset of {length} records")))
    }
}

#[pymethods]
impl Dataset {
    #[new]
    #[pyo3(signature = (location, joins=Vec::new()))]
    fn new(py: Python<'_>, location: PathBuf, joins: Vec<String>) -> PyResult<Self> {
        let opened = Opened::new(py, &location, &joins)?;
        Ok(Self { location, joins, opened: Mutex::new(Some(opened)) })
    }

    /// The folder or URL, as it was given.
    #[getter]
    fn location(&self) -> String {
        self.location.display().to_string()
    }

    /// Names of the findings, in the order of the columns of ``batch.labels``.
    #[getter]
    fn findings(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        Ok(self.get(py)?.findings().to_vec())
    }

    /// The manifest ``dataset.json``, as a dictionary.
    #[getter]
    fn manifest<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let text = serde_json::to_string(self.get(py)?.manifest());
        json(py, &text.map_err(|error| errors::raise(py, "Error", error.to_string()))?)
    }

    /// Names of the splits; empty where the storage cannot be listed (``https://``).
    #[getter]
    fn splits(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.with(py, |dataset| known_splits(dataset.storage()))
    }

    /// Names of the joins that are stored; empty where the storage cannot be listed (``https://``).
    #[getter]
    fn joins(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        self.with(py, |dataset| dataset.joins())
    }

    /// Names of the joins that the dataset is seen with.
    #[getter]
    fn joined(&self) -> Vec<String> {
        self.joins.clone()
    }

    /// What a join is about, as a dictionary: kind, names, table, key, counts.
    ///
    /// Raises:
    ///     mrm.JoinError: it is missing or damaged, or the dataset was changed after it was made.
    fn join_facts<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        let facts = self.with(py, |dataset| Ok(dataset.join(name)?.facts().clone()))?;
        json(py, &serde_json::to_string(&facts).map_err(|error| errors::raise(py, "Error", error.to_string()))?)
    }

    /// The same dataset, seen with further joins.
    ///
    /// Raises:
    ///     mrm.JoinError: one is missing or damaged, or the dataset was changed after it was made.
    fn with_joins(&self, py: Python<'_>, names: Vec<String>) -> PyResult<Self> {
        let joins = [self.joins.as_slice(), &names].concat();
        Self::new(py, self.location.clone(), joins)
    }

    /// Loads a split and verifies it.
    ///
    /// Raises:
    ///     mrm.SplitError: it does not exist, or the split or the dataset was changed after it was made.
    fn split(&self, py: Python<'_>, name: &str) -> PyResult<Split> {
        self.with(py, |dataset| Split::load(dataset, name))
    }

    /// The row of a record, by its number (negative ones from the end) or its ``record_id``.
    fn row_of(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<usize> {
        self.row(py, key)
    }

    /// The ``record_id`` of a row.
    fn record_id(&self, py: Python<'_>, row: usize) -> PyResult<String> {
        self.with(py, |dataset| dataset.record_id(row).map(str::to_owned))
    }

    /// A whole record: image, texts, labels, boxes, masks.
    fn __getitem__(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Parts> {
        let row = self.row(py, key)?;
        self.with(py, |dataset| Record::read(dataset, row))
    }

    /// The stored image of a record: ``uint8 [height, width]``, 0 is black; ``uint16`` where images have 16 bits.
    fn image(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Array> {
        let row = self.row(py, key)?;
        self.with(py, |dataset| Image::read(dataset, row)).map(Image::array)
    }

    /// The stored image of a record as a gray Pillow image of 8 bits; one of 16 bits is shown with its window.
    fn to_pil<'py>(&self, py: Python<'py>, key: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let row = self.row(py, key)?;
        let image = self.with(py, |dataset| dataset.image(row))?;
        let pixels = PyBytes::new(py, &image.pixels);
        py.import("PIL.Image")?.call_method1("frombytes", ("L", (image.width, image.height), pixels))
    }

    /// Some columns of all records, one row for each record. ``docs/format.md`` lists the columns; ``has_mask`` is whether
    /// there is a mask.
    #[pyo3(name = "columns")]
    fn read_columns(&self, py: Python<'_>, names: Vec<String>) -> PyResult<Table> {
        self.with(py, |dataset| columns(dataset, &names.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    /// All columns but images and masks, one row for each record; ``has_mask`` is whether there is a mask.
    fn metadata(&self, py: Python<'_>) -> PyResult<Table> {
        self.with(py, |dataset| {
            let schema = schema(dataset)?;
            let names = schema.fields().iter().map(|field| field.name().as_str());
            columns(dataset, &names.filter(|name| !BINARY.contains(name)).collect::<Vec<_>>())
        })
    }

    /// ``record_id`` and a column for each finding: 1 positive, 0 negative, -1 uncertain, null not mentioned.
    fn labels(&self, py: Python<'_>) -> PyResult<Table> {
        self.with(py, labels)
    }

    /// The table of rejected inputs: stage, file, record, reason.
    fn rejects(&self, py: Python<'_>) -> PyResult<Table> {
        self.with(py, |dataset| {
            let batches = table::from_parquet(&dataset.storage().path(REJECTS), dataset.storage().read(REJECTS)?)?;
            let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
            Ok(Table { schema, batches })
        })
    }

    /// The text of ``tokenizer.json``, for ``tokenizers.Tokenizer.from_str``; ``None`` where the dataset has no tokenizer.
    fn tokenizer_json(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.with(py, |dataset| {
            // Reading it compares it with the manifest's digest.
            if dataset.tokenizer()?.is_none() {
                return Ok(None);
            }
            Ok(Some(String::from_utf8_lossy(&dataset.storage().read(TOKENIZER)?).into_owned()))
        })
    }

    /// Closes the dataset: later calls raise `mrm.ClosedError`. Loaders that were made before still work.
    fn close(&self, py: Python<'_>) {
        let closed = self.lock().take();
        py.detach(|| drop(closed));
    }

    fn __enter__(this: Py<Self>) -> Py<Self> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.get(py)?.len())
    }

    fn __repr__(&self) -> String {
        let (location, opened) = (self.location.display(), self.lock());
        match opened.as_ref() {
            Some(opened) => format!("mrm.open('{location}')  # {} records", opened.dataset.len()),
            None => format!("mrm.open('{location}')  # closed"),
        }
    }

    fn __reduce__<'py>(this: &Bound<'py, Self>) -> (Bound<'py, pyo3::types::PyType>, (PathBuf, Vec<String>)) {
        (this.get_type(), (this.get().location.clone(), this.get().joins.clone()))
    }
}

/// Does work while other threads of Python run. An interrupt ends the wait for an object store.
pub fn waiting<T: Send>(
    py: Python<'_>,
    is_remote: bool,
    work: impl FnOnce() -> dataset::Result<T> + Send,
) -> PyResult<T> {
    if is_remote { long_call::run(py, None, |_| Ok(work()?)) } else { or_raise(py, detached(py, work)?) }
}

fn schema(dataset: &dataset::Dataset) -> dataset::Result<Schema> {
    let seen = dataset.schema()?;
    Ok(Schema::new(seen.fields().iter().cloned().chain([Arc::new(has_mask_field())]).collect::<Vec<_>>()))
}

/// Columns by name, in this order.
fn columns(dataset: &dataset::Dataset, names: &[&str]) -> dataset::Result<Table> {
    let schema = schema(dataset)?;
    let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        let suggestion = did_you_mean(unknown, known.iter().copied());
        return Err(dataset::Error::Invalid(format!("no column `{unknown}`{suggestion}")));
    }
    let stored: Vec<&str> = names.iter().map(|&name| if name == HAS_MASK { MASKS } else { name }).collect();
    let invalid = |error: arrow_schema::ArrowError| dataset::Error::Table(error.to_string());
    let mut batches = dataset.columns(&stored)?;
    if names.contains(&HAS_MASK) {
        batches = batches.iter().map(with_has_mask).collect::<Result<_, _>>().map_err(invalid)?;
    }
    Table::select(&batches, &schema, names).map_err(invalid)
}

fn labels(dataset: &Arc<dataset::Dataset>) -> dataset::Result<Table> {
    let invalid = |error: arrow_schema::ArrowError| dataset::Error::Table(error.to_string());
    let findings = dataset.findings();
    let fields = findings.iter().map(|finding| Field::new(finding, DataType::Int8, true));
    let id = Field::new("record_id", DataType::Utf8, false);
    let schema = Arc::new(Schema::new([id].into_iter().chain(fields).collect::<Vec<_>>()));
    let flat = |batch: &RecordBatch| {
        let codes = table::column::<StructArray>(batch, "labels");
        let codes = codes.map_or(&[][..], |codes| codes.columns()).iter().take(findings.len());
        let ids = batch.column_by_name("record_id").cloned();
        RecordBatch::try_new(schema.clone(), ids.into_iter().chain(codes.cloned()).collect())
    };
    let batches = dataset.columns(&["record_id", "labels"])?;
    Ok(Table { batches: batches.iter().map(flat).collect::<Result<_, _>>().map_err(invalid)?, schema })
}
