//! Columns of a dataset as polars tables, read through the shards' own reader: a table reads the columns that it has.

use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::Schema;
use polars::prelude::{DataFrame, IntoColumn};

use crate::dataset::Dataset;
use crate::error::Result;
use crate::format::record::{self, IMAGE, MASK};
use crate::format::table;

/// Name of the column that says whether a record has a mask.
const HAS_MASK: &str = "has_mask";

impl Dataset {
    /// All columns but the binary ones, and whether there is a mask (`has_mask`), as a polars table with a row a record.
    pub fn metadata(&self) -> Result<DataFrame> {
        let schema = self.schema();
        let names = schema.fields().iter().map(|field| field.name().as_str());
        let names: Vec<&str> = names.filter(|name| ![IMAGE, MASK, "source_sha256"].contains(name)).collect();
        self.frame(&[&names[..], &[HAS_MASK]].concat())
    }

    /// Some columns as a polars table with a row a record. `has_mask` says whether there is a mask.
    pub fn frame(&self, names: &[&str]) -> Result<DataFrame> {
        self.head(names, usize::MAX)
    }

    /// Some columns of the first records, as [`Self::frame`]; later shards are not read.
    pub fn head(&self, names: &[&str], rows: usize) -> Result<DataFrame> {
        let stored: Vec<&str> = names.iter().map(|&name| if name == HAS_MASK { MASK } else { name }).collect();
        let batches = self.first_columns(&stored, rows)?;
        let mut frame = match batches.as_slice() {
            [] => table::from_arrow(&[RecordBatch::new_empty(Arc::new(self.schema()))])?,
            batches => table::from_arrow(batches)?,
        };
        if names.contains(&HAS_MASK) {
            let has_mask = frame.column(MASK)?.is_not_null().with_name(HAS_MASK.into());
            frame.with_column(has_mask.into_column())?;
        }
        Ok(frame.select(names.iter().copied())?.head(Some(rows)))
    }

    fn schema(&self) -> Schema {
        record::schema(self.findings(), self.manifest().image.encoding)
    }
}
