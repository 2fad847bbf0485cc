//! One record.

use std::sync::Arc;

use dataset::format::image_codec;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::array::Array;
use crate::image::Image;

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
    /// Confidence of a detector; ``None`` where it is not stated.
    score: Option<f32>,
    /// The sentence that the rectangle belongs to.
    sentence: Option<String>,
    /// Who drew the rectangle.
    reader: Option<String>,
}

#[pymethods]
impl BoundingBox {
    fn __repr__(&self) -> String {
        let Self { label, x, y, width, height, .. } = self;
        format!("mrm.BoundingBox(label={label:?}, x={x}, y={y}, width={width}, height={height})")
    }
}

/// A section of a report.
#[pyclass(frozen, get_all, module = "mrm")]
pub struct NamedText {
    /// Lower-case name: ``findings``, ``impression``, ``indication``, …
    name: String,
    /// The text.
    text: String,
    /// Ids of the tokenizer, ``[CLS]`` first; neither padded nor masked.
    token_ids: Vec<i32>,
}

#[pymethods]
impl NamedText {
    fn __repr__(&self) -> String {
        format!("mrm.NamedText(name={:?}, text={:?})", self.name, self.text)
    }
}

/// The labels of one of several readers of an image.
#[pyclass(frozen, module = "mrm")]
pub struct Reading {
    /// Identifier of the reader.
    #[pyo3(get)]
    reader: String,
    labels: Codes,
}

#[pymethods]
impl Reading {
    /// Label of each finding: 1 positive, 0 negative, -1 uncertain, ``None`` not mentioned.
    #[getter]
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dictionary(py, &self.labels)
    }

    fn __repr__(&self) -> String {
        format!("mrm.Reading(reader={:?})", self.reader)
    }
}

/// Names with a code each.
type Codes = Vec<(String, Option<i8>)>;

fn dictionary<'py, V: IntoPyObject<'py> + Clone>(
    py: Python<'py>,
    values: &[(String, V)],
) -> PyResult<Bound<'py, PyDict>> {
    let made = PyDict::new(py);
    values.iter().try_for_each(|(name, value)| made.set_item(name, value.clone()))?;
    Ok(made)
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
    /// Date, or date and time, of the study as de-identified: ``2110-03-07``, ``2110-03-07T14:05:09``.
    #[pyo3(get)]
    study_datetime: Option<String>,
    /// Number by which the patient's studies are ordered in time.
    #[pyo3(get)]
    study_order: Option<u32>,
    /// View: ``PA``, ``AP``, ``LATERAL``, …
    #[pyo3(get)]
    view: Option<String>,
    /// ``M``, ``F`` or ``O``.
    #[pyo3(get)]
    sex: Option<String>,
    /// Age in years.
    #[pyo3(get)]
    age_years: Option<f32>,
    /// Distance of rows and of columns of the raw image in millimeters.
    #[pyo3(get)]
    pixel_spacing: Option<(f32, f32)>,
    /// Center and width of the window of an image of 16 bits, in stored values; ``None`` for 8 bits.
    #[pyo3(get)]
    window: Option<(f32, f32)>,
    /// Language of the report: ``en``, ``es``, ``pt-BR``.
    #[pyo3(get)]
    language: Option<String>,
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
    /// All named sections of the report, in its order.
    #[pyo3(get)]
    texts: Vec<Py<NamedText>>,
    /// Where the labels are from: ``radiologist``, ``consensus``, ``nlp:chexpert``, …
    #[pyo3(get)]
    label_origin: Option<String>,
    /// The labels of each reader, where several read the image.
    #[pyo3(get)]
    readings: Vec<Py<Reading>>,
    /// Boxes of findings.
    #[pyo3(get)]
    boxes: Vec<Py<BoundingBox>>,
    /// The stored image: ``uint8 [height, width]``, or ``uint16`` where images have 16 bits; ``None`` where the dataset has no
    /// images.
    #[pyo3(get)]
    image: Option<Py<Array>>,
    masks: Vec<(String, Py<Array>)>,
    labels: Codes,
    grades: Codes,
}

impl Record {
    /// Reads a record and decodes its image and masks.
    pub fn read(dataset: &Arc<dataset::Dataset>, row: usize) -> dataset::Result<Parts> {
        let record = dataset.record_without_image(row)?;
        let image = if record.height == 0 { None } else { Some(Image::read(dataset, row)?) };
        let decode = |stored: &dataset::format::record::NamedMask| {
            let mut mask = image_codec::decode(&stored.png)?;
            mask.pixels.iter_mut().for_each(|level| *level = u8::from(*level > 0));
            Ok::<_, dataset::Error>((stored.name.clone(), mask))
        };
        let masks = record.masks.iter().map(decode).collect::<Result<_, _>>()?;
        let scales = dataset.manifest().grades.iter().map(|scale| scale.name.clone()).collect();
        Ok(Parts { record, row, image, masks, findings: dataset.findings().to_vec(), scales })
    }
}

#[pymethods]
impl Record {
    /// Label of each finding: 1 positive, 0 negative, -1 uncertain, ``None`` not mentioned.
    #[getter]
    fn labels<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dictionary(py, &self.labels)
    }

    /// Grade of each scale: the number of its value in the manifest's ``grades``, from 0; ``None`` where it is not stated.
    #[getter]
    fn grades<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dictionary(py, &self.grades)
    }

    /// The stored masks by name: ``uint8 [height, width]``, 1 inside.
    #[getter]
    fn masks<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let masks: Vec<_> = self.masks.iter().map(|(name, mask)| (name.clone(), mask.bind(py).clone())).collect();
        dictionary(py, &masks)
    }

    /// The first of the masks; ``None`` where there is none.
    #[getter]
    fn mask(&self, py: Python<'_>) -> Option<Py<Array>> {
        self.masks.first().map(|(_, mask)| mask.clone_ref(py))
    }

    fn __repr__(&self) -> String {
        format!("mrm.Record({})", self.record_id)
    }
}

/// What a record is made of, read without the interpreter.
pub struct Parts {
    record: dataset::format::record::Record,
    row: usize,
    image: Option<Image>,
    masks: Vec<(String, image_codec::GrayPixels)>,
    findings: Vec<String>,
    scales: Vec<String>,
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
            let dataset::format::record::BoundingBox { label, x, y, width, height, score, sentence, reader } = stored;
            Py::new(py, BoundingBox { label, x, y, width, height, score, sentence, reader })
        });
        let texts = self.record.texts.into_iter().map(|stored| {
            let dataset::format::record::NamedText { name, text, token_ids } = stored;
            Py::new(py, NamedText { name, text, token_ids })
        });
        let codes = |labels: Vec<Option<dataset::Label>>| -> Codes {
            let codes = labels.into_iter().map(|label| label.map(dataset::Label::code));
            self.findings.iter().cloned().zip(codes).collect()
        };
        let readings = self.record.readings.into_iter();
        let readings =
            readings.map(|stored| Py::new(py, Reading { reader: stored.reader, labels: codes(stored.labels) }));
        let masks = self.masks.into_iter().map(|(name, mask)| Ok((name, array(mask)?)));
        let record = Record {
            row: self.row,
            boxes: boxes.collect::<PyResult<_>>()?,
            image: self.image.map(|image| Py::new(py, image.array())).transpose()?,
            masks: masks.collect::<PyResult<_>>()?,
            texts: texts.collect::<PyResult<_>>()?,
            readings: readings.collect::<PyResult<_>>()?,
            labels: codes(self.record.labels),
            grades: self.scales.into_iter().zip(self.record.grades).collect(),
            record_id: self.record.record_id,
            patient_id: self.record.patient_id,
            study_id: self.record.study_id,
            image_id: self.record.image_id,
            source_path: self.record.source_path,
            subset: self.record.subset,
            study_datetime: self.record.study_datetime,
            study_order: self.record.study_order,
            view: self.record.view,
            sex: self.record.sex,
            age_years: self.record.age_years,
            pixel_spacing: self.record.pixel_spacing.map(Into::into),
            window: self.record.window.map(Into::into),
            language: self.record.language,
            label_origin: self.record.label_origin,
            report: self.record.report,
            findings: self.record.findings,
            impression: self.record.impression,
            token_ids: self.record.token_ids,
        };
        Bound::new(py, record)
    }
}
