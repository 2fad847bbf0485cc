//! Rows of Arrow batches of the format's schema as records. `record_batch.rs` is the way there.

use arrow_array::{
    Array, BinaryArray, FixedSizeBinaryArray, Float32Array, Int8Array, Int32Array, ListArray, RecordBatch, StringArray,
    StructArray, UInt16Array, UInt32Array,
};

use crate::format::label::Label;
use crate::format::record::{BoundingBox, NamedMask, NamedText, Reading, Record};
use crate::format::record_checks;
use crate::format::schema::{BOXES, GRADES, LABELS, MASKS, SOURCE_DIGEST, WINDOW};
use crate::format::table::column;

const WRONG_TYPE: &str = "a column has another type than the format's";

/// A row without its image.
///
/// # Errors
/// When a column has another type than the format's, or a label is invalid.
pub(crate) fn from_batch(batch: &RecordBatch, row: usize) -> Result<Record, String> {
    let labels = codes(column(batch, LABELS).ok_or(WRONG_TYPE)?, row).ok_or(WRONG_TYPE)?;
    let readings = readings(batch, row).ok_or(WRONG_TYPE)?;
    let readings = readings.into_iter().map(|(reader, codes)| Ok(Reading { reader, labels: checked(codes)? }));
    let record = Record {
        labels: checked(labels)?,
        readings: readings.collect::<Result<_, String>>()?,
        ..without_labels(batch, row).ok_or(WRONG_TYPE)?
    };
    Ok(record)
}

/// A row with one column alone: `labels`, `boxes`, `masks`, `texts` or `subset`.
///
/// # Errors
/// As [`from_batch`].
pub(crate) fn from_columns(batch: &RecordBatch, row: usize, name: &str) -> Result<Record, String> {
    let mut record = Record::default();
    match name {
        LABELS => record.labels = checked(codes(column(batch, LABELS).ok_or(WRONG_TYPE)?, row).ok_or(WRONG_TYPE)?)?,
        BOXES => {
            record.boxes = list::<StructArray>(batch, BOXES, row).and_then(|list| boxes(&list)).ok_or(WRONG_TYPE)?;
        }
        MASKS => {
            record.masks = list::<StructArray>(batch, MASKS, row).and_then(|list| masks(&list)).ok_or(WRONG_TYPE)?;
        }
        "texts" => {
            record.texts = list::<StructArray>(batch, name, row).and_then(|list| texts(&list)).ok_or(WRONG_TYPE)?;
        }
        _ => record.subset = text_at(column::<StringArray>(batch, name).ok_or(WRONG_TYPE)?, row),
    }
    Ok(record)
}

fn checked(codes: Vec<Option<i8>>) -> Result<Vec<Option<Label>>, String> {
    codes.into_iter().map(record_checks::label).collect()
}

/// The number in each field of a struct; `None` where a field has another type than the format's.
fn codes(fields: &StructArray, row: usize) -> Option<Vec<Option<i8>>> {
    let code = |codes: &Int8Array| codes.is_valid(row).then(|| codes.value(row));
    fields.columns().iter().map(|codes| codes.as_any().downcast_ref().map(code)).collect()
}

/// The list of a row as an array.
pub(crate) fn list<T: Array + Clone + 'static>(batch: &RecordBatch, name: &str, row: usize) -> Option<T> {
    column::<ListArray>(batch, name)?.value(row).as_any().downcast_ref::<T>().cloned()
}

/// A field of structs.
pub(crate) fn field<'a, T: 'static>(structs: &'a StructArray, name: &str) -> Option<&'a T> {
    structs.column_by_name(name)?.as_any().downcast_ref()
}

fn readings(batch: &RecordBatch, row: usize) -> Option<Vec<(String, Vec<Option<i8>>)>> {
    let readings: StructArray = list(batch, "readings", row)?;
    let (readers, labels) = (field::<StringArray>(&readings, "reader")?, field::<StructArray>(&readings, LABELS)?);
    (0..readings.len()).map(|at| Some((readers.value(at).to_owned(), codes(labels, at)?))).collect()
}

/// A row without its image, labels and readings; `None` where a column has another type than the format's.
fn without_labels(batch: &RecordBatch, row: usize) -> Option<Record> {
    let text = |name: &str| Some(text_at(column::<StringArray>(batch, name)?, row));
    let number = |name: &str| Some(column::<UInt32Array>(batch, name)?.value(row));
    let orders = column::<UInt32Array>(batch, "study_order")?;
    Some(Record {
        record_id: text("record_id")??,
        patient_id: text("patient_id")??,
        study_id: text("study_id")??,
        image_id: text("image_id")??,
        source_path: text("source_path")??,
        source_digest: column::<FixedSizeBinaryArray>(batch, SOURCE_DIGEST)?.value(row).try_into().ok()?,
        subset: text("subset")?,
        study_datetime: text("study_datetime")?,
        study_order: orders.is_valid(row).then(|| orders.value(row)),
        view: text("view")?,
        sex: text("sex")?,
        age_years: float_at(column(batch, "age_years")?, row),
        height: column::<UInt16Array>(batch, "height")?.value(row),
        width: column::<UInt16Array>(batch, "width")?.value(row),
        source_height: number("source_height")?,
        source_width: number("source_width")?,
        pixel_spacing: pair(batch, "pixel_spacing", ["row", "column"], row)?,
        window: window_at(batch, row)?,
        image: Vec::new(),
        language: text("language")?,
        report: text("report")?,
        findings: text("findings")?,
        impression: text("impression")?,
        token_ids: list::<Int32Array>(batch, "token_ids", row)?.values().to_vec(),
        texts: texts(&list(batch, "texts", row)?)?,
        labels: Vec::new(),
        label_origin: text("label_origin")?,
        grades: match batch.column_by_name(GRADES) {
            None => Vec::new(),
            Some(grades) => codes(grades.as_any().downcast_ref()?, row)?,
        },
        readings: Vec::new(),
        boxes: boxes(&list(batch, BOXES, row)?)?,
        masks: masks(&list(batch, MASKS, row)?)?,
    })
}

fn text_at(values: &StringArray, at: usize) -> Option<String> {
    values.is_valid(at).then(|| values.value(at).to_owned())
}

fn float_at(values: &Float32Array, at: usize) -> Option<f32> {
    values.is_valid(at).then(|| values.value(at))
}

/// The window of a row as center and width; `Some(None)` where it is null.
#[expect(clippy::option_option, reason = "`None` is a wrong type, `Some(None)` a null")]
pub(crate) fn window_at(batch: &RecordBatch, row: usize) -> Option<Option<[f32; 2]>> {
    pair(batch, WINDOW, ["center", "width"], row)
}

/// The two numbers of a struct; `Some(None)` where it is null.
#[expect(clippy::option_option, reason = "`None` is a wrong type, `Some(None)` a null")]
fn pair(batch: &RecordBatch, name: &str, fields: [&str; 2], row: usize) -> Option<Option<[f32; 2]>> {
    let pairs = column::<StructArray>(batch, name)?;
    let [first, second] = fields.map(|part| field::<Float32Array>(pairs, part));
    let (first, second) = (first?, second?);
    Some(pairs.is_valid(row).then(|| [first.value(row), second.value(row)]))
}

fn texts(texts: &StructArray) -> Option<Vec<NamedText>> {
    let (names, contents) = (field::<StringArray>(texts, "name")?, field::<StringArray>(texts, "text")?);
    let ids = field::<ListArray>(texts, "token_ids")?;
    let text = |at: usize| {
        Some(NamedText {
            name: names.value(at).to_owned(),
            text: contents.value(at).to_owned(),
            token_ids: ids.value(at).as_any().downcast_ref::<Int32Array>()?.values().to_vec(),
        })
    };
    (0..texts.len()).map(text).collect()
}

fn boxes(boxes: &StructArray) -> Option<Vec<BoundingBox>> {
    let text = |name: &str| field::<StringArray>(boxes, name);
    let number = |name: &str| field::<Float32Array>(boxes, name);
    let (labels, sentences, readers) = (text("label")?, text("sentence")?, text("reader")?);
    let (x, y, width, height) = (number("x")?, number("y")?, number("width")?, number("height")?);
    let scores = number("score")?;
    let rectangle = |at: usize| BoundingBox {
        label: labels.value(at).to_owned(),
        x: x.value(at),
        y: y.value(at),
        width: width.value(at),
        height: height.value(at),
        score: float_at(scores, at),
        sentence: text_at(sentences, at),
        reader: text_at(readers, at),
    };
    Some((0..boxes.len()).map(rectangle).collect())
}

fn masks(masks: &StructArray) -> Option<Vec<NamedMask>> {
    let (names, files) = (field::<StringArray>(masks, "name")?, field::<BinaryArray>(masks, "png")?);
    let mask = |at: usize| NamedMask { name: names.value(at).to_owned(), png: files.value(at).to_vec() };
    Some((0..masks.len()).map(mask).collect())
}
