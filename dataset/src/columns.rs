//! Columns of a dataset as values, one for each record.

use arrow_array::{Array, Int8Array, StringArray, StructArray};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::format::label::Label;
use crate::format::record_checks;
use crate::format::table;

impl Dataset {
    /// One text column of all shards, a value for each record.
    ///
    /// # Errors
    /// When a shard cannot be read, or the column does not contain text.
    pub fn texts(&self, name: &str) -> Result<Vec<Option<String>>> {
        let mut values = Vec::new();
        for batch in self.columns(&[name])? {
            let array = table::column::<StringArray>(&batch, name)
                .ok_or_else(|| Error::Invalid(format!("`{name}` is not a text column")))?;
            values.extend((0..array.len()).map(|i| array.is_valid(i).then(|| array.value(i).to_owned())));
        }
        Ok(values)
    }

    /// The labels of all records, `[records][findings]`; `None` where a finding is not mentioned.
    ///
    /// # Errors
    /// When a shard cannot be read, or contains an invalid label.
    pub fn labels(&self) -> Result<Vec<Vec<Option<Label>>>> {
        let mut rows = Vec::with_capacity(self.len());
        for batch in self.columns(&["labels"])? {
            let labels = table::column::<StructArray>(&batch, "labels")
                .ok_or_else(|| Error::Invalid("`labels` is not a struct".to_owned()))?;
            let codes: Vec<&Int8Array> = labels
                .columns()
                .iter()
                .take(self.findings().len())
                .filter_map(|codes| codes.as_any().downcast_ref())
                .collect();
            for row in 0..batch.num_rows() {
                let label = |codes: &&Int8Array| record_checks::label(codes.is_valid(row).then(|| codes.value(row)));
                let record: Result<Vec<_>, String> = codes.iter().map(label).collect();
                let record = record.map_err(|message| match self.locate(rows.len()) {
                    Ok((shard, row)) => shard.row_error(row, message),
                    Err(error) => error,
                })?;
                rows.push(record);
            }
        }
        Ok(rows)
    }
}
