//! Encodes and decodes 8-bit gray images.

use std::io::Cursor;

use ::image::codecs::jpeg::JpegEncoder;
use ::image::codecs::png::{CompressionType, FilterType, PngEncoder};
use ::image::{DynamicImage, ExtendedColorType, ImageEncoder, ImageFormat, ImageReader, Limits};

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

impl GrayPixels {
    /// Encodes the image as the column `image` has it.
    ///
    /// # Errors
    /// When the encoder fails.
    pub fn encode(self, encoding: ImageEncoding) -> Result<Vec<u8>> {
        let Self { width, height, pixels } = self;
        let mut bytes = Vec::new();
        match encoding {
            ImageEncoding::Raw => return Ok(pixels),
            ImageEncoding::Png => PngEncoder::new_with_quality(
                &mut bytes,
                CompressionType::Default,
                FilterType::Adaptive,
            )
            .write_image(&pixels, width, height, ExtendedColorType::L8),
            ImageEncoding::Jpeg => JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).write_image(
                &pixels,
                width,
                height,
                ExtendedColorType::L8,
            ),
        }
        .map_err(|e| Error::Invalid(format!("image encoding: {e}")))?;
        Ok(bytes)
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
    let (_, image) = decoded(bytes)?;
    Ok(gray(image.into_luma8()))
}

/// Decodes a stored image, which must be 8-bit gray and of the dataset's encoding.
pub(crate) fn decode_stored(bytes: &[u8], encoding: ImageEncoding) -> Result<GrayPixels> {
    let (format, image) = decoded(bytes)?;
    let expected = match encoding {
        ImageEncoding::Png => Some(ImageFormat::Png),
        ImageEncoding::Jpeg => Some(ImageFormat::Jpeg),
        ImageEncoding::Raw => None,
    };
    match image {
        DynamicImage::ImageLuma8(image) if format == expected => Ok(gray(image)),
        other => {
            let (format, color) = (format.map_or("none", |format| format.extensions_str()[0]), other.color());
            let message = format!("its image is {format} of {color:?}, the dataset's images are 8-bit gray");
            Err(Error::Invalid(format!("{message} {}", encoding.name())))
        }
    }
}

/// Decodes a stored mask, which must be a 1-bit gray PNG, to 0 and 255.
pub(crate) fn decode_mask(bytes: &[u8]) -> Result<GrayPixels> {
    // After the signature, length and name of the first chunk, width and height.
    const BITS_AND_COLOR: std::ops::Range<usize> = 24..26;
    if !bytes.starts_with(b"\x89PNG\r\n\x1a\n") || bytes.get(BITS_AND_COLOR) != Some(&[1, 0]) {
        return Err(Error::Invalid("its mask is not a 1-bit gray PNG".to_owned()));
    }
    decode(bytes).map_err(|error| Error::Invalid(format!("its mask: {error}")))
}

fn gray(image: ::image::GrayImage) -> GrayPixels {
    GrayPixels { width: image.width(), height: image.height(), pixels: image.into_raw() }
}

fn decoded(bytes: &[u8]) -> Result<(Option<ImageFormat>, DynamicImage)> {
    let bad = |e: &dyn std::fmt::Display| Error::Invalid(format!("image decoding: {e}"));
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| bad(&e))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(u16::MAX.into());
    limits.max_image_height = Some(u16::MAX.into());
    reader.limits(limits);
    let format = reader.format();
    Ok((format, reader.decode().map_err(|e| bad(&e))?))
}
