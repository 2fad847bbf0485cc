//! The masks of the records of a batch, without a copy.

use std::sync::Arc;

use arrow_array::{Array, BinaryArray, BooleanArray, ListArray, RecordBatch, StringArray, StructArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, DataType, Field, Schema};

use crate::format::record_rows::field;
use crate::format::schema::MASKS;
use crate::format::table::column;

/// Name of the column of whether a record has a mask. Tables of metadata have it in place of the masks.
pub const HAS_MASK: &str = "has_mask";

/// The field of [`HAS_MASK`].
pub fn has_mask_field() -> Field {
    Field::new(HAS_MASK, DataType::Boolean, false)
}

/// A batch with `masks`, with the further column [`HAS_MASK`].
///
/// # Errors
/// When the batch has that column already.
pub fn with_has_mask(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let masks = column::<ListArray>(batch, MASKS);
    let has_mask = |row: usize| Some(masks.is_some_and(|masks| masks.value_length(row) > 0));
    let has_mask: BooleanArray = (0..batch.num_rows()).map(has_mask).collect();
    let fields = batch.schema().fields().iter().cloned().chain([Arc::new(has_mask_field())]).collect::<Vec<_>>();
    let columns = batch.columns().iter().cloned().chain([Arc::new(has_mask) as _]).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// The column `masks` of a batch.
pub struct MaskColumn {
    /// First mask of each record, and the end of the last.
    places: OffsetBuffer<i32>,
    names: StringArray,
    files: BinaryArray,
}

impl MaskColumn {
    /// The masks of a batch; `None` where it does not have the column.
    pub fn of(batch: &RecordBatch) -> Option<Self> {
        let lists = column::<ListArray>(batch, MASKS)?;
        let masks = lists.values().as_any().downcast_ref::<StructArray>()?;
        let (names, files) =
            (field::<StringArray>(masks, "name")?.clone(), field::<BinaryArray>(masks, "png")?.clone());
        Some(Self { places: lists.offsets().clone(), names, files })
    }

    /// The PNG of a record's mask of a name, or of its first one; `None` where it has none.
    pub fn get(&self, row: usize, name: Option<&str>) -> Option<&[u8]> {
        let (start, end) = (*self.places.get(row)? as usize, *self.places.get(row + 1)? as usize);
        let at = (start..end).find(|&at| name.is_none_or(|name| self.names.value(at) == name))?;
        Some(self.files.value(at))
    }
}
