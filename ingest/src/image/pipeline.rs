//! One raw file to one stored picture: decode, tone, fit, encode.

use std::io::{self, Cursor};
use std::path::Path;

use dataset::format::image_codec::GrayPixels;
use dataset::transform::resample::{Filter, Rectangle, Resample};
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use serde::{Deserialize, Serialize};

use crate::codec::{self, Process, Refusal};
use crate::dicom::header::Header;
use crate::dicom::limits::{MAX_FILE_BYTES, MAX_VALUES, guarded};
use crate::dicom::parse::{self, Dicom};
use crate::dicom::pixels::{Bits, Pixels, Values};
use crate::dicom::transforms::{Modality, Voi, WindowFunction};
use crate::image::intensity::{self, Tone};
use crate::run::hashing_reader::{Reader, Stamp};

/// How a picture takes the stored size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// Shorter side to the size; smaller pictures stay as they are.
    #[default]
    Shorter,
    /// Longer side to the size, black borders to a square.
    Pad,
    /// Both sides to the size, whatever the aspect.
    Stretch,
}

impl Fit {
    /// Name as it stands in the manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shorter => "shorter",
            Self::Pad => "pad",
            Self::Stretch => "stretch",
        }
    }
}

/// Where a raw picture lies in the stored one: stored = raw · scale + offset.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    pub scale: (f64, f64),
    pub offset: (f64, f64),
}

/// Buffers that are kept from one picture to the next: fresh memory for each would cost more than some decoders.
#[derive(Default)]
pub struct Scratch {
    file: Vec<u8>,
    words: Vec<u16>,
    gray: Vec<u8>,
    resample: Resample,
}

/// A picture of the stored size.
pub struct Stored {
    pub image: GrayPixels,
    /// Width and height of the raw picture.
    pub source: (u32, u32),
    pub place: Placement,
    /// What the header of a DICOM file says of patient and view.
    pub header: Header,
}

/// What was decoded to 8-bit gray.
struct Decoded {
    /// Width and height of the raw picture.
    source: (u32, u32),
    /// Width and height of the decoded one, smaller where a JPEG file is reduced on its way to the target size.
    size: (u32, u32),
    header: Header,
}

impl Decoded {
    fn whole(size: (u32, u32)) -> Self {
        Self { source: size, size, header: Header::default() }
    }
}

/// Decodes a DICOM, PNG or JPEG file (told apart by their first bytes) to 8-bit gray.
///
/// # Errors
/// A sentence that names the cause.
pub fn decode(bytes: &[u8], tone: Tone) -> Result<GrayPixels, String> {
    let mut scratch = Scratch::default();
    let (width, height) = decode_to(bytes, tone, None, &mut scratch)?.size;
    Ok(GrayPixels { width, height, pixels: scratch.gray })
}

/// Decodes a file as [`decode`] does, and brings it to the stored size with an antialiased Lanczos filter. A JPEG file
/// more than twice as large is reduced while it is decoded, to no less than twice the stored size.
///
/// # Errors
/// A sentence that names the cause.
pub fn store(bytes: &[u8], tone: Tone, size: u32, fit: Fit, scratch: &mut Scratch) -> Result<Stored, String> {
    let Decoded { source, size: decoded, header } = decode_to(bytes, tone, Some((size, fit)), scratch)?;
    let (width, height) = fitted(source, size, fit)?;
    let whole = Rectangle { left: 0, top: 0, width: decoded.0, height: decoded.1 };
    let resized = scratch
        .resample
        .resize((&scratch.gray, decoded.0, decoded.1), whole, width, height, Filter::Lanczos)
        .map_err(|e| e.to_string())?
        .to_vec();
    Ok(placed(resized, (width, height), source, size, fit, header))
}

/// Reads and hashes a raw file, decodes it and brings it to the stored size, as [`store`] does. A large uncompressed
/// DICOM file goes through the cache once, row by row, and is never held as a whole.
///
/// # Errors
/// Those of reading the file; what is wrong with the picture is the inner one.
pub fn store_file(
    path: &Path,
    tone: Tone,
    size: u32,
    fit: Fit,
    scratch: &mut Scratch,
) -> io::Result<(Stamp, Result<Stored, String>)> {
    let mut reader = Reader::open(path, MAX_FILE_BYTES)?;
    let mut file = std::mem::take(&mut scratch.file);
    file.clear();
    reader.piece(&mut file)?;
    let total = reader.length() as usize;
    let beginning =
        if tone == Tone::Voi && total > file.len() { parse::read_beginning(&file, total) } else { Ok(None) };
    let stored = match beginning {
        Ok(Some(dicom)) => rows(&dicom, &mut reader, &mut file, (tone, size, fit), scratch)?,
        Ok(None) => {
            reader.rest(&mut file)?;
            store(&file, tone, size, fit, scratch)
        }
        Err(error) => {
            reader.rest(&mut file)?;
            Err(error)
        }
    };
    scratch.file = file;
    Ok((reader.stamp(), stored))
}

/// Tones and resizes the rows of a DICOM file as they are read; `file` holds its beginning.
fn rows(
    dicom: &Dicom,
    reader: &mut Reader,
    file: &mut Vec<u8>,
    (tone, size, fit): (Tone, u32, Fit),
    scratch: &mut Scratch,
) -> io::Result<Result<Stored, String>> {
    let Pixels::Gray { values: Values::Unread { place, bytes }, bits } = &dicom.pixels else {
        return Ok(Err("the pixels are not where they should be".to_owned()));
    };
    let source = (dicom.width, dicom.height);
    let fitted = fitted(source, size, fit);
    let resized = fitted.and_then(|(width, height)| {
        let rows = scratch.resample.rows(source, width, height).map_err(|e| e.to_string())?;
        Ok(((width, height), rows))
    });
    let shades = intensity::shades(dicom, tone, *bits, (0, 0));
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
                    window.extend(values.iter().map(|&value| shades[usize::from(value)]));
                } else {
                    let words = values.chunks_exact(2).map(|word| u16::from_le_bytes([word[0], word[1]]));
                    window.extend(words.map(|word| shades[usize::from(word)]));
                }
            });
        }
        left -= whole;
        // Behind the last row the rest is hashed alone.
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
    Ok(Ok(placed(pixels, new_size, source, size, fit, dicom.header.clone())))
}

/// A resized picture in its place: with borders, where the fit asks for them.
fn placed(
    resized: Vec<u8>,
    (width, height): (u32, u32),
    source: (u32, u32),
    size: u32,
    fit: Fit,
    header: Header,
) -> Stored {
    let scale = (f64::from(width) / f64::from(source.0), f64::from(height) / f64::from(source.1));
    if fit != Fit::Pad || (width, height) == (size, size) {
        let image = GrayPixels { width, height, pixels: resized };
        return Stored { image, source, place: Placement { scale, offset: (0.0, 0.0) }, header };
    }
    let (left, top) = ((size - width) / 2, (size - height) / 2);
    let mut padded = vec![0; size as usize * size as usize];
    for (y, row) in resized.chunks_exact(width as usize).enumerate() {
        let start = (top as usize + y) * size as usize + left as usize;
        padded[start..start + row.len()].copy_from_slice(row);
    }
    let offset = (f64::from(left), f64::from(top));
    let image = GrayPixels { width: size, height: size, pixels: padded };
    Stored { image, source, place: Placement { scale, offset }, header }
}

/// Width and height of a picture that is brought to the stored size, without borders.
///
/// # Errors
/// When a side would not fit its column.
fn fitted((width, height): (u32, u32), size: u32, fit: Fit) -> Result<(u32, u32), String> {
    let scale = match fit {
        Fit::Shorter => (f64::from(size) / f64::from(width.min(height))).min(1.0),
        Fit::Pad => f64::from(size) / f64::from(width.max(height)),
        Fit::Stretch => return Ok((size, size)),
    };
    let [new_width, new_height] = [width, height].map(|side| ((f64::from(side) * scale).round() as u32).max(1));
    if new_width.max(new_height) > u16::MAX.into() {
        return Err(format!("{width}×{height} pixels are too long for a radiograph"));
    }
    Ok((new_width, new_height))
}

/// Decodes a file to 8-bit gray in `scratch.gray`.
fn decode_to(bytes: &[u8], tone: Tone, target: Option<(u32, Fit)>, scratch: &mut Scratch) -> Result<Decoded, String> {
    match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => {
            if let Some(decoded) = decode_gray_jpeg(bytes, target, &mut scratch.gray)? {
                return Ok(decoded);
            }
            guarded(|| decode_raster(bytes, tone, &mut scratch.gray)).map(Decoded::whole)
        }
        Ok(ImageFormat::Png) => guarded(|| decode_raster(bytes, tone, &mut scratch.gray)).map(Decoded::whole),
        _ => {
            let dicom = parse::read_radiograph(bytes, std::mem::take(&mut scratch.words))?;
            intensity::to_gray(&dicom, tone, &mut scratch.gray);
            let decoded = Decoded { header: dicom.header, ..Decoded::whole((dicom.width, dicom.height)) };
            scratch.words = dicom.pixels.into_words();
            Ok(decoded)
        }
    }
}

/// A JPEG file of one component and one scan; `None` for all others.
fn decode_gray_jpeg(bytes: &[u8], target: Option<(u32, Fit)>, gray: &mut Vec<u8>) -> Result<Option<Decoded>, String> {
    let decoded = codec::header(bytes).and_then(|header| {
        // What is too large is refused by the library's decoder, too.
        if header.process != Process::Sequential || (header.width * header.height) as u64 > MAX_VALUES {
            return Err(Refusal::Unsupported("a lossless or a huge JPEG file"));
        }
        let source = (header.width as u32, header.height as u32);
        let reduction = target.map_or(1, |(size, fit)| {
            let Ok(wanted) = fitted(source, size, fit) else { return 1 };
            let enough = |by: &u32| source.0 / by >= 2 * wanted.0 && source.1 / by >= 2 * wanted.1;
            [8, 4, 2].into_iter().find(enough).unwrap_or(1)
        });
        let (width, height) = codec::decode_dct(&header, reduction as usize, gray)?;
        Ok(Decoded { source, ..Decoded::whole((width as u32, height as u32)) })
    });
    match decoded {
        Ok(decoded) => Ok(Some(decoded)),
        Err(Refusal::Unsupported(_)) => Ok(None),
        Err(Refusal::Broken(message)) => Err(format!("the picture cannot be decoded: {message}")),
    }
}

fn decode_raster(bytes: &[u8], tone: Tone, gray: &mut Vec<u8>) -> Result<(u32, u32), String> {
    let bad = |error: &dyn std::fmt::Display| format!("the picture cannot be decoded: {error}");
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| bad(&e))?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_VALUES * 8);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(|e| bad(&e))?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) * u64::from(decoder.color_type().channel_count()) > MAX_VALUES {
        return Err(format!("{width}×{height} pixels are refused: a radiograph is smaller"));
    }
    let picture = DynamicImage::from_decoder(decoder).map_err(|e| bad(&e))?;
    gray.clear();
    match picture {
        DynamicImage::ImageLuma8(values) => gray.extend_from_slice(&values),
        DynamicImage::ImageLumaA8(values) => gray.extend(values.pixels().map(|pixel| pixel.0[0])),
        DynamicImage::ImageLuma16(values) => tone_words(values.into_raw(), (width, height), tone, gray),
        DynamicImage::ImageLumaA16(values) => {
            tone_words(values.pixels().map(|pixel| pixel.0[0]).collect(), (width, height), tone, gray);
        }
        color => {
            let values = color.into_rgb8();
            gray.extend(values.pixels().map(|pixel| intensity::luma(pixel.0[0], pixel.0[1], pixel.0[2])));
        }
    }
    Ok((width, height))
}

/// Gray of 16 bits is toned as in a DICOM file without a modality transform, whose window is all that 8, 12 or 16 bits
/// hold: the fewest that hold the largest value. Files of 12-bit data would be near black otherwise.
fn tone_words(words: Vec<u16>, (width, height): (u32, u32), tone: Tone, gray: &mut Vec<u8>) {
    let largest = words.iter().copied().max().unwrap_or(0);
    let bits = [8, 12].into_iter().find(|bits| largest < 1 << bits).unwrap_or(16);
    let full = f64::from(1u32 << bits);
    let dicom = Dicom {
        width,
        height,
        pixels: Pixels::Gray { values: Values::Words(words), bits: Bits { stored: 16, shift: 0, signed: false } },
        inverted: false,
        modality: Modality::Rescale { slope: 1.0, intercept: 0.0 },
        voi: Some(Voi::Window { center: full / 2.0, width: full, function: WindowFunction::Linear }),
        padding: None,
        header: Header::default(),
    };
    intensity::to_gray(&dicom, tone, gray);
}

#[cfg(test)]
mod tests {
    use dataset::format::record::ImageEncoding;
    use image::{ExtendedColorType, ImageEncoder};

    use super::*;

    #[test]
    fn sizes_and_placement() {
        let picture = GrayPixels { width: 40, height: 20, pixels: vec![200; 800] };
        let file = picture.encode(ImageEncoding::Png).unwrap();
        let mut scratch = Scratch::default();
        let mut stored = |size, fit| store(&file, Tone::Voi, size, fit, &mut scratch).unwrap();
        let shorter = stored(10, Fit::Shorter).image;
        assert_eq!((shorter.width, shorter.height), (20, 10));
        let kept = stored(512, Fit::Shorter).image;
        assert_eq!((kept.width, kept.height), (40, 20), "never larger than the source");
        let Stored { image: padded, place, source, .. } = stored(10, Fit::Pad);
        assert_eq!((padded.width, padded.height, source), (10, 10, (40, 20)));
        assert_eq!(place, Placement { scale: (0.25, 0.25), offset: (0.0, 2.0) });
        assert_eq!((padded.pixels[0], padded.pixels[55]), (0, 200));
    }

    #[test]
    fn gray_of_16_bits_is_shown_by_the_bits_it_uses() {
        let shown = |words: [u16; 4], tone| {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let mut file = Vec::new();
            let encoder = image::codecs::png::PngEncoder::new(&mut file);
            encoder.write_image(&bytes, 2, 2, ExtendedColorType::L16).unwrap();
            decode(&file, tone).unwrap().pixels
        };
        assert_eq!(shown([0, 257, 32_768, 65_535], Tone::Voi), [0, 1, 128, 255]);
        assert_eq!(shown([0, 16, 2048, 4095], Tone::Voi), [0, 1, 128, 255], "12 bits");
        assert_eq!(shown([0, 1, 128, 255], Tone::Voi), [0, 1, 128, 255], "8 bits");
        assert_eq!(shown([1000, 1000, 1500, 2000], Tone::Minmax), [0, 0, 128, 255]);
        assert_eq!(shown([1000, 1500, 1510, 2000], Tone::MimicCxrJpg), [0, 85, 170, 255]);
    }

    #[test]
    fn a_jpeg_reduced_on_its_way_looks_like_one_resized_at_once() {
        let (width, height) = (640u32, 400u32);
        let shade = |i: u32| {
            let (x, y) = (f64::from(i % width), f64::from(i / width));
            (128.0 + 70.0 * (x / 17.0).sin() * (y / 29.0).cos() + f64::from(i * 7919 % 31)) as u8
        };
        let picture = GrayPixels { width, height, pixels: (0..width * height).map(shade).collect() };
        let file = picture.encode(ImageEncoding::Jpeg).unwrap();
        let mut scratch = Scratch::default();
        for (size, fit) in [(64, Fit::Shorter), (100, Fit::Pad), (45, Fit::Stretch)] {
            let ours = store(&file, Tone::Voi, size, fit, &mut scratch).unwrap();
            assert_eq!(ours.source, (width, height));
            let whole = decode(&file, Tone::Voi).unwrap().encode(ImageEncoding::Png).unwrap();
            let fair = store(&whole, Tone::Voi, size, fit, &mut scratch).unwrap();
            assert_eq!(ours.place, fair.place);
            let off = |a: &u8, b: &u8| f64::from(a.abs_diff(*b));
            let pairs = || ours.image.pixels.iter().zip(&fair.image.pixels);
            let mean = pairs().map(|(a, b)| off(a, b)).sum::<f64>() / ours.image.pixels.len() as f64;
            let worst = pairs().map(|(a, b)| off(a, b)).fold(0.0, f64::max);
            assert!(mean < 0.5 && worst <= 4.0, "{fit:?}: mean {mean}, worst {worst}");
        }
    }
}
