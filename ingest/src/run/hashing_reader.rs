//! Reads input files, and images in tables, and records a stamp of each (size, time, digest), so that a run that continues later detects files that
//! changed in the meantime. A file with a known checksum is compared with it while it is read.
//!
//! Stamps are stored in the notes of a run and not in the dataset, whose bytes must not depend on the times of files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use dataset::store::files;
use rayon::prelude::*;
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::dicom::limits::MAX_FILE_BYTES;
use crate::error::{Error, Result};
use crate::file_system::{failed, is_absence, is_refusal, retry};
use crate::reject::Reject;
use crate::run::image_tables::ImageTables;
use crate::run::plan::ImageRow;
use crate::run::source_digest::{Hasher, SourceDigest};

/// Size, time and digest of a file when it was read. Of an image in a table: size and time of the table, digest of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The row of the image, where it is in a table.
    pub row: Option<ImageRow>,
    /// Size in bytes.
    pub bytes: u64,
    /// Time of the last change, in nanoseconds since 1970; 0 where the file system stores none.
    pub modified: u128,
    /// Algorithm of the digest.
    pub algorithm: SourceDigest,
    /// Digest of the content, or of the image.
    pub digest: [u8; 32],
}

/// Stamps by path relative to the raw directory; `None` for a file that was missing.
pub type Stamps = BTreeMap<String, Option<Stamp>>;

fn modified(found: &Metadata) -> u128 {
    found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_nanos())
}

/// Bytes that are read at once: few enough that they and their pages in the system's cache fit into the second-level cache of a
/// core, where they are hashed and decoded. With 256 KiB the copy takes six times as long.
pub const PIECE: usize = 64 << 10;

/// The published checksum of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected<'a> {
    /// SHA-256 of the content.
    pub sha256: &'a [u8; 32],
    /// Name of the list that states it.
    pub list: &'a str,
}

/// What is computed of a file while it is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hashing<'a> {
    /// The digest of its stamp.
    pub algorithm: SourceDigest,
    /// The checksum that it is compared with.
    pub expected: Option<Expected<'a>>,
}

/// The content of a file differs from its published checksum.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Damaged {
    reason: String,
    /// The stamp of what was read.
    pub stamp: Stamp,
}

impl Damaged {
    /// The damage that an error reports.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// A file that is hashed while it is read.
pub struct Reader<'a> {
    file: File,
    found: Metadata,
    limit: u64,
    read: u64,
    hashing: Hashing<'a>,
    digest: Hasher,
    /// The digest that is compared with the checksum, where `digest` is of another algorithm.
    second: Option<Hasher>,
}

impl<'a> Reader<'a> {
    /// Opens a file of at most `limit` bytes.
    ///
    /// # Errors
    /// Those of the operating system; a larger file; anything but a regular file, since a pipe may never end.
    pub fn open(path: &Path, limit: u64, hashing: Hashing<'a>) -> io::Result<Self> {
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let file = File::open(path)?;
        let found = file.metadata()?;
        let needs_second = hashing.expected.is_some() && hashing.algorithm != SourceDigest::Sha256;
        let second = needs_second.then(|| Hasher::new(SourceDigest::Sha256));
        let reader = Self { file, found, limit, read: 0, hashing, digest: Hasher::new(hashing.algorithm), second };
        reader.within(reader.found.len())?;
        Ok(reader)
    }

    fn within(&self, bytes: u64) -> io::Result<()> {
        if bytes > self.limit {
            return Err(io::Error::other(format!("the file is larger than {} MiB", self.limit >> 20)));
        }
        Ok(())
    }

    /// Size of the file by the file system.
    pub fn length(&self) -> u64 {
        self.found.len()
    }

    /// Appends the next piece of the file to `bytes`; false at its end.
    pub fn piece(&mut self, bytes: &mut Vec<u8>) -> io::Result<bool> {
        let before = bytes.len();
        bytes.reserve(PIECE);
        // The system may return fewer bytes than fit; only at the end of the file it returns none.
        while bytes.len() < before + PIECE {
            let room = before + PIECE - bytes.len();
            match rustix::io::read(&self.file, &mut bytes.spare_capacity_mut()[..room]) {
                Ok(([], _)) => break,
                Ok((read, _)) => {
                    let end = read.len();
                    // SAFETY: the system wrote so many bytes behind the present ones.
                    unsafe { bytes.set_len(bytes.len() + end) };
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.read += (bytes.len() - before) as u64;
        self.within(self.read)?;
        self.digest.update(&bytes[before..]);
        self.second.iter_mut().for_each(|second| second.update(&bytes[before..]));
        Ok(bytes.len() > before)
    }

    /// Appends the rest of the file to `bytes`.
    pub fn rest(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.reserve(self.length().saturating_sub(self.read) as usize);
        while self.piece(bytes)? {}
        Ok(())
    }

    /// The stamp of what was read; call it at the end of the file.
    ///
    /// # Errors
    /// [`Damaged`] where the file has another checksum than expected.
    pub fn stamp(self) -> io::Result<Stamp> {
        let Hashing { algorithm, expected } = self.hashing;
        let digest = self.digest.finish();
        let stamp = Stamp { row: None, bytes: self.read, modified: modified(&self.found), algorithm, digest };
        let sha256 = self.second.map_or(digest, Hasher::finish);
        match expected {
            Some(expected) if *expected.sha256 != sha256 => {
                let reason = Reject::damage(expected.list, expected.sha256, &sha256);
                Err(io::Error::other(Damaged { reason, stamp }))
            }
            _ => Ok(stamp),
        }
    }
}

/// Reads a file of at most `limit` bytes, with its stamp.
///
/// # Errors
/// Those of the operating system, a larger file, and [`Damaged`].
pub fn read(path: &Path, limit: u64, hashing: Hashing) -> io::Result<(Vec<u8>, Stamp)> {
    let (mut reader, mut bytes) = (Reader::open(path, limit, hashing)?, Vec::new());
    reader.rest(&mut bytes)?;
    Ok((bytes, reader.stamp()?))
}

/// Reads a file to its end and drops the bytes: to hash it, or to check that it can be read.
///
/// # Errors
/// As [`read`].
pub fn stamp(path: &Path, limit: u64, hashing: Hashing) -> io::Result<Stamp> {
    let (mut reader, mut bytes) = (Reader::open(path, limit, hashing)?, Vec::new());
    while reader.piece(&mut bytes)? {
        bytes.clear();
    }
    reader.stamp()
}

/// Replaces `bytes` by an image of a table, and returns its stamp.
///
/// # Errors
/// As [`ImageTables::read`].
pub fn read_row(
    tables: &ImageTables,
    raw: &Path,
    row: &ImageRow,
    algorithm: SourceDigest,
    bytes: &mut Vec<u8>,
) -> io::Result<Stamp> {
    let found = tables.read(raw, row, bytes)?;
    let mut digest = Hasher::new(algorithm);
    digest.update(bytes);
    let (row, digest) = (Some(row.clone()), digest.finish());
    Ok(Stamp { row, bytes: found.len(), modified: modified(&found), algorithm, digest })
}

/// Stamps as text, one a line.
pub fn text(stamps: &Stamps) -> String {
    let mut text = String::new();
    for (name, stamp) in stamps {
        // Writing to a string does not fail.
        let _ = match stamp {
            Some(Stamp { row, bytes, modified, algorithm, digest }) => {
                let (algorithm, digest) = (algorithm.name(), files::hex(digest));
                let name = row.as_ref().map_or_else(
                    || Value::from(name.as_str()),
                    |ImageRow { file, row, column }| json!([file.as_ref(), row, column.as_ref()]),
                );
                writeln!(text, "{bytes} {modified} {algorithm}:{digest} {name}")
            }
            None => writeln!(text, "- {}", Value::from(name.as_str())),
        };
    }
    text
}

/// Writes stamps, one a line.
pub fn save(path: &Path, stamps: &Stamps) -> Result<()> {
    Ok(files::write_atomic(path, text(stamps).as_bytes())?)
}

/// The files of these notes that changed: those of another size, or of another time and other bytes. A note is given by its
/// path, for errors, and its text.
pub fn changed(raw: &Path, notes: impl IntoIterator<Item = Result<(PathBuf, String)>>) -> Result<Vec<String>> {
    let (mut changed, tables) = (BTreeSet::new(), ImageTables::default());
    for note in notes {
        let (path, text) = note?;
        let lines: Vec<&str> = text.lines().collect();
        let found: Vec<_> = lines.into_par_iter().map(|line| change(line, raw, &tables)).collect();
        for change in found {
            let broken = || Error::Output {
                path: path.clone(),
                message: "the note is damaged, so the run cannot continue; use --overwrite".to_owned(),
            };
            let (name, same) = change?.ok_or_else(broken)?;
            changed.extend((!same).then_some(name));
        }
    }
    Ok(changed.into_iter().collect())
}

/// The file of a line of stamps, and the row of an image in it.
fn input(text: &str) -> Option<(String, Option<ImageRow>)> {
    if text.starts_with('"') {
        return Some((serde_json::from_str(text).ok()?, None));
    }
    let (file, row, column): (String, u64, String) = serde_json::from_str(text).ok()?;
    let row = ImageRow { file: file.as_str().into(), row, column: column.into() };
    Some((file, Some(row)))
}

/// The file of one line, and whether it is unchanged; `None` where the line is malformed.
///
/// # Errors
/// When the system refuses to read the file or its metadata.
fn change(line: &str, raw: &Path, tables: &ImageTables) -> Result<Option<(String, bool)>> {
    let parts = line.find(['"', '[']).map(|at| line.split_at(at));
    let Some((stamp, (name, row))) = parts.and_then(|(stamp, text)| Some((stamp, input(text)?))) else {
        return Ok(None);
    };
    let fields: Vec<&str> = stamp.split_whitespace().collect();
    let path = raw.join(&name);
    let found = match retry(|| fs::metadata(&path)) {
        Err(error) if is_absence(&error) => None,
        found => Some(found.map_err(failed(&path))?),
    };
    let same = match (found, fields.as_slice()) {
        (None, ["-"]) => true,
        (Some(found), [bytes, time, digest]) => {
            // Earlier versions wrote the SHA-256 alone.
            let (algorithm, digest) = digest.split_once(':').unwrap_or((SourceDigest::Sha256.name(), digest));
            let Some(algorithm) = SourceDigest::named(algorithm) else { return Ok(None) };
            let has_digest = || -> Result<bool> {
                let read = || match &row {
                    Some(row) => read_row(tables, raw, row, algorithm, &mut Vec::new()),
                    None => self::stamp(&path, MAX_FILE_BYTES, Hashing { algorithm, expected: None }),
                };
                match retry(read) {
                    Ok(stamp) => Ok(files::hex(&stamp.digest) == *digest),
                    // The table is no table any more, or has fewer rows.
                    Err(error) if row.is_some() && !is_refusal(&error) => Ok(false),
                    Err(error) => Err(failed(&path)(error)),
                }
            };
            found.len().to_string() == *bytes && (modified(&found).to_string() == *time || has_digest()?)
        }
        (_, ["-"] | [_, _, _]) => false,
        _ => return Ok(None),
    };
    Ok(Some((name, same)))
}

/// `3 files (a.dcm, b.dcm, c.dcm)`, with the first few names.
pub fn count_and_names(names: &[String], noun: &str) -> String {
    const FEW: usize = 3;
    let few = names.iter().take(FEW).map(String::as_str).collect::<Vec<_>>().join(", ");
    let rest = if names.len() > FEW { ", …" } else { "" };
    format!("{} {noun}{} ({few}{rest})", names.len(), if names.len() == 1 { "" } else { "s" })
}
