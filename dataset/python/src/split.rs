//! A split of a dataset.

use std::sync::Arc;

use arrow_array::{Float64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use dataset::split::{Member, certificate_path};
use dataset::{Ratio, Subset};
use pyo3::prelude::*;

use crate::array::Array;
use crate::errors;
use crate::json::json;
use crate::table::Table;

/// Train, validate and test subsets of a dataset, and nested sets of labels (ratios). Made by ``data.split(name)`` or
/// ``mrm.split``.
#[pyclass(frozen, module = "mrm")]
pub struct Split {
    split: dataset::Split,
    /// JSON.
    certificate: String,
}

impl Split {
    /// Reads a split and measures it again.
    pub fn load(dataset: &dataset::Dataset, name: &str) -> dataset::Result<Self> {
        let split = dataset::Split::load(dataset, name)?;
        let certificate = dataset.storage().read(&certificate_path(name))?;
        Ok(Self { split, certificate: String::from_utf8_lossy(&certificate).into_owned() })
    }
}

#[pymethods]
impl Split {
    /// Its name.
    #[getter]
    fn name(&self) -> &str {
        &self.split.name
    }

    /// The label ratios in percent, ascending.
    #[getter]
    fn ratios(&self) -> Vec<f64> {
        self.split.ratios.iter().map(|ratio| ratio.percent()).collect()
    }

    /// Sets that are far from their share or from the prevalence of a finding, a sentence each.
    #[getter]
    fn warnings(&self) -> Vec<String> {
        dataset::split::warnings::lines(self.split.warnings.iter())
    }

    /// What was measured when the split was made, as a dictionary.
    #[getter]
    fn certificate<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        json(py, &self.certificate)
    }

    /// Rows of a subset (``train``, ``validate`` or ``test``), ascending: ``uint32 [N]``, read-only. With a ratio in percent,
    /// those training records whose labels may be seen.
    #[pyo3(signature = (subset, ratio=None))]
    fn rows(&self, py: Python<'_>, subset: &str, ratio: Option<f64>) -> PyResult<Array> {
        let invalid = |message: String| errors::raise(py, "ArgumentError", message);
        let known = Subset::ALL.into_iter().find(|known| known.name() == subset);
        let known = known.ok_or_else(|| invalid(format!("no subset `{subset}`: give train, validate or test")))?;
        let ratio = ratio.map(Ratio::from_percent).transpose().map_err(|error| invalid(error.to_string()))?;
        if let Some(ratio) = ratio {
            if known != Subset::Train {
                return Err(invalid("a ratio applies to training records: use subset=\"train\"".to_owned()));
            }
            errors::or_raise(py, self.split.check_ratio(ratio))?;
        }
        let rows = self.split.rows(known, ratio);
        let shape = [rows.len()];
        Ok(Array::owned(rows, &shape).read_only())
    }

    /// One row for each record, in the order of the dataset: ``record_id``, ``subset`` (null outside of all subsets) and
    /// ``ratio``, the smallest ratio in percent whose set contains the record (null outside of train).
    fn table(&self, py: Python<'_>) -> PyResult<Table> {
        let members = &self.split.members;
        let ids: StringArray = members.iter().map(|member| Some(member.record_id.as_str())).collect();
        let subsets: StringArray = members.iter().map(|member| member.subset.map(Subset::name)).collect();
        let smallest = |member: &Member| {
            let every = member.ratios.as_ref().and_then(|ratios| ratios.first());
            member.ratio.as_ref().or(every).map(|ratio| ratio.percent())
        };
        let ratios: Float64Array = members.iter().map(smallest).collect();
        let schema = Arc::new(Schema::new(vec![
            Field::new("record_id", DataType::Utf8, false),
            Field::new("subset", DataType::Utf8, true),
            Field::new("ratio", DataType::Float64, true),
        ]));
        let batch = RecordBatch::try_new(schema.clone(), vec![Arc::new(ids), Arc::new(subsets), Arc::new(ratios)]);
        let batch = batch.map_err(|error| errors::raise(py, "Error", format!("table: {error}")))?;
        Ok(Table { schema, batches: vec![batch] })
    }

    fn __repr__(&self) -> String {
        let count = |subset| self.split.members.iter().filter(|member| member.subset == Some(subset)).count();
        let counts = Subset::ALL.map(|subset| format!("{} {}", count(subset), subset.name()));
        format!("mrm.Split({}: {})", self.split.name, counts.join(", "))
    }
}
