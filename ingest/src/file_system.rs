//! Queries of the file system about inputs: a file or folder exists, or it does not. Any other answer (no permission, a
//! failing disk or server) is an error, since otherwise inputs would be missing from the dataset without a message.

use std::fs::{self, DirEntry, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use crate::error::{Error, Result};

/// Number of attempts at an operation that the system refuses.
const ATTEMPTS: u32 = 4;

/// Pause before the second attempt; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest sum of the pauses of a process before operations that failed in the end. After it, each operation has one
/// attempt, so that thousands of unreadable files do not take hours.
const MAX_WASTED: Duration = Duration::from_secs(30);

static WASTED_MILLISECONDS: AtomicU64 = AtomicU64::new(0);

/// The folder of `fsck` in the root of a disk; only the superuser can list it.
const LOST_AND_FOUND: &str = "lost+found";

/// Whether an error says that there is nothing at a path.
pub fn is_absence(error: &io::Error) -> bool {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename => true,
        // The name has a NUL byte, so the standard library did not ask the system.
        ErrorKind::InvalidInput => error.raw_os_error().is_none(),
        _ => error.raw_os_error() == Some(Errno::LOOP.raw_os_error()),
    }
}

/// Whether the system refused an operation for a reason that may go away: no permission, a failing disk or server, too many
/// open files. An error that is caused by the path or the file itself is no refusal.
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
/// That of the last attempt. An error that is no refusal is returned at once.
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

/// What there is at a path, links followed.
enum Target {
    Nothing,
    /// A link whose target is missing.
    DeadLink,
    Found(Metadata),
}

fn target(path: &Path) -> Result<Target> {
    let of = |outcome: io::Result<Metadata>| match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(failed(path)(error)),
    };
    Ok(match of(retry(|| fs::metadata(path)))? {
        Some(found) => Target::Found(found),
        None if of(retry(|| fs::symlink_metadata(path)))?.is_some() => Target::DeadLink,
        None => Target::Nothing,
    })
}

/// The metadata of a file or folder, links followed; `None` where there is none of this name.
///
/// # Errors
/// When the system refuses to say, and for a link whose target is missing.
pub fn metadata(path: &Path) -> Result<Option<Metadata>> {
    match target(path)? {
        Target::Found(found) => Ok(Some(found)),
        Target::Nothing => Ok(None),
        Target::DeadLink => Err(Error::Unreadable {
            path: path.to_path_buf(),
            cause: io::Error::other("the target of this link is missing"),
        }),
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

/// Whether there is a file of this name, or a link whose target is missing; reading such a link gives a reject.
///
/// # Errors
/// When the system refuses to say.
pub fn names_file(path: &Path) -> Result<bool> {
    Ok(match target(path)? {
        Target::Found(found) => found.is_file(),
        Target::DeadLink => true,
        Target::Nothing => false,
    })
}

/// The entries of a folder, sorted by name; empty where there is no such folder.
///
/// # Errors
/// When it cannot be listed, and for a link whose target is missing.
pub fn entries(folder: &Path) -> Result<Vec<DirEntry>> {
    match list(folder) {
        Err(error) if is_absence(&error) => metadata(folder).map(|_| Vec::new()),
        listed => listed.map_err(failed(folder)),
    }
}

/// The entries of a folder, sorted by name.
///
/// # Errors
/// Those of the operating system.
pub fn list(folder: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = retry(|| fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>())?;
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries)
}

/// The folders in a folder, links to folders included, sorted; without those of the system ([`is_of_system`]).
///
/// # Errors
/// When the folder cannot be listed, or the system refuses to say what an entry is.
pub fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in entries(folder)?.into_iter().filter(|entry| !is_of_system(&entry.path())) {
        let path = entry.path();
        let kind = retry(|| entry.file_type()).map_err(failed(&path))?;
        let is_folder = if kind.is_symlink() {
            matches!(target(&path)?, Target::Found(found) if found.is_dir())
        } else {
            kind.is_dir()
        };
        found.extend(is_folder.then_some(path));
    }
    Ok(found)
}

/// Whether a folder belongs to the system or to a program (hidden folders, `lost+found`): no source has data there, and it
/// often cannot be listed.
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
    fn a_path_exists_or_does_not_or_is_an_error() {
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
            let message = is_file(&at(dead)).unwrap_err().to_string();
            assert!(message.contains(dead) && message.contains("target of this link is missing"), "{message}");
            assert!(entries(&at(dead)).is_err() && names_file(&at(dead)).unwrap(), "{dead}");
        }
        assert_eq!(folders(folder.path()).unwrap(), [at("folder"), at("to-folder")]);
    }
}
