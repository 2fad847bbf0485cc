//! What a pretrained model reconstructs: images side by side, and the report's tokens.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use dataset::loader::TextOptions;
use dataset::loader::masking;
use dataset::store::files;
use dataset::{Dataset, Loader};
use image::{GrayImage, Luma};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::{Pretraining, still_transform};
use crate::config::PretrainConfig;
use crate::model::mrm::{Reconstruct, ReportBatch};
use crate::task::objective::{Objective, images, tokens};
use crate::task::{DataSource, RowChoice};
use crate::train::distributed::Compute;
use crate::train::run_dir;
use crate::weights::load_tensors;
use crate::weights::source::read_weights;

/// One token of a report, and the model's reconstruction of it where it was masked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// The piece before masking; pieces that continue a word begin with `##`.
    pub token: String,
    /// The model's piece, where the token was masked.
    #[serde(alias = "restored")]
    pub reconstructed: Option<String>,
    /// The probability that the model gives to the true piece, where it was masked.
    pub probability: Option<f64>,
}

/// One reconstructed record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReconstructedRecord {
    /// Identifier of the record.
    pub record_id: String,
    /// The tokens up to the padding; empty without a report.
    #[serde(rename = "words")]
    pub tokens: Vec<Token>,
}

/// What is reconstructed, and with which masks.
pub struct Reconstruction<'a> {
    /// The dataset, with a split where the records come from its test subset.
    pub source: &'a DataSource,
    /// A pre-training run, or a file in one.
    pub weights: &'a Path,
    /// The records.
    pub rows: &'a RowChoice,
    /// Share of the report's tokens to mask; none: that of the run.
    pub report_mask_ratio: Option<f64>,
    /// Where the model computes.
    pub device: Device,
    /// Decides records and masks.
    pub seed: u64,
    /// The image to write; none: `reconstruction.png` in the run.
    pub out: Option<PathBuf>,
}

/// Kinds of runs that have the decoders of masked record modeling, if they reconstruct anything.
const RECONSTRUCTING: [&str; 3] = ["pretrain", "contrast", "views"];

/// Pixels between two images.
const GAP: u32 = 4;
/// Shade of masked patches.
const MASKED: f32 = 0.5;

/// Reconstructs records; writes the image, and the tokens as JSON beside it. Returns the tokens and the path, in words.
///
/// # Errors
/// When the weights are not those of a pre-training run, or the dataset has another tokenizer.
pub fn reconstruct(request: &Reconstruction) -> Result<String> {
    let run = run_dir::run_of(request.weights)?;
    let rows = request.source.chosen_rows(request.rows, request.seed)?;
    let (canvas, records) = reconstructed(&run, request, &rows)?;
    let out = request.out.clone().unwrap_or_else(|| run.join("reconstruction.png"));
    canvas.save(&out).with_context(|| format!("cannot write {}", out.display()))?;
    files::write_json(&out.with_extension("json"), &records)?;
    let with_report: Vec<String> = (records.iter().filter(|record| !record.tokens.is_empty()))
        .map(|record| format!("{}: {}\n", record.record_id, line(&record.tokens)))
        .collect();
    let heading = if with_report.is_empty() { "" } else { "masked tokens: [correct], [true token→reconstruction]\n" };
    Ok(format!("{heading}{}written to {}", with_report.concat(), out.display()))
}

/// Reconstructs some rows and draws a line each: masked, reconstructed, original.
///
/// Reconstructed images keep the patches that the encoder saw. The loss removes mean and spread of a patch; here they come
/// from the original.
fn reconstructed(run: &Path, request: &Reconstruction, rows: &[u32]) -> Result<(GrayImage, Vec<ReconstructedRecord>)> {
    let Reconstruction { source, weights, report_mask_ratio, device, seed, .. } = *request;
    let file = run_dir::load_config(run)?;
    ensure!(
        RECONSTRUCTING.contains(&file.kind()),
        "{} is a run of kind {}; reconstruct takes a run of masked record modeling (pretrain --objective mrm)",
        run.display(),
        file.kind()
    );
    let config: PretrainConfig = file.read()?;
    ensure!(
        config.model.reconstruct != Reconstruct::None,
        "{} is a run of {}, which reconstructs nothing (model.reconstruct)",
        run.display(),
        config.objective
    );
    config.validate().with_context(|| run_dir::config_path(run).display().to_string())?;
    let dataset = &source.dataset;
    ensure!(
        !config.model.reconstructs_report() || config.tokenizer == source.tokenizer(),
        "{} was trained with another tokenizer than this dataset's: ingest it with the --tokenizer of the run's dataset",
        run.display()
    );
    let objective = Pretraining::new(&config.model, &Compute::on(device))?;
    let loaded = load_tensors(objective.store(), &read_weights(weights)?)?;
    ensure!(loaded.is_complete(), "the weights do not fit the run's configuration: {loaded}");
    let transform = still_transform(&config);
    let (mean, std) = (f64::from(transform.mean), f64::from(transform.std));
    let loader = Loader::builder(dataset).rows(rows.to_vec()).batch_size(rows.len()).shuffle(false).seed(seed);
    let mut builder = loader.transform(transform);
    let with_text = config.model.reconstructs_report();
    if with_text {
        builder = builder.text(TextOptions {
            tokens: config.data.tokens as usize,
            mask_ratio: report_mask_ratio.unwrap_or(config.data.report_mask_ratio),
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
            weights: None,
            masked: None,
            padded: None,
        };
        model.forward(&image, Some(report), None, false)?
    } else {
        model.forward(&image, None, None, false)?
    };

    let mask = model.mask_image(&output.mask)?; // [B, 1, S, S]
    let shade = |x: &Tensor| (x * std + mean).clamp(0.0, 1.0);
    let original = shade(&image);
    let mut columns = vec![&original * (1.0 - &mask) + &mask * f64::from(MASKED)];
    if let Some(pred) = &output.pred {
        let pixels = shade(&model.reconstructed_image(pred, &image)?).mean_dim([1_i64].as_slice(), true, Kind::Float);
        columns.push(&pixels * &mask + &original * (1.0 - &mask));
    }
    columns.push(original);
    let canvas = draw(&columns, rows.len() as u32, batch.size() as u32)?;

    let all_tokens = match &output.mlm_logits {
        None => vec![Vec::new(); rows.len()],
        Some(logits) => report_tokens(dataset, &batch, logits)?,
    };
    let ids = dataset.texts("record_id")?;
    let record = |(&row, tokens): (&u32, Vec<Token>)| ReconstructedRecord {
        record_id: ids[row as usize].clone().unwrap_or_default(),
        tokens,
    };
    let records = batch.rows().iter().zip(all_tokens).map(record).collect();
    Ok((canvas, records))
}

/// Draws images `[B, 1, S, S]` in columns, one record a line.
fn draw(columns: &[Tensor], lines: u32, size: u32) -> Result<GrayImage> {
    let step = size + GAP;
    let mut canvas = GrayImage::from_pixel(columns.len() as u32 * step - GAP, lines * step - GAP, Luma([255]));
    for (column, images) in columns.iter().enumerate() {
        let flat = (images * 255.0).round().to_kind(Kind::Uint8).to_device(Device::Cpu).flatten(0, -1);
        let values = Vec::<u8>::try_from(&flat)?;
        for (index, &value) in values.iter().enumerate() {
            let index = index as u32;
            let (line, y, x) = (index / (size * size), index / size % size, index % size);
            canvas.put_pixel(column as u32 * step + x, line * step + y, Luma([value]));
        }
    }
    Ok(canvas)
}

/// The tokens of each record, with the most probable piece where one was masked. `logits` is `[B, L, V]`.
fn report_tokens(dataset: &Dataset, batch: &dataset::Batch, logits: &Tensor) -> Result<Vec<Vec<Token>>> {
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
                    Token {
                        token: piece(target),
                        reconstructed: masked.then(|| piece(best.int64_value(&at))),
                        probability: masked.then(|| probabilities.double_value(&[at[0], at[1], target])),
                    }
                })
                .collect()
        })
        .collect())
}

/// A report in one line: masked pieces as `[true→reconstruction]`, or `[true]` where they agree.
fn line(tokens: &[Token]) -> String {
    let shown = |token: &Token| match &token.reconstructed {
        None => token.token.clone(),
        Some(piece) if *piece == token.token => format!("[{piece}]"),
        Some(piece) => format!("[{}→{piece}]", token.token),
    };
    tokens.iter().skip(1).map(shown).collect::<Vec<_>>().join(" ").replace(" ##", "")
}
