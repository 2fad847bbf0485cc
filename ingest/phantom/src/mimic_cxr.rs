//! The layout of MIMIC-CXR 2.0.0: DICOM files under `files/pXX/pSUBJECT/sSTUDY/`, the report beside the study's folder,
//! and the three gzipped tables.

use std::path::{Path, PathBuf};

use dataset::progress::{OnProgress, Progress};
use rayon::prelude::*;

use crate::dicom::{self, Header};
use crate::patient::{Image, Patient, Study, View};
use crate::report::{self, Report};
use crate::table::{Table, label};
use crate::{Error, Summary, radiograph, write_file};

/// Columns of `mimic-cxr-2.0.0-metadata.csv.gz`.
pub const METADATA_COLUMNS: [&str; 12] = [
    "dicom_id",
    "subject_id",
    "study_id",
    "PerformedProcedureStepDescription",
    "ViewPosition",
    "Rows",
    "Columns",
    "StudyDate",
    "StudyTime",
    "ProcedureCodeSequence_CodeMeaning",
    "ViewCodeSequence_CodeMeaning",
    "PatientOrientationCodeSequence_CodeMeaning",
];

/// Columns of `mimic-cxr-2.0.0-split.csv.gz`.
pub const SPLIT_COLUMNS: [&str; 4] = ["dicom_id", "study_id", "subject_id", "split"];

/// Columns of `mimic-cxr-2.0.0-chexpert.csv.gz`.
pub const CHEXPERT_COLUMNS: [&str; 16] = [
    "subject_id",
    "study_id",
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
];

/// Writes the whole set. Files that exist are complete and are kept.
pub(crate) fn write(out: &Path, plan: &[Patient], progress: &OnProgress) -> Result<Summary, Error> {
    let mut studies: Vec<Entry> = plan.iter().flat_map(|p| p.studies.iter().map(move |s| Entry::new(p, s))).collect();
    studies.sort_by_key(|entry| (entry.subject, entry.id));
    let reports = studies
        .par_iter()
        .map(|entry| {
            let report = entry.write(out)?;
            progress(Progress::Advanced(1))?;
            Ok(report)
        })
        .collect::<Result<Vec<Report>, Error>>()?;
    tables(out, &studies, &reports)?;
    let images = studies.iter().map(|entry| entry.study.images.len()).sum();
    Ok(Summary { patients: plan.len(), studies: studies.len(), images })
}

/// A study with its identifiers.
struct Entry<'a> {
    patient: &'a Patient,
    study: &'a Study,
    subject: u64,
    id: u64,
}

impl<'a> Entry<'a> {
    fn new(patient: &'a Patient, study: &'a Study) -> Self {
        // The step and the modulus are coprime, so the numbers are distinct and spread over p10 to p19.
        let subject = 10_000_032 + patient.index as u64 * 6_170_177 % 9_999_901;
        let id = 50_000_000 + (414_267 + study.index as u64 * 7_368_787) % 9_999_991;
        Self { patient, study, subject, id }
    }

    fn folder(&self) -> PathBuf {
        let subject = self.subject.to_string();
        ["files".to_owned(), format!("p{}", &subject[..2]), format!("p{subject}")].iter().collect()
    }

    fn images(&self) -> impl Iterator<Item = (usize, &Image, String)> {
        self.study.images.iter().enumerate().map(|(i, image)| {
            let groups: Vec<String> = image.id.iter().map(|part| format!("{part:08x}")).collect();
            (i, image, groups.join("-"))
        })
    }

    fn write(&self, out: &Path) -> Result<Report, Error> {
        let folder = out.join(self.folder());
        for (i, image, name) in self.images() {
            let path = folder.join(format!("s{}", self.id)).join(format!("{name}.dcm"));
            if path.is_file() {
                continue;
            }
            let header = Header {
                patient_id: self.subject.to_string(),
                study_id: self.id.to_string(),
                date: self.date(),
                time: self.time(),
                procedure: self.procedure().to_owned(),
                number: i + 1,
            };
            let radiograph = radiograph::render(self.patient, self.study, image);
            let bytes = dicom::encode(radiograph, image, self.patient, &header)
                .map_err(|source| Error::Dicom { path: path.clone(), source })?;
            write_file(&path, &bytes)?;
        }
        let report = report::write(self.patient, self.study, &radiograph::anatomy(self.patient, self.study));
        let path = folder.join(format!("s{}.txt", self.id));
        if !path.is_file() {
            write_file(&path, report.text.as_bytes())?;
        }
        Ok(report)
    }

    /// A day between 2110 and 2190, as MIMIC shifts its dates.
    fn date(&self) -> String {
        let first = 51_135 + self.patient.seed % 29_000;
        date(first + u64::from(self.study.day))
    }

    fn time(&self) -> String {
        let second = self.study.second;
        format!("{:02}{:02}{:02}.{:03}", second / 3600, second / 60 % 60, second % 60, self.study.wording % 1000)
    }

    fn procedure(&self) -> &'static str {
        match (self.study.portable(), self.study.has_lateral()) {
            (true, _) => "CHEST (PORTABLE AP)",
            (_, true) => "CHEST (PA AND LAT)",
            _ => "CHEST (SINGLE VIEW)",
        }
    }
}

fn tables(out: &Path, studies: &[Entry], reports: &[Report]) -> Result<(), Error> {
    let table = |name: &str, header| Table::new(&out.join(format!("mimic-cxr-2.0.0-{name}.csv.gz")), header);
    let mut metadata = table("metadata", &METADATA_COLUMNS)?;
    let mut split = table("split", &SPLIT_COLUMNS)?;
    let mut chexpert = table("chexpert", &CHEXPERT_COLUMNS)?;
    for (entry, report) in studies.iter().zip(reports) {
        let (subject, id) = (entry.subject.to_string(), entry.id.to_string());
        for (_, image, name) in entry.images() {
            let (rows, columns) = (image.rows.to_string(), image.columns.to_string());
            let (view, orientation) = match image.view {
                View::Pa => ("postero-anterior", "Erect"),
                View::Ap => ("antero-posterior", "Recumbent"),
                View::Lateral => ("lateral", "Erect"),
            };
            let (procedure, date, time) = (entry.procedure(), entry.date(), entry.time());
            metadata.row(&[
                &name,
                &subject,
                &id,
                procedure,
                image.view.name(),
                &rows,
                &columns,
                &date,
                &time,
                procedure,
                view,
                orientation,
            ])?;
            split.row(&[&name, &id, &subject, entry.patient.subset.name()])?;
        }
        let mut row = vec![subject.as_str(), id.as_str()];
        row.extend(CHEXPERT_COLUMNS[2..].iter().map(|&column| label(report, column)));
        chexpert.row(&row)?;
    }
    metadata.finish()?;
    split.finish()?;
    chexpert.finish()
}

/// YYYYMMDD of a day after 1 January 1970 (Hinnant's `civil_from_days`, for days after 1 March 2000).
fn date(day: u64) -> String {
    let shifted = day + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let part = (5 * of_year + 2) / 153;
    let month = if part < 10 { part + 3 } else { part - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}{month:02}{:02}", of_year - (153 * part + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::patient;

    #[test]
    fn dates_are_civil() {
        assert_eq!((date(0), date(19_782), date(51_135)), ("19700101".into(), "20240229".into(), "21100102".into()));
    }

    #[test]
    fn identifiers_are_unique() {
        let plan = patient::plan(3000, 0, 64);
        let entries: Vec<Entry> = plan.iter().flat_map(|p| p.studies.iter().map(move |s| Entry::new(p, s))).collect();
        assert_eq!(entries.iter().map(|e| e.id).collect::<BTreeSet<_>>().len(), entries.len());
        assert_eq!(entries.iter().map(|e| e.subject).collect::<BTreeSet<_>>().len(), plan.len());
        assert_eq!(entries[0].folder(), Path::new("files/p10/p10000032"));
        assert!(entries.iter().all(|e| (10_000_000..20_000_000).contains(&e.subject)));
    }
}
