//! Configuration of a pre-training run.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::{MAX_BATCH, MEAN, PRESETS, RANDOM, RunConfig, STD, check_data, check_most, check_rates};
use crate::model::bert::BertConfig;
use crate::model::mae_decoder::DecoderConfig;
use crate::model::mrm::{MrmConfig, ReportLoss};
use crate::model::vit::VitConfig;

/// Largest number of epochs.
pub const MAX_EPOCHS: f64 = 1e6;

/// How pre-training sees its data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainData {
    /// Tokens of a report, `[CLS]` included.
    pub tokens: i64,
    /// Share of a report's words that is hidden.
    pub report_mask_ratio: f64,
    /// Smallest share of the area that RandomResizedCrop takes.
    pub crop_scale: f64,
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Mean and standard deviation that pixels are normalized with, 0..1.
    pub mean: f64,
    pub std: f64,
}

/// How pre-training optimizes: AdamW, warm-up, half-cosine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainOptimizer {
    /// Rate for an effective batch of 256; it scales with the batch.
    pub base_rate: f64,
    pub weight_decay: f64,
    pub epochs: f64,
    pub warmup_epochs: f64,
    /// Updates in place of epochs; 0: by epochs. The warm-up keeps its share.
    pub steps: u64,
    /// Records of a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of an update.
    pub accumulation: usize,
    /// Largest gradient norm; 0: no clipping.
    pub clip: f64,
}

/// Configuration of a pre-training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    pub preset: String,
    /// What the run is trained on: the dataset, and the split whose training subset it sees (empty: all of it).
    #[serde(default)]
    pub dataset: String,
    #[serde(default)]
    pub split: String,
    /// Digest of who is in which of its subsets.
    #[serde(default)]
    pub split_members: String,
    /// Digest of the tokenizer whose words it restores.
    #[serde(default)]
    pub tokenizer: String,
    /// Where the weights came from; `random` for start values.
    #[serde(default)]
    pub init: String,
    pub model: MrmConfig,
    pub data: PretrainData,
    pub optimizer: PretrainOptimizer,
    pub run: RunConfig,
}

/// The pre-training defaults of a preset. Vocabulary 0 stands for the dataset's.
pub fn pretrain_preset(preset: &str) -> Result<PretrainConfig> {
    let mut config = PretrainConfig {
        preset: preset.to_owned(),
        dataset: String::new(),
        split: String::new(),
        split_members: String::new(),
        tokenizer: String::new(),
        init: RANDOM.to_owned(),
        model: MrmConfig { bert: BertConfig { vocab_size: 0, ..BertConfig::default() }, ..MrmConfig::default() },
        data: PretrainData { tokens: 100, report_mask_ratio: 0.5, crop_scale: 0.2, flip: 0.5, mean: MEAN, std: STD },
        optimizer: PretrainOptimizer {
            base_rate: 1.5e-4,
            weight_decay: 0.05,
            epochs: 200.0,
            warmup_epochs: 40.0,
            steps: 0,
            batch_size: 32,
            accumulation: 8,
            clip: 0.0,
        },
        run: RunConfig::default(),
    };
    match preset {
        "mrm-vit-b16" => {}
        "mrm-vit-s16" => {
            config.model.vit = VitConfig { embed_dim: 384, num_heads: 6, ..VitConfig::default() };
            config.model.decoder = DecoderConfig { embed_dim: 384, ..DecoderConfig::default() };
        }
        "mrm-vit-tiny" => {
            config.model.vit = VitConfig {
                image_size: 64,
                patch_size: 8,
                embed_dim: 128,
                num_layers: 4,
                num_heads: 4,
                ..VitConfig::default()
            };
            config.model.decoder =
                DecoderConfig { embed_dim: 64, num_layers: 1, num_heads: 4, ..DecoderConfig::default() };
            config.model.bert = BertConfig {
                vocab_size: 0,
                embed_dim: 96,
                num_layers: 2,
                num_heads: 4,
                intermediate: 384,
                max_positions: 64,
                ..BertConfig::default()
            };
            // A few minutes on two cores are some 80,000 images. Within them the report teaches more than the patches do,
            // and the more so the less of it can be guessed from its own visible words; a flip would make its "left" wrong.
            config.model.mask_ratio = 0.5;
            config.model.report_loss = ReportLoss::Masked;
            config.data =
                PretrainData { tokens: 64, report_mask_ratio: 0.8, crop_scale: 0.7, flip: 0.0, ..config.data };
            config.optimizer = PretrainOptimizer {
                base_rate: 1.2e-2,
                steps: 2_600,
                batch_size: 32,
                accumulation: 1,
                clip: 1.0,
                ..config.optimizer
            };
        }
        other => bail!("no preset `{other}`; there are: {}", PRESETS.join(", ")),
    }
    Ok(config)
}

impl PretrainConfig {
    /// Counts in epochs, in place of updates; the warm-up keeps its share.
    pub fn take_epochs(&mut self, epochs: f64) {
        let optimizer = &mut self.optimizer;
        optimizer.warmup_epochs *= epochs / optimizer.epochs;
        (optimizer.epochs, optimizer.steps) = (epochs, 0);
    }

    /// An error if no run has these settings.
    pub fn validate(&self) -> Result<()> {
        self.run.validate()?;
        self.model.validate()?;
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
        check_rates(&[optimizer.base_rate, optimizer.weight_decay, optimizer.clip])?;
        if self.model.reconstructs_report() && !(2..=self.model.bert.max_positions).contains(&data.tokens) {
            let most = self.model.bert.max_positions;
            bail!("data.tokens: must be from 2 to the report decoder's {most} positions, is {}", data.tokens);
        }
        if !(0.0..=1.0).contains(&data.report_mask_ratio) {
            bail!("data.report_mask_ratio: must be from 0 to 1, is {}", data.report_mask_ratio);
        }
        check_data(data.crop_scale, data.flip, data.mean, data.std)
    }
}
