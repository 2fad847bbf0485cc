//! Where the dataset goes, who may work on it, and what an earlier run left there.
//!
//! A dataset for an object store grows in a staging folder of this machine. Each finished shard is sent and its copy
//! removed; notes, tokenizer and rejects stay until the dataset is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use dataset::manifest::{CARD, CROISSANT, MANIFEST, Manifest, REJECTS, TOKENIZER};
use dataset::{Storage, files};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::inputs;
use crate::plan::Plan;
use crate::saved_plan;

/// Folder of notes that serve resuming; it is gone when the dataset is whole.
pub const NOTES: &str = ".ingest";

/// What the plan named, within the notes.
const LISTING: &str = "plan.jsonl";

/// This tool and its version, as the manifest and the notes keep it.
pub const TOOL: &str = concat!("mrm ingest ", env!("CARGO_PKG_VERSION"));

/// Name of the note, beside the arguments, that says which version began the dataset.
const TOOL_NOTE: &str = "tool";

/// Name of the argument that stands for the input.
pub const INPUT: &str = "input_sha256";

/// Extension of the notes that say what the inputs of a shard, or of the tokenizer, looked like.
pub const STAMPS: &str = "inputs";

/// Hexadecimal digits of the URL's digest that name its staging folder.
const KEY: usize = 16;

/// Where a run puts its dataset.
pub struct Output {
    /// Where the dataset will be.
    pub storage: Storage,
    /// Where files are made, and where the notes lie: the dataset's own folder, or the staging folder of its URL.
    pub folder: PathBuf,
}

impl Output {
    /// The output at a path or URL. For an object store, files are made in `staging/KEY`, where the key follows from the
    /// URL alone; by default, staging is `mrm/staging` in the user's cache.
    pub fn at(location: impl AsRef<OsStr>, staging: Option<&Path>) -> Result<Self> {
        let storage = Storage::at(location)?;
        let folder = if let Some(folder) = storage.as_folder() {
            folder.to_path_buf()
        } else {
            let message = "there is no home for its staging folder: give --staging DIR";
            let staging = staging.map(Path::to_path_buf).or_else(default_staging);
            let staging =
                staging.ok_or_else(|| Error::Output { path: storage.path(""), message: message.to_owned() })?;
            staging.join(&files::hex(&Sha256::digest(storage.to_string()))[..KEY])
        };
        Ok(Self { storage, folder })
    }

    /// Whether files are made elsewhere than where they are to be.
    pub fn is_staged(&self) -> bool {
        self.storage.as_folder().is_none()
    }

    /// Moves a finished file to where it is to be.
    pub fn send(&self, name: &str) -> Result<()> {
        if self.is_staged() {
            let path = self.folder.join(name);
            self.storage.upload(&path, name)?;
            fs::remove_file(&path).map_err(Error::io(&path))?;
        }
        Ok(())
    }

    /// Removes what served resuming; a whole dataset needs none of it.
    pub fn tidy(&self) -> Result<()> {
        let path = if self.is_staged() { self.folder.clone() } else { self.folder.join(NOTES) };
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::Io { path, cause: source }),
            _ => Ok(()),
        }
    }
}

fn default_staging() -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = of("XDG_CACHE_HOME").or_else(|| Some(of("HOME")?.join(".cache")))?;
    Some(cache.join("mrm/staging"))
}

/// A shard of a finished dataset that is missing or was cut; none where all are there (`dataset verify` reads them, too).
fn lost_shard(out: &Output, manifest: &Manifest) -> Result<Option<String>> {
    let listed: BTreeMap<String, u64> =
        out.storage.list("shards")?.into_iter().map(|listed| (listed.name, listed.bytes)).collect();
    let lost = manifest.shards.iter().find(|shard| listed.get(&shard.path) != Some(&shard.bytes));
    Ok(lost.map(|shard| shard.path.clone()))
}

/// What an output is good for.
pub enum Prepared {
    /// OUT holds this very dataset already.
    Done(Box<Manifest>),
    /// OUT is ours to work on while the lock is held.
    Work(File),
}

/// Claims a place for a run of these arguments.
///
/// # Errors
/// When it holds something else, or another run works on it.
pub fn prepare(
    raw: &Path,
    out: &Output,
    arguments: &BTreeMap<String, serde_json::Value>,
    plan: &Plan,
    overwrite: bool,
) -> Result<Prepared> {
    let refused = |message: &str| Error::Output { path: out.storage.path(""), message: message.to_owned() };
    let notes = out.folder.join(NOTES);
    let is_whole = || Ok::<_, Error>(out.storage.read_if_there(MANIFEST)?.is_some());
    let finished = || match Manifest::load(&out.storage) {
        Ok(manifest) if &manifest.arguments == arguments => match lost_shard(out, &manifest)? {
            None => Ok(Prepared::Done(Box::new(manifest))),
            Some(name) => Err(refused(&format!(
                "holds this dataset, but {name} is missing or has another size than it says; restore it from a copy, or \
                 --overwrite to ingest anew"
            ))),
        },
        Ok(manifest) if differing(&manifest.arguments, arguments) == [INPUT] => Err(refused(
            "holds a dataset of these arguments, but the input changed since: --check-input says how; take another OUT \
             or --overwrite",
        )),
        Ok(manifest) => {
            let changed = differing(&manifest.arguments, arguments).join(", ");
            Err(refused(&format!("holds another dataset ({changed} changed); take another OUT or --overwrite")))
        }
        Err(error) => Err(error.into()),
    };
    let replaced = is_whole()?;
    if replaced && !overwrite && !notes.is_dir() {
        return finished();
    }
    if !notes.is_dir() && !replaced {
        let found = out.storage.list("")?;
        if !found.is_empty() && !out.is_staged() {
            return Err(refused("is not empty and no dataset; take another OUT"));
        }
        if !found.iter().all(|listed| is_ours(&listed.name)) {
            return Err(refused("holds other objects and no dataset; take another OUT"));
        }
        if !found.is_empty() && !overwrite {
            return Err(refused(&format!(
                "holds an unfinished dataset whose notes are not in {}; give the --staging of the run that began it, \
                 take another OUT or --overwrite",
                out.folder.display()
            )));
        }
    }
    files::make_folder(&notes)?;
    let lock_path = notes.join("lock");
    let lock = File::create(&lock_path).map_err(Error::io(&lock_path))?;
    if !dataset::files::lock(&lock, &lock_path)? {
        return Err(refused("another ingest works on it now"));
    }
    let kept = notes.join("arguments.json");
    let before: Option<BTreeMap<String, serde_json::Value>> =
        if kept.exists() { Some(files::read_json(&kept)?) } else { None };
    let replaced = is_whole()?;
    if replaced && !overwrite {
        // Another run ended meanwhile, or was killed after its last step but one.
        let finished = finished();
        out.tidy()?;
        return finished;
    }
    let mut noted = arguments.clone();
    noted.insert(TOOL_NOTE.to_owned(), TOOL.into());
    match before {
        // An interrupted run of this very command, one that overwrites included.
        Some(before) if before == noted && !replaced => {
            let changed = inputs::changed(raw, used(&out.folder))?;
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
        // A run that came to nothing stands in nobody's way.
        Some(_) if !has_shard(out)? => clear(out)?,
        Some(before) if before.get(TOOL_NOTE) != noted.get(TOOL_NOTE) => {
            let began = before.get(TOOL_NOTE).and_then(|tool| tool.as_str()).unwrap_or("another version");
            let message = format!(
                "holds an unfinished dataset of {began}, this is {TOOL}, which may give other bytes; finish it with that \
                 version, take another OUT or --overwrite"
            );
            return Err(refused(&message));
        }
        Some(before) => {
            let changed = differing(&before, &noted);
            let how = if changed == [INPUT] { saved_plan::difference(&notes.join(LISTING), plan) } else { None };
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
    saved_plan::save(&notes.join(LISTING), plan)?;
    files::write_json(&kept, &noted)?;
    let shards = out.folder.join("shards");
    files::make_folder(&shards)?;
    Ok(Prepared::Work(lock))
}

/// Whether an earlier run finished a shard, here or in the object store.
fn has_shard(out: &Output) -> Result<bool> {
    let mut listed = Storage::folder(&out.folder).list("shards")?;
    listed.extend(out.storage.list("shards")?);
    Ok(listed.iter().any(|listed| listed.name.ends_with(".parquet")))
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

/// Whether an object has a name that this tool gives.
fn is_ours(name: &str) -> bool {
    matches!(name, CARD | CROISSANT | REJECTS | TOKENIZER) || name.starts_with("shards/") || name.starts_with("splits/")
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
fn clear(out: &Output) -> Result<()> {
    let files = [MANIFEST, CARD, CROISSANT, REJECTS, TOKENIZER];
    out.storage.remove(&files)?;
    if out.is_staged() {
        for folder in ["shards", "splits"] {
            let listed = out.storage.list(folder)?;
            out.storage.remove(&listed.iter().map(|listed| listed.name.as_str()).collect::<Vec<_>>())?;
        }
        Storage::folder(&out.folder).remove(&files)?;
    }
    for folder in ["shards", "splits"] {
        let path = out.folder.join(folder);
        if path.exists() {
            fs::remove_dir_all(&path).map_err(Error::io(&path))?;
        }
    }
    let notes = out.folder.join(NOTES);
    for entry in fs::read_dir(&notes).map_err(Error::io(&notes))?.flatten() {
        if entry.file_name() != "lock" {
            fs::remove_file(entry.path()).map_err(Error::io(&entry.path()))?;
        }
    }
    Ok(())
}
