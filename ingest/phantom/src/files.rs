//! Image files, and the loop over all studies.

use std::io::Cursor;
use std::path::Path;

use dataset::format::image_codec::GrayPixels;
use dataset::format::record::ImageEncoding;
use dataset::progress::{OnProgress, Progress};
use image::ImageEncoder;
use rayon::prelude::*;

use crate::dicom::{self, Header};
use crate::patient::{Image, Patient, Study};
use crate::radiograph::Radiograph;
use crate::{Error, write_file};

/// Calls `make` for every study, on all threads; returns the results in the order of the plan.
pub fn each_study<T: Send>(
    plan: &[Patient],
    progress: &OnProgress,
    make: impl Fn(&Patient, &Study) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let studies: Vec<(&Patient, &Study)> =
        plan.iter().flat_map(|patient| patient.studies.iter().map(move |study| (patient, study))).collect();
    let each = |(patient, study): (&Patient, &Study)| {
        let result = make(patient, study)?;
        progress(Progress::Advanced(1))?;
        Ok(result)
    };
    studies.into_par_iter().map(each).collect()
}

/// Writes an image as DICOM; a file that exists is complete and is kept.
pub fn dicom_file(
    path: &Path,
    render: impl FnOnce() -> Radiograph,
    image: &Image,
    patient: &Patient,
    header: &Header,
) -> Result<(), Error> {
    if path.is_file() {
        return Ok(());
    }
    let bytes = dicom::encode(render(), image, patient, header);
    write_file(path, &bytes.map_err(|source| Error::Dicom { path: path.to_owned(), source })?)
}

/// Writes an image as an 8-bit PNG; a file that exists is complete and is kept.
pub fn png_file(path: &Path, render: impl FnOnce() -> Radiograph) -> Result<(), Error> {
    gray_file(path, ImageEncoding::Png, || render().gray())
}

/// Writes 8-bit gray as PNG or JPEG; a file that exists is complete and is kept.
pub fn gray_file(path: &Path, encoding: ImageEncoding, gray: impl FnOnce() -> GrayPixels) -> Result<(), Error> {
    if path.is_file() {
        return Ok(());
    }
    let bytes = gray().encode(encoding);
    write_file(path, &bytes.map_err(|source| Error::Image { path: path.to_owned(), source })?)
}

/// Writes the values of an image as a 16-bit PNG; a file that exists is complete and is kept.
pub fn png16_file(path: &Path, render: impl FnOnce() -> Radiograph) -> Result<(), Error> {
    if path.is_file() {
        return Ok(());
    }
    let radiograph = render();
    let (width, height) = (radiograph.columns as u32, radiograph.rows as u32);
    let values: Vec<u8> = radiograph.values.iter().flat_map(|value| value.to_ne_bytes()).collect();
    let mut bytes = Cursor::new(Vec::new());
    image::codecs::png::PngEncoder::new(&mut bytes)
        .write_image(&values, width, height, image::ExtendedColorType::L16)
        .map_err(|error| dataset::Error::Invalid(format!("image encoding: {error}")))
        .map_err(|source| Error::Image { path: path.to_owned(), source })?;
    write_file(path, &bytes.into_inner())
}

/// Sixteen bytes of an image's identifier as 32 hexadecimal digits.
pub fn hexadecimal(image: &Image) -> String {
    image.id[..4].iter().map(|part| format!("{part:08x}")).collect()
}

/// The header of an image in data sets without dates and procedures.
pub fn plain_header(patient_id: &str, study_id: &str, number: usize) -> Header {
    Header {
        patient_id: patient_id.to_owned(),
        study_id: study_id.to_owned(),
        date: "19010101".to_owned(),
        time: "000000.00".to_owned(),
        procedure: String::new(),
        number,
    }
}
