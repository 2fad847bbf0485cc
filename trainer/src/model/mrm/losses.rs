//! Parts of the losses, and the losses of single records, for a log by dataset, which have no gradients.
//!
//! Shapes: batch `B`, masked patches `N`; reports `R`, tokens `S`, predicted positions `M`, vocabulary `V`.

use tch::{Kind, Reduction, Tensor};

use crate::error::ModelError;

/// Values that are in float32 at a time: 64 MiB.
const CHUNK: i64 = 1 << 24;

/// The label of a padded position, which takes no part in a loss.
pub const IGNORED_LABEL: i64 = -100;

/// Losses of the reports of a batch.
#[derive(Debug)]
pub struct ReportLosses {
    /// Sum of each report's cross-entropies, `[R]`.
    pub sums: Tensor,
    /// Number of positions that each sum is over, or the sum of their weights, `[R]`.
    pub counts: Tensor,
}

/// The mean squared error of each image: prediction `[B, N, P·P·C]`, target of as many values or of one channel → `[B]`.
pub(super) fn of_images(pred: &Tensor, target: &Tensor) -> Result<Tensor, ModelError> {
    let _guard = tch::no_grad_guard();
    let values: i64 = pred.size().iter().skip(1).product();
    let mean = |start, length| {
        let error = patch_error(&pred.narrow(0, start, length), &target.narrow(0, start, length)); // [b, N]
        error.f_mean_dim([1_i64].as_slice(), false, Kind::Float)
    };
    in_chunks(pred.size()[0], values, mean)
}

/// The mean of values by weights of as many, 0 where all weights are 0.
pub(super) fn weighted(values: &Tensor, weights: &Tensor) -> Tensor {
    let sum = weights.sum(Kind::Float);
    (values * weights).sum(Kind::Float) / (&sum + sum.eq(0.0).to_kind(Kind::Float))
}

/// The losses of the reports: logits `[M, V]`, their labels `[M]`, and the position of each in the flattened reports `[M]`.
/// Sums and counts are by the weights of the tokens of the flattened reports, where there are some.
pub(super) fn of_reports(
    logits: &Tensor,
    labels: &Tensor,
    positions: &Tensor,
    weights: Option<&Tensor>,
    [reports, tokens]: [i64; 2],
) -> Result<ReportLosses, ModelError> {
    let _guard = tch::no_grad_guard();
    let entropy = |start, length| {
        let logits = logits.narrow(0, start, length).to_kind(Kind::Float);
        let labels = labels.narrow(0, start, length);
        logits.f_cross_entropy_loss::<Tensor>(&labels, None, Reduction::None, IGNORED_LABEL, 0.0)
    };
    let each = in_chunks(logits.size()[0], logits.size()[1], entropy)?; // [M]
    let report = positions.f_floor_divide_scalar(tokens)?;
    let empty = || Tensor::f_zeros([reports], (Kind::Float, logits.device()));
    let (each, weights) = match weights {
        Some(weights) => {
            let weights = weights.f_index_select(0, positions)?;
            (&each * &weights, weights)
        }
        None => (each.shallow_clone(), each.f_ones_like()?),
    };
    let counts = empty()?.f_index_add(0, &report, &weights)?;
    Ok(ReportLosses { sums: empty()?.f_index_add(0, &report, &each)?, counts })
}

/// The values of `rows` rows of `values` values each, computed chunk by chunk.
fn in_chunks(
    rows: i64,
    values: i64,
    compute: impl Fn(i64, i64) -> Result<Tensor, tch::TchError>,
) -> Result<Tensor, ModelError> {
    let length = (CHUNK / values.max(1)).max(1);
    let starts = (0..rows.max(1)).step_by(length as usize);
    let chunks = starts.map(|start| compute(start, length.min(rows - start))).collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::f_cat(&chunks, 0)?)
}

/// Predicted patches `[B, N, V·C]` as `[B, N, V, C]`, for target patches `[B, N, V]` that are the same for all `C`.
pub(super) fn by_value(pred: &Tensor, target: &Tensor) -> Tensor {
    let size = target.size();
    pred.view([size[0], size[1], size[2], -1])
}

/// Mean squared error of each patch: prediction `[B, N, P·P·C]`, target of as many values or of one channel → `[B, N]`.
pub(super) fn patch_error(pred: &Tensor, target: &Tensor) -> Tensor {
    let pred = by_value(&pred.to_kind(Kind::Float), target);
    (pred - target.unsqueeze(-1)).square().mean_dim([2_i64, 3].as_slice(), false, None)
}

/// The positions of flattened reports with these labels, `[R·S]`.
pub(super) fn all_positions(labels: &Tensor) -> Tensor {
    Tensor::arange(labels.numel() as i64, (Kind::Int64, labels.device()))
}
