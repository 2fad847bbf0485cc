//! Compares what is read of a shard with its checksums.

use std::ops::Range;

use crc32fast::Hasher;

use super::Shard;
use super::reader::{Chunk, rows_text};
use crate::error::{Error, Result};
use crate::format::checksums::{self, CHECKSUMS_KEY, Checksums, Covered, MAGIC_BYTES};
use crate::format::schema::IMAGE;

impl Shard {
    /// The checksums of pages and chunks; `None` where there are none, or they are not compared.
    fn expected(&self) -> Result<Option<&Checksums>> {
        if let Some(checksums) = self.checksums.get() {
            return Ok(checksums.as_ref());
        }
        let by_kind = |covered: Vec<Covered>| {
            let (images, chunks): (Vec<Covered>, _) = covered.into_iter().partition(|covered| covered.column == IMAGE);
            let [images, chunks] = [images, chunks].map(|some| some.iter().map(|covered| covered.crc32).collect());
            Checksums { images, chunks }
        };
        let checksums = self.checksums()?.map(by_kind);
        Ok(self.checksums.get_or_init(|| checksums).as_ref())
    }

    /// The checksum that the page of an image must have; `None` where it has none, or is not compared.
    fn expected_page(&self, row: usize) -> Result<Option<u32>> {
        Ok(self.expected()?.and_then(|checksums| checksums.images.get(row).copied()))
    }

    /// An error where the page of an image, in pieces, differs from what was written.
    pub(super) fn check_image_page(&self, row: usize, page: &[&[u8]]) -> Result<()> {
        match self.expected_page(row)? {
            Some(expected) if crc32(page) != expected => Err(self.damaged(IMAGE, row..row + 1)),
            _ => Ok(()),
        }
    }

    /// Whether the page of an image, in pieces, is what was written to the shard and, with the checksum `cached`, to the cache
    /// of a store.
    pub(super) fn is_whole_page(&self, row: usize, page: &[&[u8]], cached: u32) -> Result<bool> {
        let found = crc32(page);
        Ok(found == cached && self.expected_page(row)?.is_none_or(|expected| found == expected))
    }

    /// An error where a column chunk differs from what was written.
    pub(super) fn check_chunk(&self, chunk: &Chunk, bytes: &[u8]) -> Result<()> {
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
        // The chunk of images has none: each of its pages has one.
        let of_group = chunk.leaf - usize::from(chunk.leaf > self.image_column);
        let expected = checksums.chunks.get(chunk.group * (row_group.num_columns() - 1) + of_group);
        if expected.is_none_or(|&expected| crc32fast::hash(bytes) == expected) {
            return Ok(());
        }
        Err(self.damaged(&row_group.column(chunk.leaf).column_path().string(), rows))
    }

    fn damaged(&self, column: &str, rows: Range<usize>) -> Error {
        Error::Damaged { shard: self.name.clone(), part: format!("{}: `{column}`", rows_text(&rows)) }
    }

    /// The checksums of the footer with the bytes that each covers, in the order of the file; `None` where the shard was
    /// written without.
    pub(crate) fn checksums(&self) -> Result<Option<Vec<Covered>>> {
        let broken = |message: &str| Error::Shard { shard: self.name.clone(), message: message.to_owned() };
        let parquet = self.metadata.metadata();
        let keys = parquet.file_metadata().key_value_metadata();
        let Some(pair) = keys.and_then(|keys| keys.iter().find(|pair| pair.key == CHECKSUMS_KEY)) else {
            return Ok(None);
        };
        let damaged = || broken("the checksums in its footer are damaged");
        let mut checksums =
            checksums::decode(pair.value.as_deref().unwrap_or_default()).ok_or_else(damaged)?.into_iter();
        let mismatch = || broken("its footer does not match its checksums: the footer is damaged");
        let (mut covered, mut at) = (Vec::new(), MAGIC_BYTES);
        for group in 0..parquet.num_row_groups() {
            let rows = self.group(group);
            for (leaf, chunk) in parquet.row_group(group).columns().iter().enumerate() {
                let column = chunk.column_path().string();
                let length = u64::try_from(chunk.compressed_size()).map_err(|_| mismatch())?;
                let end = at.checked_add(length).filter(|&end| end <= self.file.length()).ok_or_else(mismatch)?;
                if leaf == self.image_column {
                    for row in rows.clone() {
                        // Each page ends where the next one begins.
                        let after = self.pages.get(row + 1).filter(|_| row + 1 < rows.end);
                        let start = u64::try_from(self.pages[row].offset).ok().filter(|&start| start == at);
                        let next = after.map_or(Ok(end), |page| u64::try_from(page.offset)).map_err(|_| mismatch())?;
                        let start = start.filter(|&start| start <= next && next <= end).ok_or_else(mismatch)?;
                        let crc32 = checksums.next().ok_or_else(mismatch)?;
                        covered.push(Covered {
                            bytes: next - start,
                            crc32,
                            column: column.clone(),
                            rows: row..row + 1,
                        });
                        at = next;
                    }
                } else {
                    let crc32 = checksums.next().ok_or_else(mismatch)?;
                    covered.push(Covered { bytes: length, crc32, column, rows: rows.clone() });
                    at = end;
                }
                let first = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
                if at != end || first != (end - length) as i64 {
                    return Err(mismatch());
                }
            }
        }
        if checksums.next().is_some() {
            return Err(mismatch());
        }
        Ok(Some(covered))
    }
}

/// The checksum of bytes in pieces.
fn crc32(pieces: &[&[u8]]) -> u32 {
    let mut crc32 = Hasher::new();
    pieces.iter().for_each(|piece| crc32.update(piece));
    crc32.finalize()
}
