//! The columns of a table beside its byte strings, and which columns these are.

use std::io;
use std::path::Path;

use arrow_array::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{ConvertedType, Type};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnDescriptor;

use super::page_file::{PageFile, damaged};

/// The field of a struct that has the bytes.
const BYTES: &str = "bytes";

/// The field of a struct that has the name of the file that the bytes are from.
const PATH: &str = "path";

/// A table may have this many rows, and one more for each so many bytes of its file: an encoded image is larger.
const FEW_ROWS: u64 = 1024;
const BYTES_PER_ROW: u64 = 64;

/// A table with columns of bytes, without these bytes.
pub struct TextColumns {
    /// The other columns that are neither lists nor structs. A struct `{bytes, path}` has the path alone.
    pub batches: Vec<RecordBatch>,
    /// The columns of bytes, without those whose statistics say that all bytes are null.
    pub byte_columns: Vec<String>,
    /// The columns of structs with bytes, null or not.
    pub struct_columns: Vec<String>,
}

/// Reads all but the bytes of a table; `None` where it has no column of bytes.
///
/// # Errors
/// When the table cannot be read, is no Parquet file, or claims more rows than it can have.
pub fn text_columns(path: &Path) -> io::Result<Option<TextColumns>> {
    let file = PageFile::open(path)?;
    let metadata = ArrowReaderMetadata::load(&*file.file, ArrowReaderOptions::new()).map_err(damaged)?;
    let parquet = metadata.metadata();
    let schema = parquet.file_metadata().schema_descr();
    let bytes: Vec<(usize, String)> =
        (0..schema.num_columns()).filter_map(|leaf| Some((leaf, column_of(&schema.column(leaf))?))).collect();
    if bytes.is_empty() {
        return Ok(None);
    }
    let is_wanted = |leaf: &usize| {
        let column = schema.column(*leaf);
        let is_path = matches!(column.path().parts(), [_, field] if field == PATH);
        let root = column.path().parts()[0].as_str();
        let has_bytes = bytes.iter().any(|(_, name)| name == root);
        column.max_rep_level() == 0
            && !bytes.iter().any(|(bytes, _)| bytes == leaf)
            && if has_bytes { is_path } else { column.path().parts().len() == 1 || is_path }
    };
    let wanted: Vec<usize> = (0..schema.num_columns()).filter(is_wanted).collect();
    let rows = if wanted.is_empty() {
        // No column shows how many rows there are.
        checked_rows(parquet, file.length)?
    } else {
        parquet.row_groups().iter().map(|group| group.num_rows().unsigned_abs()).fold(0, u64::saturating_add)
    };
    let projection = ProjectionMask::leaves(schema, wanted);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone())
        .with_projection(projection)
        .build()
        .map_err(damaged)?;
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(|error| io::Error::other(error.to_string()))?;
    let found: u64 = batches.iter().map(|batch| batch.num_rows() as u64).sum();
    if found != rows {
        return Err(io::Error::other(format!("{found} rows, its footer says {rows}; the file is damaged")));
    }
    let names = |is_wanted: &dyn Fn(usize) -> bool| -> Vec<String> {
        bytes.iter().filter(|(leaf, _)| is_wanted(*leaf)).map(|(_, name)| name.clone()).collect()
    };
    Ok(Some(TextColumns {
        batches,
        byte_columns: names(&|leaf| !is_all_null(parquet, leaf)),
        struct_columns: names(&|leaf| schema.column(leaf).path().parts().len() > 1),
    }))
}

/// The column of bytes that a leaf of a schema belongs to.
pub fn column_of(leaf: &ColumnDescriptor) -> Option<String> {
    let is_bytes = leaf.physical_type() == Type::BYTE_ARRAY
        && leaf.logical_type_ref().is_none()
        && leaf.converted_type() == ConvertedType::NONE
        && leaf.max_rep_level() == 0;
    match leaf.path().parts() {
        [name] if is_bytes => Some(name.clone()),
        [name, field] if is_bytes && field == BYTES => Some(name.clone()),
        _ => None,
    }
}

/// Whether the statistics say that a leaf has no value.
fn is_all_null(parquet: &ParquetMetaData, leaf: usize) -> bool {
    let nulls = |chunk: &ColumnChunkMetaData| chunk.statistics().and_then(Statistics::null_count_opt);
    parquet.num_row_groups() > 0
        && parquet.row_groups().iter().all(|group| {
            let chunk = group.column(leaf);
            nulls(chunk).is_some_and(|nulls| nulls as i64 == chunk.num_values())
        })
}

/// The number of rows, where the file is large enough for them.
pub fn checked_rows(parquet: &ParquetMetaData, length: u64) -> io::Result<u64> {
    let rows = |group: &parquet::file::metadata::RowGroupMetaData| u64::try_from(group.num_rows()).ok();
    let sum = parquet.row_groups().iter().try_fold(0u64, |sum, group| sum.checked_add(rows(group)?));
    sum.filter(|rows| *rows <= FEW_ROWS + length / BYTES_PER_ROW)
        .ok_or_else(|| io::Error::other("its footer states more rows of images than the file can have; it is damaged"))
}
