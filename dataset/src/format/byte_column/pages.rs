//! Where the pages of a row group are, and the values in them.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::ParquetError;
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::serialized_reader::SerializedPageReader;

use super::Group;
use super::page_file::{Header, PageFile, damaged};

/// Bytes of data pages that are read at once, where pages are smaller.
const BLOCK_BYTES: u64 = 1 << 20;

/// The data pages of a row group, and the blocks of them that are read at once.
pub struct Pages {
    pub locations: Vec<PageLocation>,
    /// Bytes of each page without its header in the file.
    pub compressed: Vec<u64>,
    /// Bytes of the dictionary without its header in the file.
    pub dictionary: u64,
    pub blocks: Vec<Block>,
}

pub struct Block {
    /// Its first row in the row group.
    pub first: u64,
    pub rows: u64,
    pub pages: Range<usize>,
    /// Bytes of its pages in the file and in memory, with those of the dictionary.
    pub cost: u64,
    /// Where its values are, once it was read.
    pub extents: OnceLock<Extents>,
}

/// Where the values of a block are in its pages.
pub struct Extents {
    pub bodies: Vec<Body>,
    /// The body of each value that is not null, and its bytes there.
    pub values: Vec<Option<(usize, Range<u32>)>>,
}

/// A page without its header.
pub struct Body {
    /// Its bytes in the file.
    pub bytes: Range<u64>,
    /// Its bytes in memory.
    pub inflated: usize,
    /// Where each block of Snappy begins; `None` where the page is not compressed.
    pub blocks: Option<Vec<u32>>,
}

impl Pages {
    /// Finds them by their headers; the bytes between them are not read.
    pub fn find(file: &Arc<PageFile>, group: &Group) -> io::Result<Self> {
        let broken = || io::Error::other("the pages of a column are damaged");
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
        Ok(Self { locations, compressed, dictionary: dictionary.compressed, blocks })
    }
}

/// Pages that were read, for the decoder of the library.
pub struct PagesInMemory(pub VecDeque<Page>);

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
