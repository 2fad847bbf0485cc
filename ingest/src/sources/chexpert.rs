//! CheXpert v1.0 and v1.0-small: `train.csv`, `valid.csv`, `test.csv` and the pictures that their `Path` column names,
//! `CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg`, whatever the first folder is called here.

use std::path::{Path, PathBuf};

use crate::error::{Error, Reject, Result};
use crate::plan::{Listing, Plan, PlannedRecord, Source, label_code};
use crate::table::{Table, texts, texts_or_null};

/// Table and the subset that it means.
const TABLES: [(&str, &str); 3] = [("train.csv", "train"), ("valid.csv", "validate"), ("test.csv", "test")];
/// Columns that are no finding.
const KEYS: [&str; 5] = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA"];

/// The source `chexpert`.
pub struct Chexpert;

impl Source for Chexpert {
    fn name(&self) -> &'static str {
        "chexpert"
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let home = home(raw)?;
        let listing = Listing::walk(raw, &home, &["jpg", "jpeg", "png", "dcm"]);
        let (mut files, mut plan) = (listing.files, Plan { rejects: listing.rejects, ..Plan::default() });
        let prefix = home.strip_prefix(raw).unwrap_or(Path::new("")).to_path_buf();
        for (name, subset) in TABLES {
            let plain = home.join(name);
            let path = if plain.is_file() { plain } else { home.join(format!("{name}.gz")) };
            if !path.is_file() {
                continue;
            }
            let table = Table::read(raw, &path, &["Path"])?;
            plan.rejects.extend(table.rejects);
            let frame = table.frame;
            let names: Vec<String> = frame.get_column_names_owned().into_iter().map(|name| name.to_string()).collect();
            let findings: Vec<String> = names.into_iter().filter(|name| !KEYS.contains(&name.as_str())).collect();
            if plan.findings.is_empty() {
                plan.findings = findings;
            }
            let codes =
                |finding: &String| texts_or_null(&frame, finding).into_iter().map(label_code).collect::<Vec<_>>();
            let labels: Vec<_> = plan.findings.iter().map(codes).collect();
            let (paths, sex, age) =
                (texts(&frame, "Path")?, texts_or_null(&frame, "Sex"), texts_or_null(&frame, "Age"));
            let (side, view) = (texts_or_null(&frame, "Frontal/Lateral"), texts_or_null(&frame, "AP/PA"));
            for row in 0..frame.height() {
                // FOLDER/train/patient00001/study1/view1_frontal.jpg
                let parts: Vec<&str> = paths[row].unwrap_or_default().split('/').collect();
                let [.., part, patient, study, file] = parts.as_slice() else {
                    plan.rejects.push(Reject::row(&table.name, row, "its path has no patient and study"));
                    continue;
                };
                let inner = format!("{part}/{patient}/{study}/{file}");
                let source_path = prefix.join(&inner).to_string_lossy().into_owned();
                plan.records.push(PlannedRecord {
                    record_id: format!("chexpert/{}", inner.rsplit_once('.').map_or(inner.as_str(), |(stem, _)| stem)),
                    patient_id: (*patient).to_owned(),
                    study_id: format!("{patient}/{study}"),
                    image_id: (*file).to_owned(),
                    source_bytes: files.remove(&source_path),
                    source_path,
                    subset: Some(subset.to_owned()),
                    view: match side[row] {
                        Some("Lateral") => Some("LATERAL".to_owned()),
                        _ => view[row].map(str::to_owned),
                    },
                    sex: match sex[row] {
                        Some("Male") => Some("M".to_owned()),
                        Some("Female") => Some("F".to_owned()),
                        // "Unknown" is the source's word for one record.
                        _ => None,
                    },
                    age_years: age[row].and_then(|age| age.parse().ok()),
                    labels: labels.iter().map(|column| column[row]).collect(),
                    ..PlannedRecord::default()
                });
            }
        }
        plan.rejects.extend(files.into_keys().map(Reject::unlisted));
        plan.settle();
        Ok(plan)
    }
}

/// The folder that holds the tables: the one given, or a `CheXpert…` folder in it.
fn home(raw: &Path) -> Result<PathBuf> {
    let has_table = |folder: &Path| {
        TABLES.iter().any(|(name, _)| folder.join(name).is_file() || folder.join(format!("{name}.gz")).is_file())
    };
    let mut folders = vec![raw.to_path_buf()];
    let entries = std::fs::read_dir(raw).map_err(Error::io(raw))?;
    folders.extend(entries.flatten().map(|entry| entry.path()).filter(|path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().to_lowercase().starts_with("chexpert"))
    }));
    folders.sort();
    folders.into_iter().find(|folder| has_table(folder)).ok_or_else(|| Error::MissingTable {
        folder: raw.to_path_buf(),
        wanted: "train.csv, valid.csv or test.csv".to_owned(),
        remedy: "give the CheXpert-v1.0 or CheXpert-v1.0-small directory".to_owned(),
    })
}
