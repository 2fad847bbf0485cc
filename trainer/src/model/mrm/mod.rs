//! Masked record modeling (Zhou et al., ICLR 2023, arXiv 2301.13155). An encoder sees the visible patches of a radiograph.
//! An image decoder reconstructs the masked patches at twice the size; a report decoder predicts the masked tokens of the
//! report from the mean of the visible patches.
//!
//! Variable names and initialization are those of the authors' release. Random numbers (mask, dropout) are drawn from torch's
//! default generator of the device.
//!
//! Shapes: batch `B`, patches `L`, visible patches `K`, embed_dim `D`; target patch side `P`; reports `R`, tokens `S`,
//! embed_dim of the report decoder `H`, vocabulary `V`.

mod config;
mod contrast_config;
mod flops;
mod losses;
mod output;
mod report_batch;
mod report_branch;
mod views_config;

use std::rc::Rc;

use tch::nn::{self, Init, Module};
use tch::{Kind, Tensor};

use crate::error::{ModelError, check_shape};
use crate::model::bert::Bert;
use crate::model::layers::{TOKEN_STD, WeightInit, layer_norm};
use crate::model::mae_decoder::{ImageDecoder, gather_tokens};
use crate::model::patches::{patch_statistics, target_patches, unpatchify};
use crate::model::pos_embed::sin_cos_table;
use crate::model::vit::{Block, PatchEmbed, blocks, run_blocks};
use crate::torch::shim::in_place_loss;
use losses::{by_value, patch_error};
use report_branch::ReportBranch;

pub use config::{MrmConfig, Reconstruct, ReportLoss};
pub use contrast_config::{ContrastConfig, ContrastLoss};
pub use losses::{IGNORED_LABEL, ReportLosses};
pub use output::MrmOutput;
pub use report_batch::{PaddedLabels, ReportBatch};
pub use views_config::ViewsConfig;

/// The visible and masked patches of a batch. Each patch has a random number; the patches with the `K` smallest ones are
/// visible.
struct PatchMask {
    visible: Tensor,     // [B, K]
    masked: Tensor,      // [B, L - K]
    ids_restore: Tensor, // [B, L]
}

impl PatchMask {
    fn new(noise: &Tensor, visible: i64) -> Self {
        let patches = noise.size()[1];
        let shuffled = noise.argsort(1, false); // [B, L]
        Self {
            visible: shuffled.narrow(1, 0, visible),
            masked: shuffled.narrow(1, visible, patches - visible),
            ids_restore: shuffled.argsort(1, false),
        }
    }

    /// 0 for visible patches, 1 for masked ones, `[B, L]`.
    fn mask(&self) -> Tensor {
        self.ids_restore.ge(self.visible.size()[1]).to_kind(Kind::Float)
    }
}

/// The model.
#[derive(Debug)]
pub struct Mrm {
    config: MrmConfig,
    patch_embed: PatchEmbed,
    cls_token: Tensor, // [1, 1, D]
    pos_embed: Tensor, // [1, 1 + L, D], fixed
    blocks: Vec<Block>,
    norm: nn::LayerNorm,
    image_decoder: Option<ImageDecoder>,
    report: Option<ReportBranch>,
    losses: LossOptions,
}

/// How training computes its losses.
#[derive(Debug, Clone, Copy, Default)]
struct LossOptions {
    /// The backward pass writes the gradients over predictions.
    in_place: bool,
    /// The losses of single records are computed, too.
    by_record: bool,
}

impl Mrm {
    /// A model with the release's initialization, its variables under `path` (the store's root, for the release's names).
    ///
    /// # Errors
    /// When no model has this configuration.
    pub fn new(path: &nn::Path, config: &MrmConfig) -> Result<Self, ModelError> {
        config.validate()?;
        let (vit, init) = (&config.vit, WeightInit::XavierUniform);
        let table = sin_cos_table(vit.embed_dim, vit.grid(), config.pos_embed)?.unsqueeze(0).to_device(path.device());
        let values = config.target_patch() * config.target_patch() * vit.in_channels;
        let image_decoder = config
            .reconstructs_image()
            .then(|| ImageDecoder::new(path, &config.decoder, vit, values, config.pos_embed, config.views.is_some()))
            .transpose()?;
        let report = config.reconstructs_report().then(|| ReportBranch::new(path, config, init));
        Ok(Self {
            patch_embed: PatchEmbed::new(&(path / "patch_embed"), vit, init),
            cls_token: path.var("cls_token", &[1, 1, vit.embed_dim], Init::Randn { mean: 0.0, stdev: TOKEN_STD }),
            pos_embed: path.add("pos_embed", table, false),
            blocks: blocks(&(path / "blocks"), vit.num_layers, vit.block(), 0.0, init),
            norm: layer_norm(&(path / "norm"), vit.embed_dim, vit.norm_epsilon),
            image_decoder,
            report,
            losses: LossOptions::default(),
            config: config.clone(),
        })
    }

    /// The model's configuration.
    pub fn config(&self) -> &MrmConfig {
        &self.config
    }

    /// Chooses how training computes its losses. With `true`, the backward pass writes the gradients over predicted patches and
    /// logits, which takes a fraction of the memory; the losses are the same up to rounding, and the output has no logits.
    pub fn set_in_place_loss(&mut self, in_place: bool) {
        self.losses.in_place = in_place;
    }

    /// Chooses whether training computes the losses of single records, too. They change no other number.
    pub fn set_record_losses(&mut self, record_losses: bool) {
        self.losses.by_record = record_losses;
    }

    /// The patch projection.
    pub fn patch_embed(&self) -> &PatchEmbed {
        &self.patch_embed
    }

    /// The report decoder; none if the model reconstructs the image only.
    pub fn bert(&self) -> Option<&Rc<Bert>> {
        self.report.as_ref().map(ReportBranch::bert)
    }

    /// Encodes all patches of images `[B, C, H, W]` of side [`MrmConfig::input_size`], without dropout: class token, then the
    /// patches in their order, `[B, 1 + L, D]`.
    ///
    /// # Errors
    /// When the image has the wrong shape.
    pub fn encode_all(&self, image: &Tensor) -> Result<Tensor, ModelError> {
        self.check_image(image)?;
        let (batch, patches) = (image.size()[0], self.config.vit.patches());
        let order = Tensor::f_arange(patches, (Kind::Float, image.device()))?.f_expand([batch, patches], false)?;
        Ok(self.encode(&self.encoder_image(image), &PatchMask::new(&order, patches), false))
    }

    /// Masks, encodes and reconstructs a batch.
    ///
    /// `image` `[B, C, H, W]` is the target, normalized, of side [`MrmConfig::input_size`], with 1 channel (gray) or
    /// all; without an image (`B = 0`) the image loss is 0. `report` is required unless the model reconstructs the image only.
    /// `noise` `[B, L]` decides which patches are visible; if none, it is drawn. `train` enables dropout and leaves out outputs
    /// that no loss needs.
    ///
    /// # Errors
    /// When a tensor is missing or has the wrong shape.
    pub fn forward(
        &self,
        image: &Tensor,
        report: Option<ReportBatch>,
        noise: Option<&Tensor>,
        train: bool,
    ) -> Result<MrmOutput, ModelError> {
        self.forward_views(image, None, report, noise, train)
    }

    /// The same of images whose views are known: their codes `[B]`
    /// ([`Batch::view_codes`](dataset::Batch::view_codes)), which the image decoder of a model with
    /// [`views`](MrmConfig::views) is told.
    ///
    /// # Errors
    /// When a tensor is missing or has the wrong shape.
    pub fn forward_views(
        &self,
        image: &Tensor,
        views: Option<&Tensor>,
        report: Option<ReportBatch>,
        noise: Option<&Tensor>,
        train: bool,
    ) -> Result<MrmOutput, ModelError> {
        self.check_image(image)?;
        views.map_or(Ok(()), |views| check_shape("views", views, &[image.size()[0]]))?;
        let batch = image.size()[0];
        if batch == 0 {
            return self.forward_without_images(image, report, train);
        }
        let noise = if let Some(noise) = noise {
            check_shape("noise", noise, &[batch, self.config.vit.patches()])?;
            noise.shallow_clone()
        } else {
            Tensor::f_rand([batch, self.config.vit.patches()], (Kind::Float, image.device()))?
        };
        let patch_mask = PatchMask::new(&noise, self.config.visible_patches());
        let image_small = self.encoder_image(image);
        let latent = self.encode(&image_small, &patch_mask, train);

        let mut output = MrmOutput {
            image_small,
            latent,
            mask: patch_mask.mask(),
            ids_restore: patch_mask.ids_restore.shallow_clone(),
            pred: None,
            report_latent: None,
            report_hidden: None,
            mlm_logits: None,
            loss_image: None,
            loss_report: None,
            total: Tensor::f_zeros([], (Kind::Float, image.device()))?,
            image_losses: None,
            report_losses: None,
        };
        if let Some(decoder) = &self.image_decoder {
            self.reconstruct_image(decoder, image, views, &patch_mask, train, &mut output)?;
        }
        self.finish(report, batch, train, &mut output)?;
        Ok(output)
    }

    /// Reconstructs the reports of a batch of so many images, and sums up the losses.
    fn finish(
        &self,
        report: Option<ReportBatch>,
        batch: i64,
        train: bool,
        output: &mut MrmOutput,
    ) -> Result<(), ModelError> {
        if let Some(branch) = &self.report {
            let report = report.ok_or_else(|| ModelError::Shape {
                tensor: "report".to_owned(),
                expected: "token ids: the model reconstructs reports".to_owned(),
                got: Vec::new(),
            })?;
            report.check(batch, self.config.bert.max_positions)?;
            branch.reconstruct(report, self.losses, train, output)?;
        }
        for (loss, weight) in
            [(&output.loss_image, self.config.image_weight), (&output.loss_report, self.config.report_weight)]
        {
            if let Some(loss) = loss {
                output.total = &output.total + loss * weight;
            }
        }
        Ok(())
    }

    /// The forward pass of reports without any image. The encoder sees one blank image that no loss depends on, so that all its
    /// variables have gradients, which are zero.
    fn forward_without_images(
        &self,
        image: &Tensor,
        report: Option<ReportBatch>,
        train: bool,
    ) -> Result<MrmOutput, ModelError> {
        let mut size = image.size();
        size[0] = 1;
        let blank = Tensor::f_zeros(size.as_slice(), (image.kind(), image.device()))?;
        let noise = Tensor::f_zeros([1, self.config.vit.patches()], (Kind::Float, image.device()))?;
        let patch_mask = PatchMask::new(&noise, self.config.visible_patches());
        let image_small = self.encoder_image(&blank);
        let latent = self.encode(&image_small, &patch_mask, train).narrow(0, 0, 0);
        let mut output = MrmOutput {
            loss_image: self.image_decoder.as_ref().map(|_| latent.sum(Kind::Float)),
            image_small: image_small.narrow(0, 0, 0),
            latent,
            mask: patch_mask.mask().narrow(0, 0, 0),
            ids_restore: patch_mask.ids_restore.narrow(0, 0, 0),
            pred: None,
            report_latent: None,
            report_hidden: None,
            mlm_logits: None,
            loss_report: None,
            total: Tensor::f_zeros([], (Kind::Float, image.device()))?,
            image_losses: None,
            report_losses: None,
        };
        if train && self.losses.by_record && self.image_decoder.is_some() {
            output.image_losses = Some(Tensor::f_zeros([0], (Kind::Float, image.device()))?);
        }
        self.finish(report, 0, train, &mut output)?;
        Ok(output)
    }

    /// Resizes an image from the target's size to the encoder's, `[B, C, H, W]`; bicubic, not clamped.
    fn encoder_image(&self, image: &Tensor) -> Tensor {
        if self.config.super_resolution == 1 {
            return image.shallow_clone();
        }
        let size = [self.config.vit.image_size; 2];
        if self.config.antialias {
            image.internal_upsample_bicubic2d_aa(size, false, None, None)
        } else {
            image.upsample_bicubic2d(size, false, None, None)
        }
    }

    /// Embeds and encodes the visible patches: `[B, C, H, W]` → `[B, 1 + K, D]`.
    fn encode(&self, image_small: &Tensor, patch_mask: &PatchMask, train: bool) -> Tensor {
        let batch = image_small.size()[0];
        let (patches, embed_dim) = (self.config.vit.patches(), self.config.vit.embed_dim);
        let visible = gather_tokens(&self.patch_embed.cut(image_small), &patch_mask.visible); // [B, K, C·p·p]
        let positions = self.pos_embed.narrow(1, 1, patches).expand([batch, patches, embed_dim], false); // [B, L, D]
        let x = self.patch_embed.embed(&visible) + gather_tokens(&positions, &patch_mask.visible); // [B, K, D]
        let cls = (&self.cls_token + self.pos_embed.narrow(1, 0, 1)).expand([batch, 1, embed_dim], false);
        let x = Tensor::cat(&[cls.to_kind(x.kind()), x], 1); // [B, 1 + K, D]
        self.norm.forward(&run_blocks(&self.blocks, x, train))
    }

    /// The image decoder and its loss: the mean over the masked patches of the whole batch.
    fn reconstruct_image(
        &self,
        decoder: &ImageDecoder,
        image: &Tensor,
        views: Option<&Tensor>,
        patch_mask: &PatchMask,
        train: bool,
        output: &mut MrmOutput,
    ) -> Result<(), ModelError> {
        let wanted = train.then_some(&patch_mask.masked);
        let pred = decoder.forward(&output.latent, &patch_mask.ids_restore, views, wanted, train);
        let target = target_patches(image, self.config.target_patch()); // [B, L, P·P·C]
        let target = wanted.map_or_else(|| target.shallow_clone(), |wanted| gather_tokens(&target, wanted));
        let target = self.normalized(&target);
        if train && self.losses.by_record {
            output.image_losses = Some(losses::of_images(&pred, &target)?);
        }
        if train && self.losses.in_place {
            let (pred, target) = (by_value(&pred, &target).flatten(0, 1), target.flatten(0, 1));
            output.loss_image = Some(in_place_loss::mean_squared_error(&pred, &target)?);
            return Ok(());
        }
        let error = patch_error(&pred, &target); // [B, L] or [B, L - K]
        output.loss_image = Some(if train {
            error.mean(Kind::Float)
        } else {
            (error * &output.mask).sum(Kind::Float) / output.mask.sum(Kind::Float)
        });
        output.pred = (!train).then_some(pred);
        Ok(())
    }

    /// Target patches of the image loss: `[.., P·P·C]`, standardized if `norm_pix_loss`.
    fn normalized(&self, target: &Tensor) -> Tensor {
        if !self.config.norm_pix_loss {
            return target.shallow_clone();
        }
        let (mean, std) = self.statistics(target);
        (target - mean) / std
    }

    /// Mean and standard deviation of target patches `[.., P·P·C]`; patches of one channel count as repeated on all.
    fn statistics(&self, target: &Tensor) -> (Tensor, Tensor) {
        let area = self.config.target_patch() * self.config.target_patch();
        let channels = target.size().last().copied().unwrap_or(area) / area;
        patch_statistics(target, self.config.vit.in_channels / channels)
    }

    /// Predicted patches `[B, L, P·P·3]` as an image `[B, 3, H, W]` of normalized pixels. If the loss is on standardized patches,
    /// mean and standard deviation are those of the patches of `image`.
    ///
    /// # Errors
    /// When prediction or image has the wrong shape.
    pub fn reconstructed_image(&self, pred: &Tensor, image: &Tensor) -> Result<Tensor, ModelError> {
        self.check_image(image)?;
        let (patch, channels) = (self.config.target_patch(), self.config.vit.in_channels);
        let expected = [image.size()[0], self.config.vit.patches(), patch * patch * channels];
        check_shape("prediction", pred, &expected)?;
        if !self.config.norm_pix_loss {
            return Ok(unpatchify(pred, patch, channels));
        }
        let (mean, std) = self.statistics(&target_patches(image, patch));
        Ok(unpatchify(&(pred * std + mean), patch, channels))
    }

    /// The mask of patches `[B, L]` as an image `[B, 1, H, W]` of zeros and ones.
    ///
    /// # Errors
    /// When the mask has the wrong shape.
    pub fn mask_image(&self, mask: &Tensor) -> Result<Tensor, ModelError> {
        check_shape("mask", mask, &[-1, self.config.vit.patches()])?;
        let patch = self.config.target_patch();
        Ok(unpatchify(&mask.unsqueeze(-1).repeat([1, 1, patch * patch]), patch, 1))
    }

    /// An error unless the image has the target's size, and one channel or all.
    fn check_image(&self, image: &Tensor) -> Result<(), ModelError> {
        let side = self.config.input_size();
        let gray = image.size().get(1) == Some(&1);
        check_shape("image", image, &[-1, if gray { 1 } else { self.config.vit.in_channels }, side, side])
    }
}

/// Where the variables of BERT are.
pub(crate) fn bert_path<'a>(path: &nn::Path<'a>) -> nn::Path<'a> {
    path / "bert_encoder" / "model"
}

#[cfg(test)]
pub(crate) mod tests;
