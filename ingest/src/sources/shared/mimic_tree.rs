//! Finds the parts of MIMIC-CXR: the folders that contain `files/` or tables, the image files, and the reports. They are
//! searched, since a download may keep the folders of its server (`physionet.org/files/mimic-cxr-jpg/2.1.0/`).

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file_system::{entries, failed, folders, is_file, is_folder, retry};
use crate::reject::{Reject, Stage};
use crate::sources::shared::table;
use crate::sources::shared::walk::{self, Walk, stem};

/// Levels of folders below RAW_DIR that are searched.
const DEPTH: usize = 4;
/// Folders that may contain the unpacked reports, beside `files/`.
const REPORT_FOLDERS: [&str; 3] = ["", "mimic-cxr-reports", "reports"];
/// The published archive of the reports; users must unpack it.
const REPORT_ARCHIVE: &str = "mimic-cxr-reports.zip";
/// Extensions of image files, that of DICOM first.
const EXTENSIONS: [&str; 4] = ["dcm", "jpg", "jpeg", "png"];

/// The kind of image files that is ingested; the two kinds are never mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ImageKind {
    /// JPEG files (MIMIC-CXR-JPG, CheXpert).
    Jpg,
    /// DICOM files (MIMIC-CXR, CheXpert Plus).
    Dicom,
}

impl ImageKind {
    /// Name in the manifest and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jpg => "jpg",
            Self::Dicom => "dicom",
        }
    }

    fn of(path: &str) -> Self {
        let extension = Path::new(path).extension().unwrap_or_default();
        if extension.eq_ignore_ascii_case(EXTENSIONS[0]) { Self::Dicom } else { Self::Jpg }
    }
}

/// The folders below RAW_DIR that contain `files/pNN` or a table, relative to it, sorted.
pub struct Tree<'a> {
    raw: &'a Path,
    folders: Vec<PathBuf>,
}

impl<'a> Tree<'a> {
    /// Searches the folders.
    ///
    /// # Errors
    /// When RAW_DIR cannot be read.
    pub fn find(raw: &'a Path) -> Result<Self> {
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        let mut level = vec![PathBuf::new()];
        for _ in 0..=DEPTH {
            let mut below = Vec::new();
            for folder in level {
                let path = raw.join(&folder);
                // Links are followed, but no folder is visited twice.
                if !seen.insert(retry(|| path.canonicalize()).map_err(failed(&path))?) {
                    continue;
                }
                let has_tables = !table::tables(&path, is_table)?.is_empty();
                let has_files = has_patients(&path.join("files"))?;
                if has_files || has_tables {
                    found.push(folder.clone());
                }
                let is_tree = |name: &str| is_patients(name) || (name == "files" && has_files);
                // Names are compared as system strings, since they may not be UTF-8.
                let inner = folders(&path)?;
                let inner = inner.iter().filter_map(|path| path.file_name());
                below.extend(inner.filter(|name| !is_tree(&name.to_string_lossy())).map(|name| folder.join(name)));
            }
            level = below;
        }
        found.sort();
        Ok(Self { raw, folders: found })
    }

    /// The newest version of the table `mimic-cxr-<version>-<name>.csv[.gz]` or `cxr-<name>.csv[.gz]`.
    ///
    /// # Errors
    /// When a folder cannot be listed.
    pub fn table(&self, name: &str) -> Result<Option<PathBuf>> {
        let ending = format!("-{name}");
        let wanted = |file: &str| is_table(file) && file.ends_with(&ending);
        let found = self.folders.iter().map(|folder| table::tables(&self.raw.join(folder), wanted));
        let found = found.collect::<Result<Vec<_>>>()?.concat().into_iter();
        Ok(found.max_by_key(|path| (path.file_name().map(ToOwned::to_owned), path.clone())))
    }

    /// Lists the image files below every `files/`.
    ///
    /// # Errors
    /// When a folder cannot be listed.
    pub fn images(&self) -> Result<Walk> {
        let mut all = Walk::default();
        for folder in self.image_folders()? {
            let found = Walk::of(self.raw, &self.raw.join(folder).join("files"), &EXTENSIONS)?;
            all.files.extend(found.files);
            all.rejects.extend(found.rejects);
        }
        Ok(all)
    }

    /// The folders with `files/`, relative to RAW_DIR.
    fn image_folders(&self) -> Result<Vec<&PathBuf>> {
        let mut found = Vec::new();
        for folder in &self.folders {
            found.extend(is_folder(&self.raw.join(folder).join("files"))?.then_some(folder));
        }
        Ok(found)
    }

    /// The folder with `files/` of images of this kind, and their extension, taken from the first image; without a kind, that of
    /// JPEG files if there is one.
    ///
    /// # Errors
    /// When a folder cannot be listed.
    pub fn image_folder(&self, kind: Option<ImageKind>) -> Result<Option<(PathBuf, String)>> {
        let wanted: &[&str] = match kind {
            Some(ImageKind::Dicom) => &EXTENSIONS[..1],
            Some(ImageKind::Jpg) => &EXTENSIONS[1..],
            None => &EXTENSIONS,
        };
        let mut found: Vec<(PathBuf, String)> = Vec::new();
        for folder in self.image_folders()? {
            let first = walk::first(&self.raw.join(folder).join("files"), wanted)?;
            let extension = first.as_deref().and_then(Path::extension);
            found.extend(extension.map(|extension| (folder.clone(), extension.to_string_lossy().into_owned())));
        }
        let jpg = found.iter().position(|(_, extension)| !extension.eq_ignore_ascii_case(EXTENSIONS[0])).unwrap_or(0);
        Ok((jpg < found.len()).then(|| found.swap_remove(jpg)))
    }

    /// The error of a raw directory without images.
    pub fn no_images(&self) -> Error {
        let message = "no image below `files/`; add the images, or give --no-images to ingest tables and reports alone";
        Error::Empty { path: self.raw.to_path_buf(), message: message.to_owned() }
    }

    /// Searches the reports, only in `given` if it is given.
    ///
    /// # Errors
    /// When `given` has none, or a folder cannot be listed.
    pub fn reports(&self, given: Option<&Path>) -> Result<Option<Reports>> {
        if let Some(given) = given {
            // `given` is relative to the working directory; report paths are later joined to RAW_DIR.
            let given = &std::path::absolute(given).map_err(Error::io(given))?;
            let folders =
                REPORT_FOLDERS.iter().flat_map(|folder| [Path::new(folder).join("files"), PathBuf::from(folder)]);
            let folder = with_reports(given, folders)?
                .ok_or_else(|| Error::Empty { path: given.clone(), message: no_reports(given) })?;
            return Ok(Some(Reports { root: Some(given.clone()), folder }));
        }
        let roots = std::iter::once(PathBuf::new()).chain(self.folders.iter().cloned());
        let folders = roots
            .flat_map(|root| REPORT_FOLDERS.map(|folder| root.join(folder)))
            .flat_map(|folder| [folder.join("files"), folder]);
        Ok(with_reports(self.raw, folders)?.map(|folder| Reports { root: None, folder }))
    }

    /// The reject of the archive of the reports, where it was not unpacked.
    ///
    /// # Errors
    /// When the system refuses to say whether it exists.
    pub fn packed_reports(&self) -> Result<Option<Reject>> {
        let mut found = Vec::new();
        for root in std::iter::once(PathBuf::new()).chain(self.folders.iter().cloned()) {
            let path = root.join(REPORT_ARCHIVE);
            found.extend(is_file(&self.raw.join(&path))?.then_some(path));
        }
        let Some(archive) = found.into_iter().next() else { return Ok(None) };
        let error = "a zip archive is not read, so the images are kept without text; unpack it here, or give the folder of \
                     the reports with --reports";
        Ok(Some(Reject {
            source_path: archive.to_string_lossy().into_owned(),
            record_id: None,
            stage: Stage::Report,
            error: error.to_owned(),
        }))
    }
}

/// The place of the reports.
pub struct Reports {
    /// The folder that was given with `--reports`, absolute.
    pub root: Option<PathBuf>,
    /// The folder that contains `pNN/`, relative to `root` or else to RAW_DIR.
    folder: PathBuf,
}

impl Reports {
    /// The path of a report whose published path is `files/pNN/pNNNNNNNN/sNNNNNNNN.txt`.
    pub fn path(&self, listed: &str) -> PathBuf {
        self.folder.join(listed.strip_prefix("files/").unwrap_or(listed))
    }
}

fn no_reports(given: &Path) -> String {
    let packed = given.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"));
    if packed {
        "a zip archive is not read; unpack it and give its folder to --reports".to_owned()
    } else if given.join(REPORT_ARCHIVE).is_file() {
        format!("{REPORT_ARCHIVE} is not read; unpack it there")
    } else {
        "no report here; give the folder that contains files/pNN/pNNNNNNNN/sNNNNNNNN.txt to --reports".to_owned()
    }
}

/// Names of the folders in a folder, links to folders included, sorted.
fn names(path: &Path) -> Result<Vec<String>> {
    let name = |path: PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(folders(path)?.into_iter().filter_map(name).collect())
}

/// Whether a name is that of a table of MIMIC-CXR.
fn is_table(name: &str) -> bool {
    name.starts_with("mimic-cxr-") || name.starts_with("cxr-")
}

/// Whether a name is `pNN`, the first level of `files/`.
fn is_patients(name: &str) -> bool {
    name.len() == 3 && name.starts_with('p') && name[1..].bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a folder contains `pNN`.
fn has_patients(files: &Path) -> Result<bool> {
    Ok(names(files)?.iter().any(|name| is_patients(name)))
}

/// The first of these folders below `root` that contains a report `pNN/pNNNNNNNN/*.txt`.
fn with_reports(root: &Path, folders: impl Iterator<Item = PathBuf>) -> Result<Option<PathBuf>> {
    for folder in folders {
        if has_reports(&root.join(&folder))? {
            return Ok(Some(folder));
        }
    }
    Ok(None)
}

fn has_reports(files: &Path) -> Result<bool> {
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

/// The image files of one kind by file name without extension. Of two files of one radiograph the one whose path sorts last
/// counts, which is that of the newer version.
pub struct ImagesByStem {
    /// The kind.
    pub kind: ImageKind,
    paths: std::collections::HashMap<String, String>,
}

impl ImagesByStem {
    /// Takes the `requested` kind, else the one with files of more of the `listed` radiographs; JPG at a tie.
    pub fn new(files: &BTreeMap<String, u64>, listed: &HashSet<&str>, requested: Option<ImageKind>) -> Self {
        let of = |kind: ImageKind| Self {
            kind,
            paths: files
                .keys()
                .filter(|path| ImageKind::of(path) == kind)
                .map(|path| (stem(path), path.clone()))
                .collect(),
        };
        let covered = |kind: &Self| kind.paths.keys().filter(|stem| listed.contains(stem.as_str())).count();
        if let Some(kind) = requested {
            return of(kind);
        }
        let (jpg, dicom) = (of(ImageKind::Jpg), of(ImageKind::Dicom));
        if covered(&jpg) >= covered(&dicom) && !jpg.paths.is_empty() { jpg } else { dicom }
    }

    /// The file of a radiograph.
    pub fn path(&self, dicom_id: &str) -> Option<&str> {
        self.paths.get(dicom_id).map(String::as_str)
    }
}
