//! Byte strings, such as encoded images, in the Parquet files of other programs: read a few pages at a time, never a file as a
//! whole. Data sets of Hugging Face have them in a column of structs `{bytes, path}`.
//!
//! Sizes in a file are claims: they are checked before memory is allocated.

use std::collections::VecDeque;
use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arrow_array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ConvertedType, Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::file::statistics::Statistics;
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor};

use crate::format::shard::{byte_range, page_header};
use crate::format::snappy;

/// The field of a struct that has the bytes.
const BYTES: &str = "bytes";

/// The field of a struct that has the name of the file that the bytes are from.
const PATH: &str = "path";

/// Bytes of data pages that are read at once, where pages are smaller.
const BLOCK_BYTES: u64 = 1 << 20;

/// Bytes that any page may inflate to, and the ratio to the file's bytes that a larger one may have. Images are compressed
/// already, so that their pages hardly shrink.
const SMALL_PAGE_BYTES: u64 = 16 << 20;
const MAX_INFLATION: u64 = 100;

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

/// A column of bytes in a Parquet file, read from any number of threads. It is small, and holds no open file.
pub struct ByteColumn {
    path: PathBuf,
    metadata: Metadata,
    descriptor: ColumnDescPtr,
    groups: Vec<Group>,
    rows: u64,
}

/// A row group.
struct Group {
    /// Number of its first row in the file.
    first: u64,
    rows: u64,
    chunk: ColumnChunkMetaData,
    bytes: Range<u64>,
    /// Found when it is first needed.
    pages: OnceLock<Pages>,
}

/// The data pages of a row group, and the blocks of them that are read at once.
struct Pages {
    locations: Vec<PageLocation>,
    /// Bytes of each page without its header in the file.
    compressed: Vec<u64>,
    /// Bytes of the dictionary without its header in the file.
    dictionary: u64,
    blocks: Vec<Block>,
}

struct Block {
    /// Its first row in the row group.
    first: u64,
    rows: u64,
    pages: Range<usize>,
    /// Bytes of its pages in the file and in memory, with those of the dictionary.
    cost: u64,
    /// Where its values are, once it was read.
    extents: OnceLock<Extents>,
}

/// Where the values of a block are in its pages.
struct Extents {
    bodies: Vec<Body>,
    /// The body of each value that is not null, and its bytes there.
    values: Vec<Option<(usize, Range<u32>)>>,
}

/// A page without its header.
struct Body {
    /// Its bytes in the file.
    bytes: Range<u64>,
    /// Its bytes in memory.
    inflated: usize,
    /// Where each block of Snappy begins; `None` where the page is not compressed.
    blocks: Option<Vec<u32>>,
}

/// Rows of a column that are read at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    group: usize,
    block: usize,
}

/// The values of some adjacent rows.
pub struct Values {
    /// The first row in the file.
    first: u64,
    by_row: Vec<Option<ByteArray>>,
    /// Bytes of memory.
    bytes: u64,
}

impl Values {
    /// The value of a row of the file, counted from 0; `None` where it is null.
    pub fn get(&self, row: u64) -> Option<&[u8]> {
        let at = usize::try_from(row.checked_sub(self.first)?).ok()?;
        Some(self.by_row.get(at)?.as_ref()?.data())
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl ByteColumn {
    /// Opens a column: byte strings, or structs with a field `bytes`.
    ///
    /// # Errors
    /// When the file cannot be read, is no Parquet file, has no such column, or claims sizes that it cannot have.
    pub fn open(path: &Path, column: &str) -> io::Result<Self> {
        let file = PageFile::open(path)?;
        let metadata = ArrowReaderMetadata::load(&*file.file, ArrowReaderOptions::new()).map_err(damaged)?;
        let parquet = metadata.metadata();
        let rows = checked_rows(parquet, file.length)?;
        let schema = parquet.file_metadata().schema_descr();
        let leaf = (0..schema.num_columns())
            .find(|leaf| column_of(&schema.column(*leaf)).as_deref() == Some(column))
            .ok_or_else(|| io::Error::other(format!("no column `{column}` of bytes")))?;
        let mut first = 0;
        let mut groups = Vec::with_capacity(parquet.num_row_groups());
        for group in parquet.row_groups() {
            let chunk = group.column(leaf).clone();
            let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
            let bytes = byte_range(start, chunk.compressed_size()).filter(|bytes| bytes.end <= file.length);
            let bytes = bytes.ok_or_else(|| io::Error::other("a column is outside of the file; it is damaged"))?;
            let rows = group.num_rows() as u64;
            groups.push(Group { first, rows, chunk, bytes, pages: OnceLock::new() });
            first += rows;
        }
        let descriptor = schema.column(leaf);
        Ok(Self { path: path.to_path_buf(), metadata: file.metadata.clone(), descriptor, groups, rows })
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Size and times of the file when it was opened.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Where a row is, counted from 0.
    ///
    /// # Errors
    /// When there is no such row, or the pages of its row group cannot be found.
    pub fn place(&self, row: u64) -> io::Result<Place> {
        let group = self.groups.partition_point(|group| group.first <= row).checked_sub(1);
        let found = group.filter(|group| row - self.groups[*group].first < self.groups[*group].rows);
        let group = found.ok_or_else(|| io::Error::other(format!("no row {}, it has {}", row + 1, self.rows)))?;
        let row = row - self.groups[group].first;
        let block = self.pages(group)?.blocks.partition_point(|block| block.first <= row);
        block.checked_sub(1).map(|block| Place { group, block }).ok_or_else(|| io::Error::other("a page is missing"))
    }

    /// Bytes that reading a place takes at most.
    pub fn cost(&self, place: Place) -> u64 {
        self.groups[place.group].pages.get().map_or(0, |pages| pages.blocks[place.block].cost)
    }

    /// Reads the values of a place.
    ///
    /// # Errors
    /// When the file cannot be read, changed since it was opened, or is damaged.
    pub fn read(&self, place: Place) -> io::Result<Values> {
        let group = &self.groups[place.group];
        let Pages { locations, blocks, .. } = self.pages(place.group)?;
        let block = &blocks[place.block];
        let file = self.reopen()?;
        let reader = |pages: Vec<PageLocation>| {
            SerializedPageReader::new(file.clone(), &group.chunk, group.rows as usize, Some(pages)).map_err(damaged)
        };
        let mut wanted = locations[block.pages.clone()].to_vec();
        // The library takes what is before the first page of a list for a dictionary; a page of no bytes hides that.
        let start = group.bytes.start as i64;
        let has_hidden = wanted.first().is_some_and(|page| page.offset != start);
        if has_hidden {
            wanted.insert(0, PageLocation { offset: start, compressed_page_size: 0, first_row_index: 0 });
        }
        let mut data = reader(wanted)?;
        if has_hidden {
            data.skip_next_page().map_err(damaged)?;
        }
        let (mut pages, mut bytes, mut has_codes) = (VecDeque::new(), 0, false);
        for _ in block.pages.clone() {
            let page = data.get_next_page().map_err(damaged)?.filter(Page::is_data_page);
            let page = page.ok_or_else(|| io::Error::other("a data page is missing; the file is damaged"))?;
            match page.encoding() {
                Encoding::PLAIN => {}
                Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY => has_codes = true,
                // A few bytes of others can stand for any number of long values.
                other => {
                    return Err(io::Error::other(format!(
                        "bytes in the encoding {other} are not read; write the table with plain pages or dictionaries"
                    )));
                }
            }
            bytes += page.buffer().len() as u64;
            pages.push_back(page);
        }
        if has_codes {
            let dictionary = reader(locations[..1].to_vec())?.get_next_page().map_err(damaged)?;
            let is_possible = |page: &Page| {
                page.is_dictionary_page() && page.num_values() as usize <= page.buffer().len() / size_of::<u32>()
            };
            let page = dictionary.filter(is_possible);
            let page = page.ok_or_else(|| io::Error::other("the dictionary of a column is damaged"))?;
            bytes += page.buffer().len() as u64;
            pages.push_front(page);
        }
        // The levels of a page of version 2 are before what is compressed.
        let is_simple = pages.iter().all(|page| !matches!(page, Page::DataPageV2 { .. }));
        let buffers: Vec<(Bytes, bool)> =
            pages.iter().map(|page| (page.buffer().clone(), page.is_dictionary_page())).collect();
        let mut column =
            ColumnReaderImpl::<ByteArrayType>::new(self.descriptor.clone(), Box::new(PagesInMemory(pages)));
        let rows = block.rows as usize;
        let (mut levels, mut found) = (Vec::new(), Vec::new());
        let (read, ..) = column.read_records(rows, Some(&mut levels), None, &mut found).map_err(damaged)?;
        let highest = self.descriptor.max_def_level();
        let mut present = found.into_iter();
        let values: Vec<Option<ByteArray>> = if highest == 0 {
            present.map(Some).collect()
        } else {
            levels.iter().map(|level| if *level == highest { present.next() } else { None }).collect()
        };
        if read != rows || values.len() != rows {
            return Err(io::Error::other(format!("a page has {} rows instead of {rows}; it is damaged", values.len())));
        }
        bytes += (values.len() * size_of::<Option<ByteArray>>()) as u64;
        if is_simple
            && block.extents.get().is_none()
            && let Some(extents) = self.extents(place, &file, &buffers, &values)
        {
            let _ = block.extents.set(extents);
        }
        Ok(Values { first: group.first + block.first, by_row: values, bytes })
    }

    /// The value of a row of a place that was read before; no more of the file is read than that takes. `None` where it is null,
    /// or cannot be read alone: the place was not read before, or its pages are compressed by something else than Snappy.
    ///
    /// # Errors
    /// When the file cannot be read, or changed since it was opened.
    pub fn read_again(&self, place: Place, row: u64) -> io::Result<Option<Vec<u8>>> {
        let group = &self.groups[place.group];
        let block = &self.pages(place.group)?.blocks[place.block];
        let Some(extents) = block.extents.get() else { return Ok(None) };
        let at = row.checked_sub(group.first + block.first).and_then(|at| usize::try_from(at).ok());
        let Some(Some((body, bytes))) = at.and_then(|at| extents.values.get(at)) else { return Ok(None) };
        let (body, bytes) = (&extents.bodies[*body], bytes.start as usize..bytes.end as usize);
        let file = self.reopen()?;
        let read = |part: Range<u64>| {
            file.get_bytes(body.bytes.start + part.start, (part.end - part.start) as usize).map_err(damaged)
        };
        let Some(blocks) = &body.blocks else {
            return Ok(Some(read(bytes.start as u64..bytes.end as u64)?.to_vec()));
        };
        let (first, end) = (bytes.start / snappy::BLOCK, bytes.end.div_ceil(snappy::BLOCK));
        let place = |block: usize| blocks.get(block).map_or(body.bytes.end - body.bytes.start, |at| u64::from(*at));
        let compressed = read(place(first)..place(end))?;
        let before = first * snappy::BLOCK;
        let inflated = snappy::inflate(&compressed, (end * snappy::BLOCK).min(body.inflated) - before);
        let inflated = inflated.ok_or_else(|| io::Error::other("the file changed while it was read"))?;
        Ok(Some(inflated[bytes.start - before..bytes.end - before].to_vec()))
    }

    /// Where the values of a block are. `None` where a page cannot be read in parts.
    fn extents(
        &self,
        place: Place,
        file: &PageFile,
        buffers: &[(Bytes, bool)],
        values: &[Option<ByteArray>],
    ) -> Option<Extents> {
        let group = &self.groups[place.group];
        let pages = group.pages.get()?;
        let mut numbers = pages.blocks[place.block].pages.clone();
        let mut bodies = Vec::with_capacity(buffers.len());
        for (buffer, is_dictionary) in buffers {
            let (end, size) = if *is_dictionary {
                (pages.locations.first()?.offset as u64, pages.dictionary)
            } else {
                let number = numbers.next()?;
                let page = &pages.locations[number];
                (page.offset as u64 + page.compressed_page_size as u64, pages.compressed[number])
            };
            let start = end.checked_sub(size)?;
            let blocks = match group.chunk.compression() {
                Compression::UNCOMPRESSED => None,
                Compression::SNAPPY => Some(snappy::blocks(&file.get_bytes(start, size as usize).ok()?, buffer.len())?),
                _ => return None,
            };
            bodies.push(Body { bytes: start..end, inflated: buffer.len(), blocks });
        }
        // The values are parts of the pages in memory.
        let extent = |value: &ByteArray| {
            let start = value.data().as_ptr().addr();
            let found = buffers.iter().enumerate().find_map(|(body, (buffer, _))| {
                let inner = start.checked_sub(buffer.as_ptr().addr())?;
                let end = inner.checked_add(value.len()).filter(|end| *end <= buffer.len())?;
                Some((body, u32::try_from(inner).ok()?..u32::try_from(end).ok()?))
            });
            found.filter(|(_, bytes)| !bytes.is_empty())
        };
        Some(Extents { bodies, values: values.iter().map(|value| extent(value.as_ref()?)).collect() })
    }

    /// Opens the file again; an error where it changed.
    fn reopen(&self) -> io::Result<Arc<PageFile>> {
        let file = PageFile::open(&self.path)?;
        let same = file.length == self.metadata.len() && file.metadata.modified().ok() == self.metadata.modified().ok();
        if same { Ok(Arc::new(file)) } else { Err(io::Error::other("the file changed while it was read")) }
    }

    /// The pages of a row group. Their headers are read once; the bytes between them are not.
    fn pages(&self, number: usize) -> io::Result<&Pages> {
        let group = &self.groups[number];
        if let Some(pages) = group.pages.get() {
            return Ok(pages);
        }
        let found = self.find_pages(group)?;
        Ok(group.pages.get_or_init(|| found))
    }

    fn find_pages(&self, group: &Group) -> io::Result<Pages> {
        let broken = || io::Error::other("the pages of a column are damaged");
        let file = self.reopen()?;
        let mut headers =
            SerializedPageReader::new(file.clone(), &group.chunk, group.rows as usize, None).map_err(damaged)?;
        // Start and sizes of each data page.
        let (mut found, mut dictionary) = (Vec::<(Header, u64)>::new(), Header::default());
        while let Some(PageMetadata { num_levels, is_dict, .. }) = headers.peek_next_page().map_err(damaged)? {
            let header = file.last_header().ok_or_else(broken)?;
            headers.skip_next_page().map_err(damaged)?;
            if is_dict {
                if !found.is_empty() || header.start != group.bytes.start {
                    return Err(broken());
                }
                dictionary = header;
            } else {
                let rows = num_levels.map(|rows| rows as u64).filter(|rows| *rows <= group.rows).ok_or_else(broken)?;
                found.push((header, rows));
            }
        }
        let (mut locations, mut blocks, mut first) = (Vec::with_capacity(found.len()), Vec::<Block>::new(), 0);
        let mut block_bytes = 0;
        for (at, (header, rows)) in found.iter().enumerate() {
            let end = found.get(at + 1).map_or(group.bytes.end, |(next, _)| next.start);
            let size = i32::try_from(end.checked_sub(header.start).ok_or_else(broken)?).map_err(|_| broken())?;
            locations.push(PageLocation {
                offset: header.start as i64,
                compressed_page_size: size,
                first_row_index: first as i64,
            });
            let cost = header.compressed + header.inflated;
            if let Some(block) = blocks.last_mut().filter(|_| block_bytes + header.inflated <= BLOCK_BYTES) {
                block.rows += rows;
                block.pages.end += 1;
                block.cost += cost;
                block_bytes += header.inflated;
            } else {
                let (pages, cost) = (at..at + 1, cost + dictionary.compressed + dictionary.inflated);
                blocks.push(Block { first, rows: *rows, pages, cost, extents: OnceLock::new() });
                block_bytes = header.inflated;
            }
            first += rows;
        }
        // The position of the dictionary is computed from that of the first page.
        let is_near =
            locations.first().is_none_or(|page| i32::try_from(page.offset - group.bytes.start as i64).is_ok());
        if first != group.rows || !is_near {
            return Err(io::Error::other(format!("the pages of a column have {first} rows instead of {}", group.rows)));
        }
        let compressed = found.iter().map(|(header, _)| header.compressed).collect();
        Ok(Pages { locations, compressed, dictionary: dictionary.compressed, blocks })
    }
}

/// The column of bytes that a leaf of a schema belongs to.
fn column_of(leaf: &ColumnDescriptor) -> Option<String> {
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
fn checked_rows(parquet: &ParquetMetaData, length: u64) -> io::Result<u64> {
    let rows = |group: &parquet::file::metadata::RowGroupMetaData| u64::try_from(group.num_rows()).ok();
    let sum = parquet.row_groups().iter().try_fold(0u64, |sum, group| sum.checked_add(rows(group)?));
    sum.filter(|rows| *rows <= FEW_ROWS + length / BYTES_PER_ROW)
        .ok_or_else(|| io::Error::other("its footer states more rows of images than the file can have; it is damaged"))
}

/// The error of the system that the library passes on, or that of the library.
fn damaged(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(cause) => *cause,
            Err(cause) => io::Error::other(cause.to_string()),
        },
        other => io::Error::other(format!("damaged, or no Parquet file: {other}")),
    }
}

/// Start and sizes of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Header {
    start: u64,
    compressed: u64,
    inflated: u64,
}

/// A file for the Parquet library, in which the header of each page is checked before the library allocates memory for it.
struct PageFile {
    file: Arc<File>,
    metadata: Metadata,
    length: u64,
    /// The header that was read last.
    last: Mutex<Option<Header>>,
}

impl PageFile {
    fn open(path: &Path) -> io::Result<Self> {
        // Opening a pipe may never end.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(Self { file: Arc::new(file), length: metadata.len(), metadata, last: Mutex::new(None) })
    }

    fn last_header(&self) -> Option<Header> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Length for PageFile {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for PageFile {
    type T = BufReader<ReadFrom>;

    /// The library reads the header of a page by this, and everything else by [`Self::get_bytes`].
    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let mut head = Vec::with_capacity(MAX_SIZES);
        let from = || ReadFrom { file: self.file.clone(), at: start };
        from().take(MAX_SIZES as u64).read_to_end(&mut head)?;
        let [_, inflated, compressed] =
            sizes(&head).ok_or_else(|| ParquetError::General("the header of a page is damaged".to_owned()))?;
        if inflated > SMALL_PAGE_BYTES.max(compressed.saturating_mul(MAX_INFLATION)) {
            let message =
                format!("a page of {compressed} bytes claims to have {inflated} bytes, more than an image needs");
            return Err(ParquetError::General(message));
        }
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(Header { start, compressed, inflated });
        Ok(BufReader::new(from()))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let end = start.checked_add(length as u64).filter(|&end| end <= self.length);
        if end.is_none() {
            return Err(ParquetError::EOF(format!("{length} bytes at {start}, the file has {}", self.length)));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// Reads a file from a position on. Other readers of the same file do not move it.
struct ReadFrom {
    file: Arc<File>,
    at: u64,
}

impl Read for ReadFrom {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Most bytes that the sizes at the beginning of a page's header have: three fields of one byte with numbers of five.
const MAX_SIZES: usize = 3 * (1 + 5);

/// Type, bytes in memory and bytes in the file of a page: the first three fields of its header, in Thrift's compact protocol.
fn sizes(mut header: &[u8]) -> Option<[u64; 3]> {
    /// The field after the one before, a number of 32 bits.
    const NEXT_I32: u8 = 0x15;
    let mut fields = [0; 3];
    for field in &mut fields {
        if page_header::byte(&mut header)? != NEXT_I32 {
            return None;
        }
        let number = page_header::signed(page_header::varint(&mut header)?);
        *field = u64::try_from(i32::try_from(number).ok()?).ok()?;
    }
    Some(fields)
}

/// Pages that were read, for the decoder of the library.
struct PagesInMemory(VecDeque<Page>);

impl Iterator for PagesInMemory {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.pop_front().map(Ok)
    }
}

impl PageReader for PagesInMemory {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        Ok(self.0.pop_front())
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        Err(ParquetError::NYI("pages in memory are read, not skipped".to_owned()))
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        Err(ParquetError::NYI("pages in memory are read, not skipped".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_a_page_are_read_from_its_header() {
        assert_eq!(sizes(&[0x15, 4, 0x15, 0x80, 0x80, 4, 0x15, 0xfe, 1, 0x2c]), Some([2, 0x8000, 127]));
        for broken in [&[0x15, 4][..], &[0x15, 4, 0x15, 3, 0x15, 2], &[0x25, 4, 0x15, 2, 0x15, 2], &[]] {
            assert_eq!(sizes(broken), None, "{broken:?}");
        }
    }
}
