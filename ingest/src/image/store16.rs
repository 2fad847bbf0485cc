//! From a raw file to a stored image of 16 bits a pixel: decode, numbers of 16 bits and their window, resize.

use std::io;
use std::path::Path;

use dataset::format::image_codec::{Gray16Pixels, GrayPixels};
use dataset::transform::window::{LinearWindow, OF_8_BITS};
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat};

use crate::dicom::header::Header;
use crate::dicom::limits::{MAX_FILE_BYTES, guarded};
use crate::dicom::parse;
use crate::image::deep;
use crate::image::intensity::Intensity;
use crate::image::pipeline::{self, Deep, Scratch, Stored};
use crate::image::resize::{Resize, bordered, resized_size};
use crate::run::hashing_reader::{Hashing, Reader, Stamp};

/// An image in `scratch.deep`.
struct Decoded {
    /// Width and height.
    size: (u32, u32),
    window: [f32; 2],
    header: Header,
}

/// Decodes a file as [`pipeline::store`] does, but keeps up to 16 bits of its values, and resizes it with an antialiased Lanczos
/// filter. The image of a file of 8 bits is that of [`pipeline::store`], with the window of its whole range.
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
    let Some(Decoded { size: source, window, header }) = decode(bytes, intensity, scratch)? else {
        let stored = pipeline::store(bytes, intensity, size, resize, scratch)?;
        let GrayPixels { width, height, ref pixels } = stored.image;
        let pixels = Gray16Pixels { width, height, pixels: pixels.iter().map(|&level| level.into()).collect() };
        return Ok(Stored { deep: Some(Deep { pixels, window: OF_8_BITS }), ..stored });
    };
    let resized_to = resized_size(source, size, resize)?;
    let resized = scratch.floats.resize((&scratch.deep, source.0, source.1), resized_to.0, resized_to.1);
    let resized = resized.map_err(|error| error.to_string())?;
    let is_constant = resized.iter().all(|pixel| *pixel == resized[0]);
    let (pixels, (width, height), place) = bordered(resized, resized_to, source, size, resize);
    let shown = LinearWindow::new(window[0].into(), window[1].into()).gray(pixels.iter().copied());
    let image = GrayPixels { width, height, pixels: shown };
    let pixels = Gray16Pixels { width, height, pixels };
    Ok(Stored { image, deep: Some(Deep { pixels, window }), source, place, is_constant, header })
}

/// Reads and hashes a raw file, then does what [`store`] does.
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
    reader.rest(&mut file)?;
    let stored = store(&file, intensity, size, resize, scratch);
    scratch.file = file;
    Ok((reader.stamp()?, stored))
}

/// Decodes a file of more than 8 bits, or a gray DICOM file, to `scratch.deep`; `None` for all others.
fn decode(bytes: &[u8], intensity: Intensity, scratch: &mut Scratch) -> Result<Option<Decoded>, String> {
    match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => Ok(None),
        Ok(ImageFormat::Png) => {
            let Some((words, size)) = guarded(|| words_of_png(bytes))? else { return Ok(None) };
            let dicom = pipeline::dicom_of_words(words, size);
            let window = deep::pixels(&dicom, intensity, &mut scratch.deep);
            Ok(window.map(|window| Decoded { size, window, header: Header::default() }))
        }
        _ => {
            let dicom = parse::read_radiograph(bytes, std::mem::take(&mut scratch.words))?;
            let window = deep::pixels(&dicom, intensity, &mut scratch.deep);
            let size = (dicom.width, dicom.height);
            let decoded = window.map(|window| Decoded { size, window, header: dicom.header.clone() });
            scratch.words = dicom.pixels.into_words();
            Ok(decoded)
        }
    }
}

/// Pixels, and their width and height.
type Words = (Vec<u16>, (u32, u32));

/// The pixels of a gray PNG file of 16 bits; `None` for all others.
fn words_of_png(bytes: &[u8]) -> Result<Option<Words>, String> {
    let decoder = pipeline::raster(bytes)?;
    if !matches!(decoder.color_type(), ColorType::L16 | ColorType::La16) {
        return Ok(None);
    }
    let size = decoder.dimensions();
    Ok(match DynamicImage::from_decoder(decoder).map_err(pipeline::bad_raster)? {
        DynamicImage::ImageLuma16(values) => Some((values.into_raw(), size)),
        DynamicImage::ImageLumaA16(values) => Some((values.pixels().map(|pixel| pixel.0[0]).collect(), size)),
        _ => None,
    })
}
