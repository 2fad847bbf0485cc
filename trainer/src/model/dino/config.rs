//! Sizes of student and teacher.

use serde::{Deserialize, Serialize};

use crate::error::{MAX_DIM, MAX_POSITIONS, ModelError, check_size};
use crate::model::encoder::check_drop_path;
use crate::model::vit::VitConfig;

/// Sizes of a projection head. The default is DINO's for ViT-B.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DinoHeadConfig {
    /// Width of the MLP's two inner layers.
    pub hidden_dim: i64,
    /// Length of the normalized vector before the prototypes.
    pub bottleneck: i64,
    /// Number of prototypes, `K`.
    pub prototypes: i64,
}

impl Default for DinoHeadConfig {
    fn default() -> Self {
        Self { hidden_dim: 2048, bottleneck: 256, prototypes: 65_536 }
    }
}

/// Configuration of student and teacher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DinoModelConfig {
    /// The encoder; its image is a global crop. It has a final norm.
    pub vit: VitConfig,
    /// The projection head.
    pub head: DinoHeadConfig,
    /// Whether the loss on masked patches uses the head of the class token; else it has a head of the same sizes for itself.
    pub shared_head: bool,
    /// Probability of a dropped branch in the student's last block; it rises linearly from 0 in the first.
    pub drop_path: f64,
}

impl Default for DinoModelConfig {
    fn default() -> Self {
        let vit = VitConfig { final_norm: true, ..VitConfig::default() };
        Self { vit, head: DinoHeadConfig::default(), shared_head: false, drop_path: 0.1 }
    }
}

impl DinoModelConfig {
    /// Checks the configuration.
    ///
    /// # Errors
    /// When no model can have it.
    pub fn validate(&self) -> Result<(), ModelError> {
        self.vit.validate()?;
        if !self.vit.final_norm {
            return Err(ModelError::config("vit.final_norm", "must be true: the heads take normalized tokens"));
        }
        check_size("head.hidden_dim", self.head.hidden_dim, MAX_DIM)?;
        check_size("head.bottleneck", self.head.bottleneck, MAX_DIM)?;
        check_size("head.prototypes", self.head.prototypes, MAX_POSITIONS)?;
        check_drop_path(self.drop_path)
    }
}
