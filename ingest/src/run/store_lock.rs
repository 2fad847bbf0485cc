//! Keeps two runs on different machines from writing to one place of an object store.
//!
//! A run creates an object by a conditional write, which a store grants to one of several. The object names its owner and is
//! removed when the run ends. A killed run leaves it; the staging folder keeps the owner's name, so that the next run with this
//! folder goes on as the owner. No time limit takes the lock from a run: one that was suspended for an hour still owns it, and
//! asks before each file that it uploads.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use dataset::Storage;
use dataset::error::StoreFault;
use dataset::store::files;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::run::keys::NOTES;
use crate::run::tasks::task_note::{host, now};
use crate::run::tasks::work_folder::machine;

/// Name of the object, among the notes.
pub const STORE_LOCK: &str = "store-lock.json";

/// Name of the file in the staging folder that keeps the owner's name.
const OWNER: &str = "store-lock.json";

/// Attempts at a lock that other processes create and remove meanwhile.
const ATTEMPTS: u32 = 5;

/// The owner of a lock, as the object states it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    /// Identifies the run, also after it was killed and continued.
    run: String,
    /// Name of the machine.
    host: String,
    /// Number of the process that began the run.
    process: u32,
    /// Seconds since 1970 on the clock of that machine.
    since: u64,
}

/// A lock on a place in an object store. It is removed when this is dropped.
pub struct StoreLock {
    storage: Storage,
    owner: Owner,
    /// The file of the owner's name, which this process has locked.
    path: PathBuf,
    _file: File,
    /// Whether the object stays when this is dropped.
    stays: bool,
}

impl StoreLock {
    /// Takes the lock of a place in an object store; `None` for a folder. With `breaks`, the lock of another run is removed
    /// before.
    ///
    /// # Errors
    /// When another run has the lock, or the store ignores the condition of a write.
    pub fn acquire(storage: &Storage, staging: &Path, breaks: bool) -> Result<Option<Self>> {
        if storage.as_folder().is_some() {
            return Ok(None);
        }
        files::make_folder(staging)?;
        let path = staging.join(OWNER);
        let file = locked(storage, &path)?;
        let name = name();
        if breaks {
            storage.remove(&[&name])?;
        }
        let kept = files::read_json::<Owner>(&path).ok().filter(|kept| kept.host == host());
        let (owner, is_new) = kept.map_or_else(|| (Owner::new(), true), |kept| (kept, false));
        if is_new {
            // Through the file that is locked, and before the object: a killed run must know its own lock.
            let written = fs::write(&path, text(storage, &owner)?).and_then(|()| file.sync_all());
            written.map_err(Error::io(&path))?;
        }
        let mut lock = Self { storage: storage.clone(), owner, path, _file: file, stays: true };
        for _ in 0..ATTEMPTS {
            match lock.create()? {
                Attempt::Granted => {
                    lock.stays = false;
                    return Ok(Some(lock));
                }
                Attempt::Removed => {}
                Attempt::Held(message) => {
                    if is_new {
                        lock.forget();
                    }
                    return Err(Error::Output { path: storage.path(""), message });
                }
            }
        }
        Err(Error::Output { path: storage.path(&name), message: "other runs create and remove it".to_owned() })
    }

    fn create(&self) -> Result<Attempt> {
        let (name, bytes) = (name(), text(&self.storage, &self.owner)?);
        let unsupported = || Error::Output {
            path: self.storage.path(&name),
            message:
                "this store has no conditional writes (If-None-Match), so that nothing keeps two machines from writing \
                      there at once; if no other one does, set AWS_CONDITIONAL_PUT=disabled"
                    .to_owned(),
        };
        match self.storage.create(&name, bytes) {
            Ok(true) => {
                // A store that ignores the condition would have replaced the lock of another run. It replaces this one, too.
                let probe = Owner { process: 0, ..self.owner.clone() };
                if self.storage.create(&name, text(&self.storage, &probe)?)? {
                    self.storage.remove(&[&name])?;
                    return Err(unsupported());
                }
                Ok(Attempt::Granted)
            }
            Ok(false) => Ok(match self.storage.read_if_there(&name)? {
                None => Attempt::Removed,
                Some(found) => match serde_json::from_slice::<Owner>(&found) {
                    Ok(found) if found.run == self.owner.run => Attempt::Granted,
                    Ok(found) => Attempt::Held(found.holds()),
                    Err(_) => Attempt::Held(format!("{name} is no lock that this version wrote; {REMEDY}")),
                },
            }),
            Err(dataset::Error::Store { fault: StoreFault::Unsupported(_), .. }) => Err(unsupported()),
            Err(error) => Err(error.into()),
        }
    }

    /// An error where another run took the lock over.
    pub fn check(&self) -> Result<()> {
        let read = || -> Result<Option<serde_json::Result<Owner>>> {
            Ok(self.storage.read_if_there(&name())?.map(|found| serde_json::from_slice(&found)))
        };
        // An answer of the store may be damaged.
        let found = match read()? {
            Some(Err(_)) => read()?,
            found => found,
        };
        let message = match found {
            Some(Ok(found)) if found.run == self.owner.run => return Ok(()),
            Some(Ok(found)) => found.holds(),
            Some(Err(_)) => no_lock(),
            None => "the lock of this run was removed (--break-lock), so that another one may write there; it ends"
                .to_owned(),
        };
        Err(Error::Output { path: self.storage.path(""), message })
    }

    /// Leaves the object where it is: the store does not answer, and a further request would wait for it again.
    pub fn leave(mut self) {
        self.stays = true;
    }

    fn forget(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Drop for StoreLock {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        let removed = self.check().and_then(|()| Ok(self.storage.remove(&[&name()])?));
        if !matches!(removed, Err(Error::Dataset(_))) {
            self.forget();
        }
    }
}

/// Remedies where a lock is not that of a run that works.
const REMEDY: &str = "wait until it ends; if it was killed, repeat it on that machine, or make sure that it does not run and \
                      give --break-lock";

/// What an attempt at a lock showed.
enum Attempt {
    Granted,
    /// The lock of another run was removed meanwhile.
    Removed,
    /// Another run has it, and this message says which.
    Held(String),
}

impl Owner {
    fn new() -> Self {
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let process = std::process::id();
        Self { run: format!("{}-{process}-{nanos}", machine()), host: host(), process, since: now() }
    }

    fn holds(&self) -> String {
        let minutes = now().saturating_sub(self.since) / 60;
        let (host, process) = (&self.host, self.process);
        format!(
            "another ingest is writing to it: process {process} on {host}, which began {minutes} min ago by its clock; {REMEDY}"
        )
    }
}

/// An error where a run without `--task` has the lock of a place in an object store.
///
/// # Errors
/// Names its owner; also when the store does not answer.
pub fn check_free(storage: &Storage) -> Result<()> {
    if storage.as_folder().is_some() {
        return Ok(());
    }
    let Some(found) = storage.read_if_there(&name())? else { return Ok(()) };
    let found = serde_json::from_slice::<Owner>(&found);
    let message = found.map_or_else(|_| no_lock(), |found| found.holds());
    Err(Error::Output { path: storage.path(""), message })
}

fn no_lock() -> String {
    format!("{} is no lock of this version; {REMEDY}", name())
}

/// Name of the object in the dataset.
pub fn name() -> String {
    format!("{NOTES}/{STORE_LOCK}")
}

fn text(storage: &Storage, owner: &Owner) -> Result<Vec<u8>> {
    files::json(owner).map_err(|cause| Error::io(&storage.path(&name()))(cause.into()))
}

/// Opens the file of the owner's name and locks it for this process.
fn locked(storage: &Storage, path: &Path) -> Result<File> {
    for _ in 0..ATTEMPTS {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(Error::io(path))?;
        if !files::lock(&file, path)? {
            break;
        }
        // A run that ended meanwhile has removed it.
        let is_same = fs::metadata(path).is_ok_and(|found| file.metadata().is_ok_and(|own| own.ino() == found.ino()));
        if is_same {
            return Ok(file);
        }
    }
    let message = "another ingest on this machine is writing to it; wait until it ends, or take another OUT";
    Err(Error::Output { path: storage.path(""), message: message.to_owned() })
}
