//! What a source will give, before any pixel is read: one entry a radiograph, in the order in which they are stored.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use dataset::record::BoundingBox;
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::error::{Error, Reject, Result, Stage};
use crate::mask::Runs;
use crate::report::Conclusion;

/// A kind of raw directory. A user's own source implements this and hands its plan to [`crate::run()`].
pub trait Source: Sync {
    /// Name, first part of every record's identifier.
    fn name(&self) -> &'static str;

    /// Lists what the raw directory holds.
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
    /// Sorts records by identifier, so that neither the file system's order nor a table's matters, and rejects repeats.
    /// Of several records of one identifier the one whose file is there comes first.
    pub fn settle(&mut self) {
        fn place(record: &PlannedRecord) -> (&str, bool, &str) {
            (&record.record_id, record.source_bytes.is_none(), &record.source_path)
        }
        self.records.sort_by(|a, b| place(a).cmp(&place(b)));
        let rejects = &mut self.rejects;
        self.records.dedup_by(|record, first| {
            let repeats = record.record_id == first.record_id;
            if repeats {
                rejects.push(Reject {
                    source_path: record.source_path.clone(),
                    record_id: Some(record.record_id.clone()),
                    stage: Stage::Plan,
                    error: "this identifier is listed twice; the first one is taken".to_owned(),
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
        dataset::files::hex(&digest.finalize())
    }
}

/// Files below a folder, by path relative to `raw`, with their sizes; folders that cannot be read become rejects.
pub struct Listing {
    pub files: BTreeMap<String, u64>,
    pub rejects: Vec<Reject>,
}

impl Listing {
    /// Walks `folder`, keeping files whose extension (lower case) is one of `extensions`. Links to folders are not
    /// followed: they may lead in a circle.
    pub fn walk(raw: &Path, folder: &Path, extensions: &[&str]) -> Self {
        let wanted = |path: &Path| extension(path).is_some_and(|found| extensions.contains(&found.as_str()));
        Self::walk_where(raw, folder, &wanted)
    }

    /// Walks `folder`, keeping the files that are `wanted`.
    pub fn walk_where(raw: &Path, folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Self {
        let mut listing = Self { files: BTreeMap::new(), rejects: Vec::new() };
        listing.visit(raw, folder, wanted);
        listing.rejects.sort_by(|a, b| a.source_path.cmp(&b.source_path));
        listing
    }

    fn visit(&mut self, raw: &Path, folder: &Path, is_wanted: &dyn Fn(&Path) -> bool) {
        let relative = |path: &Path| path.strip_prefix(raw).unwrap_or(path).to_string_lossy().into_owned();
        let rejects = &mut self.rejects;
        let mut lost = |path: &Path, error: std::io::Error| {
            let (source_path, error) = (relative(path), error.to_string());
            rejects.push(Reject { source_path, record_id: None, stage: Stage::Plan, error });
        };
        let files = &mut self.files;
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return lost(folder, error),
        };
        let mut folders = Vec::new();
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    lost(folder, error);
                    continue;
                }
            };
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(_) if is_wanted(&path) => match std::fs::metadata(&path) {
                    Ok(found) => drop(files.insert(relative(&path), found.len())),
                    Err(error) => lost(&path, error),
                },
                Ok(_) => {}
                Err(error) => lost(&path, error),
            }
        }
        for folder in folders {
            self.visit(raw, &folder, is_wanted);
        }
    }

    /// The first file below a folder whose extension (in any case) is one of `extensions`, if there is one.
    pub fn walk_until_first(folder: &Path, extensions: &[&str]) -> Option<PathBuf> {
        let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
        entries.sort();
        let is_wanted = |path: &PathBuf| {
            let extension = path.extension().unwrap_or_default();
            extensions.iter().any(|wanted| extension.eq_ignore_ascii_case(wanted)) && path.is_file()
        };
        entries.iter().find(|path| is_wanted(path)).cloned().or_else(|| {
            entries.iter().filter(|path| path.is_dir()).find_map(|path| Self::walk_until_first(path, extensions))
        })
    }
}

/// Whether a path that a table states stays inside the directory it is taken from.
pub fn is_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// The label codes of one table row, in the order of `findings`.
///
/// # Errors
/// A sentence that names the first value that is no label.
pub fn label_codes<'a>(
    findings: &[String],
    values: impl IntoIterator<Item = Option<&'a str>>,
) -> Result<Vec<Option<i8>>, String> {
    let code = |(finding, value)| checked_label_code(value).map_err(|error| format!("column `{finding}`: {error}"));
    findings.iter().zip(values).map(code).collect()
}

/// The name of a file without folder and extension.
pub fn stem(path: &str) -> String {
    Path::new(path).file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// A file's extension in lower case.
pub fn extension(path: &Path) -> Option<String> {
    Some(path.extension()?.to_string_lossy().to_ascii_lowercase())
}

/// A label code as the field's tables write it: `1.0`, `0`, `-1.0`, empty.
pub fn label_code(text: Option<&str>) -> Option<i8> {
    match text?.trim().parse::<f32>() {
        Ok(1.0) => Some(1),
        Ok(0.0) => Some(0),
        Ok(-1.0) => Some(dataset::record::UNCERTAIN),
        _ => None,
    }
}

/// As [`label_code`], for tables of which nothing is known.
///
/// # Errors
/// When a value is neither empty nor one of the codes.
pub fn checked_label_code(text: Option<&str>) -> Result<Option<i8>, String> {
    match (text.map(str::trim).filter(|text| !text.is_empty()), label_code(text)) {
        (Some(text), None) => Err(format!("`{text}` is none of 1, 0, -1 and empty")),
        (_, code) => Ok(code),
    }
}
