//! The layout of CANDID-PTX: DICOM files without an extension, a table of reports with masks of pneumothoraces, and tables of
//! masks of chest tubes and acute rib fractures.

use std::path::Path;

use dataset::progress::OnProgress;

use crate::dicom::uids;
use crate::disease::{Device, Finding, Kind};
use crate::files::{dicom_file, each_study, plain_header};
use crate::patient::Patient;
use crate::table::Table;
use crate::{Error, Summary, radiograph, report, truth};

/// Writes the whole set. Files that exist are complete and are kept.
pub(crate) fn write(out: &Path, plan: &[Patient], progress: &OnProgress) -> Result<Summary, Error> {
    let rows = each_study(plan, progress, |patient, study| {
        let image = &study.images[0];
        let (patient_id, study_id) = (format!("{:08x}", patient.seed as u32), format!("{:08x}", study.seed as u32));
        let [_, _, instance] = uids(image, patient, &study_id);
        let header = plain_header(&patient_id, &study_id, 1);
        let path = out.join("dataset").join(&instance);
        dicom_file(&path, || radiograph::render(patient, study, image), image, patient, &header)?;
        let runs = |mask: Vec<bool>| truth::run_lengths(&mask, image.columns, image.rows);
        let changed = |is_wanted: fn(&Finding) -> bool| runs(truth::changed(patient, study, image, is_wanted));
        let report = report::write(patient, study, &radiograph::anatomy(patient, study));
        let name = format!("P{:05}_{}", patient.index + 1, study.index + 1);
        let pneumothorax = runs(truth::pneumothorax(patient, study, image));
        let tube = changed(|finding| finding.device == Some(Device::ChestTube));
        let fracture = changed(|finding| finding.kind == Kind::Fracture);
        Ok((name, instance, [pneumothorax, tube, fracture], report.text))
    })?;
    let mut reports =
        Table::new(&out.join("Pneumothorax_reports.csv"), &["filename", "SOPInstanceUID", "EncodedPixels", "Report"])?;
    let masks = |name: &str| Table::new(&out.join(name), &["anon_SOPUID", "mask_rle"]);
    let (mut tubes, mut fractures) = (masks("chest_tube.csv")?, masks("acute_rib_fracture.csv")?);
    for (name, instance, [pneumothorax, tube, fracture], report) in &rows {
        reports.row(&[name, instance, pneumothorax, report])?;
        for (table, mask) in [(&mut tubes, tube), (&mut fractures, fracture)] {
            if mask != truth::NOTHING {
                table.row(&[instance, mask])?;
            }
        }
    }
    reports.finish()?;
    tubes.finish()?;
    fractures.finish()?;
    Ok(Summary { patients: plan.len(), studies: rows.len(), images: rows.len() })
}
