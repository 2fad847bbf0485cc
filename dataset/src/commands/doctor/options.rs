//! What is measured, and the loader with these settings.

use std::sync::Arc;

use crate::dataset::Dataset;
use crate::loader::{Loader, LoaderBuilder, TextOptions};
use crate::transform::Transform;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// The transform of the loader.
    pub transform: Transform,
    /// Records of a batch.
    pub batch_size: usize,
    /// Threads of the loader.
    pub threads: usize,
    /// Seconds of each measurement.
    pub seconds: f64,
}

/// The loader of a run with these options, with masked reports where there are some.
pub(super) fn loader(dataset: &Arc<Dataset>, rows: Vec<u32>, options: &Options) -> LoaderBuilder {
    let mut builder = Loader::builder(dataset)
        .batch_size(options.batch_size.min(rows.len()))
        .rows(rows)
        .transform(options.transform.clone())
        .threads(options.threads);
    if dataset.has_tokenizer() {
        builder = builder.text(TextOptions { tokens: dataset.manifest().text.max_tokens, mask_ratio: 0.5 });
    }
    builder
}
