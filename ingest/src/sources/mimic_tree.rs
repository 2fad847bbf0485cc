//! Where the parts of MIMIC-CXR lie: the folders that hold `files/` or tables, in them the pictures, and the reports.
//! A download keeps its server's folders (`physionet.org/files/mimic-cxr-jpg/2.1.0/`), so they are looked for.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use crate::error::{Error, Reject, Result, Stage};
use crate::table;
use crate::walk::{self, Walk, stem};

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
        std::fs::read_dir(raw).map_err(Error::io(raw))?;
        let (mut homes, mut seen) = (Vec::new(), HashSet::new());
        let mut level = vec![PathBuf::new()];
        for _ in 0..=DEPTH {
            let mut below = Vec::new();
            for folder in level {
                let path = raw.join(&folder);
                // Links are followed, but into no circle.
                if !path.canonicalize().is_ok_and(|real| seen.insert(real)) {
                    continue;
                }
                let has_files = holds_patients(&path.join("files"));
                if is_home(&path) {
                    homes.push(folder.clone());
                }
                let is_tree = |name: &str| is_patients(name) || (name == "files" && has_files);
                let entered = |name: &String| !name.starts_with('.') && !is_tree(name);
                below.extend(folders(&path).into_iter().filter(entered).map(|name| folder.join(name)));
            }
            level = below;
        }
        homes.sort();
        Ok(Self { raw, homes })
    }

    /// The table `mimic-cxr-<version>-<name>.csv[.gz]` or `cxr-<name>.csv[.gz]`, of the newest version.
    pub fn table(&self, name: &str) -> Option<PathBuf> {
        let ending = format!("-{name}");
        let wanted = |file: &str| is_table(file) && file.ends_with(&ending);
        let found = self.homes.iter().flat_map(|home| table::tables(&self.raw.join(home), wanted));
        found.max_by_key(|path| (path.file_name().map(ToOwned::to_owned), path.clone()))
    }

    /// Lists the pictures below every `files/`.
    pub fn pictures(&self) -> Walk {
        let mut all = Walk::default();
        for home in self.image_homes() {
            let found = Walk::of(self.raw, &self.raw.join(home).join("files"), &PICTURES);
            all.files.extend(found.files);
            all.rejects.extend(found.rejects);
        }
        all
    }

    /// The folders with `files/`, relative to RAW_DIR.
    fn image_homes(&self) -> impl Iterator<Item = &PathBuf> {
        self.homes.iter().filter(|home| self.raw.join(home).join("files").is_dir())
    }

    /// Where pictures of this kind lie, and their extension, from the first one that is there.
    pub fn home_of(&self, pictures: Option<Pictures>) -> Option<(PathBuf, String)> {
        let wanted: &[&str] = match pictures {
            Some(Pictures::Dicom) => &PICTURES[..1],
            Some(Pictures::Jpg) => &PICTURES[1..],
            None => &PICTURES,
        };
        let mut found: Vec<(PathBuf, String)> = self
            .image_homes()
            .filter_map(|home| {
                let first = walk::first(&self.raw.join(home).join("files"), wanted)?;
                Some((home.clone(), first.extension()?.to_string_lossy().into_owned()))
            })
            .collect();
        let jpg = found.iter().position(|(_, extension)| !extension.eq_ignore_ascii_case(PICTURES[0])).unwrap_or(0);
        (jpg < found.len()).then(|| found.swap_remove(jpg))
    }

    /// The error of a set without pictures.
    pub fn no_pictures(&self) -> Error {
        let message = "no image below `files/` (with --no-images the tables and reports are taken alone)";
        Error::Empty { path: self.raw.to_path_buf(), message: message.to_owned() }
    }

    /// Looks for the reports, in `given` alone where it is given.
    ///
    /// # Errors
    /// When `given` holds none.
    pub fn reports(&self, given: Option<&Path>) -> Result<Option<Reports>> {
        if let Some(given) = given {
            // What is relative to the working directory must not be taken as relative to RAW_DIR later.
            let given = &std::path::absolute(given).map_err(Error::io(given))?;
            let found = REPORT_FOLDERS
                .iter()
                .flat_map(|folder| [Path::new(folder).join("files"), PathBuf::from(folder)])
                .find(|folder| holds_reports(&given.join(folder)));
            let folder = found.ok_or_else(|| Error::Empty { path: given.clone(), message: no_reports(given) })?;
            return Ok(Some(Reports { root: Some(given.clone()), folder }));
        }
        let roots = std::iter::once(PathBuf::new()).chain(self.homes.iter().cloned());
        let found = roots
            .flat_map(|root| REPORT_FOLDERS.map(|folder| root.join(folder)))
            .flat_map(|folder| [folder.join("files"), folder])
            .find(|folder| holds_reports(&self.raw.join(folder)));
        Ok(found.map(|folder| Reports { root: None, folder }))
    }

    /// The row that says why there are no reports, where they lie there packed.
    pub fn packed_reports(&self) -> Option<Reject> {
        let mut roots = std::iter::once(PathBuf::new()).chain(self.homes.iter().cloned());
        let archive = roots.find_map(|root| {
            let path = root.join(REPORT_ARCHIVE);
            self.raw.join(&path).is_file().then_some(path)
        })?;
        let error = "a zip archive is not read: unpack it here or name its folder with --reports; \
                     the images are kept without text";
        Some(Reject {
            source_path: archive.to_string_lossy().into_owned(),
            record_id: None,
            stage: Stage::Report,
            error: error.to_owned(),
        })
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
fn folders(path: &Path) -> Vec<String> {
    let is_folder = |entry: &std::fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir() || kind.is_symlink());
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| is_folder(entry) && entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Whether a table of this name is one of the set's.
fn is_table(name: &str) -> bool {
    name.starts_with("mimic-cxr-") || name.starts_with("cxr-")
}

/// `p10` to `p19`, the first level of `files/`.
fn is_patients(name: &str) -> bool {
    name.len() == 3 && name.starts_with('p') && name[1..].bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a folder holds `files/pNN` or a table of the set.
fn is_home(path: &Path) -> bool {
    holds_patients(&path.join("files")) || !table::tables(path, is_table).is_empty()
}

fn holds_patients(files: &Path) -> bool {
    folders(files).iter().any(|name| is_patients(name))
}

/// Whether a report lies where it should, `pNN/pNNNNNNNN/*.txt`.
fn holds_reports(files: &Path) -> bool {
    let is_report = |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "txt");
    folders(files).iter().filter(|name| is_patients(name)).any(|name| {
        let patients = files.join(name);
        folders(&patients)
            .iter()
            .any(|patient| std::fs::read_dir(patients.join(patient)).into_iter().flatten().flatten().any(is_report))
    })
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
