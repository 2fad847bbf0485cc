//! What a source will give, before any pixel is read: one entry a radiograph, in the order in which they are stored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataset::format::record::BoundingBox;
use dataset::format::record_checks;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::error::{Error, Reject, Result, Stage};
use crate::image::mask::Runs;
use crate::report::sections::Conclusion;
use crate::run::path_names::PathNames;

/// A kind of raw directory. A user's own source implements this and hands its plan to [`crate::run()`].
pub trait Source: Sync {
    /// Name, first part of every record's identifier.
    fn name(&self) -> &'static str;

    /// Lists what the raw directory holds. Records may come in any order: [`Plan::settle`] is called on what is run.
    fn plan(&self, raw: &Path) -> Result<Plan>;

    /// What a user should know of a plan before it is run, a line each.
    fn remarks(&self, _plan: &Plan) -> Vec<String> {
        Vec::new()
    }
}

/// What is to be ingested.
#[derive(Default)]
pub struct Plan {
    pub records: Vec<PlannedRecord>,
    /// Inputs that fell out already.
    pub rejects: Vec<Reject>,
    /// The findings, in the order of [`PlannedRecord::labels`].
    pub findings: Vec<String>,
    /// Where the report files are, if not below the raw directory.
    pub report_root: Option<PathBuf>,
    /// The source's own options, for the manifest.
    pub arguments: BTreeMap<String, serde_json::Value>,
    /// Options of the source whose effect is in the records and rejects: noted so that a later run with other options can
    /// name those that changed.
    pub noted_options: BTreeMap<String, serde_json::Value>,
    /// What a user should know, a line each.
    pub remarks: Vec<String>,
    /// How paths are stored.
    pub path_names: PathNames,
    /// The parts of paths behind hashed identifiers of patients and studies, by hash.
    pub hashed_parts: BTreeMap<String, String>,
}

/// Where a report's text is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReportSource {
    /// The source has no report for this record, and never promised one.
    #[default]
    None,
    /// A text file, relative to the raw directory (or [`Plan::report_root`]); its absence is worth a reject row.
    File(PathBuf),
    /// From a table.
    Text(Arc<str>),
    /// From a source that also tells its sections.
    Sections { text: Arc<str>, findings: Option<Arc<str>>, impression: Option<Arc<str>> },
}

/// One radiograph that is to become a record.
#[derive(Clone, Debug, Default)]
pub struct PlannedRecord {
    pub record_id: String,
    pub patient_id: String,
    pub study_id: String,
    pub image_id: String,
    /// Relative to the raw directory.
    pub source_path: String,
    /// Bytes of the file, where the plan saw it.
    pub source_bytes: Option<u64>,
    pub subset: Option<String>,
    pub view: Option<String>,
    pub sex: Option<String>,
    pub age_years: Option<f32>,
    pub labels: Vec<Option<i8>>,
    /// In pixels of the raw image.
    pub boxes: Vec<BoundingBox>,
    /// In pixels of the raw image; `None` where nobody looked.
    pub mask: Option<Runs>,
    pub report: ReportSource,
    /// Where in the report its conclusion stands.
    pub conclusion: Conclusion,
}

impl PlannedRecord {
    /// Digest of everything the plan says of this record.
    pub fn sha256(&self) -> [u8; 32] {
        // Every field, those yet to come included.
        Sha256::digest(format!("{self:?}")).into()
    }
}

impl Plan {
    /// Sorts records by identifier, so that neither the file system's order nor a table's matters, and rejects repeats
    /// and identifiers that are too long or hold control characters.
    /// Of several records of one identifier the one whose file is there comes first.
    pub fn settle(&mut self) {
        fn place(record: &PlannedRecord) -> (&str, bool, &str) {
            (&record.record_id, record.source_bytes.is_none(), &record.source_path)
        }
        self.records.sort_by(|a, b| place(a).cmp(&place(b)));
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
                    error: "this identifier is listed twice; the one whose file is there, else the first, is taken"
                        .to_owned(),
                });
            }
            repeats
        });
    }

    /// Checks that every record has a label, or none, for each finding.
    ///
    /// # Errors
    /// Names the first record that has not.
    pub fn check(&self) -> Result<()> {
        let findings = self.findings.len();
        let wrong = self.records.iter().find(|record| record.labels.len() != findings);
        wrong.map_or(Ok(()), |record| {
            Err(Error::Labels { record_id: record.record_id.clone(), labels: record.labels.len(), findings })
        })
    }

    /// Digest of everything the plan says, to notice that the input changed between two runs.
    pub fn sha256(&self) -> String {
        let mut digest = Sha256::new();
        let records: Vec<[u8; 32]> = self.records.par_iter().map(PlannedRecord::sha256).collect();
        digest.update(records.as_flattened());
        for reject in &self.rejects {
            digest.update(format!("{reject:?}\n"));
        }
        digest.update(self.findings.join("\n"));
        dataset::store::files::hex(&digest.finalize())
    }
}

/// The label codes of one table row, in the order of `findings`.
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

/// A label code as the field's tables write it: `1.0`, `0`, `-1.0`, empty.
pub(crate) fn label_code(text: Option<&str>) -> Option<i8> {
    match text?.trim().parse::<f32>() {
        Ok(1.0) => Some(1),
        Ok(0.0) => Some(0),
        Ok(-1.0) => Some(dataset::Label::Uncertain.code()),
        _ => None,
    }
}

/// As [`label_code`], for tables of which nothing is known.
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
    fn a_settled_plan_is_in_order_and_every_finding_has_its_label() {
        let record = |id: &str, bytes| PlannedRecord {
            record_id: id.to_owned(),
            source_path: format!("{id}-{bytes:?}"),
            source_bytes: bytes,
            labels: vec![None],
            ..PlannedRecord::default()
        };
        let records = vec![record("b", None), record("a", None), record("b", Some(1))];
        let mut plan = Plan { records, findings: vec!["Edema".to_owned()], ..Plan::default() };
        plan.settle();
        let paths: Vec<_> = plan.records.iter().map(|record| record.source_path.as_str()).collect();
        assert_eq!(paths, ["a-None", "b-Some(1)"], "the record whose file is there is kept");
        assert_eq!(plan.rejects.len(), 1);
        assert!(plan.check().is_ok());
        plan.records.push(PlannedRecord { patient_id: "a\u{1b}[2J".to_owned(), ..record("c", None) });
        plan.settle();
        assert_eq!(plan.records.len(), 2);
        assert_eq!(plan.rejects[1].error, "`patient_id` holds the control character U+001B");
        plan.records[1].labels.clear();
        assert!(plan.check().unwrap_err().to_string().starts_with("b: 0 labels for 1 findings"));
    }
}
