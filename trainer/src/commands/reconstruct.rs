//! `trainer reconstruct`: what a pre-trained model restores, pictures side by side and the report's words.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dataset::loader::TextOptions;
use dataset::loader::masking;
use dataset::store::files;
use dataset::transform::{Crop, Transform};
use dataset::{Dataset, Loader};
use image::{GrayImage, Luma};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::pretrain::pretrain_transform;
use super::{DataSource, choose_rows};
use crate::config::PretrainConfig;
use crate::model::mrm::ReportBatch;
use crate::task::Pretraining;
use crate::task::objective::{Objective, images, tokens};
use crate::train::run_dir;
use crate::weights::load_tensors;
use crate::weights::source::read_weights;

/// One token of a report: what it was, and what the model makes of it where it was hidden.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Word {
    /// The piece before masking; pieces that continue a word begin with `##`.
    pub token: String,
    /// The model's piece, where the token was masked.
    pub restored: Option<String>,
    /// The probability that the model gives to the true piece, where it was masked.
    pub probability: Option<f64>,
}

/// One restored record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    pub record_id: String,
    /// The tokens up to the padding; empty without a report.
    pub words: Vec<Word>,
}

/// Pixels between two pictures.
const GAP: u32 = 4;
/// Shade of removed patches.
const REMOVED: f32 = 0.5;

/// Restores records and writes picture and words, `out` (`reconstruction.png` in the run) and the `.json` beside it;
/// prints the words.
///
/// `rows` says how many records, or names them, separated by commas.
pub fn reconstruct(
    source: &DataSource,
    weights: &Path,
    rows: &str,
    word_ratio: Option<f64>,
    device: Device,
    seed: u64,
    out: Option<PathBuf>,
) -> Result<()> {
    let run = run_dir::run_of(weights)?;
    let rows = choose_rows(source, rows, seed)?;
    let (canvas, restored) = restore(&run, weights, source, &rows, word_ratio, device, seed)?;
    let out = out.unwrap_or_else(|| run.join("reconstruction.png"));
    canvas.save(&out).with_context(|| format!("cannot write {}", out.display()))?;
    files::write_json(&out.with_extension("json"), &restored)?;
    if restored.iter().any(|record| !record.words.is_empty()) {
        dataset::cli_println!("hidden words: [restored as it was], [what it was→what came out]");
    }
    for record in restored.iter().filter(|record| !record.words.is_empty()) {
        dataset::cli_println!("{}: {}", record.record_id, line(&record.words));
    }
    dataset::cli_println!("written to {}", out.display());
    Ok(())
}

/// Restores some rows with weights of a run and draws a line each: masked, restored, original.
///
/// `word_ratio` is the share of words to hide, the run's own where it is none.
///
/// Restored pictures keep the patches that the encoder saw. Patches are restored up to the mean and spread that the
/// loss takes out, which come from the original.
fn restore(
    run: &Path,
    weights: &Path,
    source: &DataSource,
    rows: &[u32],
    word_ratio: Option<f64>,
    device: Device,
    seed: u64,
) -> Result<(GrayImage, Vec<Restored>)> {
    let config: PretrainConfig = run_dir::load_config(run)?;
    config.validate().with_context(|| run_dir::config_path(run).display().to_string())?;
    let dataset = &source.dataset;
    anyhow::ensure!(
        !config.model.reconstructs_report() || config.tokenizer == source.tokenizer(),
        "{} reads the words of another tokenizer than this dataset's: ingest it with the --tokenizer of the run's dataset",
        run.display()
    );
    let objective = Pretraining::new(&config.model, device)?;
    let loaded = load_tensors(objective.store(), &read_weights(weights)?)?;
    anyhow::ensure!(loaded.is_complete(), "the weights do not fit the run's configuration: {loaded}");
    let transform = pretrain_transform(&config);
    let mut builder = Loader::builder(dataset)
        .rows(rows.to_vec())
        .batch_size(rows.len())
        .shuffle(false)
        .seed(seed)
        .transform(Transform { crop: Crop::Center { shorter: transform.size }, flip: 0.0, ..transform });
    let with_text = config.model.reconstructs_report();
    if with_text {
        builder = builder.text(TextOptions {
            tokens: config.data.tokens as usize,
            mask_ratio: word_ratio.unwrap_or(config.data.report_mask_ratio),
        });
    }
    let batch = builder.build()?.next_batch()?;
    tch::manual_seed(seed as i64);
    let _guard = tch::no_grad_guard();
    let image = images(&batch, device);
    let model = objective.model();
    let output = if with_text {
        let ids = tokens(&batch, batch.token_ids(), device);
        let labels = tokens(&batch, batch.target_ids(), device);
        let attention_mask = tokens(&batch, batch.attention_mask(), device);
        let report = ReportBatch {
            ids: &ids,
            labels: &labels,
            attention_mask: &attention_mask,
            type_ids: None,
            // Every record, so that the logits are in the order of the records. No loss is read here.
            rows: None,
            masked: None,
        };
        model.forward(&image, Some(report), None, false)?
    } else {
        model.forward(&image, None, None, false)?
    };

    let mask = model.mask_image(&output.mask)?; // [B, 1, S, S]
    let shade = |x: &Tensor| (x * f64::from(transform.std) + f64::from(transform.mean)).clamp(0.0, 1.0);
    let original = shade(&image);
    let mut columns = vec![&original * (1.0 - &mask) + &mask * f64::from(REMOVED)];
    if let Some(pred) = &output.pred {
        let restored = shade(&model.reconstructed_image(pred, &image)?).mean_dim([1_i64].as_slice(), true, Kind::Float);
        columns.push(&restored * &mask + &original * (1.0 - &mask));
    }
    columns.push(original);
    let canvas = draw(&columns, rows.len() as u32, batch.size() as u32)?;

    let words = match &output.mlm_logits {
        None => vec![Vec::new(); rows.len()],
        Some(logits) => words(dataset, &batch, logits)?,
    };
    let ids = dataset.texts("record_id")?;
    let restored = batch
        .rows()
        .iter()
        .zip(words)
        .map(|(&row, words)| Restored { record_id: ids[row as usize].clone().unwrap_or_default(), words })
        .collect();
    Ok((canvas, restored))
}

/// Pictures `[B, 1, S, S]` in columns, one record a line.
fn draw(columns: &[Tensor], lines: u32, size: u32) -> Result<GrayImage> {
    let step = size + GAP;
    let mut canvas = GrayImage::from_pixel(columns.len() as u32 * step - GAP, lines * step - GAP, Luma([255]));
    for (column, pictures) in columns.iter().enumerate() {
        let flat = (pictures * 255.0).round().to_kind(Kind::Uint8).to_device(Device::Cpu).flatten(0, -1);
        let values = Vec::<u8>::try_from(&flat)?;
        for (index, &value) in values.iter().enumerate() {
            let index = index as u32;
            let (line, y, x) = (index / (size * size), index / size % size, index % size);
            canvas.put_pixel(column as u32 * step + x, line * step + y, Luma([value]));
        }
    }
    Ok(canvas)
}

fn words(dataset: &Dataset, batch: &dataset::Batch, logits: &Tensor) -> Result<Vec<Vec<Word>>> {
    let tokenizer = dataset.tokenizer()?.context("this dataset has no tokenizer")?;
    let piece = |id: i64| tokenizer.id_to_token(id as u32).unwrap_or_else(|| format!("<{id}>"));
    let probabilities = logits.softmax(-1, Kind::Float); // [B, L, V]
    let best = probabilities.argmax(-1, false).to_device(Device::Cpu); // [B, L]
    Ok((0..batch.len())
        .map(|record| {
            (0..batch.tokens())
                .map(|position| (position, record * batch.tokens() + position))
                .take_while(|(_, at)| batch.target_ids()[*at] != masking::PAD)
                .map(|(position, at)| {
                    let (target, seen) = (batch.target_ids()[at], batch.token_ids()[at]);
                    let masked = seen != target;
                    let at = [record as i64, position as i64];
                    Word {
                        token: piece(target),
                        restored: masked.then(|| piece(best.int64_value(&at))),
                        probability: masked.then(|| probabilities.double_value(&[at[0], at[1], target])),
                    }
                })
                .collect()
        })
        .collect())
}

/// A report in one line: masked pieces as `[true→restored]`, or `[true]` where they agree.
fn line(words: &[Word]) -> String {
    let shown = |word: &Word| match &word.restored {
        None => word.token.clone(),
        Some(restored) if *restored == word.token => format!("[{restored}]"),
        Some(restored) => format!("[{}→{restored}]", word.token),
    };
    words.iter().skip(1).map(shown).collect::<Vec<_>>().join(" ").replace(" ##", "")
}
