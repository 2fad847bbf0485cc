//! Questions to the file system about inputs: a file or folder is there, or it is not. Any other answer (no permission, a
//! failing disk or server) is an error, because what it hides would be missing from the dataset and nobody would know.

use std::fs::{self, DirEntry, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use crate::error::{Error, Result};

/// Attempts at an operation that the system refuses.
const ATTEMPTS: u32 = 4;

/// Pause before the second attempt; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Total pauses of a process for operations that failed in the end. After that each operation has one attempt, so that
/// thousands of unreadable files do not take hours.
const MAX_WASTED: Duration = Duration::from_secs(30);

static WASTED_MILLISECONDS: AtomicU64 = AtomicU64::new(0);

/// The folder of `fsck` at the root of a disk, which only root can list.
const LOST_AND_FOUND: &str = "lost+found";

/// Whether an error says that a path leads to nothing.
pub fn is_absence(error: &io::Error) -> bool {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename => true,
        // A name that the system was not even asked for.
        ErrorKind::InvalidInput => error.raw_os_error().is_none(),
        _ => error.raw_os_error() == Some(Errno::LOOP.raw_os_error()),
    }
}

/// Whether the system refused an operation for a reason that may pass: no permission, a failing disk or server, too many
/// open files. What follows from the path or the file itself is no refusal.
pub fn is_refusal(error: &io::Error) -> bool {
    error.raw_os_error().is_some() && !is_absence(error) && error.kind() != ErrorKind::IsADirectory
}

/// The error that ends a run where an input cannot be read.
pub fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    move |cause| {
        let path = path.to_path_buf();
        if is_refusal(&cause) { Error::Unreadable { path, cause } } else { Error::Io { path, cause } }
    }
}

/// Repeats an operation that the system refuses, a few times and after short pauses.
///
/// # Errors
/// The last one. Errors that are no refusal are returned at once.
pub fn retry<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let (mut pause, mut waited) = (FIRST_PAUSE, Duration::ZERO);
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(error) if is_refusal(&error) && is_worth_waiting() => {
                std::thread::sleep(pause);
                waited += pause;
                pause *= 2;
            }
            outcome => return outcome,
        }
    }
    let outcome = attempt();
    if outcome.is_err() {
        WASTED_MILLISECONDS.fetch_add(waited.as_millis() as u64, Ordering::Relaxed);
    }
    outcome
}

fn is_worth_waiting() -> bool {
    u128::from(WASTED_MILLISECONDS.load(Ordering::Relaxed)) < MAX_WASTED.as_millis()
}

/// What a path leads to.
enum Target {
    Nothing,
    /// A link whose target is missing.
    DeadLink,
    There(Metadata),
}

fn target(path: &Path) -> Result<Target> {
    let of = |outcome: io::Result<Metadata>| match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(failed(path)(error)),
    };
    Ok(match of(retry(|| fs::metadata(path)))? {
        Some(found) => Target::There(found),
        None if of(retry(|| fs::symlink_metadata(path)))?.is_some() => Target::DeadLink,
        None => Target::Nothing,
    })
}

/// What a path leads to, links followed; `None` where there is nothing of this name.
///
/// # Errors
/// When the system does not say, and for a link whose target is missing.
pub fn metadata(path: &Path) -> Result<Option<Metadata>> {
    match target(path)? {
        Target::There(found) => Ok(Some(found)),
        Target::Nothing => Ok(None),
        Target::DeadLink => {
            Err(Error::Unreadable { path: path.to_path_buf(), cause: io::Error::other("the link leads nowhere") })
        }
    }
}

/// Whether there is a file of this name.
///
/// # Errors
/// As [`metadata`].
pub fn is_file(path: &Path) -> Result<bool> {
    Ok(metadata(path)?.is_some_and(|found| found.is_file()))
}

/// Whether there is a folder of this name.
///
/// # Errors
/// As [`metadata`].
pub fn is_folder(path: &Path) -> Result<bool> {
    Ok(metadata(path)?.is_some_and(|found| found.is_dir()))
}

/// Whether there is a file of this name, or a link whose target is missing: reading it gives a reject.
///
/// # Errors
/// When the system does not say.
pub fn names_file(path: &Path) -> Result<bool> {
    Ok(match target(path)? {
        Target::There(found) => found.is_file(),
        Target::DeadLink => true,
        Target::Nothing => false,
    })
}

/// What a folder holds, sorted by name; nothing where there is no such folder.
///
/// # Errors
/// When it cannot be listed, and for a link whose target is missing.
pub fn entries(folder: &Path) -> Result<Vec<DirEntry>> {
    match list(folder) {
        Err(error) if is_absence(&error) => metadata(folder).map(|_| Vec::new()),
        listed => listed.map_err(failed(folder)),
    }
}

/// What a folder holds, sorted by name.
///
/// # Errors
/// Those of the operating system.
pub fn list(folder: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = retry(|| fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>())?;
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries)
}

/// The folders in a folder, links to folders included, sorted. Those of the system are left out ([`is_of_system`]).
///
/// # Errors
/// When the folder cannot be listed, or the system does not say what an entry is.
pub fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in entries(folder)?.into_iter().filter(|entry| !is_of_system(&entry.path())) {
        let path = entry.path();
        let kind = retry(|| entry.file_type()).map_err(failed(&path))?;
        let is_folder = if kind.is_symlink() {
            matches!(target(&path)?, Target::There(found) if found.is_dir())
        } else {
            kind.is_dir()
        };
        found.extend(is_folder.then_some(path));
    }
    Ok(found)
}

/// Whether a folder belongs to the system or to a program (hidden folders, `lost+found`): no source keeps data there, and
/// often it may not be listed.
pub fn is_of_system(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || name == LOST_AND_FOUND
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn refused() -> io::Error {
        Errno::IO.into()
    }

    #[test]
    fn a_refusal_is_tried_again_and_an_absence_is_not() {
        let attempts_until = |success: u32, error: fn() -> io::Error| {
            let mut attempts = 0;
            let outcome = retry(|| {
                attempts += 1;
                if attempts < success { Err(error()) } else { Ok(()) }
            });
            (attempts, outcome.is_ok())
        };
        assert_eq!(attempts_until(3, refused), (3, true));
        assert_eq!(attempts_until(ATTEMPTS + 1, refused), (ATTEMPTS, false));
        assert_eq!(attempts_until(2, || Errno::NOENT.into()), (1, false));
        assert_eq!(attempts_until(2, || io::Error::other("too large")), (1, false));
    }

    #[test]
    fn a_path_is_there_or_not_or_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("folder")).unwrap();
        fs::create_dir(at(".hidden")).unwrap();
        fs::write(at("file"), "x").unwrap();
        for (link, to) in [("to-folder", "folder"), ("dead", "gone"), ("loop", "loop")] {
            symlink(to, at(link)).unwrap();
        }
        assert!(is_file(&at("file")).unwrap() && is_folder(&at("to-folder")).unwrap());
        for absent in ["gone", "file/below", &"long".repeat(100)] {
            assert!(!is_file(&at(absent)).unwrap() && !names_file(&at(absent)).unwrap(), "{absent}");
            assert!(entries(&at(absent)).unwrap().is_empty(), "{absent}");
        }
        for dead in ["dead", "loop"] {
            let told = is_file(&at(dead)).unwrap_err().to_string();
            assert!(told.contains(dead) && told.contains("leads nowhere"), "{told}");
            assert!(entries(&at(dead)).is_err() && names_file(&at(dead)).unwrap(), "{dead}");
        }
        assert_eq!(folders(folder.path()).unwrap(), [at("folder"), at("to-folder")]);
    }
}
