//! A Parquet file of another program, whose page headers are checked before memory is allocated.

use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::format::shard::page_header;

/// Bytes that any page may inflate to, and the ratio to the file's bytes that a larger one may have. Images are compressed
/// already, so that their pages hardly shrink.
const SMALL_PAGE_BYTES: u64 = 16 << 20;
const MAX_INFLATION: u64 = 100;

/// The error of the system that the library passes on, or that of the library.
pub fn damaged(error: ParquetError) -> io::Error {
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
pub struct Header {
    pub start: u64,
    pub compressed: u64,
    pub inflated: u64,
}

/// A file for the Parquet library, in which the header of each page is checked before the library allocates memory for it.
pub struct PageFile {
    pub file: Arc<File>,
    pub metadata: Metadata,
    pub length: u64,
    /// The header that was read last.
    last: Mutex<Option<Header>>,
}

impl PageFile {
    /// Opens a regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        // Opening a pipe may never end.
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(Self { file: Arc::new(file), length: metadata.len(), metadata, last: Mutex::new(None) })
    }

    /// The header of the page that the library read last.
    pub fn last_header(&self) -> Option<Header> {
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
pub struct ReadFrom {
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
