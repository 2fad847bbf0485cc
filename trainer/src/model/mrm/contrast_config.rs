//! Configuration of the contrast of images and reports, section `[model.contrast]`.

use serde::{Deserialize, Serialize};

use crate::error::{MAX_DIM, ModelError, check_size};

/// How pairs of images and reports are told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContrastLoss {
    /// InfoNCE in both directions (CLIP, Radford et al. 2021): a softmax over the reports for each image, and over the images
    /// for each report.
    #[default]
    Clip,
    /// A sigmoid for each pair (SigLIP, Zhai et al. 2023).
    Siglip,
}

/// Sizes and settings of the contrast.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContrastConfig {
    /// The loss.
    pub loss: ContrastLoss,
    /// Weight of the contrast in the total, beside `image_weight` and `report_weight`.
    pub weight: f64,
    /// Length of the vectors that are compared, `P`.
    pub projection: i64,
    /// The temperature at the beginning: similarities are divided by it.
    pub temperature: f64,
    /// Whether the temperature is learned.
    pub learn_temperature: bool,
    /// `siglip`: the bias of the logits at the beginning.
    pub logit_bias: f64,
    /// `clip`: whether the visible patches of an image decide how much its pair counts (MaCo's correlation weights).
    pub correlation: bool,
}

impl Default for ContrastConfig {
    fn default() -> Self {
        Self {
            loss: ContrastLoss::default(),
            weight: 1.0,
            projection: 512,
            temperature: 0.07,
            learn_temperature: true,
            logit_bias: -10.0,
            correlation: false,
        }
    }
}

impl ContrastConfig {
    /// The largest factor on similarities of `clip`: CLIP's.
    pub const MAX_SCALE: f64 = 100.0;

    /// Checks the configuration.
    ///
    /// # Errors
    /// When no model can have it.
    pub fn validate(&self) -> Result<(), ModelError> {
        check_size("contrast.projection", self.projection, MAX_DIM)?;
        let lowest = 1.0 / Self::MAX_SCALE;
        if !(self.temperature.is_finite() && self.temperature >= lowest) {
            let problem = format!("must be at least {lowest}, is {:?}", self.temperature);
            return Err(ModelError::config("contrast.temperature", problem));
        }
        if !(self.weight.is_finite() && self.weight >= 0.0 && self.logit_bias.is_finite()) {
            let problem = "the weight must be 0 or more, weight and logit_bias finite";
            return Err(ModelError::config("contrast.weight", problem));
        }
        if self.correlation && self.loss != ContrastLoss::Clip {
            return Err(ModelError::config("contrast.correlation", "needs contrast.loss=clip"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_settings_are_refused_by_key() {
        let key = |config: ContrastConfig| {
            let error = config.validate().unwrap_err().to_string();
            error.split(':').next().unwrap_or_default().to_owned()
        };
        assert_eq!(key(ContrastConfig { projection: 0, ..ContrastConfig::default() }), "contrast.projection");
        assert_eq!(key(ContrastConfig { temperature: 0.0, ..ContrastConfig::default() }), "contrast.temperature");
        assert_eq!(key(ContrastConfig { weight: f64::NAN, ..ContrastConfig::default() }), "contrast.weight");
        let siglip = ContrastConfig { loss: ContrastLoss::Siglip, correlation: true, ..ContrastConfig::default() };
        assert_eq!(key(siglip), "contrast.correlation");
        ContrastConfig::default().validate().unwrap();
    }
}
