//! What a process holds while it works on a dataset with others: a lock, its own folder, the notes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dataset::Storage;
use dataset::store::files;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::run::keys::NOTES;
use crate::run::note_store::NoteStore;
use crate::run::options::Options;
use crate::run::output::staging_folder;
use crate::run::store_lock::{self, STORE_LOCK, StoreLock};
use crate::run::tasks::task::Share;
use crate::run::tasks::work_folder::WorkFolder;

/// Name of the lock among the notes.
const LOCK: &str = "lock";

/// Attempts at removing the notes while another process may write one.
const ATTEMPTS: u32 = 5;

/// The part of a process in a dataset.
pub struct Session {
    pub storage: Storage,
    pub notes: NoteStore,
    pub work: WorkFolder,
    /// The folder that contains `work`.
    parent: PathBuf,
    _lock: Option<File>,
    /// The lock of a place in an object store, which a run alone holds.
    store_lock: Option<StoreLock>,
}

impl Session {
    /// Begins to work on a dataset: with other tasks, or alone for all shards. On file systems without locks nothing keeps a run
    /// alone and tasks from working at the same time; both write the same bytes. In an object store, tasks that began before
    /// a run alone go on.
    ///
    /// # Errors
    /// When a run alone works on it, or, for all shards, any other process does.
    pub fn open(storage: &Storage, options: &Options, share: Share) -> Result<Self> {
        let (parent, lock, store_lock) = if let Some(folder) = storage.as_folder() {
            let notes = folder.join(NOTES);
            files::make_folder(&notes)?;
            let path = notes.join(LOCK);
            // Network file systems want an open mode that fits the kind of lock.
            let lock = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            let lock = lock.map_err(Error::io(&path))?;
            let is_locked = match share {
                Share::Task(_) => files::lock_shared(&lock, &path)?,
                Share::All => files::lock(&lock, &path)?,
            };
            if !is_locked {
                let message = match share {
                    Share::Task(_) => "a run without --task is writing to it; wait until it ends, or take another OUT",
                    Share::All => "another ingest is writing to it; wait until it ends, or take another OUT",
                };
                return Err(Error::Output { path: storage.path(""), message: message.to_owned() });
            }
            (notes, Some(lock), None)
        } else {
            let staging = staging_folder(storage, options.staging.as_deref())?;
            files::make_folder(&staging)?;
            let store_lock = match share {
                Share::Task(_) if options.break_lock => {
                    storage.remove(&[&store_lock::name()])?;
                    None
                }
                Share::Task(_) => store_lock::check_free(storage).map(|()| None)?,
                Share::All => StoreLock::acquire(storage, &staging, options.break_lock)?,
            };
            (staging, None, store_lock)
        };
        let work = WorkFolder::create(&parent)?;
        let notes = NoteStore::shared(storage, work.path());
        Ok(Self { storage: storage.clone(), notes, work, parent, _lock: lock, store_lock })
    }

    /// Makes the folder of the shards, where the dataset is a folder.
    pub fn make_shards(&self) -> Result<()> {
        let folder = self.storage.as_folder();
        Ok(folder.map_or(Ok(()), |folder| files::make_folder(&folder.join("shards")))?)
    }

    /// Ends the work on a complete dataset. Its notes are removed, or, where `--retry-rejects` needs them, those of tasks.
    pub fn end_complete(self, keep_notes: bool) -> Result<()> {
        let Self { storage, notes, work, parent, store_lock, .. } = self;
        drop(work);
        let removed = |name: &str| {
            name != STORE_LOCK && (!keep_notes || ["task-", "claim"].iter().any(|prefix| name.starts_with(prefix)))
        };
        if let Some(folder) = storage.as_folder()
            && !keep_notes
        {
            remove_folder(&folder.join(NOTES))
        } else {
            let names: Vec<String> = notes.names()?.into_iter().filter(|name| removed(name)).collect();
            names.par_iter().try_for_each(|name| notes.remove(name))?;
            drop(store_lock);
            remove_if_empty(&storage, &parent);
            Ok(())
        }
    }

    /// Ends the work, finished or not.
    pub fn end(self) {
        let Self { storage, work, parent, store_lock, .. } = self;
        drop((work, store_lock));
        remove_if_empty(&storage, &parent);
    }

    /// Removes what this process alone made, where the plan could not be made: nothing half-written is left.
    pub fn end_without_plan(self) {
        let Self { storage, work, parent, store_lock, .. } = self;
        drop((work, store_lock));
        if let Some(folder) = storage.as_folder() {
            let is_alone =
                fs::read_dir(&parent).is_ok_and(|entries| entries.flatten().all(|entry| entry.file_name() == LOCK));
            if is_alone {
                let _ = fs::remove_dir_all(&parent);
                let _ = fs::remove_dir(folder);
            }
        } else {
            remove_if_empty(&storage, &parent);
        }
    }
}

/// Removes the folder of an object store's staging, unless it has more.
fn remove_if_empty(storage: &Storage, parent: &Path) {
    if storage.as_folder().is_none() {
        let _ = fs::remove_dir(parent);
    }
}

/// Removes a folder to which another process may still write. It does so only until it notices the manifest, and removes the
/// rest then.
fn remove_folder(path: &Path) -> Result<()> {
    for attempt in 1.. {
        match fs::remove_dir_all(path) {
            Ok(()) => break,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            Err(_) if attempt < ATTEMPTS => std::thread::sleep(Duration::from_millis(50)),
            // The dataset is complete, and the process that writes here ends soon.
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => break,
            Err(error) => return Err(Error::io(path)(error)),
        }
    }
    Ok(())
}
