//! The layouts of NLM's two tuberculosis sets: Montgomery County (PNG files, masks of both lungs, readings) and Shenzhen (PNG
//! files, readings, and masks of the lungs that others added). The name of a file states the label.

use std::path::Path;

use dataset::format::image_codec::GrayPixels;
use dataset::format::record::ImageEncoding;
use dataset::progress::OnProgress;

use crate::disease::{Kind, Zone};
use crate::files::{each_study, gray_file, png_file};
use crate::patient::{Image, Patient, Sex, Study};
use crate::{Error, Summary, radiograph, report, truth, write_file};

/// Writes both sets; patients alternate. Files that exist are complete and are kept.
pub(crate) fn write(out: &Path, plan: &[Patient], progress: &OnProgress) -> Result<Summary, Error> {
    let images = each_study(plan, progress, |patient, study| {
        let (image, number, age) = (&study.images[0], study.index + 1, patient.age_at(study));
        let is_ill = study.findings.iter().any(is_tuberculosis);
        let render = || radiograph::render(patient, study, image);
        let is_montgomery = patient.index % 2 == 0;
        let name = format!("{}_{number:04}_{}", if is_montgomery { "MCUCXR" } else { "CHNCXR" }, u8::from(is_ill));
        let set = out.join(if is_montgomery { "MontgomerySet" } else { "ChinaSet_AllFiles" });
        png_file(&set.join("CXR_png").join(format!("{name}.png")), render)?;
        let reading = reading(patient, study, is_ill);
        let reading = if is_montgomery {
            for (folder, lung) in ["leftMask", "rightMask"].into_iter().zip(truth::lungs(patient, study, image)) {
                mask_file(&set.join("ManualMask").join(folder).join(format!("{name}.png")), image, &lung)?;
            }
            format!("Patient's Sex: {}\nPatient's Age: {age:03}Y\n{reading}\n", patient.sex.letter())
        } else {
            let [left, right] = truth::lungs(patient, study, image);
            let both: Vec<bool> = left.into_iter().zip(right).map(|(left, right)| left || right).collect();
            // A part of the set has no masks.
            if number % 4 != 0 {
                mask_file(&set.join("mask").join(format!("{name}_mask.png")), image, &both)?;
            }
            format!("{} {age}yrs\n{reading}\n", if patient.sex == Sex::Female { "female" } else { "male" })
        };
        let path = set.join("ClinicalReadings").join(format!("{name}.txt"));
        if !path.is_file() {
            write_file(&path, reading.as_bytes())?;
        }
        Ok(())
    })?;
    Ok(Summary { patients: images.len(), studies: images.len(), images: images.len() })
}

/// Disease of the upper zones.
fn is_tuberculosis(finding: &crate::disease::Finding) -> bool {
    let is_upper = matches!(finding.zone, Zone::Apex | Zone::Upper);
    is_upper && matches!(finding.kind, Kind::Consolidation | Kind::Pneumonia | Kind::LungLesion | Kind::LungOpacity)
}

fn reading(patient: &Patient, study: &Study, is_ill: bool) -> String {
    if !is_ill {
        return "normal".to_owned();
    }
    let report = report::write(patient, study, &radiograph::anatomy(patient, study));
    let text = report.section("impression").or_else(|| report.section("findings")).unwrap_or("secondary PTB");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn mask_file(path: &Path, image: &Image, mask: &[bool]) -> Result<(), Error> {
    let pixels = || mask.iter().map(|&marked| if marked { u8::MAX } else { 0 }).collect();
    let (width, height) = (image.columns as u32, image.rows as u32);
    gray_file(path, ImageEncoding::Png, || GrayPixels { width, height, pixels: pixels() })
}
