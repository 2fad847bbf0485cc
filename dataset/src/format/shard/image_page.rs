//! Reads single image pages of a shard.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::column::page::{Page, PageReader};
use parquet::file::serialized_reader::SerializedPageReader;

use super::Shard;
use super::fetched::Fetched;
use super::page_header::{MOST_OF_IMAGE, PageHeader};
use super::reader::byte_range;
use crate::error::{Error, Result};

impl Shard {
    /// The range of the page of one image in the file.
    pub(crate) fn image_page(&self, row: usize) -> Result<Range<u64>> {
        let page = self.pages.get(row).ok_or_else(|| self.row_error(row, "no such row"))?;
        byte_range(page.offset, page.compressed_page_size.into())
            .filter(|page| page.end <= self.file.length())
            .ok_or_else(|| self.row_error(row, "its image page is outside of the file"))
    }

    /// The page of an image that was fetched before, where it is what was written. `None` where it is to be read again, since it
    /// was damaged on its way. The cache of its store keeps it from here on.
    pub(crate) fn intact<'a>(&self, row: usize, fetched: Option<&'a Bytes>) -> Result<Option<&'a Bytes>> {
        let Some(page) = fetched.filter(|page| self.check_image_page(row, &[page]).is_ok()) else { return Ok(None) };
        self.file.keep(&self.image_page(row)?, page);
        Ok(Some(page))
    }

    /// Writes the encoded bytes of one image into `buffer`. Only its page is read, at once, and checked, unless it was fetched
    /// and checked before ([`Shard::image_page`], [`Shard::intact`]).
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
        if let Some(length) = raw_length {
            if let Some(page) = fetched {
                if let Some(pixels) = self.pixels_in_page(row, length, page)? {
                    buffer.clear();
                    buffer.extend_from_slice(pixels);
                    return Ok(());
                }
            } else if let Some(before) = self.plain_head(row, length)? {
                let (range, mut head) = (self.image_page(row)?, [0; MAX_HEAD]);
                buffer.resize(length, 0);
                self.read_page(row, &range, &mut head[..before], buffer)?;
                return self.check_length(row, length, &head[..before]);
            }
        }
        let page = self.pages.get(row).ok_or_else(|| self.row_error(row, "no such row"))?;
        let group = self.group_of(row)?;
        let chunk = self.metadata.metadata().row_group(group).column(self.image_column);
        let range = self.image_page(row)?;
        let fetched = if let Some(page) = fetched {
            page.clone()
        } else {
            let mut page = vec![0; (range.end - range.start) as usize];
            self.read_page(row, &range, &mut [], &mut page)?;
            page.into()
        };
        if chunk.compression() != Compression::UNCOMPRESSED {
            self.check_uncompressed(row, raw_length, &fetched)?;
        }
        // The library reads everything before the first page of this list as a dictionary. The list therefore begins with
        // the chunk's first page, which is skipped.
        let first = self.group(group).start;
        let pages = if row == first { vec![page.clone()] } else { vec![self.pages[first].clone(), page.clone()] };
        let skipped = pages.len() - 1;
        let pieces = vec![(range.start, fetched)];
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

    /// The pixels of an uncompressed raw image of `length` bytes within its page, which was fetched and checked before. `None`
    /// where they are not stored like that.
    pub(crate) fn pixels_in_page<'a>(&self, row: usize, length: usize, page: &'a [u8]) -> Result<Option<&'a [u8]>> {
        let Some(before) = self.plain_head(row, length)? else { return Ok(None) };
        let (head, pixels) = page
            .split_at_checked(before)
            .filter(|(_, pixels)| pixels.len() == length)
            .ok_or_else(|| self.wrong_length(row, length))?;
        self.check_length(row, length, head)?;
        Ok(Some(pixels))
    }

    /// Bytes before the pixels in the page of a raw image of `length` bytes. `None` where the page is compressed, or its header
    /// is unusually long.
    fn plain_head(&self, row: usize, length: usize) -> Result<Option<usize>> {
        let page = self.pages.get(row).ok_or_else(|| self.row_error(row, "no such row"))?;
        let chunk = self.metadata.metadata().row_group(self.group_of(row)?).column(self.image_column);
        if chunk.compression() != Compression::UNCOMPRESSED {
            return Ok(None);
        }
        // A plain page of one required BYTE_ARRAY ends in its 4-byte length and its bytes.
        let before = (page.compressed_page_size as usize).checked_sub(length).filter(|&before| before >= 4);
        let before = before.ok_or_else(|| self.wrong_length(row, length))?;
        Ok((before <= MAX_HEAD).then_some(before))
    }

    /// An error where the length at the end of what is before the pixels is another one.
    fn check_length(&self, row: usize, length: usize, head: &[u8]) -> Result<()> {
        let stated = head.last_chunk::<4>().map(|prefix| u32::from_le_bytes(*prefix) as usize);
        if stated == Some(length) { Ok(()) } else { Err(self.wrong_length(row, length)) }
    }

    /// An error where the header of a compressed page states more bytes than the image has: they would be allocated and filled.
    fn check_uncompressed(&self, row: usize, raw_length: Option<usize>, page: &[u8]) -> Result<()> {
        let header =
            PageHeader::read(page).ok_or_else(|| self.row_error(row, "the header of its image page is damaged"))?;
        // Before the bytes is their length.
        let most = raw_length.map_or(MOST_OF_IMAGE, |length| length as u64 + 4);
        if header.uncompressed <= most {
            return Ok(());
        }
        let message =
            format!("its image page states {} bytes after decompression, not {most} at most", header.uncompressed);
        Err(self.row_error(row, message))
    }

    fn wrong_length(&self, row: usize, length: usize) -> Error {
        self.row_error(row, format!("the image page does not contain {length} bytes"))
    }

    /// Fills two buffers, one after the other, with the page of an image, and checks it. A page in the cache of a store is read as
    /// that of a local file; where it is damaged there, or on its way from the store, it is fetched again.
    fn read_page(&self, row: usize, range: &Range<u64>, head: &mut [u8], rest: &mut [u8]) -> Result<()> {
        if let Some(cached) = self.file.read_cached_into(range.start, head, rest) {
            if self.is_whole_page(row, &[head, rest], cached)? {
                return Ok(());
            }
            self.file.forget_cached(range);
        }
        let read = |head: &mut [u8], rest: &mut [u8]| -> Result<()> {
            self.file.read_into(range.start, head, rest).map_err(|error| self.with_row(row, error))?;
            self.check_image_page(row, &[head, rest]).inspect_err(|_| self.file.forget_cached(range))
        };
        match read(head, rest) {
            Err(Error::Damaged { .. }) if self.file.as_file().is_none() => read(head, rest),
            outcome => outcome,
        }
    }
}

/// Largest number of bytes of an image page before its pixels: about twenty of a page header, four of a length.
const MAX_HEAD: usize = 256;
