//! View, sex, age and pixel spacing from a DICOM header, restricted to known codes and numbers: no free text is taken over.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use dataset::format::record_checks;
use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::mem::InMemDicomObject;

use crate::dicom::limits::MAX_FILE_BYTES;
use crate::dicom::object::{Object, read_until, text};
use crate::image::projection::Projection;
use crate::run::hashing_reader::{Hashing, Reader};

/// The element after PatientID.
const AFTER_PATIENT_ID: Tag = Tag(0x0010, 0x0021);

/// Bytes at the beginning of a file in which PatientID is searched.
const MAX_BEGINNING: usize = 16 << 20;

/// Words of which a ViewPosition may consist: the terms that DICOM defines for chest radiographs, and terms of manufacturers
/// and published data sets. Any other text may be a name.
const VIEW_WORDS: [&str; 36] = [
    "AP",
    "PA",
    "LL",
    "RL",
    "RLD",
    "LLD",
    "RLO",
    "LLO", //
    "LATERAL",
    "LAT",
    "FRONTAL",
    "OBLIQUE",
    "OBL",
    "LAO",
    "RAO",
    "LPO",
    "RPO", //
    "ANTEROPOSTERIOR",
    "POSTEROANTERIOR",
    "LEFT",
    "RIGHT",
    "AXIAL",
    "APICAL",
    "LORDOTIC",
    "SWIMMERS", //
    "DECUBITUS",
    "DECUB",
    "XTABLE",
    "HORIZONTAL",
    "SUPINE",
    "PRONE",
    "ERECT",
    "SEMIERECT",
    "UPRIGHT",
    "PORTABLE",
    "VERTICAL",
];

/// The columns that a header can fill.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// ViewPosition in capitals, if it consists of known view codes.
    pub view: Option<String>,
    /// Whether the header has a ViewPosition that is no view code.
    pub has_unknown_view: bool,
    /// The projection by PatientOrientation; it is compared with the view and not stored.
    pub orientation: Option<Projection>,
    /// BurnedInAnnotation is `YES`: the pixels contain text that may identify the patient.
    pub has_burned_in_text: bool,
    /// PatientSex, if it is `F`, `M` or `O`.
    pub sex: Option<String>,
    /// PatientAge in years.
    pub age_years: Option<f32>,
    /// Distance of rows and of columns in millimeters: PixelSpacing, else ImagerPixelSpacing.
    pub pixel_spacing: Option<[f32; 2]>,
}

impl Header {
    /// Reads the columns of a data set; missing and malformed elements give `None`.
    pub fn of(object: &InMemDicomObject) -> Self {
        let stated = text(object, tags::VIEW_POSITION).map(|view| view.to_ascii_uppercase());
        let view = stated.clone().filter(|view| is_view(view));
        Self {
            has_unknown_view: stated.is_some() && view.is_none(),
            view,
            orientation: text(object, tags::PATIENT_ORIENTATION).and_then(|rows| Projection::of_orientation(&rows)),
            has_burned_in_text: text(object, tags::BURNED_IN_ANNOTATION)
                .is_some_and(|it| it.eq_ignore_ascii_case("YES")),
            sex: text(object, tags::PATIENT_SEX).and_then(|text| sex(&text)),
            age_years: text(object, tags::PATIENT_AGE).and_then(|age| years(&age)),
            pixel_spacing: [tags::PIXEL_SPACING, tags::IMAGER_PIXEL_SPACING]
                .into_iter()
                .find_map(|tag| spacing(object, tag)),
        }
    }
}

/// Two distances in millimeters; `None` where they are no positive numbers.
fn spacing(object: &InMemDicomObject, tag: Tag) -> Option<[f32; 2]> {
    let values = object.element_opt(tag).ok()??.to_multi_float32().ok()?;
    let spacing = <[f32; 2]>::try_from(values.as_slice()).ok()?;
    record_checks::pixel_spacing(spacing).is_ok().then_some(spacing)
}

/// Parses a sex: `F`, `M` or `O`.
pub fn sex(text: &str) -> Option<String> {
    let sex = text.trim().to_ascii_uppercase();
    matches!(sex.as_str(), "F" | "M" | "O").then_some(sex)
}

/// Parses an age (`58`, `058Y`, `011M`, `008W` or `007D`) to years.
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

/// The PatientID of a DICOM file; reads only the beginning of the file.
///
/// # Errors
/// The outer error is that of reading the file. The inner one is a sentence that names the cause and contains no value of
/// the header.
pub fn patient_id(path: &Path) -> io::Result<Result<String, String>> {
    let (mut reader, mut bytes) = (Reader::open(path, MAX_FILE_BYTES, Hashing::default())?, Vec::new());
    reader.piece(&mut bytes)?;
    if bytes.get(128..132) != Some(b"DICM") {
        return Ok(Err("not a DICOM file, so it has no PatientID".to_owned()));
    }
    loop {
        let object = read_until(&bytes, reader.length() as usize, AFTER_PATIENT_ID);
        let stated = |object: Object| text(&object, tags::PATIENT_ID);
        let found = object.and_then(|object| stated(object).ok_or_else(|| "the header has no PatientID".to_owned()));
        let before = bytes.len();
        while found.is_err() && bytes.len() < MAX_BEGINNING && reader.piece(&mut bytes)? {}
        if bytes.len() == before {
            return Ok(found);
        }
    }
}

/// Whether a file has the DICOM magic code.
///
/// # Errors
/// Those of reading the file. A short file is no error.
pub fn is_dicom(path: &Path) -> io::Result<bool> {
    // A pipe may never end.
    if !path.metadata()?.is_file() {
        return Ok(false);
    }
    let mut start = [0; 132];
    match File::open(path)?.read_exact(&mut start) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| start[128..] == *b"DICM"),
    }
}

/// Whether a code string of DICOM (VR CS, at most 16 characters) is a view code.
fn is_view(text: &str) -> bool {
    let mut words = text.split([' ', '_']).filter(|word| !word.is_empty()).peekable();
    text.len() <= 16 && words.peek().is_some() && words.all(|word| VIEW_WORDS.contains(&word))
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
        assert!(
            years("026W").is_some_and(|age| (age - 0.498).abs() < 0.001)
                && years("073D").is_some_and(|age| (age - 0.2).abs() < 0.001)
        );
        assert_eq!(years("unknown"), None);
        assert_eq!(years("-4"), None);
        assert_eq!(years(""), None);
        assert_eq!(years("nan"), None);
        assert_eq!(years("é"), None);
    }

    #[test]
    fn the_patient_is_searched_in_a_bounded_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.dcm");
        let write = |private: usize| {
            let object = InMemDicomObject::from_element_iter([
                DataElement::new(Tag(0x0009, 0x1010), VR::OB, PrimitiveValue::from(vec![0u8; private])),
                DataElement::new(tags::PATIENT_ID, VR::LO, PrimitiveValue::from("P7")),
            ]);
            let meta = dicom_object::FileMetaTableBuilder::new()
                .transfer_syntax(dicom_dictionary_std::uids::EXPLICIT_VR_LITTLE_ENDIAN)
                .media_storage_sop_class_uid(dicom_dictionary_std::uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE)
                .media_storage_sop_instance_uid("2.25.1");
            object.with_meta(meta).unwrap().write_to_file(&path).unwrap();
        };
        for private in [2, 1 << 20] {
            write(private);
            assert_eq!(patient_id(&path).unwrap().as_deref(), Ok("P7"));
        }
        write(MAX_BEGINNING);
        assert!(patient_id(&path).unwrap().is_err());
        // A length beyond the end of the file is an error.
        let mut bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(6).position(|window| window == [0x09, 0x00, 0x10, 0x10, b'O', b'B']).unwrap() + 8;
        bytes[at..at + 4].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        assert!(patient_id(&path).unwrap().unwrap_err().contains("claims more bytes than the file holds"));
    }

    #[test]
    fn free_text_in_a_header_is_ignored() {
        let mut object = InMemDicomObject::new_empty();
        let mut put = |tag, vr, value: &str| drop(object.put(DataElement::new(tag, vr, PrimitiveValue::from(value))));
        put(tags::VIEW_POSITION, VR::CS, "as Mr. Smith wished");
        put(tags::PATIENT_SEX, VR::CS, "see chart");
        put(tags::PATIENT_AGE, VR::AS, "born 1950");
        assert_eq!(Header::of(&object), Header { has_unknown_view: true, ..Header::default() });
        let mut put = |tag, vr, value: &str| drop(object.put(DataElement::new(tag, vr, PrimitiveValue::from(value))));
        put(tags::VIEW_POSITION, VR::CS, "pa ");
        put(tags::PATIENT_SEX, VR::CS, "F");
        put(tags::PATIENT_AGE, VR::AS, "051");
        let found = Header::of(&object);
        assert_eq!((found.view.as_deref(), found.sex.as_deref(), found.age_years), (Some("PA"), Some("F"), Some(51.0)));
    }

    #[test]
    fn a_pixel_spacing_has_two_positive_numbers() {
        let of = |elements: &[(Tag, &str)]| {
            let element = |(tag, text): &(Tag, &str)| {
                let values: Vec<String> = text.split('\\').map(str::to_owned).collect();
                DataElement::new(*tag, VR::DS, PrimitiveValue::Strs(values.into()))
            };
            Header::of(&InMemDicomObject::from_element_iter(elements.iter().map(element))).pixel_spacing
        };
        let (own, imager) = (tags::PIXEL_SPACING, tags::IMAGER_PIXEL_SPACING);
        assert_eq!(of(&[(own, "0.139\\0.14"), (imager, "0.2\\0.2")]), Some([0.139, 0.14]));
        assert_eq!(of(&[(imager, "0.2\\ .25")]), Some([0.2, 0.25]));
        assert_eq!(of(&[(own, "0\\0"), (imager, "0.2\\0.2")]), Some([0.2, 0.2]), "zero is no distance");
        for unusable in ["0.139", "-1\\1", "a\\b", "nan\\1", "1\\2\\3", ""] {
            assert_eq!(of(&[(own, unusable)]), None, "{unusable}");
        }
    }

    #[test]
    fn a_view_is_a_code_of_a_closed_list() {
        let of = |view: &str| {
            let element = DataElement::new(tags::VIEW_POSITION, VR::CS, PrimitiveValue::from(view));
            let header = Header::of(&InMemDicomObject::from_element_iter([element]));
            (header.view, header.has_unknown_view)
        };
        for view in
            ["PA", "AP", "LL", "RLD", "LLO", "LATERAL", "LAO", "XTABLE LATERAL", "AP AXIAL", "PA LLD", "AP_SUPINE"]
        {
            assert_eq!(of(view), (Some(view.to_owned()), false));
        }
        for name in ["MUELLER", "PA SMITH", "JONES_AP", "MRN 0012345", "12", "ANTEROPOSTERIOR PORTABLE"] {
            assert_eq!(of(name), (None, true), "{name}");
        }
        assert_eq!(of(""), (None, false));
    }
}
