//! ReXGradient-160K: `metadata/PART_metadata_view_position.json` (a dictionary of studies with the sections of the report and the
//! paths and views of the images), and the PNG files below `deid_png/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::dicom::header::{sex, years};
use crate::error::{Error, Result};
use crate::file_system::is_file;
use crate::reject::{Reject, Stage};
use crate::run::plan::{Plan, PlannedRecord, Source};
use crate::sources::shared::files_by_name::files_by;
use crate::sources::shared::walk::{Walk, is_inside, stem};
use crate::sources::shared::{dates, json, report_sections};

/// Parts of the set by the names of their files, and their subsets.
const PARTS: [(&str, &str); 3] = [("train", "train"), ("valid", "validate"), ("test", "test")];
/// Folders of the files, relative to the raw directory.
const FOLDERS: [&str; 3] = ["metadata", "download/metadata", ""];
/// The folder of the images, wherever it is.
const IMAGES: &str = "deid_png/";
/// Words for a section or a view that is not stated.
const NOT_STATED: [&str; 5] = ["none", "nan", "n/a", "unknown", "null"];

/// The source `rexgradient`.
#[derive(Clone, Debug, Default)]
pub struct Rexgradient {
    /// Ingest the reports without images.
    pub no_images: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Study {
    #[serde(rename = "PatientID")]
    patient_id: String,
    #[serde(rename = "StudyInstanceUid", alias = "StudyInstanceUID")]
    instance_uid: String,
    #[serde(default)]
    patient_sex: Option<String>,
    #[serde(default)]
    patient_age: Option<String>,
    #[serde(default, rename = "StudyDate")]
    date: serde_json::Value,
    #[serde(default)]
    indication: Option<String>,
    #[serde(default)]
    comparison: Option<String>,
    #[serde(default)]
    findings: Option<String>,
    #[serde(default)]
    impression: Option<String>,
    image_path: Vec<String>,
    #[serde(default)]
    image_view_position: Vec<Option<String>>,
}

impl Source for Rexgradient {
    fn name(&self) -> &'static str {
        "rexgradient"
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let mut plan = Plan::default();
        let mut files = BTreeMap::new();
        if !self.no_images {
            let walk = Walk::of(raw, raw, &["png"])?;
            plan.rejects.extend(walk.rejects);
            files = files_by(walk.files, |path| below_images(path).to_owned(), &mut plan.rejects);
        }
        let mut has_part = false;
        for (part, subset) in PARTS {
            let Some(path) = find(raw, part)? else { continue };
            has_part = true;
            let studies: BTreeMap<String, json::Entry<Study>> = json::read(&path)?;
            let place = path.strip_prefix(raw).unwrap_or(&path).to_string_lossy().into_owned();
            for (key, entry) in studies {
                match entry {
                    json::Entry::Fit(study) => records(&study, subset, &mut files, &mut plan),
                    json::Entry::Other(_) => plan.rejects.push(Reject {
                        source_path: place.clone(),
                        record_id: None,
                        stage: Stage::Table,
                        error: format!("study {key:?}: another form than PatientID, StudyInstanceUid and ImagePath"),
                    }),
                }
            }
        }
        if !has_part {
            return Err(Error::MissingTable {
                folder: raw.to_path_buf(),
                wanted: "file metadata/*_metadata_view_position.json".to_owned(),
                remedy: "give the directory that contains `metadata/` and `deid_png/`".to_owned(),
            });
        }
        plan.rejects.extend(files.into_values().map(|(path, _)| Reject::unlisted(path)));
        plan.finalize();
        Ok(plan)
    }
}

/// Plans a record for each image of a study.
fn records(study: &Study, subset: &str, files: &mut BTreeMap<String, (String, u64)>, plan: &mut Plan) {
    let sections = [
        ("indication", &study.indication),
        ("comparison", &study.comparison),
        ("findings", &study.findings),
        ("impression", &study.impression),
    ];
    let sections = sections.into_iter();
    let report = report_sections::report(
        sections.filter_map(|(name, text)| Some((name.to_owned(), stated(text.as_deref())?.to_owned()))),
    );
    let date = match &study.date {
        serde_json::Value::String(text) => dates::of_text(text),
        serde_json::Value::Number(number) => dates::of_text(&number.to_string()),
        _ => None,
    };
    for (number, listed) in study.image_path.iter().enumerate() {
        let path = below_images(listed);
        let image_id = stem(path);
        let record_id = format!("rexgradient/{image_id}");
        if !is_inside(path) {
            plan.rejects.push(Reject {
                source_path: listed.clone(),
                record_id: Some(record_id),
                stage: Stage::Table,
                error: format!("the path does not lead below {IMAGES}"),
            });
            continue;
        }
        let (source_path, source_bytes) =
            files.remove(path).map_or_else(|| (format!("{IMAGES}{path}"), None), |(path, bytes)| (path, Some(bytes)));
        plan.records.push(PlannedRecord {
            record_id,
            patient_id: study.patient_id.clone(),
            study_id: study.instance_uid.clone(),
            image_id,
            source_path,
            source_bytes,
            subset: Some(subset.to_owned()),
            view: stated(study.image_view_position.get(number).and_then(Option::as_deref)).map(view),
            sex: study.patient_sex.as_deref().and_then(sex),
            age_years: study.patient_age.as_deref().and_then(years),
            study_datetime: date.clone(),
            language: Some("en".to_owned()),
            report: report.clone(),
            ..PlannedRecord::default()
        });
    }
}

/// The file of a part in the first folder that has it.
fn find(raw: &Path, part: &str) -> Result<Option<PathBuf>> {
    for folder in FOLDERS {
        let path = raw.join(folder).join(format!("{part}_metadata_view_position.json"));
        if is_file(&path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// The part of a path behind the folder of the images.
fn below_images(path: &str) -> &str {
    path.split_once(IMAGES).map_or(path, |(_, below)| below)
}

/// A text that states something.
fn stated(text: Option<&str>) -> Option<&str> {
    let text = text.map(str::trim)?;
    (!text.is_empty() && !NOT_STATED.contains(&text.to_lowercase().as_str())).then_some(text)
}

/// A view in one spelling.
fn view(stated: &str) -> String {
    match stated.to_uppercase().replace(['_', '-'], " ").as_str() {
        "POSTERO ANTERIOR" | "POSTEROANTERIOR" => "PA".to_owned(),
        "ANTERO POSTERIOR" | "ANTEROPOSTERIOR" => "AP".to_owned(),
        "LAT" => "LATERAL".to_owned(),
        other => other.to_owned(),
    }
}
