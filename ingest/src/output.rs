//! The output directory: who may work on it, and what an earlier run left there.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::path::Path;

use dataset::files;
use dataset::manifest::{MANIFEST, Manifest, REJECTS, TOKENIZER};

use crate::error::{Error, Result};

/// Folder of notes that serve resuming; it is gone when the dataset is whole.
pub const NOTES: &str = ".ingest";

/// What an output directory is good for.
pub enum Prepared {
    /// OUT holds this very dataset already.
    Done(Box<Manifest>),
    /// OUT is ours to work on while the lock is held.
    Work(File),
}

/// Claims a directory for a run of these arguments.
///
/// # Errors
/// When it holds something else, or another run works on it.
pub fn prepare(out: &Path, arguments: &BTreeMap<String, serde_json::Value>, overwrite: bool) -> Result<Prepared> {
    let refused = |message: &str| Error::Output { path: out.to_path_buf(), message: message.to_owned() };
    let notes = out.join(NOTES);
    if out.join(MANIFEST).exists() && !overwrite {
        return match Manifest::load(out) {
            Ok(manifest) if &manifest.arguments == arguments => {
                // A run that was killed after its last step but one.
                let _ = fs::remove_dir_all(&notes);
                Ok(Prepared::Done(Box::new(manifest)))
            }
            _ => Err(refused(
                "holds another dataset (other arguments, or the input changed); take another OUT or --overwrite",
            )),
        };
    }
    let is_empty = fs::read_dir(out).map_or(true, |mut entries| entries.next().is_none());
    if !is_empty && !notes.is_dir() && !out.join(MANIFEST).exists() {
        return Err(refused("is not empty and no dataset; take another OUT"));
    }
    fs::create_dir_all(&notes).map_err(Error::io(&notes))?;
    let lock_path = notes.join("lock");
    let lock = File::create(&lock_path).map_err(Error::io(&lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(refused("another ingest works on it now")),
        Err(TryLockError::Error(source)) => {
            return Err(Error::Io { path: lock_path, source });
        }
    }
    let kept = notes.join("arguments.json");
    let before: Option<BTreeMap<String, serde_json::Value>> =
        if kept.exists() { Some(files::read_json(&kept)?) } else { None };
    match before {
        // An interrupted run of this very command, one that overwrites included.
        Some(before) if &before == arguments && !out.join(MANIFEST).exists() => {}
        _ if overwrite => clear(out)?,
        Some(before) => {
            let all: HashSet<&String> = before.keys().chain(arguments.keys()).collect();
            let mut changed: Vec<&str> =
                all.into_iter().filter(|key| before.get(*key) != arguments.get(*key)).map(String::as_str).collect();
            changed.sort_unstable();
            let message = format!(
                "holds an unfinished dataset of another run ({} changed); use the same command, another OUT or --overwrite",
                changed.join(", ")
            );
            return Err(refused(&message));
        }
        None => {}
    }
    files::write_json(&kept, arguments)?;
    let shards = out.join("shards");
    fs::create_dir_all(&shards).map_err(Error::io(&shards))?;
    Ok(Prepared::Work(lock))
}

/// Removes what this tool writes, and nothing else; the manifest first, so that no half dataset looks whole.
fn clear(out: &Path) -> Result<()> {
    for name in [MANIFEST, REJECTS, TOKENIZER] {
        match fs::remove_file(out.join(name)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Io { path: out.join(name), source });
            }
            _ => {}
        }
    }
    for folder in ["shards", "splits"] {
        let path = out.join(folder);
        if path.exists() {
            fs::remove_dir_all(&path).map_err(Error::io(&path))?;
        }
    }
    let notes = out.join(NOTES);
    for entry in fs::read_dir(&notes).map_err(Error::io(&notes))?.flatten() {
        if entry.file_name() != "lock" {
            fs::remove_file(entry.path()).map_err(Error::io(&entry.path()))?;
        }
    }
    Ok(())
}
