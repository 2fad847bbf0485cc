//! Segmentation masks in image files.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::dicom::limits::{MAX_VALUES, guarded};

/// Level above which a pixel of a JPEG file is marked: its edges are blurred.
const JPEG_LEVEL: u8 = 127;

/// The mask of a PNG or JPEG file, row-major, 1 where marked: `[height, width]`. A pixel is marked where any of its colors is
/// above 0, in a JPEG file where its gray level is above 127.
///
/// # Errors
/// A sentence that names the cause: an unreadable file, or another size than `size` (width, height).
pub(crate) fn decode(bytes: &[u8], size: (u32, u32)) -> Result<Vec<u8>, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("it cannot be decoded: {error}");
    guarded(|| {
        let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| unreadable(&e))?;
        let is_jpeg = match reader.format() {
            Some(ImageFormat::Png) => false,
            Some(ImageFormat::Jpeg) => true,
            _ => return Err("it is neither a PNG nor a JPEG file".to_owned()),
        };
        let mut limits = Limits::default();
        limits.max_alloc = Some(MAX_VALUES * 8);
        reader.limits(limits);
        let decoder = reader.into_decoder().map_err(|e| unreadable(&e))?;
        let (width, height) = decoder.dimensions();
        if (width, height) != size {
            return Err(format!("it has {width}×{height} pixels, its image has {}×{}", size.0, size.1));
        }
        let image = DynamicImage::from_decoder(decoder).map_err(|e| unreadable(&e))?;
        Ok(if is_jpeg {
            image.into_luma8().into_raw().into_iter().map(|level| u8::from(level > JPEG_LEVEL)).collect()
        } else {
            marked(image)
        })
    })
}

/// Pixels with a color above 0; transparency is ignored.
fn marked(image: DynamicImage) -> Vec<u8> {
    fn any<T: Copy + PartialOrd + Default>(values: &[T], channels: usize, colors: usize) -> Vec<u8> {
        let is_marked = |pixel: &[T]| u8::from(pixel[..colors].iter().any(|value| *value > T::default()));
        values.chunks_exact(channels).map(is_marked).collect()
    }
    match image {
        DynamicImage::ImageLuma8(image) => any(&image, 1, 1),
        DynamicImage::ImageLumaA8(image) => any(&image, 2, 1),
        DynamicImage::ImageRgb8(image) => any(&image, 3, 3),
        DynamicImage::ImageRgba8(image) => any(&image, 4, 3),
        DynamicImage::ImageLuma16(image) => any(&image, 1, 1),
        DynamicImage::ImageLumaA16(image) => any(&image, 2, 1),
        other => any(&other.into_rgb16(), 3, 3),
    }
}

#[cfg(test)]
mod tests {
    use image::{ExtendedColorType, ImageEncoder};

    use super::*;

    #[test]
    fn any_color_marks_a_pixel() {
        let png = |values: &[u8], color: ExtendedColorType| {
            let mut file = Vec::new();
            image::codecs::png::PngEncoder::new(&mut file).write_image(values, 2, 1, color).unwrap();
            decode(&file, (2, 1))
        };
        assert_eq!(png(&[0, 1], ExtendedColorType::L8), Ok(vec![0, 1]));
        assert_eq!(png(&[0, 0, 0, 0, 0, 1], ExtendedColorType::Rgb8), Ok(vec![0, 1]));
        assert_eq!(png(&[0, 0, 0, 255, 0, 9, 0, 0], ExtendedColorType::Rgba8), Ok(vec![0, 1]), "not transparency");
        let words: Vec<u8> = [0u16, 1].into_iter().flat_map(u16::to_ne_bytes).collect();
        assert_eq!(png(&words, ExtendedColorType::L16), Ok(vec![0, 1]));
        let mut jpeg = Vec::new();
        let levels: Vec<u8> = (0..16 * 8).map(|at| if at % 16 < 8 { 40 } else { 220 }).collect();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 100)
            .write_image(&levels, 16, 8, ExtendedColorType::L8)
            .unwrap();
        let expected: Vec<u8> = levels.iter().map(|&level| u8::from(level > JPEG_LEVEL)).collect();
        assert_eq!(decode(&jpeg, (16, 8)), Ok(expected));
        assert_eq!(decode(&jpeg, (8, 16)), Err("it has 16×8 pixels, its image has 8×16".to_owned()));
        assert!(decode(&jpeg[..jpeg.len() / 2], (16, 8)).unwrap_err().starts_with("it cannot be decoded"));
        assert_eq!(decode(b"BM", (2, 1)), Err("it is neither a PNG nor a JPEG file".to_owned()));
    }
}
