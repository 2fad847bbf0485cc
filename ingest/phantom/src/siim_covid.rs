//! The layout of the SIIM-FISABIO-RSNA COVID-19 Detection challenge of 2021: DICOM files in folders of study and series, a table
//! of studies with one of four appearances, and a table of images with boxes.

use std::path::Path;

use dataset::progress::OnProgress;

use crate::disease::Kind;
use crate::files::{dicom_file, each_study, plain_header};
use crate::patient::{Patient, Study, Subset};
use crate::table::Table;
use crate::{Error, Summary, radiograph, truth};

/// The appearances, in the order of the table.
pub const APPEARANCES: [&str; 4] =
    ["Negative for Pneumonia", "Typical Appearance", "Indeterminate Appearance", "Atypical Appearance"];

/// Writes the whole set. Files that exist are complete and are kept.
pub(crate) fn write(out: &Path, plan: &[Patient], progress: &OnProgress) -> Result<Summary, Error> {
    let studies = each_study(plan, progress, |patient, study| {
        let is_test = patient.subset == Subset::Test;
        let name = twelve(study.seed);
        let folder = out.join(if is_test { "test" } else { "train" }).join(&name).join(twelve(study.wording));
        let mut images = Vec::new();
        for image in study.images.iter().filter(|image| image.view == study.images[0].view) {
            let id = twelve(image.seed);
            let header = plain_header(&twelve(patient.seed), &name, images.len() + 1);
            let path = folder.join(format!("{id}.dcm"));
            dicom_file(&path, || radiograph::render(patient, study, image), image, patient, &header)?;
            images.push((id, truth::opacities(patient, study, image)));
        }
        Ok((name, is_test, appearance(study), images))
    })?;
    let mut of_studies = Table::new(&out.join("train_study_level.csv"), &[["id"].as_slice(), &APPEARANCES].concat())?;
    let mut of_images = Table::new(&out.join("train_image_level.csv"), &["id", "boxes", "label", "StudyInstanceUID"])?;
    for (study, _, appearance, images) in studies.iter().filter(|(_, is_test, ..)| !is_test) {
        let codes = (0..APPEARANCES.len()).map(|at| if at == *appearance { "1" } else { "0" });
        let id = format!("{study}_study");
        of_studies.row(&std::iter::once(id.as_str()).chain(codes).collect::<Vec<_>>())?;
        for (image, boxes) in images {
            let drawn = boxes.iter().map(|[x, y, width, height]| {
                format!("{{'x': {x}.25, 'y': {y}.25, 'width': {}.5, 'height': {}.5}}", width - 1, height - 1)
            });
            let drawn = drawn.collect::<Vec<_>>().join(", ");
            let labels = boxes.iter().map(|[x, y, width, height]| {
                format!("opacity 1 {x}.25 {y}.25 {}.75 {}.75", x + width - 1, y + height - 1)
            });
            let labels = labels.collect::<Vec<_>>().join(" ");
            let (drawn, labels) = match boxes.as_slice() {
                [] => (String::new(), "none 1 0 0 1 1".to_owned()),
                _ => (format!("[{drawn}]"), labels),
            };
            of_images.row(&[&format!("{image}_image"), &drawn, &labels, study])?;
        }
    }
    of_studies.finish()?;
    of_images.finish()?;
    let images = studies.iter().map(|(_, _, _, images)| images.len()).sum();
    Ok(Summary { patients: plan.len(), studies: studies.len(), images })
}

/// Twelve hexadecimal digits, as the challenge names studies, series and images.
fn twelve(seed: u64) -> String {
    format!("{:012x}", seed & 0xffff_ffff_ffff)
}

/// The index of the appearance: it follows from what is drawn.
fn appearance(study: &Study) -> usize {
    let has = |kind| study.findings.iter().any(|finding| finding.kind == kind);
    match (has(Kind::Pneumonia), has(Kind::LungOpacity), has(Kind::Consolidation)) {
        (true, ..) => 1,
        (_, true, _) => 2,
        (_, _, true) => 3,
        _ => 0,
    }
}
