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
mod views_config;

use std::rc::Rc;

use tch::nn::{self, Init, Module};
use tch::{Kind, Reduction, Tensor};

use crate::error::{ModelError, check_shape};
use crate::model::bert::{Bert, MlmHead};
use crate::model::layers::{TOKEN_STD, WeightInit, layer_norm, linear};
use crate::model::mae_decoder::{ImageDecoder, gather_tokens};
use crate::model::patches::{patch_statistics, target_patches, unpatchify};
use crate::model::pos_embed::sin_cos_table;
use crate::model::vit::{Block, PatchEmbed, blocks, run_blocks};
use crate::torch::shim::in_place_loss;
use losses::{all_positions, by_value, patch_error};

pub use config::{MrmConfig, Reconstruct, ReportLoss};
pub use contrast_config::{ContrastConfig, ContrastLoss};
pub use losses::{IGNORED_LABEL, ReportLosses};
pub use views_config::ViewsConfig;

/// The reports of a batch of `B` images: `R` of them, one for each image that has a report.
///
/// An image without a report must not have an empty one: [`ReportLoss::All`] would train the padding, and with it every
/// masked token, towards `[PAD]`.
#[derive(Debug, Clone, Copy)]
pub struct ReportBatch<'a> {
    /// Token ids after masking, `[R, S]`, Int64.
    pub ids: &'a Tensor,
    /// The token ids before masking, `[R, S]`, Int64; padding is 0.
    pub labels: &'a Tensor,
    /// 1 for tokens and 0 for padding, `[R, S]`.
    pub attention_mask: &'a Tensor,
    /// Token types `[R, S]`, Int64; none means type 0 everywhere.
    pub type_ids: Option<&'a Tensor>,
    /// The image of each report, `[R]`, or its images, `[R, V]`, of which it gets the mean; Int64. None means all images in
    /// their order (`R = B`). `B` stands for no image; a report without one is predicted from its visible tokens alone.
    pub rows: Option<&'a Tensor>,
    /// Weights of the tokens before masking, `[R, S]`, Float; the loss is then a weighted mean. None means that all positions
    /// count alike.
    pub weights: Option<&'a Tensor>,
    /// Masked positions of the flattened reports `[M]`, Int64, for the loss on masked positions in training. None means that
    /// they are computed, for which the host waits for a CUDA device.
    pub masked: Option<&'a Tensor>,
    /// Labels of `masked` that tell padding apart; none means that every position of `masked` counts.
    pub padded: Option<PaddedLabels<'a>>,
}

/// Labels of masked positions that are padded to a length of choice, so that batches have the same shapes.
#[derive(Debug, Clone, Copy)]
pub struct PaddedLabels<'a> {
    /// The token ids before masking at the positions of [`ReportBatch::masked`], [`IGNORED_LABEL`] at padding: `[M]`, Int64.
    pub labels: &'a Tensor,
    /// The number of positions that are no padding, at least 1: a float scalar.
    pub count: &'a Tensor,
}

impl ReportBatch<'_> {
    /// An error unless all tensors are `[R, S]` with the same `S`, at most `longest`, and `R` as `rows` (else `batch`) says.
    fn check(&self, batch: i64, longest: i64) -> Result<(), ModelError> {
        self.rows.map_or(Ok(()), |rows| check_shape("rows", rows, if rows.dim() == 2 { &[-1, -1] } else { &[-1] }))?;
        let batch = self.rows.map_or(batch, |rows| rows.size()[0]);
        check_shape("ids", self.ids, &[batch, -1])?;
        let length = self.ids.size()[1];
        if length > longest {
            let expected = format!("at most {longest} tokens");
            return Err(ModelError::Shape { tensor: "ids".to_owned(), expected, got: self.ids.size() });
        }
        check_shape("labels", self.labels, &[batch, length])?;
        check_shape("attention_mask", self.attention_mask, &[batch, length])?;
        self.weights.map_or(Ok(()), |weights| check_shape("weights", weights, &[batch, length]))?;
        if let (Some(masked), Some(padded)) = (self.masked, self.padded) {
            check_shape("padded labels", padded.labels, &masked.size())?;
        }
        self.type_ids.map_or(Ok(()), |types| check_shape("type_ids", types, &[batch, length]))
    }
}

/// The result of a forward pass. Parts that an ablation leaves out are none.
#[derive(Debug)]
pub struct MrmOutput {
    /// The encoder's input image, `[B, C, H, W]`.
    pub image_small: Tensor,
    /// The encoder's tokens: class token, then the visible patches in shuffled order, `[B, 1 + K, D]`.
    pub latent: Tensor,
    /// 0 for visible patches, 1 for masked ones, `[B, L]`.
    pub mask: Tensor,
    /// Position of each patch in the shuffled order, `[B, L]` (MAE's name).
    pub ids_restore: Tensor,
    /// Predicted target patches, `[B, L, P·P·3]`. None in training, which predicts masked patches only.
    pub pred: Option<Tensor>,
    /// The images that have a report, as input of the report decoder, `[R, H]`.
    pub report_latent: Option<Tensor>,
    /// The report decoder's last hidden layer, `[R, S, H]`.
    pub report_hidden: Option<Tensor>,
    /// Logits of every token id, `[R, S, V]`. None in training with [`ReportLoss::Masked`], which predicts masked positions
    /// only, and with [`Mrm::set_in_place_loss`].
    pub mlm_logits: Option<Tensor>,
    /// Mean squared error over masked patches.
    pub loss_image: Option<Tensor>,
    /// Cross-entropy over the positions that [`ReportLoss`] selects, of the images with a report; 0 if no image has one.
    pub loss_report: Option<Tensor>,
    /// The weighted sum of the losses, which is trained.
    pub total: Tensor,
    /// The loss of each image, `[B]`, in training with [`Mrm::set_record_losses`].
    pub image_losses: Option<Tensor>,
    /// The losses of each report, in training with [`Mrm::set_record_losses`].
    pub report_losses: Option<ReportLosses>,
}

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

/// The report branch: a projection of the encoder's tokens, and BERT.
#[derive(Debug)]
struct ReportBranch {
    projection: nn::Linear,
    bert: Rc<Bert>,
    head: MlmHead,
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
    in_place_loss: bool,
    record_losses: bool,
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
        let report = config.reconstructs_report().then(|| {
            let projection = linear(&(path / "bert_mlp"), vit.embed_dim, config.bert.embed_dim, init);
            let (bert, head) = Bert::with_head(&bert_path(path), &config.bert);
            ReportBranch { projection, bert: Rc::new(bert), head }
        });
        Ok(Self {
            patch_embed: PatchEmbed::new(&(path / "patch_embed"), vit, init),
            cls_token: path.var("cls_token", &[1, 1, vit.embed_dim], Init::Randn { mean: 0.0, stdev: TOKEN_STD }),
            pos_embed: path.add("pos_embed", table, false),
            blocks: blocks(&(path / "blocks"), vit.num_layers, vit.block(), 0.0, init),
            norm: layer_norm(&(path / "norm"), vit.embed_dim, vit.norm_epsilon),
            image_decoder,
            report,
            in_place_loss: false,
            record_losses: false,
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
        self.in_place_loss = in_place;
    }

    /// Chooses whether training computes the losses of single records, too. They change no other number.
    pub fn set_record_losses(&mut self, record_losses: bool) {
        self.record_losses = record_losses;
    }

    /// The patch projection.
    pub fn patch_embed(&self) -> &PatchEmbed {
        &self.patch_embed
    }

    /// The report decoder; none if the model reconstructs the image only.
    pub fn bert(&self) -> Option<&Rc<Bert>> {
        self.report.as_ref().map(|branch| &branch.bert)
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
    /// all; without an image (`B = 0`) the image loss is 0. `report` is required unless the model reconstructs the image only. `noise` `[B, L]` decides which patches are
    /// visible; if none, it is drawn. `train` enables dropout and leaves out outputs that no loss needs.
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
            self.reconstruct_report(branch, report, train, output)?;
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
        if train && self.record_losses && self.image_decoder.is_some() {
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
        if train && self.record_losses {
            output.image_losses = Some(losses::of_images(&pred, &target)?);
        }
        if train && self.in_place_loss {
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

    /// The report decoder and its loss.
    fn reconstruct_report(
        &self,
        branch: &ReportBranch,
        report: ReportBatch,
        train: bool,
        output: &mut MrmOutput,
    ) -> Result<(), ModelError> {
        let tokens = output.latent.size()[1];
        if report.ids.size()[0] == 0 {
            // The mean over no report would be NaN. An empty sum is 0 and has a gradient, with an image loss or without.
            output.loss_report = Some(output.latent.narrow(0, 0, 0).sum(Kind::Float));
            let none = || Tensor::zeros([0], (Kind::Float, output.latent.device()));
            output.report_losses = (train && self.record_losses).then(|| ReportLosses { sums: none(), counts: none() });
            return Ok(());
        }
        // The release projects every token and then takes the mean. The mean first gives the same for a fraction of the work.
        let visible = output.latent.narrow(1, 1, tokens - 1).mean_dim([1_i64].as_slice(), false, None); // [B, D]
        let visible = report.rows.map_or_else(|| visible.shallow_clone(), |rows| of_reports(&visible, rows)); // [R, D]
        let latent = branch.projection.forward(&visible); // [R, H]
        let embedded = branch.bert.embed(report.ids, report.type_ids, Some(&latent), train);
        let hidden = branch.bert.encode(embedded, report.attention_mask, train); // [R, S, H]

        let flat = hidden.flatten(0, 1); // [R·S, H]
        let labels = report.labels.flatten(0, 1);
        let masked = || report.ids.ne_tensor(report.labels).flatten(0, 1);
        let entropy = |logits: &Tensor, labels: &Tensor, reduction| {
            logits.to_kind(Kind::Float).cross_entropy_loss::<Tensor>(labels, None, reduction, IGNORED_LABEL, 0.0)
        };
        let sum = |logits: &Tensor, labels: &Tensor| {
            if self.in_place_loss {
                return in_place_loss::cross_entropy(logits, labels);
            }
            Ok(entropy(logits, labels, Reduction::Sum))
        };
        let size = report.ids.size2()?;
        let weights = report.weights.map(|weights| weights.flatten(0, 1)); // [R·S]
        let mut record_losses = |logits: &Tensor, labels: &Tensor, positions: &Tensor| -> Result<(), ModelError> {
            if train && self.record_losses && report.padded.is_none() {
                let weights = weights.as_ref();
                output.report_losses = Some(losses::of_reports(logits, labels, positions, weights, size.into())?);
            }
            Ok(())
        };
        let (logits, loss) = match (self.config.report_loss, train, &weights) {
            (ReportLoss::All, _, Some(weights)) => {
                let logits = branch.head.predict(&flat);
                record_losses(&logits, &labels, &all_positions(&labels))?;
                let loss = losses::weighted(&entropy(&logits, &labels, Reduction::None), weights);
                (Some(logits), loss)
            }
            (ReportLoss::Masked, true, Some(weights)) => {
                let positions = report.masked.map_or_else(|| masked().nonzero().squeeze_dim(1), Tensor::shallow_clone); // [M]
                let logits = branch.head.predict(&flat.index_select(0, &positions)); // [M, V]
                let labels = labels.index_select(0, &positions); // [M]
                record_losses(&logits, &labels, &positions)?;
                let each = entropy(&logits, &labels, Reduction::None);
                (None, losses::weighted(&each, &weights.index_select(0, &positions)))
            }
            (ReportLoss::All, true, None) if self.in_place_loss => {
                let logits = branch.head.predict(&flat);
                record_losses(&logits, &labels, &all_positions(&labels))?;
                (None, sum(&logits, &labels)? / labels.size()[0] as f64)
            }
            (ReportLoss::All, _, None) => {
                let logits = branch.head.predict(&flat); // [R·S, V]
                record_losses(&logits, &labels, &all_positions(&labels))?;
                let loss = entropy(&logits, &labels, Reduction::Mean);
                (Some(logits), loss)
            }
            (ReportLoss::Masked, false, weights) => {
                let logits = branch.head.predict(&flat);
                let masked = masked().to_kind(Kind::Float);
                let each = entropy(&logits, &labels, Reduction::None);
                let loss = match weights {
                    Some(weights) => losses::weighted(&each, &(weights * masked)),
                    None => (each * &masked).sum(Kind::Float) / masked.sum(Kind::Float).clamp_min(1.0),
                };
                (Some(logits), loss)
            }
            (ReportLoss::Masked, true, None) => {
                let positions = report.masked.map_or_else(|| masked().nonzero().squeeze_dim(1), Tensor::shallow_clone); // [M]
                let logits = branch.head.predict(&flat.index_select(0, &positions)); // [M, V]
                let loss = if let Some(PaddedLabels { labels, count }) = report.padded {
                    sum(&logits, labels)? / count
                } else {
                    let labels = labels.index_select(0, &positions); // [M]
                    record_losses(&logits, &labels, &positions)?;
                    sum(&logits, &labels)? / positions.size()[0].max(1) as f64
                };
                (None, loss)
            }
        };
        let shape = hidden.size();
        output.mlm_logits = logits.map(|logits| logits.view([shape[0], shape[1], -1]));
        output.loss_report = Some(loss);
        output.report_latent = Some(latent);
        output.report_hidden = Some(hidden);
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

/// Latents of images `[B, D]` → those of the reports with the images `rows`, `[R, D]`: `[R]`, or the mean of `[R, V]`; zeros
/// where there is no image.
fn of_reports(visible: &Tensor, rows: &Tensor) -> Tensor {
    let table = with_none(visible); // [B + 1, D]
    if rows.dim() == 1 {
        return table.index_select(0, rows);
    }
    let views = table.index_select(0, &rows.flatten(0, 1)).view([rows.size()[0], rows.size()[1], -1]); // [R, V, D]
    let counts = rows.not_equal(visible.size()[0]).sum_dim_intlist(1, true, Kind::Float).clamp_min(1.0); // [R, 1]
    (views.sum_dim_intlist(1, false, Kind::Float) / counts).to_kind(visible.kind())
}

/// Latents of images `[B, D]`, and zeros in place of an image that is not there: `[B + 1, D]`.
fn with_none(visible: &Tensor) -> Tensor {
    let none = Tensor::zeros([1, visible.size()[1]], (visible.kind(), visible.device()));
    Tensor::cat(&[visible, &none], 0)
}

#[cfg(test)]
pub(crate) mod tests;
