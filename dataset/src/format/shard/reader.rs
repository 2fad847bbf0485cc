//! Reads a shard: its metadata, columns and records.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, Schema};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::Compression;
use parquet::file::metadata::page_index::RowGroupPageIndex;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};
use parquet::file::page_index::offset_index::PageLocation;

use super::fetched::Fetched;
use super::older_columns;
use super::page_header;
use crate::error::{Error, Result};
use crate::format::checksums::Checksums;
use crate::format::grade::GradeScale;
use crate::format::manifest::{Footer, ShardInfo};
use crate::format::record::{ImageEncoding, Record};
use crate::format::record_rows::from_batch;
use crate::format::schema::{self, GRADES, IMAGE, IMAGE_ENCODING_KEY, LABELS};
use crate::store::storage::Storage;
use crate::store::stored_file::StoredFile;

/// Reads one shard, from any number of threads.
pub struct Shard {
    pub(super) name: String,
    pub(super) file: Arc<StoredFile>,
    pub(super) metadata: ArrowReaderMetadata,
    encoding: ImageEncoding,
    /// The columns as today's format has them.
    schema: Schema,
    /// Whether the columns are stored like that.
    is_current: bool,
    /// Number of the column `image` among the leaves of the schema.
    pub(super) image_column: usize,
    /// First row of each row group, and the end of the last.
    group_starts: Vec<usize>,
    /// Pages of the image column, one for each row.
    pub(super) pages: Vec<PageLocation>,
    /// Columns without nulls.
    required: Vec<String>,
    /// Decoded when they are first needed; `None` where the shard was written without, or they are not compared.
    pub(super) checksums: OnceLock<Option<Checksums>>,
}

impl Shard {
    /// Opens a shard of a dataset. In an object store this takes one request, or a few where the footer is large.
    ///
    /// # Errors
    /// When it cannot be read, its size or footer differs from the manifest, or it does not have the format's columns with
    /// one image in each page.
    pub fn open(storage: &Storage, info: &ShardInfo) -> Result<Self> {
        let name = &info.path;
        let broken = |message: String| Error::Shard { shard: name.clone(), message };
        let (file, tail) = storage.open(name)?;
        let file = Arc::new(file);
        if file.length() != info.bytes {
            let message = format!(
                "{} bytes, the manifest says {}: it was cut off or replaced; restore it from a copy, or ingest again",
                file.length(),
                info.bytes
            );
            return Err(broken(message));
        }
        let tail = match info.footer {
            None => tail,
            Some(footer) => checked_footer(name, &file, tail, footer)?,
        };
        let length = file.length();
        let footer = Fetched { file: Some(file.clone()), length, pieces: vec![(length - tail.len() as u64, tail)] };
        let mut parquet = ParquetMetaDataReader::new()
            .with_column_index_policy(PageIndexPolicy::Skip)
            .with_offset_index_policy(PageIndexPolicy::Required)
            .parse_and_finish(&footer)
            .map_err(|e| broken(e.to_string()))?
            .into_builder();
        // It gives the positions of the image pages; other columns are read in whole chunks.
        let page_index = parquet.take_page_index();
        let metadata = ArrowReaderMetadata::try_new(Arc::new(parquet.build()), ArrowReaderOptions::new())
            .map_err(|e| broken(e.to_string()))?;
        let schema = metadata.schema();
        let stated = schema.metadata().get(IMAGE_ENCODING_KEY).map(String::as_str);
        let encoding = stated.and_then(ImageEncoding::of_name);
        let encoding = encoding.ok_or_else(|| broken(format!("unknown image encoding {stated:?}")))?;
        let findings =
            names(schema, LABELS).ok_or_else(|| broken(format!("the column `{LABELS}` is missing or not a struct")))?;
        let grades = names(schema, GRADES).unwrap_or_default().into_iter();
        let grades: Vec<GradeScale> = grades.map(|name| GradeScale { name, values: Vec::new() }).collect();
        let current = schema::schema(&findings, &grades, encoding);
        older_columns::check(schema, &current).map_err(broken)?;
        let is_current = older_columns::is_current(schema, &current);
        let required = older_columns::required(schema, &current);
        let parquet = metadata.metadata();
        let image_column = parquet
            .file_metadata()
            .schema_descr()
            .columns()
            .iter()
            .position(|column| column.path().parts() == [IMAGE])
            .ok_or_else(|| broken("no image column".to_owned()))?;
        let mut group_starts = vec![0];
        let mut pages = Vec::new();
        for group in 0..parquet.num_row_groups() {
            let index = RowGroupPageIndex::new(group, page_index.clone());
            let locations =
                index.page_locations(image_column).ok_or_else(|| broken("the page index is missing".to_owned()))?;
            let rows = parquet.row_group(group).num_rows() as usize;
            if locations.len() != rows {
                let message = format!("row group {group}: {rows} images in {} pages, not one each", locations.len());
                return Err(broken(message));
            }
            pages.extend(locations.iter().cloned());
            group_starts.push(pages.len());
        }
        let (name, checksums) = (name.clone(), OnceLock::new());
        Ok(Self {
            name,
            file,
            metadata,
            encoding,
            schema: current,
            is_current,
            image_column,
            group_starts,
            pages,
            required,
            checksums,
        })
    }

    /// Reads pages without comparing them with their checksums, to measure what that costs. The footer was compared when
    /// the shard was opened.
    #[must_use]
    pub fn without_checksums(mut self) -> Self {
        self.checksums = OnceLock::from(None);
        self
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.pages.len()
    }

    /// Encoding of the images.
    pub fn encoding(&self) -> ImageEncoding {
        self.encoding
    }

    /// The findings, in the order of the fields of `labels`.
    pub fn findings(&self) -> Vec<String> {
        names(&self.schema, LABELS).unwrap_or_default()
    }

    /// The names of the grades, in the order of the fields of `grades`.
    pub fn grades(&self) -> Vec<String> {
        names(&self.schema, GRADES).unwrap_or_default()
    }

    /// The columns, as today's format has them.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    pub(crate) fn row_error(&self, row: usize, message: impl std::fmt::Display) -> Error {
        Error::Row { shard: self.name.clone(), row, message: message.to_string() }
    }

    /// The file of the shard.
    pub(crate) fn file(&self) -> &StoredFile {
        &self.file
    }

    /// Some columns of all rows, as today's format has them: those that the shard lacks are null or empty. Unknown names are
    /// ignored.
    ///
    /// # Errors
    /// When they cannot be read, or differ from what was written.
    pub fn columns(&self, names: &[&str]) -> Result<Vec<RecordBatch>> {
        self.read(names, None)
    }

    /// Some columns of all row groups, or of one. Their chunks are read as a whole, checked, and decoded.
    fn read(&self, names: &[&str], group: Option<usize>) -> Result<Vec<RecordBatch>> {
        let broken = |e: &dyn std::fmt::Display| Error::Shard { shard: self.name.clone(), message: e.to_string() };
        let rows = group.map_or(0..self.rows(), |group| self.group(group));
        // What cannot be decoded is searched by row group and by column, so that the error names them.
        let undecodable = |e: &dyn std::fmt::Display| {
            let smaller = || -> Option<Error> {
                match (group, names) {
                    (None, _) if self.groups() > 1 => {
                        (0..self.groups()).find_map(|one| self.read(names, Some(one)).err())
                    }
                    (_, [_]) => None,
                    _ => names.iter().find_map(|name| self.read(&[name], group).err()),
                }
            };
            let column = if let [name] = names { format!("`{name}`") } else { "a column".to_owned() };
            smaller().unwrap_or_else(|| broken(&format!("{}: {column} cannot be decoded: {e}", rows_text(&rows))))
        };
        let schema = self.metadata.metadata().file_metadata().schema_descr();
        let roots = schema.root_schema().get_fields();
        let stored: Vec<&str> =
            names.iter().map(|name| older_columns::stored_name(name, self.metadata.schema())).collect();
        let projection = ProjectionMask::roots(schema, (0..roots.len()).filter(|&i| stored.contains(&roots[i].name())));
        let needed = self.needed(&projection, group).ok_or_else(|| broken(&"a column is outside of the file"))?;
        let ranges: Vec<Range<u64>> = needed.iter().map(|chunk| chunk.bytes.clone()).collect();
        let check = |at: usize, bytes: &[u8]| self.check_chunk(&needed[at], bytes);
        let fetched = self.file.read_checked(&ranges, check).map_err(|error| match error {
            Error::Invalid(message) => broken(&message),
            other => other,
        })?;
        for (chunk, bytes) in needed.iter().zip(&fetched) {
            let column = self.metadata.metadata().row_group(chunk.group).column(chunk.leaf);
            if column.compression() != Compression::UNCOMPRESSED && chunk.leaf != self.image_column {
                page_header::check_chunk(bytes).map_err(|e| undecodable(&e))?;
            }
        }
        let mut pieces: Vec<(u64, Bytes)> = ranges.iter().map(|range| range.start).zip(fetched).collect();
        pieces.sort_unstable_by_key(|(start, _)| *start);
        let file = Fetched { file: None, length: self.file.length(), pieces };
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_projection(projection)
            .with_batch_size(self.rows().max(1));
        if let Some(group) = group {
            builder = builder.with_row_groups(vec![group]).with_batch_size(self.group(group).len().max(1));
        }
        let reader = builder.build().map_err(|e| undecodable(&e))?;
        let mut row = rows.start;
        let mut batches = Vec::new();
        for batch in reader {
            let batch = batch.map_err(|e| undecodable(&e))?;
            self.check_required(&batch, row)?;
            row += batch.num_rows();
            batches.push(if self.is_current {
                batch
            } else {
                older_columns::upgrade(&batch, &self.schema, names).map_err(|e| broken(&e))?
            });
        }
        // Lists whose lengths lie have more or fewer rows, so that each row would have the value of another one.
        if row != rows.end && !needed.is_empty() {
            return Err(undecodable(&format!("{} rows, not {}", row - rows.start, rows.len())));
        }
        Ok(batches)
    }

    /// An error where a required column has a null. `first` is the first row of the batch.
    fn check_required(&self, batch: &RecordBatch, first: usize) -> Result<()> {
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            if column.null_count() > 0 && self.required.contains(field.name()) {
                let row = first + (0..column.len()).find(|&row| column.is_null(row)).unwrap_or(0);
                let message = format!("`{}` is null here and in {} rows in all", field.name(), column.null_count());
                return Err(self.row_error(row, message));
            }
        }
        Ok(())
    }

    /// The column chunks of some columns in all row groups, or in one. `None` where the footer is invalid.
    fn needed(&self, columns: &ProjectionMask, group: Option<usize>) -> Option<Vec<Chunk>> {
        let parquet = self.metadata.metadata();
        let mut needed = Vec::new();
        for group in group.map_or(0..parquet.num_row_groups(), |group| group..group + 1) {
            for (leaf, chunk) in parquet.row_group(group).columns().iter().enumerate() {
                if columns.leaf_included(leaf) {
                    let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
                    needed.push(Chunk { group, leaf, bytes: byte_range(start, chunk.compressed_size())? });
                }
            }
        }
        needed.retain(|chunk| !chunk.bytes.is_empty());
        Some(needed)
    }

    /// The row group of a row.
    pub(crate) fn group_of(&self, row: usize) -> Result<usize> {
        if row >= self.rows() {
            return Err(self.row_error(row, "no such row"));
        }
        Ok(self.group_starts.partition_point(|&start| start <= row) - 1)
    }

    /// Number of row groups.
    pub(crate) fn groups(&self) -> usize {
        self.group_starts.len() - 1
    }

    /// The rows of a row group.
    pub(crate) fn group(&self, group: usize) -> Range<usize> {
        self.group_starts[group]..self.group_starts[group + 1]
    }

    /// Some columns of one row group, as one batch.
    pub(crate) fn group_columns(&self, group: usize, names: &[&str]) -> Result<RecordBatch> {
        let first = self.group(group).start;
        self.read(names, Some(group))?.pop().ok_or_else(|| self.row_error(first, "its row group is empty"))
    }

    /// All columns but `image` of one row group. Their pages contain the whole group, so that one row costs as much as all.
    pub(crate) fn texts_and_labels(&self, group: usize) -> Result<RecordBatch> {
        let fields = self.schema.fields();
        let names: Vec<&str> = fields.iter().map(|f| f.name().as_str()).filter(|name| *name != IMAGE).collect();
        self.group_columns(group, &names)
    }

    /// One row without its image, from the batch of its row group.
    pub(crate) fn record_of(&self, group: &RecordBatch, row: usize) -> Result<Record> {
        let local = row - self.group(self.group_of(row)?).start;
        if local < group.num_rows() { from_batch(group, local) } else { Err("its row group is too short".to_owned()) }
            .map_err(|message| self.row_error(row, message))
    }

    /// Adds the row to an error that does not have it.
    pub(super) fn with_row(&self, row: usize, error: Error) -> Error {
        match error {
            Error::Invalid(message) => self.row_error(row, message),
            other => other,
        }
    }
}

/// Names of the fields of a struct; `None` where there is none.
fn names(schema: &Schema, column: &str) -> Option<Vec<String>> {
    match schema.field_with_name(column).map(arrow_schema::Field::data_type) {
        Ok(DataType::Struct(fields)) => Some(fields.iter().map(|field| field.name().clone()).collect()),
        _ => None,
    }
}

/// A column chunk to read.
pub(super) struct Chunk {
    /// Number of its row group.
    pub group: usize,
    /// Number of its column among the leaves of the schema.
    pub leaf: usize,
    pub bytes: Range<u64>,
}

/// The last bytes of a shard, from the page index on, compared with the manifest's checksum. `tail` was fetched when the
/// file was opened.
fn checked_footer(name: &str, file: &StoredFile, tail: Bytes, footer: Footer) -> Result<Bytes> {
    let damaged = || Error::Damaged { shard: name.to_owned(), part: "its page index or footer".to_owned() };
    let start = file.length().checked_sub(footer.bytes).ok_or_else(damaged)?;
    let is_whole = |bytes: &[u8]| crc32fast::hash(bytes) == footer.crc32;
    let in_tail = (tail.len() as u64).checked_sub(footer.bytes).map(|before| tail.slice(before as usize..));
    if let Some(bytes) = in_tail.as_ref().filter(|bytes| is_whole(bytes)) {
        return Ok(bytes.clone());
    }
    if in_tail.is_some() && file.as_file().is_some() {
        return Err(damaged());
    }
    // The answer that opened the object was damaged on its way, or was too short.
    let check = |_: usize, bytes: &[u8]| if is_whole(bytes) { Ok(()) } else { Err(damaged()) };
    let range = start..file.length();
    let read = file.read_checked(std::slice::from_ref(&range), check).map_err(|error| match error {
        Error::Invalid(message) => Error::Shard { shard: name.to_owned(), message },
        other => other,
    })?;
    read.into_iter().next().ok_or_else(damaged)
}

/// Rows as messages show them.
pub(crate) fn rows_text(rows: &Range<usize>) -> String {
    if rows.len() == 1 { format!("row {}", rows.start) } else { format!("rows {} to {}", rows.start, rows.end - 1) }
}

/// A range of a file by a start and a length of the footer; `None` where they are invalid.
pub(crate) fn byte_range(start: i64, length: i64) -> Option<Range<u64>> {
    let start = u64::try_from(start).ok()?;
    Some(start..start.checked_add(u64::try_from(length).ok()?)?)
}
