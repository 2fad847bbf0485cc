//! How fast the storage gives shards in order, and image pages at random.

use std::io::Read;
use std::num::NonZeroU64;
use std::ops::Range;
use std::time::Instant;

use rustix::fs::{Advice, fadvise};
use serde::Serialize;

use super::stages::rate;
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::random::Stream;
use crate::store::stored_file::StoredFile;

/// Bytes of one read in order.
const PIECE: usize = 1 << 20;

/// Reads of a dataset's storage. Before each, the system is asked to drop the bytes from its page cache; caches of a disk or a
/// server stay.
#[derive(Clone, Debug, Serialize)]
pub struct Disk {
    /// Whether the page cache was dropped: local files only.
    pub without_page_cache: bool,
    /// Megabytes a second of shards, read in order by one thread.
    pub sequential_megabytes_per_second: f64,
    /// Image pages a second, read at random by the threads of the loader.
    pub random_images_per_second: f64,
    /// Mean size of an image page in bytes.
    pub page_bytes: f64,
}

impl Disk {
    pub(super) fn measure(dataset: &Dataset, threads: usize, seconds: f64) -> Result<Self> {
        let (bytes, span) = sequential(dataset, seconds)?;
        let began = Instant::now();
        let read: Vec<Result<(u64, u64)>> = std::thread::scope(|scope| {
            let handles: Vec<_> =
                (0..threads).map(|thread| scope.spawn(move || random(dataset, thread, seconds))).collect();
            let lost = |_| Err(Error::Invalid("a thread that reads panicked".to_owned()));
            handles.into_iter().map(|handle| handle.join().unwrap_or_else(lost)).collect()
        });
        let span_random = began.elapsed().as_secs_f64();
        let read = read.into_iter().collect::<Result<Vec<_>>>()?;
        let (pages, page_bytes) = read.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        Ok(Self {
            without_page_cache: dataset.storage().as_folder().is_some(),
            sequential_megabytes_per_second: bytes as f64 / 1e6 / span,
            random_images_per_second: pages as f64 / span_random,
            page_bytes: page_bytes as f64 / pages.max(1) as f64,
        })
    }

    pub(super) fn line(&self) -> String {
        let cache = if self.without_page_cache { ", past the page cache" } else { "" };
        format!(
            "storage     {:>9.0} images/s of {:.0} kB at random, {:.0} MB/s in order{cache}",
            self.random_images_per_second,
            self.page_bytes / 1e3,
            self.sequential_megabytes_per_second
        )
    }
}

/// Reads shards in order for so many seconds, at most each once; returns bytes and seconds.
fn sequential(dataset: &Dataset, seconds: f64) -> Result<(u64, f64)> {
    let (mut bytes, mut piece) = (0, vec![0; PIECE]);
    for index in 0..dataset.manifest().shards.len() {
        drop_cached(dataset.shard(index)?.file(), None);
    }
    let began = Instant::now();
    for index in 0..dataset.manifest().shards.len() {
        let mut reader = dataset.shard(index)?.file().reader();
        loop {
            let read = reader.read(&mut piece).map_err(|error| Error::Invalid(error.to_string()))?;
            bytes += read as u64;
            let span = began.elapsed().as_secs_f64();
            if span > seconds {
                return Ok((bytes, span));
            }
            if read == 0 {
                break;
            }
        }
    }
    Ok((bytes, began.elapsed().as_secs_f64().max(f64::MIN_POSITIVE)))
}

/// Reads image pages at random for so many seconds; returns pages and bytes.
fn random(dataset: &Dataset, thread: usize, seconds: f64) -> Result<(u64, u64)> {
    let (mut stream, mut pages, mut bytes) = (Stream::new(&[thread as u64]), 0, 0);
    rate(seconds, || {
        let (shard, row) = dataset.locate(stream.below(dataset.len() as u64) as usize)?;
        let page = shard.image_page(row)?;
        drop_cached(shard.file(), Some(&page));
        bytes += shard.file().read(page)?.len() as u64;
        pages += 1;
        Ok(1)
    })?;
    Ok((pages, bytes))
}

/// Asks the system to drop a part of a local file, or all of it, from its page cache.
fn drop_cached(file: &StoredFile, part: Option<&Range<u64>>) {
    if let Some(open) = file.as_file() {
        let (start, length) = part.map_or((0, None), |part| (part.start, NonZeroU64::new(part.end - part.start)));
        // Only advice: where it is not taken, the read is of the page cache.
        let _ = fadvise(open, start, length, Advice::DontNeed);
    }
}
