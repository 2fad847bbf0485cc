//! What a DICOM header says of patient and view, cleaned: free text never gets through.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::OpenFileOptions;
use dicom_object::mem::InMemDicomObject;

/// The documented columns that a header can fill.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// ViewPosition, capitals.
    pub view: Option<String>,
    /// `F`, `M` or `O`.
    pub sex: Option<String>,
    pub age_years: Option<f32>,
}

impl Header {
    /// The columns of a data set; what is missing or malformed stays empty.
    pub fn of(object: &InMemDicomObject) -> Self {
        let sex = text(object, tags::PATIENT_SEX).map(|sex| sex.to_ascii_uppercase());
        Self {
            view: text(object, tags::VIEW_POSITION).map(|view| view.to_ascii_uppercase()).filter(|view| is_code(view)),
            sex: sex.filter(|sex| matches!(sex.as_str(), "F" | "M" | "O")),
            age_years: text(object, tags::PATIENT_AGE).and_then(|age| years(&age)),
        }
    }
}

/// An age: `58`, `058Y`, `011M`, `008W` or `007D`.
pub fn years(text: &str) -> Option<f32> {
    let number = |digits: &str| digits.parse::<f32>().ok().filter(|age| age.is_finite() && *age >= 0.0);
    match text.trim().split_at_checked(text.trim().len().checked_sub(1)?)? {
        (digits, "Y") => number(digits),
        (digits, "M") => Some(number(digits)? / 12.0),
        (digits, "W") => Some(number(digits)? * 7.0 / 365.25),
        (digits, "D") => Some(number(digits)? / 365.25),
        _ => number(text.trim()),
    }
}

/// The PatientID of a DICOM file, read up to its pixels.
///
/// # Errors
/// A sentence that names the cause, and holds no value of the header.
pub fn patient_id(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "the file is missing".to_owned(),
        _ => error.to_string(),
    };
    let mut file = File::open(path).map_err(failed)?;
    if !begins_as_dicom(&mut file) {
        return Err("not a DICOM file, so it states no PatientID".to_owned());
    }
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    let object = OpenFileOptions::new()
        .read_until(tags::PIXEL_DATA)
        .from_reader(BufReader::new(file))
        .map_err(|_| "the DICOM header cannot be parsed".to_owned())?;
    text(&object, tags::PATIENT_ID).ok_or_else(|| "the header states no PatientID".to_owned())
}

/// Whether a file has the DICOM magic at its place.
pub fn is_dicom(path: &Path) -> bool {
    // A pipe would never end.
    path.metadata().is_ok_and(|found| found.is_file())
        && File::open(path).is_ok_and(|mut file| begins_as_dicom(&mut file))
}

fn begins_as_dicom(file: &mut File) -> bool {
    let mut start = [0; 132];
    file.read_exact(&mut start).is_ok() && start[128..] == *b"DICM"
}

fn text(object: &InMemDicomObject, tag: Tag) -> Option<String> {
    let value = object.element_opt(tag).ok()??.to_str().ok()?.trim_matches(['\0', ' ']).to_owned();
    (!value.is_empty()).then_some(value)
}

/// A code string of DICOM (VR CS): up to 16 capitals, digits, spaces and underscores.
fn is_code(text: &str) -> bool {
    text.len() <= 16 && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b' ' || b == b'_')
}

#[cfg(test)]
mod tests {
    use dicom_core::{DataElement, PrimitiveValue, VR};

    use super::*;

    #[test]
    fn ages_of_tables_and_headers() {
        assert_eq!(years("58"), Some(58.0));
        assert_eq!(years("058Y"), Some(58.0));
        assert_eq!(years("006M"), Some(0.5));
        assert_eq!(years("unknown"), None);
        assert_eq!(years("-4"), None);
        assert_eq!(years(""), None);
        assert_eq!(years("nan"), None);
        assert_eq!(years("é"), None);
    }

    #[test]
    fn free_text_in_a_header_is_left_out() {
        let mut object = InMemDicomObject::new_empty();
        let mut put = |tag, vr, value: &str| drop(object.put(DataElement::new(tag, vr, PrimitiveValue::from(value))));
        put(tags::VIEW_POSITION, VR::CS, "as Mr. Smith wished");
        put(tags::PATIENT_SEX, VR::CS, "see chart");
        put(tags::PATIENT_AGE, VR::AS, "born 1950");
        assert_eq!(Header::of(&object), Header::default());
        let mut put = |tag, vr, value: &str| drop(object.put(DataElement::new(tag, vr, PrimitiveValue::from(value))));
        put(tags::VIEW_POSITION, VR::CS, "pa ");
        put(tags::PATIENT_SEX, VR::CS, "F");
        put(tags::PATIENT_AGE, VR::AS, "051");
        let found = Header::of(&object);
        assert_eq!((found.view.as_deref(), found.sex.as_deref(), found.age_years), (Some("PA"), Some("F"), Some(51.0)));
    }
}
