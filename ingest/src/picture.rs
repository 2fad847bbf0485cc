//! One raw file to one stored picture: decode, tone, fit, encode.

use std::io::Cursor;

use dataset::image::GreyImage;
use dataset::resample::{Filter, Rectangle, Resample};
use image::{DynamicImage, ImageReader, Limits};
use serde::{Deserialize, Serialize};

use crate::dicom;
use crate::header::Header;
use crate::tone::{self, Tone};

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

/// Most memory that decoding one raster may take.
const MAX_DECODED_BYTES: u64 = 4 << 30;
const MAX_SIDE: u32 = 60_000;

/// Decodes a DICOM, PNG or JPEG file (told apart by their first bytes) to 8-bit grey.
///
/// # Errors
/// A sentence that names the cause.
pub fn decode(bytes: &[u8], tone: Tone) -> Result<GreyImage, String> {
    Ok(decode_with_header(bytes, tone)?.0)
}

/// As [`decode`]; also what the header of a DICOM file says of patient and view.
///
/// # Errors
/// A sentence that names the cause.
pub fn decode_with_header(bytes: &[u8], tone: Tone) -> Result<(GreyImage, Header), String> {
    if let Ok(image::ImageFormat::Png | image::ImageFormat::Jpeg) = image::guess_format(bytes) {
        Ok((decode_raster(bytes)?, Header::default()))
    } else {
        let dicom = dicom::read_radiograph(bytes)?;
        let grey = GreyImage { width: dicom.width, height: dicom.height, pixels: tone::to_grey(&dicom, tone) };
        Ok((grey, dicom.header))
    }
}

fn decode_raster(bytes: &[u8]) -> Result<GreyImage, String> {
    let bad = |error: &dyn std::fmt::Display| format!("the picture cannot be decoded: {error}");
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| bad(&e))?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);
    let picture = reader.decode().map_err(|e| bad(&e))?;
    let (width, height) = (picture.width(), picture.height());
    let pixels = match picture {
        DynamicImage::ImageLuma8(grey) => grey.into_raw(),
        DynamicImage::ImageLumaA8(grey) => grey.pixels().map(|pixel| pixel.0[0]).collect(),
        DynamicImage::ImageLuma16(grey) => grey.pixels().map(|pixel| (pixel.0[0] >> 8) as u8).collect(),
        colour => colour.into_rgb8().pixels().map(|pixel| tone::luma(pixel.0[0], pixel.0[1], pixel.0[2])).collect(),
    };
    Ok(GreyImage { width, height, pixels })
}

/// Brings a picture to the stored size, with an antialiased Lanczos filter.
pub fn fit(picture: GreyImage, size: u32, fit: Fit, scratch: &mut Resample) -> Result<(GreyImage, Placement), String> {
    let (width, height) = (picture.width, picture.height);
    let rounded = |side: u32, scale: f64| ((f64::from(side) * scale).round() as u32).max(1);
    let (new_width, new_height) = match fit {
        Fit::Shorter => {
            let scale = (f64::from(size) / f64::from(width.min(height))).min(1.0);
            (rounded(width, scale), rounded(height, scale))
        }
        Fit::Pad => {
            let scale = f64::from(size) / f64::from(width.max(height));
            (rounded(width, scale), rounded(height, scale))
        }
        Fit::Stretch => (size, size),
    };
    if new_width > u16::MAX.into() || new_height > u16::MAX.into() {
        return Err(format!("{width}×{height} pixels are too long for a radiograph"));
    }
    let scale = (f64::from(new_width) / f64::from(width), f64::from(new_height) / f64::from(height));
    let resized = if (new_width, new_height) == (width, height) {
        picture
    } else {
        let whole = Rectangle { left: 0, top: 0, width, height };
        let pixels = scratch
            .resize((&picture.pixels, width, height), whole, new_width, new_height, Filter::Lanczos)
            .map_err(|e| e.to_string())?;
        GreyImage { width: new_width, height: new_height, pixels: pixels.to_vec() }
    };
    if fit != Fit::Pad || (new_width, new_height) == (size, size) {
        return Ok((resized, Placement { scale, offset: (0.0, 0.0) }));
    }
    let (left, top) = ((size - new_width) / 2, (size - new_height) / 2);
    let mut padded = vec![0; size as usize * size as usize];
    for (y, row) in resized.pixels.chunks_exact(new_width as usize).enumerate() {
        let start = (top as usize + y) * size as usize + left as usize;
        padded[start..start + row.len()].copy_from_slice(row);
    }
    let offset = (f64::from(left), f64::from(top));
    Ok((GreyImage { width: size, height: size, pixels: padded }, Placement { scale, offset }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_placement() {
        let picture = || GreyImage { width: 40, height: 20, pixels: vec![200; 800] };
        let mut scratch = Resample::default();
        let (shorter, _) = fit(picture(), 10, Fit::Shorter, &mut scratch).unwrap();
        assert_eq!((shorter.width, shorter.height), (20, 10));
        let (kept, _) = fit(picture(), 512, Fit::Shorter, &mut scratch).unwrap();
        assert_eq!((kept.width, kept.height), (40, 20), "never larger than the source");
        let (padded, place) = fit(picture(), 10, Fit::Pad, &mut scratch).unwrap();
        assert_eq!((padded.width, padded.height), (10, 10));
        assert_eq!(place, Placement { scale: (0.25, 0.25), offset: (0.0, 2.0) });
        assert_eq!((padded.pixels[0], padded.pixels[55]), (0, 200));
    }
}
