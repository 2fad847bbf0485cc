//! Reads input files and records a stamp of each (size, time, SHA-256), so that a run that continues later detects files that
//! changed in the meantime.
//!
//! Stamps are stored in the notes of a run and not in the dataset, whose bytes must not depend on the times of files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use dataset::store::files;
use rayon::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::file_system::{failed, is_absence, retry};

/// Size, time and digest of a file when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Size in bytes.
    pub bytes: u64,
    /// Time of the last change, in nanoseconds since 1970; 0 where the file system stores none.
    pub modified: u128,
    /// Digest of the content.
    pub sha256: [u8; 32],
}

/// Stamps by path relative to the raw directory; `None` for a file that was missing.
pub type Stamps = BTreeMap<String, Option<Stamp>>;

fn modified(found: &Metadata) -> u128 {
    found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_nanos())
}

/// Bytes that are read at once: few enough to be in the processor's cache when they are hashed and decoded.
pub const PIECE: usize = 256 << 10;

/// A file that is hashed while it is read.
pub struct Reader {
    file: File,
    found: Metadata,
    limit: u64,
    read: u64,
    digest: Sha256,
}

impl Reader {
    /// Opens a file of at most `limit` bytes.
    ///
    /// # Errors
    /// Those of the operating system; a larger file; anything but a regular file, since a pipe may never end.
    pub fn open(path: &Path, limit: u64) -> io::Result<Self> {
        if !fs::metadata(path)?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let file = File::open(path)?;
        let found = file.metadata()?;
        let reader = Self { file, found, limit, read: 0, digest: Sha256::new() };
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
        self.file.by_ref().take(PIECE as u64).read_to_end(bytes)?;
        self.read += (bytes.len() - before) as u64;
        self.within(self.read)?;
        self.digest.update(&bytes[before..]);
        Ok(bytes.len() > before)
    }

    /// Appends the rest of the file to `bytes`.
    pub fn rest(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        bytes.reserve(self.length().saturating_sub(self.read) as usize);
        while self.piece(bytes)? {}
        Ok(())
    }

    /// The stamp of what was read; call it at the end of the file.
    pub fn stamp(self) -> Stamp {
        Stamp { bytes: self.read, modified: modified(&self.found), sha256: self.digest.finalize().into() }
    }
}

/// Reads a file of at most `limit` bytes, with its stamp.
///
/// # Errors
/// Those of the operating system, and a larger file.
pub fn read(path: &Path, limit: u64) -> io::Result<(Vec<u8>, Stamp)> {
    let (mut reader, mut bytes) = (Reader::open(path, limit)?, Vec::new());
    reader.rest(&mut bytes)?;
    Ok((bytes, reader.stamp()))
}

/// Reads a file to its end and drops the bytes, to check that it can be read.
///
/// # Errors
/// As [`read`].
pub fn try_to_read(path: &Path, limit: u64) -> io::Result<()> {
    let (mut reader, mut bytes) = (Reader::open(path, limit)?, Vec::new());
    while reader.piece(&mut bytes)? {
        bytes.clear();
    }
    Ok(())
}

/// Stamps as text, one a line.
pub fn text(stamps: &Stamps) -> String {
    let mut text = String::new();
    for (name, stamp) in stamps {
        // Writing to a string does not fail.
        let _ = match stamp {
            Some(Stamp { bytes, modified, sha256 }) => {
                writeln!(text, "{bytes} {modified} {} {}", files::hex(sha256), Value::from(name.as_str()))
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
    let mut changed = BTreeSet::new();
    for note in notes {
        let (path, text) = note?;
        let lines: Vec<&str> = text.lines().collect();
        let found: Vec<_> = lines.into_par_iter().map(|line| change(line, raw)).collect();
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

/// The file of one line, and whether it is unchanged; `None` where the line is malformed.
///
/// # Errors
/// When the system refuses to read the file or its metadata.
fn change(line: &str, raw: &Path) -> Result<Option<(String, bool)>> {
    let parts = line.find('"').map(|at| line.split_at(at));
    let Some((stamp, Ok(name))) = parts.map(|(stamp, name)| (stamp, serde_json::from_str::<String>(name))) else {
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
        (Some(found), [bytes, time, sha256]) => {
            found.len().to_string() == *bytes
                && (modified(&found).to_string() == *time || files::sha256(&path)? == *sha256)
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
