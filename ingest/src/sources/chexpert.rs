//! CheXpert v1.0, v1.0-small and Plus: `train.csv`, `valid.csv`, `test.csv` (or CheXlocalize's `val_labels.csv` and
//! `test_labels.csv`), `df_chexpert_plus_*.csv`, and the images that they list, such as
//! `CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg`. The first folder may have any name; `train` may be one of
//! the batch folders of the release.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::chexpert_labels::{LabeledPart, PartLabels};
use super::chexpert_names::{Name, PARTS, sex_code, view};
use super::chexpert_plus::{Plus, PlusRow};
use crate::dicom::header::years;
use crate::error::{Error, Result};
use crate::file_system::folders;
use crate::reject::Reject;
use crate::run::plan::{Plan, PlannedRecord, Source, label_codes};
use crate::sources::shared::label_origins;
use crate::sources::shared::mimic_tree::ImageKind;
use crate::sources::shared::table::{Table, tables, texts, texts_or_null};
use crate::sources::shared::walk::Walk;

/// The subset whose labels a program took from the reports; radiologists labeled the others.
const TRAIN: &str = "train";
/// The subsets and the names of their tables without `.csv`; the first table that exists is read.
const TABLES: [(&str, &[&str]); 3] =
    [(TRAIN, &["train"]), ("validate", &["valid", "val_labels"]), ("test", &["test", "test_labels"])];
/// Columns that are not findings.
const KEYS: [&str; 5] = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA"];
/// Extensions of image files; of several files of one image, the first kind in this order is used.
const EXTENSIONS: [&str; 4] = ["jpg", "jpeg", "png", "dcm"];
/// Number of extensions before that of DICOM.
const JPG: usize = 3;

/// The source `chexpert`.
#[derive(Clone, Debug, Default)]
pub struct Chexpert {
    /// Ingest the tables without images.
    pub no_images: bool,
    /// The kind of image files; `None` takes JPG where an image has both.
    pub images: Option<ImageKind>,
    /// The part of the reports of CheXpert Plus that the labels of training images are from; `None` takes those of
    /// `train.csv`. Labels of radiologists, those of the other subsets, stay.
    pub labels: Option<LabeledPart>,
}

impl Source for Chexpert {
    fn name(&self) -> &'static str {
        "chexpert"
    }

    fn options(&self) -> BTreeMap<String, serde_json::Value> {
        let labels = self.labels.map(|part| ("labels".to_owned(), part.name().into()));
        let images = self.images.map(|kind| ("images".to_owned(), kind.name().into()));
        labels.into_iter().chain(images).collect()
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let layout = Layout::find(raw)?;
        let mut plan = Plan { arguments: self.options(), ..Plan::default() };
        let mut images = ImageFiles::default();
        if !self.no_images {
            let kinds = match self.images {
                None => &EXTENSIONS[..],
                Some(ImageKind::Jpg) => &EXTENSIONS[..JPG],
                Some(ImageKind::Dicom) => &EXTENSIONS[JPG..],
            };
            let walk = Walk::of(raw, &layout.images, kinds)?;
            plan.rejects.extend(walk.rejects);
            images = ImageFiles::new(walk.files);
        }
        let mut plus = match &layout.plus {
            Some(path) => Plus::read(raw, path, &mut plan.rejects)?,
            None => Plus::default(),
        };
        let mut builder = RecordBuilder {
            folder: layout.images.strip_prefix(raw).unwrap_or(Path::new("")),
            images: &images,
            used: HashSet::new(),
            dicom_only: self.images == Some(ImageKind::Dicom),
        };
        let tables = layout.tables.iter().map(|(path, subset)| Ok((Table::read(raw, path, &["Path"])?, *subset)));
        let tables = tables.collect::<Result<Vec<_>>>()?;
        // A finding that only one table has is null for the records of the others.
        for name in
            tables.iter().flat_map(|(table, _)| table.frame.get_column_names()).map(polars::prelude::PlSmallStr::as_str)
        {
            if !KEYS.contains(&name) && !name.is_empty() && !plan.findings.iter().any(|finding| finding == name) {
                plan.findings.push(name.to_owned());
            }
        }
        let parts = match self.labels {
            Some(part) => Some(PartLabels::read(raw, &layout.folders, part, &mut plan.rejects)?),
            None => None,
        };
        for name in parts.iter().flat_map(|parts| &parts.findings) {
            if !plan.findings.contains(name) {
                plan.findings.push(name.clone());
            }
        }
        for (table, subset) in tables {
            add_labeled(&table, subset, &mut plus, &mut builder, &mut plan)?;
        }
        for row in plus.rest() {
            if let Some(name) = Name::parse(&row.path) {
                let record = PlannedRecord { labels: vec![None; plan.findings.len()], ..PlannedRecord::default() };
                let record = builder.finish(&name, record, Some(row.clone()));
                plan.records.push(record);
            }
        }
        if let Some(parts) = parts {
            let of_radiologists =
                |record: &PlannedRecord| record.label_origin.as_deref() == Some(label_origins::CONSENSUS);
            for record in plan.records.iter_mut().filter(|record| !of_radiologists(record)) {
                let key = record.record_id.strip_prefix("chexpert/").unwrap_or_default();
                let labels = parts.of(key, &plan.findings);
                record.labels = labels.unwrap_or_else(|| vec![None; plan.findings.len()]);
                record.label_origin = Some(label_origins::CHEXBERT.to_owned());
            }
        }
        let used = builder.used;
        plan.rejects.extend(images.unlisted(&used).map(Reject::unlisted));
        plan.finalize();
        Ok(plan)
    }
}

/// Adds the records of a table with labels.
fn add_labeled(
    table: &Table,
    subset: &str,
    plus: &mut Plus,
    builder: &mut RecordBuilder,
    plan: &mut Plan,
) -> Result<()> {
    let frame = &table.frame;
    plan.rejects.extend(table.rejects.iter().cloned());
    let columns: Vec<_> = plan.findings.iter().map(|finding| texts_or_null(frame, finding)).collect();
    let (paths, sex, age) = (texts(frame, "Path")?, texts_or_null(frame, "Sex"), texts_or_null(frame, "Age"));
    let (side, projection) = (texts_or_null(frame, "Frontal/Lateral"), texts_or_null(frame, "AP/PA"));
    for row in 0..frame.height() {
        let mut reject = |error: &str| plan.rejects.push(table.reject(row, error));
        let Some(name) = Name::parse(paths[row].unwrap_or_default()) else {
            reject("Path does not contain patient and study");
            continue;
        };
        let labels = match label_codes(&plan.findings, columns.iter().map(|column| column[row])) {
            Ok(labels) => labels,
            Err(error) => {
                reject(&error);
                continue;
            }
        };
        let record = PlannedRecord {
            subset: Some(subset.to_owned()),
            view: view(side[row], projection[row]),
            sex: sex_code(sex[row]),
            age_years: age[row].and_then(years),
            labels,
            label_origin: Some(
                if subset == TRAIN { label_origins::CHEXPERT } else { label_origins::CONSENSUS }.to_owned(),
            ),
            ..PlannedRecord::default()
        };
        plan.records.push(builder.finish(&name, record, plus.take(&name.key())));
    }
    Ok(())
}

/// The image files by [`Name::key`]; the key begins with `/` where the folder does not say the subset.
#[derive(Default)]
struct ImageFiles {
    files: BTreeMap<String, Vec<(String, u64)>>,
}

impl ImageFiles {
    fn new(files: BTreeMap<String, u64>) -> Self {
        let mut images = Self::default();
        for (path, bytes) in files {
            let mut parts = path.rsplit('/');
            let file = parts.next().unwrap_or_default();
            let (study, patient) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            // `train`, or `CheXpert-v1.0 batch 2 (train 1)`.
            let folder = parts.next().unwrap_or_default().to_lowercase();
            let part = PARTS.into_iter().find(|part| folder.contains(part)).unwrap_or_default();
            let part = if folder == "val" { "valid" } else { part };
            let key = Name { part, patient, study, file }.key();
            images.files.entry(key).or_default().push((path, bytes));
        }
        let rank = |(path, _): &(String, u64)| {
            let extension = path.rsplit('.').next().unwrap_or_default().to_lowercase();
            EXTENSIONS.iter().position(|known| *known == extension)
        };
        images.files.values_mut().for_each(|files| files.sort_by_key(rank));
        images
    }

    /// The file of an image, and its key.
    fn find(&self, name: &Name) -> Option<(String, &(String, u64))> {
        let unnamed = Name { part: "", ..*name }.key();
        let found = |key: String| Some((self.files.get(&key)?.first()?, key));
        found(name.key()).or_else(|| found(unnamed)).map(|(file, key)| (key, file))
    }

    /// Files that no table lists. A copy of a listed image in another format is not among them.
    fn unlisted(self, used: &HashSet<String>) -> impl Iterator<Item = String> {
        self.files.into_iter().filter(|(key, _)| !used.contains(key)).flat_map(|(_, files)| files).map(|(path, _)| path)
    }
}

/// Completes the records of images.
struct RecordBuilder<'a> {
    /// Folder of the images, relative to the raw directory.
    folder: &'a Path,
    images: &'a ImageFiles,
    /// Keys of the files that have a record.
    used: HashSet<String>,
    /// Whether files of other kinds are ignored.
    dicom_only: bool,
}

impl RecordBuilder<'_> {
    /// Fills in the identifiers, the file, and the columns of the Plus table.
    fn finish(&mut self, name: &Name, record: PlannedRecord, plus_row: Option<PlusRow>) -> PlannedRecord {
        let plus_row = plus_row.unwrap_or_default();
        let dicom = plus_row.dicom.as_deref().and_then(Name::parse);
        let found = self.images.find(name).or_else(|| self.images.find(dicom.as_ref()?));
        let (source_path, source_bytes) = if let Some((key, (path, bytes))) = found {
            self.used.insert(key);
            (path.clone(), Some(*bytes))
        } else {
            let inner = format!("{}/{}/{}/{}", name.part, name.patient, name.study, name.file);
            let expected = self.folder.join(inner);
            // The file of another kind may be there.
            let expected = if self.dicom_only { expected.with_extension(EXTENSIONS[JPG]) } else { expected };
            (expected.to_string_lossy().into_owned(), None)
        };
        PlannedRecord {
            record_id: format!("chexpert/{}", name.key()),
            patient_id: name.patient.to_owned(),
            study_id: format!("{}/{}", name.patient, name.study),
            image_id: name.file.to_owned(),
            source_path,
            source_bytes,
            subset: record.subset.or(plus_row.subset),
            view: record.view.or(plus_row.view),
            sex: record.sex.or(plus_row.sex),
            age_years: record.age_years.or(plus_row.age_years),
            study_order: plus_row.study_order,
            report: plus_row.report,
            language: Some("en".to_owned()),
            ..record
        }
    }
}

/// The places of the parts of the data set.
struct Layout {
    /// The folders that were searched.
    folders: Vec<PathBuf>,
    /// The tables with labels, and the subset of each.
    tables: Vec<(PathBuf, &'static str)>,
    plus: Option<PathBuf>,
    /// The folder below which the images are.
    images: PathBuf,
}

impl Layout {
    /// Searches the raw directory, its `CheXpert…` folders, and their `CheXpert…` folders (the batches).
    fn find(raw: &Path) -> Result<Self> {
        let mut folders = vec![raw.to_path_buf()];
        let (mut tables, mut plus) = (Vec::new(), Vec::new());
        folders.extend(chexpert_folders(raw)?);
        for folder in chexpert_folders(raw)? {
            folders.extend(chexpert_folders(&folder)?);
        }
        for folder in &folders {
            tables.push(label_tables(folder)?);
            plus.extend(Plus::table(folder)?);
        }
        let first = tables.iter().position(|tables| !tables.is_empty());
        let plus = plus.into_iter().next();
        let (folder, tables) = (first.map(|at| &folders[at]), first.map(|at| tables.swap_remove(at)));
        let images = match (folder, plus.as_deref().and_then(Path::parent)) {
            (Some(folder), None) => folder.as_path(),
            (Some(folder), Some(plus)) if folder == plus => plus,
            (None, Some(plus)) => plus,
            (Some(_), Some(_)) => raw,
            (None, None) => {
                return Err(Error::MissingTable {
                    folder: raw.to_path_buf(),
                    wanted: "train.csv, valid.csv or test.csv (val_labels.csv, test_labels.csv; .gz too), nor \
                             df_chexpert_plus_*.csv"
                        .to_owned(),
                    remedy: "give the CheXpert-v1.0 or CheXpert-v1.0-small directory".to_owned(),
                });
            }
        };
        // The tables are in the first of the batch folders, the images in all of them.
        let is_batch = images.file_name().is_some_and(|name| name.to_string_lossy().to_lowercase().contains("batch"));
        let images = if is_batch && images != raw { images.parent().unwrap_or(raw) } else { images };
        let (images, tables) = (images.to_path_buf(), tables.unwrap_or_default());
        Ok(Self { folders, tables, plus, images })
    }
}

/// The tables with labels in a folder, and the subset of each.
fn label_tables(folder: &Path) -> Result<Vec<(PathBuf, &'static str)>> {
    let mut found = Vec::new();
    for (subset, names) in TABLES {
        let named = names.iter().map(|name| tables(folder, |found| found == *name)).collect::<Result<Vec<_>>>()?;
        found.extend(named.concat().into_iter().next().map(|path| (path, subset)));
    }
    Ok(found)
}

/// Folders whose name begins with `CheXpert`, in any case, sorted.
fn chexpert_folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = folders(folder)?;
    found.retain(|path| path.file_name().unwrap_or_default().to_string_lossy().to_lowercase().starts_with("chexpert"));
    Ok(found)
}
