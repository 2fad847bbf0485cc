//! A folder in which one process alone writes: what other processes see is renamed or uploaded from it, whole.
//!
//! It is removed when the process ends. The folder of a killed process is removed by the next one on the same machine, or
//! with all notes when the dataset is complete. A file beside the folder, which its process has locked, says that the process
//! lives; the file is there before the folder and is removed after it.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::run::keys::NOTES;

/// Prefix of the names of these folders.
const PREFIX: &str = "work-";

/// Extension of the file beside each.
const LOCK: &str = "lock";

/// Attempts to make a folder.
const ATTEMPTS: usize = 10;

/// A folder that is removed when this is dropped.
pub struct WorkFolder {
    path: PathBuf,
    _lock: File,
}

impl WorkFolder {
    /// Makes a new folder below `parent`, and removes those of killed processes of this machine.
    pub fn create(parent: &Path) -> Result<Self> {
        let machine = machine();
        remove_abandoned(parent, &machine);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
            let path = parent.join(format!("{PREFIX}{machine}-{}-{nanos}", std::process::id()));
            match Self::try_create(&path) {
                // Another process took the lock first, for that of a killed process, or has the same name, or removed an empty
                // parent.
                Ok(None) if attempt < ATTEMPTS => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists && attempt < ATTEMPTS => {}
                Err(error) if error.kind() == ErrorKind::NotFound && attempt < ATTEMPTS => {
                    fs::create_dir_all(parent).map_err(Error::io(parent))?;
                }
                Ok(Some(folder)) => return Ok(folder),
                Ok(None) => return Err(Error::io(&path)(ErrorKind::ResourceBusy.into())),
                Err(error) => return Err(Error::io(&path)(error)),
            }
        }
    }

    /// Makes a folder of this name; none where another process has its lock.
    fn try_create(path: &Path) -> std::io::Result<Option<Self>> {
        let lock_path = path.with_extension(LOCK);
        let lock = File::options().write(true).create_new(true).open(&lock_path)?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => return Ok(None),
            // On a file system without locks no process removes the folder of another one.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        // From here on no other process can take the lock. It may have been taken, and the file removed, before.
        let is_same =
            fs::metadata(&lock_path).is_ok_and(|found| lock.metadata().is_ok_and(|own| own.ino() == found.ino()));
        if !is_same {
            return Ok(None);
        }
        let folder = Self { path: path.to_path_buf(), _lock: lock };
        for name in [path.to_path_buf(), path.join("shards"), path.join(NOTES)] {
            fs::create_dir(name)?;
        }
        Ok(Some(folder))
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        let _ = fs::remove_file(self.path.with_extension(LOCK));
    }
}

/// A name of this machine since its last start. Host names may be equal in containers, and locks of some network file
/// systems hold on one machine only.
pub fn machine() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(12).collect();
    if digits.is_empty() { "unknown".to_owned() } else { digits }
}

/// Removes the folders of this machine whose lock can be taken: their processes ended.
fn remove_abandoned(parent: &Path, machine: &str) {
    let prefix = format!("{PREFIX}{machine}-");
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_lock = path.extension().is_some_and(|extension| extension == LOCK);
        if !is_lock || !entry.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        let lock = File::options().write(true).open(&path);
        if lock.as_ref().is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(path.with_extension(""));
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_processes_that_begin_at_once_have_a_folder_each() {
        let parent = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let folder = WorkFolder::create(parent.path()).unwrap();
                        fs::write(folder.path().join("shards/part"), "x").unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn folders_of_ended_processes_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let living = WorkFolder::create(parent.path()).unwrap();
        // Killed in its work, and before it had a folder.
        let dead = [1, 2].map(|process| parent.path().join(format!("{PREFIX}{}-{process}-1", machine())));
        let elsewhere = parent.path().join(format!("{PREFIX}0123456789ab-1-1"));
        for folder in [&dead[0], &elsewhere] {
            fs::create_dir(folder).unwrap();
        }
        for folder in [&dead[0], &dead[1], &elsewhere] {
            fs::write(folder.with_extension(LOCK), "").unwrap();
        }
        let other = WorkFolder::create(parent.path()).unwrap();
        assert!(!dead[0].exists() && elsewhere.exists() && living.path().exists());
        assert!(dead.iter().all(|folder| !folder.with_extension(LOCK).exists()));
        let path = other.path().to_path_buf();
        drop(other);
        assert!(!path.exists() && living.path().exists());
    }

    #[test]
    fn a_parent_that_another_process_has_removed_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let parent = folder.path().join("staging");
        assert!(WorkFolder::create(&parent).unwrap().path().is_dir());
    }
}
