//! SIIM-FISABIO-RSNA COVID-19 Detection (2021): `train/STUDY/SERIES/IMAGE.dcm`, `test/…`, `train_study_level.csv` with one of four
//! appearances for each study, and `train_image_level.csv` with boxes. The patients are only in the DICOM headers, so each study
//! counts as a patient.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use dataset::format::record::BoundingBox;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::reject::{Reject, Stage};
use crate::run::plan::{Plan, PlannedRecord, Source, label_code};
use crate::sources::shared::challenge::each_image;
use crate::sources::shared::label_origins::RADIOLOGIST;
use crate::sources::shared::python_literal;
use crate::sources::shared::table::{Table, find_table, texts};

const STUDIES: &str = "train_study_level";
const IMAGES: &str = "train_image_level";
/// Folders of images and their subsets.
const FOLDERS: [(&str, &str); 2] = [("train", "train"), ("test", "test")];
const EXTENSIONS: [&str; 4] = ["dcm", "png", "jpg", "jpeg"];
/// The appearances; a study has one of them.
const APPEARANCES: [&str; 4] =
    ["Negative for Pneumonia", "Typical Appearance", "Indeterminate Appearance", "Atypical Appearance"];
/// The label of the boxes.
const OPACITY: &str = "Opacity";

/// The source `siim-covid`.
pub struct SiimCovid;

/// The rows of one image.
struct ImageRows {
    study: String,
    /// The boxes, or why they cannot be used.
    boxes: Result<Vec<BoundingBox>, String>,
}

impl Source for SiimCovid {
    fn name(&self) -> &'static str {
        "siim-covid"
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let find = |name: &str| {
            find_table(raw, name)?.ok_or_else(|| Error::MissingTable {
                folder: raw.to_path_buf(),
                wanted: format!("{name}.csv[.gz]"),
                remedy: "give the directory of the SIIM-FISABIO-RSNA COVID-19 Detection challenge".to_owned(),
            })
        };
        let mut plan = Plan { findings: APPEARANCES.map(str::to_owned).to_vec(), ..Plan::default() };
        let appearances = appearances(raw, &find(STUDIES)?, &mut plan.rejects)?;
        let images = images(raw, &find(IMAGES)?, &mut plan.rejects)?;
        let record = |id: &str, source_path: String, source_bytes, subset: &str, rows: Option<ImageRows>| {
            let record_id = format!("siim-covid/{id}");
            // FOLDER/STUDY/SERIES/IMAGE.dcm
            let in_path = match source_path.split('/').collect::<Vec<_>>().as_slice() {
                [_, study, .., _] => Some((*study).to_owned()),
                _ => None,
            };
            let stated = rows.map(|rows| {
                let appearance = appearances.get(rows.study.as_str());
                let appearance = appearance.ok_or_else(|| format!("{STUDIES}.csv does not have study {}", rows.study));
                let codes = appearance.and_then(Clone::clone);
                codes.and_then(|codes| rows.boxes.map(|boxes| (rows.study, codes, boxes)))
            });
            let (study, codes, boxes) = match stated.transpose() {
                Ok(Some((study, codes, boxes))) => (study, codes.map(Some).to_vec(), boxes),
                Ok(None) => (in_path.unwrap_or_else(|| id.to_owned()), vec![None; APPEARANCES.len()], Vec::new()),
                Err(error) => {
                    let record_id = Some(record_id);
                    plan.rejects.push(Reject { source_path, record_id, stage: Stage::Table, error });
                    return;
                }
            };
            plan.records.push(PlannedRecord {
                record_id,
                patient_id: study.clone(),
                study_id: study,
                image_id: id.to_owned(),
                source_path,
                source_bytes,
                subset: Some(subset.to_owned()),
                labels: codes,
                label_origin: Some(RADIOLOGIST.to_owned()),
                boxes,
                ..PlannedRecord::default()
            });
        };
        let unlisted = each_image(raw, &FOLDERS, &EXTENSIONS, images, record)?;
        plan.rejects.extend(unlisted);
        plan.finalize();
        Ok(plan)
    }
}

/// The codes of each study, or why they cannot be used.
fn appearances(raw: &Path, path: &Path, rejects: &mut Vec<Reject>) -> Result<HashMap<String, Result<[i8; 4], String>>> {
    let mut table = Table::read(raw, path, &[["id"].as_slice(), &APPEARANCES].concat())?;
    rejects.append(&mut table.rejects);
    let id = texts(&table.frame, "id")?;
    let columns = APPEARANCES.map(|name| texts(&table.frame, name));
    let [a, b, c, d] = columns;
    let columns = [a?, b?, c?, d?];
    let mut studies = HashMap::new();
    for row in 0..table.frame.height() {
        let Some(study) = id[row].map(|id| id.trim_end_matches("_study")) else {
            rejects.push(table.reject(row, "id is empty"));
            continue;
        };
        let codes = columns.each_ref().map(|column| label_code(column[row]));
        let one = match codes {
            [Some(a), Some(b), Some(c), Some(d)] if [a, b, c, d].iter().filter(|code| **code == 1).count() == 1 => {
                Some([a, b, c, d]).filter(|codes| codes.iter().all(|code| [0, 1].contains(code)))
            }
            _ => None,
        };
        let codes =
            one.ok_or_else(|| format!("{}: not one of the four appearances is 1 and the others 0", table.place(row)));
        studies.insert(study.to_owned(), codes);
    }
    Ok(studies)
}

/// The study and the boxes of each image.
fn images(raw: &Path, path: &Path, rejects: &mut Vec<Reject>) -> Result<BTreeMap<String, ImageRows>> {
    let mut table = Table::read(raw, path, &["id", "boxes", "StudyInstanceUID"])?;
    rejects.append(&mut table.rejects);
    let column = |name| texts(&table.frame, name);
    let (id, cell, study) = (column("id")?, column("boxes")?, column("StudyInstanceUID")?);
    let mut images = BTreeMap::new();
    for row in 0..table.frame.height() {
        let (Some(id), Some(study)) = (id[row].map(|id| id.trim_end_matches("_image")), study[row]) else {
            rejects.push(table.reject(row, "id or StudyInstanceUID is empty"));
            continue;
        };
        let boxes = cell[row].map_or(Ok(Vec::new()), boxes).map_err(|error| format!("{}: {error}", table.place(row)));
        images.insert(id.to_owned(), ImageRows { study: study.to_owned(), boxes });
    }
    Ok(images)
}

/// The boxes of a cell: a list of dictionaries with x, y, width and height.
fn boxes(cell: &str) -> Result<Vec<BoundingBox>, String> {
    let not_boxes = || "boxes: not a list of x, y, width and height".to_owned();
    let Value::Array(listed) = python_literal::parse(cell).map_err(|error| format!("boxes: {error}"))? else {
        return Err(not_boxes());
    };
    let one = |found: &Value| {
        let side = |name| found.get(name).and_then(Value::as_f64).map(|side| side as f32);
        match ["x", "y", "width", "height"].map(side) {
            [Some(x), Some(y), Some(width), Some(height)] if x >= 0.0 && y >= 0.0 && width > 0.0 && height > 0.0 => {
                Some(BoundingBox { label: OPACITY.to_owned(), x, y, width, height, ..BoundingBox::default() })
            }
            _ => None,
        }
    };
    listed.iter().map(|found| one(found).ok_or_else(not_boxes)).collect()
}
