//! Pictures of a dataset side by side: as they are stored, or as a model gets them.

use std::sync::Arc;

use ::image::{GrayImage, Luma, imageops};

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::format::image_codec::{GrayPixels, decode_stored};
use crate::format::record::ImageEncoding;
use crate::loader::batch::Batch;
use crate::loader::builder::Loader;
use crate::random::Stream;
use crate::transform::pipeline::Transform;

/// Side of a tile of the montage, and tiles in a row.
const TILE: u32 = 192;
const COLUMNS: u32 = 6;

/// Rows of a montage, drawn with a seed, in the order of the dataset.
fn drawn(dataset: &Dataset, count: usize, seed: u64) -> Result<Vec<u32>> {
    let mut rows = dataset.all_rows()?;
    Stream::new(&[seed]).shuffle(&mut rows);
    rows.truncate(count);
    rows.sort_unstable();
    Ok(rows)
}

/// Pictures, each fitted into a square tile.
fn tiles(pictures: impl ExactSizeIterator<Item = Result<GrayImage>>) -> Result<GrayImage> {
    let lines = (pictures.len() as u32).div_ceil(COLUMNS).max(1);
    let mut canvas = GrayImage::new(COLUMNS * TILE, lines * TILE);
    for (position, picture) in pictures.enumerate() {
        let picture = picture?;
        let scale = f64::from(TILE) / f64::from(picture.width().max(picture.height()).max(1));
        let side = |length: u32| ((f64::from(length) * scale) as u32).max(1);
        let filter = imageops::FilterType::Triangle;
        let small = imageops::resize(&picture, side(picture.width()), side(picture.height()), filter);
        let (x, y) = (position as u32 % COLUMNS * TILE, position as u32 / COLUMNS * TILE);
        let (dx, dy) = ((TILE - small.width()) / 2, (TILE - small.height()) / 2);
        imageops::replace(&mut canvas, &small, i64::from(x + dx), i64::from(y + dy));
    }
    Ok(canvas)
}

/// A montage of `count` images drawn with a seed, as they are stored.
pub fn stored(dataset: &Dataset, count: usize, seed: u64) -> Result<GrayImage> {
    tiles(drawn(dataset, count, seed)?.into_iter().map(|row| {
        let record = dataset.record(row as usize)?;
        if record.height == 0 {
            return Err(Error::Invalid("this dataset has no images (ingested with --no-images)".to_owned()));
        }
        let (height, width) = (u32::from(record.height), u32::from(record.width));
        match dataset.manifest().image.encoding {
            ImageEncoding::Raw => Ok(GrayPixels { width, height, pixels: record.image }.to_buffer()),
            encoding => Ok(decode_stored(&record.image, encoding)?.to_buffer()),
        }
    }))
}

/// A montage of `count` images drawn with a seed, as a loader with this transform gives them: boxes are outlined in
/// white, masks are lighter.
pub fn transformed(dataset: &Arc<Dataset>, count: usize, seed: u64, transform: Transform) -> Result<GrayImage> {
    let rows = drawn(dataset, count, seed)?;
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
    tiles((0..batch.len()).map(|record| Ok(picture(&batch, record, transform))))
}

fn picture(batch: &Batch, record: usize, transform: Transform) -> GrayImage {
    let (size, pixels) = (batch.size(), batch.size() * batch.size());
    let of_record = record * pixels..(record + 1) * pixels;
    let mut picture = GrayImage::new(size as u32, size as u32);
    let levels = batch.images()[of_record.clone()].iter().zip(&batch.masks()[of_record]);
    for (pixel, (level, class)) in picture.pixels_mut().zip(levels) {
        let level = (level * transform.std + transform.mean) * 255.0;
        let marked = if *class == 1 { level * 0.7 + 255.0 * 0.3 } else { level };
        *pixel = Luma([marked.round() as u8]);
    }
    for found in batch.boxes().iter().filter(|found| found.record == record) {
        let last = size as u32 - 1;
        let edge = |at: f32| (at.max(0.0) as u32).min(last);
        let (left, right) = (edge(found.x), edge(found.x + found.width));
        let (top, bottom) = (edge(found.y), edge(found.y + found.height));
        for x in left..=right {
            picture.put_pixel(x, top, Luma([255]));
            picture.put_pixel(x, bottom, Luma([255]));
        }
        for y in top..=bottom {
            picture.put_pixel(left, y, Luma([255]));
            picture.put_pixel(right, y, Luma([255]));
        }
    }
    picture
}
