//! Parquet files of a few columns.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow_array::{ArrayRef, RecordBatch, RecordBatchReader};
use arrow_schema::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::error::{Error, Result};
use crate::store::files;

/// Writes a small table as Parquet, whole or not at all. Each column has a name, values, and whether it may have nulls.
///
/// # Errors
/// When the columns differ in length, or the file cannot be written.
pub fn write_table(path: &Path, columns: Vec<(&str, ArrayRef, bool)>) -> Result<()> {
    files::write_atomic(path, &to_parquet(path, columns)?)
}

/// Writes a Parquet table batch by batch, so that it need not fit into memory. The file appears when it is finished.
pub struct TableWriter {
    path: PathBuf,
    temporary: PathBuf,
    /// None once it is finished.
    writer: Option<ArrowWriter<File>>,
}

impl TableWriter {
    /// Begins a table under a temporary name beside `path`.
    ///
    /// # Errors
    /// When no file can be created there.
    pub fn create(path: &Path, schema: SchemaRef) -> Result<Self> {
        files::check_place(path)?;
        let temporary = files::temporary(path);
        let file = File::create(&temporary).map_err(Error::io(&temporary))?;
        let writer = ArrowWriter::try_new(file, schema, Some(properties())).map_err(Error::parquet(path))?;
        Ok(Self { path: path.to_path_buf(), temporary, writer: Some(writer) })
    }

    /// Appends a batch as one row group.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.write(batch).and_then(|()| writer.flush()).map_err(Error::parquet(&self.path))
    }

    /// Completes the table and gives it its name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<()> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        let written = writer.into_inner().map_err(Error::parquet(&self.path))?;
        written.sync_all().map_err(Error::io(&self.temporary))?;
        files::publish(&self.temporary, &self.path)
    }
}

impl Drop for TableWriter {
    fn drop(&mut self) {
        if self.writer.is_some() {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Properties of all tables.
fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_created_by(concat!("mrm ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build()
}

/// A small table as the bytes of a Parquet file. Errors show the path.
pub(crate) fn to_parquet(path: &Path, columns: Vec<(&str, ArrayRef, bool)>) -> Result<Vec<u8>> {
    let bad = |e: arrow_schema::ArrowError| Error::Invalid(format!("{}: {e}", path.display()));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).map_err(bad)?;
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties())).map_err(Error::parquet(path))?;
    writer.write(&batch).map_err(Error::parquet(path))?;
    writer.close().map_err(Error::parquet(path))?;
    Ok(bytes)
}

/// Reads a small Parquet table.
///
/// # Errors
/// When it cannot be read, or is not a Parquet file.
pub fn read_table(path: &Path) -> Result<Vec<RecordBatch>> {
    from_parquet(path, files::read(path, files::MAX_TABLE_BYTES)?.into())
}

/// Reads a small table from the bytes of a Parquet file. A table without rows is one empty batch. Errors show the path.
///
/// # Errors
/// When they are not a Parquet file.
pub fn from_parquet(path: &Path, bytes: Bytes) -> Result<Vec<RecordBatch>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(ParquetRecordBatchReaderBuilder::build)
        .map_err(Error::parquet(path))?;
    let schema = reader.schema();
    let batches = reader.map(|batch| batch.map_err(|e| Error::Invalid(format!("{}: {e}", path.display()))));
    let mut batches = batches.collect::<Result<Vec<_>>>()?;
    if batches.is_empty() {
        batches.push(RecordBatch::new_empty(schema));
    }
    Ok(batches)
}

/// A column of a batch as an array of type `T`; `None` where there is none of this name and type.
pub fn column<'a, T: 'static>(batch: &'a RecordBatch, name: &str) -> Option<&'a T> {
    batch.column_by_name(name)?.as_any().downcast_ref::<T>()
}
