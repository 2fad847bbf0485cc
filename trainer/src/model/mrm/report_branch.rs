//! The report decoder: BERT, which sees the mean of an image's visible patches.

use std::rc::Rc;

use tch::nn::{self, Module};
use tch::{Kind, Reduction, Tensor};

use super::losses::{self, IGNORED_LABEL, ReportLosses, all_positions};
use super::{LossOptions, MrmConfig, MrmOutput, PaddedLabels, ReportBatch, ReportLoss, bert_path};
use crate::error::ModelError;
use crate::model::bert::{Bert, MlmHead};
use crate::model::layers::{WeightInit, linear};
use crate::torch::shim::in_place_loss;

/// The report branch: a projection of the encoder's tokens, and BERT.
#[derive(Debug)]
pub struct ReportBranch {
    loss: ReportLoss,
    projection: nn::Linear,
    bert: Rc<Bert>,
    head: MlmHead,
}

impl ReportBranch {
    /// The decoder with the release's initialization, its variables below those of the model.
    pub fn new(path: &nn::Path, config: &MrmConfig, init: WeightInit) -> Self {
        let projection = linear(&(path / "bert_mlp"), config.vit.embed_dim, config.bert.embed_dim, init);
        let (bert, head) = Bert::with_head(&bert_path(path), &config.bert);
        Self { loss: config.report_loss, projection, bert: Rc::new(bert), head }
    }

    /// BERT.
    pub fn bert(&self) -> &Rc<Bert> {
        &self.bert
    }

    /// Predicts the reports from the encoder's tokens in `output`, and adds the loss to it.
    pub fn reconstruct(
        &self,
        report: ReportBatch,
        LossOptions { in_place, by_record }: LossOptions,
        train: bool,
        output: &mut MrmOutput,
    ) -> Result<(), ModelError> {
        let tokens = output.latent.size()[1];
        if report.ids.size()[0] == 0 {
            // The mean over no report would be NaN. An empty sum is 0 and has a gradient, with an image loss or without.
            output.loss_report = Some(output.latent.narrow(0, 0, 0).sum(Kind::Float));
            let none = || Tensor::zeros([0], (Kind::Float, output.latent.device()));
            output.report_losses = (train && by_record).then(|| ReportLosses { sums: none(), counts: none() });
            return Ok(());
        }
        // The release projects every token and then takes the mean. The mean first gives the same for a fraction of the work.
        let visible = output.latent.narrow(1, 1, tokens - 1).mean_dim([1_i64].as_slice(), false, None); // [B, D]
        let visible = report.rows.map_or_else(|| visible.shallow_clone(), |rows| of_reports(&visible, rows)); // [R, D]
        let latent = self.projection.forward(&visible); // [R, H]
        let embedded = self.bert.embed(report.ids, report.type_ids, Some(&latent), train);
        let hidden = self.bert.encode(embedded, report.attention_mask, train); // [R, S, H]

        let flat = hidden.flatten(0, 1); // [R·S, H]
        let labels = report.labels.flatten(0, 1);
        let masked = || report.ids.ne_tensor(report.labels).flatten(0, 1);
        let entropy = |logits: &Tensor, labels: &Tensor, reduction| {
            logits.to_kind(Kind::Float).cross_entropy_loss::<Tensor>(labels, None, reduction, IGNORED_LABEL, 0.0)
        };
        let sum = |logits: &Tensor, labels: &Tensor| {
            if in_place {
                return in_place_loss::cross_entropy(logits, labels);
            }
            Ok(entropy(logits, labels, Reduction::Sum))
        };
        let size = report.ids.size2()?;
        let weights = report.weights.map(|weights| weights.flatten(0, 1)); // [R·S]
        let mut record_losses = |logits: &Tensor, labels: &Tensor, positions: &Tensor| -> Result<(), ModelError> {
            if train && by_record && report.padded.is_none() {
                let weights = weights.as_ref();
                output.report_losses = Some(losses::of_reports(logits, labels, positions, weights, size.into())?);
            }
            Ok(())
        };
        let (logits, loss) = match (self.loss, train, &weights) {
            (ReportLoss::All, _, Some(weights)) => {
                let logits = self.head.predict(&flat);
                record_losses(&logits, &labels, &all_positions(&labels))?;
                let loss = losses::weighted(&entropy(&logits, &labels, Reduction::None), weights);
                (Some(logits), loss)
            }
            (ReportLoss::Masked, true, Some(weights)) => {
                let positions = report.masked.map_or_else(|| masked().nonzero().squeeze_dim(1), Tensor::shallow_clone); // [M]
                let logits = self.head.predict(&flat.index_select(0, &positions)); // [M, V]
                let labels = labels.index_select(0, &positions); // [M]
                record_losses(&logits, &labels, &positions)?;
                let each = entropy(&logits, &labels, Reduction::None);
                (None, losses::weighted(&each, &weights.index_select(0, &positions)))
            }
            (ReportLoss::All, true, None) if in_place => {
                let logits = self.head.predict(&flat);
                record_losses(&logits, &labels, &all_positions(&labels))?;
                (None, sum(&logits, &labels)? / labels.size()[0] as f64)
            }
            (ReportLoss::All, _, None) => {
                let logits = self.head.predict(&flat); // [R·S, V]
                record_losses(&logits, &labels, &all_positions(&labels))?;
                let loss = entropy(&logits, &labels, Reduction::Mean);
                (Some(logits), loss)
            }
            (ReportLoss::Masked, false, weights) => {
                let logits = self.head.predict(&flat);
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
                let logits = self.head.predict(&flat.index_select(0, &positions)); // [M, V]
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
