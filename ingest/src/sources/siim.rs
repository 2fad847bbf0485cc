//! SIIM-ACR Pneumothorax: `dicom-images-train/STUDY/SERIES/IMAGE.dcm`, `dicom-images-test/…`, and the table of masks,
//! `train-rle.csv` (at Kaggle: `stage_2_train.csv`). The patients are not known, so each study counts as a patient.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file_system::folders;
use crate::reject::{Reject, Stage};
use crate::run::plan::{MaskSource, Plan, PlannedMask, PlannedRecord, Source};
use crate::sources::shared::challenge::each_image;
use crate::sources::shared::label_origins::RADIOLOGIST;
use crate::sources::shared::run_lengths::{Mask, masks};
use crate::sources::shared::table::{Table, tables};

/// Folders of images and their subsets.
const FOLDERS: [(&str, &str); 2] = [("dicom-images-train", "train"), ("dicom-images-test", "test")];
const IMAGES: [&str; 4] = ["dcm", "png", "jpg", "jpeg"];
/// Part of the table's name, and its name at Kaggle.
const TABLE: &str = "train-rle";
const KAGGLE_TABLE: &str = "stage_2_train";

/// Name of the masks.
const MASK: &str = "pneumothorax";

/// The source `siim`.
pub struct Siim;

impl Source for Siim {
    fn name(&self) -> &'static str {
        "siim"
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let path = find(raw)?;
        let mut plan =
            Plan { findings: vec!["Pneumothorax".to_owned()], masks: vec![MASK.to_owned()], ..Plan::default() };
        let mut table = Table::read(raw, &path, &["ImageId", "EncodedPixels"])?;
        plan.rejects.append(&mut table.rejects);
        let masks = masks(&table, "ImageId", "EncodedPixels", &mut plan.rejects)?;
        let named = |runs| PlannedMask { name: MASK.to_owned(), pixels: MaskSource::Runs(runs) };
        let record = |id: &str, source_path: String, bytes, subset: &str, mask: Option<Mask>| {
            let record_id = format!("siim/{id}");
            // A blank cell states nothing in this table.
            let mask = mask.map(|mask| mask?.ok_or_else(|| "the run lengths are empty".to_owned()));
            let mask = match mask.transpose() {
                Ok(mask) => mask,
                Err(error) => {
                    let record_id = Some(record_id);
                    plan.rejects.push(Reject { source_path, record_id, stage: Stage::Table, error });
                    return;
                }
            };
            // FOLDER/STUDY/SERIES/IMAGE.dcm; the study is not known where the file is missing.
            let parts: Vec<&str> = source_path.split('/').collect();
            let study = if let [_, study, .., _] = parts.as_slice() { *study } else { id };
            plan.records.push(PlannedRecord {
                record_id,
                patient_id: study.to_owned(),
                study_id: study.to_owned(),
                image_id: id.to_owned(),
                source_bytes: bytes,
                subset: Some(subset.to_owned()),
                labels: vec![mask.as_ref().map(|mask| i8::from(!mask.is_empty()))],
                label_origin: Some(RADIOLOGIST.to_owned()),
                masks: mask.into_iter().map(named).collect(),
                source_path,
                ..PlannedRecord::default()
            });
        };
        let unlisted = each_image(raw, &FOLDERS, &IMAGES, masks, record)?;
        plan.rejects.extend(unlisted);
        plan.finalize();
        Ok(plan)
    }
}

/// `train-rle.csv[.gz]`, or else the only table whose name contains `train-rle` or is Kaggle's, here or one folder below.
fn find(raw: &Path) -> Result<PathBuf> {
    let below = folders(raw)?.into_iter().filter(|path| !FOLDERS.iter().any(|(name, _)| path.ends_with(name)));
    let of = |folder: PathBuf| tables(&folder, |name| name.contains(TABLE) || name == KAGGLE_TABLE);
    let found = std::iter::once(raw.to_path_buf()).chain(below).map(of).collect::<Result<Vec<_>>>()?.concat();
    let named = |name: &str| found.iter().find(|path| path.ends_with(name)).cloned();
    if let Some(path) = named("train-rle.csv").or_else(|| named("train-rle.csv.gz")) {
        return Ok(path);
    }
    let missing = |wanted: &str, remedy: &str| Error::MissingTable {
        folder: raw.to_path_buf(),
        wanted: wanted.to_owned(),
        remedy: remedy.to_owned(),
    };
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        (Some(_), Some(_)) => Err(missing(
            "single table *train-rle*.csv[.gz]",
            "there are several; rename the right one to train-rle.csv",
        )),
        (None, _) => Err(missing(
            "table *train-rle*.csv[.gz] or stage_2_train.csv[.gz]",
            "give the directory of the SIIM-ACR Pneumothorax Segmentation Challenge",
        )),
    }
}
