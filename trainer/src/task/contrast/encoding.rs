//! Vectors of the images and reports of a dataset, by a trained model.

use std::collections::HashMap;

use anyhow::{Context, Result};
use dataset::Loader;
use dataset::loader::TextOptions;
use dataset::tokenizer::ReportTokenizer;
use tch::{Device, Kind, Tensor};

use super::Contrasting;
use crate::config::PretrainConfig;
use crate::task::DataSource;
use crate::task::objective::{Objective, images, loader_for};
use crate::task::pretrain::still_transform;

/// Records of a batch without gradients.
const BATCH: usize = 64;

/// Token ids that are padding.
const PADDING: i64 = 0;

/// The vectors of some records and of their reports.
pub(super) struct Encoded {
    /// Rows of the records that have an image, N of them.
    pub rows: Vec<u32>,
    /// Vectors of their images, `[N, P]`, on the CPU.
    pub images: Tensor,
    /// The report of each image, by its number; none where the record has none.
    pub report_of: Vec<Option<usize>>,
    /// Vectors of the distinct reports, `[R, P]`, on the CPU.
    pub reports: Tensor,
}

/// Encodes the images of some rows, and their distinct reports: those whose token ids, cut to the length of training, differ.
///
/// # Errors
/// When a record cannot be read, or torch fails.
pub(super) fn encode(
    objective: &Contrasting,
    config: &PretrainConfig,
    source: &DataSource,
    rows: &[u32],
) -> Result<Encoded> {
    let device = objective.store().device();
    let loader = loader_for(device, Loader::builder(&source.dataset))
        .rows(rows.to_vec())
        .batch_size(BATCH)
        .shuffle(false)
        .transform(still_transform(config))
        .text(TextOptions { tokens: config.data.tokens as usize, mask_ratio: 0.0 })
        .build()?;
    let (mut kept, mut vectors, mut report_of) = (Vec::new(), Vec::new(), Vec::new());
    let mut numbers: HashMap<Vec<i64>, usize> = HashMap::new();
    let mut reports: Vec<Vec<i64>> = Vec::new();
    let model = objective.model();
    for batch in loader {
        let batch = batch?; // must exist until its vectors are copied: a CUDA device reads its memory meanwhile
        let image = images(&batch, device);
        let encoded = tch::no_grad(|| model.image_vectors(&model.mrm().encode_all(&image)?))?;
        let with_image: Vec<i64> =
            (0..).zip(batch.has_image()).filter(|(_, has)| **has > 0).map(|(at, _)| at).collect();
        let list = Tensor::from_slice(&with_image).to_device(device);
        vectors.push(encoded.index_select(0, &list).to_device(Device::Cpu));
        let with_report = batch.with_report();
        for at in with_image.into_iter().map(|at| at as usize) {
            let ids = &batch.target_ids()[at * batch.tokens()..(at + 1) * batch.tokens()];
            kept.push(batch.rows()[at]);
            report_of.push(with_report.contains(&at).then(|| {
                *numbers.entry(ids.to_vec()).or_insert_with(|| {
                    reports.push(ids.to_vec());
                    reports.len() - 1
                })
            }));
        }
    }
    Ok(Encoded {
        rows: kept,
        images: joined(&vectors, objective)?,
        report_of,
        reports: encode_tokens(objective, &reports)?,
    })
}

/// Vectors of texts, `[N, P]`, on the CPU.
///
/// # Errors
/// When the dataset has no tokenizer, a text cannot be tokenized, or torch fails.
pub(super) fn encode_texts(
    objective: &Contrasting,
    config: &PretrainConfig,
    source: &DataSource,
    texts: &[String],
) -> Result<Tensor> {
    let tokenizer =
        ReportTokenizer::of(&source.dataset)?.context("this dataset has no tokenizer to read prompts with")?;
    let ids = |text: &String| -> Result<Vec<i64>> {
        let ids = tokenizer.token_ids(text, config.data.tokens as usize)?;
        Ok(ids.into_iter().map(i64::from).collect())
    };
    encode_tokens(objective, &texts.iter().map(ids).collect::<Result<Vec<_>>>()?)
}

/// Vectors of token ids, padded or not, `[N, P]`.
fn encode_tokens(objective: &Contrasting, texts: &[Vec<i64>]) -> Result<Tensor> {
    let device = objective.store().device();
    let mut vectors = Vec::new();
    for texts in texts.chunks(BATCH) {
        let length = |ids: &Vec<i64>| ids.iter().rposition(|&id| id != PADDING).map_or(1, |last| last + 1);
        let longest = texts.iter().map(length).max().unwrap_or(1);
        let padded = texts.iter().flat_map(|ids| (0..longest).map(|at| ids.get(at).copied().unwrap_or(PADDING)));
        let padded: Vec<i64> = padded.collect();
        let ids = Tensor::from_slice(&padded).view([texts.len() as i64, longest as i64]).to_device(device);
        let attention_mask = ids.ne(PADDING).to_kind(Kind::Int64);
        let encoded = tch::no_grad(|| objective.model().text_vectors(&ids, &attention_mask, false))?;
        vectors.push(encoded.to_device(Device::Cpu));
    }
    joined(&vectors, objective)
}

/// The rows of all batches; none of the right length without a batch.
fn joined(vectors: &[Tensor], objective: &Contrasting) -> Result<Tensor> {
    let length = objective.model().vector_length();
    if vectors.is_empty() {
        Ok(Tensor::f_zeros([0, length], tch::kind::FLOAT_CPU)?)
    } else {
        Ok(Tensor::f_cat(vectors, 0)?)
    }
}
