//! The layouts of VinDr-CXR and VinDr-PCXR: DICOM files named `.dicom`, tables of image labels and of boxes. Three readers read
//! each training image of VinDr-CXR; a panel agreed on the test images. One reader read each image of VinDr-PCXR.

use std::path::Path;

use dataset::progress::OnProgress;

use crate::disease::{Degree, Finding, Kind};
use crate::files::{dicom_file, each_study, hexadecimal, plain_header};
use crate::patient::{Image, Patient, Study, Subset};
use crate::table::Table;
use crate::{Error, Summary, radiograph, region};

/// Image labels of VinDr-CXR, in the order of its tables. The test table spells `Other diseases` in the singular.
pub const CXR_LABELS: [&str; 28] = [
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Clavicle fracture",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Enlarged PA",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Lung cavity",
    "Lung cyst",
    "Mediastinal shift",
    "Nodule/Mass",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
    "Rib fracture",
    "Other lesion",
    "COPD",
    "Lung tumor",
    "Pneumonia",
    "Tuberculosis",
    "Other diseases",
    "No finding",
];

/// Image labels of VinDr-PCXR, in the order and the spelling of its tables.
pub const PCXR_LABELS: [&str; 15] = [
    "No finding",
    "Bronchitis",
    "Brocho-pneumonia",
    "Other disease",
    "Bronchiolitis",
    "Situs inversus",
    "Pneumonia",
    "Pleuro-pneumonia",
    "Diagphramatic hernia",
    "Tuberculosis",
    "Congenital emphysema",
    "CPAM",
    "Hyaline membrane disease",
    "Mediastinal tumor",
    "Lung tumor",
];

/// Columns of a box.
const CORNERS: [&str; 4] = ["x_min", "y_min", "x_max", "y_max"];
/// Readers of VinDr-CXR; each image gets three of them.
const READERS: u64 = 17;

/// A row of boxes: the class, and the corners where it has a place.
type Row = (&'static str, Option<[f32; 4]>);

/// What one reader sees on an image.
struct Reading {
    /// `None` for the panel of the test images.
    reader: Option<String>,
    rows: Vec<Row>,
    labels: Vec<&'static str>,
}

/// Writes VinDr-CXR. Files that exist are complete and are kept.
pub(crate) fn write_cxr(out: &Path, plan: &[Patient], progress: &OnProgress) -> Result<Summary, Error> {
    write(out, plan, progress, false)
}

/// Writes VinDr-PCXR. Files that exist are complete and are kept.
pub(crate) fn write_pcxr(out: &Path, plan: &[Patient], progress: &OnProgress) -> Result<Summary, Error> {
    write(out, plan, progress, true)
}

fn write(out: &Path, plan: &[Patient], progress: &OnProgress, of_children: bool) -> Result<Summary, Error> {
    let images = each_study(plan, progress, |patient, study| {
        let image = &study.images[0];
        let (id, is_test) = (hexadecimal(image), patient.subset == Subset::Test);
        let path = out.join(if is_test { "test" } else { "train" }).join(format!("{id}.dicom"));
        // Neither set identifies its patients.
        dicom_file(&path, || radiograph::render(patient, study, image), image, patient, &plain_header("", "", 1))?;
        let readers: Vec<Option<u64>> = match (of_children, is_test) {
            (true, _) => vec![Some(study.wording % 3)],
            (false, true) => vec![None],
            (false, false) => (0..3).map(|number| Some((study.wording + 5 * number) % READERS)).collect(),
        };
        let readings = readers.into_iter().map(|reader| reading(patient, study, image, reader, of_children));
        Ok((id, is_test, readings.collect::<Vec<_>>()))
    })?;
    let (folder, reader, names): (_, _, &[&str]) = if of_children {
        (out.to_path_buf(), "rad_ID", &PCXR_LABELS)
    } else {
        (out.join("annotations"), "rad_id", &CXR_LABELS)
    };
    for (part, of_test) in [("train", false), ("test", true)] {
        let has_reader = of_children || !of_test;
        let start: Vec<&str> = std::iter::once("image_id").chain(has_reader.then_some(reader)).collect();
        let spelled = |name: &&'static str| match *name {
            "Other diseases" if of_test => "Other disease",
            name => name,
        };
        let columns: Vec<&str> = start.iter().copied().chain(names.iter().map(spelled)).collect();
        let mut labels = Table::new(&folder.join(format!("image_labels_{part}.csv")), &columns)?;
        let columns = [start.as_slice(), &["class_name"], &CORNERS].concat();
        let mut boxes = Table::new(&folder.join(format!("annotations_{part}.csv")), &columns)?;
        for (id, _, readings) in images.iter().filter(|(_, is_test, _)| *is_test == of_test) {
            for Reading { reader, rows, labels: found } in readings {
                let start: Vec<&str> = std::iter::once(id.as_str()).chain(reader.as_deref()).collect();
                let codes = names.iter().map(|name| if found.contains(name) { "1" } else { "0" });
                labels.row(&start.iter().copied().chain(codes).collect::<Vec<_>>())?;
                for (class, corners) in rows {
                    let corners = corners.map_or_else(Default::default, |corners| corners.map(|at| format!("{at:.1}")));
                    let corners = corners.each_ref().map(String::as_str);
                    boxes.row(&[start.as_slice(), &[class], &corners].concat())?;
                }
            }
        }
        labels.finish()?;
        boxes.finish()?;
    }
    Ok(Summary { patients: images.len(), studies: images.len(), images: images.len() })
}

/// A reader misses some subtle findings, and draws the others up to two pixels larger than the panel does.
fn reading(patient: &Patient, study: &Study, image: &Image, reader: Option<u64>, of_children: bool) -> Reading {
    let number = reader.unwrap_or_default();
    let misses = |finding: &Finding| {
        reader.is_some() && finding.degree() == Degree::Subtle && (finding.seed ^ number).is_multiple_of(3)
    };
    let (mut rows, mut labels) = (Vec::new(), Vec::new());
    for finding in study.findings.iter().filter(|finding| !misses(finding)) {
        let Some(class) = class(finding) else { continue };
        let margin = if reader.is_some() { (number % 3) as f32 } else { 0.0 };
        let (right, bottom) = (image.columns as f32, image.rows as f32);
        rows.extend(region::boxes(patient, study, image, finding).into_iter().map(|(x, y, width, height)| {
            let (left, top) = ((x - margin).max(0.0), (y - margin).max(0.0));
            (class, Some([left, top, (x + width + margin).min(right), (y + height + margin).min(bottom)]))
        }));
        labels.push(if of_children { disease(finding) } else { class });
        if !of_children && finding.kind == Kind::Pneumonia {
            labels.push("Pneumonia");
        }
    }
    if labels.is_empty() {
        labels.push("No finding");
    }
    if rows.is_empty() {
        rows.push(("No finding", None));
    }
    Reading { reader: reader.map(|number| format!("R{}", number + 1)), rows, labels }
}

/// The class of boxes; `None` where the sets have none.
fn class(finding: &Finding) -> Option<&'static str> {
    match finding.kind {
        Kind::Atelectasis => Some("Atelectasis"),
        Kind::Cardiomegaly => Some("Cardiomegaly"),
        Kind::Consolidation => Some("Consolidation"),
        Kind::Edema => Some("Edema"),
        Kind::Fracture => Some("Rib fracture"),
        Kind::LungLesion => Some("Nodule/Mass"),
        Kind::LungOpacity | Kind::Pneumonia => Some("Lung Opacity"),
        Kind::PleuralEffusion => Some("Pleural effusion"),
        Kind::PleuralOther => Some("Pleural thickening"),
        Kind::Pneumothorax => Some("Pneumothorax"),
        Kind::EnlargedCardiomediastinum | Kind::SupportDevices => None,
    }
}

/// The image label of VinDr-PCXR.
fn disease(finding: &Finding) -> &'static str {
    match finding.kind {
        Kind::Pneumonia => "Pneumonia",
        Kind::Consolidation => "Brocho-pneumonia",
        Kind::LungOpacity => "Bronchitis",
        Kind::LungLesion => "Lung tumor",
        _ => "Other disease",
    }
}
