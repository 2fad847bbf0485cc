//! Tables in both directions, by Arrow's PyCapsule interface: polars, pandas, pyarrow and DuckDB take them, and give them,
//! without a copy.

use std::sync::Arc;

use arrow_array::ffi_stream::{FFI_ArrowArrayStream, RecordBatchStreamReader};
use arrow_array::{RecordBatch, RecordBatchIterator, RecordBatchReader};
use arrow_schema::ffi::FFI_ArrowSchema;
use arrow_schema::{Field, Schema, SchemaRef};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::errors;

const STREAM: &std::ffi::CStr = c"arrow_array_stream";
const SCHEMA: &std::ffi::CStr = c"arrow_schema";

/// A table in Arrow's memory layout: ``polars.DataFrame(table)``, ``pandas.DataFrame.from_arrow(table)`` (pandas 3),
/// ``pyarrow.table(table)`` and DuckDB use it without a copy. ``Table(other)`` takes a table of any of them.
#[pyclass(frozen, module = "mrm")]
pub struct Table {
    pub schema: SchemaRef,
    pub batches: Vec<RecordBatch>,
}

impl Table {
    /// A table of batches, whose columns are chosen and ordered by name.
    pub fn select(batches: &[RecordBatch], schema: &Schema, names: &[&str]) -> Result<Self, arrow_schema::ArrowError> {
        let fields: Result<Vec<Field>, _> = names.iter().map(|name| schema.field_with_name(name).cloned()).collect();
        let schema = Arc::new(Schema::new(fields?));
        let select = |batch: &RecordBatch| {
            let columns = names.iter().map(|name| batch.column_by_name(name).cloned().ok_or_else(|| missing(name)));
            RecordBatch::try_new(schema.clone(), columns.collect::<Result<_, _>>()?)
        };
        Ok(Self { batches: batches.iter().map(select).collect::<Result<_, _>>()?, schema })
    }

    /// The table of an object with `__arrow_c_stream__`.
    pub fn from_python(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        if let Ok(table) = object.cast::<Self>() {
            return Ok(Self { schema: table.get().schema.clone(), batches: table.get().batches.clone() });
        }
        let capsule = object.call_method0("__arrow_c_stream__").map_err(|_| {
            let kind = object.get_type().name().map_or_else(|_| "object".to_owned(), |name| name.to_string());
            let takes =
                "give a table of polars, pandas (2.2 or later), pyarrow or DuckDB, or another with __arrow_c_stream__";
            errors::raise(py, "ArgumentError", format!("a {kind} is no table: {takes}"))
        })?;
        let invalid = |error: arrow_schema::ArrowError| errors::raise(py, "ArgumentError", format!("table: {error}"));
        let capsule = capsule.cast::<PyCapsule>()?;
        let pointer = capsule.pointer_checked(Some(STREAM))?;
        // SAFETY: a capsule of this name holds a stream; moving it out leaves an empty one, as the interface asks for.
        let reader = unsafe { RecordBatchStreamReader::from_raw(pointer.as_ptr().cast()) }.map_err(invalid)?;
        let schema = reader.schema();
        let batches = reader.collect::<Result<_, _>>().map_err(invalid)?;
        Ok(Self { schema, batches })
    }
}

fn missing(name: &str) -> arrow_schema::ArrowError {
    arrow_schema::ArrowError::SchemaError(format!("no column `{name}`"))
}

#[pymethods]
impl Table {
    #[new]
    fn new(table: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::from_python(table)
    }

    /// Names of the columns.
    #[getter]
    fn columns(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| field.name().clone()).collect()
    }

    /// Number of rows.
    fn __len__(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }

    /// A capsule of the schema.
    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        let schema = FFI_ArrowSchema::try_from(self.schema.as_ref());
        let schema = schema.map_err(|error| errors::raise(py, "Error", format!("table: {error}")))?;
        PyCapsule::new_with_value(py, schema, SCHEMA)
    }

    /// A capsule of a stream of the rows. A requested schema is not followed, as the interface allows.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema;
        let batches = self.batches.clone().into_iter().map(Ok);
        let stream = FFI_ArrowArrayStream::new(Box::new(RecordBatchIterator::new(batches, self.schema.clone())));
        PyCapsule::new_with_value(py, stream, STREAM)
    }

    fn __repr__(&self) -> String {
        format!("mrm.Table({} rows: {})", self.__len__(), self.columns().join(", "))
    }
}
