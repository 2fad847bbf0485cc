//! Montages of images of a dataset: as they are stored, or as a model gets them.

use std::sync::Arc;

use ::image::{GrayImage, Luma, imageops};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::loader::{Batch, Loader};
use crate::random::Stream;
use crate::transform::pipeline::Transform;

/// Side of a tile in pixels.
const TILE: u32 = 192;
/// Tiles in a row.
const COLUMNS: u32 = 6;

/// Random rows for a montage, in the order of the dataset.
fn random_rows(dataset: &Dataset, count: usize, seed: u64) -> Result<Vec<u32>> {
    let mut rows = dataset.all_rows()?;
    Stream::new(&[seed]).shuffle(&mut rows);
    rows.truncate(count);
    rows.sort_unstable();
    Ok(rows)
}

/// Images, each resized into a square tile.
fn tiles(images: impl ExactSizeIterator<Item = Result<GrayImage>>) -> Result<GrayImage> {
    let lines = (images.len() as u32).div_ceil(COLUMNS).max(1);
    let mut canvas = GrayImage::new(COLUMNS * TILE, lines * TILE);
    for (position, image) in images.enumerate() {
        let image = image?;
        let scale = f64::from(TILE) / f64::from(image.width().max(image.height()).max(1));
        let side = |length: u32| ((f64::from(length) * scale) as u32).max(1);
        let filter = imageops::FilterType::Triangle;
        let small = imageops::resize(&image, side(image.width()), side(image.height()), filter);
        let (x, y) = (position as u32 % COLUMNS * TILE, position as u32 / COLUMNS * TILE);
        let (dx, dy) = ((TILE - small.width()) / 2, (TILE - small.height()) / 2);
        imageops::replace(&mut canvas, &small, i64::from(x + dx), i64::from(y + dy));
    }
    Ok(canvas)
}

/// A montage of `count` random images as they are stored.
///
/// # Errors
/// When the dataset has no images, or one cannot be read.
pub fn stored(dataset: &Dataset, count: usize, seed: u64) -> Result<GrayImage> {
    tiles(random_rows(dataset, count, seed)?.into_iter().map(|row| {
        let image = dataset.image(row as usize)?;
        if image.pixels.is_empty() {
            return Err(Error::Invalid("this dataset has no images (ingested with --no-images)".to_owned()));
        }
        Ok(image.into_buffer())
    }))
}

/// A montage of `count` random images as a loader with this transform gives them. Boxes are outlined in white, and masks
/// are lighter.
///
/// # Errors
/// When the dataset has no images, or one cannot be read.
pub fn transformed(dataset: &Arc<Dataset>, count: usize, seed: u64, transform: Transform) -> Result<GrayImage> {
    let rows = random_rows(dataset, count, seed)?;
    let mut loader = Loader::builder(dataset)
        .batch_size(rows.len().max(1))
        .rows(rows)
        .shuffle(false)
        .seed(seed)
        .transform(transform)
        .boxes(true)
        .masks(true)
        .threads(1)
        .prefetch(1)
        .build()?;
    let batch = loader.next_batch()?;
    tiles((0..batch.len()).map(|record| Ok(outlined(&batch, record, transform))))
}

/// One image of a batch with its boxes and mask.
fn outlined(batch: &Batch, record: usize, transform: Transform) -> GrayImage {
    let (size, pixels) = (batch.size(), batch.size() * batch.size());
    let of_record = record * pixels..(record + 1) * pixels;
    let mut image = GrayImage::new(size as u32, size as u32);
    let levels = batch.images()[of_record.clone()].iter().zip(&batch.masks()[of_record]);
    for (pixel, (level, class)) in image.pixels_mut().zip(levels) {
        let level = (level * transform.std + transform.mean) * 255.0;
        let marked = if *class == 1 { level * 0.7 + 255.0 * 0.3 } else { level };
        *pixel = Luma([marked.round() as u8]);
    }
    for b in batch.boxes().iter().filter(|b| b.record == record) {
        let last = size as u32 - 1;
        let edge = |at: f32| (at.max(0.0) as u32).min(last);
        let (left, right) = (edge(b.x), edge(b.x + b.width));
        let (top, bottom) = (edge(b.y), edge(b.y + b.height));
        for x in left..=right {
            image.put_pixel(x, top, Luma([255]));
            image.put_pixel(x, bottom, Luma([255]));
        }
        for y in top..=bottom {
            image.put_pixel(left, y, Luma([255]));
            image.put_pixel(right, y, Luma([255]));
        }
    }
    image
}
