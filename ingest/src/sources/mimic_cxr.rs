//! MIMIC-CXR and MIMIC-CXR-JPG: `files/p10/p10000032/s50414267/<dicom_id>.dcm|jpg`, reports beside the study folders or in a
//! separate folder, tables
//! `mimic-cxr-<version>-{metadata,split,chexpert,negbio,test-set-labeled}.csv[.gz]` and
//! `cxr-{record,study}-list.csv[.gz]`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use dataset::store::files;
use polars::prelude::{
    BooleanChunked, DataFrame, DataFrameJoinOps, JoinArgs, JoinType, MaintainOrderJoin, NewChunkedArray, PolarsError,
    PolarsResult, UniqueKeepStrategy,
};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::file_system::{failed, is_absence, retry};
use crate::reject::Reject;
use crate::report::sections::Conclusion;
use crate::run::plan::{Plan, PlannedRecord, ReportSource, Source, label_code, label_codes};
use crate::sources::shared::mimic_tree::{ImageKind, ImagesByStem, Reports, Tree};
use crate::sources::shared::table::{Table, texts, texts_or_null};
use crate::sources::shared::walk::{is_inside, stem};
use crate::sources::shared::{dates, label_origins};

/// Columns of the table of images that are used.
const USED: [&str; 7] = ["dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime", "path"];
/// Columns of the label tables that are not findings.
const KEYS: [&str; 3] = ["subject_id", STUDY, "dicom_id"];
/// The column by which labels belong to studies.
const STUDY: &str = "study_id";
/// Findings of the table of manual labels that the other tables have under another name.
const RENAMED: [(&str, &str); 1] = [("Airspace Opacity", "Lung Opacity")];

/// The labeler whose table is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Labeler {
    /// The table `-chexpert`.
    Chexpert,
    /// The table `-negbio`.
    Negbio,
    /// The table `-test-set-labeled` of MIMIC-CXR-JPG 2.1.0: a radiologist's labels of 687 studies of the test subset. The
    /// other studies have no labels.
    Manual,
}

impl Labeler {
    /// Name in the manifest and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chexpert => "chexpert",
            Self::Negbio => "negbio",
            Self::Manual => "manual",
        }
    }

    /// Ending of the name of the table.
    fn table(self) -> &'static str {
        if self == Self::Manual { "test-set-labeled" } else { self.name() }
    }

    /// Where the labels are from.
    fn origin(self) -> &'static str {
        match self {
            Self::Chexpert => label_origins::CHEXPERT,
            Self::Negbio => label_origins::NEGBIO,
            Self::Manual => label_origins::RADIOLOGIST,
        }
    }
}

/// The source `mimic-cxr`.
#[derive(Clone, Debug, Default)]
pub struct MimicCxr {
    /// Ingest tables and reports without images.
    pub no_images: bool,
    /// The kind of image files; `None` takes the kind with files of more radiographs, JPG at a tie.
    pub images: Option<ImageKind>,
    /// The labels; `None` takes those of CheXpert if its table exists, else those of NegBio.
    pub labeler: Option<Labeler>,
    /// Folder of the reports, where they are not below the raw directory.
    pub reports: Option<PathBuf>,
}

impl Source for MimicCxr {
    fn name(&self) -> &'static str {
        "mimic-cxr"
    }

    fn options(&self) -> BTreeMap<String, serde_json::Value> {
        let folder = self.reports.as_ref().map(|folder| std::path::absolute(folder).unwrap_or_else(|_| folder.clone()));
        let given = [
            ("labels", self.labeler.map(|labeler| labeler.name().to_owned())),
            ("images", self.images.map(|images| images.name().to_owned())),
            ("reports", folder.map(|folder| folder.to_string_lossy().into_owned())),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))).collect()
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let tree = Tree::find(raw)?;
        let missing = |wanted: &str, remedy: &str| Error::MissingTable {
            folder: raw.to_path_buf(),
            wanted: wanted.to_owned(),
            remedy: remedy.to_owned(),
        };
        let listed = first_of(&tree, ["metadata", "record-list"])?.ok_or_else(|| {
            let remedy = "give the directory that contains `files/` and the tables of MIMIC-CXR or MIMIC-CXR-JPG";
            missing("mimic-cxr-*-metadata.csv[.gz] or cxr-record-list.csv[.gz]", remedy)
        })?;
        let mut listed = Table::read(raw, &listed, &["dicom_id", "subject_id", "study_id"])?;
        let mut plan = Plan { rejects: std::mem::take(&mut listed.rejects), ..Plan::default() };
        // Unused columns are dropped before the joins.
        let mut names = listed.frame.get_column_names_owned();
        names.retain(|name| USED.contains(&name.as_str()));
        let mut joined = listed.frame.select(names)?;
        let failed = |error: PolarsError| Error::Table { path: raw.join(&listed.name), message: error.to_string() };
        if let Some(path) = tree.table("split")? {
            let split = Table::read(raw, &path, &["dicom_id", "split"])?;
            plan.rejects.extend(split.rejects);
            let split = first_row_per_key(split.frame.select(["dicom_id", "split"])?, "dicom_id")?;
            joined = left_join(&joined, &split, "dicom_id").map_err(failed)?;
        }
        let labels = match self.labeler {
            Some(labeler) => {
                let path = tree.table(labeler.table())?.ok_or_else(|| {
                    missing(&format!("mimic-cxr-*-{}.csv[.gz]", labeler.table()), "leave out --labels or add the table")
                })?;
                Some((labeler, path))
            }
            None => first_labeler(&tree)?,
        };
        let labeler = labels.as_ref().map(|(labeler, _)| *labeler);
        if let Some((_, path)) = labels {
            let mut labels = Table::read(raw, &path, &[STUDY])?;
            for (old, new) in RENAMED {
                if labels.frame.column(new).is_err() && labels.frame.column(old).is_ok() {
                    labels.frame.rename(old, new.into())?;
                }
            }
            let names = labels.frame.get_column_names_owned().into_iter().map(|name| name.to_string());
            plan.findings = names.filter(|name| !KEYS.contains(&name.as_str()) && !name.is_empty()).collect();
            plan.rejects.append(&mut labels.rejects);
            let labels = valid_labels(labels, &plan.findings, &mut plan.rejects)?;
            let chosen = std::iter::once("study_id").chain(plan.findings.iter().map(String::as_str));
            let labels = first_row_per_key(labels.select(chosen)?, "study_id")?;
            joined = left_join(&joined, &labels, "study_id").map_err(failed)?;
        }
        let reports = tree.reports(self.reports.as_deref())?;
        match &reports {
            Some(reports) => plan.report_root.clone_from(&reports.root),
            None => plan.rejects.extend(tree.packed_reports()?),
        }
        let paths = report_paths(raw, &tree, &mut plan.rejects)?;
        let reports = reports.map(|found| (found, paths));
        self.records(&tree, &listed, &joined, reports.as_ref(), labeler, &mut plan)?;
        if let Some(root) = &plan.report_root {
            plan.arguments.insert("reports".to_owned(), reports_sha256(root, &plan.records)?.into());
        }
        if let Some(labeler) = self.labeler {
            plan.arguments.insert("labels".to_owned(), labeler.name().into());
        }
        if let Some(images) = self.images {
            plan.arguments.insert("images".to_owned(), images.name().into());
        }
        plan.finalize();
        Ok(plan)
    }

    fn warnings(&self, plan: &Plan) -> Vec<String> {
        let has_reports = plan.records.iter().any(|record| record.report != ReportSource::None);
        let warning = "no reports found, so no radiograph has text; give --reports DIR, or unpack mimic-cxr-reports.zip in \
                       RAW_DIR";
        if has_reports || plan.records.is_empty() { Vec::new() } else { vec![warning.to_owned()] }
    }
}

/// Digest of the relative paths and sizes of the report files, so that a folder with other reports is detected, and a folder
/// that was moved is accepted.
fn reports_sha256(root: &Path, records: &[PlannedRecord]) -> Result<String> {
    let path = |record: &PlannedRecord| match &record.report {
        ReportSource::File(path) => Some(path.clone()),
        _ => None,
    };
    let paths: BTreeSet<PathBuf> = records.iter().filter_map(path).collect();
    let line = |path: &PathBuf| {
        let path_of = root.join(path);
        let size = match retry(|| path_of.metadata()) {
            Err(error) if is_absence(&error) => 0,
            found => found.map_err(failed(&path_of))?.len(),
        };
        Ok(format!("{size} {}\n", path.display()))
    };
    let listed = paths.par_iter().map(line).collect::<Result<Vec<_>>>()?;
    Ok(files::hex(&Sha256::digest(listed.concat())))
}

/// CheXpert's labels, or else those of NegBio.
fn first_labeler(tree: &Tree) -> Result<Option<(Labeler, PathBuf)>> {
    for labeler in [Labeler::Chexpert, Labeler::Negbio] {
        if let Some(path) = tree.table(labeler.table())? {
            return Ok(Some((labeler, path)));
        }
    }
    Ok(None)
}

/// The table of the first of these names that exists.
fn first_of(tree: &Tree, names: [&str; 2]) -> Result<Option<PathBuf>> {
    Ok(match tree.table(names[0])? {
        Some(found) => Some(found),
        None => tree.table(names[1])?,
    })
}

/// The reports, and by study the paths of the study list.
type ListedReports = (Reports, HashMap<String, String>);

impl MimicCxr {
    /// Plans a record for each row of the joined `table`, which has the rows of the table `listed`.
    fn records(
        &self,
        tree: &Tree,
        listed: &Table,
        table: &DataFrame,
        reports: Option<&ListedReports>,
        labeler: Option<Labeler>,
        plan: &mut Plan,
    ) -> Result<()> {
        let codes = |finding: &String| Ok(texts(table, finding)?.into_iter().map(label_code).collect::<Vec<_>>());
        let findings = plan.findings.iter().map(codes).collect::<Result<Vec<_>>>()?;
        let (dicom, subject, study) =
            (texts(table, "dicom_id")?, texts(table, "subject_id")?, texts(table, "study_id")?);
        let (split, view) = (texts_or_null(table, "split"), texts_or_null(table, "ViewPosition"));
        let path = texts_or_null(table, "path");
        let (date, time) = (texts_or_null(table, "StudyDate"), texts_or_null(table, "StudyTime"));

        let ids: HashSet<&str> = dicom.iter().flatten().copied().collect();
        let mut files = BTreeMap::new();
        if !self.no_images {
            let walk = tree.images()?;
            plan.rejects.extend(walk.rejects);
            files = walk.files;
            let unlisted = files.keys().filter(|path| !ids.contains(stem(path).as_str()));
            plan.rejects.extend(unlisted.cloned().map(Reject::unlisted));
        }
        let by_stem = ImagesByStem::new(&files, &ids, self.images);
        let kind = if self.no_images { self.images } else { Some(by_stem.kind) };
        let (folder, extension) = match tree.image_folder(kind)? {
            Some(found) => found,
            None if self.no_images => (PathBuf::new(), "dcm".to_owned()),
            None => return Err(tree.no_images()),
        };
        for row in 0..table.height() {
            let (Some(dicom), Some(subject), Some(study)) = (dicom[row], subject[row], study[row]) else {
                plan.rejects.push(listed.reject(row, "dicom_id, subject_id or study_id is empty"));
                continue;
            };
            if [dicom, subject, study].iter().any(|id| id.contains(['/', '\\']) || !is_inside(id)) {
                plan.rejects.push(listed.reject(row, "dicom_id, subject_id or study_id contains a path separator"));
                continue;
            }
            let patient_folder = format!("files/p{}/p{subject}", subject.get(..2).unwrap_or(subject));
            let source_path = by_stem.path(dicom).map_or_else(
                || {
                    let usual = || format!("{patient_folder}/s{study}/{dicom}.{extension}");
                    let listed = path[row].filter(|path| is_inside(path)).map_or_else(usual, str::to_owned);
                    folder.join(listed).with_extension(&extension).to_string_lossy().into_owned()
                },
                str::to_owned,
            );
            plan.records.push(PlannedRecord {
                record_id: format!("mimic-cxr/{dicom}"),
                patient_id: subject.to_owned(),
                study_id: study.to_owned(),
                image_id: dicom.to_owned(),
                source_bytes: files.get(&source_path).copied(),
                source_path,
                subset: split[row].map(str::to_owned),
                study_datetime: dates::of_dicom(date[row], time[row]),
                view: view[row].map(str::to_owned),
                labels: findings.iter().map(|column| column[row]).collect(),
                label_origin: labeler.map(|labeler| labeler.origin().to_owned()),
                language: Some("en".to_owned()),
                report: match reports {
                    Some((found, listed)) => {
                        let usual = || format!("{patient_folder}/s{study}.txt");
                        ReportSource::File(found.path(&listed.get(study).cloned().unwrap_or_else(usual)))
                    }
                    None => ReportSource::None,
                },
                conclusion: Conclusion::of_mimic_study(study),
                ..PlannedRecord::default()
            });
        }
        Ok(())
    }
}

/// The first row of each key: a repeated key would multiply the records in a join.
fn first_row_per_key(table: DataFrame, key: &str) -> PolarsResult<DataFrame> {
    table.unique_stable(Some(&[key.to_owned()]), UniqueKeepStrategy::First, None)
}

/// All rows of `table` in their order, with the columns of the row of `other` that has the same key, or null.
fn left_join(table: &DataFrame, other: &DataFrame, key: &str) -> PolarsResult<DataFrame> {
    let how = JoinArgs { maintain_order: MaintainOrderJoin::Left, ..JoinArgs::new(JoinType::Left) };
    table.join(other, [key], [key], how, None)
}

/// The rows of a label table in which every value is a label; the others become rejects.
fn valid_labels(table: Table, findings: &[String], rejects: &mut Vec<Reject>) -> Result<DataFrame> {
    let columns: Vec<_> = findings.iter().map(|finding| texts(&table.frame, finding)).collect::<Result<_>>()?;
    let valid: Vec<bool> = (0..table.frame.height())
        .map(|row| match label_codes(findings, columns.iter().map(|column| column[row])) {
            Ok(_) => true,
            Err(error) => {
                rejects.push(table.reject(row, format!("{error}; its images are kept without labels")));
                false
            }
        })
        .collect();
    drop(columns);
    if valid.iter().all(|&valid| valid) {
        return Ok(table.frame);
    }
    Ok(table.frame.filter(&BooleanChunked::from_slice("valid".into(), &valid))?)
}

/// Paths of the reports by study, from `cxr-study-list.csv[.gz]` if it exists.
fn report_paths(raw: &Path, tree: &Tree, rejects: &mut Vec<Reject>) -> Result<HashMap<String, String>> {
    let Some(path) = tree.table("study-list")? else { return Ok(HashMap::new()) };
    let table = Table::read(raw, &path, &["study_id", "path"])?;
    rejects.extend(table.rejects);
    let (study, path) = (texts(&table.frame, "study_id")?, texts(&table.frame, "path")?);
    let rows = study.into_iter().zip(path);
    let named =
        rows.filter_map(|(study, path)| Some((study?.to_owned(), path.filter(|path| is_inside(path))?.to_owned())));
    Ok(named.collect())
}
