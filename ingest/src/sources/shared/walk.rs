//! The files of a raw directory.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::error::Result;
use crate::file_system::{self, entries, failed, is_absence, is_of_system, retry};
use crate::reject::{Reject, Stage};

/// Sizes of the files below a folder, by path relative to the raw directory. Links whose target is missing, files that are
/// not regular and names that are not UTF-8 become rejects. A folder that cannot be listed is an error, since it may contain
/// any number of inputs.
#[derive(Default)]
pub struct Walk {
    pub files: BTreeMap<String, u64>,
    pub rejects: Vec<Reject>,
}

impl Walk {
    /// Walks `folder`, keeping files whose extension (lower case) is one of `extensions`.
    ///
    /// # Errors
    /// As [`Walk::of_wanted`].
    pub fn of(raw: &Path, folder: &Path, extensions: &[&str]) -> Result<Self> {
        let is_wanted = |path: &Path| extension(path).is_some_and(|found| extensions.contains(&found.as_str()));
        Self::of_wanted(raw, folder, &|path| Ok(is_wanted(path)))
    }

    /// Walks `folder`, keeping the files that are wanted.
    ///
    /// Links to folders are followed after all real folders were walked, so that a folder with several paths has the same one
    /// on every machine. No folder is walked twice, so cyclic links are harmless.
    ///
    /// # Errors
    /// When a folder cannot be listed, or the system refuses to say what a file is.
    pub fn of_wanted(raw: &Path, folder: &Path, is_wanted: &dyn Fn(&Path) -> Result<bool>) -> Result<Self> {
        let root = match retry(|| folder.canonicalize()) {
            Err(error) if is_absence(&error) => folder.to_path_buf(),
            found => found.map_err(failed(folder))?,
        };
        let mut walker = Walker { raw, is_wanted, seen: HashSet::new(), links: Vec::new(), found: Self::default() };
        walker.visit(folder, root.clone())?;
        while !walker.links.is_empty() {
            let mut links = std::mem::take(&mut walker.links);
            links.sort();
            for link in links {
                match retry(|| link.canonicalize()) {
                    Ok(real) if !walker.seen.contains(&real) && root.starts_with(&real) => {
                        walker
                            .reject(&link, "this link is not followed, since it points to a folder above the raw data");
                    }
                    Ok(real) => walker.visit(&link, real)?,
                    Err(error) => walker.reject_or_fail(&link, error)?,
                }
            }
        }
        walker.found.rejects.sort_by(|a, b| a.source_path.cmp(&b.source_path));
        Ok(walker.found)
    }
}

struct Walker<'a> {
    raw: &'a Path,
    is_wanted: &'a dyn Fn(&Path) -> Result<bool>,
    /// Folders that were walked, by their real paths.
    seen: HashSet<PathBuf>,
    /// Links to folders that are still to be followed.
    links: Vec<PathBuf>,
    found: Walk,
}

impl Walker<'_> {
    fn reject(&mut self, path: &Path, error: impl Display) {
        let source_path = path.strip_prefix(self.raw).unwrap_or(path).to_string_lossy().into_owned();
        let error = error.to_string();
        self.found.rejects.push(Reject { source_path, record_id: None, stage: Stage::Plan, error });
    }

    /// Rejects a path at which there is nothing; any other error ends the walk.
    fn reject_or_fail(&mut self, path: &Path, error: io::Error) -> Result<()> {
        if is_absence(&error) {
            self.reject(path, error);
            return Ok(());
        }
        Err(failed(path)(error))
    }

    /// Walks a folder whose path without links is `real`.
    fn visit(&mut self, folder: &Path, real: PathBuf) -> Result<()> {
        if self.seen.contains(&real) {
            return Ok(());
        }
        let entries = match file_system::list(folder) {
            Ok(entries) => entries,
            // The root of the walk must be listed, whatever its name.
            Err(error) if !self.seen.is_empty() && is_of_system(folder) => {
                self.reject(folder, error);
                return Ok(());
            }
            Err(error) => return self.reject_or_fail(folder, error),
        };
        let mut folders = Vec::new();
        for entry in entries {
            let path = entry.path();
            let kind = match retry(|| entry.file_type()) {
                Ok(kind) => kind,
                Err(error) => {
                    self.reject_or_fail(&path, error)?;
                    continue;
                }
            };
            if kind.is_dir() {
                folders.push((path, real.join(entry.file_name())));
                continue;
            }
            let found = if kind.is_symlink() { Some(retry(|| fs::metadata(&path))) } else { None };
            match found {
                Some(Ok(found)) if found.is_dir() => self.links.push(path),
                Some(Err(error)) if !is_absence(&error) => return Err(failed(&path)(error)),
                _ if (self.is_wanted)(&path)? => self.file(&path)?,
                _ => {}
            }
        }
        self.seen.insert(real);
        folders.into_iter().try_for_each(|(folder, real)| self.visit(&folder, real))
    }

    fn file(&mut self, path: &Path) -> Result<()> {
        match (retry(|| fs::metadata(path)), path.strip_prefix(self.raw).unwrap_or(path).to_str()) {
            (Err(error), _) => self.reject_or_fail(path, error)?,
            // Reading a pipe may never end.
            (Ok(found), _) if !found.is_file() => self.reject(path, "not a regular file, so it is not read"),
            (Ok(_), None) => self.reject(path, "the name is not UTF-8; rename the file"),
            (Ok(found), Some(name)) => drop(self.found.files.insert(name.to_owned(), found.len())),
        }
        Ok(())
    }
}

/// The first file below a folder whose extension (in any case) is one of `extensions`.
///
/// # Errors
/// When a folder cannot be listed.
pub fn first(folder: &Path, extensions: &[&str]) -> Result<Option<PathBuf>> {
    first_unseen(folder, extensions, &mut HashSet::new())
}

fn first_unseen(folder: &Path, extensions: &[&str], seen: &mut HashSet<PathBuf>) -> Result<Option<PathBuf>> {
    // Links are followed, but no folder is visited twice.
    match retry(|| folder.canonicalize()) {
        Err(error) if is_absence(&error) => return Ok(None),
        real => {
            if !seen.insert(real.map_err(failed(folder))?) {
                return Ok(None);
            }
        }
    }
    for entry in entries(folder)? {
        let path = entry.path();
        let is_wanted = extension(&path).is_some_and(|found| extensions.contains(&found.as_str()));
        if is_wanted && file_system::names_file(&path)? {
            return Ok(Some(path));
        }
    }
    for folder in file_system::folders(folder)? {
        if let Some(found) = first_unseen(&folder, extensions, seen)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Whether a path of a table stays inside the directory that it is relative to.
pub fn is_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Whether an identifier of a table can be the name of a file, without any folder.
pub fn is_name(identifier: &str) -> bool {
    !identifier.contains(['/', '\\']) && is_inside(identifier)
}

/// The name of a file without folder and extension.
pub fn stem(path: &str) -> String {
    Path::new(path).file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A file's extension in lower case.
pub fn extension(path: &Path) -> Option<String> {
    Some(path.extension()?.to_string_lossy().to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_file_is_found_once_or_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let (raw, other) = (folder.path().join("raw"), folder.path().join("other"));
        for path in [raw.join("b"), other.join("deep")] {
            fs::create_dir_all(path).unwrap();
        }
        for path in [raw.join("b/1.png"), other.join("deep/2.PNG"), other.join("2.txt")] {
            fs::write(path, "x").unwrap();
        }
        fs::write(raw.join(OsStr::from_bytes(b"\xff.png")), "x").unwrap();
        // Two links to the same folder outside, one to a folder inside, cycles, and a link to a file.
        symlink("../other", raw.join("c")).unwrap();
        symlink("../other/deep", raw.join("d")).unwrap();
        symlink("b", raw.join("a")).unwrap();
        symlink("..", raw.join("b/up")).unwrap();
        symlink("../raw", other.join("back")).unwrap();
        symlink("../..", raw.join("b/out")).unwrap();
        symlink("b/1.png", raw.join("link.png")).unwrap();
        std::os::unix::net::UnixListener::bind(raw.join("socket.png")).unwrap();
        let walk = Walk::of(&raw, &raw, &["png"]).unwrap();
        assert_eq!(walk.files.keys().collect::<Vec<_>>(), ["b/1.png", "c/deep/2.PNG", "link.png"]);
        let rejects: Vec<_> = walk.rejects.iter().map(|r| (r.source_path.as_str(), r.error.as_str())).collect();
        assert_eq!(
            rejects,
            [
                ("b/out", "this link is not followed, since it points to a folder above the raw data"),
                ("socket.png", "not a regular file, so it is not read"),
                ("\u{fffd}.png", "the name is not UTF-8; rename the file"),
            ]
        );
        assert_eq!(first(&raw, &["png"]).unwrap(), Some(raw.join("link.png")));
        assert_eq!(first(&raw, &["jpg"]).unwrap(), None);
    }
}
