//! Any directory of DICOM, PNG and JPEG files, with or without a table. Without one, the first folder of a path is the patient,
//! and a text file beside an image is its report.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::dicom::header;
use crate::error::{Error, Result};
use crate::file_system::{failed, is_absence, is_refusal, names_file, retry};
use crate::reject::{Reject, Stage};
use crate::run::path_hash;
use crate::run::path_names::PathNames;
use crate::run::plan::{Plan, PlannedRecord, ReportSource, Source};
use crate::sources::folder::glob::Glob;
use crate::sources::folder::identifiers::{IMAGES, identifiers, without_extension};
use crate::sources::folder::masks::{self, MaskFolder};
use crate::sources::folder::options::TableOptions;
use crate::sources::folder::table;
use crate::sources::shared::walk::{Walk, extension};

/// Extensions of files that are not images; such files are not opened.
const OTHERS: [&str; 12] = ["txt", "csv", "tsv", "gz", "json", "jsonl", "ndjson", "xml", "md", "parquet", "pq", "zip"];

/// The source `folder`.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    /// The table of the images, if there is one.
    pub table: Option<TableOptions>,
    /// Take the patients from PatientID of the DICOM headers, which is stored unchanged.
    pub patient_from_header: bool,
    /// Store paths, and identifiers that are made of them, as hashes.
    pub hash_paths: bool,
    /// Patterns of the paths of images; other files are ignored. All images where there is none.
    pub images: Vec<Glob>,
    /// Folders of masks.
    pub masks: Vec<MaskFolder>,
    /// Language of the reports, as BCP 47 writes it.
    pub language: Option<String>,
}

impl Folder {
    /// The options that change records and rejects and nothing else.
    fn noted_options(&self) -> BTreeMap<String, serde_json::Value> {
        let mut options = BTreeMap::from([("patient_from_header".to_owned(), self.patient_from_header.into())]);
        let lists = [
            ("images", self.images.iter().map(ToString::to_string).collect::<Vec<_>>()),
            ("masks", self.masks.iter().map(ToString::to_string).collect()),
            ("language", self.language.iter().cloned().collect()),
        ];
        let given = lists.into_iter().filter(|(_, values)| !values.is_empty());
        options.extend(given.map(|(name, values)| (name.to_owned(), values.join(",").into())));
        if let Some(table) = &self.table {
            options.extend(table.noted(PathNames { hashed: self.hash_paths }));
        }
        options
    }
}

impl Source for Folder {
    fn name(&self) -> &'static str {
        "folder"
    }

    fn options(&self) -> BTreeMap<String, serde_json::Value> {
        let mut options = self.noted_options();
        options.insert("hash_paths".to_owned(), self.hash_paths.into());
        options
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let mut walk = Walk::of_wanted(raw, raw, &is_image)?;
        let is_wanted = |path: &str| self.images.is_empty() || self.images.iter().any(|glob| glob.matches(path));
        walk.files.retain(|path, _| is_wanted(path) && !masks::is_mask(path, &self.masks));
        let mut plan = match &self.table {
            Some(options) => table::plan(raw, options, walk, PathNames { hashed: self.hash_paths })?,
            None => from_paths(raw, walk)?,
        };
        plan.path_names.hashed = self.hash_paths;
        masks::add(raw, &self.masks, &mut plan)?;
        if let Some(language) = &self.language {
            plan.records.iter_mut().for_each(|record| record.language = Some(language.clone()));
        }
        if self.patient_from_header {
            if plan.records.iter().any(|record| record.image_row.is_some()) {
                let message =
                    "--patient-from-header reads files, and these images are in tables; give --patient-column";
                return Err(Error::Options(message.to_owned()));
            }
            let has_studies = self.table.as_ref().is_some_and(|table| table.study_column.is_some());
            patients_from_headers(raw, has_studies, &mut plan)?;
        }
        plan.noted_options = self.noted_options();
        if self.hash_paths {
            let column = |of: fn(&TableOptions) -> bool| self.table.as_ref().is_some_and(of);
            let patients = !self.patient_from_header && !column(|table| table.patient_column.is_some());
            let studies = !column(|table| table.study_column.is_some());
            path_hash::hash_identifiers(&mut plan, self.name(), (patients, studies));
        }
        plan.finalize();
        Ok(plan)
    }

    fn warnings(&self, plan: &Plan) -> Vec<String> {
        let alone = match &self.table {
            _ if self.patient_from_header => 0,
            Some(table) if table.patient_column.is_some() => 0,
            Some(_) => plan.records.len(),
            None => plan.records.iter().filter(|record| !record.source_path.contains('/')).count(),
        };
        if alone == 0 {
            return Vec::new();
        }
        let who = match alone {
            all if all == plan.records.len() => "every image".to_owned(),
            some => format!("{some} of the images"),
        };
        let counts = if alone == 1 || alone == plan.records.len() { "counts" } else { "count" };
        vec![format!(
            "{who} {counts} as a patient of its own, so a split may have one patient in several subsets; name the patients with \
             --patient-column or --patient-from-header"
        )]
    }
}

/// Whether a file is an image: by its extension, or else by the DICOM magic.
fn is_image(path: &Path) -> Result<bool> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.starts_with('.') || name == "DICOMDIR" {
        return Ok(false);
    }
    match extension(path) {
        Some(found) if IMAGES.contains(&found.as_str()) => Ok(true),
        Some(found) if OTHERS.contains(&found.as_str()) => Ok(false),
        _ => match retry(|| header::is_dicom(path)) {
            // A link whose target is missing may be an image, and becomes a reject.
            Err(error) if is_absence(&error) => Ok(true),
            found => found.map_err(failed(path)),
        },
    }
}

fn from_paths(raw: &Path, walk: Walk) -> Result<Plan> {
    let names = identifiers(walk.files.keys().map(String::as_str));
    let mut plan = Plan { rejects: walk.rejects, ..Plan::default() };
    for (path, bytes) in &walk.files {
        let name = names[path.as_str()];
        let patient = path.split_once('/').map_or(name, |(first, _)| first);
        let study = path.rsplit_once('/').map_or(name, |(folders, _)| folders);
        let text = PathBuf::from(format!("{}.txt", without_extension(path)));
        plan.records.push(PlannedRecord {
            record_id: format!("folder/{name}"),
            patient_id: patient.to_owned(),
            study_id: study.to_owned(),
            image_id: name.rsplit('/').next().unwrap_or(name).to_owned(),
            source_path: path.clone(),
            source_bytes: Some(*bytes),
            report: if names_file(&raw.join(&text))? { ReportSource::File(text) } else { ReportSource::None },
            ..PlannedRecord::default()
        });
    }
    Ok(plan)
}

/// Takes the patient of each record from its file; a record whose file has none becomes a reject. Names of studies in a column
/// may repeat from patient to patient, so they get the patient as prefix. A file that the system refuses to read ends the
/// run, since the plan needs every patient.
fn patients_from_headers(raw: &Path, has_studies: bool, plan: &mut Plan) -> Result<()> {
    let stated = |record: &PlannedRecord| {
        let path = raw.join(&record.source_path);
        match retry(|| header::patient_id(&path)) {
            Err(error) if is_absence(&error) => Ok(Err("the file is missing".to_owned())),
            Err(error) if is_refusal(&error) => Err(failed(&path)(error)),
            Err(error) => Ok(Err(error.to_string())),
            Ok(stated) => Ok(stated),
        }
    };
    let found = plan.records.par_iter().map(stated).collect::<Result<Vec<Result<String, String>>>>()?;
    let mut kept = Vec::new();
    for (mut record, patient) in std::mem::take(&mut plan.records).into_iter().zip(found) {
        match patient {
            Ok(patient) => {
                if has_studies {
                    record.study_id = format!("{patient}/{}", record.study_id);
                }
                record.patient_id = patient;
                kept.push(record);
            }
            Err(error) => plan.rejects.push(Reject {
                source_path: record.source_path,
                record_id: Some(record.record_id),
                stage: Stage::Plan,
                error: format!("the patient is unknown: {error}"),
            }),
        }
    }
    plan.records = kept;
    Ok(())
}
