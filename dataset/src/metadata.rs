//! All columns of a dataset but the binary ones as a lazy polars table, read through the shards' own reader.

use std::any::Any;
use std::sync::Arc;

use arrow_array::RecordBatch;
use polars::prelude::*;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::format::record::{self, IMAGE, MASK};
use crate::format::table;

/// Name of the column that says whether a record has a mask.
const HAS_MASK: &str = "has_mask";

impl Dataset {
    /// All columns but the binary ones, and whether there is a mask (`has_mask`), as a lazy polars table: a query reads
    /// the columns that it needs, and of a `head` the shards that it needs.
    pub fn metadata(self: &Arc<Self>) -> Result<LazyFrame> {
        let shard = record::schema(self.findings(), self.manifest().image.encoding);
        let empty = table::from_arrow(&[RecordBatch::new_empty(Arc::new(shard))])?;
        let mut schema = empty.drop_many([IMAGE, "source_sha256", MASK]).schema().as_ref().clone();
        schema.with_column(HAS_MASK.into(), DataType::Boolean);
        let arguments =
            ScanArgsAnonymous { schema: Some(Arc::new(schema)), name: "DATASET", ..ScanArgsAnonymous::default() };
        Ok(LazyFrame::anonymous_scan(Arc::new(Metadata(self.clone())), arguments)?)
    }
}

struct Metadata(Arc<Dataset>);

impl Metadata {
    fn read(&self, schema: &Schema, wanted: &[&str], rows: usize) -> Result<DataFrame> {
        let stored: Vec<&str> = wanted.iter().map(|&name| if name == HAS_MASK { MASK } else { name }).collect();
        let batches = self.0.first_columns(&stored, rows)?;
        if batches.is_empty() {
            return Ok(DataFrame::empty_with_schema(schema).select(wanted.iter().copied())?);
        }
        let mut frame = table::from_arrow(&batches)?;
        if wanted.contains(&HAS_MASK) {
            let has_mask = frame.column(MASK)?.is_not_null().with_name(HAS_MASK.into());
            frame.with_column(has_mask.into_column())?;
        }
        Ok(frame.select(wanted.iter().copied())?.head(Some(rows)))
    }
}

impl AnonymousScan for Metadata {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn allows_projection_pushdown(&self) -> bool {
        true
    }

    fn scan(&self, query: AnonymousScanArgs) -> PolarsResult<DataFrame> {
        let all: Vec<&str> = query.schema.iter_names().map(PlSmallStr::as_str).collect();
        let wanted = query.with_columns.as_deref().map(|names| names.iter().map(PlSmallStr::as_str).collect());
        self.read(&query.schema, &wanted.unwrap_or(all), query.n_rows.unwrap_or(usize::MAX)).map_err(
            |error| match error {
                Error::Table(error) => error,
                error => PolarsError::ComputeError(error.to_string().into()),
            },
        )
    }
}
