//! The output of a run: its place, the lock on it, and what an earlier run left there.
//!
//! A dataset for an object store is prepared in a staging folder on this machine. Each finished shard is uploaded and its
//! local copy removed; notes, tokenizer and rejects stay until the dataset is complete.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dataset::Storage;
use dataset::format::manifest::{CARD, CROISSANT, MANIFEST, Manifest, REJECTS, TOKENIZER};
use dataset::format::record::FORMAT_VERSION;
use dataset::store::files;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::file_system;
use crate::run::changed_options::{Arguments, are_of_format_1, changed, deciding};
use crate::run::changed_plan;
use crate::run::hashing_reader;
use crate::run::keys::{NOTES, STAMPS, TOOL, TOOL_NOTE};
use crate::run::plan::Plan;
use crate::run::refused;
use crate::run::saved_plan;
use crate::run::store_lock::{self, StoreLock};

/// The arguments of the run, within the notes.
const ARGUMENTS: &str = "arguments.json";

/// The list of the plan's records, within the notes.
const LISTING: &str = "plan.jsonl";

/// Hexadecimal digits of the URL's digest that make the name of its staging folder.
const KEY: usize = 16;

/// Where a run puts its dataset.
pub struct Output {
    /// Where the dataset will be.
    pub storage: Storage,
    /// Where files are written first: the dataset's own folder, the staging folder of its URL, or the folder of a task.
    pub folder: PathBuf,
    /// Whether other processes write to the same dataset, so that `folder` belongs to this one.
    shared: bool,
    /// The lock of the place in an object store, from [`prepare`] on.
    store_lock: Mutex<Option<StoreLock>>,
}

impl Output {
    /// The output at a path or URL. For an object store, files are written to `staging/KEY` first, where the key is derived
    /// from the URL; the default of `staging` is `mrm/staging` in the user's cache.
    pub fn at(location: impl AsRef<OsStr>, staging: Option<&Path>) -> Result<Self> {
        let storage = Storage::at(location)?;
        let folder = match storage.as_folder() {
            Some(folder) => folder.to_path_buf(),
            None => staging_folder(&storage, staging)?,
        };
        Ok(Self { storage, folder, shared: false, store_lock: Mutex::default() })
    }

    /// The output of a task, whose files are written to a folder of its own first. In a folder it must be on the same disk.
    pub fn of_task(storage: &Storage, private: &Path) -> Self {
        Self { storage: storage.clone(), folder: private.to_path_buf(), shared: true, store_lock: Mutex::default() }
    }

    /// Whether files are written to another folder first.
    pub fn is_staged(&self) -> bool {
        self.shared || self.storage.as_folder().is_none()
    }

    /// Whether other processes write to the same dataset.
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// Takes the lock of a place in an object store, for as long as this output lives. `breaks` as
    /// [`StoreLock::acquire`].
    fn lock_store(&self, breaks: bool) -> Result<()> {
        let lock = StoreLock::acquire(&self.storage, &self.folder, breaks)?;
        *self.store_lock() = lock;
        Ok(())
    }

    /// An error where another run took over the lock of the place in an object store.
    pub fn check_lock(&self) -> Result<()> {
        self.store_lock().as_ref().map_or(Ok(()), StoreLock::check)
    }

    /// Removes the lock in an object store, which is also done when this is dropped.
    fn release_lock(&self) {
        drop(self.store_lock().take());
    }

    /// Leaves the lock in an object store that does not answer. The next run with the same staging folder takes it.
    pub fn leave_lock(&self) {
        if let Some(lock) = self.store_lock().take() {
            lock.leave();
        }
    }

    fn store_lock(&self) -> MutexGuard<'_, Option<StoreLock>> {
        self.store_lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves a finished file to the dataset; does nothing where it was written there.
    pub fn send(&self, name: &str) -> Result<()> {
        if !self.is_staged() {
            return Ok(());
        }
        self.check_lock()?;
        let path = self.folder.join(name);
        if let Some(folder) = self.storage.as_folder() {
            return Ok(files::publish(&path, &folder.join(name))?);
        }
        self.storage.upload(&path, name)?;
        fs::remove_file(&path).map_err(Error::io(&path))
    }

    /// Writes a finished file to the dataset. A run alone keeps the copy in the staging folder, with which it can continue.
    pub fn complete(&self, name: &str) -> Result<()> {
        if self.shared || !self.is_staged() {
            return self.send(name);
        }
        self.check_lock()?;
        Ok(self.storage.upload(&self.folder.join(name), name)?)
    }

    /// Removes the notes, which a complete dataset does not need, and the lock in an object store.
    pub fn remove_notes(&self) -> Result<()> {
        self.release_lock();
        let path = if self.is_staged() { self.folder.clone() } else { self.folder.join(NOTES) };
        match fs::remove_dir_all(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(Error::Io { path, cause: source }),
            _ => Ok(()),
        }
    }
}

/// The folder on this machine for a dataset in an object store: `staging/KEY`, where the key is derived from the URL.
pub fn staging_folder(storage: &Storage, staging: Option<&Path>) -> Result<PathBuf> {
    let message =
        "neither XDG_CACHE_HOME nor HOME is set, so there is no default for the staging folder; give --staging DIR";
    let staging = staging.map(Path::to_path_buf).or_else(default_staging);
    let staging = staging.ok_or_else(|| Error::Output { path: storage.path(""), message: message.to_owned() })?;
    Ok(staging.join(&files::hex(&Sha256::digest(storage.to_string()))[..KEY]))
}

fn default_staging() -> Option<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = of("XDG_CACHE_HOME").or_else(|| Some(of("HOME")?.join(".cache")))?;
    Some(cache.join("mrm/staging"))
}

/// Checks that a finished dataset has all its shards. (`dataset verify` also reads them.)
///
/// # Errors
/// Names the first shard that is missing or has another size.
pub fn check_whole(storage: &Storage, manifest: &Manifest) -> Result<()> {
    let listed: BTreeMap<String, u64> =
        storage.list("shards")?.into_iter().map(|listed| (listed.name, listed.bytes)).collect();
    let lost = manifest.shards.iter().find(|shard| listed.get(&shard.path) != Some(&shard.bytes));
    lost.map_or(Ok(()), |shard| {
        let message = format!(
            "holds this dataset, but {} is missing or has another size than the manifest says; restore it from a copy, or \
             --overwrite to ingest anew",
            shard.path
        );
        Err(Error::Output { path: storage.path(""), message })
    })
}

/// State of an output that was claimed.
pub enum Prepared {
    /// The dataset of these arguments is there and complete.
    Done(Box<Manifest>),
    /// The run may write while it holds this lock.
    Work(File),
}

/// What to do with a finished dataset of the same arguments.
pub enum Existing<'a> {
    /// Keep it.
    Keep,
    /// Replace it.
    Replace,
    /// Continue it like an unfinished one if this returns true, else keep it.
    ContinueIf(&'a dyn Fn() -> Result<bool>),
}

/// The finished dataset of these arguments that an output holds.
///
/// # Errors
/// When it is another dataset, lacks a shard, or cannot be read.
pub fn finished(raw: &Path, out: &Output, arguments: &Arguments, plan: &Plan) -> Result<Prepared> {
    let refused = |message: &str| Error::Output { path: out.storage.path(""), message: message.to_owned() };
    match Manifest::load(&out.storage) {
        Ok(manifest) if deciding(&manifest.arguments).eq(deciding(arguments)) => {
            check_whole(&out.storage, &manifest)?;
            Ok(Prepared::Done(Box::new(manifest)))
        }
        Ok(manifest) => match changed(&manifest.arguments, arguments).as_slice() {
            [] if manifest.format_version < FORMAT_VERSION => Err(refused(&format!(
                "holds a dataset of these options in format version {}, whose digest of the input cannot be compared with \
                 that of this version; --check-input compares the files; keep the dataset, take another OUT or --overwrite",
                manifest.format_version
            ))),
            [] => {
                let how = changed_plan::difference(raw, &out.storage, &manifest, plan)?;
                Err(refused(&format!(
                    "holds a dataset of these options, but the input changed since: {how}; --check-input lists each changed \
                     file; restore the input, take another OUT or --overwrite"
                )))
            }
            options => {
                Err(refused(&format!("holds another dataset: {}; take another OUT or --overwrite", options.join("; "))))
            }
        },
        Err(error) => Err(error.into()),
    }
}

/// Claims an output for a run of these arguments.
///
/// # Errors
/// When it holds something else, or another run works on it. In an object store, `breaks_lock` takes the lock of another run.
pub fn prepare(
    raw: &Path,
    out: &Output,
    arguments: &BTreeMap<String, serde_json::Value>,
    plan: &Plan,
    existing: &Existing,
    breaks_lock: bool,
) -> Result<Prepared> {
    let overwrite = matches!(existing, Existing::Replace);
    let refused = |message: &str| Error::Output { path: out.storage.path(""), message: message.to_owned() };
    let notes = out.folder.join(NOTES);
    let is_whole = || Ok::<_, Error>(out.storage.read_if_there(MANIFEST)?.is_some());
    let finished = || finished(raw, out, arguments, plan);
    let replaced = is_whole()?;
    // A staging folder has no notes of use before the run has the lock of the store and writes its arguments.
    let first_note = if out.is_staged() { notes.join(ARGUMENTS) } else { notes.clone() };
    let has_notes = first_note.try_exists().map_err(Error::io(&first_note))?;
    // What a killed run left here goes away, also where the dataset was completed.
    let rest = if out.is_staged() { &out.folder } else { &notes };
    let has_rest = rest.try_exists().map_err(Error::io(rest))?;
    if replaced && !overwrite && !has_rest {
        return finished();
    }
    let check_place = || {
        let mut found = out.storage.list("")?;
        found.retain(|listed| listed.name != store_lock::name());
        if !found.is_empty() && !out.is_staged() {
            return Err(refused("is neither empty nor a dataset; take another OUT"));
        }
        if !found.iter().all(|listed| is_ours(&listed.name)) {
            return Err(refused("holds objects that are no part of a dataset; take another OUT"));
        }
        if !found.is_empty() && !overwrite {
            return Err(refused(&format!(
                "holds an unfinished dataset whose notes are not in {}; give the --staging of the run that began it, \
                 take another OUT or --overwrite",
                out.folder.display()
            )));
        }
        Ok(())
    };
    if !has_notes && !replaced {
        check_place()?;
    }
    files::make_folder(&notes)?;
    let lock_path = notes.join("lock");
    let lock = File::create(&lock_path).map_err(Error::io(&lock_path))?;
    if !dataset::store::files::lock(&lock, &lock_path)? {
        return Err(refused("another ingest is writing to it; wait until it ends, or take another OUT"));
    }
    let locked = out.lock_store(breaks_lock).and_then(|()| {
        // A run on another machine may have begun meanwhile.
        if out.is_staged() && !has_notes && !is_whole()? { check_place() } else { Ok(()) }
    });
    if let Err(error) = locked {
        if out.is_staged() && !has_notes {
            out.release_lock();
            let _ = fs::remove_dir_all(&notes);
            let _ = fs::remove_dir(&out.folder);
        }
        return Err(error);
    }
    let kept = notes.join(ARGUMENTS);
    let before: Option<BTreeMap<String, serde_json::Value>> =
        if kept.try_exists().map_err(Error::io(&kept))? { Some(files::read_json(&kept)?) } else { None };
    let replaced = is_whole()?;
    let reopened = replaced && !overwrite;
    if reopened {
        // Another run ended meanwhile, was killed before it removed its notes, or left them for `--retry-rejects`.
        let done = finished()?;
        let continues = if let Existing::ContinueIf(condition) = existing { condition()? } else { false };
        if !continues {
            if refused::noted(&notes)?.is_empty() {
                out.remove_notes()?;
            }
            return Ok(done);
        }
    }
    let held = if reopened { "a dataset" } else { "an unfinished dataset" };
    let mut noted = arguments.clone();
    noted.insert(TOOL_NOTE.to_owned(), TOOL.into());
    match before {
        // An interrupted run of the same command, also one with `--overwrite`.
        Some(before) if deciding(&before).eq(deciding(&noted)) && (!replaced || reopened) => {
            let read = |path: PathBuf| {
                let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
                Ok((path, text))
            };
            let changed = hashing_reader::changed(raw, stamp_notes(&out.folder)?.into_iter().map(read))?;
            match changed.as_slice() {
                [] => {}
                _ if overwrite => clear(out)?,
                _ => {
                    let changed: Vec<String> = changed.iter().map(|path| plan.path_names.stored(path)).collect();
                    let message = format!(
                        "holds {held}, and {} changed since it was read; restore the input, take another OUT or \
                         --overwrite",
                        hashing_reader::count_and_names(&changed, "file")
                    );
                    return Err(refused(&message));
                }
            }
        }
        _ if overwrite => clear(out)?,
        // A failed run without a finished shard is replaced without `--overwrite`.
        Some(_) if !has_shard(out)? => clear(out)?,
        Some(before) if are_of_format_1(&before) => {
            let message = format!(
                "holds {held} that an earlier version began, in format version 1; finish it with that version, take another \
                 OUT or --overwrite"
            );
            return Err(refused(&message));
        }
        Some(before) if before.get(TOOL_NOTE) != noted.get(TOOL_NOTE) => {
            let began = before.get(TOOL_NOTE).and_then(|tool| tool.as_str()).unwrap_or("another version");
            let message = format!(
                "holds {held} that {began} began, and this is {TOOL}, which may write other bytes; finish it with that \
                 version, take another OUT or --overwrite"
            );
            return Err(refused(&message));
        }
        Some(before) => {
            let options = changed(&before, &noted);
            return Err(refused(&if options.is_empty() {
                let how = saved_plan::difference(&notes.join(LISTING), plan);
                let how = how.map_or_else(String::new, |how| format!(": {how}"));
                format!(
                    "holds an unfinished dataset, and its input changed since{how}; restore the input, take another OUT or \
                     --overwrite"
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
        // The manifest is removed and the folder synced before any shard is replaced: even after a power failure no manifest
        // may name shards of other bytes.
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

/// The notes with the stamps of the inputs of the tokenizer and of the finished shards.
fn stamp_notes(out: &Path) -> Result<Vec<PathBuf>> {
    let notes = out.join(NOTES);
    let mut stamp_notes = Vec::new();
    for entry in file_system::list(&notes).map_err(Error::io(&notes))? {
        let path = entry.path();
        let is_of_tokenizer = path.file_stem() == Path::new(TOKENIZER).file_stem();
        let product = if is_of_tokenizer { out.join(TOKENIZER) } else { path.with_extension("json") };
        let is_stamps = path.extension().is_some_and(|found| found == STAMPS);
        stamp_notes.extend((is_stamps && product.try_exists().map_err(Error::io(&product))?).then_some(path));
    }
    Ok(stamp_notes)
}

/// Whether this tool writes objects of this name.
fn is_ours(name: &str) -> bool {
    let folders = ["shards", "joins", "splits", NOTES];
    matches!(name, CARD | CROISSANT | REJECTS | TOKENIZER)
        || folders.iter().any(|folder| name.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))
}

/// Removes what this tool writes, and nothing else; the manifest first, so that no incomplete dataset looks complete.
fn clear(out: &Output) -> Result<()> {
    let files = [MANIFEST, CARD, CROISSANT, REJECTS, TOKENIZER];
    out.storage.remove(&files)?;
    if out.is_staged() {
        for folder in ["shards", "joins", "splits", NOTES] {
            let mut listed = out.storage.list(folder)?;
            listed.retain(|listed| listed.name != store_lock::name());
            out.storage.remove(&listed.iter().map(|listed| listed.name.as_str()).collect::<Vec<_>>())?;
        }
        Storage::folder(&out.folder).remove(&files)?;
    }
    for folder in ["shards", "joins", "splits"] {
        let path = out.folder.join(folder);
        match fs::remove_dir_all(&path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(Error::Io { path, cause }),
            _ => {}
        }
    }
    let notes = out.folder.join(NOTES);
    for entry in file_system::list(&notes).map_err(Error::io(&notes))? {
        if entry.file_name() != "lock" {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) };
            removed.map_err(Error::io(&entry.path()))?;
        }
    }
    Ok(())
}
