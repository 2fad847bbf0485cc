//! CANDID-PTX: `Pneumothorax_reports.csv` with reports and run lengths, `chest_tube.csv` and `acute_rib_fracture.csv` with run
//! lengths, and DICOM files that are named by their SOPInstanceUID, without an extension, in `dataset/` or another folder.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::image::mask::Runs;
use crate::reject::{Reject, Stage};
use crate::run::plan::{MaskSource, Plan, PlannedMask, PlannedRecord, ReportSource, Source};
use crate::sources::shared::files_by_name::{files_by, name};
use crate::sources::shared::label_origins::RADIOLOGIST;
use crate::sources::shared::run_lengths::masks;
use crate::sources::shared::table::{Table, find_table, texts, texts_or_null};
use crate::sources::shared::walk::{Walk, extension, is_name};

const REPORTS: &str = "Pneumothorax_reports";
/// The finding, its mask, and the table that lists its masks: images without a row have none.
const FURTHER: [(&str, &str, &str); 2] =
    [("Chest Tube", "chest_tube", "chest_tube"), ("Acute Rib Fracture", "acute_rib_fracture", "acute_rib_fracture")];
/// Extensions of files that are no images.
const OTHERS: [&str; 9] = ["csv", "gz", "txt", "md", "pdf", "docx", "xlsx", "zip", "json"];
/// Extensions that images may have been given.
const IMAGES: [&str; 4] = [".dcm", ".png", ".jpg", ".jpeg"];

/// The source `candid-ptx`.
#[derive(Clone, Debug, Default)]
pub struct CandidPtx {
    /// Ingest the tables without images.
    pub no_images: bool,
}

impl Source for CandidPtx {
    fn name(&self) -> &'static str {
        "candid-ptx"
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let path = find_table(raw, REPORTS)?.ok_or_else(|| Error::MissingTable {
            folder: raw.to_path_buf(),
            wanted: format!("{REPORTS}.csv[.gz]"),
            remedy: "give the directory of CANDID-PTX".to_owned(),
        })?;
        let mut table = Table::read(raw, &path, &["SOPInstanceUID", "EncodedPixels"])?;
        let mut plan = Plan { rejects: std::mem::take(&mut table.rejects), ..Plan::default() };
        let pneumothorax = masks(&table, "SOPInstanceUID", "EncodedPixels", &mut plan.rejects)?;
        let reports = Reports::of(&table)?;
        let mut kinds = vec![("Pneumothorax", "pneumothorax", None)];
        for (finding, mask, file) in FURTHER {
            let Some(path) = find_table(raw, file)? else { continue };
            let mut table = Table::read(raw, &path, &["anon_SOPUID", "mask_rle"])?;
            plan.rejects.append(&mut table.rejects);
            let mut listed = masks(&table, "anon_SOPUID", "mask_rle", &mut plan.rejects)?;
            for id in listed.keys().filter(|id| !pneumothorax.contains_key(*id)) {
                let error = format!("{id}: {REPORTS}.csv does not have this image; its mask is ignored");
                let source_path = table.name.clone();
                plan.rejects.push(Reject { source_path, record_id: None, stage: Stage::Table, error });
            }
            listed.retain(|id, _| pneumothorax.contains_key(id));
            kinds.push((finding, mask, Some(listed)));
        }
        plan.findings = kinds.iter().map(|(finding, ..)| (*finding).to_owned()).collect();
        plan.masks = kinds.iter().map(|(_, mask, _)| (*mask).to_owned()).collect();
        let mut files = BTreeMap::new();
        if !self.no_images {
            let is_image = |path: &Path| {
                let is_hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
                Ok(!is_hidden && extension(path).is_none_or(|found| !OTHERS.contains(&found.as_str())))
            };
            let walk = Walk::of_wanted(raw, raw, &is_image)?;
            plan.rejects.extend(walk.rejects);
            files = files_by(walk.files, identifier, &mut plan.rejects);
        }
        for (id, own) in pneumothorax {
            let (source_path, source_bytes) =
                files.remove(&id).map_or_else(|| (format!("dataset/{id}"), None), |(path, bytes)| (path, Some(bytes)));
            let record_id = format!("candid-ptx/{id}");
            if !is_name(&id) {
                let error = "SOPInstanceUID is not a plain name".to_owned();
                plan.rejects.push(Reject { source_path, record_id: Some(record_id), stage: Stage::Table, error });
                continue;
            }
            let all = std::iter::once(own).chain(kinds[1..].iter_mut().map(|(_, _, listed)| {
                // The readers marked every image, so one without a row has no region.
                listed.as_mut().and_then(|listed| listed.remove(&id)).unwrap_or_else(|| Ok(Some(Runs::default())))
            }));
            let all = match all.collect::<Result<Vec<_>, String>>() {
                Ok(all) => all,
                Err(error) => {
                    plan.rejects.push(Reject { source_path, record_id: Some(record_id), stage: Stage::Table, error });
                    continue;
                }
            };
            let row = reports.row(&id);
            let patient = row.and_then(|row| reports.patient(row)).unwrap_or(&id);
            let report = row.and_then(|row| reports.report[row]);
            plan.records.push(PlannedRecord {
                patient_id: patient.to_owned(),
                study_id: id.clone(),
                record_id,
                source_path,
                source_bytes,
                labels: all.iter().map(|mask| mask.as_ref().map(|mask| i8::from(!mask.is_empty()))).collect(),
                label_origin: Some(RADIOLOGIST.to_owned()),
                masks: planned(&plan.masks, all),
                language: Some("en".to_owned()),
                report: report.map_or(ReportSource::None, |text| ReportSource::Text(Arc::from(text))),
                image_id: id,
                ..PlannedRecord::default()
            });
        }
        plan.rejects.extend(files.into_values().map(|(path, _)| Reject::unlisted(path)));
        plan.finalize();
        Ok(plan)
    }
}

/// The masks of an image that are known.
fn planned(names: &[String], masks: Vec<Option<Runs>>) -> Vec<PlannedMask> {
    let known = names.iter().zip(masks).filter_map(|(name, mask)| Some((name.clone(), mask?)));
    known.map(|(name, mask)| PlannedMask { name, pixels: MaskSource::Runs(mask) }).collect()
}

/// The identifier of a file: its name, without the extension of an image.
fn identifier(path: &str) -> String {
    let name = name(path);
    let without = IMAGES.iter().find_map(|ending| name.strip_suffix(ending)).map(str::to_owned);
    without.unwrap_or(name)
}

/// The table of reports, which has a row for each region; the first row of an image counts.
struct Reports<'a> {
    first: BTreeMap<&'a str, usize>,
    file: Vec<Option<&'a str>>,
    report: Vec<Option<&'a str>>,
}

impl<'a> Reports<'a> {
    fn of(table: &'a Table) -> Result<Self> {
        let mut first = BTreeMap::new();
        for (row, id) in texts(&table.frame, "SOPInstanceUID")?.into_iter().enumerate() {
            if let Some(id) = id {
                first.entry(id).or_insert(row);
            }
        }
        let optional = |name| texts_or_null(&table.frame, name);
        Ok(Self { first, file: optional("filename"), report: optional("Report") })
    }

    fn row(&self, id: &str) -> Option<usize> {
        self.first.get(id).copied()
    }

    /// The patient: the part of the file name before the first underscore, `P00012` of `P00012_1…`.
    fn patient(&self, row: usize) -> Option<&'a str> {
        let (patient, _) = self.file[row]?.split_once('_')?;
        let number = patient.strip_prefix('P')?;
        (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(patient)
    }
}
