//! Writes a shard.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{DataType, FieldRef, Fields, Schema, SchemaRef};
use crc32fast::Hasher;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::format::checksums::{CHECKSUMS_KEY, PageChecksums};
use crate::format::manifest::{Footer, ShardInfo};
use crate::format::record::Record;
use crate::format::record_batch::{BATCH_BYTES, fitting, to_batch};
use crate::format::schema::IMAGE;
use crate::store::files;

/// Rows of a row group. It is small, since each row has an image and a writer keeps one group in memory.
const ROWS_PER_GROUP: usize = 128;

/// Counts and digests the bytes that are written.
struct Counted {
    file: BufWriter<File>,
    digest: Sha256,
    bytes: u64,
    /// Number of bytes after the pages, and their checksum; `None` until the last page is written.
    footer: Option<(u64, Hasher)>,
}

impl Write for Counted {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(buffer)?;
        self.digest.update(&buffer[..written]);
        self.bytes += written as u64;
        if let Some((bytes, crc32)) = &mut self.footer {
            *bytes += written as u64;
            crc32.update(&buffer[..written]);
        }
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// Writes one shard under a temporary name. [`ShardWriter::finish`] renames it; dropping removes it.
pub struct ShardWriter {
    writer: Option<ArrowWriter<Counted>>,
    checksums: PageChecksums,
    schema: SchemaRef,
    rows: u64,
    path: PathBuf,
    temporary: PathBuf,
}

impl ShardWriter {
    /// Begins a shard at `path` with the columns of a [`schema`](crate::format::schema::schema).
    ///
    /// # Errors
    /// When no file can be created beside `path`.
    pub fn create(path: &Path, schema: Schema, compression: impl Into<Compression>) -> Result<Self> {
        let schema = Arc::new(schema);
        let image = ColumnPath::from(IMAGE);
        let mut properties = WriterProperties::builder()
            .set_created_by(concat!("mrm ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::UNCOMPRESSED)
            .set_max_row_group_row_count(Some(ROWS_PER_GROUP))
            .set_write_batch_size(1)
            .set_column_compression(image.clone(), compression.into())
            .set_column_dictionary_enabled(image.clone(), false)
            .set_column_statistics_enabled(image.clone(), EnabledStatistics::None)
            .set_column_data_page_row_count_limit(image, 1);
        // Numbers are small in dictionaries, so that setting up a decoder costs more time than compression saves.
        for column in texts(schema.fields(), &[]) {
            properties = properties.set_column_compression(column, Compression::ZSTD(ZstdLevel::default()));
        }
        let properties = properties.build();
        let temporary = files::temporary(path);
        let file = File::create(&temporary).map_err(Error::io(path))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        let counted = Counted { file, digest: Sha256::new(), bytes: 0, footer: None };
        let checksums = PageChecksums::default();
        let options =
            ArrowWriterOptions::new().with_properties(properties).with_page_store_factory(Arc::new(checksums.clone()));
        let writer =
            ArrowWriter::try_new_with_options(counted, schema.clone(), options).map_err(Error::parquet(path))?;
        Ok(Self { writer: Some(writer), checksums, schema, rows: 0, path: path.to_path_buf(), temporary })
    }

    /// Appends records. Their images are encoded as the shard's are, and their labels follow its findings.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, records: &[Record]) -> Result<()> {
        let mut rest = records;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(fitting(rest.iter(), BATCH_BYTES));
            rest = after;
            let batch = to_batch(&self.schema, piece)
                .map_err(|error| Error::Shard { shard: self.path.display().to_string(), message: error.to_string() })?;
            self.write_batch(&batch)?;
        }
        Ok(())
    }

    /// Appends the rows of an Arrow batch with the columns of the shard's schema. Their values are not checked.
    ///
    /// # Errors
    /// When its columns have other types, or it cannot be written.
    pub fn write_batch(&mut self, batch: &RecordBatch) -> Result<()> {
        let Some(writer) = self.writer.as_mut() else {
            return Err(Error::Invalid("the shard is finished".to_owned()));
        };
        writer.write(batch).map_err(Error::parquet(&self.path))?;
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Completes the shard, syncs it and gives it its name. `relative` is its path in the manifest.
    ///
    /// # Errors
    /// When it cannot be written; nothing is left then.
    pub fn finish(mut self, relative: &Path) -> Result<ShardInfo> {
        let Some(mut writer) = self.writer.take() else {
            return Err(Error::Invalid("the shard is finished".to_owned()));
        };
        // After the last pages are written, all checksums are known.
        writer.flush().map_err(Error::parquet(&self.path))?;
        writer.sync().map_err(Error::io(&self.path))?;
        writer.inner_mut().footer = Some((0, Hasher::new()));
        writer.append_key_value_metadata(KeyValue::new(CHECKSUMS_KEY.to_owned(), self.checksums.encode()));
        let mut counted = writer.into_inner().map_err(Error::parquet(&self.path))?;
        counted.flush().and_then(|()| counted.file.get_ref().sync_all()).map_err(Error::io(&self.path))?;
        files::publish(&self.temporary, &self.path)?;
        Ok(ShardInfo {
            path: relative.to_string_lossy().into_owned(),
            rows: self.rows,
            bytes: counted.bytes,
            sha256: files::hex(&counted.digest.finalize()),
            footer: counted.footer.map(|(bytes, crc32)| Footer { bytes, crc32: crc32.finalize() }),
        })
    }
}

/// Paths of the columns of text, in lists and structs, too.
fn texts(fields: &Fields, above: &[String]) -> Vec<ColumnPath> {
    let below = |name: &str, more: &[&str]| -> Vec<String> {
        above.iter().cloned().chain([name].iter().chain(more).map(ToString::to_string)).collect()
    };
    let of = |field: &FieldRef| match field.data_type() {
        DataType::Utf8 => vec![ColumnPath::new(below(field.name(), &[]))],
        DataType::Struct(fields) => texts(fields, &below(field.name(), &[])),
        DataType::List(item) => texts(&Fields::from(vec![item.clone()]), &below(field.name(), &["list"])),
        _ => Vec::new(),
    };
    fields.iter().flat_map(of).collect()
}

impl Drop for ShardWriter {
    fn drop(&mut self) {
        // After `finish` there is no file of the temporary name, and this does nothing.
        let _ = fs::remove_file(&self.temporary);
    }
}
