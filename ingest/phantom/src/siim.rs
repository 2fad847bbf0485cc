//! The layout of the SIIM-ACR Pneumothorax Segmentation Challenge: DICOM files in folders of study and series, and
//! masks as relative run lengths.

use std::path::Path;

use dataset::progress::OnProgress;

use crate::dicom::uids;
use crate::files::{dicom_file, each_study, plain_header};
use crate::patient::{Patient, Subset};
use crate::table::Table;
use crate::{Error, Summary, radiograph, truth};

/// Writes the whole set. Files that exist are complete and are kept.
pub(crate) fn write(out: &Path, plan: &[Patient], progress: &OnProgress) -> Result<Summary, Error> {
    let rows = each_study(plan, progress, |patient, study| {
        let image = &study.images[0];
        let header = plain_header(&format!("{:08x}", patient.seed as u32), &format!("{:08x}", study.seed as u32), 1);
        let [study_uid, series, instance] = uids(image, patient, &header.study_id);
        let is_test = patient.subset == Subset::Test;
        let folder = out.join(if is_test { "dicom-images-test" } else { "dicom-images-train" });
        let path = folder.join(study_uid).join(series).join(format!("{instance}.dcm"));
        dicom_file(&path, || radiograph::render(patient, study, image), image, patient, &header)?;
        let mask = || truth::run_lengths(&truth::pneumothorax(patient, study, image), image.columns, image.rows);
        Ok((!is_test).then(|| (instance, mask())))
    })?;
    // The real header has this space, too.
    let mut table = Table::new(&out.join("train-rle.csv"), &["ImageId", " EncodedPixels"])?;
    for (instance, mask) in rows.iter().flatten() {
        table.row(&[instance, mask])?;
    }
    table.finish()?;
    Ok(Summary { patients: plan.len(), studies: rows.len(), images: rows.len() })
}
