//! The output directory: who may work on it, and what an earlier run left there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use dataset::files;
use dataset::manifest::{CARD, MANIFEST, Manifest, REJECTS, TOKENIZER};

use crate::error::{Error, Result};
use crate::inputs;
use crate::listing;
use crate::plan::Plan;

/// Folder of notes that serve resuming; it is gone when the dataset is whole.
pub const NOTES: &str = ".ingest";

/// What the plan named, within the notes.
const LISTING: &str = "plan.jsonl";

/// Name of the argument that stands for the input.
pub const INPUT: &str = "input_sha256";

/// Extension of the notes that say what the inputs of a shard, or of the tokenizer, looked like.
pub const STAMPS: &str = "inputs";

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
pub fn prepare(
    raw: &Path,
    out: &Path,
    arguments: &BTreeMap<String, serde_json::Value>,
    plan: &Plan,
    overwrite: bool,
) -> Result<Prepared> {
    let refused = |message: &str| Error::Output { path: out.to_path_buf(), message: message.to_owned() };
    let notes = out.join(NOTES);
    if out.join(MANIFEST).exists() && !overwrite {
        return match Manifest::load(out) {
            Ok(manifest) if &manifest.arguments == arguments => {
                // A run that was killed after its last step but one.
                let _ = fs::remove_dir_all(&notes);
                Ok(Prepared::Done(Box::new(manifest)))
            }
            Ok(manifest) if differing(&manifest.arguments, arguments) == [INPUT] => Err(refused(
                "holds a dataset of these arguments, but the input changed since: --check-input says how; take another \
                 OUT or --overwrite",
            )),
            Ok(manifest) => {
                let changed = differing(&manifest.arguments, arguments).join(", ");
                Err(refused(&format!("holds another dataset ({changed} changed); take another OUT or --overwrite")))
            }
            Err(error) => Err(error.into()),
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
        Some(before) if &before == arguments && !out.join(MANIFEST).exists() => {
            let changed = inputs::changed(raw, used(out))?;
            match changed.as_slice() {
                [] => {}
                _ if overwrite => clear(out)?,
                _ => {
                    let message = format!(
                        "holds an unfinished dataset, and {} changed since it was read; put the input back, take \
                         another OUT or --overwrite",
                        inputs::some(&changed, "file")
                    );
                    return Err(refused(&message));
                }
            }
        }
        _ if overwrite => clear(out)?,
        Some(before) => {
            let changed = differing(&before, arguments);
            let how = if changed == [INPUT] { listing::difference(&notes.join(LISTING), plan) } else { None };
            return Err(refused(&match how {
                Some(how) => format!(
                    "holds an unfinished dataset, and its input changed since: {how}; put the input back, take another \
                     OUT or --overwrite"
                ),
                None => format!(
                    "holds an unfinished dataset of another run ({} changed); use the same command, another OUT or \
                     --overwrite",
                    changed.join(", ")
                ),
            }));
        }
        None => {}
    }
    listing::save(&notes.join(LISTING), plan)?;
    files::write_json(&kept, arguments)?;
    let shards = out.join("shards");
    fs::create_dir_all(&shards).map_err(Error::io(&shards))?;
    Ok(Prepared::Work(lock))
}

/// Notes of what the tokenizer and the finished shards were made from.
fn used(out: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(out.join(NOTES)).into_iter().flatten().flatten();
    let stamps = entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|found| found == STAMPS));
    let of_tokenizer =
        |path: &Path| path.file_stem() == Path::new(TOKENIZER).file_stem() && out.join(TOKENIZER).exists();
    let mut used: Vec<PathBuf> =
        stamps.filter(|path| of_tokenizer(path) || path.with_extension("json").exists()).collect();
    used.sort();
    used
}

/// Names of the arguments that differ, sorted.
fn differing<'a>(
    before: &'a BTreeMap<String, serde_json::Value>,
    now: &'a BTreeMap<String, serde_json::Value>,
) -> Vec<&'a str> {
    let all: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    all.into_iter().filter(|key| before.get(*key) != now.get(*key)).map(String::as_str).collect()
}

/// Removes what this tool writes, and nothing else; the manifest first, so that no half dataset looks whole.
fn clear(out: &Path) -> Result<()> {
    for name in [MANIFEST, CARD, REJECTS, TOKENIZER] {
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
