//! Pictures as files, and every study at once.

use std::path::Path;

use dataset::format::record::ImageEncoding;
use rayon::prelude::*;

use crate::dicom::{self, Header};
use crate::film::Film;
use crate::patient::{Image, Patient, Study};
use crate::{Error, write_file};

/// Makes something of every study, by all threads; the results stand in the order of the plan.
pub fn each_study<T: Send>(
    plan: &[Patient],
    progress: &(impl Fn(u64) + Sync),
    make: impl Fn(&Patient, &Study) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let studies: Vec<(&Patient, &Study)> =
        plan.iter().flat_map(|patient| patient.studies.iter().map(move |study| (patient, study))).collect();
    let one = |(patient, study): (&Patient, &Study)| {
        let made = make(patient, study)?;
        progress(1);
        Ok(made)
    };
    studies.into_par_iter().map(one).collect()
}

/// Writes a picture as DICOM; a file that stands already is complete and stays.
pub fn dicom_file(
    path: &Path,
    film: impl FnOnce() -> Film,
    image: &Image,
    patient: &Patient,
    header: &Header,
) -> Result<(), Error> {
    if path.is_file() {
        return Ok(());
    }
    let bytes = dicom::encode(film(), image, patient, header);
    write_file(path, &bytes.map_err(|source| Error::Dicom { path: path.to_owned(), source })?)
}

/// Writes a picture as an 8-bit PNG; a file that stands already is complete and stays.
pub fn png_file(path: &Path, film: impl FnOnce() -> Film) -> Result<(), Error> {
    if path.is_file() {
        return Ok(());
    }
    let bytes = film().gray().encode(ImageEncoding::Png);
    let failed = |error| Error::Write { path: path.to_owned(), source: std::io::Error::other(error) };
    write_file(path, &bytes.map_err(failed)?)
}

/// What the header of a picture states in sets that removed dates and procedures.
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
