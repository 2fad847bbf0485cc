//! Stored images as the files of an export.

use crate::error::{Error, Result};
use crate::format::image_codec::{self, Gray16Pixels, GrayPixels};
use crate::format::record::ImageEncoding;
use crate::format::record_checks::NO_WINDOW;
use crate::transform::window::{LinearWindow, words};

/// An image as it is stored.
pub(super) struct Image {
    pub bytes: Vec<u8>,
    pub width: u32,
    pub height: u32,
    pub encoding: ImageEncoding,
}

impl Image {
    /// The image as a PNG or JPEG file. One of 16 bits becomes a PNG of 16 bits where it `keeps` them, else one of 8 bits that
    /// is shown with its window.
    pub fn file(self, keeps: bool, window: Option<[f32; 2]>) -> Result<Vec<u8>> {
        let Self { bytes, width, height, encoding } = self;
        let pixels = match encoding {
            ImageEncoding::Raw => return GrayPixels { width, height, pixels: bytes }.encode(ImageEncoding::Png),
            ImageEncoding::Png | ImageEncoding::Jpeg => return Ok(bytes),
            ImageEncoding::Png16 if keeps => return Ok(bytes),
            ImageEncoding::Raw16 if keeps => {
                return Gray16Pixels { width, height, pixels: words(&bytes).collect() }.encode(ImageEncoding::Png16);
            }
            ImageEncoding::Png16 => image_codec::decode_stored(&bytes, encoding, (height, width))?,
            ImageEncoding::Raw16 => bytes,
        };
        let [center, span] = window.ok_or_else(|| Error::Invalid(NO_WINDOW.to_owned()))?;
        let pixels = LinearWindow::new(center.into(), span.into()).gray(words(&pixels));
        GrayPixels { width, height, pixels }.encode(ImageEncoding::Png)
    }
}
