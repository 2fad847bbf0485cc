//! Configuration of a pre-training run.

use anyhow::{Result, bail};
use dataset::transform::{Augmentation, Window, WindowJitter};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{
    MAX_BATCH, Provenance, RunConfig, check_data, check_most, check_rates, check_windows, merge, preset_error,
};
use crate::model::mrm::{MrmConfig, Reconstruct};

/// Largest number of views in a sample.
const MAX_VIEWS: usize = 16;

/// Largest number of epochs.
pub const MAX_EPOCHS: f64 = 1e6;

/// Section `[data]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainData {
    /// Tokens of a report, `[CLS]` included.
    pub tokens: i64,
    /// Share of a report's tokens that is masked.
    pub report_mask_ratio: f64,
    /// Smallest share of the area that RandomResizedCrop takes.
    pub crop_scale: f64,
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Mean of the pixels, 0 to 1.
    pub mean: f64,
    /// Standard deviation of the pixels, 0 to 1.
    pub std: f64,
    /// Augmentations of the cropped image, in their order.
    #[serde(default)]
    pub augment: Vec<Augmentation>,
    /// Views of a study in a sample, drawn anew in each epoch: 1 for a model of single images, more for one with
    /// [`views`](MrmConfig::views); 0: a sample is a record.
    #[serde(default)]
    pub studies: usize,
    /// JSON file with the weights of tokens in the report loss; empty: all count alike.
    #[serde(default)]
    pub token_weights: String,
    /// Digest of that file.
    #[serde(default)]
    pub token_weights_digest: String,
    /// The window of images of 16 bits: `stored`, `full`, or `CENTER,WIDTH`.
    #[serde(default)]
    pub window: Window,
    /// Random change of the window in training: of the center in widths, of the width as a share of it.
    #[serde(default)]
    pub window_jitter: WindowJitter,
}

/// Section `[optimizer]`: AdamW, linear warm-up, half a cosine down to zero.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainOptimizer {
    /// Learning rate for an effective batch of 256; it scales with the batch.
    pub base_lr: f64,
    /// Weight decay; biases and norms have none.
    pub weight_decay: f64,
    /// Length of the run in epochs.
    pub epochs: f64,
    /// Length of the warm-up in epochs.
    pub warmup_epochs: f64,
    /// Steps in place of epochs; 0: by epochs. The warm-up keeps its share.
    pub steps: u64,
    /// Records of a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of a step.
    pub accumulation: usize,
    /// Largest gradient norm; 0: no clipping.
    pub clip: f64,
}

/// Configuration of a pre-training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PretrainConfig {
    /// Name of the preset.
    pub preset: String,
    /// What the run is trained on: the dataset, and the split whose training subset it sees (empty: all records).
    #[serde(flatten)]
    pub provenance: Provenance,
    /// The objective as `--objective` names it; empty for masked record modeling.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub objective: String,
    /// Digest of the tokenizer whose tokens it reconstructs.
    #[serde(default)]
    pub tokenizer: String,
    /// Encoder and decoders.
    pub model: MrmConfig,
    /// How images and reports are read.
    pub data: PretrainData,
    /// How the model is trained.
    pub optimizer: PretrainOptimizer,
    /// What all kinds of runs have.
    pub run: RunConfig,
}

const BASE: &str = include_str!("presets/pretrain/mrm-vit-b16.toml");
const SMALL: &str = include_str!("presets/pretrain/mrm-vit-s16.toml");
const TINY: &str = include_str!("presets/pretrain/mrm-vit-tiny.toml");

/// Objectives beside masked record modeling on the same model: their names, and what they change in a preset.
const OBJECTIVES: [(&str, &str); 6] = [
    ("clip", include_str!("presets/objectives/clip.toml")),
    ("siglip", include_str!("presets/objectives/siglip.toml")),
    ("maco", include_str!("presets/objectives/maco.toml")),
    ("mrm-clip", include_str!("presets/objectives/mrm-clip.toml")),
    ("mvmae", include_str!("presets/objectives/mvmae.toml")),
    ("mvmae-v2t", include_str!("presets/objectives/mvmae-v2t.toml")),
];

/// The pre-training defaults of a preset. A vocabulary of 0 means that of the dataset.
///
/// # Errors
/// When there is no such preset.
pub fn pretrain_preset(preset: &str) -> Result<PretrainConfig> {
    Ok(Value::Table(preset_table(preset)?).try_into()?)
}

/// The defaults of a preset for an objective that contrasts images with reports, or that sees several views of a study. Of
/// `mrm-vit-tiny` the recipe stays as it is: the model and its samples are what differs.
///
/// # Errors
/// When there is no such preset or objective.
pub fn objective_preset(preset: &str, objective: &str) -> Result<PretrainConfig> {
    let mut table = preset_table(preset)?;
    let Some((name, changes)) = OBJECTIVES.iter().find(|(name, _)| *name == objective) else {
        let names: Vec<&str> = OBJECTIVES.iter().map(|(name, _)| *name).collect();
        bail!("no objective `{objective}`; there are: {}", names.join(", "))
    };
    let mut changes: Table = changes.parse()?;
    if preset == "mrm-vit-tiny" {
        if let Some(data) = changes.get_mut("data").and_then(Value::as_table_mut) {
            data.retain(|key, _| key == "studies");
        }
        changes.remove("optimizer");
    }
    merge(&mut table, changes);
    table.insert("objective".to_owned(), (*name).into());
    Ok(Value::Table(table).try_into()?)
}

fn preset_table(preset: &str) -> Result<Table> {
    let mut table: Table = BASE.parse()?;
    match preset {
        "mrm-vit-b16" => {}
        "mrm-vit-s16" => merge(&mut table, SMALL.parse()?),
        "mrm-vit-tiny" => merge(&mut table, TINY.parse()?),
        other => return Err(preset_error(other)),
    }
    table.insert("preset".to_owned(), preset.into());
    table.insert("run".to_owned(), Value::try_from(RunConfig::default())?);
    Ok(table)
}

impl PretrainConfig {
    /// Sets the length in epochs, in place of steps; the warm-up keeps its share.
    pub fn take_epochs(&mut self, epochs: f64) {
        let optimizer = &mut self.optimizer;
        optimizer.warmup_epochs *= epochs / optimizer.epochs;
        (optimizer.epochs, optimizer.steps) = (epochs, 0);
    }

    /// An error if no run has these settings.
    pub fn validate(&self) -> Result<()> {
        self.run.validate()?;
        self.model.validate()?;
        if self.model.reconstruct == Reconstruct::None && self.model.contrast.is_none() {
            bail!(
                "model.reconstruct: `none` leaves nothing to learn; it is for objectives with a contrast, such as clip"
            );
        }
        let (data, optimizer) = (&self.data, &self.optimizer);
        if optimizer.batch_size == 0 || optimizer.accumulation == 0 {
            bail!("optimizer.batch_size and optimizer.accumulation: must be at least 1");
        }
        check_most("optimizer.batch_size", optimizer.batch_size, MAX_BATCH)?;
        check_most("optimizer.accumulation", optimizer.accumulation, MAX_BATCH)?;
        if optimizer.epochs > MAX_EPOCHS {
            bail!("optimizer.epochs: must be at most {MAX_EPOCHS}, is {:?}", optimizer.epochs);
        }
        if !(optimizer.epochs > 0.0 && (0.0..optimizer.epochs).contains(&optimizer.warmup_epochs)) {
            bail!(
                "optimizer.warmup_epochs is {}, optimizer.epochs {}: the warm-up must be the shorter one",
                optimizer.warmup_epochs,
                optimizer.epochs
            );
        }
        check_rates(&[optimizer.base_lr, optimizer.weight_decay, optimizer.clip])?;
        if self.model.reads_reports() && !(2..=self.model.bert.max_positions).contains(&data.tokens) {
            let most = self.model.bert.max_positions;
            bail!("data.tokens: must be from 2 to the {most} positions of model.bert, is {}", data.tokens);
        }
        if !(0.0..=1.0).contains(&data.report_mask_ratio) {
            bail!("data.report_mask_ratio: must be from 0 to 1, is {}", data.report_mask_ratio);
        }
        match (&self.model.views, data.studies) {
            (None, 2..) => bail!(
                "data.studies: this objective takes one view of a study (1) or single records (0), not {}; --objective mvmae or \
                 mvmae-v2t takes more",
                data.studies
            ),
            (Some(_), 0 | 1) => bail!("data.studies: a model of several views needs at least 2, not {}", data.studies),
            (_, studies) => check_most("data.studies", studies, MAX_VIEWS)?,
        }
        if !data.token_weights.is_empty() {
            if !self.model.reconstructs_report() {
                bail!("data.token_weights: the model does not reconstruct reports (model.reconstruct)");
            }
            if self.run.cuda_graph {
                bail!("data.token_weights: not with run.cuda_graph, whose passes have no weights");
            }
        }
        check_windows(data.window, data.window_jitter)?;
        check_data(data.crop_scale, data.flip, data.mean, data.std, &data.augment)
    }
}
