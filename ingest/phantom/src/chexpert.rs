//! The layout of CheXpert-v1.0-small: JPEG files under `train/` and `valid/`, and a table for each.

use std::path::Path;

use dataset::format::image_codec::GrayPixels;
use dataset::format::record::ImageEncoding;
use dataset::progress::{OnProgress, Progress};
use rayon::prelude::*;

use crate::disease::Kind;
use crate::patient::{Image, Patient, Sex, Study, Subset, View};
use crate::report::{self, Report};
use crate::table::{Table, label};
use crate::{Error, Summary, radiograph, write_file};

/// The folder of the release; the paths in the tables begin with it.
const ROOT: &str = "CheXpert-v1.0-small";

/// Columns of `train.csv` and `valid.csv`.
pub const COLUMNS: [&str; 19] = [
    "Path",
    "Sex",
    "Age",
    "Frontal/Lateral",
    "AP/PA",
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
];

/// Writes the whole set. Files that exist are complete and are kept.
pub(crate) fn write(out: &Path, plan: &[Patient], progress: &OnProgress) -> Result<Summary, Error> {
    let studies: Vec<Entry> = plan.iter().flat_map(Entry::all).collect();
    let reports = studies
        .par_iter()
        .map(|entry| {
            entry.write(out)?;
            progress(Progress::Advanced(1))?;
            Ok(report::write(entry.patient, entry.study, &radiograph::anatomy(entry.patient, entry.study)))
        })
        .collect::<Result<Vec<Report>, Error>>()?;
    for part in ["train", "valid"] {
        let mut table = Table::new(&out.join(ROOT).join(format!("{part}.csv")), &COLUMNS)?;
        for (entry, report) in studies.iter().zip(&reports).filter(|(entry, _)| entry.part() == part) {
            entry.rows(&mut table, report)?;
        }
        table.finish()?;
    }
    let images = studies.iter().map(|entry| entry.study.images.len()).sum();
    Ok(Summary { patients: plan.len(), studies: studies.len(), images })
}

/// A study with its number in its patient.
struct Entry<'a> {
    patient: &'a Patient,
    study: &'a Study,
    number: usize,
}

impl<'a> Entry<'a> {
    fn all(patient: &'a Patient) -> impl Iterator<Item = Self> {
        patient.studies.iter().enumerate().map(move |(i, study)| Self { patient, study, number: i + 1 })
    }

    /// The part of the data set: validation patients are in `valid`, all others in `train`.
    fn part(&self) -> &'static str {
        if self.patient.subset == Subset::Validate { "valid" } else { "train" }
    }

    /// Paths below OUT, beside the images.
    fn images(&self) -> impl Iterator<Item = (String, &Image)> {
        let folder = format!("{ROOT}/{}/patient{:05}/study{}", self.part(), self.patient.index + 1, self.number);
        self.study.images.iter().enumerate().map(move |(i, image)| {
            let side = if image.view == View::Lateral { "lateral" } else { "frontal" };
            (format!("{folder}/view{}_{side}.jpg", i + 1), image)
        })
    }

    fn write(&self, out: &Path) -> Result<(), Error> {
        for (name, image) in self.images() {
            let path = out.join(name);
            if !path.is_file() {
                let gray: GrayPixels = radiograph::render(self.patient, self.study, image).gray();
                let bytes = gray.encode(ImageEncoding::Jpeg);
                let bytes = bytes.map_err(|source| Error::Image { path: path.clone(), source })?;
                write_file(&path, &bytes)?;
            }
        }
        Ok(())
    }

    /// The rows of the table. The labels are those of the report in `train`, and those of the image in `valid`, as in the real
    /// set.
    fn rows(&self, table: &mut Table, report: &Report) -> Result<(), Error> {
        let seen = |kind: Kind| self.study.findings.iter().any(|finding| finding.kind == kind);
        let labels: Vec<&str> = COLUMNS[5..]
            .iter()
            .map(|&column| {
                if self.part() == "train" {
                    return label(report, column);
                }
                let kind = Kind::ALL.into_iter().find(|kind| kind.name() == column);
                let none = || Kind::ALL.into_iter().all(|kind| kind == Kind::SupportDevices || !seen(kind));
                if kind.map_or_else(none, seen) { "1.0" } else { "0.0" }
            })
            .collect();
        let sex = if self.patient.sex == Sex::Female { "Female" } else { "Male" };
        let age = self.patient.age_at(self.study).to_string();
        for (path, image) in self.images() {
            let (side, projection) = match image.view {
                View::Lateral => ("Lateral", ""),
                view => ("Frontal", view.name()),
            };
            let mut row = vec![path.as_str(), sex, &age, side, projection];
            row.extend(&labels);
            table.row(&row)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patient;

    #[test]
    fn paths_are_unique_and_as_released() {
        let plan = patient::plan(300, 0, 64);
        let names: Vec<String> = plan
            .iter()
            .flat_map(Entry::all)
            .flat_map(|e| e.images().map(|(name, _)| name).collect::<Vec<_>>())
            .collect();
        assert_eq!(names[0], "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg");
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
        assert!(names.iter().any(|name| name.ends_with("view2_lateral.jpg")));
        assert!(names.iter().any(|name| name.starts_with("CheXpert-v1.0-small/valid/")));
    }
}
