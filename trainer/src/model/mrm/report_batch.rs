//! The reports of a batch, as the model gets them.

use tch::Tensor;

use crate::error::{ModelError, check_shape};

/// The reports of a batch of `B` images: `R` of them, one for each image that has a report.
///
/// An image without a report must not have an empty one: [`ReportLoss::All`](super::ReportLoss::All) would train the padding, and with it every
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
    /// The token ids before masking at the positions of [`ReportBatch::masked`], [`IGNORED_LABEL`](super::IGNORED_LABEL) at padding: `[M]`, Int64.
    pub labels: &'a Tensor,
    /// The number of positions that are no padding, at least 1: a float scalar.
    pub count: &'a Tensor,
}

impl ReportBatch<'_> {
    /// An error unless all tensors are `[R, S]` with the same `S`, at most `longest`, and `R` as `rows` (else `batch`) says.
    pub(super) fn check(&self, batch: i64, longest: i64) -> Result<(), ModelError> {
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
