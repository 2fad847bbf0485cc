//! Checksums of a shard's pages, in its footer, so that damage can be named to the row. Parquet's own page checksums are
//! not written by the library in use.
//!
//! The footer's key [`CHECKSUMS_KEY`] holds, in base64, one little-endian number of 32 bits for each image page (its
//! header included) and for each chunk of every other column, in the order of the file, and after them the CRC-32 of
//! all these bytes. What they cover lies without a gap between the file's first four bytes and the page index; the rest
//! is under the manifest's SHA-256 alone.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crc32fast::Hasher;
use parquet::arrow::arrow_writer::{PageKey, PageStore, PageStoreArgs, PageStoreFactory};
use parquet::errors::{ParquetError, Result};

use crate::format::record::IMAGE;

/// Key of the checksums among the footer's key-value metadata.
pub const CHECKSUMS_KEY: &str = "mrm_crc32";

/// Length of the magic number that a Parquet file begins with.
pub(crate) const MAGIC_BYTES: u64 = 4;

/// The checksums of a shard by what they cover.
pub(crate) struct Checksums {
    /// Of the page of each image.
    pub images: Vec<u32>,
    /// Of the chunks of all other columns, in the order of the file.
    pub chunks: Vec<u32>,
}

/// Bytes of a shard that follow the ones before, under one checksum.
pub(crate) struct Covered {
    pub bytes: u64,
    pub crc32: u32,
    /// Path of the column in the Parquet schema.
    pub column: String,
    pub rows: Range<usize>,
}

/// Notes the checksums of pages while they leave for the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(Arc<Mutex<Vec<Note>>>);

#[derive(Debug)]
struct Note {
    column: usize,
    /// A page comes as its header and its body.
    pieces: usize,
    crc32: Hasher,
}

impl Notes {
    fn add(&self, column: usize, is_image: bool, piece: &[u8]) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match notes.last_mut() {
            Some(last) if last.column == column && !(is_image && last.pieces == 2) => {
                last.pieces += 1;
                last.crc32.update(piece);
            }
            _ => {
                let mut crc32 = Hasher::new();
                crc32.update(piece);
                notes.push(Note { column, pieces: 1, crc32 });
            }
        }
    }

    /// The value of [`CHECKSUMS_KEY`].
    pub(crate) fn encode(&self) -> String {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes: Vec<u8> = notes.iter().flat_map(|note| note.crc32.clone().finalize().to_le_bytes()).collect();
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        STANDARD.encode(bytes)
    }
}

/// The checksums of a [`CHECKSUMS_KEY`]; `None` where they are damaged themselves.
pub(crate) fn decode(text: &str) -> Option<Vec<u32>> {
    let bytes = STANDARD.decode(text).ok()?;
    let (numbers, own) = bytes.split_last_chunk::<4>()?;
    let (numbers, []) = numbers.as_chunks::<4>() else { return None };
    let whole = crc32fast::hash(numbers.as_flattened()) == u32::from_le_bytes(*own);
    whole.then(|| numbers.iter().map(|number| u32::from_le_bytes(*number)).collect())
}

impl PageStoreFactory for Notes {
    fn create(&self, chunk: &PageStoreArgs<'_>) -> Result<Box<dyn PageStore>> {
        let is_image = chunk.column_descriptor().path().parts() == [IMAGE];
        Ok(Box::new(Pages { column: chunk.column_index(), is_image, stored: Vec::new(), notes: self.clone() }))
    }
}

/// Holds the pages of a column chunk until its row group is written.
struct Pages {
    column: usize,
    is_image: bool,
    stored: Vec<Bytes>,
    notes: Notes,
}

impl PageStore for Pages {
    fn put(&mut self, piece: Bytes) -> Result<PageKey> {
        self.stored.push(piece);
        Ok(PageKey::new(self.stored.len() as u64 - 1))
    }

    /// Called in the order of the file: a dictionary comes last, and leaves first.
    fn take(&mut self, key: PageKey) -> Result<Bytes> {
        let page = self.stored.get_mut(key.get() as usize).map(std::mem::take);
        let page = page.ok_or_else(|| ParquetError::General("a page that was never stored".to_owned()))?;
        self.notes.add(self.column, self.is_image, &page);
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
    fn damaged_checksums_are_not_believed() {
        let notes = Notes::default();
        notes.add(0, false, b"dictionary");
        notes.add(0, false, b"page");
        for row in 0..3u8 {
            notes.add(1, true, b"header");
            notes.add(1, true, &[row]);
        }
        notes.add(0, false, b"next group");
        let text = notes.encode();
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
