//! Metrics of predictions: AUROC, average precision, sensitivity at a specificity, Brier score, calibration error, Dice.
//!
//! Definitions are scikit-learn's: tied scores share their rank in the AUROC and are one threshold in the average precision.
//! An undefined metric is none, not NaN.

use serde::{Deserialize, Serialize};

/// Scores of one class, sorted once; computing its metrics is then linear in the number of rows, for any weights of the rows.
///
/// Rows without a label do not count. A NaN score makes all metrics undefined.
#[derive(Debug, Clone)]
pub struct Ranking {
    ranks: Vec<Rank>, // from the highest score to the lowest
    valid: bool,
    probabilities: bool, // all scores are within 0..1
    specificity: f64,
}

/// A labeled row in the sorted order.
#[derive(Debug, Clone, Copy)]
struct Rank {
    row: u32,
    score: f32,
    positive: bool,
    ends_tie: bool, // the next row has a lower score
    ends_bin: bool, // the next row is in another calibration bin
}

/// One value per metric; none where undefined.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Scores<T = f64> {
    /// Area under the receiver operating characteristic; needs a positive and a negative.
    pub auroc: Option<T>,
    /// Average precision; needs a positive.
    pub average_precision: Option<T>,
    /// The highest sensitivity of a threshold with at least the requested specificity; needs a positive and a negative.
    pub sensitivity: Option<T>,
    /// Mean squared error of the probability (Brier 1950); needs a row, and scores within 0..1.
    pub brier: Option<T>,
    /// Expected calibration error (Naeini et al. 2015) of the positive class over [`BINS`] bins of equal width; needs a row, and
    /// scores within 0..1.
    pub calibration_error: Option<T>,
}

/// Bins of the calibration error.
pub const BINS: u32 = 15;

/// The default specificity at which sensitivity is computed.
pub const SPECIFICITY: f64 = 0.9;

impl<T> Scores<T> {
    /// The metrics in the order of the fields.
    pub fn of([auroc, average_precision, sensitivity, brier, calibration_error]: [Option<T>; 5]) -> Self {
        Self { auroc, average_precision, sensitivity, brier, calibration_error }
    }

    /// The metrics in the order of the fields.
    pub fn values(self) -> [Option<T>; 5] {
        [self.auroc, self.average_precision, self.sensitivity, self.brier, self.calibration_error]
    }
}

impl Ranking {
    /// Sorts rows by score. If one slice is longer, its additional rows are left out.
    pub fn new(scores: &[f32], labels: &[Option<bool>]) -> Self {
        Self::of(scores.iter().copied().zip(labels.iter().copied()))
    }

    /// Sorts pairs of score and label, one per row.
    #[expect(clippy::float_cmp, reason = "scores are tied when they are equal")]
    pub fn of(rows: impl Iterator<Item = (f32, Option<bool>)>) -> Self {
        let mut labeled: Vec<(f32, u32, bool)> = rows
            .enumerate()
            .filter_map(|(row, (score, label))| label.map(|positive| (score, row as u32, positive)))
            .collect();
        labeled.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let valid = !labeled.iter().any(|(score, ..)| score.is_nan());
        let probabilities = labeled.iter().all(|(score, ..)| (0.0..=1.0).contains(score));
        let bin = |score: f32| ((score * BINS as f32) as u32).min(BINS - 1);
        let ranks = labeled
            .iter()
            .enumerate()
            .map(|(i, &(score, row, positive))| {
                let next = labeled.get(i + 1).map(|next| next.0);
                let ends_tie = next.is_none_or(|next| next != score);
                let ends_bin = next.is_none_or(|next| bin(next) != bin(score));
                Rank { row, score, positive, ends_tie, ends_bin }
            })
            .collect();
        Self { ranks, valid, probabilities, specificity: SPECIFICITY }
    }

    /// Sets the specificity at which sensitivity is computed, 0 to 1.
    #[must_use]
    pub fn at_specificity(mut self, specificity: f64) -> Self {
        self.specificity = specificity;
        self
    }

    /// The metrics with every row counted once.
    pub fn scores(&self) -> Scores {
        self.count(|_| 1)
    }

    /// The metrics with row `i` counted `weights[i]` times.
    ///
    /// # Panics
    /// When `weights` is shorter than the number of rows.
    pub fn weighted(&self, weights: &[u32]) -> Scores {
        self.count(|row| u64::from(weights[row as usize]))
    }

    /// Computes the metrics in two passes over the sorted rows: the first counts negatives, the second goes tie by tie.
    fn count(&self, weight: impl Fn(u32) -> u64) -> Scores {
        if !self.valid {
            return Scores::of([None; 5]);
        }
        let all_negatives: u64 = self.ranks.iter().map(|rank| u64::from(!rank.positive) * weight(rank.row)).sum();
        let most_false = (all_negatives as f64 * (1.0 - self.specificity) + ROUNDING) as u64;
        let (mut positives, mut negatives) = (0_u64, 0_u64); // seen so far
        let (mut tied_positives, mut tied_negatives) = (0_u64, 0_u64);
        let mut halves = 0_u128; // twice the pairs in the right order, ties counting one half
        let (mut precision, mut detected) = (0.0, 0_u64);
        let (mut square, mut gap, mut of_bin) = (0.0, 0.0, 0.0);
        for rank in &self.ranks {
            let weight = weight(rank.row);
            // Without a branch, since labels in score order are hard to predict.
            let positive = u64::from(rank.positive) * weight;
            tied_positives += positive;
            tied_negatives += weight - positive;
            let error = f64::from(rank.score) - f64::from(u8::from(rank.positive));
            square += weight as f64 * error * error;
            of_bin += weight as f64 * error;
            if rank.ends_tie {
                halves += u128::from(tied_negatives * (2 * positives + tied_positives));
                positives += tied_positives;
                negatives += tied_negatives;
                if negatives <= most_false {
                    detected = positives;
                }
                if tied_positives > 0 {
                    precision += tied_positives as f64 * (positives as f64 / (positives + negatives) as f64);
                }
                (tied_positives, tied_negatives) = (0, 0);
            }
            if rank.ends_bin {
                gap += of_bin.abs();
                of_bin = 0.0;
            }
        }
        let (pairs, rows) = (positives as f64 * negatives as f64, (positives + negatives) as f64);
        let calibrated = self.probabilities && rows > 0.0;
        Scores {
            auroc: (pairs > 0.0).then(|| halves as f64 / (2.0 * pairs)),
            average_precision: (positives > 0).then(|| precision / positives as f64),
            sensitivity: (pairs > 0.0).then(|| detected as f64 / positives as f64),
            brier: calibrated.then(|| square / rows),
            calibration_error: calibrated.then(|| gap / rows),
        }
    }
}

/// Added before truncation, so that a tenth of thirty rows is three.
const ROUNDING: f64 = 1e-9;

/// Area under the receiver operating characteristic; none unless both labels occur.
pub fn auroc(scores: &[f32], labels: &[Option<bool>]) -> Option<f64> {
    Ranking::new(scores, labels).scores().auroc
}

/// The mean of the values that are defined; none if none is.
pub fn mean_defined(values: impl IntoIterator<Item = Option<f64>>) -> Option<f64> {
    let (sum, count) = values.into_iter().flatten().fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(bits: &[u8]) -> Vec<Option<bool>> {
        bits.iter().map(|&bit| Some(bit == 1)).collect()
    }

    fn average_precision(scores: &[f32], labels: &[Option<bool>]) -> Option<f64> {
        Ranking::new(scores, labels).scores().average_precision
    }

    #[test]
    fn ties_count_one_half() {
        let scores = [0.1, 0.4, 0.4, 0.8];
        assert_eq!(auroc(&scores, &labels(&[0, 0, 1, 1])), Some(0.875));
        assert_eq!(auroc(&[0.5; 4], &labels(&[0, 1, 0, 1])), Some(0.5));
        assert_eq!(auroc(&[0.0, -0.0], &labels(&[0, 1])), Some(0.5));
    }

    #[test]
    fn average_precision_takes_ties_as_one_threshold() {
        // Thresholds 0.8 (1 of 1), 0.4 (2 of 3): 0.5·1 + 0.5·2/3.
        let value = average_precision(&[0.1, 0.4, 0.4, 0.8], &labels(&[0, 0, 1, 1])).unwrap();
        assert!((value - (0.5 + 1.0 / 3.0)).abs() < 1e-15);
    }

    #[test]
    fn undefined_metrics_are_none() {
        assert_eq!(auroc(&[0.1, 0.2], &labels(&[1, 1])), None);
        assert_eq!(average_precision(&[0.1, 0.2], &labels(&[1, 1])), Some(1.0));
        assert_eq!(average_precision(&[0.1, 0.2], &labels(&[0, 0])), None);
        assert_eq!(auroc(&[], &[]), None);
        assert_eq!(auroc(&[f32::NAN, 0.2], &labels(&[0, 1])), None);
        let none = Ranking::new(&[0.5], &[None]).scores();
        assert_eq!((none.brier, none.calibration_error), (None, None));
    }

    #[test]
    fn a_score_of_one_is_in_the_last_bin() {
        let scores = Ranking::new(&[0.94, 1.0], &labels(&[1, 0])).scores();
        // Errors of -0.06 and 1 in one bin.
        assert!((scores.calibration_error.unwrap() - 0.47).abs() < 1e-7, "{scores:?}");
    }

    #[test]
    fn specificity_counts_weighted_negatives() {
        let ranking = Ranking::new(&[0.9, 0.8, 0.7, 0.6], &labels(&[1, 0, 1, 0])).at_specificity(0.9);
        let sensitivity = |weight| ranking.weighted(&[1, 1, 1, weight]).sensitivity.unwrap();
        // One false positive of nine, or of ten negatives.
        assert_eq!((sensitivity(8), sensitivity(9)), (0.5, 1.0));
    }

    #[test]
    fn rows_without_a_label_do_not_count() {
        let with = [Some(false), None, Some(true), None, Some(false)];
        let value = auroc(&[0.2, 0.9, 0.5, f32::NAN, 0.7], &with);
        assert_eq!(value, auroc(&[0.2, 0.5, 0.7], &labels(&[0, 1, 0])));
        assert_eq!(value, Some(0.5));
    }

    #[test]
    fn a_weight_counts_as_a_repetition() {
        let (scores, bits) = ([0.3, 0.6, 0.6, 0.1, 0.9], [0, 1, 0, 1, 0]);
        let weights = [2, 0, 3, 1, 1];
        let repeat = |i: usize| std::iter::repeat_n(i, weights[i] as usize);
        let rows: Vec<usize> = (0..5).flat_map(repeat).collect();
        let repeated = Ranking::of(rows.iter().map(|&i| (scores[i], Some(bits[i] == 1))));
        assert_eq!(Ranking::new(&scores, &labels(&bits)).weighted(&weights), repeated.scores());
    }

    #[test]
    fn sensitivity_is_that_of_the_lowest_threshold_that_is_specific_enough() {
        let (scores, bits) = ([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], [1, 0, 1, 1, 0, 0, 0]);
        let at = |specificity: f64| {
            Ranking::new(&scores, &labels(&bits)).at_specificity(specificity).scores().sensitivity.unwrap()
        };
        assert_eq!((at(1.0), at(0.75), at(0.74), at(0.0)), (1.0 / 3.0, 1.0, 1.0, 1.0));
        // A tie is one threshold.
        let tied = Ranking::new(&[0.9, 0.9, 0.1], &labels(&[1, 0, 0])).at_specificity(0.9).scores();
        assert_eq!(tied.sensitivity, Some(0.0));
        assert_eq!(Ranking::new(&[0.2], &labels(&[1])).scores().sensitivity, None);
    }

    #[test]
    fn brier_and_calibration_equal_those_by_hand() {
        let scores = Ranking::new(&[0.9, 0.95, 0.2, 0.21], &labels(&[1, 0, 0, 1])).scores();
        let brier = (0.1_f64.powi(2) + 0.95_f64.powi(2) + 0.2_f64.powi(2) + 0.79_f64.powi(2)) / 4.0;
        assert!((scores.brier.unwrap() - brier).abs() < 1e-7);
        // 0.9 and 0.95 are in bins of their own, 0.2 (bin 3) and 0.21 share one.
        let error = (0.1 + 0.95 + (0.41_f64 - 1.0).abs()) / 4.0;
        assert!((scores.calibration_error.unwrap() - error).abs() < 1e-7, "{scores:?}");
        let logits = Ranking::new(&[-3.0, 2.0], &labels(&[0, 1])).scores();
        assert_eq!((logits.auroc, logits.brier, logits.calibration_error), (Some(1.0), None, None));
    }

    #[test]
    fn means_leave_out_undefined_values() {
        assert_eq!(mean_defined([Some(1.0), None, Some(2.0)]), Some(1.5));
        assert_eq!(mean_defined([None]), None);
    }
}
