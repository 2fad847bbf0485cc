//! A folder in which one process alone writes: what other processes see is renamed or uploaded from it, whole.
//!
//! It is removed when the process ends. The folder of a killed process is removed by the next one on the same machine, or
//! with all notes when the dataset is complete.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};
use crate::run::keys::NOTES;

/// Prefix of the names of these folders.
pub const PREFIX: &str = "work-";

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
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let name = format!("{machine}-{}-{nanos}", std::process::id());
        // Other processes look at it when it has its name, after it is locked.
        let (new, path) = (parent.join(format!("new-{name}")), parent.join(format!("{PREFIX}{name}")));
        let make = || {
            for folder in [new.clone(), new.join("shards"), new.join(NOTES)] {
                fs::create_dir(folder)?;
            }
            let lock = File::create(new.join(LOCK))?;
            // On a file system without locks no process removes the folder of another one.
            let _ = lock.try_lock();
            fs::rename(&new, &path)?;
            Ok(lock)
        };
        let lock = make().map_err(Error::io(&path));
        if lock.is_err() {
            let _ = fs::remove_dir_all(&new);
        }
        Ok(Self { path, _lock: lock? })
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

/// Removes the folders of this machine whose lock can be taken: their processes ended.
fn remove_abandoned(parent: &Path, machine: &str) {
    let prefix = format!("{PREFIX}{machine}-");
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(&prefix) {
            continue;
        }
        let lock = File::options().write(true).open(entry.path().join(LOCK));
        if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let other = WorkFolder::create(parent.path()).unwrap();
        assert!(!dead.exists() && elsewhere.exists() && living.path().exists());
        let path = other.path().to_path_buf();
        drop(other);
        assert!(!path.exists() && living.path().exists());
    }
}
