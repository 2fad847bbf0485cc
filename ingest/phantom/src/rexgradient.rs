//! The layout of ReXGradient-160K: PNG files in deep folders, and for each subset a table and a JSON file of studies with the
//! sections of the report and the paths and views of the images.

use std::path::Path;

use dataset::progress::OnProgress;
use serde_json::{Map, Value, json};

use crate::dicom::uids;
use crate::files::{each_study, png_file};
use crate::patient::{Patient, Study, Subset, View};
use crate::table::Table;
use crate::{Error, Summary, radiograph, report, write_file};

/// Columns of the tables, which have a row for each study.
pub const COLUMNS: [&str; 11] = [
    "id",
    "PatientID",
    "StudyInstanceUid",
    "AccessionNumber",
    "PatientSex",
    "PatientAge",
    "StudyDate",
    "Indication",
    "Comparison",
    "Findings",
    "Impression",
];
const SECTIONS: [&str; 4] = ["indication", "comparison", "findings", "impression"];

/// Writes the whole set. Files that exist are complete and are kept.
pub(crate) fn write(out: &Path, plan: &[Patient], progress: &OnProgress) -> Result<Summary, Error> {
    let studies = each_study(plan, progress, |patient, study| {
        let (patient_id, accession) = (code('P', patient.seed), code('A', study.seed));
        let (mut paths, mut views, mut study_uid) = (Vec::new(), Vec::new(), String::new());
        for (number, image) in study.images.iter().enumerate() {
            let [of_study, series, instance] = uids(image, patient, &accession);
            let path = format!(
                "deid_png/{patient_id}/{accession}/studies/{of_study}/series/{series}/instances/{instance}.png"
            );
            png_file(&out.join(&path), || radiograph::render(patient, study, image))?;
            paths.push(format!("../{path}"));
            views.push(view(study, image.view, number));
            study_uid = of_study;
        }
        let report = report::write(patient, study, &radiograph::anatomy(patient, study));
        // Some of the real sections are the word None.
        let text = |name: &str| report.section(name).map_or_else(|| "None".to_owned(), str::to_owned);
        let [indication, comparison, findings, impression] = SECTIONS.map(text);
        let age = format!("{:03}Y", patient.age_at(study));
        let date = 20_150_101 + u64::from(study.day % 28);
        let entry = json!({
            "PatientID": patient_id, "StudyInstanceUid": study_uid, "AccessionNumber": accession,
            "PatientSex": patient.sex.letter(), "PatientAge": age, "StudyDate": date, "Indication": indication,
            "Comparison": comparison, "Findings": findings, "Impression": impression,
            "ImagePath": paths, "ImageViewPosition": views,
        });
        Ok((patient.subset, format!("{patient_id}_{accession}"), entry))
    })?;
    let images = studies.iter().map(|(_, _, entry)| entry["ImagePath"].as_array().map_or(0, Vec::len)).sum();
    for (subset, name) in [(Subset::Train, "train"), (Subset::Validate, "valid"), (Subset::Test, "test")] {
        let own = || studies.iter().filter(|(of, ..)| *of == subset);
        let folder = out.join("metadata");
        let entries: Map<String, Value> = own().map(|(_, id, entry)| (id.clone(), entry.clone())).collect();
        let text = serde_json::to_string(&entries).expect("plain data");
        write_file(&folder.join(format!("{name}_metadata_view_position.json")), text.as_bytes())?;
        let mut table = Table::new(&folder.join(format!("{name}_metadata.csv")), &COLUMNS)?;
        for (_, id, entry) in own() {
            let cell = |column: &&str| match &entry[*column] {
                Value::String(text) => text.clone(),
                Value::Null => id.clone(),
                other => other.to_string(),
            };
            let row: Vec<String> = COLUMNS.iter().map(cell).collect();
            table.row(&row.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        table.finish()?;
    }
    Ok(Summary { patients: plan.len(), studies: studies.len(), images })
}

/// An identifier of sixteen characters that begins with GRDN.
fn code(kind: char, seed: u64) -> String {
    format!("GRDN{kind}{:011X}", seed & 0xfff_ffff_ffff)
}

/// A view in one of the spellings of the set.
fn view(study: &Study, view: View, number: usize) -> Value {
    match (view, (study.index + number) % 5) {
        (_, 4) => Value::Null,
        (View::Pa, 0) => "POSTERO_ANTERIOR".into(),
        (View::Lateral, 1) => "LL".into(),
        (View::Ap, 2) => "UNKNOWN".into(),
        (view, _) => view.name().into(),
    }
}
