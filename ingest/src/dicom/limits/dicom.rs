//! Limits of DICOM files: lengths, nesting, size of compressed pixels.

use std::io::{Cursor, Read};
use std::ops::Range;

use dicom_core::VR;
use dicom_dictionary_std::{tags, uids};
use dicom_object::FileMetaTable;
use dicom_parser::StatefulDecode;
use dicom_parser::dataset::LazyDataToken;
use dicom_parser::dataset::lazy_read::LazyDataSetReader;
use dicom_transfer_syntax_registry::TransferSyntax;
use dicom_transfer_syntax_registry::entries::{
    EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN,
};

use super::{MAX_COMPONENTS, MAX_DEPTH, MAX_INFLATED_BYTES, MAX_TEXT_BYTES, MAX_TILES};

/// Most segments of an RLE frame (PS3.5 G.3.1).
const MAX_SEGMENTS: u32 = 15;

/// Explicit VR big endian; it is retired, but such files exist.
pub const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// Bytes of the delimiter after the last fragment.
const DELIMITER: usize = 8;

/// Byte ranges of the pixels in a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Place {
    /// Uncompressed.
    Native(Range<usize>),
    /// Compressed: the table of frame offsets, and the fragments after it.
    Fragments { offsets: Range<usize>, fragments: Vec<Range<usize>> },
}

impl Place {
    /// Position of the first byte after the pixels.
    pub fn end(&self) -> usize {
        match self {
            Self::Native(pixels) => pixels.end,
            Self::Fragments { offsets, fragments } => fragments.last().unwrap_or(offsets).end + DELIMITER,
        }
    }
}

/// Checks the lengths of a DICOM file up to its pixels and returns where these are. `None` where the parser has to find them
/// (no magic code, deflated, damaged). `bytes` may be the beginning of a file of `total` bytes; `None` then also means that
/// the pixels begin after it.
///
/// # Errors
/// A sentence that names the cause and contains no value of the header.
pub fn data_set(bytes: &[u8], total: usize) -> Result<Option<Place>, String> {
    let start = match bytes {
        _ if bytes.get(128..132) == Some(b"DICM") => 128,
        _ if bytes.starts_with(b"DICM") => 0,
        _ => return Ok(None),
    };
    let mut file = Cursor::new(&bytes[start..]);
    meta_lengths(file.get_ref(), total - start)?;
    // The parser reports what is wrong.
    let Ok(meta) = FileMetaTable::from_reader(&mut file) else { return Ok(None) };
    let start = start + file.position() as usize;
    let (set, total) = (&bytes[start..], total - start);
    let place = match meta.transfer_syntax() {
        uids::IMPLICIT_VR_LITTLE_ENDIAN => lengths(set, &IMPLICIT_VR_LITTLE_ENDIAN.erased(), total, false)?,
        BIG_ENDIAN => lengths(set, &EXPLICIT_VR_BIG_ENDIAN.erased(), total, false)?,
        uids::DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN => {
            let mut inflated = Vec::new();
            // The parser reads a damaged stream up to the same byte.
            let _ = flate2::read::DeflateDecoder::new(set).take(MAX_INFLATED_BYTES + 1).read_to_end(&mut inflated);
            if inflated.len() as u64 > MAX_INFLATED_BYTES {
                return Err(format!("the deflated data set is larger than {} MiB", MAX_INFLATED_BYTES >> 20));
            }
            lengths(&inflated, &EXPLICIT_VR_LITTLE_ENDIAN.erased(), inflated.len(), true)?;
            None
        }
        _ => lengths(set, &EXPLICIT_VR_LITTLE_ENDIAN.erased(), total, false)?,
    };
    let moved = |range: Range<usize>| range.start + start..range.end + start;
    Ok(place.map(|place| match place {
        Place::Native(pixels) => Place::Native(moved(pixels)),
        Place::Fragments { offsets, fragments } => {
            Place::Fragments { offsets: moved(offsets), fragments: fragments.into_iter().map(moved).collect() }
        }
    }))
}

/// Checks the lengths of the file meta group: explicit little endian, directly after the magic code, of the length in its
/// first element. An element without a known short representation has a length of four bytes, as in the parser.
fn meta_lengths(file: &[u8], total: usize) -> Result<(), String> {
    const SHORT: [&[u8; 2]; 21] = [
        b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
        b"ST", b"TM", b"UI", b"UL", b"US",
    ];
    let group = file.get(12..16).map_or(0, |length| u32::from_le_bytes([length[0], length[1], length[2], length[3]]));
    let end = 16usize.saturating_add(group as usize);
    let mut at = 4;
    while let Some(header) = file.get(at..at + 8).filter(|_| at < end) {
        let short = SHORT.iter().any(|representation| header[4..6] == representation[..]);
        let length = match file.get(at + 8..at + 12) {
            Some(wide) if !short => u32::from_le_bytes([wide[0], wide[1], wide[2], wide[3]]) as usize,
            _ => usize::from(u16::from_le_bytes([header[6], header[7]])),
        };
        at += if short { 8 } else { 12 };
        at = at.checked_add(length).filter(|end| *end <= total).ok_or_else(too_long)?;
    }
    Ok(())
}

fn too_long() -> String {
    "an element claims more bytes than the file holds".to_owned()
}

/// Checks the lengths of the elements of a data set without reading their values; finds the pixels. With `behind`, the
/// elements after the pixels are checked, too, since the parser will read them.
fn lengths(set: &[u8], syntax: &TransferSyntax, total: usize, behind: bool) -> Result<Option<Place>, String> {
    let Ok(mut reader) = LazyDataSetReader::new_with_ts(Cursor::new(set), syntax) else { return Ok(None) };
    let (mut depth, mut place, mut items) = (0usize, None, 0);
    // The parser has the same error, and reports it.
    while let Some(Ok(token)) = reader.advance() {
        let (length, position) = match &token {
            LazyDataToken::SequenceStart { .. } | LazyDataToken::PixelSequenceStart => {
                if depth == 0 && matches!(token, LazyDataToken::PixelSequenceStart) {
                    // Items of an earlier sequence are not counted.
                    items = 0;
                    place = Some(Place::Fragments { offsets: 0..0, fragments: Vec::new() });
                }
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(format!("more than {MAX_DEPTH} levels of sequences"));
                }
                continue;
            }
            LazyDataToken::SequenceEnd => {
                depth = depth.saturating_sub(1);
                if depth == 0 && place.is_some() && !behind {
                    return Ok(place);
                }
                continue;
            }
            LazyDataToken::ItemStart { .. } => {
                items += 1;
                continue;
            }
            LazyDataToken::LazyValue { header, decoder } => {
                if is_text(header.vr) && header.len.0 as usize > MAX_TEXT_BYTES {
                    return Err(format!("a text is longer than {MAX_TEXT_BYTES} bytes"));
                }
                let (length, position) = (header.len.0 as usize, decoder.position() as usize);
                let within = length <= total.saturating_sub(position);
                if depth == 0 && header.tag == tags::PIXEL_DATA && within && !behind {
                    return Ok(Some(Place::Native(position..position + length)));
                }
                (length, position)
            }
            LazyDataToken::LazyItemValue { len, decoder } => (*len as usize, decoder.position() as usize),
            _ => {
                // Each sequence counts its items from 0.
                if depth == 0 {
                    items = 0;
                }
                continue;
            }
        };
        if length > total.saturating_sub(position) {
            return Err(too_long());
        }
        if let (Some(Place::Fragments { offsets, fragments }), LazyDataToken::LazyItemValue { .. }) =
            (&mut place, &token)
        {
            let range = position..position + length;
            if items == 1 { *offsets = range } else { fragments.push(range) }
        }
        if token.skip().is_err() {
            break;
        }
    }
    match place {
        Some(_) if !behind && set.len() == total => Err("the file ends within its compressed pixels".to_owned()),
        _ => Ok(None),
    }
}

fn is_text(vr: VR) -> bool {
    use VR::{AE, AS, AT, CS, DA, DS, DT, IS, LO, LT, PN, SH, ST, TM, UC, UI, UR};
    matches!(vr, AE | AS | AT | CS | DA | DS | DT | IS | LO | LT | PN | SH | ST | TM | UC | UI | UR)
}

/// Checks that the compressed pixels of a DICOM file have the size of its header: a decoder allocates the size that is in the
/// compressed stream.
///
/// `fragments` are those of all frames. Each fragment that begins a stream is checked, and the concatenation of all.
///
/// # Errors
/// A sentence that names both sizes.
pub fn compressed<F: AsRef<[u8]>>(syntax: &str, fragments: &[F], width: u32, height: u32) -> Result<(), String> {
    if syntax == uids::RLE_LOSSLESS {
        // Each fragment is a frame; its header begins with the number of segments.
        let counts = fragments.iter().filter_map(|fragment| fragment.as_ref().first_chunk::<4>());
        let most = counts.map(|count| u32::from_le_bytes(*count)).max().unwrap_or(0);
        return if most > MAX_SEGMENTS {
            Err(format!("{most} segments: more than an RLE frame may have"))
        } else {
            Ok(())
        };
    }
    let check = |stream: &[u8]| match stream_size(stream) {
        Some(size) if (size.width, size.height) != (width, height) => {
            let Size { width: found_width, height: found_height, .. } = size;
            Err(format!("the compressed pixels are {found_width}×{found_height}, the header says {width}×{height}"))
        }
        Some(size) if size.components > MAX_COMPONENTS => {
            Err(format!("{} components: more than an image may have", size.components))
        }
        Some(size) if size.tiles > MAX_TILES => Err(format!("{} tiles: more than a radiograph may have", size.tiles)),
        _ => Ok(()),
    };
    fragments.iter().try_for_each(|fragment| check(fragment.as_ref()))?;
    // A header may be spread over several fragments.
    match fragments {
        [first, _, ..] if stream_size(first.as_ref()).is_none() => {
            check(&fragments.iter().map(AsRef::as_ref).collect::<Vec<_>>().concat())
        }
        _ => Ok(()),
    }
}

/// Size by the header of a compressed stream.
struct Size {
    width: u32,
    height: u32,
    components: u16,
    tiles: u64,
}

/// The size of a JPEG, JPEG-LS or JPEG 2000 stream (bare or in boxes); `None` for other bytes.
fn stream_size(stream: &[u8]) -> Option<Size> {
    const CODESTREAM: [u8; 4] = [0xff, 0x4f, 0xff, 0x51];
    if stream.starts_with(&[0xff, 0xd8]) {
        return jpeg_size(stream);
    }
    if stream.starts_with(&CODESTREAM) {
        return jpeg_2000_size(stream);
    }
    if stream.get(4..8) == Some(b"jP  ") {
        let at = stream.windows(4).position(|window| window == CODESTREAM)?;
        return jpeg_2000_size(&stream[at..]);
    }
    None
}

fn jpeg_size(stream: &[u8]) -> Option<Size> {
    let mut at = 2;
    loop {
        // Fill bytes may precede a marker.
        while *stream.get(at)? != 0xff || matches!(*stream.get(at + 1)?, 0x00 | 0xff) {
            at += 1;
        }
        let marker = stream[at + 1];
        match marker {
            // Frame headers, that of JPEG-LS included; not tables (C4), JPEG extensions (C8) or arithmetic coding (CC).
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf | 0xf7 => {
                let header = stream.get(at + 4..at + 10)?;
                let word = |at: usize| u32::from(u16::from_be_bytes([header[at], header[at + 1]]));
                return Some(Size { height: word(1), width: word(3), components: header[5].into(), tiles: 1 });
            }
            0x01 | 0xd0..=0xd8 => at += 2,
            _ => {
                let length = stream.get(at + 2..at + 4)?;
                at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
            }
        }
    }
}

fn jpeg_2000_size(stream: &[u8]) -> Option<Size> {
    let header = stream.get(..42)?;
    let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let (right, bottom, left, top) = (word(8), word(12), word(16), word(20));
    let (tile_width, tile_height, tile_left, tile_top) = (word(24), word(28), word(32), word(36));
    let count = |end: u32, start: u32, side: u32| u64::from(end.saturating_sub(start).div_ceil(side.max(1)));
    Some(Size {
        width: right.saturating_sub(left),
        height: bottom.saturating_sub(top),
        components: u16::from_be_bytes([header[40], header[41]]),
        tiles: count(right, tile_left, tile_width) * count(bottom, tile_top, tile_height),
    })
}

#[cfg(test)]
mod tests {
    use dicom_core::value::{DataSetSequence, PixelFragmentSequence};
    use dicom_core::{DataElement, PrimitiveValue};
    use dicom_object::{FileMetaTableBuilder, InMemDicomObject};

    use super::*;

    #[test]
    fn the_table_of_offsets_is_not_taken_for_a_fragment() {
        let item = InMemDicomObject::from_element_iter([DataElement::new(
            tags::REQUESTED_PROCEDURE_ID,
            VR::SH,
            PrimitiveValue::from("A"),
        )]);
        let fragments = PixelFragmentSequence::new(vec![0u32], vec![vec![1u8, 2, 3, 4]]);
        let object = InMemDicomObject::from_element_iter([
            DataElement::new(tags::REQUEST_ATTRIBUTES_SEQUENCE, VR::SQ, DataSetSequence::from(vec![item])),
            DataElement::new(tags::PIXEL_DATA, VR::OB, fragments),
        ]);
        let meta = FileMetaTableBuilder::new()
            .transfer_syntax(uids::JPEG_BASELINE8_BIT)
            .media_storage_sop_class_uid(uids::COMPUTED_RADIOGRAPHY_IMAGE_STORAGE)
            .media_storage_sop_instance_uid("2.25.1");
        let mut bytes = Vec::new();
        object.with_meta(meta).unwrap().write_all(&mut bytes).unwrap();
        let Some(Place::Fragments { offsets, fragments }) = data_set(&bytes, bytes.len()).unwrap() else { panic!() };
        assert_eq!(bytes[offsets], [0; 4]);
        assert_eq!(fragments.into_iter().map(|range| &bytes[range]).collect::<Vec<_>>(), [[1, 2, 3, 4]]);
    }
}
