//! ROC, precision-recall and reliability curves of one class.

use serde::{Deserialize, Serialize};

use super::metrics::BINS;

/// A point of an ROC or precision-recall curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// False positive rate, or recall.
    pub x: f64,
    /// True positive rate (sensitivity), or precision.
    pub y: f64,
    /// Records from this score on count as positive; none: no record does.
    pub threshold: Option<f32>,
}

/// The records of a reliability diagram whose scores are in one interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Number of records.
    pub records: u64,
    /// Mean of their scores.
    pub mean_score: f64,
    /// Share of positives among them.
    pub positive_share: f64,
}

/// The curves of one class. Rows without a label do not count; a NaN score leaves all curves empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Curves {
    /// From (0, 0) to (1, 1). Points on a straight line between others are left out, which changes neither the curve nor its
    /// area. Empty without a positive and a negative.
    pub roc: Vec<Point>,
    /// One point for each threshold that changes the recall, and the last one before it. Empty without a positive.
    pub precision_recall: Vec<Point>,
    /// Reliability in [`BINS`] bins of equal width: those of the expected calibration error. Empty bins are left out. Empty
    /// unless all scores are within 0..1.
    pub calibration: Vec<Bin>,
    /// Reliability in at most [`BINS`] bins of equally many records (adaptive bins, Nixon et al. 2019); equal scores share a
    /// bin.
    pub adaptive: Vec<Bin>,
}

/// Numbers of records from a threshold on.
#[derive(Clone, Copy)]
struct Step {
    threshold: f32,
    positives: u64,
    negatives: u64,
}

impl Curves {
    /// The curves of pairs of score and label, one per row.
    pub fn of(rows: impl Iterator<Item = (f32, Option<bool>)>) -> Self {
        let mut labeled: Vec<(f32, bool)> = rows.filter_map(|(score, label)| Some((score, label?))).collect();
        if labeled.iter().any(|(score, _)| score.is_nan()) {
            return Self::default();
        }
        labeled.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut steps: Vec<Step> = Vec::new();
        let (mut positives, mut negatives) = (0, 0);
        for (at, &(score, positive)) in labeled.iter().enumerate() {
            positives += u64::from(positive);
            negatives += u64::from(!positive);
            if labeled.get(at + 1).is_none_or(|next| next.0 != score) {
                steps.push(Step { threshold: score, positives, negatives });
            }
        }
        let probabilities = labeled.iter().all(|(score, _)| (0.0..=1.0).contains(score));
        labeled.reverse();
        Self {
            roc: roc(&steps, positives, negatives),
            precision_recall: precision_recall(&steps, positives),
            calibration: if probabilities { equal_width(&labeled) } else { Vec::new() },
            adaptive: if probabilities { equal_counts(&labeled) } else { Vec::new() },
        }
    }
}

/// The expected calibration error over some bins: the mean distance of score and share of positives; none without records.
pub fn calibration_error(bins: &[Bin]) -> Option<f64> {
    let records: u64 = bins.iter().map(|bin| bin.records).sum();
    let gaps: f64 = bins.iter().map(|bin| bin.records as f64 * (bin.mean_score - bin.positive_share).abs()).sum();
    (records > 0).then(|| gaps / records as f64)
}

fn roc(steps: &[Step], positives: u64, negatives: u64) -> Vec<Point> {
    if positives == 0 || negatives == 0 {
        return Vec::new();
    }
    let rate = |step: &Step| (step.negatives as f64 / negatives as f64, step.positives as f64 / positives as f64);
    let mut points = vec![Point { x: 0.0, y: 0.0, threshold: None }];
    let mut before = (0, 0); // of the last point that was kept
    for (at, step) in steps.iter().enumerate() {
        let bends = steps.get(at + 1).is_none_or(|next| {
            let (x, y) = (step.negatives - before.0, step.positives - before.1);
            let (next_x, next_y) = (next.negatives - step.negatives, next.positives - step.positives);
            u128::from(x) * u128::from(next_y) != u128::from(next_x) * u128::from(y)
        });
        if bends {
            let (x, y) = rate(step);
            points.push(Point { x, y, threshold: Some(step.threshold) });
            before = (step.negatives, step.positives);
        }
    }
    points
}

fn precision_recall(steps: &[Step], positives: u64) -> Vec<Point> {
    if positives == 0 {
        return Vec::new();
    }
    let found = |at: usize| steps.get(at).map(|step| step.positives);
    let is_kept = |at: &usize| {
        let before = if *at == 0 { Some(0) } else { found(at - 1) };
        found(*at) != before || found(at + 1).is_some_and(|next| Some(next) != found(*at))
    };
    let point = |at: usize| {
        let Step { threshold, positives: found, negatives } = steps[at];
        let (x, y) = (found as f64 / positives as f64, found as f64 / (found + negatives) as f64);
        Point { x, y, threshold: Some(threshold) }
    };
    (0..steps.len()).filter(is_kept).map(point).collect()
}

/// Bins of equal width of rows in ascending order of their scores.
fn equal_width(rows: &[(f32, bool)]) -> Vec<Bin> {
    let bin = |score: f32| ((score * BINS as f32) as u32).min(BINS - 1);
    rows.chunk_by(|a, b| bin(a.0) == bin(b.0)).map(bin_of).collect()
}

/// Bins of equally many rows, which are in ascending order of their scores.
fn equal_counts(rows: &[(f32, bool)]) -> Vec<Bin> {
    let (mut bins, mut from) = (Vec::new(), 0);
    for number in 1..=BINS as usize {
        let mut end = rows.len() * number / BINS as usize;
        if end <= from {
            continue;
        }
        while end < rows.len() && rows[end].0 == rows[end - 1].0 {
            end += 1;
        }
        bins.push(bin_of(&rows[from..end]));
        from = end;
    }
    bins
}

fn bin_of(rows: &[(f32, bool)]) -> Bin {
    let records = rows.len() as f64;
    Bin {
        records: rows.len() as u64,
        mean_score: rows.iter().map(|row| f64::from(row.0)).sum::<f64>() / records,
        positive_share: rows.iter().filter(|row| row.1).count() as f64 / records,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::Ranking;
    use dataset::random::Stream;

    fn rows(count: usize, levels: f64) -> Vec<(f32, Option<bool>)> {
        let mut random = Stream::new(&[count as u64]);
        let row = |_| {
            let positive = random.uniform() < 0.2;
            let score = (random.uniform() * 0.8 + if positive { 0.2 } else { 0.0 }) * levels;
            ((score.floor() / levels) as f32, (random.uniform() < 0.9).then_some(positive))
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn areas_under_the_curves_are_the_metrics() {
        for levels in [7.0, 1e6] {
            let rows = rows(500, levels);
            let (curves, scores) = (Curves::of(rows.iter().copied()), Ranking::of(rows.iter().copied()).scores());
            let area: f64 =
                curves.roc.windows(2).map(|pair| (pair[1].x - pair[0].x) * f64::midpoint(pair[0].y, pair[1].y)).sum();
            assert!((area - scores.auroc.unwrap()).abs() < 1e-12, "{area}");
            let last = curves.roc.last().unwrap();
            assert_eq!((last.x, last.y, curves.roc[0].threshold), (1.0, 1.0, None));
            let mut recall = 0.0;
            let mut precision = 0.0;
            for point in &curves.precision_recall {
                precision += (point.x - recall) * point.y;
                recall = point.x;
            }
            assert!((precision - scores.average_precision.unwrap()).abs() < 1e-12, "{precision}");
            let error = calibration_error(&curves.calibration).unwrap();
            assert!((error - scores.calibration_error.unwrap()).abs() < 1e-12, "{error}");
        }
    }

    #[test]
    fn every_point_is_what_its_threshold_gives() {
        let rows = rows(120, 9.0);
        let curves = Curves::of(rows.iter().copied());
        let count = |threshold: f32, wanted: bool| {
            rows.iter().filter(|(score, label)| *score >= threshold && *label == Some(wanted)).count() as f64
        };
        let (positives, negatives) = (count(0.0, true), count(0.0, false));
        for point in curves.roc.iter().skip(1) {
            let at = point.threshold.unwrap();
            assert_eq!((point.x, point.y), (count(at, false) / negatives, count(at, true) / positives));
        }
        for point in &curves.precision_recall {
            let at = point.threshold.unwrap();
            let predicted = count(at, true) + count(at, false);
            assert_eq!((point.x, point.y), (count(at, true) / positives, count(at, true) / predicted));
        }
    }

    #[test]
    fn points_that_the_curves_do_not_need_are_left_out() {
        let thresholds = |points: &[Point]| points.iter().map(|point| point.threshold).collect::<Vec<_>>();
        let both = |score: f32| [(score, Some(true)), (score, Some(false))];
        let rows = [(0.9, Some(true)), (0.6, Some(false))].into_iter();
        let curves = Curves::of(rows.chain([0.8, 0.7, 0.5, 0.4].into_iter().flat_map(both)));
        // Straight at 0.8 and 0.5: from (0, 1) to (2, 3), and from (3, 3) to (5, 5) records.
        assert_eq!(thresholds(&curves.roc), [None, Some(0.9), Some(0.7), Some(0.6), Some(0.4)]);
        let rows = [(0.9, true), (0.8, false), (0.7, false), (0.6, true), (0.5, false)];
        let curves = Curves::of(rows.into_iter().map(|(score, positive)| (score, Some(positive))));
        assert_eq!(thresholds(&curves.precision_recall), [Some(0.9), Some(0.7), Some(0.6)]);
    }

    #[test]
    fn a_score_of_one_is_in_the_last_bin() {
        let rows = [(0.92, Some(false)), (0.94, Some(false)), (1.0, Some(true))];
        let bins = Curves::of(rows.into_iter()).calibration;
        assert_eq!(bins.iter().map(|bin| bin.records).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn adaptive_bins_have_equally_many_records() {
        let distinct: Vec<_> = (0..150).map(|row| (row as f32 / 150.0, Some(row % 3 == 0))).collect();
        let bins = Curves::of(distinct.into_iter()).adaptive;
        assert!(bins.len() == 15 && bins.iter().all(|bin| bin.records == 10), "{bins:?}");
        assert!((bins[0].mean_score - 4.5 / 150.0).abs() < 1e-7 && bins[0].positive_share == 0.4, "{bins:?}");
        // Equal scores are not divided.
        let tied: Vec<_> = (0..150).map(|row| (if row < 100 { 0.25 } else { 0.75 }, Some(row < 50))).collect();
        let bins = Curves::of(tied.into_iter()).adaptive;
        assert_eq!(bins.iter().map(|bin| (bin.records, bin.mean_score)).collect::<Vec<_>>(), [(100, 0.25), (50, 0.75)]);
        assert!((calibration_error(&bins).unwrap() - (100.0 * 0.25 + 50.0 * 0.75) / 150.0).abs() < 1e-12);
    }

    #[test]
    fn what_is_undefined_is_empty() {
        assert_eq!(Curves::of([(f32::NAN, Some(true)), (0.5, Some(false))].into_iter()), Curves::default());
        let negatives = Curves::of([(0.2, Some(false)), (0.5, Some(false))].into_iter());
        assert!(negatives.roc.is_empty() && negatives.precision_recall.is_empty() && negatives.calibration.len() == 2);
        let logits = Curves::of([(-2.0, Some(false)), (3.0, Some(true))].into_iter());
        assert!(logits.calibration.is_empty() && logits.roc.len() == 3, "{logits:?}");
        assert_eq!(calibration_error(&[]), None);
    }
}
