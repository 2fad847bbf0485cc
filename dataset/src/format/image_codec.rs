//! Encodes and decodes gray images of 8 and of 16 bits.

use std::io::Cursor;

use ::image::codecs::jpeg::JpegEncoder;
use ::image::codecs::png::{CompressionType, FilterType, PngEncoder};
use ::image::{DynamicImage, ExtendedColorType, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, Limits};

use crate::error::{Error, Result};
use crate::format::record::ImageEncoding;

/// Quality of stored JPEGs, that of MIMIC-CXR-JPG.
const JPEG_QUALITY: u8 = 95;

/// An 8-bit gray image, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrayPixels {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Intensities, `[height, width]`.
    pub pixels: Vec<u8>,
}

/// A 16-bit gray image, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gray16Pixels {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Intensities, `[height, width]`.
    pub pixels: Vec<u16>,
}

impl Gray16Pixels {
    /// Encodes the image as the column `image` has it: little-endian pixels, or a PNG.
    ///
    /// # Errors
    /// When the encoder fails, or stores 8 bits.
    pub fn encode(&self, encoding: ImageEncoding) -> Result<Vec<u8>> {
        match encoding {
            ImageEncoding::Raw16 => Ok(little_endian(&self.pixels)),
            ImageEncoding::Png16 => {
                let mut native = vec![0; 2 * self.pixels.len()];
                let words = native.as_chunks_mut::<2>().0.iter_mut();
                words.zip(&self.pixels).for_each(|(word, pixel)| *word = pixel.to_ne_bytes());
                png(&native, (self.width, self.height), ExtendedColorType::L16)
            }
            other => Err(Error::Invalid(format!("image encoding: {} has no pixels of 16 bits", other.name()))),
        }
    }
}

fn little_endian(pixels: &[u16]) -> Vec<u8> {
    let mut bytes = vec![0; 2 * pixels.len()];
    let words = bytes.as_chunks_mut::<2>().0.iter_mut();
    words.zip(pixels).for_each(|(word, pixel)| *word = pixel.to_le_bytes());
    bytes
}

fn png(bytes: &[u8], (width, height): (u32, u32), color: ExtendedColorType) -> Result<Vec<u8>> {
    let mut file = Vec::new();
    PngEncoder::new_with_quality(&mut file, CompressionType::Default, FilterType::Adaptive)
        .write_image(bytes, width, height, color)
        .map_err(|e| Error::Invalid(format!("image encoding: {e}")))?;
    Ok(file)
}

impl GrayPixels {
    /// Encodes the image as the column `image` has it. Where that has 16 bits, gray levels are stored as they are.
    ///
    /// # Errors
    /// When the encoder fails.
    pub fn encode(self, encoding: ImageEncoding) -> Result<Vec<u8>> {
        let Self { width, height, pixels } = self;
        match encoding {
            ImageEncoding::Raw => Ok(pixels),
            ImageEncoding::Png => png(&pixels, (width, height), ExtendedColorType::L8),
            ImageEncoding::Jpeg => {
                let mut bytes = Vec::new();
                JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
                    .write_image(&pixels, width, height, ExtendedColorType::L8)
                    .map_err(|e| Error::Invalid(format!("image encoding: {e}")))?;
                Ok(bytes)
            }
            ImageEncoding::Raw16 | ImageEncoding::Png16 => {
                Gray16Pixels { width, height, pixels: pixels.into_iter().map(u16::from).collect() }.encode(encoding)
            }
        }
    }

    /// The image as a `GrayImage`, for drawing; black where `pixels` has too few bytes.
    pub(crate) fn into_buffer(self) -> ::image::GrayImage {
        ::image::GrayImage::from_raw(self.width, self.height, self.pixels)
            .unwrap_or_else(|| ::image::GrayImage::new(self.width, self.height))
    }
}

/// Decodes a PNG or JPEG, by its first bytes, to 8-bit gray.
///
/// # Errors
/// When it cannot be decoded.
pub fn decode(bytes: &[u8]) -> Result<GrayPixels> {
    let (_, image) = decoded(bytes, &|_| Ok(()))?;
    Ok(gray(image.into_luma8()))
}

/// The pixels of a stored image, which must be gray, of the dataset's encoding and bits, and of a height and width: one byte
/// for each, or two in little-endian order, `[height, width]`. Its size is compared before memory is allocated for it.
pub(crate) fn decode_stored(bytes: &[u8], encoding: ImageEncoding, (height, width): (u32, u32)) -> Result<Vec<u8>> {
    let (format, image) = decoded(bytes, &|found| {
        if found == (width, height) {
            return Ok(());
        }
        Err(Error::Invalid(format!("image of {}×{}, its columns say {height}×{width}", found.1, found.0)))
    })?;
    let expected = match encoding {
        ImageEncoding::Png | ImageEncoding::Png16 => Some(ImageFormat::Png),
        ImageEncoding::Jpeg => Some(ImageFormat::Jpeg),
        ImageEncoding::Raw | ImageEncoding::Raw16 => None,
    };
    match image {
        DynamicImage::ImageLuma8(image) if format == expected && encoding.bits() == 8 => Ok(image.into_raw()),
        DynamicImage::ImageLuma16(image) if format == expected && encoding.bits() == 16 => {
            Ok(little_endian(&image.into_raw()))
        }
        other => {
            let (format, color) = (format.map_or("none", |format| format.extensions_str()[0]), other.color());
            let (bits, encoding) = (encoding.bits(), encoding.name());
            let message = format!("its image is {format} of {color:?}, the dataset's images are {bits}-bit gray");
            Err(Error::Invalid(format!("{message} {encoding}")))
        }
    }
}

/// Decodes a stored mask, which must be a 1-bit gray PNG of the height and width of its image, to 0 and 255. Its size is compared
/// before memory is allocated for it.
pub(crate) fn decode_mask(bytes: &[u8], (height, width): (u16, u16)) -> Result<GrayPixels> {
    // After the signature, length and name of the first chunk, width and height.
    const BITS_AND_COLOR: std::ops::Range<usize> = 24..26;
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") || bytes.get(BITS_AND_COLOR) != Some(&[1, 0]) {
        return Err(Error::Invalid("its mask is not a 1-bit gray PNG".to_owned()));
    }
    let has_size = |(found_width, found_height): (u32, u32)| {
        if (found_width, found_height) == (width.into(), height.into()) {
            return Ok(());
        }
        Err(Error::Invalid(format!(
            "its mask has another size ({found_width} × {found_height}) than its image ({width} × {height})"
        )))
    };
    let unread = |error: Error| match error {
        Error::Invalid(message) if message.starts_with(UNREADABLE) => Error::Invalid(format!("its mask: {message}")),
        other => other,
    };
    let (_, mask) = decoded(bytes, &has_size).map_err(unread)?;
    Ok(gray(mask.into_luma8()))
}

fn gray(image: ::image::GrayImage) -> GrayPixels {
    GrayPixels { width: image.width(), height: image.height(), pixels: image.into_raw() }
}

/// How errors of decoders begin.
const UNREADABLE: &str = "image decoding: ";

/// Decodes an image whose width and height pass a check.
fn decoded(bytes: &[u8], check: &dyn Fn((u32, u32)) -> Result<()>) -> Result<(Option<ImageFormat>, DynamicImage)> {
    let bad = |e: &dyn std::fmt::Display| Error::Invalid(format!("{UNREADABLE}{e}"));
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| bad(&e))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(u16::MAX.into());
    limits.max_image_height = Some(u16::MAX.into());
    reader.limits(limits.clone());
    let format = reader.format();
    let decoder = reader.into_decoder().map_err(|e| bad(&e))?;
    check(decoder.dimensions())?;
    limits.reserve(decoder.total_bytes()).map_err(|e| bad(&e))?;
    Ok((format, DynamicImage::from_decoder(decoder).map_err(|e| bad(&e))?))
}
