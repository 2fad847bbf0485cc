//! The stages that make an image of a batch, each on one thread.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::options::{Options, loader};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::random::{Stream, digest};
use crate::transform::{StoredImage, Workspace};

/// Microseconds that one thread takes for each image, from the page cache.
#[derive(Clone, Debug, Serialize)]
pub struct Stages {
    /// Copying its page out of the page cache.
    pub read: f64,
    /// Comparing the page with its checksum, and decoding.
    pub decode: f64,
    /// Crop, resampling, augmentation, normalization.
    pub transform: f64,
    /// The rest of a batch: labels, masked reports.
    pub assembly: f64,
}

/// A decoded image.
struct Stored {
    pixels: Vec<u8>,
    /// Width and height.
    size: (u32, u32),
    window: Option<[f32; 2]>,
}

impl Stored {
    /// Height and width.
    fn sides(&self) -> (u16, u16) {
        (self.size.1 as u16, self.size.0 as u16)
    }

    fn stored(&self) -> StoredImage<'_> {
        StoredImage { pixels: &self.pixels, width: self.size.0, height: self.size.1, window: self.window }
    }
}

/// Names of the stages, in the order in which an image passes them.
pub(super) const NAMES: [&str; 4] = ["read", "decode", "transform", "assembly"];

impl Stages {
    pub(super) fn measure(dataset: &Arc<Dataset>, rows: &[u32], options: &Options) -> Result<Self> {
        let mut images = Vec::with_capacity(rows.len());
        for &row in rows {
            let (shard, local) = dataset.locate(row as usize)?;
            let mut pixels = Vec::new();
            let (height, width) = dataset.image_into(row as usize, &mut pixels)?;
            if pixels.is_empty() {
                return Err(Error::Invalid("this dataset has no images (ingested with --no-images)".to_owned()));
            }
            let window = if dataset.has_16_bits() { Some(dataset.window(row as usize)?) } else { None };
            let size = (width.into(), height.into());
            images.push((row as usize, shard.file().read(shard.image_page(local)?)?, Stored { pixels, size, window }));
        }
        let micros = |rate: f64| 1e6 / rate;
        let mut pixels = Vec::new();
        let mut turn = images.iter().cycle();
        let mut next = || turn.next().ok_or_else(|| Error::Invalid("no record".to_owned()));
        let read_and_decode = micros(rate(options.seconds, || {
            let (row, _, image) = next()?;
            dataset.decode_image(None, *row, image.sides(), &mut pixels).map(|_| 1)
        })?);
        let decode = micros(rate(options.seconds, || {
            let (row, page, image) = next()?;
            dataset.decode_image(Some(page), *row, image.sides(), &mut pixels).map(|_| 1)
        })?);
        let size = options.transform.size as usize;
        let (mut workspace, mut out, mut number) = (Workspace::default(), vec![0.0; size * size], 0);
        let transform = micros(rate(options.seconds, || {
            let (_, _, image) = next()?;
            number += 1;
            let stream = |name: &str| Stream::new(&[digest(name), number]);
            let choices = options.transform.choose(image.size.0, image.size.1, stream)?;
            options.transform.apply_stored(image.stored(), &choices, &mut workspace, &mut out)?;
            Ok(1)
        })?);
        let access = loader(dataset, rows.to_vec(), options).random_access()?;
        // One epoch fills the caches of columns.
        (0..access.batches()).try_for_each(|batch| access.batch(0, batch).map(drop))?;
        let mut batches = (0..access.batches()).cycle();
        let whole = micros(rate(options.seconds, || Ok(access.batch(0, batches.next().unwrap_or(0))?.len()))?);
        // Differences of two measurements, of which the smaller may have been disturbed.
        let read = (read_and_decode - decode).max(0.0);
        Ok(Self { read, decode, transform, assembly: (whole - read - decode - transform).max(0.0) })
    }

    /// Microseconds by [`NAMES`].
    pub(super) fn micros(&self) -> [f64; 4] {
        [self.read, self.decode, self.transform, self.assembly]
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        let words = [
            "from the page cache",
            "with the checksum",
            "crop, resampling, augmentation, normalization",
            "labels, reports, memory of a batch",
        ];
        let rows = NAMES.into_iter().zip(self.micros()).zip(words);
        rows.map(|((name, micros), words)| format!("{name:<11} {micros:>9.1} µs an image: {words}"))
    }
}

/// Calls `work`, which returns a number of images, for so many seconds; returns images a second.
pub(super) fn rate(seconds: f64, mut work: impl FnMut() -> Result<usize>) -> Result<f64> {
    let (began, mut images) = (Instant::now(), 0);
    loop {
        images += work()?;
        let span = began.elapsed().as_secs_f64();
        if span >= seconds {
            return Ok(images as f64 / span);
        }
    }
}
