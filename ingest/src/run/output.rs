//! Where the dataset goes, who may work on it, and what an earlier run left there.
//!
//! A dataset for an object store grows in a staging folder of this machine. Each finished shard is sent and its copy
//! removed; notes, tokenizer and rejects stay until the dataset is whole.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use dataset::Storage;
use dataset::format::manifest::{CARD, CROISSANT, MANIFEST, Manifest, REJECTS, TOKENIZER};
use dataset::store::files;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::file_system;
use crate::run::changed_options::{changed, deciding};
use crate::run::changed_plan;
use crate::run::hashing_reader;
use crate::run::keys::{NOTES, STAMPS, TOOL, TOOL_NOTE};
use crate::run::plan::Plan;
use crate::run::refused;
use crate::run::saved_plan;

/// What the plan named, within the notes.
const LISTING: &str = "plan.jsonl";

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

/// What to do with a finished dataset of the same arguments.
pub enum Existing<'a> {
    /// It stays as it is.
    Keep,
    /// It is made anew.
    Replace,
    /// It becomes an unfinished dataset, to which the run adds what it lacks, if this says so.
    ContinueIf(&'a dyn Fn() -> Result<bool>),
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
    existing: &Existing,
) -> Result<Prepared> {
    let overwrite = matches!(existing, Existing::Replace);
    let refused = |message: &str| Error::Output { path: out.storage.path(""), message: message.to_owned() };
    let notes = out.folder.join(NOTES);
    let is_whole = || Ok::<_, Error>(out.storage.read_if_there(MANIFEST)?.is_some());
    let finished = || match Manifest::load(&out.storage) {
        Ok(manifest) if deciding(&manifest.arguments).eq(deciding(arguments)) => match lost_shard(out, &manifest)? {
            None => Ok(Prepared::Done(Box::new(manifest))),
            Some(name) => Err(refused(&format!(
                "holds this dataset, but {name} is missing or has another size than it says; restore it from a copy, or \
                 --overwrite to ingest anew"
            ))),
        },
        Ok(manifest) => match changed(&manifest.arguments, arguments).as_slice() {
            [] => {
                let how = changed_plan::difference(raw, &out.storage, &manifest, plan)?;
                Err(refused(&format!(
                    "holds a dataset of these options, but the input changed since: {how}; --check-input says how each \
                     file changed; put the input back, take another OUT or --overwrite"
                )))
            }
            options => {
                Err(refused(&format!("holds another dataset: {}; take another OUT or --overwrite", options.join("; "))))
            }
        },
        Err(error) => Err(error.into()),
    };
    let replaced = is_whole()?;
    let has_notes = notes.try_exists().map_err(Error::io(&notes))?;
    if replaced && !overwrite && !has_notes {
        return finished();
    }
    if !has_notes && !replaced {
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
    if !dataset::store::files::lock(&lock, &lock_path)? {
        return Err(refused("another ingest works on it now"));
    }
    let kept = notes.join("arguments.json");
    let before: Option<BTreeMap<String, serde_json::Value>> =
        if kept.try_exists().map_err(Error::io(&kept))? { Some(files::read_json(&kept)?) } else { None };
    let replaced = is_whole()?;
    let reopened = replaced && !overwrite;
    if reopened {
        // Another run ended meanwhile, was killed after its last step but one, or left notes for `--retry-rejects`.
        let done = finished()?;
        let goes_on = if let Existing::ContinueIf(condition) = existing { condition()? } else { false };
        if !goes_on {
            if refused::noted(&notes)?.is_empty() {
                out.tidy()?;
            }
            return Ok(done);
        }
    }
    let held = if reopened { "a dataset" } else { "an unfinished dataset" };
    let mut noted = arguments.clone();
    noted.insert(TOOL_NOTE.to_owned(), TOOL.into());
    match before {
        // An interrupted run of this very command, one that overwrites included.
        Some(before) if deciding(&before).eq(deciding(&noted)) && (!replaced || reopened) => {
            let changed = hashing_reader::changed(raw, used(&out.folder)?)?;
            match changed.as_slice() {
                [] => {}
                _ if overwrite => clear(out)?,
                _ => {
                    let message = format!(
                        "holds {held}, and {} changed since it was read; put the input back, take another OUT or \
                         --overwrite",
                        hashing_reader::some(&changed, "file")
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
                "holds {held} of {began}, this is {TOOL}, which may give other bytes; finish it with that version, take \
                 another OUT or --overwrite"
            );
            return Err(refused(&message));
        }
        Some(before) => {
            let options = changed(&before, &noted);
            return Err(refused(&if options.is_empty() {
                let how = saved_plan::difference(&notes.join(LISTING), plan);
                let how = how.map_or_else(String::new, |how| format!(": {how}"));
                format!(
                    "holds an unfinished dataset, and its input changed since{how}; put the input back, take another OUT \
                     or --overwrite"
                )
            } else {
                format!(
                    "holds an unfinished dataset of another run: {}; use the same command, another OUT or --overwrite",
                    options.join("; ")
                )
            }));
        }
        None => {}
    }
    if reopened {
        // Before any shard is replaced: a manifest must not name shards of other bytes, not even after a power failure.
        out.storage.remove(&[MANIFEST])?;
        if let Some(folder) = out.storage.as_folder() {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))?;
        }
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
fn used(out: &Path) -> Result<Vec<PathBuf>> {
    let notes = out.join(NOTES);
    let mut used = Vec::new();
    for entry in file_system::list(&notes).map_err(Error::io(&notes))? {
        let path = entry.path();
        let is_of_tokenizer = path.file_stem() == Path::new(TOKENIZER).file_stem();
        let made = if is_of_tokenizer { out.join(TOKENIZER) } else { path.with_extension("json") };
        let is_stamps = path.extension().is_some_and(|found| found == STAMPS);
        used.extend((is_stamps && made.try_exists().map_err(Error::io(&made))?).then_some(path));
    }
    Ok(used)
}

/// Whether an object has a name that this tool gives.
fn is_ours(name: &str) -> bool {
    matches!(name, CARD | CROISSANT | REJECTS | TOKENIZER) || name.starts_with("shards/") || name.starts_with("splits/")
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
        match fs::remove_dir_all(&path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(Error::Io { path, cause }),
            _ => {}
        }
    }
    let notes = out.folder.join(NOTES);
    for entry in file_system::list(&notes).map_err(Error::io(&notes))? {
        if entry.file_name() != "lock" {
            fs::remove_file(entry.path()).map_err(Error::io(&entry.path()))?;
        }
    }
    Ok(())
}
