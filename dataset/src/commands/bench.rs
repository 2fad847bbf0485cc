//! Measures how fast images and batches are read on this machine.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dataset::Dataset;
use crate::error::{Error, Result, panic_text};
use crate::loader::{LoaderBuilder, TextOptions};
use crate::random::Stream;

/// Number of images, seconds to the first result, seconds in all.
pub type Measured = (u64, f64, f64);

/// Reads random images in several threads for so many seconds.
///
/// # Errors
/// When the dataset is empty, or an image cannot be read.
pub fn random_reads(dataset: &Arc<Dataset>, threads: usize, seconds: f64) -> Result<Measured> {
    let rows = dataset.len() as u64;
    if rows == 0 {
        return Err(Error::Invalid("the dataset is empty".to_owned()));
    }
    let began = Instant::now();
    let work = |thread: usize| -> Result<(u64, Duration)> {
        let (mut random, mut pixels) = (Stream::new(&[thread as u64]), Vec::new());
        let (mut images, mut first) = (0, Duration::ZERO);
        while began.elapsed().as_secs_f64() < seconds {
            dataset.image_into(random.below(rows) as usize, &mut pixels)?;
            if images == 0 {
                first = began.elapsed();
            }
            images += 1;
        }
        Ok((images, first))
    };
    let done: Vec<Result<(u64, Duration)>> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|thread| scope.spawn(move || work(thread))).collect();
        let lost = |panic: Box<dyn Any + Send>| {
            Err(Error::Invalid(format!("a thread panicked: {}", panic_text(panic.as_ref()))))
        };
        handles.into_iter().map(|handle| handle.join().unwrap_or_else(lost)).collect()
    });
    let done = done.into_iter().collect::<Result<Vec<_>>>()?;
    let first = done.iter().map(|(_, first)| first.as_secs_f64()).fold(0.0, f64::max);
    Ok((done.iter().map(|(images, _)| images).sum(), first, began.elapsed().as_secs_f64()))
}

/// Loads batches of a loader with these settings for so many seconds, with masked reports where there are some; also returns
/// the number of samples of each dataset. The time to the first batch is measured from `opened`.
///
/// # Errors
/// When a batch cannot be loaded.
pub fn batches(
    datasets: &[Arc<Dataset>],
    mut builder: LoaderBuilder,
    seconds: f64,
    opened: Instant,
) -> Result<(Measured, Vec<u64>)> {
    if let Some(dataset) = datasets.iter().find(|dataset| dataset.has_tokenizer()) {
        builder = builder.text(TextOptions { tokens: dataset.manifest().text.max_tokens, mask_ratio: 0.5 });
    }
    let mut loader = builder.build()?;
    drop(loader.next_batch()?);
    let (first, began, mut images) = (opened.elapsed().as_secs_f64(), Instant::now(), 0);
    let mut by_dataset = vec![0; datasets.len()];
    while began.elapsed().as_secs_f64() < seconds {
        let batch = loader.next_batch()?;
        let has_image = if batch.view_mask().is_empty() { batch.has_image() } else { batch.view_mask() };
        images += has_image.iter().map(|&has| u64::from(has)).sum::<u64>();
        batch.sources().iter().for_each(|&source| by_dataset[usize::from(source)] += 1);
    }
    Ok(((images, first, began.elapsed().as_secs_f64()), by_dataset))
}
