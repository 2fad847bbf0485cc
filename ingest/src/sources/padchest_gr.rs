//! PadChest-GR: `grounded_reports_*.json` with the sentences of each study and their boxes, `master_table.csv` with patients and
//! subsets, and PNG files anywhere below.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataset::format::record::BoundingBox;
use dataset::split::Subset;
use serde::Deserialize;

use crate::dicom::header::{sex, years};
use crate::error::{Error, Result};
use crate::file_system::entries;
use crate::reject::{Reject, Stage};
use crate::run::plan::{Plan, PlannedRecord, ReportSource, Source};
use crate::sources::shared::files_by_name::{files_by, name};
use crate::sources::shared::table::{Table, find_table, texts, texts_or_null};
use crate::sources::shared::walk::{Walk, is_name};
use crate::sources::shared::{dates, json};

const JSON: &str = "grounded_reports";
/// Images of earlier studies, which have no sentences of their own.
const PRIOR_STUDIES: &str = "progression_prior_studies";
/// The readers of `boxes` and of `extra_boxes`.
const READERS: [&str; 2] = ["1", "2"];

/// The language of the sentences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Language {
    /// The English translation.
    #[default]
    En,
    /// The Spanish original.
    Es,
}

impl Language {
    /// As in BCP 47, in the manifest and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Es => "es",
        }
    }
}

/// The source `padchest-gr`.
#[derive(Clone, Debug, Default)]
pub struct PadchestGr {
    /// Ingest the tables without images.
    pub no_images: bool,
    /// The language of the sentences.
    pub language: Language,
}

#[derive(Deserialize)]
struct Study {
    #[serde(rename = "StudyID")]
    id: String,
    #[serde(rename = "ImageID")]
    image_id: String,
    #[serde(default)]
    findings: Vec<Sentence>,
}

/// Sentences that state no finding lack most keys.
#[derive(Deserialize)]
struct Sentence {
    #[serde(default, rename = "sentence_en")]
    english: Option<String>,
    #[serde(default, rename = "sentence_es")]
    spanish: Option<String>,
    #[serde(default)]
    abnormal: bool,
    #[serde(default)]
    boxes: Vec<[f32; 4]>,
    #[serde(default)]
    extra_boxes: Vec<[f32; 4]>,
    #[serde(default)]
    labels: Vec<String>,
}

impl Source for PadchestGr {
    fn name(&self) -> &'static str {
        "padchest-gr"
    }

    fn options(&self) -> BTreeMap<String, serde_json::Value> {
        BTreeMap::from([("language".to_owned(), self.language.name().into())])
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let missing = |wanted: &str| Error::MissingTable {
            folder: raw.to_path_buf(),
            wanted: wanted.to_owned(),
            remedy: "give the directory of PadChest-GR".to_owned(),
        };
        let path = json_file(raw)?.ok_or_else(|| missing("file grounded_reports_*.json"))?;
        let master = find_table(raw, "master_table")?.ok_or_else(|| missing("master_table.csv[.gz]"))?;
        let studies: Vec<json::Entry<Study>> = json::read(&path)?;
        let mut table = Table::read(raw, &master, &["StudyID", "PatientID", "split"])?;
        let mut plan =
            Plan { rejects: std::mem::take(&mut table.rejects), arguments: self.options(), ..Plan::default() };
        let mut files = BTreeMap::new();
        if !self.no_images {
            let mut walk = Walk::of(raw, raw, &["png"])?;
            plan.rejects.extend(walk.rejects);
            walk.files.retain(|path, _| !path.contains(PRIOR_STUDIES));
            files = files_by(walk.files, name, &mut plan.rejects);
        }
        let labels = studies.iter().filter_map(|entry| match entry {
            json::Entry::Fit(study) => Some(study),
            json::Entry::Other(_) => None,
        });
        let named = labels.flat_map(|study| &study.findings).filter(|sentence| sentence.abnormal);
        let findings: BTreeSet<String> =
            named.flat_map(|sentence| &sentence.labels).map(|label| label.trim().to_owned()).collect();
        plan.findings = findings.into_iter().filter(|label| !label.is_empty()).collect();
        let rows = Rows::of(&table)?;
        let place = path.strip_prefix(raw).unwrap_or(&path).to_string_lossy().into_owned();
        for (number, entry) in studies.into_iter().enumerate() {
            let json::Entry::Fit(study) = entry else {
                let error = format!("study {number}: another form than StudyID, ImageID and findings");
                plan.rejects.push(Reject { source_path: place.clone(), record_id: None, stage: Stage::Table, error });
                continue;
            };
            if !is_name(&study.image_id) {
                let error = format!("study {number}: ImageID is no plain name");
                plan.rejects.push(Reject { source_path: place.clone(), record_id: None, stage: Stage::Table, error });
                continue;
            }
            let found = files.remove(&study.image_id);
            let (source_path, source_bytes) = found
                .map_or_else(|| (format!("PadChest_GR/{}", study.image_id), None), |(path, bytes)| (path, Some(bytes)));
            let record = PlannedRecord { source_path, source_bytes, ..PlannedRecord::default() };
            match self.record(&study, &rows, &plan.findings, record) {
                Ok(record) => plan.records.push(record),
                Err((source_path, error)) => {
                    let record_id = Some(format!("padchest-gr/{}", study.image_id));
                    plan.rejects.push(Reject { source_path, record_id, stage: Stage::Table, error });
                }
            }
        }
        plan.rejects.extend(files.into_values().map(|(path, _)| Reject::unlisted(path)));
        plan.finalize();
        Ok(plan)
    }
}

impl PadchestGr {
    /// Fills in the record of a study; on an error, its path and a sentence.
    fn record(
        &self,
        study: &Study,
        rows: &Rows,
        findings: &[String],
        record: PlannedRecord,
    ) -> Result<PlannedRecord, (String, String)> {
        let fail = |error: &str| Err((record.source_path.clone(), error.to_owned()));
        let Some(&row) = rows.by_study.get(study.id.as_str()) else {
            return fail("master_table.csv does not have this study");
        };
        let Some(patient) = rows.patient[row] else { return fail("master_table.csv states no PatientID") };
        let subset = rows.split[row].map(|split| Subset::parse(split).map(|subset| subset.name().to_owned()));
        if subset == Some(None) {
            return fail("master_table.csv states another split than train, validation and test");
        }
        let mut boxes: Vec<BoundingBox> = Vec::new();
        let mut sentences = Vec::new();
        let mut named: BTreeSet<&str> = BTreeSet::new();
        for sentence in &study.findings {
            let text = match self.language {
                Language::En => &sentence.english,
                Language::Es => &sentence.spanish,
            };
            let text = text.as_deref().map(str::trim).filter(|text| !text.is_empty());
            sentences.extend(text);
            let labels: Vec<&str> =
                sentence.labels.iter().map(|label| label.trim()).filter(|label| !label.is_empty()).collect();
            if sentence.abnormal {
                named.extend(&labels);
            }
            for (reader, corners) in READERS.iter().zip([&sentence.boxes, &sentence.extra_boxes]) {
                for corners in corners {
                    let Some(found) = rectangle(*corners) else {
                        return fail("a box is not left, top, right, bottom between 0 and 1");
                    };
                    // A box of several labels is listed with each.
                    let labels = if labels.is_empty() { &[""][..] } else { &labels };
                    boxes.extend(labels.iter().map(|label| BoundingBox {
                        label: (*label).to_owned(),
                        sentence: text.map(str::to_owned),
                        reader: Some((*reader).to_owned()),
                        ..found.clone()
                    }));
                }
            }
        }
        Ok(PlannedRecord {
            record_id: format!("padchest-gr/{}", study.image_id),
            patient_id: patient.to_owned(),
            study_id: study.id.clone(),
            image_id: study.image_id.clone(),
            subset: subset.flatten(),
            sex: rows.sex[row].and_then(sex),
            age_years: rows.age[row].and_then(years),
            study_datetime: rows.date[row].and_then(dates::of_text),
            labels: findings.iter().map(|finding| Some(i8::from(named.contains(finding.as_str())))).collect(),
            language: Some(self.language.name().to_owned()),
            report: if sentences.is_empty() {
                ReportSource::None
            } else {
                ReportSource::Text(Arc::from(sentences.join("\n")))
            },
            boxes,
            relative_boxes: true,
            ..record
        })
    }
}

/// What the table states of a study: its first row counts.
struct Rows<'a> {
    by_study: HashMap<&'a str, usize>,
    patient: Vec<Option<&'a str>>,
    split: Vec<Option<&'a str>>,
    sex: Vec<Option<&'a str>>,
    age: Vec<Option<&'a str>>,
    date: Vec<Option<&'a str>>,
}

impl<'a> Rows<'a> {
    fn of(table: &'a Table) -> Result<Self> {
        let mut by_study = HashMap::new();
        for (row, study) in texts(&table.frame, "StudyID")?.into_iter().enumerate() {
            if let Some(study) = study {
                by_study.entry(study).or_insert(row);
            }
        }
        let optional = |name| texts_or_null(&table.frame, name);
        Ok(Self {
            by_study,
            patient: texts(&table.frame, "PatientID")?,
            split: texts(&table.frame, "split")?,
            sex: optional("PatientSex_DICOM"),
            age: optional("PatientAge"),
            date: optional("StudyDate_DICOM"),
        })
    }
}

/// The JSON file in the raw directory; of several, the last one by name.
fn json_file(raw: &Path) -> Result<Option<PathBuf>> {
    let mut found: Vec<PathBuf> = entries(raw)?.iter().map(std::fs::DirEntry::path).collect();
    found.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(JSON) && name.ends_with(".json")
    });
    found.sort();
    Ok(found.pop())
}

/// A box of shares of the image: left, top, right, bottom.
fn rectangle([left, top, right, bottom]: [f32; 4]) -> Option<BoundingBox> {
    let is_inside = [left, top, right, bottom].iter().all(|share| (0.0..=1.0).contains(share));
    (is_inside && left < right && top < bottom).then(|| BoundingBox {
        x: left,
        y: top,
        width: right - left,
        height: bottom - top,
        ..BoundingBox::default()
    })
}
