//! How fine-tuning treats the encoder, beside the head: the same keys for all kinds that have one.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// Keys of `[optimizer]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EncoderTraining {
    /// Train the head alone, on features of a frozen encoder, which computes as in an evaluation. Of a classifier the linear
    /// layer alone is trained: a linear probe.
    #[serde(default)]
    pub freeze_encoder: bool,
    /// Factor on the learning rate of the encoder: of all parameters but those of heads, necks and the norm before a linear
    /// head. BenchX calls it a discriminative learning rate. It multiplies layer decay.
    #[serde(default = "one")]
    pub encoder_lr_scale: f64,
}

/// Default of [`EncoderTraining::encoder_lr_scale`].
const fn one() -> f64 {
    1.0
}

impl Default for EncoderTraining {
    fn default() -> Self {
        Self { freeze_encoder: false, encoder_lr_scale: one() }
    }
}

impl EncoderTraining {
    /// An error if no run trains an encoder so.
    pub fn validate(self) -> Result<()> {
        let scale = self.encoder_lr_scale;
        if scale.is_finite() && scale > 0.0 {
            return Ok(());
        }
        bail!(
            "optimizer.encoder_lr_scale: must be above 0 and finite, is {scale}; optimizer.freeze_encoder=true trains the head \
             alone"
        )
    }
}
