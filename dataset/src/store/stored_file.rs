//! A file of a dataset that is read by ranges.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::store::files;
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

    /// Fills two buffers, one after the other, with the bytes from a position on.
    ///
    /// # Errors
    /// As [`StoredFile::read`].
    pub(crate) fn read_into(&self, start: u64, head: &mut [u8], rest: &mut [u8]) -> Result<()> {
        let range = start..start + (head.len() + rest.len()) as u64;
        self.check(&range)?;
        match &self.source {
            Source::Local(file) => {
                let mut buffers = [IoSliceMut::new(head), IoSliceMut::new(rest)];
                files::read_buffers(file, start, &mut buffers).map_err(|e| Error::Invalid(e.to_string()))
            }
            #[cfg(feature = "cloud")]
            Source::Remote(object) => {
                let bytes = object.read(range)?;
                let (first, last) = bytes.split_at(head.len());
                head.copy_from_slice(first);
                rest.copy_from_slice(last);
                Ok(())
            }
        }
    }

    /// As [`StoredFile::read_into`], from the cache of an object store, where the bytes are in it. Returns the CRC-32 that they
    /// must have, which the caller compares ([`StoredFile::forget_cached`]).
    #[cfg_attr(not(feature = "cloud"), expect(unused_variables, reason = "there is no cache"))]
    pub(crate) fn read_cached_into(&self, start: u64, head: &mut [u8], rest: &mut [u8]) -> Option<u32> {
        match &self.source {
            Source::Local(_) => None,
            #[cfg(feature = "cloud")]
            Source::Remote(object) => {
                let (cache, key) = object.cached.as_ref()?;
                cache.read_into(key, &(start..start + (head.len() + rest.len()) as u64), head, rest)
            }
        }
    }

    /// Removes a range from the cache, because it is damaged.
    #[cfg_attr(not(feature = "cloud"), expect(unused_variables, reason = "there is no cache"))]
    pub(crate) fn forget_cached(&self, range: &Range<u64>) {
        match &self.source {
            Source::Local(_) => {}
            #[cfg(feature = "cloud")]
            Source::Remote(object) => {
                if let Some((cache, key)) = &object.cached {
                    cache.forget(key, range);
                }
            }
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
                let read = object.read_ranges(ranges)?;
                for (range, (bytes, _)) in ranges.iter().zip(&read).filter(|(_, (_, is_fetched))| *is_fetched) {
                    object.keep(range, bytes);
                }
                Ok(read.into_iter().map(|(bytes, _)| bytes).collect())
            }
        }
    }

    /// As [`StoredFile::read_ranges`], for bytes that `check` accepts, which gets the number of the range. An object store is
    /// asked once more for those that it refuses, since an answer can be damaged on its way; the cache keeps what it accepts.
    ///
    /// # Errors
    /// As [`StoredFile::read`], and those of `check`.
    pub(crate) fn read_checked(
        &self,
        ranges: &[Range<u64>],
        check: impl Fn(usize, &[u8]) -> Result<()>,
    ) -> Result<Vec<Bytes>> {
        match &self.source {
            Source::Local(_) => {
                let read = self.read_ranges(ranges)?;
                read.iter().enumerate().try_for_each(|(at, bytes)| check(at, bytes))?;
                Ok(read)
            }
            #[cfg(feature = "cloud")]
            Source::Remote(object) => {
                ranges.iter().try_for_each(|range| self.check(range))?;
                let mut read = Vec::with_capacity(ranges.len());
                for (at, (mut bytes, mut is_fetched)) in object.read_ranges(ranges)?.into_iter().enumerate() {
                    let range = &ranges[at];
                    if check(at, &bytes).is_err() {
                        self.forget_cached(range);
                        bytes = Object::fetch_each(&[(object, range.clone())])?.pop().unwrap_or_default();
                        check(at, &bytes)?;
                        is_fetched = true;
                    }
                    if is_fetched {
                        object.keep(range, &bytes);
                    }
                    read.push(bytes);
                }
                Ok(read)
            }
        }
    }

    /// Keeps the bytes of a range, which were fetched and checked, in the cache of an object store.
    #[cfg_attr(not(feature = "cloud"), expect(unused_variables, reason = "there is no cache"))]
    pub(crate) fn keep(&self, range: &Range<u64>, bytes: &[u8]) {
        match &self.source {
            Source::Local(_) => {}
            #[cfg(feature = "cloud")]
            Source::Remote(object) => object.keep(range, bytes),
        }
    }

    /// Reads the whole file from its beginning, 8 MiB at a time.
    pub fn reader(&self) -> impl io::Read + '_ {
        Pieces { file: self, next: 0, piece: io::Cursor::default() }
    }

    /// Fetches one range of each of several files of one dataset from their object store, all at the same time. `None` where a
    /// range is on this machine, in a local file or in the cache: it is best read when it is needed. What was fetched is not kept
    /// in the cache before it was checked ([`StoredFile::keep`]).
    pub(crate) fn fetch_each(wanted: &[(&Self, Range<u64>)]) -> Result<Vec<Option<Bytes>>> {
        #[cfg(feature = "cloud")]
        {
            let missing = wanted.iter().enumerate().filter_map(|(at, (file, range))| match &file.source {
                Source::Remote(object) if !object.has_cached(range) => Some((at, (object.as_ref(), range.clone()))),
                Source::Remote(_) | Source::Local(_) => None,
            });
            let (places, objects): (Vec<usize>, Vec<_>) = missing.unzip();
            let mut fetched = vec![None; wanted.len()];
            for (place, bytes) in places.into_iter().zip(Object::fetch_each(&objects)?) {
                fetched[place] = Some(bytes);
            }
            Ok(fetched)
        }
        #[cfg(not(feature = "cloud"))]
        Ok(vec![None; wanted.len()])
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
