//! Records as Arrow batches of the format's schema. `record_rows.rs` is the way back.

use std::sync::Arc;

use arrow_array::builder::FixedSizeBinaryBuilder;
use arrow_array::{
    ArrayRef, BinaryArray, Float32Array, Int8Array, Int32Array, ListArray, RecordBatch, StringArray, StructArray,
    UInt16Array, UInt32Array,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{ArrowError, DataType, Field, Fields, SchemaRef};

use crate::format::label::Label;
use crate::format::record::{BoundingBox, NamedMask, NamedText, Reading, Record};

/// Bytes of images, masks and texts in one batch, below the limit of Arrow's 32-bit offsets.
pub(crate) const BATCH_BYTES: usize = 256 << 20;

/// Number of records, from the first on, that make a batch of at most so many bytes; at least one.
pub(crate) fn fitting<'a>(records: impl Iterator<Item = &'a Record>, most: usize) -> usize {
    let mut bytes = 0;
    let fits = |record: &&Record| {
        let texts = [&record.report, &record.findings, &record.impression].into_iter().flatten();
        bytes += record.image.len()
            + texts.map(String::len).sum::<usize>()
            + record.texts.iter().map(|text| text.text.len()).sum::<usize>()
            + record.masks.iter().map(|mask| mask.png.len()).sum::<usize>();
        bytes <= most
    };
    records.take_while(fits).count().max(1)
}

/// Records as one batch of the format's schema.
pub(crate) fn to_batch(schema: &SchemaRef, records: &[Record]) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().map(|field| column(field, records)).collect::<Result<_, _>>()?;
    RecordBatch::try_new(schema.clone(), columns)
}

/// One column of the schema.
fn column(field: &Field, records: &[Record]) -> Result<ArrayRef, ArrowError> {
    let kind = field.data_type();
    let text = |get: fn(&Record) -> &str| strings(records.iter().map(|record| Some(get(record))));
    let optional = |get: fn(&Record) -> &Option<String>| strings(records.iter().map(|record| get(record).as_deref()));
    let count =
        |get: fn(&Record) -> Option<u32>| -> ArrayRef { Arc::new(records.iter().map(get).collect::<UInt32Array>()) };
    let side =
        |get: fn(&Record) -> u16| -> ArrayRef { Arc::new(UInt16Array::from_iter_values(records.iter().map(get))) };
    Ok(match field.name().as_str() {
        "record_id" => text(|r| &r.record_id),
        "patient_id" => text(|r| &r.patient_id),
        "study_id" => text(|r| &r.study_id),
        "image_id" => text(|r| &r.image_id),
        "source_path" => text(|r| &r.source_path),
        "source_digest" => digests(records)?,
        "subset" => optional(|r| &r.subset),
        "study_datetime" => optional(|r| &r.study_datetime),
        "study_order" => count(|r| r.study_order),
        "view" => optional(|r| &r.view),
        "sex" => optional(|r| &r.sex),
        "age_years" => floats(records.iter().map(|r| r.age_years)),
        "height" => side(|r| r.height),
        "width" => side(|r| r.width),
        "source_height" => count(|r| Some(r.source_height)),
        "source_width" => count(|r| Some(r.source_width)),
        "pixel_spacing" => pairs(kind, records.iter().map(|r| r.pixel_spacing).collect())?,
        "window" => pairs(kind, records.iter().map(|r| r.window).collect())?,
        "image" => bytes(records.iter().map(|r| r.image.as_slice())),
        "language" => optional(|r| &r.language),
        "report" => optional(|r| &r.report),
        "findings" => optional(|r| &r.findings),
        "impression" => optional(|r| &r.impression),
        "token_ids" => ids(kind, records.iter().map(|r| r.token_ids.as_slice()))?,
        "texts" => {
            let texts: Vec<&NamedText> = records.iter().flat_map(|r| &r.texts).collect();
            items(kind, records.iter().map(|r| r.texts.len()), |fields| {
                Ok(vec![
                    strings(texts.iter().map(|text| Some(text.name.as_str()))),
                    strings(texts.iter().map(|text| Some(text.text.as_str()))),
                    ids(kind_of(fields, "token_ids")?, texts.iter().map(|text| text.token_ids.as_slice()))?,
                ])
            })?
        }
        "labels" => label_codes(kind, &records.iter().map(|r| r.labels.as_slice()).collect::<Vec<_>>())?,
        "label_origin" => optional(|r| &r.label_origin),
        "grades" => codes(kind, |at| records.iter().map(|r| r.grades.get(at).copied().flatten()).collect())?,
        "readings" => {
            let readings: Vec<&Reading> = records.iter().flat_map(|r| &r.readings).collect();
            items(kind, records.iter().map(|r| r.readings.len()), |fields| {
                let labels: Vec<&[Option<Label>]> = readings.iter().map(|reading| reading.labels.as_slice()).collect();
                let readers = strings(readings.iter().map(|reading| Some(reading.reader.as_str())));
                Ok(vec![readers, label_codes(kind_of(fields, "labels")?, &labels)?])
            })?
        }
        "boxes" => {
            let boxes: Vec<&BoundingBox> = records.iter().flat_map(|r| &r.boxes).collect();
            let edge = |get: fn(&BoundingBox) -> f32| floats(boxes.iter().map(|b| Some(get(b))));
            items(kind, records.iter().map(|r| r.boxes.len()), |_| {
                Ok(vec![
                    strings(boxes.iter().map(|b| Some(b.label.as_str()))),
                    edge(|b| b.x),
                    edge(|b| b.y),
                    edge(|b| b.width),
                    edge(|b| b.height),
                    floats(boxes.iter().map(|b| b.score)),
                    strings(boxes.iter().map(|b| b.sentence.as_deref())),
                    strings(boxes.iter().map(|b| b.reader.as_deref())),
                ])
            })?
        }
        "masks" => {
            let masks: Vec<&NamedMask> = records.iter().flat_map(|r| &r.masks).collect();
            items(kind, records.iter().map(|r| r.masks.len()), |_| {
                let names = strings(masks.iter().map(|mask| Some(mask.name.as_str())));
                Ok(vec![names, bytes(masks.iter().map(|mask| mask.png.as_slice()))])
            })?
        }
        other => return Err(ArrowError::SchemaError(format!("`{other}` is no column of the format"))),
    })
}

fn strings<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn floats(values: impl Iterator<Item = Option<f32>>) -> ArrayRef {
    Arc::new(values.collect::<Float32Array>())
}

fn bytes<'a>(values: impl Iterator<Item = &'a [u8]>) -> ArrayRef {
    Arc::new(BinaryArray::from_iter_values(values))
}

fn digests(records: &[Record]) -> Result<ArrayRef, ArrowError> {
    let mut digests = FixedSizeBinaryBuilder::with_capacity(records.len(), 32);
    records.iter().try_for_each(|record| digests.append_value(record.source_digest))?;
    Ok(Arc::new(digests.finish()))
}

/// A struct of two numbers, null where there are none.
fn pairs(kind: &DataType, values: Vec<Option<[f32; 2]>>) -> Result<ArrayRef, ArrowError> {
    let part = |at: usize| -> ArrayRef {
        Arc::new(Float32Array::from_iter_values(values.iter().map(|pair| pair.map_or(0.0, |pair| pair[at]))))
    };
    let valid: Vec<bool> = values.iter().map(Option::is_some).collect();
    let parts = StructArray::try_new(fields_of(kind)?.clone(), vec![part(0), part(1)], Some(NullBuffer::from(valid)))?;
    Ok(Arc::new(parts))
}

/// A list of token ids for each item.
fn ids<'a>(kind: &DataType, lists: impl Iterator<Item = &'a [i32]> + Clone) -> Result<ArrayRef, ArrowError> {
    let values = Int32Array::from_iter_values(lists.clone().flatten().copied());
    list(kind, lists.map(<[i32]>::len), Arc::new(values))
}

/// A struct with a field of codes for each name; `of` has the codes of a field.
fn codes(kind: &DataType, of: impl Fn(usize) -> Int8Array) -> Result<ArrayRef, ArrowError> {
    let fields = fields_of(kind)?;
    let columns = (0..fields.len()).map(|at| Arc::new(of(at)) as ArrayRef).collect();
    Ok(Arc::new(StructArray::try_new(fields.clone(), columns, None)?))
}

fn label_codes(kind: &DataType, labels: &[&[Option<Label>]]) -> Result<ArrayRef, ArrowError> {
    codes(kind, |at| labels.iter().map(|labels| labels.get(at).copied().flatten().map(Label::code)).collect())
}

/// A list of structs for each record; `parts` makes the columns of all structs of the type's fields.
fn items(
    kind: &DataType,
    lengths: impl Iterator<Item = usize>,
    parts: impl FnOnce(&Fields) -> Result<Vec<ArrayRef>, ArrowError>,
) -> Result<ArrayRef, ArrowError> {
    let DataType::List(item) = kind else { return Err(unexpected(kind)) };
    let fields = fields_of(item.data_type())?;
    let values = StructArray::try_new(fields.clone(), parts(fields)?, None)?;
    list(kind, lengths, Arc::new(values))
}

fn list(kind: &DataType, lengths: impl Iterator<Item = usize>, values: ArrayRef) -> Result<ArrayRef, ArrowError> {
    let DataType::List(item) = kind else { return Err(unexpected(kind)) };
    Ok(Arc::new(ListArray::try_new(item.clone(), OffsetBuffer::from_lengths(lengths), values, None)?))
}

fn fields_of(kind: &DataType) -> Result<&Fields, ArrowError> {
    if let DataType::Struct(fields) = kind { Ok(fields) } else { Err(unexpected(kind)) }
}

fn kind_of<'a>(fields: &'a Fields, name: &str) -> Result<&'a DataType, ArrowError> {
    let field = fields.iter().find(|field| field.name() == name);
    field.map(|field| field.data_type()).ok_or_else(|| ArrowError::SchemaError(format!("there is no field `{name}`")))
}

fn unexpected(kind: &DataType) -> ArrowError {
    ArrowError::SchemaError(format!("{kind} is not the type of the format"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_records_go_in_several_batches() {
        let records = [10, 10, 30, 5].map(|bytes| Record { image: vec![0; bytes], ..Record::default() });
        let from = |first: usize, most| fitting(records[first..].iter(), most);
        assert_eq!((from(0, 20), from(2, 20), from(3, 20), from(0, 1000)), (2, 1, 1, 4));
        let text = NamedText { text: "0123456789".to_owned(), ..NamedText::default() };
        let mask = NamedMask { png: vec![0; 10], ..NamedMask::default() };
        let records =
            [Record { texts: vec![text], ..Record::default() }, Record { masks: vec![mask], ..Record::default() }];
        assert_eq!((fitting(records.iter(), 19), fitting(records.iter(), 20)), (1, 2));
    }
}
