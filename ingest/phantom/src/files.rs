//! Image files, and the loop over all studies.

use std::path::Path;

use dataset::format::record::ImageEncoding;
use dataset::progress::{OnProgress, Progress};
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
    if path.is_file() {
        return Ok(());
    }
    let bytes = render().gray().encode(ImageEncoding::Png);
    let failed = |error| Error::Write { path: path.to_owned(), source: std::io::Error::other(error) };
    write_file(path, &bytes.map_err(failed)?)
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
