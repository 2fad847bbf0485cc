//! Columns of a dataset as polars data frames. Only the columns that are asked for are read.
//!
//! Arrow batches go to polars through the Arrow C data interface, without a copy and without shared types.

use arrow_array::{Array, RecordBatch};
use polars::prelude::{Column, DataFrame, PlSmallStr, Series};
use polars_arrow::ffi as polars_ffi;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::format::mask_column::{HAS_MASK, with_has_mask};
use crate::format::schema::{BINARY, MASKS};

impl Dataset {
    /// All columns but the binary ones, and whether there is a mask (`has_mask`), as a data frame with one row for each
    /// record.
    ///
    /// # Errors
    /// When the columns cannot be read.
    pub fn metadata(&self) -> Result<DataFrame> {
        let schema = self.schema()?;
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let names: Vec<&str> = names.filter(|name| !BINARY.contains(name)).collect();
        self.frame(&[&names[..], &[HAS_MASK]].concat())
    }

    /// Some columns as a data frame with one row for each record. `has_mask` is whether there is a mask.
    ///
    /// # Errors
    /// When the columns cannot be read, or there is none of a name.
    pub fn frame(&self, names: &[&str]) -> Result<DataFrame> {
        self.head(names, usize::MAX)
    }

    /// Some columns of the first records, as [`Self::frame`]. Later shards are not read.
    ///
    /// # Errors
    /// As [`Self::frame`].
    pub fn head(&self, names: &[&str], rows: usize) -> Result<DataFrame> {
        let stored: Vec<&str> = names.iter().map(|&name| if name == HAS_MASK { MASKS } else { name }).collect();
        let mut batches = self.first_columns(&stored, rows)?;
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(self.schema()?));
        }
        if names.contains(&HAS_MASK) {
            let with_has_mask = batches.iter().map(with_has_mask).collect::<Result<_, _>>();
            batches = with_has_mask.map_err(|error| Error::Table(error.to_string()))?;
        }
        let frame = from_arrow(&batches, names)?;
        Ok(frame.select(names.iter().copied())?.head(Some(rows)))
    }
}

/// One data frame of several batches with the same columns, with the columns of these names.
fn from_arrow(batches: &[RecordBatch], names: &[&str]) -> Result<DataFrame> {
    let mut table: Option<DataFrame> = None;
    for batch in batches {
        let columns = batch
            .schema()
            .fields()
            .iter()
            .zip(batch.columns())
            .filter(|(field, _)| names.contains(&field.name().as_str()))
            .map(|(field, array)| Ok(Column::from(to_series(field.name(), array.as_ref())?)))
            .collect::<Result<Vec<_>>>()?;
        let part = DataFrame::new(batch.num_rows(), columns)?;
        match table.as_mut() {
            None => table = Some(part),
            Some(table) => {
                table.vstack_mut(&part)?;
            }
        }
    }
    Ok(table.unwrap_or_else(DataFrame::empty))
}

fn to_series(name: &str, array: &dyn Array) -> Result<Series> {
    let (array, field) = arrow_array::ffi::to_ffi(&array.to_data()).map_err(|e| Error::Table(e.to_string()))?;
    // SAFETY: both structs are those of the Arrow C data interface, which have one fixed `repr(C)` layout. Ownership moves
    // with the value, since the release callback is in it.
    let array = unsafe {
        let array: polars_ffi::ArrowArray = std::mem::transmute(array);
        let field: polars_ffi::ArrowSchema = std::mem::transmute(field);
        let field = polars_ffi::import_field_from_c(&field)?;
        polars_ffi::import_array_from_c(array, field.dtype)?
    };
    Ok(Series::try_from((PlSmallStr::from(name), array))?)
}
