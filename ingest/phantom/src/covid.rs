//! The layout of the COVID-19 Image Data Collection: JPEG files in `images/`, and a table with hierarchical findings and
//! clinical notes.

use std::path::Path;

use dataset::format::record::ImageEncoding;
use dataset::progress::{OnProgress, Progress};
use rayon::prelude::*;

use crate::disease::{Kind, Zone};
use crate::files::gray_file;
use crate::patient::{Image, Patient, Sex, Study, View};
use crate::report::{self, Report};
use crate::table::Table;
use crate::{Error, Summary, radiograph};

/// Columns of `metadata.csv`; the last one has no name.
pub const COLUMNS: [&str; 30] = [
    "patientid",
    "offset",
    "sex",
    "age",
    "finding",
    "RT_PCR_positive",
    "survival",
    "intubated",
    "intubation_present",
    "went_icu",
    "in_icu",
    "needed_supplemental_O2",
    "extubated",
    "temperature",
    "pO2_saturation",
    "leukocyte_count",
    "neutrophil_count",
    "lymphocyte_count",
    "view",
    "modality",
    "date",
    "location",
    "folder",
    "filename",
    "doi",
    "url",
    "license",
    "clinical_notes",
    "other_notes",
    "",
];

/// One study in so many has no note.
const WITHOUT_NOTE: u64 = 11;

/// Writes the whole set. Files that exist are complete and are kept.
pub(crate) fn write(out: &Path, plan: &[Patient], progress: &OnProgress) -> Result<Summary, Error> {
    let studies: Vec<(&Patient, &Study)> =
        plan.iter().flat_map(|patient| patient.studies.iter().map(move |study| (patient, study))).collect();
    let reports = studies
        .par_iter()
        .map(|(patient, study)| {
            for image in &study.images {
                let path = out.join("images").join(file_name(image));
                gray_file(&path, ImageEncoding::Jpeg, || radiograph::render(patient, study, image).gray())?;
            }
            progress(Progress::Advanced(1))?;
            Ok(report::write(patient, study, &radiograph::anatomy(patient, study)))
        })
        .collect::<Result<Vec<Report>, Error>>()?;
    let mut table = Table::new(&out.join("metadata.csv"), &COLUMNS)?;
    for ((patient, study), report) in studies.iter().zip(&reports) {
        rows(&mut table, patient, study, report)?;
    }
    table.finish()?;
    let images = studies.iter().map(|(_, study)| study.images.len()).sum();
    Ok(Summary { patients: plan.len(), studies: studies.len(), images })
}

fn rows(table: &mut Table, patient: &Patient, study: &Study, report: &Report) -> Result<(), Error> {
    let (id, offset, age) = ((patient.index + 1).to_string(), study.day.to_string(), patient.age_at(study).to_string());
    let (finding, note) = (finding(study, report), note(patient, study, report));
    for image in &study.images {
        let view = match image.view {
            View::Lateral => "L",
            View::Ap if study.second.is_multiple_of(3) => "AP Supine",
            view => view.name(),
        };
        let name = file_name(image);
        let cell = |column: &&str| match *column {
            "patientid" => id.as_str(),
            "offset" => &offset,
            "sex" => patient.sex.letter(),
            "age" => &age,
            "finding" => finding,
            "RT_PCR_positive" if finding.ends_with("COVID-19") => "Y",
            "view" => view,
            "modality" => "X-ray",
            "folder" => "images",
            "filename" => &name,
            "clinical_notes" => &note,
            _ => "",
        };
        table.row(&COLUMNS.iter().map(cell).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// A file name in the form of the collection's sources.
fn file_name(image: &Image) -> String {
    let [a, b, c, d, _] = image.id;
    format!("{a:08X}-{:04X}-{:04X}-{:04X}-{:04X}{d:08X}.jpg", b >> 16, b & 0xffff, c >> 16, c & 0xffff)
}

/// The finding in the collection's hierarchy. The position of the pneumonia decides the pathogen, so that it can be learned
/// from the image; findings other than pneumonia are `todo`.
fn finding(study: &Study, report: &Report) -> &'static str {
    let reported = |kind| study.findings.iter().find(|f| f.kind == kind && report.label(kind) == Some(1));
    match (reported(Kind::Pneumonia), reported(Kind::Consolidation)) {
        (Some(pneumonia), _) => match pneumonia.zone {
            Zone::Apex | Zone::Upper => "Pneumonia/Bacterial/Streptococcus",
            Zone::Middle => "Pneumonia/Viral/SARS",
            Zone::Lower | Zone::Base => "Pneumonia/Viral/COVID-19",
        },
        (None, Some(_)) => "Pneumonia",
        (None, None) if report.no_finding() => "No Finding",
        (None, None) => "todo",
    }
}

/// A clinical note: patient, day, and the conclusion of the report.
fn note(patient: &Patient, study: &Study, report: &Report) -> String {
    if study.wording.is_multiple_of(WITHOUT_NOTE) {
        return String::new();
    }
    let who = if patient.sex == Sex::Female { "woman" } else { "man" };
    let conclusion = report.section("impression").or_else(|| report.section("findings")).unwrap_or_default();
    let conclusion = conclusion.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{}-year-old {who}, day {} after admission. {conclusion}", patient.age_at(study), study.day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patient;

    #[test]
    fn findings_cover_the_hierarchy_and_notes_are_one_line() {
        let mut seen = std::collections::BTreeSet::new();
        let mut names = std::collections::BTreeSet::new();
        for patient in patient::plan(400, 0, 64) {
            for study in &patient.studies {
                let report = report::write(&patient, study, &radiograph::anatomy(&patient, study));
                seen.insert(finding(study, &report));
                assert!(!note(&patient, study, &report).contains('\n'));
                assert!(study.images.iter().all(|image| names.insert(file_name(image))), "names are unique");
            }
        }
        assert_eq!(seen.len(), 6, "{seen:?}");
    }
}
