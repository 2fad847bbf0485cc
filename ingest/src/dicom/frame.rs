//! Decodes the pixels of a DICOM file's first frame to stored values.
//!
//! Uncompressed little-endian gray pixels are used in place; our own decoders decode gray JPEG and JPEG-LS; dicom-rs decodes
//! everything else (RLE, JPEG 2000, color, palettes, big endian, deflated, more than 16 bits).

use std::borrow::Cow;

use dicom_dictionary_std::{tags, uids};
use dicom_object::FileDicomObject;
use dicom_object::mem::InMemDicomObject;
use dicom_pixeldata::PixelDecoder;

use crate::codec::{self, DecodeError, Process};
use crate::dicom::limits::dicom::{BIG_ENDIAN, Place};
use crate::dicom::limits::{self, MAX_VALUES};
use crate::dicom::object::{cause, integer, text};
use crate::dicom::pixels::{Bits, Pixels, Values};

type Object = FileDicomObject<InMemDicomObject>;

/// Width and height.
type Size = (u32, u32);

/// The attributes that describe the pixels.
struct PixelDescription {
    size: Size,
    samples: i64,
    allocated: i64,
    bits: Bits,
    photometric: String,
}

impl PixelDescription {
    fn of(object: &Object) -> Result<Self, String> {
        let need = |tag, name: &str| {
            integer(object, tag).ok_or_else(|| format!("the header has no {name}, or it is not a number"))
        };
        let (height, width) = (need(tags::ROWS, "Rows")?, need(tags::COLUMNS, "Columns")?);
        let samples = integer(object, tags::SAMPLES_PER_PIXEL).unwrap_or(1);
        let allocated = need(tags::BITS_ALLOCATED, "BitsAllocated")?;
        let sides = 1..=i64::from(u16::MAX);
        if !sides.contains(&height)
            || !sides.contains(&width)
            || !(1..=4).contains(&samples)
            || !(1..=64).contains(&allocated)
        {
            return Err(format!(
                "{width}×{height} pixels of {samples} samples and {allocated} bits: not the size of an image"
            ));
        }
        if (height * width * samples) as u64 > MAX_VALUES {
            return Err(format!("{width}×{height} pixels: more than a radiograph has"));
        }
        let stored = integer(object, tags::BITS_STORED).unwrap_or(allocated).clamp(1, allocated);
        let high = integer(object, tags::HIGH_BIT).map_or(stored - 1, |bit| bit.clamp(0, 63));
        let bits = Bits {
            stored: stored as u16,
            // The bits above and below the stored ones are unused; old files have overlays in them.
            shift: (high + 1 - stored).clamp(0, allocated - stored) as u16,
            signed: integer(object, tags::PIXEL_REPRESENTATION) == Some(1),
        };
        let photometric = text(object, tags::PHOTOMETRIC_INTERPRETATION).unwrap_or_default();
        Ok(Self { size: (width as u32, height as u32), samples, allocated, bits, photometric })
    }
}

/// The byte range of uncompressed little-endian gray pixels; `None` for all others.
///
/// # Errors
/// A sentence that names the cause.
pub fn unread(header: &Object, place: &Place) -> Result<Option<(Pixels<'static>, Size)>, String> {
    let PixelDescription { size, samples: 1, allocated: allocated @ (8 | 16), bits, photometric } =
        PixelDescription::of(header)?
    else {
        return Ok(None);
    };
    let syntax = header.meta().transfer_syntax().trim_end_matches(['\0', ' ']);
    let native = matches!(syntax, uids::EXPLICIT_VR_LITTLE_ENDIAN | uids::IMPLICIT_VR_LITTLE_ENDIAN);
    let Place::Native(range) = place else { return Ok(None) };
    if !native || photometric == "PALETTE COLOR" {
        return Ok(None);
    }
    let bytes = allocated as usize / 8;
    let needed = size.0 as usize * size.1 as usize * bytes;
    if range.len() < needed {
        return Err(too_short(range.len(), needed));
    }
    let place = range.start..range.start + needed;
    Ok(Some((Pixels::Gray { values: Values::Unread { place, bytes }, bits }, size)))
}

/// The pixels of a frame that needs no library; `None` for all others. `words` is a buffer for decoded values.
///
/// # Errors
/// A sentence that names the cause.
pub fn in_place<'a>(
    header: &Object,
    bytes: &'a [u8],
    place: &Place,
    mut words: Vec<u16>,
) -> Result<Option<(Pixels<'a>, Size)>, String> {
    let claim = PixelDescription::of(header)?;
    let PixelDescription { size, samples: 1, allocated: 8 | 16, bits, .. } = claim else { return Ok(None) };
    if claim.photometric == "PALETTE COLOR" {
        return Ok(None);
    }
    if let Some((Pixels::Gray { values: Values::Unread { place, bytes: width }, bits }, size)) = unread(header, place)?
    {
        let pixels = &bytes[place];
        let values = if width == 1 { Values::Bytes(pixels.into()) } else { Values::LittleEndian(pixels) };
        return Ok(Some((Pixels::Gray { values, bits }, size)));
    }
    let count = size.0 as usize * size.1 as usize;
    let gray = |values| Ok(Some((Pixels::Gray { values, bits }, size)));
    let syntax = header.meta().transfer_syntax().trim_end_matches(['\0', ' ']);
    let fragments = match (syntax, place) {
        (
            uids::JPEG_BASELINE8_BIT
            | uids::JPEG_EXTENDED12_BIT
            | uids::JPEG_LOSSLESS
            | uids::JPEG_LOSSLESS_SV1
            | uids::JPEGLS_LOSSLESS
            | uids::JPEGLS_NEAR_LOSSLESS,
            Place::Fragments { offsets, fragments },
        ) => {
            let all: Vec<&[u8]> = fragments.iter().map(|range| &bytes[range.clone()]).collect();
            limits::dicom::compressed(syntax, &all, size.0, size.1)?;
            let frames = integer(header, tags::NUMBER_OF_FRAMES).unwrap_or(1);
            match first_frame(&all, frames, &bytes[offsets.clone()]) {
                Some(first) => first,
                None => return Ok(None),
            }
        }
        _ => return Ok(None),
    };
    let stream: Cow<[u8]> = match fragments.as_slice() {
        [one] => Cow::Borrowed(one),
        several => Cow::Owned(several.concat()),
    };
    let decoded = match syntax {
        uids::JPEGLS_LOSSLESS | uids::JPEGLS_NEAR_LOSSLESS => {
            codec::decode_jpeg_ls(&stream, count as u64).and_then(|image| {
                words = image.samples;
                same_size((image.width, image.height), size)
            })
        }
        _ => codec::header(&stream).and_then(|header| {
            same_size((header.width, header.height), size)?;
            match header.process {
                Process::Lossless => codec::decode_lossless(&header, &mut words),
                Process::Sequential => codec::decode_dct(&header, 1, &mut words).map(drop),
            }
        }),
    };
    match decoded {
        Ok(()) => gray(Values::Words(words)),
        Err(DecodeError::Unsupported(_)) => Ok(None),
        Err(DecodeError::Malformed(message)) => Err(format!("the pixels cannot be decoded: {message}")),
    }
}

fn same_size(found: (usize, usize), (width, height): Size) -> codec::Result<()> {
    if found == (width as usize, height as usize) {
        Ok(())
    } else {
        Err(DecodeError::Malformed("the compressed pixels have another size than the header says"))
    }
}

/// The fragments of the first of `frames` frames; `None` where the frames cannot be separated.
fn first_frame<'a>(fragments: &[&'a [u8]], frames: i64, offsets: &[u8]) -> Option<Vec<&'a [u8]>> {
    if frames <= 1 {
        return (!fragments.is_empty()).then(|| fragments.to_vec());
    }
    if fragments.len() as i64 == frames {
        return fragments.first().map(|&first| vec![first]);
    }
    // A fragment has a header of eight bytes; the first frame ends at the offset of the second.
    let second = offsets.chunks_exact(4).nth(1)?;
    let end = u32::from_le_bytes([second[0], second[1], second[2], second[3]]) as usize;
    let mut at = 0;
    let first = fragments.iter().take_while(|fragment| {
        let within = at < end;
        at += 8 + fragment.len();
        within
    });
    Some(first.copied().collect::<Vec<_>>()).filter(|first| !first.is_empty())
}

/// Decodes the first frame of a whole data set with dicom-rs.
///
/// # Errors
/// A sentence that names the cause and contains no value of the header.
pub fn by_library(object: &Object) -> Result<(Pixels<'static>, Size), String> {
    let Some(data) = object.element_opt(tags::PIXEL_DATA).ok().flatten() else {
        return Err("the file has no pixel data".to_owned());
    };
    let PixelDescription { size: (width, height), bits, photometric, .. } = PixelDescription::of(object)?;
    if let Some(fragments) = data.fragments() {
        limits::dicom::compressed(object.meta().transfer_syntax(), fragments, width, height)?;
    } else if photometric == "YBR_FULL_422" {
        // Two pixels share their color, so they have four bytes; the library expects six.
        let bytes = data.to_bytes().unwrap_or_default();
        return Ok((ybr_422(&bytes, width as usize * height as usize)?, (width, height)));
    }
    let decoded = object
        .decode_pixel_data_frame(0)
        .map_err(|error| format!("the pixels cannot be decoded: {}", cause(&error)))?;
    let size = (decoded.columns(), decoded.rows());
    if decoded.samples_per_pixel() != 1 {
        let image = decoded
            .to_dynamic_image(0)
            .map_err(|error| format!("the colors cannot be converted: {}", cause(&error)))?;
        return Ok((Pixels::Rgb(image.into_rgb8().into_raw()), size));
    }
    let big_endian = object.meta().transfer_syntax().trim_end_matches(['\0', ' ']) == BIG_ENDIAN;
    let allocated = decoded.bits_allocated();
    // Where the decoder returns fewer bits than the header says, none are unused.
    let stored = bits.stored.min(allocated);
    let bits = Bits { stored, shift: bits.shift.min(allocated - stored), ..bits };
    let pixels = gray(decoded.data(), size.0 as usize * size.1 as usize, allocated, bits, big_endian)?;
    Ok((if photometric == "PALETTE COLOR" { palette(object, &pixels)? } else { pixels }, size))
}

/// YBR_FULL_422 bytes (Y, Y, Cb, Cr for two pixels) to RGB (PS3.3 C.7.6.3.1.2).
fn ybr_422(data: &[u8], count: usize) -> Result<Pixels<'static>, String> {
    let data = data.get(..count * 2).ok_or_else(|| too_short(data.len(), count * 2))?;
    let mut rgb = Vec::with_capacity(count * 3);
    for pair in data.chunks_exact(4) {
        let (blue, red) = (f64::from(pair[2]) - 128.0, f64::from(pair[3]) - 128.0);
        for y in &pair[..2] {
            let y = f64::from(*y);
            let colors = [y + 1.402 * red, y - 0.344_136 * blue - 0.714_136 * red, y + 1.772 * blue];
            rgb.extend(colors.map(|color| color.round().clamp(0.0, 255.0) as u8));
        }
    }
    Ok(Pixels::Rgb(rgb))
}

/// Replaces the indices of a palette by its colors, at 8 bits.
fn palette(object: &InMemDicomObject, indices: &Pixels) -> Result<Pixels<'static>, String> {
    let table = |descriptor, data, name: &str| -> Result<(i64, Vec<u8>), String> {
        let bad = || format!("the {name} table of the palette is missing or broken");
        let read = |tag| object.element_opt(tag).ok().flatten();
        let descriptor = read(descriptor).and_then(|element| element.to_multi_int::<i64>().ok()).ok_or_else(bad)?;
        let [entries, first, bits] = descriptor.get(..3).and_then(|d| d.try_into().ok()).ok_or_else(bad)?;
        let entries = if entries == 0 { 65536 } else { entries as usize };
        let data = read(data).and_then(|element| element.to_bytes().ok()).ok_or_else(bad)?;
        // Entries of 8 bits have a byte or a word each; those of 16 bits are scaled.
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
    let color = |index: i64| {
        [0, 1, 2].map(|channel: usize| {
            let (first, shades) = &tables[channel];
            shades[(index - first).clamp(0, shades.len() as i64 - 1) as usize]
        })
    };
    let indices = indices.stored().ok_or("an image with a palette has no indices")?;
    Ok(Pixels::Rgb(indices.into_iter().flat_map(color).collect()))
}

fn too_short(found: usize, needed: usize) -> String {
    format!("the pixels have {found} bytes, {needed} are needed")
}

/// Gray values of `allocated` bits each, in this machine's order. In 32-bit values of a big-endian file the high word is
/// first.
fn gray(data: &[u8], count: usize, allocated: u16, bits: Bits, big_endian: bool) -> Result<Pixels<'static>, String> {
    let bytes = usize::from(allocated.div_ceil(8));
    let data = data.get(..count * bytes).ok_or_else(|| too_short(data.len(), count * bytes))?;
    let Bits { stored, shift, signed } = bits;
    let values = match allocated {
        8 => Values::Bytes(Cow::Owned(data.to_vec())),
        16 => Values::Words(data.chunks_exact(2).map(|word| u16::from_ne_bytes([word[0], word[1]])).collect()),
        32 => {
            let (mask, sign) = ((1u64 << stored) - 1, 1u64 << (stored - 1));
            let wide = |word: [u8; 4]| u32::from_ne_bytes(word).rotate_left(if big_endian { 16 } else { 0 });
            let value = |word: &[u8]| {
                let value = (u64::from(wide([word[0], word[1], word[2], word[3]])) >> shift) & mask;
                if signed && value & sign != 0 { value as i64 - (1i64 << stored) } else { value as i64 }
            };
            Values::Wide(data.chunks_exact(4).map(value).collect())
        }
        other => return Err(format!("{other} bits allocated are not supported")),
    };
    Ok(Pixels::Gray { values, bits })
}
