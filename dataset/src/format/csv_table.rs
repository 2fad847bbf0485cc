//! Small tables as CSV, for spreadsheets and tools that cannot read Parquet.

use std::path::Path;

use arrow_array::{Array, ArrayRef, Float32Array, Float64Array, Int8Array, StringArray, UInt64Array};
use csv::Writer;

use crate::error::{Error, Result};
use crate::store::files;

/// Writes a small table as CSV with a header, whole or not at all. Each column has a name, values, and whether it may have
/// nulls, which become empty fields. Numbers have the shortest text that parses to the same number.
///
/// # Errors
/// When a column has a type without a CSV form, or the file cannot be written.
pub fn write(path: &Path, columns: &[(&str, ArrayRef, bool)]) -> Result<()> {
    let failed = |error: csv::Error| Error::Invalid(format!("{}: {error}", path.display()));
    let mut table = Writer::from_writer(Vec::new());
    table.write_record(columns.iter().map(|(name, ..)| *name)).map_err(failed)?;
    let rows = columns.first().map_or(0, |(_, column, _)| column.len());
    for row in 0..rows {
        for (name, column, _) in columns {
            let field = field(column, row).ok_or_else(|| {
                let kind = column.data_type();
                Error::Invalid(format!("{}: column `{name}` is of type {kind}, which has no CSV form", path.display()))
            })?;
            table.write_field(field).map_err(failed)?;
        }
        table.write_record(None::<&[u8]>).map_err(failed)?;
    }
    let bytes = table.into_inner().map_err(|error| Error::Invalid(format!("{}: {}", path.display(), error.error())))?;
    files::write_atomic(path, &bytes)
}

/// One value as text; `None` where its type has no CSV form.
fn field(column: &ArrayRef, row: usize) -> Option<String> {
    if column.is_null(row) {
        return Some(String::new());
    }
    let any = column.as_any();
    if let Some(values) = any.downcast_ref::<StringArray>() {
        return Some(values.value(row).to_owned());
    }
    if let Some(values) = any.downcast_ref::<Float32Array>() {
        return Some(values.value(row).to_string());
    }
    if let Some(values) = any.downcast_ref::<Float64Array>() {
        return Some(values.value(row).to_string());
    }
    if let Some(values) = any.downcast_ref::<Int8Array>() {
        return Some(values.value(row).to_string());
    }
    any.downcast_ref::<UInt64Array>().map(|values| values.value(row).to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::BooleanArray;

    use super::*;

    #[test]
    fn values_are_quoted_where_needed_and_nulls_are_empty() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.csv");
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a, \"b\""), None]));
        let floats: ArrayRef = Arc::new(Float32Array::from(vec![0.1, 1.0]));
        let labels: ArrayRef = Arc::new(Int8Array::from(vec![None, Some(-1)]));
        write(&path, &[("id", texts, true), ("score A", floats, false), ("label A", labels, true)]).expect("written");
        let written = std::fs::read_to_string(&path).expect("a file");
        assert_eq!(written, "id,score A,label A\n\"a, \"\"b\"\"\",0.1,\n,1,-1\n");
        let flags: ArrayRef = Arc::new(BooleanArray::from(vec![true]));
        let refused = write(&path, &[("flag", flags, false)]).unwrap_err().to_string();
        assert!(refused.contains("column `flag` is of type Boolean"), "{refused}");
    }
}
