//! The layout of the children's pneumonia set (Kermany et al. 2018), as Kaggle has it: JPEG files whose names state the kind of
//! the pneumonia, in folders of subset and class.

use std::path::Path;

use dataset::format::record::ImageEncoding;
use dataset::progress::OnProgress;

use crate::disease::{Kind, Zone};
use crate::files::{each_study, gray_file};
use crate::patient::{Patient, Subset};
use crate::{Error, Summary, radiograph};

/// Writes the whole set. Files that exist are complete and are kept.
pub(crate) fn write(out: &Path, plan: &[Patient], progress: &OnProgress) -> Result<Summary, Error> {
    let images = each_study(plan, progress, |patient, study| {
        let subset = match patient.subset {
            Subset::Train => "train",
            Subset::Validate => "val",
            Subset::Test => "test",
        };
        let (patient_number, number) = (patient.index + 1, study.index + 1);
        let pneumonia = study.findings.iter().find(|finding| finding.kind == Kind::Pneumonia);
        let (class, name) = match pneumonia.map(|finding| finding.zone) {
            None => ("NORMAL", format!("IM-{patient_number:04}-{number:04}")),
            // The position decides the pathogen, so that it can be learned from the image.
            Some(Zone::Apex | Zone::Upper) => ("PNEUMONIA", format!("person{patient_number}_bacteria_{number}")),
            Some(_) => ("PNEUMONIA", format!("person{patient_number}_virus_{number}")),
        };
        let path = out.join("chest_xray").join(subset).join(class).join(format!("{name}.jpeg"));
        gray_file(&path, ImageEncoding::Jpeg, || radiograph::render(patient, study, &study.images[0]).gray())
    })?;
    Ok(Summary { patients: plan.len(), studies: images.len(), images: images.len() })
}
