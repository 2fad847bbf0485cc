//! Resolves the cells of a folder's table to files.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::file_system::{failed, names_file, retry};
use crate::run::path_names::PathNames;
use crate::run::plan::ReportSource;
use crate::sources::folder::identifiers::without_extension;

/// Longest text, in bytes, that may be the path of a report.
const LONGEST_PATH: usize = 1024;

/// Why a row gives no record.
#[derive(Debug)]
pub enum RowError {
    /// The row becomes a reject.
    Reject(String),
    /// The run ends.
    Fatal(Error),
}

impl From<String> for RowError {
    fn from(error: String) -> Self {
        Self::Reject(error)
    }
}

impl From<Error> for RowError {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

/// Resolves the paths of a table to files.
pub struct PathResolver<'a> {
    raw: &'a Path,
    /// The raw directory as it was given, as an absolute path, and without links: the prefixes of absolute paths.
    roots: Vec<PathBuf>,
    /// The form of paths in error messages.
    names: PathNames,
    /// The table's folder relative to the raw directory; `None` where it is outside.
    table_folder: Option<String>,
    files: &'a BTreeMap<String, u64>,
    /// Paths by file name, with and without extension.
    by_name: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> PathResolver<'a> {
    pub fn new(raw: &'a Path, table_folder: &Path, files: &'a BTreeMap<String, u64>, names: PathNames) -> Result<Self> {
        let real = |path: &Path| {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            retry(|| path.canonicalize()).map_err(failed(path))
        };
        let (table_folder, real_raw) = (real(table_folder)?, real(raw)?);
        let table_folder = table_folder.strip_prefix(&real_raw).ok();
        let table_folder = table_folder.map(|folder| folder.to_string_lossy().into_owned());
        let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for path in files.keys() {
            let name = path.rsplit('/').next().unwrap_or(path);
            by_name.entry(name).or_default().push(path);
            if without_extension(name) != name {
                by_name.entry(without_extension(name)).or_default().push(path);
            }
        }
        let roots = [Some(raw.to_path_buf()), std::path::absolute(raw).ok(), Some(real_raw)];
        Ok(Self { raw, roots: roots.into_iter().flatten().collect(), names, table_folder, files, by_name })
    }

    /// The file of a cell, relative to the raw directory; for a missing file its expected path.
    pub fn image(&self, cell: &str) -> Result<String, RowError> {
        let candidates = self.candidates(cell)?;
        for path in &candidates {
            if self.files.contains_key(path) || names_file(&self.raw.join(path))? {
                return Ok(path.clone());
            }
        }
        let expected = candidates.into_iter().next().unwrap_or_default();
        if cell.contains('/') {
            return Ok(expected);
        }
        match self.by_name.get(cell).map(Vec::as_slice) {
            None | Some([]) => Ok(expected),
            Some([path]) => Ok((*path).to_owned()),
            Some([first, second, ..]) => {
                let [cell, first, second] = [cell, *first, *second].map(|path| self.names.stored(path));
                Err(format!("the name `{cell}` matches several files: {first}, {second}; give their paths").into())
            }
        }
    }

    /// The report of a cell, which has a text or the path of a text file.
    pub fn report(&self, cell: String) -> Result<ReportSource, RowError> {
        let is_short = cell.len() <= LONGEST_PATH && !cell.contains('\n');
        // The path of a missing file must not become the text of a report.
        let looks_like_path = is_short && cell.ends_with(".txt") && !cell.contains(char::is_whitespace);
        let candidates = match self.candidates(&cell) {
            Ok(found) if is_short => found,
            Err(error) if looks_like_path => return Err(format!("the report: {error}").into()),
            _ => Vec::new(),
        };
        for path in &candidates {
            if names_file(&self.raw.join(path))? {
                return Ok(ReportSource::File(PathBuf::from(path)));
            }
        }
        Ok(match candidates.into_iter().next() {
            Some(expected) if looks_like_path => ReportSource::File(PathBuf::from(expected)),
            _ => ReportSource::Text(Arc::from(cell)),
        })
    }

    /// The mask of a cell that has a path, relative to the raw directory; for a missing file its expected path.
    pub fn mask(&self, cell: &str) -> Result<PathBuf, RowError> {
        let candidates = self.candidates(cell)?;
        for path in &candidates {
            if names_file(&self.raw.join(path))? {
                return Ok(PathBuf::from(path));
            }
        }
        Ok(candidates.into_iter().next().unwrap_or_default().into())
    }

    /// The possible paths of a cell, relative to the raw directory and inside of it.
    fn candidates(&self, cell: &str) -> Result<Vec<String>, String> {
        // Tables written on Windows separate folders by backslashes.
        let slashed = if cell.contains('/') { cell.to_owned() } else { cell.replace('\\', "/") };
        let whole = Path::new(&slashed);
        let below = |path: &Path| self.roots.iter().find_map(|root| Some(path.strip_prefix(root).ok()?.to_path_buf()));
        // The path with the links of existing folders resolved.
        let resolved = || {
            let real = |folder: &Path| Some(folder.canonicalize().ok()?.join(whole.strip_prefix(folder).ok()?));
            below(&whole.ancestors().skip(1).find_map(real)?)
        };
        let cell = below(whole).or_else(|| if whole.is_absolute() { resolved() } else { None });
        let is_drive = matches!(slashed.as_bytes(), [letter, b':', b'/', ..] if letter.is_ascii_alphabetic());
        if cell.is_none() && (whole.is_absolute() || is_drive) {
            let path = self.names.stored(&slashed);
            return Err(format!(
                "the absolute path `{path}` is not below RAW_DIR; give the folder that holds all images as RAW_DIR, or \
                 write paths relative to it, or file names alone"
            ));
        }
        let cell = cell.as_deref().unwrap_or(whole);
        let bases = std::iter::once("").chain(self.table_folder.as_deref().filter(|folder| !folder.is_empty()));
        let inside: Vec<String> = bases.filter_map(|base| inside(&Path::new(base).join(cell))).collect();
        if inside.is_empty() {
            Err("the path leads out of the raw directory; give a path inside of it".to_owned())
        } else {
            Ok(inside)
        }
    }
}

/// A relative path without `.` and `..`; `None` for an absolute or empty path and one that leaves its root.
fn inside(path: &Path) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::CurDir => {}
            Component::ParentDir => drop(parts.pop()?),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        let of = |path: &str| inside(Path::new(path));
        assert_eq!(of("./a//b/../c.png").as_deref(), Some("a/c.png"));
        assert_eq!(
            (of("../a"), of("a/../../b"), of("/etc/passwd"), of(""), of("a/..")),
            (None, None, None, None, None)
        );
    }

    #[test]
    fn a_cell_is_resolved_as_a_path_or_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path();
        std::fs::create_dir_all(raw.join("tables/in")).unwrap();
        std::fs::write(raw.join("tables/in/a.txt"), "clear").unwrap();
        let listed = ["tables/in/x.png", "p/x.jpg", "p/y.png", "q/y.png"].map(|path| (path.to_owned(), 1));
        let files = BTreeMap::from(listed);
        let paths = PathResolver::new(raw, &raw.join("tables"), &files, PathNames::default()).unwrap();
        let message = |error: RowError| match error {
            RowError::Reject(error) => error,
            RowError::Fatal(error) => panic!("{error}"),
        };
        let image = |cell: &str| paths.image(cell).map_err(message);
        assert_eq!(image("p/y.png").as_deref(), Ok("p/y.png"));
        assert_eq!(image("in/x.png").as_deref(), Ok("tables/in/x.png"), "relative to the table");
        assert_eq!(image("x.jpg").as_deref(), Ok("p/x.jpg"));
        assert_eq!(image(raw.join("q/y.png").to_str().unwrap()).as_deref(), Ok("q/y.png"));
        assert!(image("y.png").unwrap_err().contains("matches several files: p/y.png, q/y.png"));
        assert!(image("x").unwrap_err().contains("several"));
        assert_eq!(image("gone.png").as_deref(), Ok("gone.png"));
        assert!(image("../../etc/passwd").unwrap_err().contains("leads out"));
        let outside = "the absolute path `/etc/passwd` is not below RAW_DIR; give the folder that holds all images";
        assert!(image("/etc/passwd").unwrap_err().starts_with(outside));
        assert!(image("C:\\scans\\a.png").unwrap_err().contains("`C:/scans/a.png` is not below"));
        assert_eq!(image("p\\y.png").as_deref(), Ok("p/y.png"));
        let alias = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(raw, alias.path().join("raw")).unwrap();
        assert_eq!(image(alias.path().join("raw/q/y.png").to_str().unwrap()).as_deref(), Ok("q/y.png"));
        let report = |cell: &str| paths.report(cell.to_owned()).map_err(message);
        let file = |path: &str| Ok(ReportSource::File(PathBuf::from(path)));
        assert_eq!(report("in/a.txt"), file("tables/in/a.txt"));
        assert_eq!(report("in/b.txt"), file("in/b.txt"), "missing, to be rejected");
        assert_eq!(report("No effusion."), Ok(ReportSource::Text(Arc::from("No effusion."))));
        assert_eq!(report("/etc/passwd"), Ok(ReportSource::Text(Arc::from("/etc/passwd"))));
        assert!(report("/elsewhere/1.txt").unwrap_err().starts_with("the report: the absolute path"));
        assert_eq!(report(raw.join("tables/in/a.txt").to_str().unwrap()), file("tables/in/a.txt"));
    }
}
