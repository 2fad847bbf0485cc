//! Where the parts of MIMIC-CXR lie: the folders that hold `files/` or tables, in them the pictures, and the reports.
//! A download keeps its server's folders (`physionet.org/files/mimic-cxr-jpg/2.1.0/`), so they are looked for.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use crate::error::{Error, Reject, Result, Stage};
use crate::file_system::{entries, failed, folders, is_file, is_folder, retry};
use crate::sources::shared::table;
use crate::sources::shared::walk::{self, Walk, stem};

/// How many folders below RAW_DIR a part may lie.
const DEPTH: usize = 4;
/// Folders that hold the unpacked reports, beside `files/`.
const REPORT_FOLDERS: [&str; 3] = ["", "mimic-cxr-reports", "reports"];
/// The reports as they are published; they must be unpacked.
const REPORT_ARCHIVE: &str = "mimic-cxr-reports.zip";
/// Extensions of pictures, that of DICOM first.
const PICTURES: [&str; 4] = ["dcm", "jpg", "jpeg", "png"];

/// Which files are taken where a radiograph has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Pictures {
    /// MIMIC-CXR-JPG.
    Jpg,
    /// MIMIC-CXR.
    Dicom,
}

impl Pictures {
    /// Name as it stands in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpg => "jpg",
            Self::Dicom => "dicom",
        }
    }

    fn of(path: &str) -> Self {
        let extension = Path::new(path).extension().unwrap_or_default();
        if extension.eq_ignore_ascii_case(PICTURES[0]) { Self::Dicom } else { Self::Jpg }
    }
}

/// The folders below RAW_DIR that hold `files/pNN` or a table, relative to it, sorted.
pub struct Tree<'a> {
    raw: &'a Path,
    homes: Vec<PathBuf>,
}

impl<'a> Tree<'a> {
    /// Looks for the folders.
    ///
    /// # Errors
    /// When RAW_DIR cannot be read.
    pub fn find(raw: &'a Path) -> Result<Self> {
        let (mut homes, mut seen) = (Vec::new(), HashSet::new());
        let mut level = vec![PathBuf::new()];
        for _ in 0..=DEPTH {
            let mut below = Vec::new();
            for folder in level {
                let path = raw.join(&folder);
                // Links are followed, but into no circle.
                if !seen.insert(retry(|| path.canonicalize()).map_err(failed(&path))?) {
                    continue;
                }
                let has_tables = !table::tables(&path, is_table)?.is_empty();
                let has_files = holds_patients(&path.join("files"))?;
                if has_files || has_tables {
                    homes.push(folder.clone());
                }
                let is_tree = |name: &str| is_patients(name) || (name == "files" && has_files);
                // A name need not be UTF-8.
                let inner = folders(&path)?;
                let inner = inner.iter().filter_map(|path| path.file_name());
                below.extend(inner.filter(|name| !is_tree(&name.to_string_lossy())).map(|name| folder.join(name)));
            }
            level = below;
        }
        homes.sort();
        Ok(Self { raw, homes })
    }

    /// The table `mimic-cxr-<version>-<name>.csv[.gz]` or `cxr-<name>.csv[.gz]`, of the newest version.
    ///
    /// # Errors
    /// When a folder cannot be listed.
    pub fn table(&self, name: &str) -> Result<Option<PathBuf>> {
        let ending = format!("-{name}");
        let wanted = |file: &str| is_table(file) && file.ends_with(&ending);
        let found = self.homes.iter().map(|home| table::tables(&self.raw.join(home), wanted));
        let found = found.collect::<Result<Vec<_>>>()?.concat().into_iter();
        Ok(found.max_by_key(|path| (path.file_name().map(ToOwned::to_owned), path.clone())))
    }

    /// Lists the pictures below every `files/`.
    ///
    /// # Errors
    /// When a folder cannot be listed.
    pub fn pictures(&self) -> Result<Walk> {
        let mut all = Walk::default();
        for home in self.image_homes()? {
            let found = Walk::of(self.raw, &self.raw.join(home).join("files"), &PICTURES)?;
            all.files.extend(found.files);
            all.rejects.extend(found.rejects);
        }
        Ok(all)
    }

    /// The folders with `files/`, relative to RAW_DIR.
    fn image_homes(&self) -> Result<Vec<&PathBuf>> {
        let mut found = Vec::new();
        for home in &self.homes {
            found.extend(is_folder(&self.raw.join(home).join("files"))?.then_some(home));
        }
        Ok(found)
    }

    /// Where pictures of this kind lie, and their extension, from the first one that is there.
    ///
    /// # Errors
    /// When a folder cannot be listed.
    pub fn home_of(&self, pictures: Option<Pictures>) -> Result<Option<(PathBuf, String)>> {
        let wanted: &[&str] = match pictures {
            Some(Pictures::Dicom) => &PICTURES[..1],
            Some(Pictures::Jpg) => &PICTURES[1..],
            None => &PICTURES,
        };
        let mut found: Vec<(PathBuf, String)> = Vec::new();
        for home in self.image_homes()? {
            let first = walk::first(&self.raw.join(home).join("files"), wanted)?;
            let extension = first.as_deref().and_then(Path::extension);
            found.extend(extension.map(|extension| (home.clone(), extension.to_string_lossy().into_owned())));
        }
        let jpg = found.iter().position(|(_, extension)| !extension.eq_ignore_ascii_case(PICTURES[0])).unwrap_or(0);
        Ok((jpg < found.len()).then(|| found.swap_remove(jpg)))
    }

    /// The error of a set without pictures.
    pub fn no_pictures(&self) -> Error {
        let message = "no image below `files/` (with --no-images the tables and reports are taken alone)";
        Error::Empty { path: self.raw.to_path_buf(), message: message.to_owned() }
    }

    /// Looks for the reports, in `given` alone where it is given.
    ///
    /// # Errors
    /// When `given` holds none, or a folder cannot be listed.
    pub fn reports(&self, given: Option<&Path>) -> Result<Option<Reports>> {
        if let Some(given) = given {
            // What is relative to the working directory must not be taken as relative to RAW_DIR later.
            let given = &std::path::absolute(given).map_err(Error::io(given))?;
            let folders =
                REPORT_FOLDERS.iter().flat_map(|folder| [Path::new(folder).join("files"), PathBuf::from(folder)]);
            let folder = with_reports(given, folders)?
                .ok_or_else(|| Error::Empty { path: given.clone(), message: no_reports(given) })?;
            return Ok(Some(Reports { root: Some(given.clone()), folder }));
        }
        let roots = std::iter::once(PathBuf::new()).chain(self.homes.iter().cloned());
        let folders = roots
            .flat_map(|root| REPORT_FOLDERS.map(|folder| root.join(folder)))
            .flat_map(|folder| [folder.join("files"), folder]);
        Ok(with_reports(self.raw, folders)?.map(|folder| Reports { root: None, folder }))
    }

    /// The row that says why there are no reports, where they lie there packed.
    ///
    /// # Errors
    /// When the system does not say whether they are there.
    pub fn packed_reports(&self) -> Result<Option<Reject>> {
        let mut found = Vec::new();
        for root in std::iter::once(PathBuf::new()).chain(self.homes.iter().cloned()) {
            let path = root.join(REPORT_ARCHIVE);
            found.extend(is_file(&self.raw.join(&path))?.then_some(path));
        }
        let Some(archive) = found.into_iter().next() else { return Ok(None) };
        let error = "a zip archive is not read: unpack it here or name its folder with --reports; \
                     the images are kept without text";
        Ok(Some(Reject {
            source_path: archive.to_string_lossy().into_owned(),
            record_id: None,
            stage: Stage::Report,
            error: error.to_owned(),
        }))
    }
}

/// The reports that were found.
pub struct Reports {
    /// The folder outside of RAW_DIR that was given.
    pub root: Option<PathBuf>,
    /// The folder of `pNN/`, relative to it or to RAW_DIR.
    folder: PathBuf,
}

impl Reports {
    /// The report of a study, by its path `files/pNN/pNNNNNNNN/sNNNNNNNN.txt`.
    pub fn path(&self, listed: &str) -> PathBuf {
        self.folder.join(listed.strip_prefix("files/").unwrap_or(listed))
    }
}

fn no_reports(given: &Path) -> String {
    let packed = given.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"));
    if packed {
        "a zip archive is not read: unpack it and give its folder to --reports".to_owned()
    } else if given.join(REPORT_ARCHIVE).is_file() {
        format!("{REPORT_ARCHIVE} is not read: unpack it there")
    } else {
        "no report here; --reports takes the folder that holds files/pNN/pNNNNNNNN/sNNNNNNNN.txt".to_owned()
    }
}

/// Names of a folder's folders, sorted; links to folders too.
fn names(path: &Path) -> Result<Vec<String>> {
    let name = |path: PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(folders(path)?.into_iter().filter_map(name).collect())
}

/// Whether a table of this name is one of the set's.
fn is_table(name: &str) -> bool {
    name.starts_with("mimic-cxr-") || name.starts_with("cxr-")
}

/// `p10` to `p19`, the first level of `files/`.
fn is_patients(name: &str) -> bool {
    name.len() == 3 && name.starts_with('p') && name[1..].bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a folder holds `pNN`.
fn holds_patients(files: &Path) -> Result<bool> {
    Ok(names(files)?.iter().any(|name| is_patients(name)))
}

/// The first of these folders below `root` in which a report lies where it should, `pNN/pNNNNNNNN/*.txt`.
fn with_reports(root: &Path, folders: impl Iterator<Item = PathBuf>) -> Result<Option<PathBuf>> {
    for folder in folders {
        if holds_reports(&root.join(&folder))? {
            return Ok(Some(folder));
        }
    }
    Ok(None)
}

fn holds_reports(files: &Path) -> Result<bool> {
    for patients in names(files)?.iter().filter(|name| is_patients(name)) {
        for patient in folders(&files.join(patients))? {
            let is_report = |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|found| found == "txt");
            if entries(&patient)?.into_iter().any(is_report) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The pictures of one kind by the name of their file without extension. Of two files of one radiograph the later one
/// in the order of their paths counts: a newer version.
pub struct ByStem {
    /// The kind that is taken.
    pub pictures: Pictures,
    paths: std::collections::HashMap<String, String>,
}

impl ByStem {
    /// Takes the kind that was `asked` for, else the one that has more of the radiographs; at a tie JPG.
    pub fn new(files: &BTreeMap<String, u64>, listed: &HashSet<&str>, asked: Option<Pictures>) -> Self {
        let of = |kind: Pictures| Self {
            pictures: kind,
            paths: files
                .keys()
                .filter(|path| Pictures::of(path) == kind)
                .map(|path| (stem(path), path.clone()))
                .collect(),
        };
        let covered = |kind: &Self| kind.paths.keys().filter(|stem| listed.contains(stem.as_str())).count();
        if let Some(kind) = asked {
            return of(kind);
        }
        let (jpg, dicom) = (of(Pictures::Jpg), of(Pictures::Dicom));
        if covered(&jpg) >= covered(&dicom) && !jpg.paths.is_empty() { jpg } else { dicom }
    }

    /// The file of a radiograph.
    pub fn path(&self, dicom_id: &str) -> Option<&str> {
        self.paths.get(dicom_id).map(String::as_str)
    }
}
