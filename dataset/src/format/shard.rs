//! One Parquet file of a dataset: its writer and its reader, side by side so that they cannot drift apart.
//!
//! The `image` column holds one image a data page. The page index then gives the place of any single image, and a
//! reader takes just that page. The other columns are small and lie in ordinary pages, texts compressed with zstd. The
//! footer holds checksums of all of them (`checksums.rs`).

use std::fs::{self, File};
use std::io::{BufWriter, IoSliceMut, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use bytes::Bytes;
use crc32fast::Hasher;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::basic::{Compression, ZstdLevel};
use parquet::column::page::{Page, PageReader};
use parquet::errors::ParquetError;
use parquet::file::metadata::page_index::RowGroupPageIndex;
use parquet::file::metadata::{KeyValue, PageIndexPolicy, ParquetMetaDataReader};
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::format::checksums::{self, CHECKSUMS_KEY, Checksums, Covered, MAGIC_BYTES};
use crate::format::manifest::{Footer, ShardInfo};
use crate::format::record::{self, IMAGE, IMAGE_ENCODING_KEY, ImageEncoding, Record};
use crate::format::record_batch::{BATCH_BYTES, fitting, from_batch, to_batch};
use crate::store::files;
use crate::store::storage::{Storage, StoredFile};

/// Rows of a row group: small, since a row is an image, and a writer holds one group in memory.
const ROWS_PER_GROUP: usize = 128;

/// Compression of the image pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ImageCompression {
    /// Pages are stored as they are: an image is one `pread` away.
    #[default]
    None,
    Lz4,
    Zstd,
}

impl From<ImageCompression> for Compression {
    fn from(compression: ImageCompression) -> Self {
        match compression {
            ImageCompression::None => Self::UNCOMPRESSED,
            ImageCompression::Lz4 => Self::LZ4_RAW,
            ImageCompression::Zstd => Self::ZSTD(ZstdLevel::default()),
        }
    }
}

impl ImageCompression {
    /// Name as it stands in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Counts and digests what passes through.
struct Counted {
    file: BufWriter<File>,
    digest: Sha256,
    bytes: u64,
    /// Bytes after the pages, and their checksum; `None` until the last page is written.
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

/// Writes one shard under a temporary name; [`ShardWriter::finish`] gives it its name, dropping removes it.
pub struct ShardWriter {
    writer: Option<ArrowWriter<Counted>>,
    checksums: checksums::Notes,
    schema: SchemaRef,
    rows: u64,
    path: PathBuf,
    temporary: PathBuf,
}

impl ShardWriter {
    /// Starts a shard at `path` with these findings as labels.
    pub fn create(
        path: &Path,
        findings: &[String],
        encoding: ImageEncoding,
        compression: impl Into<Compression>,
    ) -> Result<Self> {
        let schema = Arc::new(record::schema(findings, encoding));
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
        // Numbers take a few bytes in dictionaries, and setting up a decoder costs more than it saves.
        for text in schema.fields().iter().filter(|field| field.data_type() == &DataType::Utf8) {
            let column = ColumnPath::from(text.name().as_str());
            properties = properties.set_column_compression(column, Compression::ZSTD(ZstdLevel::default()));
        }
        let properties = properties.build();
        let temporary = files::temporary(path);
        let file = File::create(&temporary).map_err(Error::io(path))?;
        let file = BufWriter::with_capacity(1 << 20, file);
        let counted = Counted { file, digest: Sha256::new(), bytes: 0, footer: None };
        let checksums = checksums::Notes::default();
        let options =
            ArrowWriterOptions::new().with_properties(properties).with_page_store_factory(Arc::new(checksums.clone()));
        let writer =
            ArrowWriter::try_new_with_options(counted, schema.clone(), options).map_err(Error::parquet(path))?;
        Ok(Self { writer: Some(writer), checksums, schema, rows: 0, path: path.to_path_buf(), temporary })
    }

    /// Appends records.
    pub fn write(&mut self, records: &[Record]) -> Result<()> {
        let Some(writer) = self.writer.as_mut() else {
            return Err(Error::Invalid("the shard is finished".to_owned()));
        };
        let mut rest = records;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(fitting(rest.iter(), BATCH_BYTES));
            rest = after;
            let batch = to_batch(&self.schema, piece).map_err(|source| Error::Shard {
                shard: self.path.display().to_string(),
                message: source.to_string(),
            })?;
            self.rows += batch.num_rows() as u64;
            writer.write(&batch).map_err(Error::parquet(&self.path))?;
        }
        Ok(())
    }

    /// Syncs the shard and gives it its name. `relative` is its path in the manifest.
    pub fn finish(mut self, relative: &Path) -> Result<ShardInfo> {
        let Some(mut writer) = self.writer.take() else {
            return Err(Error::Invalid("the shard is finished".to_owned()));
        };
        // Once the last pages are out, all checksums are there.
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

impl Drop for ShardWriter {
    fn drop(&mut self) {
        // After `finish` the temporary name is gone already, and this does nothing.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// A file as the Parquet reader wants it: what was fetched before comes from memory, the rest from where it lies.
struct Fetched {
    /// `None` where nothing else may be read: what was fetched is checked.
    file: Option<Arc<StoredFile>>,
    length: u64,
    /// Start and bytes of each piece, in the order of the file.
    pieces: Vec<(u64, Bytes)>,
}

impl Fetched {
    /// The piece that a position is in: where it begins, and its bytes.
    fn piece(&self, at: u64) -> Option<&(u64, Bytes)> {
        let after = self.pieces.partition_point(|(start, _)| *start <= at);
        self.pieces.get(after.checked_sub(1)?).filter(|(start, piece)| at < start + piece.len() as u64)
    }
}

impl Length for Fetched {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Fetched {
    type T = std::io::Cursor<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let end = self.piece(start).map_or(self.length, |(at, piece)| at + piece.len() as u64);
        Ok(std::io::Cursor::new(self.get_bytes(start, end.saturating_sub(start) as usize)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let end = start.checked_add(length as u64).filter(|&end| end <= self.length);
        let end =
            end.ok_or_else(|| ParquetError::EOF(format!("{length} bytes at {start}, the file has {}", self.length)))?;
        if let Some((at, piece)) = self.piece(start).filter(|(at, piece)| end <= at + piece.len() as u64) {
            let start = (start - at) as usize;
            return Ok(piece.slice(start..start + length));
        }
        let file = self.file.as_ref();
        let file = file.ok_or_else(|| ParquetError::EOF(format!("bytes {start} to {end} are of no column chunk")))?;
        file.read(start..end).map_err(|error| ParquetError::External(Box::new(error)))
    }
}

/// Reads one shard. Cheap to share between threads.
pub struct Shard {
    name: String,
    file: Arc<StoredFile>,
    metadata: ArrowReaderMetadata,
    encoding: ImageEncoding,
    image_column: usize,
    /// First row of each row group, and one past the last.
    group_starts: Vec<usize>,
    /// Pages of the image column, one a row.
    pages: Vec<PageLocation>,
    /// Columns without nulls.
    required: Vec<String>,
    /// Decoded when they are first needed; none where the shard was written without, or they are not to be checked.
    checksums: OnceLock<Option<Checksums>>,
}

impl Shard {
    /// Opens a shard of a dataset and checks that it has the manifest's size, and this format's columns with one image
    /// a page. Of an object this is one request, or a few where the footer is large.
    pub fn open(storage: &Storage, info: &ShardInfo) -> Result<Self> {
        let name = &info.path;
        let broken = |message: String| Error::Shard { shard: name.clone(), message };
        let (file, tail) = storage.open(name)?;
        let file = Arc::new(file);
        if file.length() != info.bytes {
            let message = format!(
                "{} bytes, the manifest says {}: it was cut or replaced; restore it, or ingest anew",
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
        // The pages of images are found by it; of the other columns whole chunks are read.
        let page_index = parquet.take_page_index();
        let metadata = ArrowReaderMetadata::try_new(Arc::new(parquet.build()), ArrowReaderOptions::new())
            .map_err(|e| broken(e.to_string()))?;
        let schema = metadata.schema();
        let encoding = match schema.metadata().get(IMAGE_ENCODING_KEY).map(String::as_str) {
            Some("raw") => ImageEncoding::Raw,
            Some("png") => ImageEncoding::Png,
            Some("jpeg") => ImageEncoding::Jpeg,
            other => return Err(broken(format!("unknown image encoding {other:?}"))),
        };
        let findings = match schema.field_with_name("labels").map(arrow_schema::Field::data_type) {
            Ok(DataType::Struct(fields)) => fields.iter().map(|f| f.name().clone()).collect::<Vec<_>>(),
            _ => {
                return Err(broken("the column `labels` is missing or no struct".to_owned()));
            }
        };
        let expected = record::schema(&findings, encoding);
        let required = expected.fields().iter().filter(|field| !field.is_nullable());
        let required = required.map(|field| field.name().clone()).collect();
        for expected in expected.fields() {
            match schema.field_with_name(expected.name()) {
                Ok(found) if found.data_type() == expected.data_type() => {}
                Ok(found) => {
                    let (name, found, expected) = (expected.name(), found.data_type(), expected.data_type());
                    return Err(broken(format!("column `{name}` has type {found}, expected {expected}")));
                }
                Err(_) => {
                    return Err(broken(format!("the column `{}` is missing", expected.name())));
                }
            }
        }
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
        Ok(Self { name, file, metadata, encoding, image_column, group_starts, pages, required, checksums })
    }

    /// Reads pages without checking them, to measure what the checks cost. The footer was checked already.
    #[must_use]
    pub fn without_checksums(mut self) -> Self {
        self.checksums = OnceLock::from(None);
        self
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.pages.len()
    }

    /// How the bytes of an image are encoded.
    pub fn encoding(&self) -> ImageEncoding {
        self.encoding
    }

    /// The findings, in the order of the fields of `labels`.
    pub fn findings(&self) -> Vec<String> {
        match self.metadata.schema().field_with_name("labels").map(arrow_schema::Field::data_type) {
            Ok(DataType::Struct(fields)) => fields.iter().map(|f| f.name().clone()).collect(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn row_error(&self, row: usize, message: impl std::fmt::Display) -> Error {
        Error::Row { shard: self.name.clone(), row, message: message.to_string() }
    }

    /// The file that the shard is read from.
    pub(crate) fn file(&self) -> &StoredFile {
        &self.file
    }

    /// Where the page of one image lies in the file.
    pub(crate) fn image_page(&self, row: usize) -> Result<Range<u64>> {
        let page = self.pages.get(row).ok_or_else(|| self.row_error(row, "no such row"))?;
        range(page.offset, page.compressed_page_size.into())
            .filter(|page| page.end <= self.file.length())
            .ok_or_else(|| self.row_error(row, "its image page lies outside of the file"))
    }

    /// Puts the encoded bytes of one image into `buffer`, reading nothing but its page, and not even this where it was
    /// fetched before (see [`Shard::image_page`]). The page is read at once and checked whole.
    ///
    /// `raw_length` is the length that raw pixels must have (height · width), where the caller knows it: an
    /// uncompressed raw image is then read straight into the buffer.
    pub(crate) fn image_bytes(
        &self,
        row: usize,
        raw_length: Option<usize>,
        fetched: Option<&Bytes>,
        buffer: &mut Vec<u8>,
    ) -> Result<()> {
        let page = self.pages.get(row).ok_or_else(|| self.row_error(row, "no such row"))?;
        let group = self.group_of(row)?;
        let chunk = self.metadata.metadata().row_group(group).column(self.image_column);
        if let (Some(length), Compression::UNCOMPRESSED) = (raw_length, chunk.compression()) {
            // A plain page of one required BYTE_ARRAY ends in its 4-byte length and its bytes.
            let unfit = || self.row_error(row, format!("the image page does not hold {length} bytes"));
            let before = (page.compressed_page_size as usize).checked_sub(length).filter(|&before| before >= 4);
            let (before, mut front) = (before.ok_or_else(unfit)?, [0; MOST_FRONT]);
            if let Some(front) = front.get_mut(..before) {
                let place = self.image_page(row)?;
                buffer.resize(length, 0);
                match (fetched, self.file.as_file()) {
                    (None, Some(file)) => {
                        read_both(file, place.start, front, buffer).map_err(|e| self.row_error(row, e))?;
                    }
                    (fetched, _) => {
                        let page = match fetched {
                            Some(page) => page.clone(),
                            None => self.file.read(place).map_err(|error| self.named(row, error))?,
                        };
                        let (start, value) =
                            page.split_at_checked(before).filter(|(_, v)| v.len() == length).ok_or_else(unfit)?;
                        front.copy_from_slice(start);
                        buffer.copy_from_slice(value);
                    }
                }
                self.check_image_page(row, &[front, buffer.as_slice()])?;
                let stated = front.last_chunk::<4>().map(|prefix| u32::from_le_bytes(*prefix) as usize);
                return if stated == Some(length) { Ok(()) } else { Err(unfit()) };
            }
        }
        let fetched = match fetched {
            Some(page) => page.clone(),
            None => self.file.read(self.image_page(row)?).map_err(|error| self.named(row, error))?,
        };
        self.check_image_page(row, &[&fetched])?;
        // The library takes whatever lies before the first page that it is told of for a dictionary: the chunk's first
        // page is told of too, and passed over unread.
        let first = self.group(group).start;
        let pages = if row == first { vec![page.clone()] } else { vec![self.pages[first].clone(), page.clone()] };
        let passed = pages.len() - 1;
        let pieces = vec![(self.image_page(row)?.start, fetched)];
        let reader = Arc::new(Fetched { file: None, length: self.file.length(), pieces });
        let mut reader = SerializedPageReader::new(reader, chunk, self.group(group).len(), Some(pages))
            .map_err(|e| self.row_error(row, e))?;
        let page = (0..passed).try_for_each(|_| reader.skip_next_page()).and_then(|()| reader.get_next_page());
        let page = page.map_err(|e| self.row_error(row, e))?;
        let Some(Page::DataPage { buf: value, .. } | Page::DataPageV2 { buf: value, .. }) = page else {
            return Err(self.row_error(row, "the image page is no data page"));
        };
        match value.split_first_chunk::<4>() {
            Some((prefix, bytes))
                if u32::from_le_bytes(*prefix) as usize == bytes.len()
                    && raw_length.is_none_or(|length| length == bytes.len()) =>
            {
                buffer.clear();
                buffer.extend_from_slice(bytes);
                Ok(())
            }
            _ => Err(self.row_error(row, "the image page does not hold exactly one image of the size in its columns")),
        }
    }

    /// Some columns of all rows.
    pub fn columns(&self, names: &[&str]) -> Result<Vec<RecordBatch>> {
        self.read(names, None)
    }

    /// Some columns of all row groups, or of one. Their chunks are read whole, checked, and decoded from memory.
    fn read(&self, names: &[&str], group: Option<usize>) -> Result<Vec<RecordBatch>> {
        let broken = |e: &dyn std::fmt::Display| Error::Shard { shard: self.name.clone(), message: e.to_string() };
        let schema = self.metadata.metadata().file_metadata().schema_descr();
        let roots = schema.root_schema().get_fields();
        let projection = ProjectionMask::roots(schema, (0..roots.len()).filter(|&i| names.contains(&roots[i].name())));
        let needed = self.needed(&projection, group).ok_or_else(|| broken(&"a column lies outside of the file"))?;
        let ranges: Vec<Range<u64>> = needed.iter().map(|chunk| chunk.bytes.clone()).collect();
        let fetched = self.file.read_ranges(&ranges).map_err(|error| match error {
            Error::Invalid(message) => broken(&message),
            named => named,
        })?;
        let mut pieces = Vec::with_capacity(needed.len());
        for (chunk, bytes) in needed.iter().zip(fetched) {
            self.check_chunk(chunk, &bytes)?;
            pieces.push((chunk.bytes.start, bytes));
        }
        pieces.sort_unstable_by_key(|(start, _)| *start);
        let file = Fetched { file: None, length: self.file.length(), pieces };
        let mut builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone())
            .with_projection(projection)
            .with_batch_size(self.rows().max(1));
        if let Some(group) = group {
            builder = builder.with_row_groups(vec![group]).with_batch_size(self.group(group).len().max(1));
        }
        let reader = builder.build().map_err(|e| broken(&e))?;
        let mut row = group.map_or(0, |group| self.group(group).start);
        let mut batches = Vec::new();
        for batch in reader {
            let batch = batch.map_err(|e| broken(&e))?;
            self.check_required(&batch, row)?;
            row += batch.num_rows();
            batches.push(batch);
        }
        Ok(batches)
    }

    /// An error where a column has no value though each record must have one. `first` is the first row of the batch.
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

    /// The column chunks that hold some columns of all row groups, or of one: dictionaries and pages. `None` where the
    /// footer makes no sense.
    fn needed(&self, columns: &ProjectionMask, group: Option<usize>) -> Option<Vec<Chunk>> {
        let parquet = self.metadata.metadata();
        let mut needed = Vec::new();
        for group in group.map_or(0..parquet.num_row_groups(), |group| group..group + 1) {
            for (leaf, chunk) in parquet.row_group(group).columns().iter().enumerate() {
                if columns.leaf_included(leaf) {
                    let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
                    needed.push(Chunk { group, leaf, bytes: range(start, chunk.compressed_size())? });
                }
            }
        }
        needed.retain(|chunk| !chunk.bytes.is_empty());
        Some(needed)
    }

    /// The row group that holds a row.
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

    /// All columns but `image` of one row group. They lie in pages of a whole group, so one row costs as much as all.
    pub(crate) fn texts_and_labels(&self, group: usize) -> Result<RecordBatch> {
        let fields = self.metadata.schema().fields();
        let names: Vec<&str> = fields.iter().map(|f| f.name().as_str()).filter(|name| *name != IMAGE).collect();
        self.group_columns(group, &names)
    }

    /// One row without its image, from the batch of its row group.
    pub(crate) fn record_of(&self, group: &RecordBatch, row: usize) -> Result<Record> {
        let local = row - self.group(self.group_of(row)?).start;
        (local < group.num_rows())
            .then(|| from_batch(group, local))
            .flatten()
            .ok_or_else(|| self.row_error(row, "a column has another type than the format's"))
    }

    /// The checksums of pages and chunks; `None` where there are none, or they are not to be checked.
    fn expected(&self) -> Result<Option<&Checksums>> {
        if let Some(checksums) = self.checksums.get() {
            return Ok(checksums.as_ref());
        }
        let by_place = |covered: Vec<Covered>| {
            let (images, chunks): (Vec<Covered>, _) = covered.into_iter().partition(|covered| covered.column == IMAGE);
            let [images, chunks] = [images, chunks].map(|some| some.iter().map(|covered| covered.crc32).collect());
            Checksums { images, chunks }
        };
        let checksums = self.checksums()?.map(by_place);
        Ok(self.checksums.get_or_init(|| checksums).as_ref())
    }

    /// An error where the page of an image, in its pieces, is not what was written.
    fn check_image_page(&self, row: usize, page: &[&[u8]]) -> Result<()> {
        let Some(&expected) = self.expected()?.and_then(|checksums| checksums.images.get(row)) else { return Ok(()) };
        let mut found = Hasher::new();
        page.iter().for_each(|piece| found.update(piece));
        if found.finalize() == expected { Ok(()) } else { Err(self.damaged(IMAGE, row..row + 1)) }
    }

    /// An error where a column chunk is not what was written.
    fn check_chunk(&self, chunk: &Chunk, bytes: &[u8]) -> Result<()> {
        let Some(checksums) = self.expected()? else { return Ok(()) };
        let rows = self.group(chunk.group);
        if chunk.leaf == self.image_column {
            let page = |row: usize| -> Option<&[u8]> {
                let page = self.image_page(row).ok()?;
                let start = page.start.checked_sub(chunk.bytes.start)? as usize;
                bytes.get(start..start.checked_add((page.end - page.start) as usize)?)
            };
            return rows.clone().try_for_each(|row| {
                let page = page(row).ok_or_else(|| self.damaged(IMAGE, row..row + 1))?;
                self.check_image_page(row, &[page])
            });
        }
        let row_group = self.metadata.metadata().row_group(chunk.group);
        // Images have a checksum a page instead.
        let of_group = chunk.leaf - usize::from(chunk.leaf > self.image_column);
        let expected = checksums.chunks.get(chunk.group * (row_group.num_columns() - 1) + of_group);
        if expected.is_none_or(|&expected| crc32fast::hash(bytes) == expected) {
            return Ok(());
        }
        Err(self.damaged(&row_group.column(chunk.leaf).column_path().string(), rows))
    }

    fn damaged(&self, column: &str, rows: Range<usize>) -> Error {
        Error::Damaged { shard: self.name.clone(), part: format!("{}: `{column}`", these(&rows)) }
    }

    /// An error of a row that does not name it yet.
    fn named(&self, row: usize, error: Error) -> Error {
        match error {
            Error::Invalid(message) => self.row_error(row, message),
            named => named,
        }
    }

    /// What each checksum of the footer covers, in the order of the file; `None` where the shard was written without.
    pub(crate) fn checksums(&self) -> Result<Option<Vec<Covered>>> {
        let broken = |message: &str| Error::Shard { shard: self.name.clone(), message: message.to_owned() };
        let parquet = self.metadata.metadata();
        let keys = parquet.file_metadata().key_value_metadata();
        let Some(found) = keys.and_then(|keys| keys.iter().find(|found| found.key == CHECKSUMS_KEY)) else {
            return Ok(None);
        };
        let damaged = || broken("the checksums in its footer are damaged");
        let mut checksums =
            checksums::decode(found.value.as_deref().unwrap_or_default()).ok_or_else(damaged)?.into_iter();
        let unfit = || broken("its footer does not fit its checksums: the footer is damaged");
        let (mut covered, mut at) = (Vec::new(), MAGIC_BYTES);
        for group in 0..parquet.num_row_groups() {
            let rows = self.group(group);
            for (leaf, chunk) in parquet.row_group(group).columns().iter().enumerate() {
                let column = chunk.column_path().string();
                let length = u64::try_from(chunk.compressed_size()).map_err(|_| unfit())?;
                let end = at.checked_add(length).filter(|&end| end <= self.file.length()).ok_or_else(unfit)?;
                if leaf == self.image_column {
                    for row in rows.clone() {
                        // The page index says where a page begins; there is nothing between two of them.
                        let after = self.pages.get(row + 1).filter(|_| row + 1 < rows.end);
                        let start = u64::try_from(self.pages[row].offset).ok().filter(|&start| start == at);
                        let next = after.map_or(Ok(end), |page| u64::try_from(page.offset)).map_err(|_| unfit())?;
                        let start = start.filter(|&start| start <= next && next <= end).ok_or_else(unfit)?;
                        let crc32 = checksums.next().ok_or_else(unfit)?;
                        covered.push(Covered {
                            bytes: next - start,
                            crc32,
                            column: column.clone(),
                            rows: row..row + 1,
                        });
                        at = next;
                    }
                } else {
                    let crc32 = checksums.next().ok_or_else(unfit)?;
                    covered.push(Covered { bytes: length, crc32, column, rows: rows.clone() });
                    at = end;
                }
                let first = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
                if at != end || first != (end - length) as i64 {
                    return Err(unfit());
                }
            }
        }
        if checksums.next().is_some() {
            return Err(unfit());
        }
        Ok(Some(covered))
    }
}

/// A column chunk that is to be read.
struct Chunk {
    group: usize,
    /// Number of its column among the leaves of the schema.
    leaf: usize,
    bytes: Range<u64>,
}

/// The last bytes of a shard, from the page index on, checked by the manifest's checksum. `tail` is what opening the
/// file brought along.
fn checked_footer(name: &str, file: &StoredFile, tail: Bytes, footer: Footer) -> Result<Bytes> {
    let damaged = || Error::Damaged { shard: name.to_owned(), part: "its page index or footer".to_owned() };
    let start = file.length().checked_sub(footer.bytes).ok_or_else(damaged)?;
    let bytes = match (tail.len() as u64).checked_sub(footer.bytes) {
        Some(before) => tail.slice(before as usize..),
        None => file.read(start..file.length()).map_err(|error| match error {
            Error::Invalid(message) => Error::Shard { shard: name.to_owned(), message },
            named => named,
        })?,
    };
    if crc32fast::hash(&bytes) == footer.crc32 { Ok(bytes) } else { Err(damaged()) }
}

/// Most bytes of an image page before its pixels: some twenty of a page header, four of a length.
const MOST_FRONT: usize = 256;

/// Fills two buffers with the bytes of a file from a position on, in one call of the system where it gives them at once.
fn read_both(file: &File, at: u64, front: &mut [u8], rest: &mut [u8]) -> std::io::Result<()> {
    let mut buffers = [IoSliceMut::new(front), IoSliceMut::new(rest)];
    let read = rustix::io::retry_on_intr(|| rustix::io::preadv(file, &mut buffers, at))?;
    if let Some(missing) = front.get_mut(read..) {
        file.read_exact_at(missing, at + read as u64)?;
    }
    let read = read.max(front.len());
    match rest.get_mut(read - front.len()..) {
        Some([]) | None => Ok(()),
        Some(missing) => file.read_exact_at(missing, at + read as u64),
    }
}

/// Rows as they are named in messages.
pub(crate) fn these(rows: &Range<usize>) -> String {
    if rows.len() == 1 { format!("row {}", rows.start) } else { format!("rows {} to {}", rows.start, rows.end - 1) }
}

/// A range of a file as a footer states it; `None` where it is none.
fn range(start: i64, length: i64) -> Option<Range<u64>> {
    let start = u64::try_from(start).ok()?;
    Some(start..start.checked_add(u64::try_from(length).ok()?)?)
}
