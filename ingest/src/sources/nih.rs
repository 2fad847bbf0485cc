//! NIH ChestX-ray14: `Data_Entry_2017.csv` or `_v2020.csv`, `images_001…012/images/*.png` or one flat folder,
//! `train_val_list.txt`, `test_list.txt`, `BBox_List_2017.csv`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::str::FromStr;

use dataset::format::record::BoundingBox;
use dataset::format::record_checks;

use crate::dicom::header::years;
use crate::dicom::limits::MAX_REPORT_BYTES;
use crate::error::{Error, Result};
use crate::file_system::{failed, is_file, retry};
use crate::reject::{Reject, Stage};
use crate::run::hashing_reader::{self, Hashing};
use crate::run::plan::{Plan, PlannedRecord, Source};
use crate::sources::shared::files_by_name::{files_by, name};
use crate::sources::shared::label_origins;
use crate::sources::shared::table::{Table, decode_text, tables, texts, texts_or_null};
use crate::sources::shared::walk::{Walk, is_inside};

/// The findings, in the order of the published lists, and `No Finding`.
const FINDINGS: [&str; 15] = [
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
    "No Finding",
];

/// Width, height, and distance of columns and of rows of the image that a file was resized from. Commas within the header's
/// brackets split its names.
const ORIGINAL: [&str; 4] = ["OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]"];

/// The source `nih`.
#[derive(Clone, Debug, Default)]
pub struct Nih {
    /// Ingest the tables without images.
    pub no_images: bool,
}

impl Source for Nih {
    fn name(&self) -> &'static str {
        "nih"
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        // The corrected table of 2020 sorts after that of 2017.
        let path =
            tables(raw, |name| name.starts_with("Data_Entry_2017"))?.pop().ok_or_else(|| Error::MissingTable {
                folder: raw.to_path_buf(),
                wanted: "Data_Entry_2017*.csv[.gz]".to_owned(),
                remedy: "give the directory of NIH ChestX-ray14".to_owned(),
            })?;
        let mut read = Table::read(raw, &path, &["Image Index", "Finding Labels", "Patient ID"])?;
        let mut rejects = std::mem::take(&mut read.rejects);
        let table = &read.frame;
        let mut files = BTreeMap::new();
        if !self.no_images {
            let walk = Walk::of(raw, raw, &["png"])?;
            rejects.extend(walk.rejects);
            files = files_by(walk.files, name, &mut rejects);
        }
        let subsets = subsets(raw)?;
        let mut boxes = boxes(raw, &mut rejects)?;

        let (image, finding) = (texts(table, "Image Index")?, texts(table, "Finding Labels")?);
        let (patient, follow_up) = (texts(table, "Patient ID")?, texts_or_null(table, "Follow-up #"));
        let (age, view) = (texts_or_null(table, "Patient Age"), texts_or_null(table, "View Position"));
        let original = ORIGINAL.map(|name| texts_or_null(table, name));
        let sex = ["Patient Gender", "Patient Sex"].map(|name| texts_or_null(table, name));
        let mut records = Vec::new();
        for row in 0..table.height() {
            let mut reject = |error: &str| rejects.push(read.reject(row, error));
            let (Some(image), Some(finding), Some(patient)) = (image[row], finding[row], patient[row]) else {
                reject("Image Index, Finding Labels or Patient ID is empty");
                continue;
            };
            if image.contains('/') || !is_inside(image) {
                reject("Image Index is not a plain file name");
                continue;
            }
            let named: HashSet<&str> = finding.split('|').map(str::trim).collect();
            if let Some(unknown) = named.iter().find(|name| !FINDINGS.contains(name)) {
                reject(&format!("unknown finding `{unknown}`"));
                continue;
            }
            let (source_path, bytes) = files
                .remove(image)
                .map_or_else(|| (format!("images/{image}"), None), |(path, bytes)| (path, Some(bytes)));
            let [columns, rows, x, y] = original.each_ref().map(|column| column[row]);
            records.push(PlannedRecord {
                record_id: format!("nih/{image}"),
                patient_id: patient.to_owned(),
                study_id: format!("{patient}/{}", follow_up[row].unwrap_or("0")),
                image_id: image.to_owned(),
                source_path,
                source_bytes: bytes,
                subset: subsets.get(image).map(|subset| (*subset).to_owned()),
                study_order: follow_up[row].and_then(|number| number.parse().ok()),
                pixel_spacing: pair(y, x).filter(|spacing| record_checks::pixel_spacing(*spacing).is_ok()),
                spacing_size: pair(rows, columns),
                view: view[row].map(str::to_owned),
                sex: sex[0][row].or(sex[1][row]).map(str::to_owned),
                age_years: age[row].and_then(years),
                labels: FINDINGS.iter().map(|name| Some(i8::from(named.contains(name)))).collect(),
                label_origin: Some(label_origins::NIH.to_owned()),
                boxes: boxes.remove(image).unwrap_or_default(),
                ..PlannedRecord::default()
            });
        }
        rejects.extend(files.into_values().map(|(path, _)| Reject::unlisted(path)));
        let mut unlisted: Vec<String> = boxes.into_keys().collect();
        unlisted.sort();
        rejects.extend(unlisted.into_iter().map(|image| Reject {
            source_path: format!("images/{image}"),
            record_id: None,
            stage: Stage::Table,
            error: "the box list has this image, the entry table does not; its boxes are ignored".to_owned(),
        }));
        let mut plan = Plan { records, rejects, findings: FINDINGS.map(str::to_owned).to_vec(), ..Plan::default() };
        plan.finalize();
        Ok(plan)
    }
}

/// Two numbers of a table.
fn pair<T: FromStr>(first: Option<&str>, second: Option<&str>) -> Option<[T; 2]> {
    Some([first?.parse().ok()?, second?.parse().ok()?])
}

/// The official subset of each image of the two lists.
fn subsets(raw: &Path) -> Result<HashMap<String, &'static str>> {
    let mut subsets = HashMap::new();
    for (name, subset) in [("train_val_list.txt", "train"), ("test_list.txt", "test")] {
        let path = raw.join(name);
        if is_file(&path)? {
            let text = decode_text(
                retry(|| hashing_reader::read(&path, MAX_REPORT_BYTES, Hashing::default())).map_err(failed(&path))?.0,
            );
            subsets.extend(text.lines().map(|line| (line.trim().to_owned(), subset)));
        }
    }
    Ok(subsets)
}

/// Boxes by image, in raw pixels. Commas within the header's brackets split its names, so columns are read by position.
fn boxes(raw: &Path, rejects: &mut Vec<Reject>) -> Result<HashMap<String, Vec<BoundingBox>>> {
    let mut boxes: HashMap<String, Vec<BoundingBox>> = HashMap::new();
    let Some(path) = tables(raw, |name| name.starts_with("BBox_List_2017"))?.pop() else { return Ok(boxes) };
    let mut table = Table::read(raw, &path, &["Image Index", "Finding Label"])?;
    rejects.append(&mut table.rejects);
    let columns: Vec<_> = table.frame.columns().iter().map(|column| column.str()).collect::<Result<_, _>>()?;
    for row in 0..table.frame.height() {
        let field = |column: usize| columns.get(column).and_then(|values| values.get(row)).map(str::trim);
        let number =
            |column: usize| field(column).and_then(|text| text.parse::<f32>().ok().filter(|number| number.is_finite()));
        let (Some(image), Some(label), Some(x), Some(y), Some(width), Some(height)) =
            (field(0), field(1), number(2), number(3), number(4), number(5))
        else {
            rejects.push(table.reject(row, "not a box of four numbers; it is ignored"));
            continue;
        };
        // The box list has another name of this finding than the entry table.
        let label = if label == "Infiltrate" { "Infiltration" } else { label }.to_owned();
        boxes.entry(image.to_owned()).or_default().push(BoundingBox {
            label,
            x,
            y,
            width,
            height,
            ..BoundingBox::default()
        });
    }
    Ok(boxes)
}
