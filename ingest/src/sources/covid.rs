//! COVID-19 Image Data Collection: `metadata.csv` and `images/`. The clinical notes are the reports. Findings are hierarchical
//! (`Pneumonia/Viral/COVID-19`); each level is a label.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crate::dicom::header::years;
use crate::error::{Error, Result};
use crate::reject::{Reject, Stage};
use crate::run::plan::{Plan, PlannedRecord, ReportSource, Source};
use crate::sources::shared::label_origins::PUBLICATION;
use crate::sources::shared::table::{Table, find_table, texts, texts_or_null};
use crate::sources::shared::walk::{Walk, is_inside};

/// The finding of an image that is not labeled yet.
const UNLABELED: &str = "todo";
/// The finding of a normal image.
const NO_FINDING: &str = "No Finding";
const REQUIRED: [&str; 5] = ["patientid", "finding", "view", "modality", "filename"];

/// The source `covid`.
#[derive(Clone, Debug, Default)]
pub struct Covid {
    /// Ingest the table without images.
    pub no_images: bool,
}

impl Source for Covid {
    fn name(&self) -> &'static str {
        "covid"
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let path = find_table(raw, "metadata")?.ok_or_else(|| Error::MissingTable {
            folder: raw.to_path_buf(),
            wanted: "metadata.csv[.gz]".to_owned(),
            remedy: "give the directory of the COVID-19 Image Data Collection".to_owned(),
        })?;
        let mut read = Table::read(raw, &path, &REQUIRED)?;
        let mut rejects = std::mem::take(&mut read.rejects);
        let table = &read.frame;
        let (patient, offset, finding) =
            (texts(table, "patientid")?, texts_or_null(table, "offset"), texts(table, "finding")?);
        let (view, modality, file) = (texts(table, "view")?, texts(table, "modality")?, texts(table, "filename")?);
        let (sex, age) = (texts_or_null(table, "sex"), texts_or_null(table, "age"));
        let (folder, notes) = (texts_or_null(table, "folder"), texts_or_null(table, "clinical_notes"));

        let levels: BTreeSet<&str> =
            finding.iter().flatten().filter(|name| **name != UNLABELED).flat_map(|name| prefixes(name)).collect();
        let findings: Vec<String> = levels.iter().map(|level| (*level).to_owned()).collect();
        let mut files = BTreeMap::new();
        if !self.no_images {
            let images = Walk::of(raw, &raw.join("images"), &["jpg", "jpeg", "png"])?;
            rejects.extend(images.rejects);
            files = images.files;
        }

        let mut records = Vec::new();
        for row in 0..table.height() {
            let (Some(patient), Some(file)) = (patient[row], file[row]) else {
                rejects.push(read.reject(row, "patientid or filename is empty"));
                continue;
            };
            let source_path = format!("{}/{file}", folder[row].unwrap_or("images"));
            if !is_inside(&source_path) {
                rejects.push(read.reject(row, "folder and filename lead out of the raw directory"));
                continue;
            }
            let source_bytes = files.remove(&source_path);
            let record_id = format!("covid/{file}");
            if modality[row] != Some("X-ray") {
                rejects.push(Reject {
                    source_path,
                    record_id: Some(record_id),
                    stage: Stage::Table,
                    error: format!("modality {}, not a radiograph", modality[row].unwrap_or("not stated")),
                });
                continue;
            }
            records.push(PlannedRecord {
                record_id,
                patient_id: patient.to_owned(),
                // `offset` counts the days since the first symptoms; it distinguishes the studies of a patient.
                study_id: format!("{patient}/{}", offset[row].unwrap_or("unknown")),
                study_order: offset[row].and_then(|days| days.parse().ok()),
                image_id: file.to_owned(),
                source_path,
                source_bytes,
                view: view[row].map(|view| if view == "L" { "LATERAL".to_owned() } else { view.to_owned() }),
                sex: sex[row].map(str::to_owned),
                age_years: age[row].and_then(years),
                labels: codes(finding[row], &findings),
                label_origin: finding[row].filter(|name| *name != UNLABELED).map(|_| PUBLICATION.to_owned()),
                language: Some("en".to_owned()),
                report: notes[row].map_or(ReportSource::None, |text| ReportSource::Text(Arc::from(text))),
                ..PlannedRecord::default()
            });
        }
        rejects.extend(files.into_keys().map(Reject::unlisted));
        let mut plan = Plan { records, rejects, findings, ..Plan::default() };
        plan.finalize();
        Ok(plan)
    }
}

/// `A/B/C` → `A`, `A/B`, `A/B/C`.
fn prefixes(finding: &str) -> Vec<&str> {
    finding.match_indices('/').map(|(end, _)| &finding[..end]).chain([finding]).collect()
}

/// Label codes: 1 for the finding and the levels above it, null for the levels below it (`Pneumonia` does not say which kind),
/// 0 for the rest. An unlabeled image has null for all.
fn codes(finding: Option<&str>, findings: &[String]) -> Vec<Option<i8>> {
    let Some(own) = finding.filter(|name| *name != UNLABELED) else {
        return vec![None; findings.len()];
    };
    let above = prefixes(own);
    findings
        .iter()
        .map(|level| {
            if above.contains(&level.as_str()) {
                Some(1)
            } else if own != NO_FINDING && level.strip_prefix(own).is_some_and(|rest| rest.starts_with('/')) {
                None
            } else {
                Some(0)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_becomes_labels() {
        let findings: Vec<String> =
            ["No Finding", "Pneumonia", "Pneumonia/Viral", "Pneumonia/Viral/COVID-19"].map(str::to_owned).into();
        assert_eq!(codes(Some("Pneumonia/Viral/COVID-19"), &findings), [Some(0), Some(1), Some(1), Some(1)]);
        assert_eq!(codes(Some("Pneumonia"), &findings), [Some(0), Some(1), None, None]);
        assert_eq!(codes(Some("No Finding"), &findings), [Some(1), Some(0), Some(0), Some(0)]);
        assert_eq!(codes(Some("todo"), &findings), [None; 4]);
    }
}
