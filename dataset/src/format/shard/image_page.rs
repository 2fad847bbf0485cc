//! Reads single image pages of a shard.

use std::fs::File;
use std::io::IoSliceMut;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::column::page::{Page, PageReader};
use parquet::file::serialized_reader::SerializedPageReader;

use super::Shard;
use super::fetched::Fetched;
use super::reader::byte_range;
use crate::error::Result;

impl Shard {
    /// The range of the page of one image in the file.
    pub(crate) fn image_page(&self, row: usize) -> Result<Range<u64>> {
        let page = self.pages.get(row).ok_or_else(|| self.row_error(row, "no such row"))?;
        byte_range(page.offset, page.compressed_page_size.into())
            .filter(|page| page.end <= self.file.length())
            .ok_or_else(|| self.row_error(row, "its image page is outside of the file"))
    }

    /// Writes the encoded bytes of one image into `buffer`. Only its page is read, at once, unless it was fetched before
    /// (see [`Shard::image_page`]); it is checked.
    ///
    /// `raw_length` is the length that raw pixels must have (height · width), where it is known: an uncompressed raw image
    /// is then read directly into the buffer.
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
            let mismatch = || self.row_error(row, format!("the image page does not contain {length} bytes"));
            let before = (page.compressed_page_size as usize).checked_sub(length).filter(|&before| before >= 4);
            let (before, mut head) = (before.ok_or_else(mismatch)?, [0; MAX_HEAD]);
            if let Some(head) = head.get_mut(..before) {
                let range = self.image_page(row)?;
                buffer.resize(length, 0);
                match (fetched, self.file.as_file()) {
                    (None, Some(file)) => {
                        read_both(file, range.start, head, buffer).map_err(|e| self.row_error(row, e))?;
                    }
                    (fetched, _) => {
                        let page = match fetched {
                            Some(page) => page.clone(),
                            None => self.file.read(range).map_err(|error| self.with_row(row, error))?,
                        };
                        let (start, value) =
                            page.split_at_checked(before).filter(|(_, v)| v.len() == length).ok_or_else(mismatch)?;
                        head.copy_from_slice(start);
                        buffer.copy_from_slice(value);
                    }
                }
                self.check_image_page(row, &[head, buffer.as_slice()])?;
                let stated = head.last_chunk::<4>().map(|prefix| u32::from_le_bytes(*prefix) as usize);
                return if stated == Some(length) { Ok(()) } else { Err(mismatch()) };
            }
        }
        let fetched = match fetched {
            Some(page) => page.clone(),
            None => self.file.read(self.image_page(row)?).map_err(|error| self.with_row(row, error))?,
        };
        self.check_image_page(row, &[&fetched])?;
        // The library reads everything before the first page of this list as a dictionary. The list therefore begins with
        // the chunk's first page, which is skipped.
        let first = self.group(group).start;
        let pages = if row == first { vec![page.clone()] } else { vec![self.pages[first].clone(), page.clone()] };
        let skipped = pages.len() - 1;
        let pieces = vec![(self.image_page(row)?.start, fetched)];
        let reader = Arc::new(Fetched { file: None, length: self.file.length(), pieces });
        let mut reader = SerializedPageReader::new(reader, chunk, self.group(group).len(), Some(pages))
            .map_err(|e| self.row_error(row, e))?;
        let page = (0..skipped).try_for_each(|_| reader.skip_next_page()).and_then(|()| reader.get_next_page());
        let page = page.map_err(|e| self.row_error(row, e))?;
        let Some(Page::DataPage { buf: value, .. } | Page::DataPageV2 { buf: value, .. }) = page else {
            return Err(self.row_error(row, "the image page is not a data page"));
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
            _ => {
                Err(self.row_error(row, "the image page does not contain exactly one image of the size in its columns"))
            }
        }
    }
}

/// Largest number of bytes of an image page before its pixels: about twenty of a page header, four of a length.
const MAX_HEAD: usize = 256;

/// Fills two buffers with the bytes of a file from a position on, in one system call where that returns all of them.
fn read_both(file: &File, at: u64, head: &mut [u8], rest: &mut [u8]) -> std::io::Result<()> {
    let mut buffers = [IoSliceMut::new(head), IoSliceMut::new(rest)];
    let read = rustix::io::retry_on_intr(|| rustix::io::preadv(file, &mut buffers, at))?;
    if let Some(missing) = head.get_mut(read..) {
        file.read_exact_at(missing, at + read as u64)?;
    }
    let read = read.max(head.len());
    match rest.get_mut(read - head.len()..) {
        Some([]) | None => Ok(()),
        Some(missing) => file.read_exact_at(missing, at + read as u64),
    }
}
