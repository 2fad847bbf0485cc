//! One record.

use std::sync::Arc;

use dataset::format::image_codec;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::array::Array;

/// The rectangle of a finding, in pixels of the stored image.
#[pyclass(frozen, get_all, module = "mrm")]
pub struct BoundingBox {
    /// What the source calls it.
    label: String,
    /// Left edge.
    x: f32,
    /// Upper edge.
    y: f32,
    /// Width in pixels.
    width: f32,
    /// Height in pixels.
    height: f32,
}

#[pymethods]
impl BoundingBox {
    fn __repr__(&self) -> String {
        let Self { label, x, y, width, height } = self;
        format!("mrm.BoundingBox(label={label:?}, x={x}, y={y}, width={width}, height={height})")
    }
}

/// One radiograph with its report.
#[pyclass(frozen, module = "mrm")]
#[expect(clippy::struct_field_names, reason = "the names of the columns")]
pub struct Record {
    /// Unique in the dataset.
    #[pyo3(get)]
    record_id: String,
    /// Number of the record in the dataset.
    #[pyo3(get)]
    row: usize,
    /// Identifier of the patient in the source.
    #[pyo3(get)]
    patient_id: String,
    /// Identifier of the study in the source.
    #[pyo3(get)]
    study_id: String,
    /// Identifier of the image in the source.
    #[pyo3(get)]
    image_id: String,
    /// Path of the raw file, relative to the raw directory.
    #[pyo3(get)]
    source_path: String,
    /// The source's own subset: ``train``, ``validate`` or ``test``.
    #[pyo3(get)]
    subset: Option<String>,
    /// View: ``PA``, ``AP``, ``LATERAL``, …
    #[pyo3(get)]
    view: Option<String>,
    /// ``M``, ``F`` or ``O``.
    #[pyo3(get)]
    sex: Option<String>,
    /// Age in years.
    #[pyo3(get)]
    age_years: Option<f32>,
    /// The text that was tokenized.
    #[pyo3(get)]
    report: Option<String>,
    /// The section "findings" of the report.
    #[pyo3(get)]
    findings: Option<String>,
    /// The section "impression" of the report.
    #[pyo3(get)]
    impression: Option<String>,
    /// Ids of the tokenizer, ``[CLS]`` first; neither padded nor masked.
    #[pyo3(get)]
    token_ids: Vec<i32>,
    /// Boxes of findings.
    #[pyo3(get)]
    boxes: Vec<Py<BoundingBox>>,
    /// The stored image: ``uint8 [height, width]``; ``None`` where the dataset has no images.
    #[pyo3(get)]
    image: Option<Py<Array>>,
    /// The stored mask: ``uint8 [height, width]``, 1 inside; ``None`` where there is none.
    #[pyo3(get)]
    mask: Option<Py<Array>>,
    labels: Vec<(String, Option<i8>)>,
}

impl Record {
    /// Reads a record and decodes its image and mask.
    pub fn read(dataset: &Arc<dataset::Dataset>, row: usize) -> dataset::Result<Parts> {
        let record = dataset.record_without_image(row)?;
        let image = if record.height == 0 { None } else { Some(dataset.image(row)?) };
        let decode = |png: &Vec<u8>| {
            let mut mask = image_codec::decode(png)?;
            mask.pixels.iter_mut().for_each(|level| *level = u8::from(*level > 0));
            Ok::<_, dataset::Error>(mask)
        };
        let mask = record.mask.as_ref().map(decode).transpose()?;
        Ok(Parts { record, row, image, mask, findings: dataset.findings().to_vec() })
    }
}

#[pymethods]
impl Record {
    /// Label of each finding: 1 positive, 0 negative, -1 uncertain, ``None`` not mentioned.
    #[getter]
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let labels = PyDict::new(py);
        for (finding, label) in &self.labels {
            labels.set_item(finding, label)?;
        }
        Ok(labels)
    }

    fn __repr__(&self) -> String {
        format!("mrm.Record({})", self.record_id)
    }
}

/// What a record is made of, read without the interpreter.
pub struct Parts {
    record: dataset::format::record::Record,
    row: usize,
    image: Option<image_codec::GrayPixels>,
    mask: Option<image_codec::GrayPixels>,
    findings: Vec<String>,
}

impl<'py> IntoPyObject<'py> for Parts {
    type Target = Record;
    type Output = Bound<'py, Record>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let array = |image: image_codec::GrayPixels| {
            Py::new(py, Array::owned(image.pixels, &[image.height as usize, image.width as usize]))
        };
        let boxes = self.record.boxes.into_iter().map(|stored| {
            let dataset::format::record::BoundingBox { label, x, y, width, height } = stored;
            Py::new(py, BoundingBox { label, x, y, width, height })
        });
        let codes = self.record.labels.into_iter().map(|label| label.map(dataset::Label::code));
        let record = Record {
            row: self.row,
            boxes: boxes.collect::<PyResult<_>>()?,
            image: self.image.map(array).transpose()?,
            mask: self.mask.map(array).transpose()?,
            labels: self.findings.into_iter().zip(codes).collect(),
            record_id: self.record.record_id,
            patient_id: self.record.patient_id,
            study_id: self.record.study_id,
            image_id: self.record.image_id,
            source_path: self.record.source_path,
            subset: self.record.subset,
            view: self.record.view,
            sex: self.record.sex,
            age_years: self.record.age_years,
            report: self.record.report,
            findings: self.record.findings,
            impression: self.record.impression,
            token_ids: self.record.token_ids,
        };
        Bound::new(py, record)
    }
}
