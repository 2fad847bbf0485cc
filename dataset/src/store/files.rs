//! Reading by position, atomic writes, locks and digests of local files.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, IoSliceMut, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Largest JSON file (manifest, certificate, tokenizer, notes) that is read into memory, in bytes.
pub const MAX_JSON_BYTES: u64 = 256 << 20;

/// Largest other file that is read into memory as a whole, such as the table of a split, in bytes.
pub const MAX_TABLE_BYTES: u64 = 4 << 30;

/// Fills buffers, one after the other, with the bytes of a file from a position on: by one system call where that returns all
/// of them.
///
/// # Errors
/// When the file ends before, or cannot be read.
pub(crate) fn read_buffers(file: &File, mut at: u64, mut buffers: &mut [IoSliceMut]) -> io::Result<()> {
    // Without those that are empty.
    IoSliceMut::advance_slices(&mut buffers, 0);
    while !buffers.is_empty() {
        let read = rustix::io::retry_on_intr(|| rustix::io::preadv(file, buffers, at))?;
        if read == 0 {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "failed to fill whole buffer"));
        }
        at += read as u64;
        IoSliceMut::advance_slices(&mut buffers, read);
    }
    Ok(())
}

/// Name under which a file is written until it is complete.
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    path.with_file_name(name)
}

/// Writes a file, whole or not at all: a temporary file beside `path` is written, synced and renamed.
///
/// # Errors
/// When no file can be there, another process is writing the same file, or the system refuses.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, bytes, || ())
}

/// As [`write_atomic`]. `opened` is called between opening and locking; a test runs another writer in it.
fn write_with(path: &Path, bytes: &[u8], opened: impl FnMut()) -> Result<()> {
    check_place(path)?;
    let temporary = temporary(path);
    let mut file = locked(&temporary, path, opened)?;
    let written = file.set_len(0).and_then(|()| file.write_all(bytes)).and_then(|()| file.sync_all());
    let published = written.map_err(Error::io(path)).and_then(|()| publish(&temporary, path));
    if published.is_err() {
        // The lock is still held, so this is not the file of another writer.
        let _ = fs::remove_file(&temporary);
    }
    published
}

/// Opens or creates the temporary file of `path`, and locks it. It is not truncated before it is locked.
fn locked(temporary: &Path, path: &Path, mut opened: impl FnMut()) -> Result<File> {
    loop {
        let file = OpenOptions::new().create(true).write(true).truncate(false).open(temporary);
        let file = file.map_err(Error::io(path))?;
        opened();
        if !lock(&file, path)? {
            return Err(Error::Invalid(format!("{}: another process writes it now", path.display())));
        }
        // Between opening and locking, another writer may have renamed this file to `path`: writing to it would damage
        // what that writer published.
        if is_at(&file, temporary).map_err(Error::io(path))? {
            return Ok(file);
        }
    }
}

/// Whether the file at `path` is the one that is open.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Locks a file for this process until it is closed; false where another process has locked it. On file systems without
/// locks, such as some of clusters, it returns true without a lock.
///
/// # Errors
/// When the system refuses for another reason.
pub fn lock(file: &File, path: &Path) -> Result<bool> {
    locked_or_none(file.try_lock(), path)
}

fn locked_or_none(outcome: Result<(), TryLockError>, path: &Path) -> Result<bool> {
    const NO_LOCKS: i32 = 37; // ENOLCK
    match outcome {
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

/// As [`lock`], with a lock that several processes can hold at the same time; the file must be open for reading.
///
/// # Errors
/// When the system refuses for another reason.
pub fn lock_shared(file: &File, path: &Path) -> Result<bool> {
    locked_or_none(file.try_lock_shared(), path)
}

/// An error unless a file can have this path: its folder exists, and there is no device or pipe, which a rename would
/// replace.
///
/// # Errors
/// Says what is missing or in the way.
pub fn check_place(path: &Path) -> Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty())
        && !folder.is_dir()
    {
        return Err(Error::Invalid(format!("{}: the folder {} is missing", path.display(), folder.display())));
    }
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(Error::Invalid(format!("{} is not a file that can be replaced", path.display())));
    }
    Ok(())
}

/// Renames a complete temporary file to its name and syncs the folder.
///
/// # Errors
/// When the system refuses.
pub fn publish(temporary: &Path, path: &Path) -> Result<()> {
    fs::rename(temporary, path).map_err(Error::io(path))?;
    sync_folder(parent(path))
}

/// The folder that contains a file or folder.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) => Path::new("."),
        // The root is its own folder.
        None => path,
    }
}

/// Syncs the entries of a folder, but not the contents of its files.
///
/// # Errors
/// When the system refuses.
pub fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))
}

/// Creates a folder with those above it that are missing, and syncs each new one.
///
/// # Errors
/// When the system refuses.
pub fn make_folder(path: &Path) -> Result<()> {
    let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    fs::create_dir_all(path).map_err(Error::io(path))?;
    missing.into_iter().try_for_each(|folder| sync_folder(parent(folder)))
}

/// Opens a regular file, and nothing else: a pipe would wait for a writer, and a device may be endless.
///
/// # Errors
/// Those of the operating system, and when it is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    if fs::metadata(path)?.is_file() {
        return File::open(path);
    }
    Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"))
}

/// Reads a regular file of at most `most` bytes.
///
/// # Errors
/// Those of the operating system, and when it is not a regular file or is larger.
pub fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let work = || -> io::Result<Vec<u8>> {
        let file = open(path)?;
        let length = file.metadata()?.len();
        check_size(length, most)?;
        let mut bytes = Vec::with_capacity(length as usize);
        file.take(most + 1).read_to_end(&mut bytes)?;
        check_size(bytes.len() as u64, most)?;
        Ok(bytes)
    };
    work().map_err(Error::io(path))
}

/// An error where a file has more than `most` bytes.
pub(crate) fn check_size(bytes: u64, most: u64) -> io::Result<()> {
    if bytes <= most {
        return Ok(());
    }
    let message = format!("it has {bytes} bytes, the limit is {most}");
    Err(io::Error::new(ErrorKind::InvalidData, message))
}

/// Reads a regular UTF-8 text file of at most [`MAX_TABLE_BYTES`].
///
/// # Errors
/// As [`read`], and when it is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let invalid = |_| Error::io(path)(io::Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"));
    String::from_utf8(read(path, MAX_TABLE_BYTES)?).map_err(invalid)
}

/// Writes a value as indented JSON, whole or not at all.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_json<T: serde::Serialize>(path: &Path, value: &T) -> Result<()> {
    write_atomic(path, &json(value).map_err(Error::json(path))?)
}

/// A value as indented JSON with a newline at the end.
///
/// # Errors
/// When it cannot be serialized.
pub fn json<T: serde::Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    Ok(text)
}

/// Reads a JSON file of at most [`MAX_JSON_BYTES`].
///
/// # Errors
/// As [`read`], and when it is not a `T`.
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_slice(&read(path, MAX_JSON_BYTES)?).map_err(Error::json(path))
}

/// SHA-256 of a file, lower-case hexadecimal.
///
/// # Errors
/// When it cannot be read, or is not a regular file.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = open(path).map_err(Error::io(path))?;
    let mut digest = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block).map_err(Error::io(path))? {
            0 => return Ok(hex(&digest.finalize())),
            n => digest.update(&block[..n]),
        }
    }
}

/// Bytes as lower-case hexadecimal text.
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
        // The file of a killed writer is replaced, and nothing of it is left.
        fs::write(temporary(&path), "much longer than the next text").expect("written");
        write_atomic(&path, b"third").expect("written");
        assert_eq!(fs::read(&path).expect("a file"), b"third");
        assert!(!temporary(&path).exists());
    }

    /// Each writer either publishes all of its bytes or is refused, and a published file never changes.
    #[test]
    fn concurrent_writers_never_damage_a_published_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("split.parquet");
        let contents = [vec![b'a'; 40_000], vec![b'b'; 70_000]];
        let whole = |bytes: &[u8]| contents.iter().any(|content| content == bytes);
        let damaged = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (path, content, damaged) = (&path, &contents[thread % 2], &damaged);
                scope.spawn(move || {
                    for _ in 0..100 {
                        match write_atomic(path, content) {
                            Ok(()) => {}
                            Err(error) => {
                                assert!(error.to_string().ends_with("another process writes it now"), "{error}");
                            }
                        }
                        let published = fs::read(path).unwrap_or_else(|_| content.clone());
                        damaged.fetch_add(usize::from(!whole(&published)), std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(damaged.into_inner(), 0);
        write_atomic(&path, &contents[0]).expect("written");
        assert!(fs::read(&path).expect("a file") == contents[0] && !temporary(&path).exists());
    }

    #[test]
    fn a_writer_whose_file_was_published_before_its_lock_opens_another_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.json");
        // Another writer publishes the file that this one has opened but not locked.
        let mut published = None;
        let other = || {
            if published.is_none() {
                fs::write(temporary(&path), "published").expect("written");
                publish(&temporary(&path), &path).expect("published");
                published = Some(File::open(&path).expect("a file"));
            }
        };
        write_with(&path, b"late", other).expect("written");
        assert_eq!(fs::read(&path).expect("a file"), b"late");
        let mut text = String::new();
        published.expect("published").read_to_string(&mut text).expect("read");
        assert_eq!(text, "published", "a published file never changes");
    }

    #[test]
    fn pipes_and_endless_files_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
        for path in [pipe.as_path(), Path::new("/dev/zero")] {
            let message = read(path, MAX_JSON_BYTES).unwrap_err().to_string();
            assert!(
                message.contains(&path.display().to_string()) && message.contains("not a regular file"),
                "{message}"
            );
            assert!(sha256(path).is_err());
        }
        let large = folder.path().join("large.json");
        File::create(&large).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
        let message = read(&large, MAX_JSON_BYTES).unwrap_err().to_string();
        assert!(message.contains("large.json") && message.contains("1099511627776 bytes"), "{message}");
        let made = folder.path().join("a/b/c");
        make_folder(&made).expect("made");
        make_folder(&made).expect("there already");
        assert!(made.is_dir());
    }
}
