//! 8-bit grey images: encoding, decoding, and how they are stored.

use std::io::Cursor;

use ::image::codecs::jpeg::JpegEncoder;
use ::image::codecs::png::{CompressionType, FilterType, PngEncoder};
use ::image::{ExtendedColorType, ImageEncoder, ImageReader, Limits};

use crate::error::{Error, Result};
use crate::record::ImageEncoding;

/// Quality of stored JPEGs, that of MIMIC-CXR-JPG.
const JPEG_QUALITY: u8 = 95;

/// An 8-bit grey image, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GreyImage {
    pub width: u32,
    pub height: u32,
    /// `height · width` bytes.
    pub pixels: Vec<u8>,
}

impl GreyImage {
    /// The bytes of the `image` column.
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

    /// The image as a `GrayImage`, for drawing.
    pub(crate) fn to_buffer(&self) -> ::image::GrayImage {
        ::image::GrayImage::from_raw(self.width, self.height, self.pixels.clone())
            .unwrap_or_else(|| ::image::GrayImage::new(self.width, self.height))
    }
}

/// Decodes a stored PNG or JPEG (its format is seen from its first bytes) to 8-bit grey.
pub fn decode(bytes: &[u8]) -> Result<GreyImage> {
    let bad = |e: &dyn std::fmt::Display| Error::Invalid(format!("image decoding: {e}"));
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| bad(&e))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(u16::MAX.into());
    limits.max_image_height = Some(u16::MAX.into());
    reader.limits(limits);
    let grey = reader.decode().map_err(|e| bad(&e))?.into_luma8();
    Ok(GreyImage { width: grey.width(), height: grey.height(), pixels: grey.into_raw() })
}
