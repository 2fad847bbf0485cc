//! Prints a digest of each batch, then the state of the loader: what tests compare loaders in other languages with.
//!
//! `batch_digests DATASET SETTINGS`, where SETTINGS is a JSON object: `split`, `subset`, `ratio`, `batch_size`, `seed`,
//! `threads`, `rank`, `world_size`, `transform`, `tokens`, `mask_ratio`, `state`, `batches`; for a mixture `others` (further
//! datasets) and `weights`; for studies `studies` (views, whether they are drawn, views of the study before).

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result};
use dataset::loader::{EpochLength, MixturePart, StudyOptions, TextOptions, ViewChoice, Weights};
use dataset::transform::Transform;
use dataset::{Batch, Dataset, Loader, LoaderState, Split, Subset};
use serde::Deserialize;
use sha2::{Digest, Sha256};

#[derive(Deserialize)]
struct Settings {
    split: Option<String>,
    subset: Option<Subset>,
    ratio: Option<f64>,
    batch_size: usize,
    seed: u64,
    threads: usize,
    rank: usize,
    world_size: usize,
    transform: Transform,
    tokens: Option<usize>,
    mask_ratio: f64,
    state: LoaderState,
    batches: u64,
    #[serde(default)]
    others: Vec<String>,
    #[serde(default)]
    weights: Vec<f64>,
    studies: Option<(usize, bool, usize)>,
}

fn main() -> Result<()> {
    let usage = "usage: batch_digests DATASET SETTINGS";
    let mut arguments = std::env::args().skip(1);
    let dataset = Arc::new(Dataset::open(arguments.next().context(usage)?)?);
    let settings: Settings = serde_json::from_str(&arguments.next().context(usage)?)?;
    let others = settings.others.iter().map(|other| Ok(MixturePart::new(&Arc::new(Dataset::open(other)?))));
    let others = others.collect::<Result<Vec<_>>>()?;
    let builder = if others.is_empty() {
        Loader::builder(&dataset)
    } else {
        let parts = [MixturePart::new(&dataset)].into_iter().chain(others).collect();
        Loader::mixture(parts, Weights::Shares(settings.weights.clone()), EpochLength::Sum)
    };
    let mut builder = builder
        .batch_size(settings.batch_size)
        .seed(settings.seed)
        .threads(settings.threads)
        .distributed(settings.rank, settings.world_size)
        .transform(settings.transform)
        .masks(true)
        .boxes(true)
        .resume(settings.state);
    if let Some(name) = &settings.split {
        let split = Split::load(&dataset, name)?;
        builder = match settings.ratio {
            Some(ratio) => builder.ratio(&split, ratio)?,
            None => builder.subset(&split, settings.subset.context("a split needs a subset")?),
        };
    }
    if let Some((views, is_random, prior)) = settings.studies {
        let choose = if is_random { ViewChoice::Random } else { ViewChoice::First };
        builder = builder.studies(StudyOptions { views, choose, prior });
    }
    if let Some(tokens) = settings.tokens {
        builder = builder.text(TextOptions { tokens, mask_ratio: settings.mask_ratio });
    }
    let mut loader = builder.build()?;
    let mut out = std::io::stdout();
    for _ in 0..settings.batches {
        let batch = loader.next_batch()?;
        writeln!(out, "{} {} {}", batch.epoch, batch.number, digest(&batch))?;
    }
    writeln!(out, "{}", serde_json::to_string(&loader.state())?)?;
    Ok(())
}

/// SHA-256 of the arrays of a batch, in the order of the bytes of this machine.
fn digest(batch: &Batch) -> String {
    let mut digest = Sha256::new();
    batch.rows().iter().for_each(|&row| digest.update(i64::from(row).to_ne_bytes()));
    batch.view_rows().iter().for_each(|&row| digest.update(row.to_ne_bytes()));
    batch.images().iter().chain(batch.labels()).for_each(|value| digest.update(value.to_ne_bytes()));
    let texts = [batch.token_ids(), batch.target_ids(), batch.attention_mask()];
    texts.iter().flat_map(|ids| ids.iter()).for_each(|id| digest.update(id.to_ne_bytes()));
    digest.update(batch.masks());
    for placed in batch.boxes() {
        digest.update((placed.record as i64).to_ne_bytes());
        digest.update(placed.label.as_bytes());
        [placed.x, placed.y, placed.width, placed.height].iter().for_each(|edge| digest.update(edge.to_ne_bytes()));
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
