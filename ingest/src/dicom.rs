//! DICOM files: the stored values of the first frame, and what is needed to show them.
//!
//! dicom-rs parses and decodes; modality and VOI transforms are done in [`crate::tone`], in a documented order. Nothing
//! of the header but what [`Dicom`] lists leaves this room, error messages included.

use dicom_dictionary_std::{tags, uids};
use dicom_object::file::ReadPreamble;
use dicom_object::mem::InMemDicomObject;
use dicom_object::{FileDicomObject, OpenFileOptions};
use dicom_pixeldata::PixelDecoder;

use crate::header::Header;

/// Most pixels an image may claim: a hundred times a full-size radiograph. More is refused before it is allocated.
const MAX_PIXELS: u64 = 1 << 30;

/// The first frame of a DICOM image.
pub struct Dicom {
    pub width: u32,
    pub height: u32,
    pub pixels: Pixels,
    /// Grey values rise from white to black.
    pub inverted: bool,
    pub modality: Modality,
    pub voi: Option<Voi>,
    pub header: Header,
}

/// Decoded values.
pub enum Pixels {
    /// Stored values, sign-extended, unused bits masked; `bits` of them are used.
    Grey { values: Values, bits: u16, signed: bool },
    /// 8-bit RGB, interleaved.
    Rgb(Vec<u8>),
}

/// Stored grey values in the narrowest type that the file uses.
pub enum Values {
    U8(Vec<u8>),
    /// Bit pattern of up to 16 bits, two's complement where signed.
    U16(Vec<u16>),
    /// Wider values.
    I64(Vec<i64>),
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

type Object = FileDicomObject<InMemDicomObject>;

/// Reads the first frame of a radiograph; objects of other kinds (CT, MR, reports, presentation states) are refused by
/// name.
///
/// # Errors
/// A sentence that names the cause, and holds no value of the header.
pub fn read_radiograph(bytes: &[u8]) -> Result<Dicom, String> {
    let object = parse(bytes)?;
    check_class(&object)?;
    first_frame(&object)
}

/// Reads the first frame of any DICOM image.
///
/// # Errors
/// A sentence that names the cause, and holds no value of the header.
pub fn read(bytes: &[u8]) -> Result<Dicom, String> {
    first_frame(&parse(bytes)?)
}

fn parse(bytes: &[u8]) -> Result<Object, String> {
    if bytes.get(128..132) != Some(b"DICM") && bytes.get(..4) != Some(b"DICM") && !looks_like_bare_data_set(bytes) {
        return Err("not a DICOM file".to_owned());
    }
    OpenFileOptions::new()
        .read_preamble(ReadPreamble::Auto)
        .from_reader(bytes)
        .map_err(|error| format!("the DICOM data set cannot be parsed: {}", cause(&error)))
}

fn first_frame(object: &Object) -> Result<Dicom, String> {
    if object.element_opt(tags::PIXEL_DATA).ok().flatten().is_none() {
        return Err("the file holds no pixel data".to_owned());
    }
    let need = |tag, name: &str| integer(object, tag).ok_or_else(|| format!("{name} is missing or no number"));
    let (height, width) = (need(tags::ROWS, "Rows")?, need(tags::COLUMNS, "Columns")?);
    let samples = integer(object, tags::SAMPLES_PER_PIXEL).unwrap_or(1);
    let allocated = need(tags::BITS_ALLOCATED, "BitsAllocated")?;
    if height <= 0 || width <= 0 || !(1..=4).contains(&samples) || !(1..=64).contains(&allocated) {
        return Err(format!("{width}×{height} pixels of {samples} samples and {allocated} bits make no image"));
    }
    if (height as u64) * (width as u64) * (samples as u64) > MAX_PIXELS {
        return Err(format!("{width}×{height} pixels are refused: a radiograph is smaller"));
    }
    let photometric = text(object, tags::PHOTOMETRIC_INTERPRETATION).unwrap_or_default();
    let native = object.element_opt(tags::PIXEL_DATA).ok().flatten().is_some_and(|data| data.fragments().is_none());
    let (width, height, pixels) = if native && photometric == "YBR_FULL_422" {
        // Two pixels share their colour: four bytes for two, which the decoder counts as six.
        let data = object.element_opt(tags::PIXEL_DATA).ok().flatten().and_then(|data| data.to_bytes().ok());
        let count = width as usize * height as usize;
        (width as u32, height as u32, ybr_422(&data.unwrap_or_default(), count)?)
    } else {
        let decoded = object
            .decode_pixel_data_frame(0)
            .map_err(|error| format!("the pixels cannot be decoded: {}", cause(&error)))?;
        let (width, height) = (decoded.columns(), decoded.rows());
        let count = width as usize * height as usize;
        let pixels = if decoded.samples_per_pixel() == 1 {
            let stored = integer(object, tags::BITS_STORED).unwrap_or(allocated).clamp(1, 64) as u16;
            let layout = Layout {
                allocated: decoded.bits_allocated(),
                stored,
                high: integer(object, tags::HIGH_BIT).map_or(stored - 1, |bit| bit.clamp(0, 63) as u16),
                signed: integer(object, tags::PIXEL_REPRESENTATION) == Some(1),
                big_endian: object.meta().transfer_syntax().trim_end_matches(['\0', ' ']) == BIG_ENDIAN,
            };
            let pixels = grey(decoded.data(), count, layout)?;
            if photometric == "PALETTE COLOR" { palette(object, &pixels)? } else { pixels }
        } else {
            let image = decoded
                .to_dynamic_image(0)
                .map_err(|error| format!("the colours cannot be converted: {}", cause(&error)))?;
            Pixels::Rgb(image.into_rgb8().into_raw())
        };
        (width, height, pixels)
    };
    Ok(Dicom {
        width,
        height,
        pixels,
        inverted: photometric == "MONOCHROME1",
        modality: modality(object),
        voi: voi(object),
        header: Header::of(object),
    })
}

/// Some old files have neither preamble nor magic; they begin with a group below 0x0010.
fn looks_like_bare_data_set(bytes: &[u8]) -> bool {
    matches!(bytes, [low, 0, ..] if *low == 2 || *low == 8) && bytes.len() > 8
}

/// The outermost message of an error: dicom-rs puts values of the data set only into the inner ones.
fn cause(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    message.truncate(message.char_indices().nth(200).map_or(message.len(), |(at, _)| at));
    message
}

fn check_class(object: &Object) -> Result<(), String> {
    let class = object.meta().media_storage_sop_class_uid().trim_end_matches(['\0', ' ']).to_owned();
    let refused = match class.as_str() {
        uids::CT_IMAGE_STORAGE | uids::ENHANCED_CT_IMAGE_STORAGE => "a CT slice, not a radiograph",
        uids::MR_IMAGE_STORAGE => "an MR slice, not a radiograph",
        uids::GRAYSCALE_SOFTCOPY_PRESENTATION_STATE_STORAGE => "a presentation state, not an image",
        uids::KEY_OBJECT_SELECTION_DOCUMENT_STORAGE => "a key object selection, not an image",
        class if class.starts_with("1.2.840.10008.5.1.4.1.1.88.") => "a structured report, not an image",
        _ => return Ok(()),
    };
    Err(refused.to_owned())
}

fn integer(object: &InMemDicomObject, tag: dicom_core::Tag) -> Option<i64> {
    object.element_opt(tag).ok()??.to_int().ok()
}

fn number(object: &InMemDicomObject, tag: dicom_core::Tag) -> Option<f64> {
    object.element_opt(tag).ok()??.to_multi_float64().ok()?.first().copied().filter(|value| value.is_finite())
}

fn text(object: &InMemDicomObject, tag: dicom_core::Tag) -> Option<String> {
    Some(object.element_opt(tag).ok()??.to_str().ok()?.trim_matches(['\0', ' ']).to_owned())
}

/// YBR_FULL_422 bytes (Y, Y, Cb, Cr for two pixels) to RGB (PS3.3 C.7.6.3.1.2).
fn ybr_422(data: &[u8], count: usize) -> Result<Pixels, String> {
    let data = data.get(..count * 2).ok_or_else(|| too_short(data.len(), count * 2))?;
    let mut rgb = Vec::with_capacity(count * 3);
    for pair in data.chunks_exact(4) {
        let (blue, red) = (f64::from(pair[2]) - 128.0, f64::from(pair[3]) - 128.0);
        for y in &pair[..2] {
            let y = f64::from(*y);
            let colours = [y + 1.402 * red, y - 0.344_136 * blue - 0.714_136 * red, y + 1.772 * blue];
            rgb.extend(colours.map(|colour| colour.round().clamp(0.0, 255.0) as u8));
        }
    }
    Ok(Pixels::Rgb(rgb))
}

/// Colours of a palette, to 8 bit.
fn palette(object: &InMemDicomObject, indices: &Pixels) -> Result<Pixels, String> {
    let table = |descriptor, data, name: &str| -> Result<(i64, Vec<u8>), String> {
        let bad = || format!("the {name} table of the palette is missing or broken");
        let read = |tag| object.element_opt(tag).ok().flatten();
        let descriptor = read(descriptor).and_then(|element| element.to_multi_int::<i64>().ok()).ok_or_else(bad)?;
        let [entries, first, bits] = descriptor.get(..3).and_then(|d| d.try_into().ok()).ok_or_else(bad)?;
        let entries = if entries == 0 { 65536 } else { entries as usize };
        let data = read(data).and_then(|element| element.to_bytes().ok()).ok_or_else(bad)?;
        // Entries of 8 bits stand in bytes of their own, or each in a word; those of 16 bits are scaled.
        let scaled = |word: u16| ((u32::from(word) * 255 + 32767) / 65535) as u8;
        let shades: Vec<u8> = if data.len() < entries * 2 {
            data.to_vec()
        } else {
            data.chunks_exact(2)
                .map(|word| if bits == 8 { word[0] } else { scaled(u16::from_ne_bytes([word[0], word[1]])) })
                .collect()
        };
        if shades.is_empty() { Err(bad()) } else { Ok((first, shades)) }
    };
    let tables = [
        table(tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::RED_PALETTE_COLOR_LOOKUP_TABLE_DATA, "red")?,
        table(tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::GREEN_PALETTE_COLOR_LOOKUP_TABLE_DATA, "green")?,
        table(tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DESCRIPTOR, tags::BLUE_PALETTE_COLOR_LOOKUP_TABLE_DATA, "blue")?,
    ];
    let colour = |index: i64| {
        [0, 1, 2].map(|channel: usize| {
            let (first, shades) = &tables[channel];
            shades[(index - first).clamp(0, shades.len() as i64 - 1) as usize]
        })
    };
    let rgb = match indices {
        Pixels::Grey { values: Values::U8(values), .. } => values.iter().flat_map(|&v| colour(v.into())).collect(),
        Pixels::Grey { values: Values::U16(values), .. } => values.iter().flat_map(|&v| colour(v.into())).collect(),
        _ => return Err("a palette needs indices of 8 or 16 bits".to_owned()),
    };
    Ok(Pixels::Rgb(rgb))
}

fn too_short(found: usize, needed: usize) -> String {
    format!("{found} bytes of pixels, {needed} are needed")
}

/// Explicit VR big endian, retired and still met.
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// Where in its bytes a stored value stands.
#[derive(Clone, Copy)]
struct Layout {
    allocated: u16,
    stored: u16,
    high: u16,
    signed: bool,
    /// Words of 16 bits come in this machine's order all the same, but wider values with their high word first.
    big_endian: bool,
}

/// Stored values: the used bits, sign-extended where the representation is signed.
fn grey(data: &[u8], count: usize, layout: Layout) -> Result<Pixels, String> {
    let Layout { allocated, stored, high, signed, big_endian } = layout;
    let bytes = usize::from(allocated.div_ceil(8));
    let data = data.get(..count * bytes).ok_or_else(|| too_short(data.len(), count * bytes))?;
    let stored = stored.min(allocated);
    // Bits above the highest and below the lowest used one are unused, and hold overlays in old files.
    let shift = (high + 1).saturating_sub(stored);
    let values = match allocated {
        8 if stored == 8 => Values::U8(data.to_vec()),
        8 => {
            let mask = ((1u16 << stored) - 1) as u8;
            Values::U8(data.iter().map(|value| (value >> shift) & mask).collect())
        }
        16 => {
            let mask = ((1u32 << stored) - 1) as u16;
            let words = data.chunks_exact(2).map(|word| u16::from_ne_bytes([word[0], word[1]]));
            Values::U16(words.map(|value| (value >> shift) & mask).collect())
        }
        32 => {
            let mask = (1u64 << stored) - 1;
            let sign = 1u64 << (stored - 1);
            let wide = |word: [u8; 4]| u32::from_ne_bytes(word).rotate_left(if big_endian { 16 } else { 0 });
            Values::I64(
                data.chunks_exact(4)
                    .map(|word| {
                        let value = (u64::from(wide([word[0], word[1], word[2], word[3]])) >> shift) & mask;
                        if signed && value & sign != 0 { value as i64 - (1i64 << stored) } else { value as i64 }
                    })
                    .collect(),
            )
        }
        other => return Err(format!("{other} bits allocated are not supported")),
    };
    Ok(Pixels::Grey { values, bits: stored, signed })
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

fn first_item(object: &InMemDicomObject, tag: dicom_core::Tag) -> Option<InMemDicomObject> {
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
