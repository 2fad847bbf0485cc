//! Records as Arrow batches of the format's schema, and back.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, FixedSizeBinaryBuilder, Int32Builder, ListBuilder};
use arrow_array::{
    Array, ArrayRef, BinaryArray, FixedSizeBinaryArray, Float32Array, Int8Array, Int32Array, ListArray, RecordBatch,
    StringArray, StructArray, UInt16Array, UInt32Array,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, DataType, SchemaRef};

use crate::format::label::Label;
use crate::format::record::{self, BoundingBox, Record};
use crate::format::record_checks;
use crate::format::table::column;

/// Bytes of images and masks in one batch, below the limit of Arrow's 32-bit offsets.
pub(crate) const BATCH_BYTES: usize = 256 << 20;

/// Number of records, from the first on, that make a batch of at most so many bytes; at least one.
pub(crate) fn fitting<'a>(records: impl Iterator<Item = &'a Record>, most: usize) -> usize {
    let mut bytes = 0;
    let fits = |record: &&Record| {
        bytes += record.image.len() + record.mask.as_ref().map_or(0, Vec::len);
        bytes <= most
    };
    records.take_while(fits).count().max(1)
}

/// Records as one batch of the format's schema.
pub(crate) fn to_batch(schema: &SchemaRef, records: &[Record]) -> Result<RecordBatch, ArrowError> {
    let text = |get: fn(&Record) -> &str| -> ArrayRef {
        Arc::new(records.iter().map(|r| Some(get(r))).collect::<StringArray>())
    };
    let optional =
        |get: fn(&Record) -> Option<&str>| -> ArrayRef { Arc::new(records.iter().map(get).collect::<StringArray>()) };
    let count =
        |get: fn(&Record) -> u32| -> ArrayRef { Arc::new(UInt32Array::from_iter_values(records.iter().map(get))) };
    let side =
        |get: fn(&Record) -> u16| -> ArrayRef { Arc::new(UInt16Array::from_iter_values(records.iter().map(get))) };

    let mut digests = FixedSizeBinaryBuilder::with_capacity(records.len(), 32);
    let mut images = BinaryBuilder::with_capacity(records.len(), records.iter().map(|r| r.image.len()).sum());
    let mut tokens = ListBuilder::new(Int32Builder::new()).with_field(record::token_item());
    for record in records {
        digests.append_value(record.source_sha256)?;
        images.append_value(&record.image);
        tokens.values().append_slice(&record.token_ids);
        tokens.append(true);
    }

    let DataType::Struct(named) = schema.field_with_name("labels")?.data_type() else {
        return Err(ArrowError::SchemaError("labels is not a struct".to_owned()));
    };
    let labels = (0..named.len())
        .map(|i| {
            Arc::new(records.iter().map(|r| r.labels.get(i).copied().flatten().map(Label::code)).collect::<Int8Array>())
                as ArrayRef
        })
        .collect();

    let boxes: Vec<&BoundingBox> = records.iter().flat_map(|r| &r.boxes).collect();
    let edge = |get: fn(&BoundingBox) -> f32| -> ArrayRef {
        Arc::new(Float32Array::from_iter_values(boxes.iter().map(|b| get(b))))
    };
    let box_values = StructArray::try_new(
        record::box_fields(),
        vec![
            Arc::new(boxes.iter().map(|b| Some(b.label.as_str())).collect::<StringArray>()),
            edge(|b| b.x),
            edge(|b| b.y),
            edge(|b| b.width),
            edge(|b| b.height),
        ],
        None,
    )?;
    let box_list = ListArray::try_new(
        record::box_item(),
        OffsetBuffer::from_lengths(records.iter().map(|r| r.boxes.len())),
        Arc::new(box_values),
        None,
    )?;

    RecordBatch::try_new(
        schema.clone(),
        vec![
            text(|r| &r.record_id),
            text(|r| &r.patient_id),
            text(|r| &r.study_id),
            text(|r| &r.image_id),
            text(|r| &r.source_path),
            Arc::new(digests.finish()),
            optional(|r| r.subset.as_deref()),
            optional(|r| r.view.as_deref()),
            optional(|r| r.sex.as_deref()),
            Arc::new(records.iter().map(|r| r.age_years).collect::<Float32Array>()),
            side(|r| r.height),
            side(|r| r.width),
            count(|r| r.source_height),
            count(|r| r.source_width),
            Arc::new(images.finish()),
            optional(|r| r.report.as_deref()),
            optional(|r| r.findings.as_deref()),
            optional(|r| r.impression.as_deref()),
            Arc::new(tokens.finish()),
            Arc::new(StructArray::try_new(named.clone(), labels, None)?),
            Arc::new(box_list),
            Arc::new(records.iter().map(|r| r.mask.as_deref()).collect::<BinaryArray>()),
        ],
    )
}

/// A row without its image.
///
/// # Errors
/// When a column has another type than the format's, or a label is invalid.
pub(crate) fn from_batch(batch: &RecordBatch, row: usize) -> Result<Record, String> {
    let codes = label_codes(batch, row).ok_or(WRONG_TYPE)?;
    let labels = codes.into_iter().map(record_checks::label).collect::<Result<_, _>>()?;
    let record = without_labels(batch, row).ok_or(WRONG_TYPE)?;
    Ok(Record { labels, ..record })
}

const WRONG_TYPE: &str = "a column has another type than the format's";

/// The label codes of a row; `None` where the column has another type than the format's.
fn label_codes(batch: &RecordBatch, row: usize) -> Option<Vec<Option<i8>>> {
    let columns = column::<StructArray>(batch, "labels")?.columns().iter();
    columns
        .map(|codes| codes.as_any().downcast_ref::<Int8Array>().map(|c| c.is_valid(row).then(|| c.value(row))))
        .collect()
}

/// A row without its image and labels; `None` where a column has another type than the format's.
fn without_labels(batch: &RecordBatch, row: usize) -> Option<Record> {
    let text = |name: &str| -> Option<Option<String>> {
        let array = column::<StringArray>(batch, name)?;
        Some(array.is_valid(row).then(|| array.value(row).to_owned()))
    };
    let ages = column::<Float32Array>(batch, "age_years")?;
    let masks = column::<BinaryArray>(batch, "mask")?;
    let tokens = column::<ListArray>(batch, "token_ids")?.value(row);
    let boxes = column::<ListArray>(batch, "boxes")?.value(row);
    let boxes = boxes.as_any().downcast_ref::<StructArray>()?;
    let edge = |i: usize| boxes.column(i).as_any().downcast_ref::<Float32Array>();
    let (x, y, width, height) = (edge(1)?, edge(2)?, edge(3)?, edge(4)?);
    let box_labels = boxes.column(0).as_any().downcast_ref::<StringArray>()?;
    Some(Record {
        record_id: text("record_id")??,
        patient_id: text("patient_id")??,
        study_id: text("study_id")??,
        image_id: text("image_id")??,
        source_path: text("source_path")??,
        source_sha256: column::<FixedSizeBinaryArray>(batch, "source_sha256")?.value(row).try_into().ok()?,
        subset: text("subset")?,
        view: text("view")?,
        sex: text("sex")?,
        age_years: ages.is_valid(row).then(|| ages.value(row)),
        height: column::<UInt16Array>(batch, "height")?.value(row),
        width: column::<UInt16Array>(batch, "width")?.value(row),
        source_height: column::<UInt32Array>(batch, "source_height")?.value(row),
        source_width: column::<UInt32Array>(batch, "source_width")?.value(row),
        image: Vec::new(),
        report: text("report")?,
        findings: text("findings")?,
        impression: text("impression")?,
        token_ids: tokens.as_any().downcast_ref::<Int32Array>()?.values().to_vec(),
        labels: Vec::new(),
        boxes: (0..boxes.len())
            .map(|i| BoundingBox {
                label: box_labels.value(i).to_owned(),
                x: x.value(i),
                y: y.value(i),
                width: width.value(i),
                height: height.value(i),
            })
            .collect(),
        mask: masks.is_valid(row).then(|| masks.value(row).to_vec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_images_go_in_several_batches() {
        let records = [10, 10, 30, 5].map(|bytes| Record { image: vec![0; bytes], ..Record::default() });
        let from = |first: usize, most| fitting(records[first..].iter(), most);
        assert_eq!((from(0, 20), from(2, 20), from(3, 20), from(0, 1000)), (2, 1, 1, 4));
    }
}
