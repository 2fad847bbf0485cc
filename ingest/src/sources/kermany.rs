//! The children's pneumonia set (Kermany et al. 2018): `chest_xray/{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg`, here or in
//! RAW_DIR itself. File names state the kind of a pneumonia (`person1_bacteria_1.jpeg`, `BACTERIA-7422-0001.jpeg`) and the
//! patient, whose numbers start anew in each subset.

use std::path::Path;

use crate::error::{Error, Result};
use crate::file_system::is_folder;
use crate::reject::{Reject, Stage};
use crate::run::plan::{Plan, PlannedRecord, Source};
use crate::sources::shared::label_origins::PHYSICIAN;
use crate::sources::shared::walk::{Walk, stem};

const FINDINGS: [&str; 3] = ["Pneumonia", "Pneumonia/Bacterial", "Pneumonia/Viral"];
/// Folders of the subsets.
const SUBSETS: [(&str, &str); 3] = [("train", "train"), ("val", "validate"), ("test", "test")];
/// The folder of the archive, in which a copy of itself may be.
const ARCHIVE: &str = "chest_xray";
const IMAGES: [&str; 3] = ["jpeg", "jpg", "png"];

/// The source `kermany`.
pub struct Kermany;

impl Source for Kermany {
    fn name(&self) -> &'static str {
        "kermany"
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let mut plan = Plan { findings: FINDINGS.map(str::to_owned).to_vec(), ..Plan::default() };
        let has_train = |folder: &Path| is_folder(&folder.join(SUBSETS[0].0));
        let root = if has_train(raw)? { raw.to_path_buf() } else { raw.join(ARCHIVE) };
        let mut images = 0;
        for (folder, subset) in SUBSETS {
            if !is_folder(&root.join(folder))? {
                continue;
            }
            let walk = Walk::of(raw, &root.join(folder), &IMAGES)?;
            plan.rejects.extend(walk.rejects);
            for (path, bytes) in walk.files {
                // Copies made on a Mac have a hidden file beside each image.
                if path.rsplit('/').next().is_some_and(|name| name.starts_with('.')) {
                    continue;
                }
                images += 1;
                match record(path, bytes, subset) {
                    Ok(record) => plan.records.push(record),
                    Err(reject) => plan.rejects.push(reject),
                }
            }
        }
        if images == 0 {
            return Err(Error::MissingTable {
                folder: raw.to_path_buf(),
                wanted: "image train/NORMAL/*.jpeg".to_owned(),
                remedy: format!("give the directory that contains `{ARCHIVE}/` or `train/`"),
            });
        }
        plan.finalize();
        Ok(plan)
    }
}

fn record(source_path: String, bytes: u64, subset: &str) -> Result<PlannedRecord, Reject> {
    let name = stem(&source_path);
    let folder = source_path.rsplit('/').nth(1).unwrap_or_default();
    let labels = match (folder, kind(&name)) {
        ("NORMAL", None) => Ok([Some(0), Some(0), Some(0)]),
        ("PNEUMONIA", None) => Ok([Some(1), None, None]),
        ("PNEUMONIA", Some(is_bacterial)) => Ok([Some(1), Some(i8::from(is_bacterial)), Some(i8::from(!is_bacterial))]),
        ("NORMAL", Some(_)) => Err("the name states a pneumonia, the folder is NORMAL"),
        _ => Err("the image is in neither NORMAL nor PNEUMONIA, so it has no label"),
    };
    let record_id = format!("kermany/{subset}/{folder}/{name}");
    match labels {
        Ok(labels) => Ok(PlannedRecord {
            record_id,
            patient_id: format!("{subset}/{}", patient(&name)),
            study_id: name.clone(),
            image_id: name,
            source_path,
            source_bytes: Some(bytes),
            subset: Some(subset.to_owned()),
            labels: labels.to_vec(),
            label_origin: Some(PHYSICIAN.to_owned()),
            ..PlannedRecord::default()
        }),
        Err(error) => {
            Err(Reject { source_path, record_id: Some(record_id), stage: Stage::Plan, error: error.to_owned() })
        }
    }
}

/// Whether the name states a bacterial pneumonia (true) or a viral one (false).
fn kind(name: &str) -> Option<bool> {
    let lower = name.to_lowercase();
    match (lower.contains("bacteria"), lower.contains("virus")) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        _ => None,
    }
}

/// The patient of a name: `person1` of `person1_virus_6`, `IM-0001` of `IM-0001-0001`, `NORMAL2-IM-0012` of
/// `NORMAL2-IM-0012-0001`, `7422` of `BACTERIA-7422-0001`; another name is its own patient.
fn patient(name: &str) -> &str {
    if name.starts_with("person") {
        return name.split('_').next().unwrap_or(name);
    }
    let parts: Vec<&str> = name.split('-').collect();
    match parts.as_slice() {
        ["NORMAL2", "IM", number, _, ..] => &name[.."NORMAL2-IM-".len() + number.len()],
        ["IM", number, _, ..] => &name[.."IM-".len() + number.len()],
        ["NORMAL" | "BACTERIA" | "VIRUS", number, _, ..] => number,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_state_patient_and_kind() {
        for (name, of, is_bacterial) in [
            ("person1_bacteria_1", "person1", Some(true)),
            ("person1600_virus_2776", "person1600", Some(false)),
            ("IM-0001-0001", "IM-0001", None),
            ("NORMAL2-IM-0012-0001-0002", "NORMAL2-IM-0012", None),
            ("BACTERIA-7422-0001", "7422", Some(true)),
            ("VIRUS-1001-0002", "1001", Some(false)),
            ("film7", "film7", None),
        ] {
            assert_eq!((patient(name), kind(name)), (of, is_bacterial), "{name}");
        }
    }
}
