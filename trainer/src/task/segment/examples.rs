//! The image `segmentation-STEM.png` of a few evaluated records.

use std::path::{Path, PathBuf};

use anyhow::Result;
use dataset::store::files;
use dataset::transform::Transform;
use image::{Rgb, RgbImage};

use super::SegmentedRecord;

/// Records of the image, and how many of them have something drawn, if there are enough of both kinds.
const LINES: usize = 6;
const POSITIVE_LINES: usize = 4;

/// Pixels between two images.
const GAP: u32 = 4;

/// Colors of the drawn and of the predicted mask.
const DRAWN: [u8; 3] = [0, 158, 115];
const PREDICTED: [u8; 3] = [230, 120, 0];

/// The first records of an evaluation: image, drawn mask, predicted mask.
#[derive(Default)]
pub(super) struct Examples {
    positive: Vec<RgbImage>,
    empty: Vec<RgbImage>,
}

impl Examples {
    pub(super) fn add(&mut self, record: &SegmentedRecord, transform: &Transform) {
        let kind = if record.overlap.is_positive() { &mut self.positive } else { &mut self.empty };
        if kind.len() < LINES {
            kind.push(line(record, transform));
        }
    }

    /// Writes an image with a record a line.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let positive = self.positive.len().min(POSITIVE_LINES.max(LINES.saturating_sub(self.empty.len())));
        let empty = self.empty.len().min(LINES - positive);
        let lines: Vec<&RgbImage> = self.positive[..positive].iter().chain(&self.empty[..empty]).collect();
        let Some(first) = lines.first() else { return Ok(()) };
        let (width, height) = first.dimensions();
        let mut canvas = RgbImage::from_pixel(width, lines.len() as u32 * (height + GAP) - GAP, Rgb([255; 3]));
        for (position, line) in (0..).zip(&lines) {
            image::imageops::replace(&mut canvas, *line, 0, position * i64::from(height + GAP));
        }
        let mut bytes = std::io::Cursor::new(Vec::new());
        canvas.write_to(&mut bytes, image::ImageFormat::Png)?;
        Ok(files::write_atomic(path, &bytes.into_inner())?)
    }
}

/// One record: image, drawn mask over it, predicted mask over it.
fn line(record: &SegmentedRecord, transform: &Transform) -> RgbImage {
    let size = record.size as u32;
    let step = size + GAP;
    let mut canvas = RgbImage::from_pixel(3 * step - GAP, size, Rgb([255; 3]));
    for (at, level) in record.image.iter().enumerate() {
        let (x, y) = (at as u32 % size, at as u32 / size);
        let gray = ((level * transform.std + transform.mean) * 255.0).round().clamp(0.0, 255.0) as u8;
        // The mean of the color and the image.
        let tinted =
            |marked: bool, color: [u8; 3]| Rgb(color.map(|channel| if marked { channel.midpoint(gray) } else { gray }));
        canvas.put_pixel(x, y, tinted(false, DRAWN));
        canvas.put_pixel(step + x, y, tinted(record.target[at] == 1, DRAWN));
        canvas.put_pixel(2 * step + x, y, tinted(record.prediction[at] == 1, PREDICTED));
    }
    canvas
}

/// The image that an evaluation wrote.
pub fn examples_image(run: &Path, stem: &str) -> PathBuf {
    run.join(format!("segmentation-{stem}.png"))
}
