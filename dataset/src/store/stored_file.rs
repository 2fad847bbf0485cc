//! A file of a dataset that is read by ranges.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::store::limits::PIECE;
#[cfg(feature = "cloud")]
use crate::store::remote::Object;

/// A file that is read by ranges, from any number of threads at the same time.
///
/// A local file is read by position: a file that shrinks while it is read gives an error (a memory map would end the
/// process).
#[derive(Debug)]
pub struct StoredFile {
    length: u64,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Local(File),
    #[cfg(feature = "cloud")]
    Remote(Box<Object>),
}

impl StoredFile {
    pub(crate) fn local(file: File, length: u64) -> Self {
        Self { length, source: Source::Local(file) }
    }

    #[cfg(feature = "cloud")]
    pub(crate) fn remote(object: Object, length: u64) -> Self {
        Self { length, source: Source::Remote(Box::new(object)) }
    }

    /// Size in bytes, as it was when the file was opened.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The open file, where it is local.
    pub fn as_file(&self) -> Option<&File> {
        match &self.source {
            Source::Local(file) => Some(file),
            #[cfg(feature = "cloud")]
            Source::Remote(_) => None,
        }
    }

    /// Reads one range of bytes.
    ///
    /// # Errors
    /// When it ends after the end of the file, or cannot be read.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.check(&range)?;
        match &self.source {
            Source::Local(file) => {
                let mut buffer = vec![0; (range.end - range.start) as usize];
                file.read_exact_at(&mut buffer, range.start).map_err(|e| Error::Invalid(e.to_string()))?;
                Ok(buffer.into())
            }
            #[cfg(feature = "cloud")]
            Source::Remote(object) => object.read(range),
        }
    }

    /// Reads several ranges. An object store gets few requests at the same time, since neighbors are read at once.
    ///
    /// # Errors
    /// As [`StoredFile::read`].
    pub fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match &self.source {
            Source::Local(_) => ranges.iter().map(|range| self.read(range.clone())).collect(),
            #[cfg(feature = "cloud")]
            Source::Remote(object) => {
                ranges.iter().try_for_each(|range| self.check(range))?;
                object.read_ranges(ranges)
            }
        }
    }

    /// Reads the whole file from its beginning, 8 MiB at a time.
    pub fn reader(&self) -> impl io::Read + '_ {
        Pieces { file: self, next: 0, piece: io::Cursor::default() }
    }

    /// Reads one range of each of several files of one dataset, all at the same time.
    pub(crate) fn read_each(wanted: &[(&Self, Range<u64>)]) -> Result<Vec<Bytes>> {
        #[cfg(feature = "cloud")]
        {
            let objects = wanted.iter().map(|(file, range)| match &file.source {
                Source::Remote(object) => Some((object.as_ref(), range.clone())),
                Source::Local(_) => None,
            });
            if let Some(objects) = objects.collect::<Option<Vec<_>>>() {
                return Object::read_each(&objects);
            }
        }
        wanted.iter().map(|(file, range)| file.read(range.clone())).collect()
    }

    fn check(&self, range: &Range<u64>) -> Result<()> {
        if range.start > range.end || range.end > self.length {
            return Err(Error::Invalid(format!("bytes {range:?} of a file of {} bytes", self.length)));
        }
        Ok(())
    }
}

/// Reads a file in pieces, which bounds both the memory and the number of requests.
struct Pieces<'a> {
    file: &'a StoredFile,
    next: u64,
    piece: io::Cursor<Bytes>,
}

impl io::Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.position() == self.piece.get_ref().len() as u64 {
            let end = self.file.length.min(self.next + PIECE);
            self.piece = io::Cursor::new(self.file.read(self.next..end).map_err(io::Error::other)?);
            self.next = end;
        }
        self.piece.read(buffer)
    }
}
