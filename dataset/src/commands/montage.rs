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
/// Tiles in a row of a montage of random images.
const COLUMNS: u32 = 6;

/// Random rows for a montage, in the order of the dataset.
fn random_rows(dataset: &Dataset, count: usize, seed: u64) -> Result<Vec<u32>> {
    let mut rows = dataset.all_rows()?;
    Stream::new(&[seed]).shuffle(&mut rows);
    rows.truncate(count);
    rows.sort_unstable();
    Ok(rows)
}

/// Images, each resized into a square tile, so many in a row.
fn tiles(columns: u32, images: impl ExactSizeIterator<Item = Result<GrayImage>>) -> Result<GrayImage> {
    let lines = (images.len() as u32).div_ceil(columns).max(1);
    let mut canvas = GrayImage::new(columns * TILE, lines * TILE);
    for (position, image) in images.enumerate() {
        let image = image?;
        let scale = f64::from(TILE) / f64::from(image.width().max(image.height()).max(1));
        let side = |length: u32| ((f64::from(length) * scale) as u32).max(1);
        let filter = imageops::FilterType::Triangle;
        let small = imageops::resize(&image, side(image.width()), side(image.height()), filter);
        let (x, y) = (position as u32 % columns * TILE, position as u32 / columns * TILE);
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
    tiles(
        COLUMNS,
        random_rows(dataset, count, seed)?.into_iter().map(|row| {
            let image = dataset.image(row as usize)?;
            if image.pixels.is_empty() {
                return Err(Error::Invalid("this dataset has no images (ingested with --no-images)".to_owned()));
            }
            Ok(image.into_buffer())
        }),
    )
}

/// A montage of `count` random images as a loader with this transform gives them. Boxes are outlined in white, and masks
/// are lighter.
///
/// # Errors
/// When the dataset has no images, or one cannot be read.
pub fn transformed(dataset: &Arc<Dataset>, count: usize, seed: u64, transform: &Transform) -> Result<GrayImage> {
    let images = outlined_images(dataset, random_rows(dataset, count, seed)?, seed, transform)?;
    tiles(COLUMNS, images.into_iter().map(Ok))
}

/// A montage of `count` random images, one in each row: without augmentation, then with each augmentation of the transform
/// at the lower and at the upper end of its ranges, then with all as a loader draws them. Boxes and masks are shown as in
/// [`transformed`].
///
/// # Errors
/// When the dataset has no images, or one cannot be read.
pub fn augmented(dataset: &Arc<Dataset>, count: usize, seed: u64, transform: &Transform) -> Result<GrayImage> {
    let rows = random_rows(dataset, count, seed)?;
    let extremes = transform.augment.iter().flat_map(|augmentation| augmentation.extremes().map(|end| vec![end]));
    let lists: Vec<_> = [Vec::new()].into_iter().chain(extremes).chain([transform.augment.clone()]).collect();
    let columns = lists.into_iter().map(|augment| {
        let transform = Transform { augment, ..transform.clone() };
        outlined_images(dataset, rows.clone(), seed, &transform)
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    let lines: Vec<GrayImage> =
        (0..rows.len()).flat_map(|row| columns.iter().filter_map(move |column| column.get(row)).cloned()).collect();
    tiles(columns.len() as u32, lines.into_iter().map(Ok))
}

/// Images of some rows as a loader with this transform gives them, with their boxes and masks.
fn outlined_images(dataset: &Arc<Dataset>, rows: Vec<u32>, seed: u64, transform: &Transform) -> Result<Vec<GrayImage>> {
    let mut loader = Loader::builder(dataset)
        .batch_size(rows.len().max(1))
        .rows(rows)
        .shuffle(false)
        .seed(seed)
        .transform(transform.clone())
        .boxes(true)
        .masks(true)
        .threads(1)
        .prefetch(1)
        .build()?;
    let batch = loader.next_batch()?;
    Ok((0..batch.len()).map(|record| outlined(&batch, record, transform)).collect())
}

/// One image of a batch with its boxes and mask.
fn outlined(batch: &Batch, record: usize, transform: &Transform) -> GrayImage {
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
