//! What a forward pass returns.

use tch::Tensor;

use super::ReportLosses;

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
    /// Logits of every token id, `[R, S, V]`. None in training with [`ReportLoss::Masked`](super::ReportLoss::Masked), which predicts masked positions
    /// only, and with [`Mrm::set_in_place_loss`](super::Mrm::set_in_place_loss).
    pub mlm_logits: Option<Tensor>,
    /// Mean squared error over masked patches.
    pub loss_image: Option<Tensor>,
    /// Cross-entropy over the positions that [`ReportLoss`](super::ReportLoss) selects, of the images with a report; 0 if no image has one.
    pub loss_report: Option<Tensor>,
    /// The weighted sum of the losses, which is trained.
    pub total: Tensor,
    /// The loss of each image, `[B]`, in training with [`Mrm::set_record_losses`](super::Mrm::set_record_losses).
    pub image_losses: Option<Tensor>,
    /// The losses of each report, in training with [`Mrm::set_record_losses`](super::Mrm::set_record_losses).
    pub report_losses: Option<ReportLosses>,
}
