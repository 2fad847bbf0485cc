//! A folder in which one process alone writes: what other processes see is renamed or uploaded from it, whole.
//!
//! It is removed when the process ends. The folder of a killed process is removed by the next one on the same machine, or
//! with all notes when the dataset is complete.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::run::keys::NOTES;

/// Prefix of the names of these folders.
pub const PREFIX: &str = "work-";

/// Prefix of their names until they are locked.
const UNNAMED: &str = "new-";

/// Attempts to make a folder.
const ATTEMPTS: usize = 10;

/// Name of the file in each that its process has locked.
const LOCK: &str = "lock";

/// A folder that is removed when this is dropped.
pub struct WorkFolder {
    path: PathBuf,
    _lock: File,
}

impl WorkFolder {
    /// Makes a new folder below `parent`, which must exist, and removes those of killed processes of this machine.
    pub fn create(parent: &Path) -> Result<Self> {
        let machine = machine();
        remove_abandoned(parent, &machine);
        let nanos = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        for _ in 1..ATTEMPTS {
            match Self::try_create(parent, &format!("{machine}-{}-{}", std::process::id(), nanos())) {
                Err(error) if error.kind() == ErrorKind::NotFound && parent.is_dir() => {}
                made => return made.map_err(Error::io(parent)),
            }
        }
        Self::try_create(parent, &format!("{machine}-{}-{}", std::process::id(), nanos())).map_err(Error::io(parent))
    }

    /// Makes a folder of this name. The error `NotFound` says that another process took its lock first, for
    /// that of a killed process.
    fn try_create(parent: &Path, name: &str) -> std::io::Result<Self> {
        // Other processes look at it when it has its name, after it is locked.
        let (new, path) = (parent.join(format!("{UNNAMED}{name}")), parent.join(format!("{PREFIX}{name}")));
        let make = || {
            for folder in [new.clone(), new.join("shards"), new.join(NOTES)] {
                fs::create_dir(folder)?;
            }
            let lock = File::create(new.join(LOCK))?;
            match lock.try_lock() {
                Err(TryLockError::WouldBlock) => return Err(std::io::Error::from(ErrorKind::NotFound)),
                // On a file system without locks no process removes the folder of another one.
                Ok(()) | Err(TryLockError::Error(_)) => {}
            }
            fs::rename(&new, &path)?;
            Ok(lock)
        };
        let lock = make().inspect_err(|_| {
            let _ = fs::remove_dir_all(&new);
        })?;
        Ok(Self { path, _lock: lock })
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A name of this machine since its last start. Host names may be equal in containers, and locks of some network file
/// systems hold on one machine only.
fn machine() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(12).collect();
    if digits.is_empty() { "unknown".to_owned() } else { digits }
}

/// Removes the folders of this machine whose lock can be taken, and those of ended processes that have no lock yet.
fn remove_abandoned(parent: &Path, machine: &str) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let rest = name.strip_prefix(PREFIX).or_else(|| name.strip_prefix(UNNAMED));
        let Some(rest) = rest.and_then(|rest| rest.strip_prefix(machine)?.strip_prefix('-')) else { continue };
        let lock = File::options().write(true).open(entry.path().join(LOCK));
        let is_abandoned = match &lock {
            Ok(lock) => lock.try_lock().is_ok(),
            Err(error) => error.kind() == ErrorKind::NotFound && name.starts_with(UNNAMED) && has_ended(rest),
        };
        if is_abandoned {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether the process has ended whose number begins the rest of a folder's name.
fn has_ended(rest: &str) -> bool {
    let process = rest.split('-').next().and_then(|number| number.parse::<u32>().ok());
    process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists())
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
        let dead = parent.path().join(format!("{PREFIX}{}-1-1", machine()));
        let elsewhere = parent.path().join(format!("{PREFIX}0123456789ab-1-1"));
        for folder in [&dead, &elsewhere] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join(LOCK), "").unwrap();
        }
        // Killed before and after its lock was made.
        let unnamed =
            ["4294967295-2", "4294967295-3"].map(|rest| parent.path().join(format!("{UNNAMED}{}-{rest}", machine())));
        unnamed.iter().for_each(|folder| fs::create_dir(folder).unwrap());
        fs::write(unnamed[1].join(LOCK), "").unwrap();
        let other = WorkFolder::create(parent.path()).unwrap();
        assert!(!dead.exists() && elsewhere.exists() && living.path().exists());
        assert!(unnamed.iter().all(|folder| !folder.exists()));
        let path = other.path().to_path_buf();
        drop(other);
        assert!(!path.exists() && living.path().exists());
    }
}
