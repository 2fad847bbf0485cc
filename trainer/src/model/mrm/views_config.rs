//! Configuration of several views of a study, section `[model.views]`.

use serde::{Deserialize, Serialize};

use crate::error::ModelError;

/// Settings of the views of a study in one sample (MVMAE, Laguna et al. 2025, arXiv 2511.22294).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ViewsConfig {
    /// Weight of the alignment of a study's views in the total, beside `image_weight` and `report_weight`; 0: none.
    pub align_weight: f64,
    /// Share of the run in which this weight rises from 0 in a straight line.
    pub align_ramp: f64,
}

impl Default for ViewsConfig {
    fn default() -> Self {
        Self { align_weight: 1.0, align_ramp: 1.0 }
    }
}

impl ViewsConfig {
    /// The weight of the alignment at step `step` of `steps`, from 0.
    pub fn align_weight_at(&self, step: u64, steps: u64) -> f64 {
        let ramp = self.align_ramp * steps as f64;
        if (step as f64) < ramp { self.align_weight * step as f64 / ramp } else { self.align_weight }
    }

    /// Checks the configuration.
    ///
    /// # Errors
    /// When no model can have it.
    pub fn validate(&self) -> Result<(), ModelError> {
        if !(self.align_weight.is_finite() && self.align_weight >= 0.0) {
            return Err(ModelError::config("views.align_weight", "must be a finite number, 0 or more"));
        }
        if !(0.0..=1.0).contains(&self.align_ramp) {
            return Err(ModelError::config("views.align_ramp", "must be from 0 to 1"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_rises_to_its_value_and_stays() {
        let config = ViewsConfig { align_weight: 2.0, align_ramp: 0.5 };
        assert_eq!([0, 10, 50, 99].map(|step| config.align_weight_at(step, 100)), [0.0, 0.4, 2.0, 2.0]);
        let at_once = ViewsConfig { align_ramp: 0.0, ..config };
        assert_eq!(at_once.align_weight_at(0, 100), 2.0);
    }

    #[test]
    fn impossible_settings_are_refused_by_key() {
        for (config, key) in [
            (ViewsConfig { align_weight: -1.0, ..ViewsConfig::default() }, "views.align_weight"),
            (ViewsConfig { align_weight: f64::NAN, ..ViewsConfig::default() }, "views.align_weight"),
            (ViewsConfig { align_ramp: 1.5, ..ViewsConfig::default() }, "views.align_ramp"),
        ] {
            assert!(config.validate().unwrap_err().to_string().starts_with(key));
        }
        ViewsConfig::default().validate().unwrap();
    }
}
