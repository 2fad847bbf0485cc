//! Byte strings, such as encoded images, in the Parquet files of other programs: read a few pages at a time, never a file as a
//! whole. Data sets of Hugging Face have them in a column of structs `{bytes, path}`.
//!
//! Sizes in a file are claims: they are checked before memory is allocated.

mod page_file;
mod pages;
mod text_columns;

use std::collections::VecDeque;
use std::fs::Metadata;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{Page, PageReader};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::reader::ChunkReader;
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescPtr;

use crate::format::shard::byte_range;
use crate::format::snappy;
use page_file::{PageFile, damaged};
use pages::{Body, Extents, Pages, PagesInMemory};
use text_columns::{checked_rows, column_of};

pub use text_columns::{TextColumns, text_columns};

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
        let found = Pages::find(&self.reopen()?, group)?;
        Ok(group.pages.get_or_init(|| found))
    }
}
