//! From a raw file to a stored image: decode, intensity transform, resize.

use std::io::{self, Cursor};
use std::path::Path;

use dataset::format::image_codec::{Gray16Pixels, GrayPixels};
use dataset::transform::float_resample::FloatResample;
use dataset::transform::resample::{Filter, Rectangle, Resample};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::codec::{self, DecodeError, Process};
use crate::dicom::header::Header;
use crate::dicom::limits::{MAX_FILE_BYTES, MAX_VALUES, guarded};
use crate::dicom::parse::{self, Dicom};
use crate::dicom::pixels::{Bits, Pixels, Values};
use crate::dicom::transforms::{Modality, Voi, WindowFunction};
use crate::image::intensity::{self, Intensity};
use crate::image::resize::{Placement, Resize, bordered, resized_size};
use crate::run::hashing_reader::{Hashing, Reader, Stamp};

/// Bytes at the beginning of a file in which the header of an uncompressed DICOM file is searched, before more are read.
const BEGINNING: usize = 256 << 10;

/// Buffers that are reused from one image to the next: allocating them anew takes longer than some decoders.
#[derive(Default)]
pub struct Scratch {
    /// The bytes of a raw file, or of an image in a table.
    pub(crate) file: Vec<u8>,
    pub(super) words: Vec<u16>,
    gray: Vec<u8>,
    resample: Resample,
    /// Little-endian pixels of 16 bits.
    pub(super) deep: Vec<u8>,
    pub(super) floats: FloatResample,
}

/// An image of the stored size.
pub struct Stored {
    /// The pixels, `[height, width]`; those of 16 bits as their window shows them.
    pub image: GrayPixels,
    /// The pixels of 16 bits; `None` where 8 bits are stored.
    pub deep: Option<Deep>,
    /// Width and height of the raw image.
    pub source: (u32, u32),
    /// Position of the raw image in the stored one.
    pub place: Placement,
    /// Whether all pixels but those of the borders have one value.
    pub is_constant: bool,
    /// View, sex and age by the header of a DICOM file; empty for other files.
    pub header: Header,
}

/// Pixels of 16 bits.
pub struct Deep {
    /// The pixels, `[height, width]`.
    pub pixels: Gray16Pixels,
    /// Center and width of their window.
    pub window: [f32; 2],
}

/// Sizes and header of an image that was decoded to 8-bit gray.
struct Decoded {
    /// Width and height of the raw image.
    source: (u32, u32),
    /// Width and height of the decoded image: smaller than the raw one where a JPEG file is decoded at reduced size.
    size: (u32, u32),
    header: Header,
}

impl Decoded {
    fn at_full_size(size: (u32, u32)) -> Self {
        Self { source: size, size, header: Header::default() }
    }
}

/// Decodes a DICOM, PNG or JPEG file to 8-bit gray of its own size; the first bytes decide which of them it is.
///
/// # Errors
/// A sentence that names the cause.
pub fn decode(bytes: &[u8], intensity: Intensity) -> Result<GrayPixels, String> {
    let mut scratch = Scratch::default();
    let (width, height) = decode_to(bytes, intensity, None, &mut scratch)?.size;
    Ok(GrayPixels { width, height, pixels: scratch.gray })
}

/// Decodes a file as [`decode`] does and resizes it with an antialiased Lanczos filter. A gray JPEG file of more than twice
/// the stored size is decoded at a half, a quarter or an eighth of its size, but at no less than twice the stored size.
///
/// # Errors
/// A sentence that names the cause.
pub fn store(
    bytes: &[u8],
    intensity: Intensity,
    size: u32,
    resize: Resize,
    scratch: &mut Scratch,
) -> Result<Stored, String> {
    let Decoded { source, size: decoded, header } = decode_to(bytes, intensity, Some((size, resize)), scratch)?;
    let (width, height) = resized_size(source, size, resize)?;
    let whole = Rectangle { left: 0, top: 0, width: decoded.0, height: decoded.1 };
    let resized = scratch
        .resample
        .resize((&scratch.gray, decoded.0, decoded.1), whole, width, height, Filter::Lanczos)
        .map_err(|e| e.to_string())?
        .to_vec();
    Ok(finished(resized, (width, height), source, (size, resize), header))
}

/// Reads and hashes a raw file, then decodes and resizes it as [`store`] does. A large uncompressed DICOM file is read and
/// processed row by row; it is never in memory as a whole.
///
/// # Errors
/// The outer error is that of reading the file, or a checksum that differs; the inner one says why the image cannot be decoded.
pub fn store_file(
    path: &Path,
    hashing: Hashing,
    intensity: Intensity,
    size: u32,
    resize: Resize,
    scratch: &mut Scratch,
) -> io::Result<(Stamp, Result<Stored, String>)> {
    let mut reader = Reader::open(path, MAX_FILE_BYTES, hashing)?;
    let mut file = std::mem::take(&mut scratch.file);
    file.clear();
    while file.len() < BEGINNING && reader.piece(&mut file)? {}
    let total = reader.length() as usize;
    let beginning =
        if intensity == Intensity::Voi && total > file.len() { parse::read_beginning(&file, total) } else { Ok(None) };
    let stored = match beginning {
        Ok(Some(dicom)) => rows(&dicom, &mut reader, &mut file, (intensity, size, resize), scratch)?,
        Ok(None) => {
            reader.rest(&mut file)?;
            store(&file, intensity, size, resize, scratch)
        }
        Err(error) => {
            reader.rest(&mut file)?;
            Err(error)
        }
    };
    scratch.file = file;
    Ok((reader.stamp()?, stored))
}

/// Transforms and resizes the rows of a DICOM file while they are read; `file` holds its beginning.
fn rows(
    dicom: &Dicom,
    reader: &mut Reader,
    file: &mut Vec<u8>,
    (intensity, size, resize): (Intensity, u32, Resize),
    scratch: &mut Scratch,
) -> io::Result<Result<Stored, String>> {
    let Pixels::Gray { values: Values::Unread { place, bytes }, bits } = &dicom.pixels else {
        return Ok(Err("the pixels are not at the position that the header gives".to_owned()));
    };
    let source = (dicom.width, dicom.height);
    let resized = resized_size(source, size, resize).and_then(|(width, height)| {
        let rows = scratch.resample.rows(source, width, height).map_err(|e| e.to_string())?;
        Ok(((width, height), rows))
    });
    let shades = intensity::shades(dicom, intensity, *bits, (0, 0));
    let row = dicom.width as usize * bytes;
    let mut left = place.len();
    file.drain(..place.start.min(file.len()));
    let mut stored = resized;
    loop {
        let whole = file.len().min(left) / row * row;
        if let Ok((_, rows)) = &mut stored {
            let values = &file[..whole];
            rows.take(|window| {
                if *bytes == 1 {
                    shades.of_bytes(values, window);
                } else {
                    shades.of_little_endian(values, window);
                }
            });
        }
        left -= whole;
        // What follows the last row is hashed and not used otherwise.
        let done = if left == 0 { file.len() } else { whole };
        file.drain(..done);
        if !reader.piece(file)? {
            break;
        }
    }
    let (new_size, rows) = match stored {
        Ok(stored) => stored,
        Err(error) => return Ok(Err(error)),
    };
    let pixels = rows.finish();
    if left > 0 {
        return Ok(Err("the file ends within its pixels".to_owned()));
    }
    Ok(Ok(finished(pixels, new_size, source, (size, resize), dicom.header.clone())))
}

/// A resized image of 8 bits with its borders.
fn finished(
    resized: Vec<u8>,
    resized_to: (u32, u32),
    source: (u32, u32),
    (size, resize): (u32, Resize),
    header: Header,
) -> Stored {
    let is_constant = resized.iter().all(|pixel| *pixel == resized[0]);
    let (pixels, (width, height), place) = bordered(resized, resized_to, source, size, resize);
    Stored { image: GrayPixels { width, height, pixels }, deep: None, source, place, is_constant, header }
}

/// Decodes a file to 8-bit gray in `scratch.gray`.
fn decode_to(
    bytes: &[u8],
    intensity: Intensity,
    target: Option<(u32, Resize)>,
    scratch: &mut Scratch,
) -> Result<Decoded, String> {
    match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => {
            if let Some(decoded) = decode_gray_jpeg(bytes, target, &mut scratch.gray)? {
                return Ok(decoded);
            }
            guarded(|| decode_raster(bytes, intensity, &mut scratch.gray)).map(Decoded::at_full_size)
        }
        Ok(ImageFormat::Png) => {
            guarded(|| decode_raster(bytes, intensity, &mut scratch.gray)).map(Decoded::at_full_size)
        }
        _ => {
            let dicom = parse::read_radiograph(bytes, std::mem::take(&mut scratch.words))?;
            intensity::to_gray(&dicom, intensity, &mut scratch.gray);
            let decoded = Decoded { header: dicom.header, ..Decoded::at_full_size((dicom.width, dicom.height)) };
            scratch.words = dicom.pixels.into_words();
            Ok(decoded)
        }
    }
}

/// Decodes a JPEG file of one component and one scan; `None` for all others.
fn decode_gray_jpeg(
    bytes: &[u8],
    target: Option<(u32, Resize)>,
    gray: &mut Vec<u8>,
) -> Result<Option<Decoded>, String> {
    let decoded = codec::header(bytes).and_then(|header| {
        // The library's decoder refuses a file that is too large.
        if header.process != Process::Sequential || (header.width * header.height) as u64 > MAX_VALUES {
            return Err(DecodeError::Unsupported("a lossless or a huge JPEG file"));
        }
        let source = (header.width as u32, header.height as u32);
        let reduction = target.map_or(1, |(size, resize)| {
            let Ok(wanted) = resized_size(source, size, resize) else { return 1 };
            let enough = |by: &u32| source.0 / by >= 2 * wanted.0 && source.1 / by >= 2 * wanted.1;
            [8, 4, 2].into_iter().find(enough).unwrap_or(1)
        });
        let (width, height) = codec::decode_dct(&header, reduction as usize, gray)?;
        Ok(Decoded { source, ..Decoded::at_full_size((width as u32, height as u32)) })
    });
    match decoded {
        Ok(decoded) => Ok(Some(decoded)),
        Err(DecodeError::Unsupported(_)) => Ok(None),
        Err(DecodeError::Malformed(message)) => Err(format!("the image cannot be decoded: {message}")),
    }
}

/// Opens a PNG or JPEG file, after a check of its size.
pub(super) fn raster(bytes: &[u8]) -> Result<impl ImageDecoder + '_, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(bad_raster)?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_VALUES * 8);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(bad_raster)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) * u64::from(decoder.color_type().channel_count()) > MAX_VALUES {
        return Err(format!("{width}×{height} pixels: more than a radiograph has"));
    }
    Ok(decoder)
}

pub(super) fn bad_raster(error: impl std::fmt::Display) -> String {
    format!("the image cannot be decoded: {error}")
}

fn decode_raster(bytes: &[u8], intensity: Intensity, gray: &mut Vec<u8>) -> Result<(u32, u32), String> {
    let decoder = raster(bytes)?;
    let (width, height) = decoder.dimensions();
    let image = DynamicImage::from_decoder(decoder).map_err(bad_raster)?;
    gray.clear();
    match image {
        DynamicImage::ImageLuma8(values) => gray.extend_from_slice(&values),
        DynamicImage::ImageLumaA8(values) => gray.extend(values.pixels().map(|pixel| pixel.0[0])),
        DynamicImage::ImageLuma16(values) => {
            intensity::to_gray(&dicom_of_words(values.into_raw(), (width, height)), intensity, gray);
        }
        DynamicImage::ImageLumaA16(values) => {
            let words = values.pixels().map(|pixel| pixel.0[0]).collect();
            intensity::to_gray(&dicom_of_words(words, (width, height)), intensity, gray);
        }
        color => {
            let values = color.into_rgb8();
            gray.extend(values.pixels().map(|pixel| intensity::luma(pixel.0[0], pixel.0[1], pixel.0[2])));
        }
    }
    Ok((width, height))
}

/// 16-bit gray as a DICOM file without a modality transform whose window is the whole range of 8, 12 or 16 bits, whichever is
/// the smallest that holds the largest value. Otherwise files of 12-bit data would be nearly black.
pub(super) fn dicom_of_words(words: Vec<u16>, (width, height): (u32, u32)) -> Dicom<'static> {
    let largest = words.iter().copied().max().unwrap_or(0);
    let bits = [8, 12].into_iter().find(|bits| largest < 1 << bits).unwrap_or(16);
    let full = f64::from(1u32 << bits);
    Dicom {
        width,
        height,
        pixels: Pixels::Gray { values: Values::Words(words), bits: Bits { stored: 16, shift: 0, signed: false } },
        inverted: false,
        modality: Modality::Rescale { slope: 1.0, intercept: 0.0 },
        voi: Some(Voi::Window { center: full / 2.0, width: full, function: WindowFunction::Linear }),
        padding: None,
        header: Header::default(),
    }
}

#[cfg(test)]
mod tests {
    use dataset::format::record::ImageEncoding;
    use image::{ExtendedColorType, ImageEncoder};

    use super::*;

    #[test]
    fn sizes_and_placement() {
        let image = GrayPixels { width: 40, height: 20, pixels: vec![200; 800] };
        let file = image.encode(ImageEncoding::Png).unwrap();
        let mut scratch = Scratch::default();
        let mut stored = |size, resize| store(&file, Intensity::Voi, size, resize, &mut scratch).unwrap();
        let shorter = stored(10, Resize::Shorter).image;
        assert_eq!((shorter.width, shorter.height), (20, 10));
        let kept = stored(512, Resize::Shorter).image;
        assert_eq!((kept.width, kept.height), (40, 20), "never larger than the source");
        let Stored { image: padded, place, source, .. } = stored(10, Resize::Pad);
        assert_eq!((padded.width, padded.height, source), (10, 10, (40, 20)));
        assert_eq!(place, Placement { scale: (0.25, 0.25), offset: (0.0, 2.0) });
        assert_eq!((padded.pixels[0], padded.pixels[55]), (0, 200));
    }

    #[test]
    fn gray_of_16_bits_is_windowed_to_the_bits_it_uses() {
        let shown = |words: [u16; 4], intensity| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let mut file = Vec::new();
            let encoder = image::codecs::png::PngEncoder::new(&mut file);
            encoder.write_image(&bytes, 2, 2, ExtendedColorType::L16).unwrap();
            decode(&file, intensity).unwrap().pixels
        };
        assert_eq!(shown([0, 257, 32_768, 65_535], Intensity::Voi), [0, 1, 128, 255]);
        assert_eq!(shown([0, 16, 2048, 4095], Intensity::Voi), [0, 1, 128, 255], "12 bits");
        assert_eq!(shown([0, 1, 128, 255], Intensity::Voi), [0, 1, 128, 255], "8 bits");
        assert_eq!(shown([1000, 1000, 1500, 2000], Intensity::Minmax), [0, 0, 128, 255]);
        assert_eq!(shown([1000, 1500, 1510, 2000], Intensity::MimicCxrJpg), [0, 85, 170, 255]);
    }

    #[test]
    fn a_jpeg_decoded_at_reduced_size_is_close_to_one_resized_from_full_size() {
        let (width, height) = (640u32, 400u32);
        let shade = |i: u32| {
            let (x, y) = (f64::from(i % width), f64::from(i / width));
            (128.0 + 70.0 * (x / 17.0).sin() * (y / 29.0).cos() + f64::from(i * 7919 % 31)) as u8
        };
        let image = GrayPixels { width, height, pixels: (0..width * height).map(shade).collect() };
        let file = image.encode(ImageEncoding::Jpeg).unwrap();
        let mut scratch = Scratch::default();
        for (size, resize) in [(64, Resize::Shorter), (100, Resize::Pad), (45, Resize::Stretch)] {
            let ours = store(&file, Intensity::Voi, size, resize, &mut scratch).unwrap();
            assert_eq!(ours.source, (width, height));
            let whole = decode(&file, Intensity::Voi).unwrap().encode(ImageEncoding::Png).unwrap();
            let reference = store(&whole, Intensity::Voi, size, resize, &mut scratch).unwrap();
            assert_eq!(ours.place, reference.place);
            let off = |a: &u8, b: &u8| f64::from(a.abs_diff(*b));
            let pairs = || ours.image.pixels.iter().zip(&reference.image.pixels);
            let mean = pairs().map(|(a, b)| off(a, b)).sum::<f64>() / ours.image.pixels.len() as f64;
            let worst = pairs().map(|(a, b)| off(a, b)).fold(0.0, f64::max);
            assert!(mean < 0.5 && worst <= 4.0, "{resize:?}: mean {mean}, worst {worst}");
        }
    }
}
