//! DICOM files: the stored values of the first frame, and what is needed to show them.
//!
//! dicom-rs parses and decodes; modality and VOI transforms are done in [`crate::image::intensity`], in a documented order. Nothing
//! of the header but what [`Dicom`] lists leaves this room, error messages included.

use std::borrow::Cow;
use std::ops::Range;

use dicom_core::Tag;
use dicom_dictionary_std::tags;
use dicom_object::file::ReadPreamble;
use dicom_object::mem::InMemDicomObject;
use dicom_object::{FileDicomObject, OpenFileOptions};

use crate::dicom::frame;
use crate::dicom::header::Header;
use crate::dicom::limits::{self, guarded};

/// The first frame of a DICOM image; pixels that lie in the file as they are shown are borrowed from it.
pub struct Dicom<'a> {
    pub width: u32,
    pub height: u32,
    pub pixels: Pixels<'a>,
    /// Grey values rise from white to black.
    pub inverted: bool,
    pub modality: Modality,
    pub voi: Option<Voi>,
    /// Stored values, from and to, that fill up the picture and mean nothing.
    pub padding: Option<(i64, i64)>,
    /// The documented columns that the header fills.
    pub header: Header,
}

impl Dicom<'_> {
    /// Whether a stored value fills up the picture.
    pub fn is_padding(&self, stored: i64) -> bool {
        self.padding.is_some_and(|(low, high)| (low..=high).contains(&stored))
    }
}

/// Decoded values, row-major.
pub enum Pixels<'a> {
    Grey {
        values: Values<'a>,
        bits: Bits,
    },
    /// 8-bit RGB, interleaved.
    Rgb(Vec<u8>),
}

/// Stored grey values in the narrowest type that the file uses, unused bits included.
pub enum Values<'a> {
    Bytes(Cow<'a, [u8]>),
    Words(Vec<u16>),
    /// Two bytes a value, the low one first.
    LittleEndian(&'a [u8]),
    /// Not read yet: at these bytes of the file, one or two a value, the low one first.
    Unread {
        place: Range<usize>,
        bytes: usize,
    },
    /// Wider values, sign-extended and without unused bits.
    Wide(Vec<i64>),
}

/// Which bits of a word hold the stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// How many, 1 to 16 (to 64 in [`Values::Wide`]).
    pub stored: u16,
    /// Unused bits below them.
    pub shift: u16,
    /// Two's complement.
    pub signed: bool,
}

impl Bits {
    /// The used bits of a word.
    pub fn pattern(self, word: u16) -> u16 {
        (word >> self.shift) & ((1u32 << self.stored) - 1) as u16
    }

    /// The stored value in a word.
    pub fn value(self, word: u16) -> i64 {
        let (pattern, sign) = (i64::from(self.pattern(word)), 1i64 << (self.stored - 1));
        if self.signed && pattern & sign != 0 { pattern - 2 * sign } else { pattern }
    }
}

impl Pixels<'_> {
    /// The memory of decoded values, to be used again.
    pub fn into_words(self) -> Vec<u16> {
        match self {
            Self::Grey { values: Values::Words(words), .. } => words,
            _ => Vec::new(),
        }
    }

    /// Stored values of a grey picture.
    pub fn stored(&self) -> Option<Vec<i64>> {
        let Self::Grey { values, bits } = self else { return None };
        Some(match values {
            Values::Bytes(values) => values.iter().map(|&byte| bits.value(byte.into())).collect(),
            Values::Words(values) => values.iter().map(|&word| bits.value(word)).collect(),
            Values::LittleEndian(bytes) => {
                bytes.chunks_exact(2).map(|word| bits.value(u16::from_le_bytes([word[0], word[1]]))).collect()
            }
            Values::Wide(values) => values.clone(),
            Values::Unread { .. } => return None,
        })
    }
}

/// From stored values to values of the modality.
#[derive(Clone, Debug, PartialEq)]
pub enum Modality {
    Rescale { slope: f64, intercept: f64 },
    Table(LookUp),
}

/// From values of the modality to what is shown.
#[derive(Clone, Debug, PartialEq)]
pub enum Voi {
    Table(LookUp),
    Window { center: f64, width: f64, function: WindowFunction },
}

/// Shape of a window (PS3.3 C.11.2.1.2 and .3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowFunction {
    Linear,
    LinearExact,
    Sigmoid,
}

/// A look-up table of a DICOM file.
#[derive(Clone, Debug, PartialEq)]
pub struct LookUp {
    /// Input value of the first entry.
    pub first: i64,
    pub entries: Vec<u16>,
    /// Bits of an entry.
    pub bits: u16,
}

impl LookUp {
    /// The entry for a value; values outside take the nearest end.
    pub fn get(&self, value: f64) -> f64 {
        let index = (value.floor() as i64).saturating_sub(self.first).clamp(0, self.entries.len() as i64 - 1);
        self.entries.get(index as usize).copied().map_or(0.0, f64::from)
    }
}

pub(crate) type Object = FileDicomObject<InMemDicomObject>;

/// Reads the first frame of a radiograph; objects of other kinds (CT, MR, reports, presentation states) are refused by
/// name. Decoded values go into `words`, where they have 16 bits.
///
/// # Errors
/// A sentence that names the cause, and holds no value of the header.
pub fn read_radiograph(bytes: &[u8], words: Vec<u16>) -> Result<Dicom<'_>, String> {
    guarded(|| read_checked(bytes, words, check_class))
}

/// From the beginning of a radiograph's file of `total` bytes: all but its pixels ([`Values::Unread`]), where these are
/// grey, uncompressed and shown through a window; `None` for all others.
///
/// # Errors
/// A sentence that names the cause, and holds no value of the header.
pub fn read_beginning(bytes: &[u8], total: usize) -> Result<Option<Dicom<'static>>, String> {
    guarded(|| {
        let Some(place) = limits::dicom::data_set(bytes, total)? else { return Ok(None) };
        let header = parse(bytes, OpenFileOptions::new().read_until(tags::PIXEL_DATA))?;
        check_class(&header)?;
        let Some((pixels, size)) = frame::unread(&header, &place)? else { return Ok(None) };
        Ok(Some(shown(&header, pixels, size)).filter(|dicom| dicom.voi.is_some()))
    })
}

/// The data set of a file of `total` bytes up to the element `end`, from the beginning of the file.
///
/// # Errors
/// A sentence that names the cause, and holds no value of the header; also where `bytes` end before.
pub(crate) fn read_until(bytes: &[u8], total: usize, end: Tag) -> Result<Object, String> {
    guarded(|| {
        limits::dicom::data_set(bytes, total)?;
        parse(bytes, OpenFileOptions::new().read_until(end))
    })
}

/// Reads the first frame of any DICOM image.
///
/// # Errors
/// A sentence that names the cause, and holds no value of the header.
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
        // The pixels stay where they are; only what stands before them is taken apart.
        let header = parse(bytes, OpenFileOptions::new().read_until(tags::PIXEL_DATA))?;
        check(&header)?;
        if let Some((pixels, size)) = frame::in_place(&header, bytes, places, words)? {
            return Ok(shown(&header, pixels, size));
        }
    }
    // What stands behind the pixels was not checked, and nothing of it is needed.
    let end = places.map_or(bytes.len(), |places| places.end().min(bytes.len()));
    let object = parse(&bytes[..end], OpenFileOptions::new())?;
    check(&object)?;
    let (pixels, size) = frame::by_library(&object)?;
    Ok(shown(&object, pixels, size))
}

fn parse(bytes: &[u8], options: OpenFileOptions) -> Result<Object, String> {
    options
        .read_preamble(ReadPreamble::Auto)
        .from_reader(bytes)
        .map_err(|error| format!("the DICOM data set cannot be parsed: {}", cause(&error)))
}

fn shown<'a>(object: &Object, pixels: Pixels<'a>, (width, height): (u32, u32)) -> Dicom<'a> {
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

/// Some old files have neither preamble nor magic; they begin with a group below 0x0010.
fn looks_like_bare_data_set(bytes: &[u8]) -> bool {
    matches!(bytes, [low, 0, ..] if *low == 2 || *low == 8) && bytes.len() > 8
}

/// The outermost message of an error: dicom-rs puts values of the data set only into the inner ones.
pub(crate) fn cause(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    message.truncate(message.char_indices().nth(200).map_or(message.len(), |(at, _)| at));
    message
}

fn check_class(object: &Object) -> Result<(), String> {
    let class = object.meta().media_storage_sop_class_uid().trim_end_matches(['\0', ' ']);
    not_a_radiograph(class).map_or(Ok(()), |what| Err(format!("{what}, not a radiograph")))
}

/// What a storage class holds (PS3.4 B.5), where it holds no radiographs; secondary captures may be radiographs.
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

pub(crate) fn integer(object: &InMemDicomObject, tag: Tag) -> Option<i64> {
    object.element_opt(tag).ok()??.to_int().ok()
}

fn number(object: &InMemDicomObject, tag: Tag) -> Option<f64> {
    object.element_opt(tag).ok()??.to_multi_float64().ok()?.first().copied().filter(|value| value.is_finite())
}

/// The text of an element, if it is there and not empty.
pub(crate) fn text(object: &InMemDicomObject, tag: Tag) -> Option<String> {
    let value = object.element_opt(tag).ok()??.to_str().ok()?.trim_matches(['\0', ' ']).to_owned();
    (!value.is_empty()).then_some(value)
}

fn look_up(item: &InMemDicomObject, signed: bool) -> Option<LookUp> {
    let descriptor = item.element_opt(tags::LUT_DESCRIPTOR).ok()??.to_multi_int::<i64>().ok()?;
    let [entries, first, bits] = descriptor.get(..3)? else {
        return None;
    };
    // The first value is signed like the pixels; it may be written in either form.
    let first = if signed && *first > i64::from(i16::MAX) { first - 65536 } else { *first };
    let data = item.element_opt(tags::LUT_DATA).ok()??.to_multi_int::<i64>().ok()?;
    let wanted = if *entries == 0 { 65536 } else { *entries as usize };
    let entries: Vec<u16> = data.into_iter().map(|value| value as u16).take(wanted).collect();
    (!entries.is_empty()).then_some(LookUp { first, entries, bits: (*bits).clamp(1, 16) as u16 })
}

fn first_item(object: &InMemDicomObject, tag: Tag) -> Option<InMemDicomObject> {
    object.element_opt(tag).ok()??.items()?.first().cloned()
}

fn modality(object: &InMemDicomObject) -> Modality {
    let signed = integer(object, tags::PIXEL_REPRESENTATION) == Some(1);
    if let Some(table) = first_item(object, tags::MODALITY_LUT_SEQUENCE).and_then(|item| look_up(&item, signed)) {
        return Modality::Table(table);
    }
    let slope = number(object, tags::RESCALE_SLOPE).filter(|slope| *slope != 0.0).unwrap_or(1.0);
    Modality::Rescale { slope, intercept: number(object, tags::RESCALE_INTERCEPT).unwrap_or(0.0) }
}

fn voi(object: &InMemDicomObject) -> Option<Voi> {
    let signed = integer(object, tags::PIXEL_REPRESENTATION) == Some(1);
    if let Some(table) = first_item(object, tags::VOILUT_SEQUENCE).and_then(|item| look_up(&item, signed)) {
        return Some(Voi::Table(table));
    }
    let center = number(object, tags::WINDOW_CENTER)?;
    let width = number(object, tags::WINDOW_WIDTH)?;
    let function = match text(object, tags::VOILUT_FUNCTION).as_deref() {
        Some("LINEAR_EXACT") => WindowFunction::LinearExact,
        Some("SIGMOID") => WindowFunction::Sigmoid,
        _ => WindowFunction::Linear,
    };
    (width > 0.0).then_some(Voi::Window { center, width, function })
}

/// The values that fill up the picture (PS3.3 C.7.5.1.1.2); they may be written signed or not.
fn padding(object: &InMemDicomObject) -> Option<(i64, i64)> {
    let bits = integer(object, tags::BITS_ALLOCATED).filter(|bits| (1..=32).contains(bits))?;
    let signed = integer(object, tags::PIXEL_REPRESENTATION) == Some(1);
    let value = |tag| {
        let value = integer(object, tag)?.rem_euclid(1 << bits);
        Some(if signed && value >= 1 << (bits - 1) { value - (1 << bits) } else { value })
    };
    let first = value(tags::PIXEL_PADDING_VALUE)?;
    let last = value(tags::PIXEL_PADDING_RANGE_LIMIT).unwrap_or(first);
    Some((first.min(last), first.max(last)))
}

#[cfg(test)]
mod tests {
    use dicom_dictionary_std::uids;

    use super::*;

    #[test]
    fn other_objects_are_called_by_their_name() {
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
