//! Configuration of masked record modeling, with its ablations.

use serde::{Deserialize, Serialize};

use super::contrast_config::ContrastConfig;
use super::views_config::ViewsConfig;
use crate::error::{ModelError, check_size, check_table};
use crate::model::bert::BertConfig;
use crate::model::mae_decoder::DecoderConfig;
use crate::model::pos_embed::PosEmbed;
use crate::model::vit::VitConfig;

/// What pre-training reconstructs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reconstruct {
    /// Image and report: MRM.
    #[default]
    Both,
    /// The image only: MAE with super-resolution. The model has no report decoder.
    ImageOnly,
    /// The report only, from the visible patches. The model has no image decoder.
    ReportOnly,
    /// Nothing: for objectives that contrast images with reports alone.
    None,
}

/// The positions of a report over which the loss is averaged. Images without a report are left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReportLoss {
    /// All positions, visible tokens and padding included: the release.
    #[default]
    All,
    /// The positions of masked tokens (`ids != labels`): the paper's description.
    Masked,
}

/// Largest ratio of the target image's side to that of the encoder's image.
const MAX_SUPER_RESOLUTION: i64 = 16;

/// Configuration of a model. The default is the MRM release's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MrmConfig {
    /// The encoder; the target image is `super_resolution` times as large as its image.
    pub vit: VitConfig,
    /// The image decoder.
    pub decoder: DecoderConfig,
    /// The report decoder.
    pub bert: BertConfig,
    /// What is reconstructed: image and report, or one of them.
    pub reconstruct: Reconstruct,
    /// Side of the target image as a multiple of the encoder's; 1: no super-resolution.
    pub super_resolution: i64,
    /// Share of the patches that is masked, from 0 to below 1.
    pub mask_ratio: f64,
    /// Whether each target patch is standardized.
    pub norm_pix_loss: bool,
    /// Whether the resize of the target image to the encoder's size is antialiased. The torchvision that the release pins does
    /// not antialias, newer versions do.
    pub antialias: bool,
    /// Formula of the fixed position tables.
    pub pos_embed: PosEmbed,
    /// Weight of the image loss in the total.
    pub image_weight: f64,
    /// Weight of the report loss in the total.
    pub report_weight: f64,
    /// Positions the report loss is averaged over.
    pub report_loss: ReportLoss,
    /// The contrast of images and reports; none in masked record modeling alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contrast: Option<ContrastConfig>,
    /// Several views of a study in one sample; none where a sample has one image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub views: Option<ViewsConfig>,
}

impl Default for MrmConfig {
    fn default() -> Self {
        Self {
            vit: VitConfig::default(),
            decoder: DecoderConfig::default(),
            bert: BertConfig::default(),
            reconstruct: Reconstruct::default(),
            super_resolution: 2,
            mask_ratio: 0.75,
            norm_pix_loss: true,
            antialias: false,
            pos_embed: PosEmbed::default(),
            image_weight: 1.0,
            report_weight: 1.0,
            report_loss: ReportLoss::default(),
            contrast: None,
            views: None,
        }
    }
}

impl MrmConfig {
    /// Side of the target image in pixels, which is the size of the input.
    pub fn input_size(&self) -> i64 {
        self.vit.image_size * self.super_resolution
    }

    /// Side of a target patch in pixels, `P`.
    pub fn target_patch(&self) -> i64 {
        self.vit.patch_size * self.super_resolution
    }

    /// Visible patches, `K`: `L · (1 - mask_ratio)`, truncated.
    pub fn visible_patches(&self) -> i64 {
        (self.vit.patches() as f64 * (1.0 - self.mask_ratio)) as i64
    }

    /// Whether the image is reconstructed.
    pub fn reconstructs_image(&self) -> bool {
        matches!(self.reconstruct, Reconstruct::Both | Reconstruct::ImageOnly)
    }

    /// Whether the report is reconstructed.
    pub fn reconstructs_report(&self) -> bool {
        matches!(self.reconstruct, Reconstruct::Both | Reconstruct::ReportOnly)
    }

    /// Whether the model reads reports: to reconstruct them, or to contrast images with them.
    pub fn reads_reports(&self) -> bool {
        self.reconstructs_report() || self.contrast.is_some()
    }

    /// Checks the configuration.
    ///
    /// # Errors
    /// When no model can have it.
    pub fn validate(&self) -> Result<(), ModelError> {
        self.vit.validate()?;
        if self.vit.register_tokens > 0 || self.vit.pre_norm {
            let problem = "a masked encoder has neither register tokens nor pre_norm";
            return Err(ModelError::config("vit", problem));
        }
        check_size("super_resolution", self.super_resolution, MAX_SUPER_RESOLUTION)?;
        if self.reconstructs_image() {
            self.decoder.validate()?;
            check_table("decoder.embed_dim", self.vit.patches(), self.decoder.embed_dim)?;
        }
        if self.reads_reports() {
            self.bert.validate()?;
        }
        if let Some(contrast) = &self.contrast {
            contrast.validate()?;
        }
        if let Some(views) = &self.views {
            views.validate()?;
            if self.contrast.is_some() {
                return Err(ModelError::config(
                    "views",
                    "not with model.contrast: pairs are of one image and its report",
                ));
            }
        }
        let (visible, patches) = (self.visible_patches(), self.vit.patches());
        let most = if self.reconstructs_image() { patches - 1 } else { patches };
        if !(0.0..1.0).contains(&self.mask_ratio) || !(1..=most).contains(&visible) {
            let problem = format!("{} leaves {visible} of {patches} patches visible", self.mask_ratio);
            return Err(ModelError::config("mask_ratio", problem));
        }
        Ok(())
    }
}
