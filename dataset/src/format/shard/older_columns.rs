//! Columns of shards of older builds, as today's format has them: other names, other types, and columns that are missing.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BinaryArray, ListArray, RecordBatch, RecordBatchOptions, StringArray, StructArray,
    new_empty_array, new_null_array,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Fields, Schema};

use crate::format::manifest::ONLY_MASK;
use crate::format::schema::{BOXES, MASKS, SOURCE_DIGEST};

/// Columns that had another name, and that name.
const RENAMED: [(&str, &str); 2] = [(SOURCE_DIGEST, "source_sha256"), (MASKS, OLD_MASK)];

/// The column of the one mask of a record, null where it has none.
const OLD_MASK: &str = "mask";

/// Columns that a shard may lack. They are read as null or empty.
const ADDED: [&str; 8] =
    ["study_datetime", "study_order", "pixel_spacing", "window", "language", "texts", "label_origin", "readings"];

/// The name of a column in a shard.
pub(super) fn stored_name<'a>(name: &'a str, stored: &Schema) -> &'a str {
    let is_there = |name: &str| stored.field_with_name(name).is_ok();
    let older = RENAMED.into_iter().find(|(new, old)| *new == name && !is_there(new) && is_there(old));
    older.map_or(name, |(_, old)| old)
}

/// Whether all columns of a shard are those of today's format.
pub(super) fn is_current(stored: &Schema, current: &Schema) -> bool {
    let is_same = |field: &FieldRef| {
        stored.field_with_name(field.name()).is_ok_and(|found| found.data_type() == field.data_type())
    };
    current.fields().iter().all(is_same)
}

/// Checks that a shard has every column of the format, or what it was before.
///
/// # Errors
/// Names the column that is missing or has another type.
pub(super) fn check(stored: &Schema, current: &Schema) -> Result<(), String> {
    for expected in current.fields() {
        let name = stored_name(expected.name(), stored);
        let kinds = [Some(expected.data_type().clone()), older_type(name, expected.data_type())];
        match stored.field_with_name(name) {
            Ok(found) if kinds.iter().flatten().any(|kind| kind == found.data_type()) => {}
            Ok(found) => {
                let (found, expected) = (found.data_type(), expected.data_type());
                return Err(format!("column `{name}` has type {found}, expected {expected}"));
            }
            Err(_) if ADDED.contains(&name) => {}
            Err(_) => return Err(format!("the column `{name}` is missing")),
        }
    }
    Ok(())
}

/// The columns of a shard that must not have nulls, by their names there.
pub(super) fn required(stored: &Schema, current: &Schema) -> Vec<String> {
    let names = current.fields().iter().filter(|field| !field.is_nullable());
    let names = names.map(|field| stored_name(field.name(), stored));
    names.filter(|name| *name != OLD_MASK).map(str::to_owned).collect()
}

/// The type that a column had before; `None` where it had no other.
fn older_type(stored_name: &str, current: &DataType) -> Option<DataType> {
    match (stored_name, current) {
        (OLD_MASK, _) => Some(DataType::Binary),
        (BOXES, DataType::List(item)) => {
            let fields = fields_of(item)?.iter().filter(|field| !field.is_nullable()).cloned().collect();
            Some(DataType::List(Arc::new(item.as_ref().clone().with_data_type(DataType::Struct(fields)))))
        }
        _ => None,
    }
}

fn fields_of(item: &Field) -> Option<&Fields> {
    if let DataType::Struct(fields) = item.data_type() { Some(fields) } else { None }
}

/// A batch of a shard with the columns that were asked for as today's format has them. Columns that the format does not have
/// are kept.
///
/// # Errors
/// When a column has neither today's type nor its older one.
pub(super) fn upgrade(batch: &RecordBatch, current: &Schema, names: &[&str]) -> Result<RecordBatch, ArrowError> {
    let (mut fields, mut columns): (Vec<FieldRef>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    let is_wanted = |field: &&FieldRef| names.contains(&field.name().as_str());
    for field in current.fields().iter().filter(is_wanted) {
        let name = stored_name(field.name(), &batch.schema());
        columns.push(match batch.column_by_name(name) {
            Some(found) if found.data_type() == field.data_type() => found.clone(),
            Some(found) => converted(found, field)?,
            None => missing(field.data_type(), batch.num_rows())?,
        });
        fields.push(field.clone());
    }
    let is_of_format =
        |name: &str| current.field_with_name(name).is_ok() || RENAMED.iter().any(|(_, old)| *old == name);
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if !is_of_format(field.name()) {
            fields.push(field.clone());
            columns.push(column.clone());
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
}

/// A column that no row has.
fn missing(kind: &DataType, rows: usize) -> Result<ArrayRef, ArrowError> {
    let DataType::List(item) = kind else { return Ok(new_null_array(kind, rows)) };
    let lengths = std::iter::repeat_n(0, rows);
    list(item, lengths, new_empty_array(item.data_type()))
}

fn list(item: &FieldRef, lengths: impl Iterator<Item = usize>, values: ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(Arc::new(ListArray::try_new(item.clone(), OffsetBuffer::from_lengths(lengths), values, None)?))
}

/// A column of an older type: the one mask of a record, or boxes with fewer fields.
fn converted(found: &ArrayRef, field: &Field) -> Result<ArrayRef, ArrowError> {
    let unexpected = || ArrowError::SchemaError(format!("`{}` has type {}", field.name(), found.data_type()));
    let DataType::List(item) = field.data_type() else { return Err(unexpected()) };
    let fields = fields_of(item).ok_or_else(unexpected)?;
    if let Some(masks) = found.as_any().downcast_ref::<BinaryArray>() {
        let files: ArrayRef = Arc::new(BinaryArray::from_iter_values(masks.iter().flatten()));
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(std::iter::repeat_n(ONLY_MASK, files.len())));
        let values = StructArray::try_new(fields.clone(), vec![names, files], None)?;
        return list(item, masks.iter().map(|mask| usize::from(mask.is_some())), Arc::new(values));
    }
    let boxes = found.as_any().downcast_ref::<ListArray>().ok_or_else(unexpected)?;
    let values = boxes.values().as_any().downcast_ref::<StructArray>().ok_or_else(unexpected)?;
    let part = |field: &FieldRef| {
        let found = values.column_by_name(field.name()).cloned();
        found.unwrap_or_else(|| new_null_array(field.data_type(), values.len()))
    };
    let parts = StructArray::try_new(fields.clone(), fields.iter().map(part).collect(), None)?;
    Ok(Arc::new(ListArray::try_new(item.clone(), boxes.offsets().clone(), Arc::new(parts), None)?))
}
