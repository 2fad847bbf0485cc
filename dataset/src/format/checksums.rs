//! Checksums of a shard's pages in its footer, so that an error about damage names the row. The Parquet library does not
//! write Parquet's own page checksums.
//!
//! The footer's key [`CHECKSUMS_KEY`] has, in base64, one little-endian number of 32 bits for each image page (with its
//! header) and for each chunk of every other column, in the order of the file, and then the CRC-32 of all these bytes. They
//! cover the file without a gap from its fifth byte to the page index.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crc32fast::Hasher;
use parquet::arrow::arrow_writer::{PageKey, PageStore, PageStoreArgs, PageStoreFactory};
use parquet::errors::{ParquetError, Result};

use crate::format::schema::IMAGE;

/// Key of the checksums in the key-value metadata of a shard's footer.
pub const CHECKSUMS_KEY: &str = "mrm_crc32";

/// Length of the magic number at the beginning of a Parquet file.
pub(crate) const MAGIC_BYTES: u64 = 4;

/// The checksums of a shard.
pub(crate) struct Checksums {
    /// Of the page of each image.
    pub images: Vec<u32>,
    /// Of the chunks of all other columns, in the order of the file.
    pub chunks: Vec<u32>,
}

/// A range of bytes of a shard with its checksum; it begins where the one before ends.
pub(crate) struct Covered {
    pub bytes: u64,
    pub crc32: u32,
    /// Path of the column in the Parquet schema.
    pub column: String,
    pub rows: Range<usize>,
}

/// Computes the checksums of pages while they are written.
#[derive(Clone, Debug, Default)]
pub(crate) struct PageChecksums(Arc<Mutex<Vec<Running>>>);

/// The checksum of a page or chunk that may not be complete.
#[derive(Debug)]
struct Running {
    column: usize,
    /// Number of pieces so far; a page consists of two, its header and its body.
    pieces: usize,
    crc32: Hasher,
}

impl PageChecksums {
    fn add(&self, column: usize, is_image: bool, piece: &[u8]) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match running.last_mut() {
            Some(last) if last.column == column && !(is_image && last.pieces == 2) => {
                last.pieces += 1;
                last.crc32.update(piece);
            }
            _ => {
                let mut crc32 = Hasher::new();
                crc32.update(piece);
                running.push(Running { column, pieces: 1, crc32 });
            }
        }
    }

    /// The value of [`CHECKSUMS_KEY`].
    pub(crate) fn encode(&self) -> String {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes: Vec<u8> = running.iter().flat_map(|page| page.crc32.clone().finalize().to_le_bytes()).collect();
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        STANDARD.encode(bytes)
    }
}

/// The checksums in a value of [`CHECKSUMS_KEY`]; `None` where they are damaged themselves.
pub(crate) fn decode(text: &str) -> Option<Vec<u32>> {
    let bytes = STANDARD.decode(text).ok()?;
    let (numbers, own) = bytes.split_last_chunk::<4>()?;
    let (numbers, []) = numbers.as_chunks::<4>() else { return None };
    let whole = crc32fast::hash(numbers.as_flattened()) == u32::from_le_bytes(*own);
    whole.then(|| numbers.iter().map(|number| u32::from_le_bytes(*number)).collect())
}

impl PageStoreFactory for PageChecksums {
    fn create(&self, chunk: &PageStoreArgs<'_>) -> Result<Box<dyn PageStore>> {
        let is_image = chunk.column_descriptor().path().parts() == [IMAGE];
        Ok(Box::new(Pages { column: chunk.column_index(), is_image, stored: Vec::new(), checksums: self.clone() }))
    }
}

/// Keeps the pages of a column chunk until its row group is written.
struct Pages {
    column: usize,
    is_image: bool,
    stored: Vec<Bytes>,
    checksums: PageChecksums,
}

impl PageStore for Pages {
    fn put(&mut self, piece: Bytes) -> Result<PageKey> {
        self.stored.push(piece);
        Ok(PageKey::new(self.stored.len() as u64 - 1))
    }

    /// Called in the order of the file; a dictionary is put last and taken first.
    fn take(&mut self, key: PageKey) -> Result<Bytes> {
        let page = self.stored.get_mut(key.get() as usize).map(std::mem::take);
        let page = page.ok_or_else(|| ParquetError::General("a page that was never stored".to_owned()))?;
        self.checksums.add(self.column, self.is_image, &page);
        Ok(page)
    }

    fn memory_size(&self) -> usize {
        self.stored.iter().map(Bytes::len).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_that_of_the_pages_that_were_not_taken() {
        let mut pages = Pages { column: 0, is_image: false, stored: Vec::new(), checksums: PageChecksums::default() };
        let keys = [&b"header"[..], b"body"].map(|piece| pages.put(Bytes::from_static(piece)).unwrap());
        assert_eq!(pages.memory_size(), 10);
        assert_eq!((pages.take(keys[0]).unwrap(), pages.memory_size()), (Bytes::from_static(b"header"), 4));
    }

    #[test]
    fn damaged_checksums_are_refused() {
        let checksums = PageChecksums::default();
        checksums.add(0, false, b"dictionary");
        checksums.add(0, false, b"page");
        for row in 0..3u8 {
            checksums.add(1, true, b"header");
            checksums.add(1, true, &[row]);
        }
        checksums.add(0, false, b"next group");
        let text = checksums.encode();
        let expected = ["dictionarypage", "header\0", "header\x01", "header\x02", "next group"];
        assert_eq!(decode(&text), Some(expected.map(|piece| crc32fast::hash(piece.as_bytes())).to_vec()));
        for at in 0..text.len() {
            for damaged in [format!("{}{}", &text[..at], &text[at + 1..]), {
                let mut bytes = text.clone().into_bytes();
                bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
                String::from_utf8(bytes).expect("ASCII")
            }] {
                assert_eq!(decode(&damaged), None, "{damaged}");
            }
        }
    }
}
