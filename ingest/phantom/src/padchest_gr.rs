//! The layout of PadChest-GR: PNG files, sentences with boxes as shares of the image in JSON, and a table of the sentences with
//! patients and subsets.

use std::path::Path;

use dataset::progress::OnProgress;
use serde_json::{Value, json};

use crate::files::{each_study, png16_file};
use crate::padchest::{YEAR, patient_id, study_id};
use crate::patient::{Image, Patient, Study, Subset};
use crate::spanish::sentence;
use crate::table::Table;
use crate::{Error, Summary, radiograph, region, write_file};

/// Columns of `master_table.csv`.
pub const COLUMNS: [&str; 23] = [
    "StudyID",
    "ImageID",
    "label",
    "boxes_count",
    "extra_boxes_count",
    "locations",
    "prior_study",
    "progression_status",
    "prior_imageID",
    "sentence_en",
    "sentence_es",
    "study_is_benchmark",
    "study_is_validation",
    "split",
    "PatientID",
    "patient_is_benchmark",
    "PatientBirth",
    "PatientSex_DICOM",
    "StudyDate_DICOM",
    "StudyDate",
    "PatientAge",
    "label_group",
    "Year",
];

/// Writes the whole set. Files that exist are complete and are kept.
pub(crate) fn write(out: &Path, plan: &[Patient], progress: &OnProgress) -> Result<Summary, Error> {
    let studies = each_study(plan, progress, |patient, study| {
        let image = &study.images[0];
        let image_id = format!("{}_{:06x}.png", study_id(study), image.id[4] & 0xff_ffff);
        let path = out.join("Padchest_GR_files").join("PadChest_GR").join(&image_id);
        png16_file(&path, || radiograph::render(patient, study, image))?;
        let (findings, rows) = findings(patient, study, image, &image_id);
        let study = json!({
            "StudyID": study_id(study), "ImageID": image_id, "PreviousStudyID": null, "PreviousImageID": null,
            "findings": findings,
        });
        Ok((study, rows))
    })?;
    let all: Vec<&Value> = studies.iter().map(|(study, _)| study).collect();
    let text = serde_json::to_string_pretty(&all).expect("plain data");
    write_file(&out.join("grounded_reports_20240819.json"), text.as_bytes())?;
    let mut table = Table::new(&out.join("master_table.csv"), &COLUMNS)?;
    for row in studies.iter().flat_map(|(_, rows)| rows) {
        table.row(&row.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    table.finish()?;
    Ok(Summary { patients: plan.len(), studies: studies.len(), images: studies.len() })
}

/// The sentences of a study, and their rows of the table.
fn findings(patient: &Patient, study: &Study, image: &Image, image_id: &str) -> (Vec<Value>, Vec<Vec<String>>) {
    let (width, height) = (image.columns as f32, image.rows as f32);
    let row = |label: &str, english: &str, spanish: &str, boxes: usize| {
        let cell = |column: &&str| match *column {
            "StudyID" => study_id(study),
            "ImageID" => image_id.to_owned(),
            "label" | "label_group" => label.to_owned(),
            "boxes_count" => boxes.to_string(),
            "extra_boxes_count" => "0".to_owned(),
            "locations" => "[]".to_owned(),
            "sentence_en" => english.to_owned(),
            "sentence_es" => spanish.to_owned(),
            "study_is_benchmark" | "study_is_validation" | "patient_is_benchmark" => "False".to_owned(),
            "split" => match patient.subset {
                Subset::Train => "train",
                Subset::Validate => "validation",
                Subset::Test => "test",
            }
            .to_owned(),
            "PatientID" => patient_id(patient),
            "PatientBirth" => (YEAR - patient.age as u32).to_string(),
            "PatientSex_DICOM" => patient.sex.letter().to_owned(),
            "StudyDate_DICOM" => format!("{}0315", YEAR + study.day / 365),
            "StudyDate" => format!("{}-03-15", YEAR + study.day / 365),
            "PatientAge" => patient.age_at(study).to_string(),
            "Year" => (YEAR + study.day / 365).to_string(),
            _ => String::new(),
        };
        COLUMNS.iter().map(cell).collect()
    };
    let (mut sentences, mut rows) = (Vec::new(), Vec::new());
    for finding in &study.findings {
        let Some(said) = sentence(finding) else { continue };
        let drawn = region::boxes(patient, study, image, finding);
        let shares = |(x, y, w, h): region::Box| [x / width, y / height, (x + w) / width, (y + h) / height];
        let boxes: Vec<[f32; 4]> = drawn.iter().copied().map(shares).collect();
        // A second reader drew boxes for a part of the findings.
        let extra: Vec<[f32; 4]> = if finding.seed.is_multiple_of(3) { boxes.clone() } else { Vec::new() };
        rows.push(row(said.label, &said.english, &said.spanish, boxes.len()));
        sentences.push(json!({
            "sentence_en": said.english, "sentence_es": said.spanish, "abnormal": true, "boxes": boxes,
            "extra_boxes": extra, "labels": [said.label], "locations": [], "progression": null,
        }));
    }
    if sentences.is_empty() {
        let (english, spanish) = ("No significant abnormalities.", "Sin hallazgos relevantes.");
        rows.push(row("Normal", english, spanish, 0));
        // The real sentences without a finding lack the other keys.
        sentences.push(json!({"sentence_en": english, "sentence_es": spanish, "abnormal": false}));
    }
    (sentences, rows)
}
