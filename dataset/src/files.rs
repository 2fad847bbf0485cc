//! Writing files so that they are either whole or absent, and their digests.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Name under which a file is written until it is whole.
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    path.with_file_name(name)
}

/// Writes `bytes` to `path` in one step: a temporary file beside it, synced, then renamed.
///
/// # Errors
/// When the place is none for a file, another process writes the same file now, or the system refuses.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    check_place(path)?;
    let temporary = temporary(path);
    // Not truncated before it is ours alone.
    let opened = OpenOptions::new().create(true).write(true).truncate(false).open(&temporary);
    let mut file = opened.map_err(Error::io(path))?;
    if !lock(&file, path)? {
        return Err(Error::Invalid(format!("{}: another process writes it now", path.display())));
    }
    let written = file.set_len(0).and_then(|()| file.write_all(bytes)).and_then(|()| file.sync_all());
    if let Err(source) = written {
        let _ = fs::remove_file(&temporary);
        return Err(Error::Io { path: path.to_path_buf(), cause: source });
    }
    publish(&temporary, path)
}

/// Locks a file for this process for as long as it is open; false where another process holds it. On a file system that
/// has no locks, as some of clusters, nobody is held off.
///
/// # Errors
/// When the system refuses for another reason.
pub fn lock(file: &File, path: &Path) -> Result<bool> {
    const NO_LOCKS: i32 = 37; // ENOLCK
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error))
            if error.kind() == ErrorKind::Unsupported || error.raw_os_error() == Some(NO_LOCKS) =>
        {
            Ok(true)
        }
        Err(TryLockError::Error(error)) => Err(Error::io(path)(error)),
    }
}

/// An error unless a file can take this name: its folder is there, and what stands there now is no device or pipe, which a
/// rename would replace.
pub fn check_place(path: &Path) -> Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty())
        && !folder.is_dir()
    {
        return Err(Error::Invalid(format!("{}: the folder {} is missing", path.display(), folder.display())));
    }
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(Error::Invalid(format!("{} is no file that could be replaced", path.display())));
    }
    Ok(())
}

/// Renames a finished temporary file to its name and makes the rename durable.
pub fn publish(temporary: &Path, path: &Path) -> Result<()> {
    fs::rename(temporary, path).map_err(Error::io(path))?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))?;
    }
    Ok(())
}

/// Writes a value as indented JSON, in one step.
pub fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<()> {
    write_atomic(path, &json(value).map_err(Error::json(path))?)
}

/// A value as indented JSON, as it is written.
pub fn json<T: serde::Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// Reads a JSON file.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(Error::io(path))?;
    serde_json::from_slice(&text).map_err(Error::json(path))
}

/// SHA-256 of a file, lower-case hexadecimal.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut digest = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block).map_err(Error::io(path))? {
            0 => return Ok(hex(&digest.finalize())),
            n => digest.update(&block[..n]),
        }
    }
}

/// Lower-case hexadecimal of some bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_writers_of_a_file_do_not_mix() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.json");
        write_atomic(&path, b"first").expect("written");
        let other = File::create(temporary(&path)).expect("a file");
        other.lock().expect("a lock");
        let refused = write_atomic(&path, b"second").unwrap_err().to_string();
        assert!(refused.ends_with("a.json: another process writes it now"), "{refused}");
        assert_eq!(fs::read(&path).expect("a file"), b"first");
        drop(other);
        // What a killed writer left is no obstacle, and nothing of it stays.
        fs::write(temporary(&path), "much longer than what comes").expect("written");
        write_atomic(&path, b"third").expect("written");
        assert_eq!(fs::read(&path).expect("a file"), b"third");
        assert!(!temporary(&path).exists());
    }
}
