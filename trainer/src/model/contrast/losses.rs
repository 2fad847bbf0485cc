//! Losses of paired images and reports.
//!
//! Shapes: pairs `M`. Row `i` of the logits is image `i`, column `j` report `j`; the diagonal has the pairs. `left_out` is true
//! for pairs of an image and a report that are neither a pair nor negatives of one another; it is false on the diagonal.

use tch::{Kind, Tensor};

/// A loss, and its parts by pair, whose mean it is.
#[derive(Debug)]
pub struct PairLoss {
    /// The loss, a scalar.
    pub total: Tensor,
    /// The loss of each pair, `[M]`.
    pub each: Tensor,
}

/// InfoNCE in both directions: the mean of the cross-entropies of images among reports and of reports among images (Radford et
/// al. 2021, figure 3). Logits `[M, M]`.
pub fn info_nce(logits: &Tensor, left_out: &Tensor) -> PairLoss {
    let each = (entropy(logits, left_out, 1) + entropy(logits, left_out, 0)) / 2.0;
    PairLoss { total: each.mean(Kind::Float), each }
}

/// InfoNCE with a weight a pair, as in MaCo's code (SZUHvern/MaCo, `model_MaCo.py`): the mean of four cross-entropies. Two are of
/// logits times the weight of their pair, through which the weights learn; two are means by the weights, through which they do
/// not. Logits `[M, M]`, weights `[M]`.
pub fn weighted_info_nce(logits: &Tensor, left_out: &Tensor, weights: &Tensor) -> PairLoss {
    let sharpened =
        entropy(&(logits * weights.unsqueeze(1)), left_out, 1) + entropy(&(logits * weights.unsqueeze(0)), left_out, 0); // [M]
    let share = weights.detach() / weights.detach().mean(Kind::Float); // [M], of mean 1
    let averaged = (entropy(logits, left_out, 1) + entropy(logits, left_out, 0)) * share;
    let each = (sharpened + averaged) / 4.0;
    PairLoss { total: each.mean(Kind::Float), each }
}

/// The sigmoid loss: every image with every report, as a pair or not, summed and divided by the number of pairs (Zhai et al. 2023,
/// equation 1). Logits `[M, M]` with their bias.
pub fn pairwise_sigmoid(logits: &Tensor, left_out: &Tensor) -> PairLoss {
    let pairs = logits.size()[0];
    let labels = Tensor::eye(pairs, (Kind::Float, logits.device())) * 2.0 - 1.0; // 1 for pairs, -1 for others
    let each =
        -(logits * labels).log_sigmoid().masked_fill(left_out, 0.0).sum_dim_intlist([1_i64].as_slice(), false, None);
    PairLoss { total: each.mean(Kind::Float), each }
}

/// Cross-entropy of the diagonal along a dimension: `[M, M]` → `[M]`.
fn entropy(logits: &Tensor, left_out: &Tensor, dim: i64) -> Tensor {
    -logits.masked_fill(left_out, f64::NEG_INFINITY).log_softmax(dim, None).diagonal(0, 0, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [[f64; 3]; 3] = [[1.0, -0.5, 2.0], [0.3, 0.7, -1.0], [0.2, 1.5, -0.4]];
    /// Image 0 and report 2 are of the same report as pair 0 and pair 2.
    const LEFT_OUT: [[bool; 3]; 3] = [[false, false, true], [false, false, false], [true, false, false]];

    fn tensors() -> (Tensor, Tensor) {
        (Tensor::from_slice2(&LOGITS).to_kind(Kind::Float), Tensor::from_slice2(&LEFT_OUT))
    }

    /// Cross-entropy of `at` among the entries that count.
    fn by_hand(row: [f64; 3], left_out: [bool; 3], at: usize) -> f64 {
        let sum: f64 = (0..3).filter(|&j| !left_out[j]).map(|j| row[j].exp()).sum();
        sum.ln() - row[at]
    }

    fn column<T: Copy>(table: [[T; 3]; 3], j: usize) -> [T; 3] {
        table.map(|row| row[j])
    }

    fn assert_close(loss: &PairLoss, expected: f64) {
        let got = loss.total.double_value(&[]);
        assert!((got - expected).abs() < 1e-5, "{got} for {expected}");
        assert!((loss.each.mean(Kind::Float).double_value(&[]) - got).abs() < 1e-6);
    }

    #[test]
    fn info_nce_is_the_mean_of_both_directions_over_the_pairs_that_count() {
        let (logits, left_out) = tensors();
        let sum: f64 = (0..3)
            .map(|i| by_hand(LOGITS[i], LEFT_OUT[i], i) + by_hand(column(LOGITS, i), column(LEFT_OUT, i), i))
            .sum();
        assert_close(&info_nce(&logits, &left_out), sum / 6.0);
    }

    #[test]
    fn weights_sharpen_logits_and_average_pairs() {
        let (logits, left_out) = tensors();
        let weights = [0.5, 1.0, 2.0];
        let of_pair = |i: usize| {
            let scaled = |row: [f64; 3]| row.map(|value| value * weights[i]);
            let (row, col) = (LOGITS[i], column(LOGITS, i));
            let (row_out, col_out) = (LEFT_OUT[i], column(LEFT_OUT, i));
            let sharpened = by_hand(scaled(row), row_out, i) + by_hand(scaled(col), col_out, i);
            (sharpened, weights[i] * (by_hand(row, row_out, i) + by_hand(col, col_out, i)))
        };
        let (sharpened, averaged): (Vec<f64>, Vec<f64>) = (0..3).map(of_pair).unzip();
        let (sharpened, averaged): (f64, f64) = (sharpened.iter().sum(), averaged.iter().sum());
        let expected = (sharpened / 3.0 + averaged / weights.iter().sum::<f64>()) / 4.0;
        let weights = Tensor::from_slice(&weights).to_kind(Kind::Float);
        assert_close(&weighted_info_nce(&logits, &left_out, &weights), expected);
    }

    #[test]
    fn the_sigmoid_loss_counts_every_pair_once() {
        let (logits, left_out) = tensors();
        let of_pair = |i: usize, j: usize| {
            let label = if i == j { 1.0 } else { -1.0 };
            if LEFT_OUT[i][j] { 0.0 } else { (1.0 + (-label * LOGITS[i][j]).exp()).ln() }
        };
        let sum: f64 = (0..3).flat_map(|i| (0..3).map(move |j| of_pair(i, j))).sum();
        assert_close(&pairwise_sigmoid(&logits, &left_out), sum / 3.0);
    }

    #[test]
    fn a_single_pair_has_no_negatives() {
        let (one, out) = (Tensor::from_slice2(&[[3.0_f32]]), Tensor::from_slice2(&[[false]]));
        assert_close(&info_nce(&one, &out), 0.0);
        assert_close(&pairwise_sigmoid(&one, &out), (1.0 + (-3.0_f64).exp()).ln());
    }
}
