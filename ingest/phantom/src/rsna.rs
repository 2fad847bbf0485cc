//! The layout of the RSNA Pneumonia Detection Challenge 2018: DICOM files, a row for each box, a class for each image. Each image
//! counts as a patient, as in the challenge.

use std::path::Path;

use dataset::progress::OnProgress;

use crate::disease::Kind;
use crate::files::{dicom_file, each_study, plain_header};
use crate::patient::{Image, Patient, Subset};
use crate::table::Table;
use crate::{Error, Summary, radiograph, truth};

/// Writes the whole set. Files that exist are complete and are kept.
pub(crate) fn write(out: &Path, plan: &[Patient], progress: &OnProgress) -> Result<Summary, Error> {
    let rows = each_study(plan, progress, |patient, study| {
        let image = &study.images[0];
        let id = identifier(image);
        let is_test = patient.subset == Subset::Test;
        let folder = if is_test { "stage_2_test_images" } else { "stage_2_train_images" };
        let path = out.join(folder).join(format!("{id}.dcm"));
        dicom_file(&path, || radiograph::render(patient, study, image), image, patient, &plain_header(&id, &id, 1))?;
        let boxes = truth::opacities(patient, study, image);
        let class = if !boxes.is_empty() {
            "Lung Opacity"
        } else if study.findings.iter().all(|finding| finding.kind == Kind::SupportDevices) {
            "Normal"
        } else {
            "No Lung Opacity / Not Normal"
        };
        Ok((!is_test).then_some((id, boxes, class)))
    })?;
    let mut labels =
        Table::new(&out.join("stage_2_train_labels.csv"), &["patientId", "x", "y", "width", "height", "Target"])?;
    let mut classes = Table::new(&out.join("stage_2_detailed_class_info.csv"), &["patientId", "class"])?;
    for (id, boxes, class) in rows.iter().flatten() {
        if boxes.is_empty() {
            labels.row(&[id, "", "", "", "", "0"])?;
            classes.row(&[id, class])?;
        }
        for found in boxes {
            let [x, y, width, height] = found.map(|side| format!("{side}.0"));
            labels.row(&[id, &x, &y, &width, &height, "1"])?;
            classes.row(&[id, class])?;
        }
    }
    labels.finish()?;
    classes.finish()?;
    Ok(Summary { patients: rows.len(), studies: rows.len(), images: rows.len() })
}

/// Five groups of hexadecimal digits, as the challenge names its images.
fn identifier(image: &Image) -> String {
    let [a, b, c, d, _] = image.id;
    format!("{a:08x}-{:04x}-{:04x}-{:04x}-{:04x}{d:08x}", b >> 16, b & 0xffff, c >> 16, c & 0xffff)
}
