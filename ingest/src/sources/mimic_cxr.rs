//! MIMIC-CXR and MIMIC-CXR-JPG: `files/p10/p10000032/s50414267/<dicom_id>.dcm|jpg`, reports beside the study folders or
//! below `mimic-cxr-reports/`, tables `mimic-cxr-<version>-{metadata,split,chexpert|negbio}.csv[.gz]`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use polars::prelude::{IntoLazy, JoinArgs, JoinType, LazyFrame, MaintainOrderJoin, col};

use crate::error::{Error, Reject, Result};
use crate::plan::{Listing, Plan, PlannedRecord, ReportSource, Source, label_code};
use crate::table::{Table, texts, texts_or_null};

/// Columns of the label tables that are no finding.
const KEYS: [&str; 2] = ["subject_id", "study_id"];
const IMAGES: [&str; 4] = ["dcm", "jpg", "jpeg", "png"];

/// The source `mimic-cxr`.
pub struct MimicCxr;

impl Source for MimicCxr {
    fn name(&self) -> &'static str {
        "mimic-cxr"
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let remedy = "give the directory that holds `files/` and the tables of MIMIC-CXR or MIMIC-CXR-JPG".to_owned();
        let missing = |wanted: &str| Error::MissingTable {
            folder: raw.to_path_buf(),
            wanted: wanted.to_owned(),
            remedy: remedy.clone(),
        };
        let metadata = find_table(raw, "metadata")?.ok_or_else(|| missing("mimic-cxr-*-metadata.csv[.gz]"))?;
        let metadata = Table::read(raw, &metadata, &["dicom_id", "subject_id", "study_id"])?;
        let mut rejects = metadata.rejects;
        // What nothing asks for is not carried through the joins.
        let mut names = metadata.frame.get_column_names_owned();
        names.retain(|name| ["dicom_id", "subject_id", "study_id", "ViewPosition"].contains(&name.as_str()));
        let mut joined = metadata.frame.select(names)?.lazy();
        let left = || JoinArgs { maintain_order: MaintainOrderJoin::Left, ..JoinArgs::new(JoinType::Left) };
        if let Some(path) = find_table(raw, "split")? {
            let split = Table::read(raw, &path, &["dicom_id", "split"])?;
            rejects.extend(split.rejects);
            let split = once(split.frame.lazy(), "dicom_id").select([col("dicom_id"), col("split")]);
            joined = joined.join(split, [col("dicom_id")], [col("dicom_id")], left());
        }
        let mut findings = Vec::new();
        let labels = match find_table(raw, "chexpert")? {
            Some(path) => Some(path),
            None => find_table(raw, "negbio")?,
        };
        if let Some(path) = labels {
            let labels = Table::read(raw, &path, &KEYS)?;
            rejects.extend(labels.rejects);
            let names = labels.frame.get_column_names_owned();
            findings =
                names.into_iter().map(|name| name.to_string()).filter(|name| !KEYS.contains(&name.as_str())).collect();
            let chosen: Vec<_> = std::iter::once(col("study_id")).chain(findings.iter().map(col)).collect();
            let labels = once(labels.frame.lazy(), "study_id").select(chosen);
            joined = joined.join(labels, [col("study_id")], [col("study_id")], left());
        }
        let table = joined.collect()?;

        let listing = Listing::walk(raw, &raw.join("files"), &IMAGES);
        if listing.files.is_empty() {
            let message = "no image below `files/`".to_owned();
            return Err(Error::Empty { path: raw.to_path_buf(), message });
        }
        rejects.extend(listing.rejects);
        let mut files = listing.files;
        let report_root = report_root(raw);
        let extension = majority_extension(&files);

        let codes = |finding: &String| Ok(texts(&table, finding)?.into_iter().map(label_code).collect::<Vec<_>>());
        let label_columns = findings.iter().map(codes).collect::<Result<Vec<_>>>()?;
        let (dicom, subject, study) =
            (texts(&table, "dicom_id")?, texts(&table, "subject_id")?, texts(&table, "study_id")?);
        let (split, view) = (texts_or_null(&table, "split"), texts_or_null(&table, "ViewPosition"));
        let by_stem = stems(&files);
        let mut listed: BTreeSet<String> = BTreeSet::new();
        let mut records = Vec::new();
        for row in 0..table.height() {
            let (Some(dicom), Some(subject), Some(study)) = (dicom[row], subject[row], study[row]) else {
                let error = "dicom_id, subject_id or study_id is empty";
                rejects.push(Reject::row(&metadata.name, row, error));
                continue;
            };
            let patient_folder = format!("files/p{}/p{subject}", subject.get(..2).unwrap_or(subject));
            let source_path =
                by_stem.get(dicom).cloned().unwrap_or_else(|| format!("{patient_folder}/s{study}/{dicom}.{extension}"));
            listed.insert(source_path.clone());
            records.push(PlannedRecord {
                record_id: format!("mimic-cxr/{dicom}"),
                patient_id: subject.to_owned(),
                study_id: study.to_owned(),
                image_id: dicom.to_owned(),
                source_bytes: files.get(&source_path).copied(),
                source_path,
                subset: split[row].map(str::to_owned),
                view: view[row].map(str::to_owned),
                labels: label_columns.iter().map(|column| column[row]).collect(),
                report: match &report_root {
                    Some(root) => ReportSource::File(root.join(format!("{patient_folder}/s{study}.txt"))),
                    None => ReportSource::None,
                },
                ..PlannedRecord::default()
            });
        }
        files.retain(|path, _| !listed.contains(path));
        rejects.extend(files.into_keys().map(Reject::unlisted));
        let mut plan = Plan { records, rejects, findings };
        plan.settle();
        Ok(plan)
    }
}

/// One row a key: a repeated key would multiply images in a join.
fn once(table: LazyFrame, key: &str) -> LazyFrame {
    table.unique_stable(Some(polars::prelude::by_name([key], true, false)), polars::prelude::UniqueKeepStrategy::First)
}

/// `mimic-cxr-<version>-<name>.csv` or `.csv.gz`, any version, the newest first.
fn find_table(raw: &Path, name: &str) -> Result<Option<PathBuf>> {
    let endings = [format!("-{name}.csv"), format!("-{name}.csv.gz")];
    let mut found: Vec<PathBuf> = std::fs::read_dir(raw)
        .map_err(Error::io(raw))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.starts_with("mimic-cxr") && endings.iter().any(|ending| file.ends_with(ending.as_str()))
        })
        .collect();
    found.sort();
    Ok(found.pop())
}

/// Where `files/pNN/…/sNN.txt` lie, if there are reports at all.
fn report_root(raw: &Path) -> Option<PathBuf> {
    ["", "mimic-cxr-reports", "reports"].into_iter().map(PathBuf::from).find(|root| {
        let reports = Listing::walk_until_first(&raw.join(root).join("files"), "txt");
        reports.is_some()
    })
}

fn stems(files: &BTreeMap<String, u64>) -> HashMap<String, String> {
    let stem = |path: &str| Path::new(path).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    files.keys().rev().filter_map(|path| Some((stem(path)?, path.clone()))).collect()
}

/// What a missing file would most likely have been called.
fn majority_extension(files: &BTreeMap<String, u64>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for path in files.keys() {
        let extension = Path::new(path).extension().map_or_else(String::new, |e| e.to_string_lossy().into_owned());
        *counts.entry(extension).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(_, count)| *count).map_or_else(|| "dcm".to_owned(), |(extension, _)| extension)
}
