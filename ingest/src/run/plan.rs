//! The plan of a run, made before any pixel is read: one entry a radiograph, in the order in which they are stored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataset::format::grade::GradeScale;
use dataset::format::record::BoundingBox;
use dataset::format::record_checks;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::image::mask::Runs;
use crate::reject::{Reject, Stage};
use crate::report::sections::Conclusion;
use crate::run::path_names::PathNames;

/// A kind of raw directory. Implement it for a layout of your own; [`crate::cli::main_with`] then gives it a subcommand with
/// all common options, and [`crate::run()`] takes its plan.
pub trait Source: Send + Sync {
    /// Name of the subcommand, and the first part of every record's identifier.
    fn name(&self) -> &'static str;

    /// Lists the radiographs of the raw directory. Their order is free: the run calls [`Plan::finalize`].
    ///
    /// # Errors
    /// What makes the whole directory unusable: a missing table or column, a folder that cannot be listed. An input that
    /// cannot be used is a [`Reject`] of the plan.
    fn plan(&self, raw: &Path) -> Result<Plan>;

    /// The options of this source that decide its plan, by their names with underscores. A task of a dataset that another
    /// task planned compares them in place of a plan of its own.
    fn options(&self) -> BTreeMap<String, serde_json::Value> {
        BTreeMap::new()
    }

    /// Warnings about a plan, a line each; the program prints them before the run.
    fn warnings(&self, _plan: &Plan) -> Vec<String> {
        Vec::new()
    }
}

/// The radiographs to ingest, and what is known before their files are read.
#[derive(Default)]
pub struct Plan {
    /// The records, in the order of their identifiers after [`Plan::finalize`].
    pub records: Vec<PlannedRecord>,
    /// Inputs that are rejected already.
    pub rejects: Vec<Reject>,
    /// The findings, in the order of [`PlannedRecord::labels`].
    pub findings: Vec<String>,
    /// The scales of the grades, in the order of [`PlannedRecord::grades`].
    pub grades: Vec<GradeScale>,
    /// The names of the masks, in the order in which records have them.
    pub masks: Vec<String>,
    /// Absolute path of the folder of the report files, where it is not below the raw directory.
    pub report_root: Option<PathBuf>,
    /// The source's own options, for the manifest.
    pub arguments: BTreeMap<String, serde_json::Value>,
    /// Options of the source that change the records and rejects and nothing else. They are stored so that a later run with
    /// other options can name those that changed.
    pub noted_options: BTreeMap<String, serde_json::Value>,
    /// Warnings, a line each.
    pub warnings: Vec<String>,
    /// How paths are stored.
    pub path_names: PathNames,
    /// The parts of paths behind hashed identifiers of patients and studies, by hash.
    pub hashed_parts: BTreeMap<String, String>,
}

/// Where the text of a report is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReportSource {
    /// The source has no report for this record.
    #[default]
    None,
    /// A text file, relative to the raw directory or to [`Plan::report_root`]. Where it is missing, the record is kept without
    /// text and has a row among the rejects.
    File(PathBuf),
    /// The text itself, from a table.
    Text(#[serde(with = "text")] Arc<str>),
    /// The text itself, with the sections that the source states.
    Sections {
        /// The whole report.
        #[serde(with = "text")]
        text: Arc<str>,
        /// Lower-case names and texts of all sections, in the order of the report. Of sections named `findings` and
        /// `impression`, the last one is stored in the column of that name.
        #[serde(with = "sections")]
        sections: Vec<(String, Arc<str>)>,
    },
}

/// A row of a Parquet table whose value is an encoded image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImageRow {
    /// Path of the table, relative to the raw directory.
    #[serde(with = "text")]
    pub file: Arc<str>,
    /// Number of the row, counted from 0.
    pub row: u64,
    /// The column: byte strings, or structs with a field `bytes`.
    #[serde(with = "text")]
    pub column: Arc<str>,
}

impl ImageRow {
    /// `FILE#ROW`, where rows are counted from 1 and have as many digits as the last of `rows` has, so that texts sort like rows.
    pub fn source_path(&self, rows: usize) -> String {
        format!("{}#{:0digits$}", self.file, self.row + 1, digits = rows.to_string().len())
    }
}

/// The labels of one of several readers of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedReading {
    /// Identifier of the reader.
    pub reader: String,
    /// A label for each of [`Plan::findings`], `None` where it is blank.
    pub labels: Vec<Option<i8>>,
}

/// A segmentation mask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedMask {
    /// One of [`Plan::masks`].
    pub name: String,
    /// The marked pixels.
    pub pixels: MaskSource,
}

/// Where the pixels of a mask are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MaskSource {
    /// Runs of pixels of the raw image.
    Runs(Runs),
    /// A PNG or JPEG file of the raw image's size, relative to the raw directory. Pixels above 0 are marked, those above 127
    /// in a JPEG file.
    File(PathBuf),
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Shared texts as JSON strings.
mod text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(text: &Arc<str>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(from).map(Into::into)
    }
}

/// Named shared texts as pairs of JSON strings.
mod sections {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(sections: &[(String, Arc<str>)], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(sections.iter().map(|(name, text)| (name, text.as_ref())))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(String, Arc<str>)>, D::Error> {
        let pairs = Vec::<(String, String)>::deserialize(from)?;
        Ok(pairs.into_iter().map(|(name, text)| (name, text.into())).collect())
    }
}

/// One radiograph that is to become a record. The text columns have the meaning of docs/format.md.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PlannedRecord {
    /// `source/…`, unique in the dataset.
    pub record_id: String,
    /// The patient; splits keep the records of one together.
    pub patient_id: String,
    /// The study.
    pub study_id: String,
    /// The image.
    pub image_id: String,
    /// Path of the file, relative to the raw directory; for a row of a table [`ImageRow::source_path`].
    pub source_path: String,
    /// Size of the file or table; `None` where the source did not find it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_bytes: Option<u64>,
    /// The row that has the image, where it is in a table and no file of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_row: Option<ImageRow>,
    /// The official subset: `train`, `validate` or `test`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// Date, or date and time, of the study: `2110-03-07`, `2110-03-07T14:05:09`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub study_datetime: Option<String>,
    /// Number by which the patient's studies are ordered in time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub study_order: Option<u32>,
    /// The view; `None` takes it from the DICOM header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// `F`, `M` or `O`; `None` takes it from the DICOM header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sex: Option<String>,
    /// Age in years; `None` takes it from the DICOM header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_years: Option<f32>,
    /// Distance of rows and of columns in millimeters; `None` takes it from the DICOM header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixel_spacing: Option<[f32; 2]>,
    /// Height and width of the image that [`pixel_spacing`](Self::pixel_spacing) is about, where the raw image was resized
    /// from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spacing_size: Option<[u32; 2]>,
    /// A label for each of [`Plan::findings`], `None` where it is blank.
    pub labels: Vec<Option<i8>>,
    /// Where the labels are from: `radiologist`, `consensus`, `nlp:chexpert`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label_origin: Option<String>,
    /// A grade for each of [`Plan::grades`]: the number of a value, counted from 0.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub grades: Vec<Option<i8>>,
    /// The labels of each reader, where several read the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub readings: Vec<PlannedReading>,
    /// Boxes, in pixels of the raw image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub boxes: Vec<BoundingBox>,
    /// Whether the boxes are in shares of the raw image's sides, 0 to 1, instead.
    #[serde(skip_serializing_if = "is_default")]
    pub relative_boxes: bool,
    /// Masks, each of another name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub masks: Vec<PlannedMask>,
    /// The report.
    #[serde(skip_serializing_if = "is_default")]
    pub report: ReportSource,
    /// Language of the report, as BCP 47 writes it: `en`, `es`, `pt-BR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Where the conclusion is in the report.
    #[serde(skip_serializing_if = "is_default")]
    pub conclusion: Conclusion,
}

impl PlannedRecord {
    /// SHA-256 of all fields.
    pub fn sha256(&self) -> [u8; 32] {
        // The debug form has every field, also those that are added later.
        Sha256::digest(format!("{self:?}")).into()
    }
}

impl Plan {
    /// The file of a report, absolute or relative to the raw directory; `None` where it is in no file.
    pub fn report_path(&self, report: &ReportSource) -> Option<PathBuf> {
        let ReportSource::File(path) = report else { return None };
        // `report_root` is absolute, so joining it to the raw directory does not change it.
        Some(self.report_root.as_deref().map_or_else(|| path.clone(), |root| root.join(path)))
    }

    /// Sorts the records by identifier, so that their order depends on neither the file system nor a table. Rejects repeated
    /// identifiers, and identifiers that are too long or have control characters. Of several records with one identifier,
    /// the first whose file was found is kept.
    pub fn finalize(&mut self) {
        fn order(record: &PlannedRecord) -> (&str, bool, &str) {
            (&record.record_id, record.source_bytes.is_none(), &record.source_path)
        }
        self.records.sort_by(|a, b| order(a).cmp(&order(b)));
        let rejects = &mut self.rejects;
        self.records.retain(|record| {
            let checked = record_checks::identifiers([
                ("record_id", &record.record_id),
                ("patient_id", &record.patient_id),
                ("study_id", &record.study_id),
                ("image_id", &record.image_id),
                ("source_path", &record.source_path),
            ]);
            let Err(error) = checked else { return true };
            let (source_path, record_id) = (record.source_path.clone(), Some(record.record_id.clone()));
            rejects.push(Reject { source_path, record_id, stage: Stage::Plan, error });
            false
        });
        self.records.dedup_by(|record, first| {
            let repeats = record.record_id == first.record_id;
            if repeats {
                rejects.push(Reject {
                    source_path: record.source_path.clone(),
                    record_id: Some(record.record_id.clone()),
                    stage: Stage::Plan,
                    error: "this identifier is listed twice; the record whose file was found, else the first, is kept"
                        .to_owned(),
                });
            }
            repeats
        });
    }

    /// Checks that every record has as many labels as there are findings and as many grades as there are scales, and that
    /// the plan has the names of its masks.
    ///
    /// # Errors
    /// Names the first record that differs.
    pub fn check(&self) -> Result<()> {
        let (findings, grades) = (self.findings.len(), self.grades.len());
        for record in &self.records {
            let record_id = || record.record_id.clone();
            let mut labels = record.readings.iter().map(|reading| &reading.labels).chain([&record.labels]);
            if let Some(labels) = labels.find(|labels| labels.len() != findings) {
                return Err(Error::Labels { record_id: record_id(), labels: labels.len(), findings });
            }
            if record.grades.len() != grades {
                return Err(Error::Grades { record_id: record_id(), grades: record.grades.len(), scales: grades });
            }
            let names = record.masks.iter().map(|mask| mask.name.as_str());
            record_checks::mask_names(names, &self.masks)
                .map_err(|message| Error::Masks { record_id: record_id(), message })?;
        }
        Ok(())
    }

    /// SHA-256 of records, rejects, findings, grades and masks: a run that continues another one compares it to detect changed input.
    pub fn sha256(&self) -> String {
        let mut digest = Sha256::new();
        let records: Vec<[u8; 32]> = self.records.par_iter().map(PlannedRecord::sha256).collect();
        digest.update(records.as_flattened());
        for reject in &self.rejects {
            digest.update(format!("{reject:?}\n"));
        }
        digest.update(self.findings.join("\n"));
        digest.update(format!("{:?}{:?}", self.grades, self.masks));
        dataset::store::files::hex(&digest.finalize())
    }
}

/// The label codes of a table row, in the order of `findings`.
///
/// # Errors
/// A sentence that names the first value that is no label.
pub(crate) fn label_codes<'a>(
    findings: &[String],
    values: impl IntoIterator<Item = Option<&'a str>>,
) -> Result<Vec<Option<i8>>, String> {
    let code = |(finding, value)| checked_label_code(value).map_err(|error| format!("column `{finding}`: {error}"));
    findings.iter().zip(values).map(code).collect()
}

/// The code of a label as the public tables write it: `1.0`, `0`, `-1.0`, empty. Any other text gives `None`, too.
pub(crate) fn label_code(text: Option<&str>) -> Option<i8> {
    match text?.trim().parse::<f32>() {
        Ok(1.0) => Some(1),
        Ok(0.0) => Some(0),
        Ok(-1.0) => Some(dataset::Label::Uncertain.code()),
        _ => None,
    }
}

/// As [`label_code`], but checked.
///
/// # Errors
/// When a value is neither empty nor one of the codes.
pub(crate) fn checked_label_code(text: Option<&str>) -> Result<Option<i8>, String> {
    match (text.map(str::trim).filter(|text| !text.is_empty()), label_code(text)) {
        (Some(text), None) => Err(format!("`{text}` is none of 1, 0, -1 and empty")),
        (_, code) => Ok(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_final_plan_is_sorted_and_every_finding_has_its_label() {
        let record = |id: &str, bytes| PlannedRecord {
            record_id: id.to_owned(),
            source_path: format!("{id}-{bytes:?}"),
            source_bytes: bytes,
            labels: vec![None],
            ..PlannedRecord::default()
        };
        let records = vec![record("b", None), record("a", None), record("b", Some(1))];
        let mut plan = Plan { records, findings: vec!["Edema".to_owned()], ..Plan::default() };
        plan.finalize();
        let paths: Vec<_> = plan.records.iter().map(|record| record.source_path.as_str()).collect();
        assert_eq!(paths, ["a-None", "b-Some(1)"], "the record whose file was found is kept");
        assert_eq!(plan.rejects.len(), 1);
        assert!(plan.check().is_ok());
        plan.records.push(PlannedRecord { patient_id: "a\u{1b}[2J".to_owned(), ..record("c", None) });
        plan.finalize();
        assert_eq!(plan.records.len(), 2);
        assert_eq!(plan.rejects[1].error, "`patient_id` contains the control character U+001B");
        plan.records[1].labels.clear();
        assert!(plan.check().unwrap_err().to_string().starts_with("b: 0 labels for 1 findings"));
    }
}
