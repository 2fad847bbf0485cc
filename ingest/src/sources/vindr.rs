//! VinDr-CXR and VinDr-PCXR: `train/*.dicom`, `test/*.dicom`, and for each part the tables `image_labels_PART.csv` and
//! `annotations_PART.csv` (a row for each box), in RAW_DIR, `annotations/` or the folder of the part. Several readers read each
//! training image of VinDr-CXR. The patients are not known, so each image counts as a patient.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use dataset::format::record::BoundingBox;

use crate::error::{Error, Result};
use crate::reject::{Reject, Stage};
use crate::run::plan::{Plan, PlannedReading, PlannedRecord, Source, label_codes};
use crate::sources::shared::files_by_name::files_by;
use crate::sources::shared::label_origins::{CONSENSUS, RADIOLOGIST};
use crate::sources::shared::table::{Table, find_table, texts, texts_or_null};
use crate::sources::shared::walk::{Walk, is_name, stem};

/// The parts of the sets, which are subsets.
const PARTS: [&str; 2] = ["train", "test"];
const IMAGES: [&str; 5] = ["dicom", "dcm", "png", "jpg", "jpeg"];
/// Columns of the label tables that are not findings. VinDr-PCXR spells the reader in another way.
const KEYS: [&str; 3] = ["image_id", "rad_id", "rad_ID"];
/// The class of the rows of images without a box.
const NO_FINDING: &str = "No finding";
/// A finding that the two tables of VinDr-CXR spell in two ways.
const RESPELLED: (&str, &str) = ("Other disease", "Other diseases");

/// How the labels of several readers become those of the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ReaderRule {
    /// Positive if any reader says so.
    Union,
    /// Positive if more than half of the readers say so.
    #[default]
    Majority,
    /// What all readers say; null where they differ. The column `readings` has the rest.
    List,
}

impl ReaderRule {
    /// Name in the manifest and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Union => "union",
            Self::Majority => "majority",
            Self::List => "list",
        }
    }

    /// The label that several readers give a finding.
    fn merge(self, codes: &[Option<i8>]) -> Option<i8> {
        let stated: Vec<i8> = codes.iter().copied().flatten().collect();
        let positive = stated.iter().filter(|code| **code == 1).count();
        match (self, stated.first()) {
            (_, None) => None,
            (Self::Union, _) => Some(i8::from(positive > 0)),
            (Self::Majority, _) => Some(i8::from(2 * positive > stated.len())),
            (Self::List, Some(first)) => stated.iter().all(|code| code == first).then_some(*first),
        }
    }
}

/// The source `vindr-cxr`.
#[derive(Clone, Debug, Default)]
pub struct VindrCxr {
    /// Ingest the tables without images.
    pub no_images: bool,
    /// The labels of images with several readers.
    pub readers: ReaderRule,
}

/// The source `vindr-pcxr`.
#[derive(Clone, Debug, Default)]
pub struct VindrPcxr {
    /// Ingest the tables without images.
    pub no_images: bool,
}

impl Source for VindrCxr {
    fn name(&self) -> &'static str {
        "vindr-cxr"
    }

    fn options(&self) -> BTreeMap<String, serde_json::Value> {
        BTreeMap::from([("readers".to_owned(), self.readers.name().into())])
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let plan = plan(self.name(), raw, self.no_images, self.readers)?;
        Ok(Plan { arguments: self.options(), ..plan })
    }
}

impl Source for VindrPcxr {
    fn name(&self) -> &'static str {
        "vindr-pcxr"
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        plan(self.name(), raw, self.no_images, ReaderRule::default())
    }
}

fn plan(source: &str, raw: &Path, no_images: bool, rule: ReaderRule) -> Result<Plan> {
    let mut plan = Plan::default();
    let mut tables = Vec::new();
    for part in PARTS {
        if let Some(path) = find(raw, part, &format!("image_labels_{part}"))? {
            let mut table = Table::read(raw, &path, &["image_id"])?;
            plan.rejects.append(&mut table.rejects);
            tables.push((part, table));
        }
    }
    if tables.is_empty() {
        return Err(Error::MissingTable {
            folder: raw.to_path_buf(),
            wanted: "image_labels_train.csv[.gz] or image_labels_test.csv[.gz]".to_owned(),
            remedy: "give the directory that contains `train/`, `test/` and the tables".to_owned(),
        });
    }
    let columns: BTreeSet<String> = tables.iter().flat_map(|(_, table)| finding_columns(table)).collect();
    let canonical = |column: &str| {
        let is_respelled = column == RESPELLED.0 && columns.contains(RESPELLED.1);
        if is_respelled { RESPELLED.1.to_owned() } else { column.to_owned() }
    };
    for column in tables.iter().flat_map(|(_, table)| finding_columns(table)) {
        let name = canonical(&column);
        if !plan.findings.contains(&name) {
            plan.findings.push(name);
        }
    }
    let mut files = BTreeMap::new();
    if !no_images {
        let walk = Walk::of(raw, raw, &IMAGES)?;
        plan.rejects.extend(walk.rejects);
        files = files_by(walk.files, stem, &mut plan.rejects);
    }
    for (part, table) in tables {
        let mut boxes = match find(raw, part, &format!("annotations_{part}"))? {
            Some(path) => boxes(raw, &path, &mut plan.rejects)?,
            None => HashMap::new(),
        };
        let images = readings(&table, &plan.findings, &canonical, &mut plan.rejects)?;
        for (image, read) in images {
            let found = files.remove(&image);
            let (source_path, source_bytes) =
                found.map_or_else(|| (format!("{part}/{image}.dicom"), None), |(path, bytes)| (path, Some(bytes)));
            let record_id = format!("{source}/{image}");
            let boxes = boxes.remove(&image).unwrap_or(Ok(Vec::new()));
            let (readings, boxes) = match (read, boxes) {
                (Ok(readings), Ok(boxes)) => (readings, boxes),
                (Err(error), _) | (_, Err(error)) => {
                    let record_id = Some(record_id);
                    plan.rejects.push(Reject { source_path, record_id, stage: Stage::Table, error });
                    continue;
                }
            };
            let by_reader = |finding| readings.iter().map(|reading| reading.labels[finding]).collect::<Vec<_>>();
            let has_reader = readings.iter().any(|reading| !reading.reader.is_empty());
            plan.records.push(PlannedRecord {
                record_id,
                patient_id: image.clone(),
                study_id: image.clone(),
                image_id: image,
                source_path,
                source_bytes,
                subset: Some(part.to_owned()),
                labels: (0..plan.findings.len()).map(|finding| rule.merge(&by_reader(finding))).collect(),
                label_origin: Some(if has_reader { RADIOLOGIST } else { CONSENSUS }.to_owned()),
                readings: if readings.len() > 1 { readings } else { Vec::new() },
                boxes,
                ..PlannedRecord::default()
            });
        }
        let mut unlisted: Vec<String> = boxes.into_keys().collect();
        unlisted.sort();
        plan.rejects.extend(unlisted.into_iter().map(|image| Reject {
            source_path: format!("{part}/{image}.dicom"),
            record_id: None,
            stage: Stage::Table,
            error: "the table of boxes has this image, that of labels does not; its boxes are ignored".to_owned(),
        }));
    }
    plan.rejects.extend(files.into_values().map(|(path, _)| Reject::unlisted(path)));
    plan.finalize();
    Ok(plan)
}

/// The table of a part, where the releases have it.
fn find(raw: &Path, part: &str, name: &str) -> Result<Option<PathBuf>> {
    for folder in [raw.to_path_buf(), raw.join("annotations"), raw.join(part)] {
        if let Some(path) = find_table(&folder, name)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn finding_columns(table: &Table) -> impl Iterator<Item = String> {
    let names = table.frame.get_column_names_owned().into_iter().map(|name| name.to_string());
    names.filter(|name| !KEYS.contains(&name.as_str()) && !name.is_empty())
}

/// The readers of a table's rows; all null where the table states none.
fn readers(table: &Table) -> Vec<Option<&str>> {
    let [first, second] = ["rad_id", "rad_ID"].map(|name| texts_or_null(&table.frame, name));
    first.into_iter().zip(second).map(|(first, second)| first.or(second)).collect()
}

/// The readings of each image, sorted by reader, or why they cannot be used: a missing one would change the labels.
fn readings(
    table: &Table,
    findings: &[String],
    canonical: &dyn Fn(&str) -> String,
    rejects: &mut Vec<Reject>,
) -> Result<BTreeMap<String, Result<Vec<PlannedReading>, String>>> {
    let (image, reader) = (texts(&table.frame, "image_id")?, readers(table));
    let mut named: HashMap<String, Vec<Option<&str>>> = finding_columns(table)
        .map(|column| Ok((canonical(&column), texts(&table.frame, &column)?)))
        .collect::<Result<_>>()?;
    // A table may lack a finding of the other one.
    let columns: Vec<Option<Vec<Option<&str>>>> = findings.iter().map(|finding| named.remove(finding)).collect();
    let mut rows: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for row in 0..table.frame.height() {
        match image[row] {
            Some(image) if is_name(image) => rows.entry(image).or_default().push(row),
            Some(_) => rejects.push(table.reject(row, "image_id is not a plain name")),
            None => rejects.push(table.reject(row, "image_id is empty")),
        }
    }
    let read = |rows: Vec<usize>| {
        let mut readings: Vec<PlannedReading> = Vec::with_capacity(rows.len());
        for row in rows {
            let labels = label_codes(findings, columns.iter().map(|column| column.as_ref()?[row]));
            let labels = labels.map_err(|error| format!("{}: {error}", table.place(row)))?;
            let reading = PlannedReading { reader: reader[row].unwrap_or_default().to_owned(), labels };
            match readings.iter().find(|before| before.reader == reading.reader) {
                // Equal rows count once.
                Some(before) if before.labels == reading.labels => {}
                Some(_) => {
                    return Err(format!("{}: the labels differ from an earlier row of this reader", table.place(row)));
                }
                None => readings.push(reading),
            }
        }
        readings.sort_by(|a, b| a.reader.cmp(&b.reader));
        Ok(readings)
    };
    Ok(rows.into_iter().map(|(image, rows)| (image.to_owned(), read(rows))).collect())
}

/// The boxes of each image, in raw pixels, or why they cannot be used.
fn boxes(
    raw: &Path,
    path: &Path,
    rejects: &mut Vec<Reject>,
) -> Result<HashMap<String, Result<Vec<BoundingBox>, String>>> {
    let mut table = Table::read(raw, path, &["image_id", "class_name", "x_min", "y_min", "x_max", "y_max"])?;
    rejects.append(&mut table.rejects);
    let (image, class, reader) =
        (texts(&table.frame, "image_id")?, texts(&table.frame, "class_name")?, readers(&table));
    let side = |name| texts(&table.frame, name);
    let corners = [side("x_min")?, side("y_min")?, side("x_max")?, side("y_max")?];
    let mut boxes: HashMap<String, Result<Vec<BoundingBox>, String>> = HashMap::new();
    for row in 0..table.frame.height() {
        let Some(image) = image[row] else {
            rejects.push(table.reject(row, "image_id is empty"));
            continue;
        };
        let of_image = boxes.entry(image.to_owned()).or_insert_with(|| Ok(Vec::new()));
        let found = rectangle(class[row], corners.each_ref().map(|column| column[row]), reader[row]);
        match (of_image.as_mut(), found) {
            (Ok(boxes), Ok(found)) => boxes.extend(found.filter(|found| !boxes.contains(found))),
            (Ok(_), Err(error)) => *of_image = Err(format!("{}: {error}", table.place(row))),
            (Err(_), _) => {}
        }
    }
    Ok(boxes)
}

/// The box of a row; `None` in a row that says that there is nothing.
fn rectangle(
    class: Option<&str>,
    corners: [Option<&str>; 4],
    reader: Option<&str>,
) -> Result<Option<BoundingBox>, String> {
    let class = class.ok_or("class_name is empty")?;
    if corners.iter().all(Option::is_none) && class == NO_FINDING {
        return Ok(None);
    }
    let number = |text: Option<&str>| text?.parse::<f32>().ok().filter(|number| number.is_finite());
    match corners.map(number) {
        [Some(left), Some(top), Some(right), Some(bottom)]
            if left >= 0.0 && top >= 0.0 && right > left && bottom > top =>
        {
            let (width, height) = (right - left, bottom - top);
            let (label, reader) = (class.to_owned(), reader.map(str::to_owned));
            Ok(Some(BoundingBox { label, x: left, y: top, width, height, reader, ..BoundingBox::default() }))
        }
        _ => Err(format!("x_min, y_min, x_max and y_max of `{class}` are not a box")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_merge_what_readers_say() {
        type Codes = &'static [Option<i8>];
        let cases: [(Codes, [Option<i8>; 3]); 5] = [
            (&[Some(1), Some(0), Some(0)], [Some(1), Some(0), None]),
            (&[Some(1), Some(1), Some(0)], [Some(1), Some(1), None]),
            (&[Some(0), Some(0)], [Some(0), Some(0), Some(0)]),
            (&[Some(1), Some(0)], [Some(1), Some(0), None]),
            (&[None, None], [None, None, None]),
        ];
        for (codes, merged) in cases {
            let rules = [ReaderRule::Union, ReaderRule::Majority, ReaderRule::List];
            assert_eq!(rules.map(|rule| rule.merge(codes)), merged, "{codes:?}");
        }
    }
}
