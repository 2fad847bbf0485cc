//! Compares a plan with the finished dataset of an earlier plan. No file of the input is read: the columns of the dataset are
//! compared with the tables and the list of files as they are now.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use arrow_array::{Float32Array, StringArray};
use dataset::format::manifest::{Manifest, REJECTS};
use dataset::format::table::{self, column};
use dataset::{Dataset, Label, Storage};

use crate::error::Result;
use crate::reject::Reject;
use crate::run::hashing_reader::count_and_names;
use crate::run::options::ReportText;
use crate::run::plan::{Plan, PlannedRecord, ReportSource};

/// How the input changed, in words.
///
/// # Errors
/// When the dataset cannot be read.
pub fn difference(raw: &Path, storage: &Storage, manifest: &Manifest, plan: &Plan) -> Result<String> {
    let rows = Rows::read(storage, manifest)?;
    let (before, rejected) = rejected(storage)?;
    let has_images = manifest.arguments.get("no_images") != Some(&serde_json::Value::Bool(true));
    let (mut added, mut missing) = (Vec::new(), Vec::new());
    let mut columns: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut seen = HashSet::new();
    for record in &plan.records {
        let path = || plan.path_names.stored(&record.source_path);
        let Some(&row) = rows.by_id.get(record.record_id.as_str()) else {
            if !rejected.contains(&record.record_id) {
                added.push(path());
            }
            continue;
        };
        seen.insert(row);
        if has_images && record.source_bytes.is_none() && !raw.join(&record.source_path).exists() {
            missing.push(path());
        }
        for name in rows.differing(row, record, &path(), plan) {
            columns.entry(name).or_default().push(record.record_id.clone());
        }
    }
    let gone: Vec<String> =
        (0..rows.paths.len()).filter(|row| !seen.contains(row)).map(|row| rows.paths[row].clone()).collect();
    let mut differences: Vec<String> = Vec::new();
    let mut add = |names: &[String], noun: &str, what: &str| {
        if !names.is_empty() {
            differences.push(count_and_names(names, noun) + what);
        }
    };
    add(&added, "input", " added");
    add(&gone, "input", " no longer listed");
    add(&missing, "image file", " missing");
    for (column, records) in &columns {
        add(records, "record", &format!(" with another {column}"));
    }
    if plan.findings != manifest.labels {
        differences.push(format!("the findings were {}, are {}", manifest.labels.join(", "), plan.findings.join(", ")));
    }
    if differences.is_empty() {
        let line = |reject: &Reject| format!("{}: {}", plan.path_names.stored(&reject.source_path), reject.error);
        let now: BTreeSet<String> = plan.rejects.iter().map(line).collect();
        let differing: Vec<String> = now.difference(&before).cloned().collect();
        if !differing.is_empty() {
            differences.push(format!("{} rejected now and not before", count_and_names(&differing, "input")));
        }
    }
    Ok(if differences.is_empty() {
        "files of another size, or other reports or rejects".to_owned()
    } else {
        differences.join("; ")
    })
}

/// `path: error` of each reject of a dataset, and the identifiers of the rejected records.
fn rejected(storage: &Storage) -> Result<(BTreeSet<String>, HashSet<String>)> {
    let (mut lines, mut records) = (BTreeSet::new(), HashSet::new());
    for batch in table::from_parquet(&storage.path(REJECTS), storage.read(REJECTS)?)? {
        let text = |name: &str| column::<StringArray>(&batch, name);
        if let (Some(paths), Some(errors), Some(ids)) = (text("source_path"), text("error"), text("record_id")) {
            lines.extend((0..batch.num_rows()).map(|row| format!("{}: {}", paths.value(row), errors.value(row))));
            records.extend(ids.iter().flatten().map(str::to_owned));
        }
    }
    Ok((lines, records))
}

/// The columns of a dataset that are compared.
struct Rows {
    by_id: HashMap<String, usize>,
    paths: Vec<String>,
    texts: HashMap<&'static str, Vec<Option<String>>>,
    ages: Vec<Option<f32>>,
    labels: Vec<Vec<Option<i8>>>,
    /// Whether the column `report` has whole reports.
    has_whole_reports: bool,
    findings: Vec<String>,
}

/// Text columns whose values a plan decides.
const TEXTS: [&str; 8] = ["patient_id", "study_id", "image_id", "subset", "study_datetime", "view", "sex", "report"];

/// Label codes by record and finding.
fn codes(labels: Vec<Vec<Option<Label>>>) -> Vec<Vec<Option<i8>>> {
    labels.into_iter().map(|row| row.into_iter().map(|label| label.map(Label::code)).collect()).collect()
}

impl Rows {
    fn read(storage: &Storage, manifest: &Manifest) -> Result<Self> {
        let dataset = Dataset::open_in(storage.clone())?;
        let required = |name: &str| -> Result<Vec<String>> {
            Ok(dataset.texts(name)?.into_iter().map(Option::unwrap_or_default).collect())
        };
        let by_id = required("record_id")?.into_iter().enumerate().map(|(row, id)| (id, row)).collect();
        let mut texts = HashMap::new();
        for name in TEXTS {
            texts.insert(name, dataset.texts(name)?);
        }
        let mut ages = Vec::new();
        for batch in dataset.columns(&["age_years"])? {
            let found = column::<Float32Array>(&batch, "age_years");
            ages.extend(found.into_iter().flat_map(|ages| ages.iter().collect::<Vec<_>>()));
        }
        Ok(Self {
            by_id,
            paths: required("source_path")?,
            texts,
            ages,
            labels: codes(dataset.labels()?),
            has_whole_reports: manifest.text.report_text == ReportText::All.name(),
            findings: manifest.labels.clone(),
        })
    }

    /// The columns for which the plan has another value now. Columns that the plan leaves to the DICOM header are not compared.
    fn differing(&self, row: usize, record: &PlannedRecord, path: &str, plan: &Plan) -> Vec<&'static str> {
        let text = |name: &str| self.texts.get(name).and_then(|values| values.get(row)).and_then(Option::as_deref);
        let fixed = |name: &str, value: &str| text(name) != Some(value);
        let stated = |name: &str, value: &Option<String>| value.is_some() && text(name) != value.as_deref();
        let report = match &record.report {
            ReportSource::None => text("report").is_some(),
            ReportSource::Text(found) | ReportSource::Sections { text: found, .. } => {
                self.has_whole_reports && text("report").unwrap_or_default() != found.trim()
            }
            ReportSource::File(_) => false,
        };
        let age = record.age_years.is_some() && self.ages.get(row).copied().flatten() != record.age_years;
        let labels = self.findings == plan.findings && self.labels.get(row) != Some(&record.labels);
        let all = [
            ("source_path", self.paths[row] != path),
            ("patient_id", fixed("patient_id", &record.patient_id)),
            ("study_id", fixed("study_id", &record.study_id)),
            ("image_id", fixed("image_id", &record.image_id)),
            ("subset", text("subset") != record.subset.as_deref()),
            ("study_datetime", text("study_datetime") != record.study_datetime.as_deref()),
            ("view", stated("view", &record.view)),
            ("sex", stated("sex", &record.sex)),
            ("age", age),
            ("label", labels),
            ("report", report),
        ];
        all.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }
}
