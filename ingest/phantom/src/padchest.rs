//! The layout of PadChest: 16-bit PNG files in numbered folders, and a table with stemmed Spanish reports and labels as list
//! literals.

use std::path::Path;

use dataset::progress::OnProgress;

use crate::files::{each_study, png16_file};
use crate::patient::{Image, Patient, Study, View};
use crate::spanish::{Sentence, sentence};
use crate::table::Table;
use crate::{Error, Summary, radiograph};

/// Columns of the table; the first one has no name.
pub const COLUMNS: [&str; 36] = [
    "",
    "ImageID",
    "ImageDir",
    "StudyDate_DICOM",
    "StudyID",
    "PatientID",
    "PatientBirth",
    "PatientSex_DICOM",
    "ViewPosition_DICOM",
    "Projection",
    "MethodProjection",
    "Pediatric",
    "Modality_DICOM",
    "Manufacturer_DICOM",
    "PhotometricInterpretation_DICOM",
    "PixelRepresentation_DICOM",
    "PixelAspectRatio_DICOM",
    "SpatialResolution_DICOM",
    "BitsStored_DICOM",
    "WindowCenter_DICOM",
    "WindowWidth_DICOM",
    "Rows_DICOM",
    "Columns_DICOM",
    "XRayTubeCurrent_DICOM",
    "Exposure_DICOM",
    "ExposureInuAs_DICOM",
    "ExposureTime",
    "RelativeXRayExposure_DICOM",
    "ReportID",
    "Report",
    "MethodLabel",
    "Labels",
    "Localizations",
    "LabelsLocalizationsBySentence",
    "labelCUIS",
    "LocalizationsCUIS",
];
/// The table's name.
const TABLE: &str = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz";
/// Studies in a folder of images; the real ones hold thousands of images.
const IN_FOLDER: usize = 20;
/// One report in so many has the labels of a physician, as a quarter of the real ones.
const BY_PHYSICIAN: u64 = 4;

/// Writes the whole set. Files that exist are complete and are kept.
pub(crate) fn write(out: &Path, plan: &[Patient], progress: &OnProgress) -> Result<Summary, Error> {
    let rows = each_study(plan, progress, |patient, study| {
        study
            .images
            .iter()
            .map(|image| {
                let row = row(patient, study, image);
                let path = out.join(&row[2]).join(&row[1]);
                png16_file(&path, || radiograph::render(patient, study, image))?;
                Ok(row)
            })
            .collect::<Result<Vec<_>, _>>()
    })?;
    let mut table = Table::new(&out.join(TABLE), &COLUMNS)?;
    let images = rows.iter().map(Vec::len).sum();
    for (number, row) in rows.iter().flatten().enumerate() {
        let number = number.to_string();
        let fields = row.iter().map(String::as_str).enumerate();
        table.row(&fields.map(|(at, field)| if at == 0 { &number } else { field }).collect::<Vec<_>>())?;
    }
    table.finish()?;
    Ok(Summary { patients: plan.len(), studies: rows.len(), images })
}

/// The cells of an image; the first one is the number of the row.
fn row(patient: &Patient, study: &Study, image: &Image) -> Vec<String> {
    let (study_id, patient_id) = (study_id(study), patient_id(patient));
    let sentences: Vec<Sentence> = study.findings.iter().filter_map(sentence).collect();
    // Some of the real labels begin with a blank.
    let blank = if study.wording.is_multiple_of(3) { " " } else { "" };
    let labels: Vec<String> = sentences.iter().map(|sentence| format!("'{blank}{}'", sentence.label)).collect();
    let report: Vec<&str> = sentences.iter().map(|sentence| sentence.stemmed.as_str()).collect();
    let (labels, report) = match labels.as_slice() {
        [] => ("'normal'".to_owned(), "sin hallazg relev .".to_owned()),
        _ => (labels.join(", "), report.join(" ")),
    };
    let is_manual = study.wording.is_multiple_of(BY_PHYSICIAN);
    let year = YEAR + study.day / 365;
    let cell = |column: &&str| match *column {
        "ImageID" => format!("{study_id}_{:06x}.png", image.id[4] & 0xff_ffff),
        "ImageDir" => (study.index / IN_FOLDER).to_string(),
        "StudyDate_DICOM" => format!("{year}{:02}{:02}", study.day / 30 % 12 + 1, study.day % 28 + 1),
        "StudyID" => study_id.clone(),
        "PatientID" => patient_id.clone(),
        "PatientBirth" => format!("{}.0", YEAR - patient.age as u32),
        "PatientSex_DICOM" => patient.sex.letter().to_owned(),
        "ViewPosition_DICOM" => match image.view {
            View::Pa => "POSTEROANTERIOR".to_owned(),
            View::Ap => "ANTEROPOSTERIOR".to_owned(),
            View::Lateral => "LATERAL".to_owned(),
        },
        "Projection" => projection(study, image).to_owned(),
        "MethodProjection" => "Manual review of DICOM fields".to_owned(),
        "Pediatric" => "No".to_owned(),
        "Modality_DICOM" => "CR".to_owned(),
        "Manufacturer_DICOM" => "Phantom".to_owned(),
        "PhotometricInterpretation_DICOM" => "MONOCHROME2".to_owned(),
        "PixelRepresentation_DICOM" => "0".to_owned(),
        "SpatialResolution_DICOM" => "0.143".to_owned(),
        "BitsStored_DICOM" => "12".to_owned(),
        "WindowCenter_DICOM" => "2047.0".to_owned(),
        "WindowWidth_DICOM" => "4095.0".to_owned(),
        "Rows_DICOM" => image.rows.to_string(),
        "Columns_DICOM" => image.columns.to_string(),
        "ReportID" => (4_000_000 + study.index).to_string(),
        "Report" => report.clone(),
        "MethodLabel" => if is_manual { "Physician" } else { "RNN_model" }.to_owned(),
        "Labels" => format!("[{labels}]"),
        "Localizations" | "labelCUIS" | "LocalizationsCUIS" => "[]".to_owned(),
        "LabelsLocalizationsBySentence" => format!("[[{labels}]]"),
        _ => String::new(),
    };
    COLUMNS.iter().map(cell).collect()
}

/// The year of the first studies.
pub const YEAR: u32 = 2012;

/// The view as the table spells it.
fn projection(study: &Study, image: &Image) -> &'static str {
    match image.view {
        View::Pa => "PA",
        View::Lateral => "L",
        View::Ap if study.second.is_multiple_of(2) => "AP_horizontal",
        View::Ap => "AP",
    }
}

/// A long number, as both sets name studies.
pub fn study_id(study: &Study) -> String {
    format!("{:020}{:020}", study.seed, study.wording)
}

/// A long number, as both sets name patients.
pub fn patient_id(patient: &Patient) -> String {
    format!("{:020}{:010}", patient.seed, patient.index)
}
