//! Open-i, the chest X-ray collection of Indiana University: an XML file for each report (`ecgen-radiology/N.xml`), and images
//! with the identifiers in it as names (`CXR2_IM-0652-1001.png`, or the DICOM files `2/2_IM-0652-1001.dcm`).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use crate::dicom::limits::MAX_REPORT_BYTES;
use crate::error::{Error, Result};
use crate::file_system::{failed, is_refusal, retry};
use crate::reject::{Reject, Stage};
use crate::report::sections::Section;
use crate::run::hashing_reader::{self, Hashing};
use crate::run::plan::{Plan, PlannedRecord, Source};
use crate::sources::shared::label_origins::INDEXER;
use crate::sources::shared::report_sections;
use crate::sources::shared::table::decode_text;
use crate::sources::shared::walk::{Walk, extension, stem};

/// The sections in the order in which they are written into the text of a record.
const SECTIONS: [&str; 4] = ["comparison", "indication", "findings", "impression"];
const IMAGES: [&str; 4] = ["png", "jpg", "jpeg", "dcm"];
/// The index term of a normal chest, and that of a report that was not indexed.
const NORMAL: &str = "normal";
const NOT_INDEXED: &str = "no indexing";
const NO_FINDING: &str = "No Finding";

/// The source `openi`.
pub struct OpenI {
    /// Make a record of each report without images (`--no-images`).
    pub reports_alone: bool,
}

impl Source for OpenI {
    fn name(&self) -> &'static str {
        "openi"
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let walk = Walk::of(raw, raw, &[&["xml"], IMAGES.as_slice()].concat())?;
        let mut plan = Plan { rejects: walk.rejects, ..Plan::default() };
        let is_report = |path: &String| extension(Path::new(path)).as_deref() == Some("xml");
        let (reports, images): (BTreeMap<_, _>, BTreeMap<_, _>) =
            walk.files.into_iter().partition(|(path, _)| is_report(path));
        if reports.is_empty() {
            return Err(Error::MissingTable {
                folder: raw.to_path_buf(),
                wanted: "report (*.xml)".to_owned(),
                remedy: "give the directory that contains `ecgen-radiology/` and the images of Open-i".to_owned(),
            });
        }
        let mut read = Vec::new();
        for path in reports.into_keys() {
            match retry(|| hashing_reader::read(&raw.join(&path), MAX_REPORT_BYTES, Hashing::default())) {
                Ok((bytes, _)) => match parse(&decode_text(bytes)) {
                    Ok(report) => read.push((path, report)),
                    Err(error) => plan.rejects.push(rejected(path, None, Stage::Table, error)),
                },
                // The findings are the terms of all reports, so all reports must be read.
                Err(error) if is_refusal(&error) => return Err(failed(&raw.join(&path))(error)),
                Err(error) => plan.rejects.push(rejected(path, None, Stage::Read, error.to_string())),
            }
        }
        let named = read.iter().flat_map(|(_, report)| &report.images).map(String::as_str).collect();
        let mut files = ImageFiles::of(images, &named);
        let (findings, spelling) = vocabulary(&read);
        for (path, report) in read {
            let labels = labels(&report, &findings, &spelling);
            let sections = report.sections.iter().map(|section| (section.name.clone(), section.text.clone()));
            let text = report_sections::report(sections);
            let record = |image_id: String, source_path: String, source_bytes| PlannedRecord {
                record_id: format!("openi/{image_id}"),
                patient_id: report.number.clone(),
                study_id: report.number.clone(),
                image_id,
                source_path,
                source_bytes,
                labels: labels.clone(),
                label_origin: report.terms.as_ref().map(|_| INDEXER.to_owned()),
                report: text.clone(),
                language: Some("en".to_owned()),
                ..PlannedRecord::default()
            };
            if report.images.is_empty() {
                let image_id = format!("CXR{}", report.number);
                if self.reports_alone {
                    plan.records.push(record(image_id, path, None));
                } else {
                    let record_id = Some(format!("openi/{image_id}"));
                    let error = "the report lists no image, so it has no record".to_owned();
                    plan.rejects.push(rejected(path, record_id, Stage::Report, error));
                }
                continue;
            }
            for image in report.images {
                let (path, bytes) = files.take(&image);
                plan.records.push(record(image, path, bytes));
            }
        }
        let duplicate = "another file of this image is used";
        let unlisted =
            files.by_id.into_values().map(|(path, _)| (path, "no report lists this image, so it has no record"));
        for (path, error) in unlisted.chain(files.duplicates.into_iter().map(|path| (path, duplicate))) {
            plan.rejects.push(rejected(path, None, Stage::Plan, error.to_owned()));
        }
        plan.findings = findings;
        plan.finalize();
        Ok(plan)
    }
}

fn rejected(source_path: String, record_id: Option<String>, stage: Stage, error: String) -> Reject {
    Reject { source_path, record_id, stage, error }
}

/// The image files by the identifiers of the reports.
struct ImageFiles {
    by_id: BTreeMap<String, (String, u64)>,
    /// Further files of the same identifier.
    duplicates: Vec<String>,
    /// Folder and extension of the first image, for the expected path of a missing one.
    pattern: (String, String),
}

impl ImageFiles {
    /// Assigns the files to identifiers; `named` are those of the reports.
    fn of(images: BTreeMap<String, u64>, named: &HashSet<&str>) -> Self {
        let pattern = images.keys().next().map(|path| {
            let folder = path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
            (folder, extension(Path::new(path)).unwrap_or_default())
        });
        let (mut by_id, mut duplicates) = (BTreeMap::new(), Vec::new());
        for (path, bytes) in images {
            let stem = stem(&path);
            // The name of a DICOM file lacks a part: `2_IM-0652-1001` is `CXR2_IM-0652-1001`, but `1_IM-0001-3001` is
            // `CXR1_1_IM-0001-3001`.
            let id = match stem.split_once('_') {
                Some((number, _)) if number.bytes().all(|byte| byte.is_ascii_digit()) => {
                    let long = format!("CXR{number}_{stem}");
                    if named.contains(long.as_str()) { long } else { format!("CXR{stem}") }
                }
                _ => stem,
            };
            match by_id.entry(id) {
                Entry::Vacant(place) => {
                    place.insert((path, bytes));
                }
                Entry::Occupied(_) => duplicates.push(path),
            }
        }
        let pattern = pattern.unwrap_or_else(|| ("NLMCXR_png/".to_owned(), "png".to_owned()));
        Self { by_id, duplicates, pattern }
    }

    /// Path and size of the file of an image, or its expected path.
    fn take(&mut self, id: &str) -> (String, Option<u64>) {
        let expected = || (format!("{}{id}.{}", self.pattern.0, self.pattern.1), None);
        self.by_id.remove(id).map_or_else(expected, |(path, bytes)| (path, Some(bytes)))
    }
}

/// One XML file.
#[derive(Debug, PartialEq)]
struct ReportFile {
    /// `1` of `CXR1`.
    number: String,
    sections: Vec<Section>,
    /// Main index terms without their qualifiers; `None` where the report was not indexed.
    terms: Option<BTreeSet<String>>,
    images: Vec<String>,
}

/// Parses a report.
fn parse(text: &str) -> Result<ReportFile, String> {
    let tree = roxmltree::Document::parse(text).map_err(|error| format!("malformed XML: {error}"))?;
    let named = |name: &'static str| tree.descendants().filter(move |node| node.has_tag_name(name));
    let identifier = named("uId").find_map(|node| node.attribute("id")).unwrap_or_default();
    let number = identifier.strip_prefix("CXR").unwrap_or(identifier).trim();
    if number.is_empty() {
        return Err("the report has no `uId`".to_owned());
    }
    let content = |node: roxmltree::Node| {
        let text: String =
            node.descendants().filter_map(|part| if part.is_text() { part.text() } else { None }).collect();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let section = |name: &str| {
        let is_it = |node: &roxmltree::Node| node.attribute("Label").is_some_and(|own| own.eq_ignore_ascii_case(name));
        let text = named("AbstractText").filter(is_it).map(content).filter(|text| !text.is_empty());
        let text = text.collect::<Vec<_>>().join(" ");
        (!text.is_empty()).then(|| Section { name: name.to_owned(), text })
    };
    let head = |term: String| term.split('/').next().unwrap_or_default().trim().to_owned();
    let terms: BTreeSet<String> = named("major").map(content).map(head).filter(|term| !term.is_empty()).collect();
    let is_indexed = !terms.is_empty() && !terms.iter().any(|term| term.eq_ignore_ascii_case(NOT_INDEXED));
    let images = named("parentImage").filter_map(|node| node.attribute("id")).map(|id| id.trim().to_owned());
    Ok(ReportFile {
        number: number.to_owned(),
        sections: SECTIONS.iter().filter_map(|name| section(name)).collect(),
        terms: is_indexed.then_some(terms),
        images: images.filter(|id| !id.is_empty()).collect(),
    })
}

/// The findings, sorted, and the index of the finding of each term in lower case. Terms that differ only in capitals are one
/// finding, in the spelling that sorts first.
fn vocabulary(reports: &[(String, ReportFile)]) -> (Vec<String>, HashMap<String, usize>) {
    let terms: BTreeSet<&String> = reports.iter().filter_map(|(_, report)| report.terms.as_ref()).flatten().collect();
    let mut spellings: BTreeMap<String, &str> = BTreeMap::new();
    for term in terms {
        let name = if term.eq_ignore_ascii_case(NORMAL) { NO_FINDING } else { term };
        spellings.entry(term.to_lowercase()).or_insert(name);
    }
    let findings: BTreeSet<&str> = spellings.values().copied().collect();
    let findings: Vec<String> = findings.into_iter().map(str::to_owned).collect();
    let place = |name: &str| findings.iter().position(|finding| finding == name);
    let places = spellings.iter().filter_map(|(term, name)| Some((term.clone(), place(name)?))).collect();
    (findings, places)
}

/// Label codes: 1 for the terms of the report, 0 for the rest; null for all if the report was not indexed.
fn labels(report: &ReportFile, findings: &[String], places: &HashMap<String, usize>) -> Vec<Option<i8>> {
    let Some(terms) = &report.terms else { return vec![None; findings.len()] };
    let named: BTreeSet<usize> = terms.iter().filter_map(|term| places.get(&term.to_lowercase()).copied()).collect();
    (0..findings.len()).map(|finding| Some(i8::from(named.contains(&finding)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"<?xml version="1.0" encoding="utf-8"?>
        <eCitation><uId id="CXR12"/><Abstract>
        <AbstractText Label="COMPARISON"/>
        <AbstractText Label="FINDINGS">Heart &gt; normal.
            No effusion.</AbstractText>
        <AbstractText Label="IMPRESSION"> Big heart. </AbstractText></Abstract>
        <MeSH><major>Cardiomegaly/mild</major><major>Opacity/lung/base/left</major><automatic>heart</automatic></MeSH>
        <parentImage id="CXR12_IM-0001-1001"><caption>PA</caption></parentImage></eCitation>"#;

    #[test]
    fn sections_terms_and_images_are_parsed() {
        let report = parse(REPORT).unwrap();
        let section = |name: &str, text: &str| Section { name: name.to_owned(), text: text.to_owned() };
        assert_eq!(
            report.sections,
            [section("findings", "Heart > normal. No effusion."), section("impression", "Big heart.")]
        );
        assert_eq!((report.number.as_str(), report.images), ("12", vec!["CXR12_IM-0001-1001".to_owned()]));
        assert_eq!(report.terms.unwrap().into_iter().collect::<Vec<_>>(), ["Cardiomegaly", "Opacity"]);
        assert!(parse(&REPORT[..200]).unwrap_err().starts_with("malformed XML"));
        assert!(parse("<eCitation/>").is_err());
        // Document types are an error, so no entity is expanded.
        assert!(parse("<!DOCTYPE a [<!ENTITY b \"bb\">]><a>&b;</a>").is_err());
    }

    #[test]
    fn terms_become_labels() {
        let report = |terms: &str| {
            parse(&REPORT.replace("Cardiomegaly/mild", terms).replace("Opacity/lung/base/left", "")).unwrap()
        };
        let all =
            ["normal", "Lymph Nodes/x", "Lymph nodes", "No Indexing", "Hernia"].map(|t| (String::new(), report(t)));
        let (findings, places) = vocabulary(&all);
        assert_eq!(findings, ["Hernia", "Lymph Nodes", "No Finding"]);
        let codes: Vec<_> = all.iter().map(|(_, report)| labels(report, &findings, &places)).collect();
        assert_eq!(codes[0], [Some(0), Some(0), Some(1)]);
        assert_eq!(codes[1], codes[2]);
        assert_eq!(codes[3], [None; 3]);
        assert_eq!(codes[4], [Some(1), Some(0), Some(0)]);
    }

    #[test]
    fn dicom_and_png_names_mean_the_same_image() {
        let paths = ["dcm/1/1_IM-0001-3001.dcm", "dcm/2/2_IM-0652-1001.dcm", "png/CXR3_IM-1384-1001.png"];
        let ids = ["CXR1_1_IM-0001-3001", "CXR2_IM-0652-1001", "CXR3_IM-1384-1001"];
        let files = ImageFiles::of(paths.map(|path| (path.to_owned(), 5)).into(), &ids.into());
        assert_eq!(files.by_id.keys().map(String::as_str).collect::<Vec<_>>(), ids);
    }
}
