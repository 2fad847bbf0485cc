//! TAIX-Ray: PNG files named by their UID and `metadata/annotation.csv` with grades by radiologists, or the published Parquet files
//! with both; and `split.csv` with five folds.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataset::format::grade::GradeScale;
use dataset::split::Subset;

use crate::dicom::header::sex;
use crate::error::{Error, Result};
use crate::reject::Reject;
use crate::run::plan::{ImageRow, Plan, PlannedRecord, Source};
use crate::sources::shared::dates;
use crate::sources::shared::files_by_name::files_by;
use crate::sources::shared::label_origins::RADIOLOGIST;
use crate::sources::shared::parquet_table;
use crate::sources::shared::table::{Table, find_table, texts, texts_or_null};
use crate::sources::shared::walk::{Walk, extension, is_name, stem};

/// The graded findings.
const FINDINGS: [&str; 8] = [
    HEART,
    "PulmonaryCongestion",
    "PleuralEffusion_Right",
    "PleuralEffusion_Left",
    "PulmonaryOpacities_Right",
    "PulmonaryOpacities_Left",
    "Atelectasis_Right",
    "Atelectasis_Left",
];
/// The finding with a scale of its own.
const HEART: &str = "HeartSize";
const HEART_GRADES: [&str; 4] = ["normal", "borderline", "enlarged", "massively enlarged"];
const GRADES: [&str; 5] = ["none", "(+)", "+", "++", "+++"];
/// The table, in the two spellings of the owners' pages and scripts.
const ANNOTATIONS: [&str; 2] = ["annotation", "annotations"];
/// A finding that could not be graded.
const NOT_ASSESSABLE: i8 = -1;
/// The table of folds.
const SPLIT: &str = "split";
/// Extension of the published tables, and their column of images.
const PARQUET: &str = "parquet";
const IMAGE: &str = "Image";
/// What to do where the Parquet files lack a fold.
const OTHER_FOLDS: &str = "give --fold with a number of their column Fold, or put the published split.csv beside them";
/// Ages above it are days: the owners' script counts days, copies may have years.
const MAX_AGE: f32 = 130.0;

/// The source `taix-ray`.
#[derive(Clone, Copy, Debug)]
pub struct TaixRay {
    /// Ingest the tables without images.
    pub no_images: bool,
    /// The fold whose subsets are taken.
    pub fold: u8,
    /// The lowest grade that is a positive label.
    pub threshold: u8,
}

impl Source for TaixRay {
    fn name(&self) -> &'static str {
        "taix-ray"
    }

    fn options(&self) -> BTreeMap<String, serde_json::Value> {
        BTreeMap::from([("fold".to_owned(), self.fold.into()), ("threshold".to_owned(), self.threshold.into())])
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let annotations = ANNOTATIONS.iter().find_map(|name| find(raw, name).transpose()).transpose()?;
        let walk = Walk::of(raw, raw, &["png", "jpg", "jpeg", PARQUET])?;
        let is_table = |path: &str| extension(Path::new(path)).is_some_and(|found| found == PARQUET);
        let (tables, files): (BTreeMap<_, _>, BTreeMap<_, _>) =
            walk.files.into_iter().partition(|(path, _)| is_table(path));
        let mut plan = Plan {
            rejects: walk.rejects,
            findings: FINDINGS.map(str::to_owned).to_vec(),
            grades: FINDINGS.map(scale).to_vec(),
            arguments: self.options(),
            ..Plan::default()
        };
        match annotations {
            // Parquet files beside image files are their source.
            Some(path) if tables.is_empty() || self.no_images || !files.is_empty() => {
                if !tables.is_empty() && !self.no_images {
                    plan.warnings.push("the Parquet files are not read, since there are image files".to_owned());
                }
                self.plan_files(raw, &path, files, &mut plan)?;
            }
            _ if !tables.is_empty() => self.plan_tables(raw, tables, files, &mut plan)?,
            _ => {
                return Err(Error::MissingTable {
                    folder: raw.to_path_buf(),
                    wanted: "metadata/annotation.csv[.gz] and no Parquet file".to_owned(),
                    remedy:
                        "give the directory of TAIX-Ray that contains `data/` and `metadata/`, or its Parquet files"
                            .to_owned(),
                });
            }
        }
        plan.finalize();
        Ok(plan)
    }
}

/// Where the image of a row is.
struct Image {
    source_path: String,
    source_bytes: Option<u64>,
    row: Option<ImageRow>,
}

impl TaixRay {
    /// Plans image files that are named by their UID.
    fn plan_files(self, raw: &Path, path: &Path, files: BTreeMap<String, u64>, plan: &mut Plan) -> Result<()> {
        let mut table = Table::read(raw, path, &[["UID", "PatientID"].as_slice(), &FINDINGS].concat())?;
        plan.rejects.append(&mut table.rejects);
        let split = find(raw, SPLIT)?;
        let subsets = split.map(|path| self.subsets_of_file(raw, &path, plan)).transpose()?;
        if subsets.is_none() {
            plan.warnings.push("no metadata/split.csv, so no radiograph has a subset".to_owned());
        }
        let files = if self.no_images { BTreeMap::new() } else { files };
        let mut files = files_by(files, stem, &mut plan.rejects);
        let image = |uid: &str, _| {
            let found = files.remove(uid);
            let (source_path, source_bytes) =
                found.map_or_else(|| (format!("data/{uid}.png"), None), |(path, bytes)| (path, Some(bytes)));
            Image { source_path, source_bytes, row: None }
        };
        let in_days = self.rows(&table, &subsets.unwrap_or_default(), image, plan)?;
        ages(plan, in_days);
        plan.rejects.extend(files.into_values().map(|(path, _)| Reject::unlisted(path)));
        Ok(())
    }

    /// Plans the tables that have both the images and what is known about them. Image files beside them are rejects.
    fn plan_tables(
        self,
        raw: &Path,
        tables: BTreeMap<String, u64>,
        files: BTreeMap<String, u64>,
        plan: &mut Plan,
    ) -> Result<()> {
        let required = [["UID", "PatientID", IMAGE].as_slice(), &FINDINGS].concat();
        let split = find(raw, SPLIT)?;
        let of_file = split.map(|path| self.subsets_of_file(raw, &path, plan)).transpose()?;
        let (mut in_days, mut has_fold) = (false, of_file.is_some());
        for (path, bytes) in tables {
            let whole = raw.join(&path);
            let mut table = parquet_table::read(raw, &whole, &required)?;
            plan.rejects.append(&mut table.rejects);
            if !table.byte_columns.iter().any(|name| name == IMAGE) {
                let message = format!("the column `{IMAGE}` has no images; is it a table of this data set?");
                return Err(Error::Table { path: whole, message });
            }
            let own = if of_file.is_none() { self.subsets_of_table(&table, plan)? } else { HashMap::new() };
            has_fold |= !own.is_empty();
            let file: Arc<str> = path.into();
            let image = |_: &str, row| {
                let image_row = ImageRow { file: file.clone(), row: table.row_in_file(row), column: IMAGE.into() };
                let source_path = image_row.source_path(table.frame.height());
                Image { source_path, source_bytes: Some(bytes), row: Some(image_row) }
            };
            in_days |= self.rows(&table, of_file.as_ref().unwrap_or(&own), image, plan)?;
        }
        if !has_fold {
            let message = format!("no row of fold {} in the Parquet files; {OTHER_FOLDS}", self.fold);
            return Err(Error::Table { path: raw.to_path_buf(), message });
        }
        ages(plan, in_days);
        plan.rejects.extend(files.into_keys().map(Reject::unlisted));
        Ok(())
    }

    /// Adds the rows of a table to a plan. Returns whether its ages are days; those of the records are as in the table.
    fn rows(
        self,
        table: &Table,
        subsets: &HashMap<String, Subset>,
        mut image: impl FnMut(&str, usize) -> Image,
        plan: &mut Plan,
    ) -> Result<bool> {
        let (uid, patient) = (texts(&table.frame, "UID")?, texts(&table.frame, "PatientID")?);
        let optional = |name| texts_or_null(&table.frame, name);
        let (date, age, sexes) = (optional("StudyDate"), optional("Age"), optional("Sex"));
        let grades = FINDINGS.iter().map(|finding| texts(&table.frame, finding)).collect::<Result<Vec<_>>>()?;
        let ages: Vec<Option<f32>> = age.into_iter().map(|age| age?.parse().ok().filter(|age| *age >= 0.0)).collect();
        for row in 0..table.frame.height() {
            let (Some(uid), Some(patient)) = (uid[row].filter(|uid| is_name(uid)), patient[row]) else {
                plan.rejects.push(table.reject(row, "UID or PatientID is empty or no plain name"));
                continue;
            };
            let Image { source_path, source_bytes, row: image_row } = image(uid, row);
            let of_row = FINDINGS.iter().zip(&grades).map(|(finding, column)| grade(finding, column[row]));
            let of_row = match of_row.collect::<Result<Vec<_>, String>>() {
                Ok(grades) => grades,
                Err(error) => {
                    plan.rejects.push(table.reject(row, error));
                    continue;
                }
            };
            plan.records.push(PlannedRecord {
                record_id: format!("taix-ray/{uid}"),
                patient_id: patient.to_owned(),
                study_id: uid.to_owned(),
                image_id: uid.to_owned(),
                source_path,
                source_bytes,
                image_row,
                subset: subsets.get(uid).map(|subset| subset.name().to_owned()),
                sex: sexes[row].and_then(sex),
                age_years: ages[row],
                study_datetime: date[row].and_then(dates::of_text),
                labels: of_row.iter().map(|grade| grade.map(|grade| i8::from(grade as u8 >= self.threshold))).collect(),
                label_origin: Some(RADIOLOGIST.to_owned()),
                grades: of_row,
                ..PlannedRecord::default()
            });
        }
        Ok(ages.iter().flatten().any(|age| *age > MAX_AGE))
    }

    /// The subset of each image in the fold, by the table of folds.
    fn subsets_of_file(self, raw: &Path, path: &Path, plan: &mut Plan) -> Result<HashMap<String, Subset>> {
        let mut table = Table::read(raw, path, &["UID", "Fold", "Split"])?;
        plan.rejects.append(&mut table.rejects);
        let subsets = self.subsets_of_table(&table, plan)?;
        if subsets.is_empty() {
            let message = format!("no row of fold {}; give --fold with a number of the column Fold", self.fold);
            return Err(Error::Table { path: path.to_path_buf(), message });
        }
        Ok(subsets)
    }

    /// The subset of each image in the fold, by the columns of a table.
    fn subsets_of_table(self, table: &Table, plan: &mut Plan) -> Result<HashMap<String, Subset>> {
        let mut subsets = HashMap::new();
        let column = |name| texts_or_null(&table.frame, name);
        let (uid, fold, split) = (texts(&table.frame, "UID")?, column("Fold"), column("Split"));
        for row in 0..table.frame.height() {
            let number = fold[row].and_then(|fold| fold.strip_suffix(".0").unwrap_or(fold).parse::<u8>().ok());
            match (uid[row], number, split[row].and_then(Subset::parse)) {
                (Some(uid), Some(fold), Some(subset)) if fold == self.fold => {
                    let _ = subsets.insert(uid.to_owned(), subset);
                }
                (Some(_), Some(_), Some(_)) => {}
                _ => {
                    plan.rejects
                        .push(table.reject(row, "not a UID, a fold and train, val or test; the row is ignored"));
                }
            }
        }
        Ok(subsets)
    }
}

/// Makes years of the ages of a plan's records.
fn ages(plan: &mut Plan, in_days: bool) {
    let records = plan.records.iter_mut().filter(|_| in_days);
    records.for_each(|record| record.age_years = record.age_years.map(|age| age / 365.25));
}

/// A table in `metadata/` or in the raw directory.
fn find(raw: &Path, name: &str) -> Result<Option<PathBuf>> {
    Ok(match find_table(&raw.join("metadata"), name)? {
        Some(path) => Some(path),
        None => find_table(raw, name)?,
    })
}

fn scale(finding: &str) -> GradeScale {
    let values: &[&str] = if finding == HEART { &HEART_GRADES } else { &GRADES };
    GradeScale { name: finding.to_owned(), values: values.iter().map(|value| (*value).to_owned()).collect() }
}

/// The grade of a cell; `None` where it is blank or not assessable.
fn grade(finding: &str, cell: Option<&str>) -> Result<Option<i8>, String> {
    let Some(text) = cell else { return Ok(None) };
    let highest = if finding == HEART { HEART_GRADES.len() } else { GRADES.len() } - 1;
    match text.parse::<f32>() {
        Ok(grade) if grade == f32::from(NOT_ASSESSABLE) => Ok(None),
        Ok(grade) if grade.fract() == 0.0 && (0.0..=highest as f32).contains(&grade) => Ok(Some(grade as i8)),
        _ => Err(format!("column `{finding}`: `{text}` is no grade from 0 to {highest}")),
    }
}
