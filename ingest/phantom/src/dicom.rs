//! Writes an image as a DICOM Part-10 file with the variety of real archives: both photometric interpretations, one or two
//! windows, sometimes a rescale intercept, explicit and implicit VR.

use dicom_core::{DataElement, PrimitiveValue, Tag, VR, dicom_value};
use dicom_dictionary_std::{tags, uids};
use dicom_object::{FileMetaTableBuilder, InMemDicomObject, WriteError};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::patient::{Image, Patient, View};
use crate::radiograph::{MAXIMUM, Radiograph};

/// Attributes of an image that depend on the layout.
pub struct Header {
    /// PatientID.
    pub patient_id: String,
    /// StudyID and AccessionNumber.
    pub study_id: String,
    /// StudyDate as YYYYMMDD.
    pub date: String,
    /// StudyTime as HHMMSS.fraction.
    pub time: String,
    /// PerformedProcedureStepDescription.
    pub procedure: String,
    /// Position of the image in its study, from 1 on.
    pub number: usize,
}

/// The bytes of the DICOM file.
pub fn encode(
    radiograph: Radiograph,
    image: &Image,
    patient: &Patient,
    header: &Header,
) -> Result<Vec<u8>, Box<WriteError>> {
    let mut random = ChaCha8Rng::seed_from_u64(image.seed ^ 0xD1C0);
    let inverted = random.random_bool(0.25);
    let intercept = if random.random_bool(0.08) { -1024 } else { 0 };
    let two_windows = random.random_bool(0.25);
    let implicit = random.random_bool(0.15);
    let computed = image.view == View::Ap && random.random_bool(0.7);

    let mut values = radiograph.values;
    if inverted {
        for value in &mut values {
            *value = MAXIMUM - *value;
        }
    }
    let (low, high) = range(&values);
    let center = i32::from(low.midpoint(high)) + intercept;
    let width = i32::from(high - low).max(256);

    let class = if computed {
        uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE
    } else {
        uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION
    };
    let [study, series, instance] = uids(image, patient, &header.study_id);
    let mut object = InMemDicomObject::new_empty();
    let mut text = |tag: Tag, vr: VR, value: &str| {
        object.put(DataElement::new(tag, vr, PrimitiveValue::from(value)));
    };
    text(tags::SPECIFIC_CHARACTER_SET, VR::CS, "ISO_IR 100");
    text(tags::IMAGE_TYPE, VR::CS, "ORIGINAL\\PRIMARY");
    text(tags::SOP_CLASS_UID, VR::UI, class);
    text(tags::SOP_INSTANCE_UID, VR::UI, &instance);
    text(tags::STUDY_DATE, VR::DA, &header.date);
    text(tags::STUDY_TIME, VR::TM, &header.time);
    text(tags::ACCESSION_NUMBER, VR::SH, &header.study_id);
    text(tags::MODALITY, VR::CS, if computed { "CR" } else { "DX" });
    text(tags::PRESENTATION_INTENT_TYPE, VR::CS, "FOR PRESENTATION");
    text(tags::MANUFACTURER, VR::LO, "Phantom");
    text(tags::REFERRING_PHYSICIAN_NAME, VR::PN, "");
    text(tags::PATIENT_NAME, VR::PN, "");
    text(tags::PATIENT_ID, VR::LO, &header.patient_id);
    text(tags::PATIENT_BIRTH_DATE, VR::DA, "");
    text(tags::PATIENT_SEX, VR::CS, patient.sex.letter());
    text(tags::PATIENT_AGE, VR::AS, &format!("{:03}Y", patient.age as u32));
    text(tags::PATIENT_IDENTITY_REMOVED, VR::CS, "YES");
    text(tags::BODY_PART_EXAMINED, VR::CS, "CHEST");
    text(tags::VIEW_POSITION, VR::CS, image.view.name());
    text(tags::STUDY_INSTANCE_UID, VR::UI, &study);
    text(tags::SERIES_INSTANCE_UID, VR::UI, &series);
    text(tags::STUDY_ID, VR::SH, &header.study_id);
    text(tags::INSTANCE_NUMBER, VR::IS, &header.number.to_string());
    text(tags::PATIENT_ORIENTATION, VR::CS, if image.view == View::Lateral { "P\\F" } else { "L\\F" });
    text(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, if inverted { "MONOCHROME1" } else { "MONOCHROME2" });
    text(tags::RESCALE_INTERCEPT, VR::DS, &intercept.to_string());
    text(tags::RESCALE_SLOPE, VR::DS, "1");
    text(tags::RESCALE_TYPE, VR::LO, "US");
    text(tags::PERFORMED_PROCEDURE_STEP_DESCRIPTION, VR::LO, &header.procedure);
    if two_windows {
        text(tags::WINDOW_CENTER, VR::DS, &format!("{center}\\{}", center + width / 12));
        text(tags::WINDOW_WIDTH, VR::DS, &format!("{width}\\{}", width * 3 / 4));
        text(tags::WINDOW_CENTER_WIDTH_EXPLANATION, VR::LO, "NORMAL\\HARDER");
    } else {
        text(tags::WINDOW_CENTER, VR::DS, &center.to_string());
        text(tags::WINDOW_WIDTH, VR::DS, &width.to_string());
    }
    let mut number = |tag: Tag, value: u16| {
        object.put(DataElement::new(tag, VR::US, dicom_value!(U16, value)));
    };
    number(tags::SAMPLES_PER_PIXEL, 1);
    number(tags::ROWS, radiograph.rows as u16);
    number(tags::COLUMNS, radiograph.columns as u16);
    number(tags::BITS_ALLOCATED, 16);
    number(tags::BITS_STORED, 12);
    number(tags::HIGH_BIT, 11);
    number(tags::PIXEL_REPRESENTATION, 0);
    object.put(DataElement::new(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(values.into())));

    let syntax = if implicit { uids::IMPLICIT_VR_LITTLE_ENDIAN } else { uids::EXPLICIT_VR_LITTLE_ENDIAN };
    let meta = FileMetaTableBuilder::new()
        .transfer_syntax(syntax)
        .media_storage_sop_class_uid(class)
        .media_storage_sop_instance_uid(instance)
        .build()
        .expect("all required fields are set");
    let mut bytes = Vec::new();
    object.with_exact_meta(meta).write_all(&mut bytes).map_err(Box::new)?;
    Ok(bytes)
}

/// The 1st and 99th percentile of the values.
fn range(values: &[u16]) -> (u16, u16) {
    let mut counts = vec![0usize; usize::from(MAXIMUM) + 1];
    for &value in values {
        counts[usize::from(value)] += 1;
    }
    let rank = |part: usize| {
        let mut left = values.len() * part / 100;
        counts
            .iter()
            .position(|&count| {
                left < count || {
                    left -= count;
                    false
                }
            })
            .unwrap_or(usize::from(MAXIMUM)) as u16
    };
    (rank(1), rank(99))
}

/// StudyInstanceUID, SeriesInstanceUID and SOPInstanceUID of an image.
pub fn uids(image: &Image, patient: &Patient, study_id: &str) -> [String; 3] {
    let study: u32 = study_id.bytes().fold(7, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    let of_study = |last| uid(&[study, study.rotate_left(9), patient.seed as u32, last]);
    [of_study(1), of_study(2), uid(&[image.id[0], image.id[1], image.id[2], image.id[3]])]
}

/// A unique identifier under the root for random bits, 2.25.
fn uid(bits: &[u32; 4]) -> String {
    let number = bits.iter().fold(0u128, |number, &part| (number << 32) | u128::from(part));
    format!("2.25.{number}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{patient, radiograph};

    #[test]
    fn every_file_reopens_with_its_attributes() {
        let mut seen = std::collections::BTreeSet::new();
        for patient in patient::plan(40, 2, 64) {
            for (study, image) in patient.studies.iter().flat_map(|s| s.images.iter().map(move |i| (s, i))) {
                let header = Header {
                    patient_id: "10000032".into(),
                    study_id: "50414267".into(),
                    date: "21800506".into(),
                    time: "213014.531".into(),
                    procedure: "CHEST (PORTABLE AP)".into(),
                    number: 1,
                };
                let rendered = radiograph::render(&patient, study, image);
                let shown = rendered.values.clone();
                let bytes = encode(rendered, image, &patient, &header).unwrap();
                let object = dicom_object::from_reader(bytes.as_slice()).unwrap();
                let text = |tag| object.element(tag).unwrap().to_str().unwrap().trim().to_owned();
                let int = |tag| object.element(tag).unwrap().to_int::<usize>().unwrap();
                assert_eq!((int(tags::ROWS), int(tags::COLUMNS)), (image.rows, image.columns));
                assert_eq!((int(tags::BITS_ALLOCATED), int(tags::BITS_STORED), int(tags::HIGH_BIT)), (16, 12, 11));
                assert_eq!(text(tags::VIEW_POSITION), image.view.name());
                assert_eq!(text(tags::BODY_PART_EXAMINED), "CHEST");
                assert_eq!((text(tags::PATIENT_NAME), text(tags::PATIENT_ID)), (String::new(), "10000032".into()));
                let stored = object.element(tags::PIXEL_DATA).unwrap().to_multi_int::<u16>().unwrap();
                let photometric = text(tags::PHOTOMETRIC_INTERPRETATION);
                let back = |v: u16| {
                    if photometric == "MONOCHROME1" { MAXIMUM - v } else { v }
                };
                assert!(stored.iter().map(|&v| back(v)).eq(shown));
                let window = object.element(tags::WINDOW_WIDTH).unwrap().to_multi_float64().unwrap();
                assert!(window[0] > 500.0 && window[0] < 4096.0);
                seen.insert(photometric);
                seen.insert(object.meta().transfer_syntax().trim_end_matches('\0').to_owned());
                seen.insert(format!("{} windows", window.len()));
            }
        }
        assert_eq!(seen.len(), 6, "{seen:?}");
    }
}
