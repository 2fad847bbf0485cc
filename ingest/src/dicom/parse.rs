//! Reads the stored values of a DICOM file's first frame, and the attributes that the intensity transform needs.
//!
//! dicom-rs parses the file; [`crate::image::intensity`] applies the modality and VOI transforms. No value of the header
//! except the fields of [`Dicom`] leaves this module, not even in an error message.

use dicom_dictionary_std::tags;
use dicom_object::OpenFileOptions;

use crate::dicom::frame;
use crate::dicom::header::Header;
use crate::dicom::limits::{self, guarded};
use crate::dicom::object::{Object, parse, text};
use crate::dicom::pixels::Pixels;
use crate::dicom::transforms::{Modality, Voi, modality, padding, voi};

/// The first frame of a DICOM image. Uncompressed little-endian pixels are borrowed from the bytes of the file.
pub struct Dicom<'a> {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The stored values.
    pub pixels: Pixels<'a>,
    /// MONOCHROME1: high values are dark.
    pub inverted: bool,
    /// The modality transform.
    pub modality: Modality,
    /// The VOI transform, if the header has one.
    pub voi: Option<Voi>,
    /// First and last stored value that is padding.
    pub padding: Option<(i64, i64)>,
    /// The columns that the header fills.
    pub header: Header,
}

impl Dicom<'_> {
    /// Whether a stored value is padding.
    pub fn is_padding(&self, stored: i64) -> bool {
        self.padding.is_some_and(|(low, high)| (low..=high).contains(&stored))
    }
}

/// Reads the first frame of a radiograph. `words` is a buffer for decoded 16-bit values.
///
/// # Errors
/// A sentence that names the cause and contains no value of the header; also for objects of other kinds (CT, MR, structured
/// reports, presentation states).
pub fn read_radiograph(bytes: &[u8], words: Vec<u16>) -> Result<Dicom<'_>, String> {
    guarded(|| read_checked(bytes, words, check_class))
}

/// Reads all but the pixels ([`Values::Unread`](crate::dicom::Values::Unread)) from the beginning of a radiograph's file of
/// `total` bytes. `None` unless the pixels are gray and uncompressed and the header has a VOI transform.
///
/// # Errors
/// A sentence that names the cause and contains no value of the header.
pub fn read_beginning(bytes: &[u8], total: usize) -> Result<Option<Dicom<'static>>, String> {
    guarded(|| {
        let Some(place) = limits::dicom::data_set(bytes, total)? else { return Ok(None) };
        let header = parse(bytes, OpenFileOptions::new().read_until(tags::PIXEL_DATA))?;
        check_class(&header)?;
        let Some((pixels, size)) = frame::unread(&header, &place)? else { return Ok(None) };
        Ok(Some(assemble(&header, pixels, size)).filter(|dicom| dicom.voi.is_some()))
    })
}

/// Reads the first frame of any DICOM image.
///
/// # Errors
/// A sentence that names the cause and contains no value of the header.
pub fn read(bytes: &[u8]) -> Result<Dicom<'_>, String> {
    guarded(|| read_checked(bytes, Vec::new(), |_| Ok(())))
}

fn read_checked(
    bytes: &[u8],
    words: Vec<u16>,
    check: impl Fn(&Object) -> Result<(), String>,
) -> Result<Dicom<'_>, String> {
    if bytes.get(128..132) != Some(b"DICM") && bytes.get(..4) != Some(b"DICM") && !looks_like_bare_data_set(bytes) {
        return Err("not a DICOM file".to_owned());
    }
    let places = limits::dicom::data_set(bytes, bytes.len())?;
    if let Some(places) = &places {
        // Only the elements before the pixels are parsed.
        let header = parse(bytes, OpenFileOptions::new().read_until(tags::PIXEL_DATA))?;
        check(&header)?;
        if let Some((pixels, size)) = frame::in_place(&header, bytes, places, words)? {
            return Ok(assemble(&header, pixels, size));
        }
    }
    // The elements after the pixels were not checked, and are not needed.
    let end = places.map_or(bytes.len(), |places| places.end().min(bytes.len()));
    let object = parse(&bytes[..end], OpenFileOptions::new())?;
    check(&object)?;
    let (pixels, size) = frame::by_library(&object)?;
    Ok(assemble(&object, pixels, size))
}

fn assemble<'a>(object: &Object, pixels: Pixels<'a>, (width, height): (u32, u32)) -> Dicom<'a> {
    Dicom {
        width,
        height,
        pixels,
        inverted: text(object, tags::PHOTOMETRIC_INTERPRETATION).as_deref() == Some("MONOCHROME1"),
        modality: modality(object),
        voi: voi(object),
        padding: padding(object),
        header: Header::of(object),
    }
}

/// Some old files have neither preamble nor magic code; they begin with group 0x0002 or 0x0008.
fn looks_like_bare_data_set(bytes: &[u8]) -> bool {
    matches!(bytes, [low, 0, ..] if *low == 2 || *low == 8) && bytes.len() > 8
}

fn check_class(object: &Object) -> Result<(), String> {
    let class = object.meta().media_storage_sop_class_uid().trim_end_matches(['\0', ' ']);
    not_a_radiograph(class).map_or(Ok(()), |what| Err(format!("{what}, not a radiograph")))
}

/// The kind of object of a storage class (PS3.4 B.5) that has no radiographs; `None` for the others. Secondary captures may
/// be radiographs.
fn not_a_radiograph(class: &str) -> Option<&'static str> {
    let kind: Vec<&str> = class.strip_prefix("1.2.840.10008.5.1.4.1.1.")?.split('.').collect();
    Some(match kind.as_slice() {
        ["1", "2", ..] => "a mammogram",
        ["2", ..] => "a CT slice",
        ["3" | "6", ..] => "an ultrasound image",
        ["4", ..] => "an MR slice",
        ["5" | "20", ..] => "a nuclear medicine image",
        ["11", ..] => "a presentation state",
        ["66", ..] => "a segmentation or registration",
        ["88", "59"] => "a key object selection",
        ["88", ..] => "a structured report",
        ["104", ..] => "a document",
        ["128" | "130", ..] => "a PET slice",
        ["481", ..] => "an object of radiotherapy",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use dicom_dictionary_std::uids;

    use super::*;

    #[test]
    fn objects_of_other_kinds_are_named() {
        for (class, what) in [
            (uids::ENHANCED_CT_IMAGE_STORAGE, "a CT slice"),
            (uids::ENHANCED_MR_IMAGE_STORAGE, "an MR slice"),
            (uids::ULTRASOUND_IMAGE_STORAGE, "an ultrasound image"),
            (uids::GRAYSCALE_SOFTCOPY_PRESENTATION_STATE_STORAGE, "a presentation state"),
            (uids::KEY_OBJECT_SELECTION_DOCUMENT_STORAGE, "a key object selection"),
            (uids::COMPREHENSIVE_SR_STORAGE, "a structured report"),
            (uids::DIGITAL_MAMMOGRAPHY_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION, "a mammogram"),
        ] {
            assert_eq!(not_a_radiograph(class), Some(what));
        }
        for class in [
            uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE,
            uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PRESENTATION,
            uids::DIGITAL_X_RAY_IMAGE_STORAGE_FOR_PROCESSING,
            uids::SECONDARY_CAPTURE_IMAGE_STORAGE,
            uids::X_RAY_RADIOFLUOROSCOPIC_IMAGE_STORAGE,
            "2.25.1",
            "",
        ] {
            assert_eq!(not_a_radiograph(class), None, "{class}");
        }
    }
}
