//! Metrics of decisions: a record counts as positive where its score is at least a threshold.
//!
//! The threshold is chosen on other records, by [`f1_threshold`], and is then fixed: intervals do not include its choice.

use serde::{Deserialize, Serialize};

/// Numbers of decisions by their outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Positive records at or above the threshold.
    pub true_positives: u64,
    /// Negative records at or above it.
    pub false_positives: u64,
    /// Positive records below it.
    pub false_negatives: u64,
    /// Negative records below it.
    pub true_negatives: u64,
}

/// One value per metric; none where undefined.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DecisionScores<T = f64> {
    /// `2·TP / (2·TP + FP + FN)`; needs a positive, or one that is predicted.
    pub f1: Option<T>,
    /// Share of right decisions; needs a record.
    pub accuracy: Option<T>,
    /// `TP / (TP + FN)`; needs a positive.
    pub sensitivity: Option<T>,
    /// `TN / (TN + FP)`; needs a negative.
    pub specificity: Option<T>,
    /// Positive predictive value, `TP / (TP + FP)`; needs a predicted positive.
    pub ppv: Option<T>,
    /// Negative predictive value, `TN / (TN + FN)`; needs a predicted negative.
    pub npv: Option<T>,
}

impl<T> DecisionScores<T> {
    /// Names of the metrics in tables, in the order of [`values`](Self::values).
    pub const NAMES: [&'static str; 6] = ["F1", "accuracy", "sensitivity", "specificity", "PPV", "NPV"];

    /// The metrics in the order of the fields.
    pub fn of([f1, accuracy, sensitivity, specificity, ppv, npv]: [Option<T>; 6]) -> Self {
        Self { f1, accuracy, sensitivity, specificity, ppv, npv }
    }

    /// The metrics in the order of the fields.
    pub fn values(self) -> [Option<T>; 6] {
        [self.f1, self.accuracy, self.sensitivity, self.specificity, self.ppv, self.npv]
    }
}

impl Confusion {
    /// The metrics of these numbers.
    pub fn scores(self) -> DecisionScores {
        let Self { true_positives: tp, false_positives: fp, false_negatives: missed, true_negatives: tn } = self;
        let share = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        DecisionScores {
            f1: share(2 * tp, 2 * tp + fp + missed),
            accuracy: share(tp + tn, tp + fp + missed + tn),
            sensitivity: share(tp, tp + missed),
            specificity: share(tn, tn + fp),
            ppv: share(tp, tp + fp),
            npv: share(tn, tn + missed),
        }
    }
}

impl std::ops::Add for Confusion {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            true_positives: self.true_positives + other.true_positives,
            false_positives: self.false_positives + other.false_positives,
            false_negatives: self.false_negatives + other.false_negatives,
            true_negatives: self.true_negatives + other.true_negatives,
        }
    }
}

/// The decisions on the labeled rows of one class.
#[derive(Debug, Clone)]
pub struct Decisions {
    /// Row, and the number of its outcome: 2 for a predicted positive, plus 1 for a positive.
    rows: Vec<(u32, u8)>,
}

impl Decisions {
    /// Decides on pairs of score and label, one per row; rows without a label do not count. None where a score is NaN.
    pub fn new(rows: impl Iterator<Item = (f32, Option<bool>)>, threshold: f32) -> Option<Self> {
        let decided = rows.enumerate().filter_map(|(row, (score, label))| {
            let outcome = 2 * u8::from(score >= threshold) + u8::from(label?);
            Some((!score.is_nan()).then_some((row as u32, outcome)))
        });
        Some(Self { rows: decided.collect::<Option<_>>()? })
    }

    /// The outcomes with row `i` counted `weights[i]` times.
    ///
    /// # Panics
    /// When `weights` is shorter than the number of rows.
    pub fn weighted(&self, weights: &[u32]) -> Confusion {
        let mut counts = [0_u64; 4];
        for &(row, outcome) in &self.rows {
            counts[usize::from(outcome & 3)] += u64::from(weights[row as usize]);
        }
        let [true_negatives, false_negatives, false_positives, true_positives] = counts;
        Confusion { true_positives, false_positives, false_negatives, true_negatives }
    }
}

/// The threshold with the highest F1 on pairs of score and label, among the scores that occur; of several with the same F1 the
/// highest. None without a positive, or where a score is NaN.
pub fn f1_threshold(rows: impl Iterator<Item = (f32, Option<bool>)>) -> Option<f32> {
    let mut labeled: Vec<(f32, bool)> = rows.filter_map(|(score, label)| Some((score, label?))).collect();
    if labeled.iter().any(|(score, _)| score.is_nan()) {
        return None;
    }
    labeled.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let positives = labeled.iter().filter(|(_, positive)| *positive).count() as u64;
    let mut best: Option<(f32, u64, u64)> = None; // threshold, and its F1 as the fraction of two numbers
    let mut found = 0_u64;
    for (at, &(score, positive)) in labeled.iter().enumerate() {
        found += u64::from(positive);
        let ends_tie = labeled.get(at + 1).is_none_or(|next| next.0 != score);
        // F1 = 2·TP / (predicted + positives); the factor does not matter here.
        let (part, whole) = (found, at as u64 + 1 + positives);
        let is_better = |(_, other_part, other_whole): (f32, u64, u64)| {
            u128::from(part) * u128::from(other_whole) > u128::from(other_part) * u128::from(whole)
        };
        if ends_tie && found > 0 && best.is_none_or(is_better) {
            best = Some((score, part, whole));
        }
    }
    best.map(|(threshold, ..)| threshold)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dataset::random::Stream;

    fn rows(count: usize, seed: u64) -> Vec<(f32, Option<bool>)> {
        let mut random = Stream::new(&[seed]);
        let row = |_| {
            let positive = random.uniform() < 0.3;
            // Few distinct scores, so that there are ties.
            let score = (random.uniform() * 20.0 + if positive { 6.0 } else { 0.0 }).floor() / 26.0;
            (score as f32, (random.uniform() < 0.9).then_some(positive))
        };
        (0..count).map(row).collect()
    }

    /// The numbers and metrics by their definitions, one record after the other.
    fn by_definition(rows: &[(f32, Option<bool>)], threshold: f32) -> (Confusion, Option<f64>) {
        let count = |predicted: bool, label: bool| {
            rows.iter().filter(|(score, of_row)| (*score >= threshold) == predicted && *of_row == Some(label)).count()
        };
        let [tp, fp, missed, tn] = [count(true, true), count(true, false), count(false, true), count(false, false)];
        let confusion = Confusion {
            true_positives: tp as u64,
            false_positives: fp as u64,
            false_negatives: missed as u64,
            true_negatives: tn as u64,
        };
        let (precision, recall) = (tp as f64 / (tp + fp) as f64, tp as f64 / (tp + missed) as f64);
        (confusion, (tp > 0).then(|| 2.0 * precision * recall / (precision + recall)))
    }

    #[test]
    fn sums_are_of_each_outcome() {
        let confusion = |n: u64| Confusion {
            true_positives: n,
            false_positives: 2 * n,
            false_negatives: 3 * n,
            true_negatives: 4 * n,
        };
        assert_eq!(confusion(2) + confusion(5), confusion(7));
    }

    #[test]
    fn decisions_are_counted_by_their_definitions() {
        let rows = rows(300, 1);
        let decisions = Decisions::new(rows.iter().copied(), 0.4).unwrap();
        let (expected, f1) = by_definition(&rows, 0.4);
        let counted = decisions.weighted(&vec![1; rows.len()]);
        assert_eq!(counted, expected);
        let scores = counted.scores();
        assert!((scores.f1.unwrap() - f1.unwrap()).abs() < 1e-15);
        let Confusion { true_positives: tp, false_positives: fp, false_negatives: missed, true_negatives: tn } =
            expected;
        let shares = [(tp + tn, 300 - rows.iter().filter(|row| row.1.is_none()).count() as u64), (tp, tp + missed)];
        assert_eq!(scores.accuracy, Some(shares[0].0 as f64 / shares[0].1 as f64));
        assert_eq!(scores.sensitivity, Some(shares[1].0 as f64 / shares[1].1 as f64));
        assert_eq!(scores.specificity, Some(tn as f64 / (tn + fp) as f64));
        assert_eq!(
            (scores.ppv, scores.npv),
            (Some(tp as f64 / (tp + fp) as f64), Some(tn as f64 / (tn + missed) as f64))
        );
        // A weight counts as a repetition.
        let weights: Vec<u32> = (0..rows.len() as u32).map(|row| row % 4).collect();
        let repeated: Vec<_> = rows.iter().zip(&weights).flat_map(|(row, &w)| vec![*row; w as usize]).collect();
        assert_eq!(decisions.weighted(&weights), by_definition(&repeated, 0.4).0);
        assert_eq!(counted + Confusion::default(), counted);
    }

    #[test]
    fn undefined_metrics_are_none() {
        let negatives = Decisions::new([(0.1, Some(false)), (0.9, None)].into_iter(), 0.5).unwrap();
        let scores = negatives.weighted(&[1, 1]).scores();
        assert_eq!(scores.values(), [None, Some(1.0), None, Some(1.0), None, Some(1.0)]);
        assert!(Decisions::new([(f32::NAN, Some(true))].into_iter(), 0.5).is_none());
        assert!(Decisions::new([(f32::NAN, None)].into_iter(), 0.5).is_some());
        assert_eq!(Confusion::default().scores().values(), [None; 6]);
    }

    #[test]
    fn no_other_threshold_has_a_higher_f1() {
        for seed in 0..20 {
            let rows = rows(60, seed);
            let chosen = f1_threshold(rows.iter().copied()).unwrap();
            let best = by_definition(&rows, chosen).1.unwrap();
            for &(other, _) in &rows {
                let f1 = by_definition(&rows, other).1.unwrap_or(0.0);
                assert!(f1 < best + 1e-12 && (other <= chosen || f1 < best - 1e-12), "{other}: {f1}, {chosen}: {best}");
            }
        }
        assert_eq!(f1_threshold([(0.5, Some(false)), (0.7, None)].into_iter()), None);
        assert_eq!(f1_threshold([(f32::NAN, Some(true))].into_iter()), None);
        assert_eq!(f1_threshold([(0.2, Some(true)), (0.7, Some(true))].into_iter()), Some(0.2));
    }
}
