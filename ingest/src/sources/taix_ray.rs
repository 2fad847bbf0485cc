//! TAIX-Ray: PNG files named by their UID, `metadata/annotation.csv` with grades by radiologists, and `metadata/split.csv` with
//! five folds.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use dataset::format::grade::GradeScale;
use dataset::split::Subset;

use crate::dicom::header::sex;
use crate::error::{Error, Result};
use crate::reject::Reject;
use crate::run::plan::{Plan, PlannedRecord, Source};
use crate::sources::shared::dates;
use crate::sources::shared::files_by_name::files_by;
use crate::sources::shared::label_origins::RADIOLOGIST;
use crate::sources::shared::table::{Table, find_table, texts, texts_or_null};
use crate::sources::shared::walk::{Walk, is_name, stem};

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
        let path = ANNOTATIONS.iter().find_map(|name| find(raw, name).transpose()).transpose()?;
        let path = path.ok_or_else(|| Error::MissingTable {
            folder: raw.to_path_buf(),
            wanted: "metadata/annotation.csv[.gz]".to_owned(),
            remedy: "give the directory of TAIX-Ray that contains `data/` and `metadata/`".to_owned(),
        })?;
        let mut table = Table::read(raw, &path, &[["UID", "PatientID"].as_slice(), &FINDINGS].concat())?;
        let mut plan = Plan {
            rejects: std::mem::take(&mut table.rejects),
            findings: FINDINGS.map(str::to_owned).to_vec(),
            grades: FINDINGS.map(scale).to_vec(),
            arguments: self.options(),
            ..Plan::default()
        };
        let subsets = self.subsets(raw, &mut plan)?;
        let mut files = BTreeMap::new();
        if !self.no_images {
            let walk = Walk::of(raw, raw, &["png", "jpg", "jpeg"])?;
            plan.rejects.extend(walk.rejects);
            files = files_by(walk.files, stem, &mut plan.rejects);
        }
        let (uid, patient) = (texts(&table.frame, "UID")?, texts(&table.frame, "PatientID")?);
        let optional = |name| texts_or_null(&table.frame, name);
        let (date, age, sexes) = (optional("StudyDate"), optional("Age"), optional("Sex"));
        let grades = FINDINGS.iter().map(|finding| texts(&table.frame, finding)).collect::<Result<Vec<_>>>()?;
        let ages: Vec<Option<f32>> = age.into_iter().map(|age| age?.parse().ok().filter(|age| *age >= 0.0)).collect();
        let in_days = ages.iter().flatten().any(|age| *age > MAX_AGE);
        for row in 0..table.frame.height() {
            let (Some(uid), Some(patient)) = (uid[row].filter(|uid| is_name(uid)), patient[row]) else {
                plan.rejects.push(table.reject(row, "UID or PatientID is empty or no plain name"));
                continue;
            };
            let found = files.remove(uid);
            let of_row = FINDINGS.iter().zip(&grades).map(|(finding, column)| grade(finding, column[row]));
            let of_row = match of_row.collect::<Result<Vec<_>, String>>() {
                Ok(grades) => grades,
                Err(error) => {
                    plan.rejects.push(table.reject(row, error));
                    continue;
                }
            };
            let (source_path, source_bytes) =
                found.map_or_else(|| (format!("data/{uid}.png"), None), |(path, bytes)| (path, Some(bytes)));
            plan.records.push(PlannedRecord {
                record_id: format!("taix-ray/{uid}"),
                patient_id: patient.to_owned(),
                study_id: uid.to_owned(),
                image_id: uid.to_owned(),
                source_path,
                source_bytes,
                subset: subsets.get(uid).map(|subset| subset.name().to_owned()),
                sex: sexes[row].and_then(sex),
                age_years: ages[row].map(|age| if in_days { age / 365.25 } else { age }),
                study_datetime: date[row].and_then(dates::of_text),
                labels: of_row.iter().map(|grade| grade.map(|grade| i8::from(grade as u8 >= self.threshold))).collect(),
                label_origin: Some(RADIOLOGIST.to_owned()),
                grades: of_row,
                ..PlannedRecord::default()
            });
        }
        plan.rejects.extend(files.into_values().map(|(path, _)| Reject::unlisted(path)));
        plan.finalize();
        Ok(plan)
    }
}

impl TaixRay {
    /// The subset of each image in the fold; without the table of folds, none.
    fn subsets(self, raw: &Path, plan: &mut Plan) -> Result<HashMap<String, Subset>> {
        let mut subsets = HashMap::new();
        let Some(path) = find(raw, "split")? else {
            plan.warnings.push("no metadata/split.csv, so no radiograph has a subset".to_owned());
            return Ok(subsets);
        };
        let mut table = Table::read(raw, &path, &["UID", "Fold", "Split"])?;
        plan.rejects.append(&mut table.rejects);
        let (uid, fold, split) =
            (texts(&table.frame, "UID")?, texts(&table.frame, "Fold")?, texts(&table.frame, "Split")?);
        for row in 0..table.frame.height() {
            match (uid[row], fold[row].and_then(|fold| fold.parse::<u8>().ok()), split[row].and_then(Subset::parse)) {
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
        if subsets.is_empty() {
            let message = format!("no row of fold {}; give --fold with a number of the column Fold", self.fold);
            return Err(Error::Table { path, message });
        }
        Ok(subsets)
    }
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
