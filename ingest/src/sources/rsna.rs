//! RSNA Pneumonia Detection Challenge 2018: `stage_2_train_images/`, `stage_2_test_images/`,
//! `stage_2_train_labels.csv` (a row for each box), `stage_2_detailed_class_info.csv`. View, sex and age are only in the DICOM
//! headers.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use dataset::format::record::BoundingBox;

use crate::error::{Error, Result};
use crate::reject::{Reject, Stage};
use crate::run::plan::{Plan, PlannedRecord, Source, label_code};
use crate::sources::shared::challenge::each_image;
use crate::sources::shared::label_origins::RADIOLOGIST;
use crate::sources::shared::table::{Table, find_table, texts};

const LABELS: &str = "stage_2_train_labels";
const CLASSES: &str = "stage_2_detailed_class_info";
/// Folders of images and their subsets.
const FOLDERS: [(&str, &str); 2] = [("stage_2_train_images", "train"), ("stage_2_test_images", "test")];
const IMAGES: [&str; 4] = ["dcm", "png", "jpg", "jpeg"];
const PNEUMONIA: &str = "Pneumonia";
/// The classes of the detailed table, by severity.
const CLASS_NAMES: [&str; 3] = ["Normal", "No Lung Opacity / Not Normal", "Lung Opacity"];

/// The source `rsna`.
pub struct Rsna;

impl Source for Rsna {
    fn name(&self) -> &'static str {
        "rsna"
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let path = find_table(raw, LABELS)?.ok_or_else(|| Error::MissingTable {
            folder: raw.to_path_buf(),
            wanted: format!("{LABELS}.csv[.gz]"),
            remedy: "give the directory of the RSNA Pneumonia Detection Challenge".to_owned(),
        })?;
        let mut plan = Plan { findings: vec![PNEUMONIA.to_owned()], ..Plan::default() };
        let labels = labels(raw, &path, &mut plan.rejects)?;
        let classes = match find_table(raw, CLASSES)? {
            Some(path) => {
                plan.findings.extend(CLASS_NAMES.map(str::to_owned));
                Some(classes(raw, &path, &labels, &mut plan.rejects)?)
            }
            None => None,
        };
        let codes = |id: &str, target: Option<i8>| {
            let own = classes.as_ref().map(|classes| classes.get(id).copied());
            let of_class = own
                .into_iter()
                .flat_map(|own| (0..CLASS_NAMES.len()).map(move |class| own.map(|own| i8::from(own == class))));
            std::iter::once(target).chain(of_class).collect::<Vec<_>>()
        };
        let record = |id: &str, source_path: String, bytes, subset: &str, label: Option<ImageRows>| {
            let image = label.unwrap_or_default();
            if let Some(error) = image.error {
                let record_id = Some(format!("rsna/{id}"));
                plan.rejects.push(Reject { source_path, record_id, stage: Stage::Table, error });
                return;
            }
            plan.records.push(PlannedRecord {
                record_id: format!("rsna/{id}"),
                patient_id: id.to_owned(),
                study_id: id.to_owned(),
                image_id: id.to_owned(),
                source_path,
                source_bytes: bytes,
                subset: Some(subset.to_owned()),
                labels: codes(id, image.target),
                label_origin: Some(RADIOLOGIST.to_owned()),
                boxes: image.boxes,
                ..PlannedRecord::default()
            });
        };
        let unlisted = each_image(raw, &FOLDERS, &IMAGES, labels, record)?;
        plan.rejects.extend(unlisted);
        plan.finalize();
        Ok(plan)
    }
}

/// The rows of one image.
#[derive(Default)]
struct ImageRows {
    target: Option<i8>,
    boxes: Vec<BoundingBox>,
    /// Why the image is rejected: with a box too few or too many it would have wrong labels.
    error: Option<String>,
}

/// The rows by image. A row without an image becomes a reject; any other bad row makes its image one.
fn labels(raw: &Path, path: &Path, rejects: &mut Vec<Reject>) -> Result<BTreeMap<String, ImageRows>> {
    let mut table = Table::read(raw, path, &["patientId", "x", "y", "width", "height", "Target"])?;
    rejects.append(&mut table.rejects);
    let (id, target) = (texts(&table.frame, "patientId")?, texts(&table.frame, "Target")?);
    let side = |name| texts(&table.frame, name);
    let sides = [side("x")?, side("y")?, side("width")?, side("height")?];
    let mut labels: BTreeMap<String, ImageRows> = BTreeMap::new();
    for row in 0..table.frame.height() {
        let Some(id) = id[row] else {
            rejects.push(table.reject(row, "patientId is empty"));
            continue;
        };
        let image = labels.entry(id.to_owned()).or_default();
        let stated = sides.each_ref().map(|column| column[row]);
        let outcome = match label_code(target[row]) {
            Some(code @ (0 | 1)) if image.target.is_none_or(|before| before == code) => {
                image.target = Some(code);
                if code == 1 { rectangle(stated).map(Some) } else { no_box(stated) }
            }
            Some(0 | 1) => Err("Target differs from an earlier row of this image".to_owned()),
            _ => Err("Target is neither 0 nor 1".to_owned()),
        };
        match outcome {
            Ok(Some(found)) if !image.boxes.contains(&found) => image.boxes.push(found),
            Ok(_) => {}
            Err(error) => {
                image.error.get_or_insert(format!("{}: {error}", table.place(row)));
            }
        }
    }
    Ok(labels)
}

/// The box of a positive row.
fn rectangle(stated: [Option<&str>; 4]) -> Result<BoundingBox, String> {
    let number = |text: Option<&str>| text?.parse::<f32>().ok().filter(|number| number.is_finite());
    match stated.map(number) {
        [Some(x), Some(y), Some(width), Some(height)] if x >= 0.0 && y >= 0.0 && width > 0.0 && height > 0.0 => {
            Ok(BoundingBox { label: PNEUMONIA.to_owned(), x, y, width, height, ..BoundingBox::default() })
        }
        _ => Err("Target is 1, but x, y, width and height are not a box".to_owned()),
    }
}

fn no_box(stated: [Option<&str>; 4]) -> Result<Option<BoundingBox>, String> {
    if stated.iter().all(Option::is_none) { Ok(None) } else { Err("Target is 0, but there is a box".to_owned()) }
}

/// The class of each image. Unusable rows become rejects; an image with two classes has none.
fn classes(
    raw: &Path,
    path: &Path,
    labels: &BTreeMap<String, ImageRows>,
    rejects: &mut Vec<Reject>,
) -> Result<HashMap<String, usize>> {
    let mut table = Table::read(raw, path, &["patientId", "class"])?;
    rejects.append(&mut table.rejects);
    let (id, class) = (texts(&table.frame, "patientId")?, texts(&table.frame, "class")?);
    let mut classes: HashMap<String, Option<usize>> = HashMap::new();
    for row in 0..table.frame.height() {
        let mut reject = |error: &str| rejects.push(table.reject(row, error));
        let Some(id) = id[row].filter(|id| labels.contains_key(*id)) else {
            reject("the label table does not have this patientId; the row is ignored");
            continue;
        };
        let Some(own) = CLASS_NAMES.iter().position(|name| class[row] == Some(name)) else {
            reject("unknown class; the row is ignored");
            continue;
        };
        let before = classes.entry(id.to_owned()).or_insert(Some(own));
        if *before != Some(own) {
            *before = None;
            reject("the class differs from an earlier row of this image, so the image has none");
        }
    }
    Ok(classes.into_iter().filter_map(|(id, class)| Some((id, class?))).collect())
}
