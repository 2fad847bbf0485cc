//! Hands fetched bytes of a file to the Parquet library.

use std::sync::Arc;

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::store::stored_file::StoredFile;

/// A file for the Parquet library: pieces that were fetched before come from memory, the rest from the storage.
pub(crate) struct Fetched {
    /// `None` where nothing but the pieces may be read, since those were checked.
    pub file: Option<Arc<StoredFile>>,
    pub length: u64,
    /// Start and bytes of each piece, in the order of the file.
    pub pieces: Vec<(u64, Bytes)>,
}

impl Fetched {
    /// The piece that contains a position: its start and its bytes.
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
        let file =
            file.ok_or_else(|| ParquetError::EOF(format!("bytes {start} to {end} are outside of the column chunks")))?;
        file.read(start..end).map_err(|error| ParquetError::External(Box::new(error)))
    }
}
