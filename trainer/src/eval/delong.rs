//! DeLong's variance of an AUROC, and test of two correlated ones (DeLong, DeLong and Clarke-Pearson 1988), by the algorithm of
//! Sun and Xu (2014): from midranks, in `O(n log n)`.
//!
//! The variance counts every record as independent. Records of one patient are not; the bootstrap over patients takes that into
//! account, this does not.

use serde::{Deserialize, Serialize};

use super::normal::{NORMAL_95, two_sided_p};

/// The 95% interval of an AUROC by its variance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DeLongInterval {
    /// Square root of the variance, with all records independent.
    pub standard_error: f64,
    /// AUROC minus 1.96 standard errors, at least 0.
    pub low: f64,
    /// AUROC plus 1.96 standard errors, at most 1.
    pub high: f64,
}

impl DeLongInterval {
    /// The interval from the rows that have a label; none with fewer than two positives or negatives, or where a score is NaN.
    pub fn of(rows: impl Iterator<Item = (f32, Option<bool>)>) -> Option<Self> {
        let Components { auroc, positives, negatives } = Components::new(rows)?;
        let standard_error = (variance_of_mean(&positives) + variance_of_mean(&negatives)).sqrt();
        let width = NORMAL_95 * standard_error;
        Some(Self { standard_error, low: (auroc - width).max(0.0), high: (auroc + width).min(1.0) })
    }
}

/// The difference of two AUROCs on the same records.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DeLong {
    /// AUROC of the first scores.
    pub first: f64,
    /// AUROC of the second scores.
    pub second: f64,
    /// Second minus first.
    pub difference: f64,
    /// Variance of the difference, with all records independent.
    pub variance: f64,
    /// The difference in standard errors; none where the variance is 0.
    pub z: Option<f64>,
    /// Two-sided p-value; 1 for equal AUROCs of variance 0, none for other ones of variance 0.
    pub p: Option<f64>,
}

impl DeLong {
    /// The test on the rows that have a label; none with fewer than two positives or negatives, or where a score is NaN.
    ///
    /// # Panics
    /// When the slices differ in length.
    pub fn test(first: &[f32], second: &[f32], labels: &[Option<bool>]) -> Option<Self> {
        assert!(first.len() == labels.len() && second.len() == labels.len(), "the same rows");
        let components = |scores: &[f32]| Components::new(scores.iter().copied().zip(labels.iter().copied()));
        let [a, b] = [components(first)?, components(second)?];
        let variance_of = |of_first: &[f64], of_second: &[f64]| {
            let differences: Vec<f64> = of_first.iter().zip(of_second).map(|(first, second)| second - first).collect();
            variance_of_mean(&differences)
        };
        let variance = variance_of(&a.positives, &b.positives) + variance_of(&a.negatives, &b.negatives);
        let difference = b.auroc - a.auroc;
        let z = (variance > 0.0).then(|| difference / variance.sqrt());
        let p = z.map(two_sided_p).or((difference == 0.0).then_some(1.0));
        Some(Self { first: a.auroc, second: b.auroc, difference, variance, z, p })
    }
}

/// An AUROC, and the share of it that each row has: DeLong's structural components.
struct Components {
    auroc: f64,
    /// Of each positive, the share of negatives with a lower score; ties count one half.
    positives: Vec<f64>,
    /// Of each negative, the share of positives with a higher score.
    negatives: Vec<f64>,
}

impl Components {
    fn new(rows: impl Iterator<Item = (f32, Option<bool>)>) -> Option<Self> {
        let (mut positives, mut negatives) = (Vec::new(), Vec::new());
        for (score, label) in rows {
            match label {
                Some(true) => positives.push(score),
                Some(false) => negatives.push(score),
                None => {}
            }
        }
        if positives.len() < 2 || negatives.len() < 2 || positives.iter().chain(&negatives).any(|score| score.is_nan())
        {
            return None;
        }
        let (m, n) = (positives.len() as f64, negatives.len() as f64);
        let among_all = midranks(&[positives.as_slice(), negatives.as_slice()].concat());
        let (of_positives, of_negatives) = among_all.split_at(positives.len());
        let shares = |among_all: &[f64], own: Vec<f64>, others: f64| -> Vec<f64> {
            among_all.iter().zip(own).map(|(all, own)| (all - own) / others).collect()
        };
        let below = shares(of_negatives, midranks(&negatives), m);
        Some(Self {
            auroc: (of_positives.iter().sum::<f64>() - m * (m + 1.0) / 2.0) / (m * n),
            positives: shares(of_positives, midranks(&positives), n),
            negatives: below.into_iter().map(|share| 1.0 - share).collect(),
        })
    }
}

/// Ranks from 1 on, in the order of the scores; equal scores share the mean of their ranks.
fn midranks(scores: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_unstable_by(|&a, &b| scores[a].total_cmp(&scores[b]));
    let mut ranks = vec![0.0; scores.len()];
    let mut from = 0;
    while from < order.len() {
        let tied = order[from..].iter().take_while(|&&row| scores[row] == scores[order[from]]).count();
        // Ranks from + 1 to from + tied.
        let rank = (2 * from + tied + 1) as f64 / 2.0;
        order[from..from + tied].iter().for_each(|&row| ranks[row] = rank);
        from += tied;
    }
    ranks
}

/// Sample variance of some values, divided by their number.
fn variance_of_mean(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0) / count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::metrics::auroc;
    use dataset::random::Stream;

    fn rows(count: usize) -> (Vec<f32>, Vec<f32>, Vec<Option<bool>>) {
        let mut random = Stream::new(&[7]);
        let (mut first, mut second, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let positive = random.uniform() < 0.35;
            let shared = random.uniform() + if positive { 0.4 } else { 0.0 };
            // Rounded, so that there are ties.
            let score = |noise: f64| ((shared + noise) * 12.0).round() as f32;
            first.push(score(random.uniform()));
            second.push(score(0.4 * random.uniform()));
            labels.push((random.uniform() < 0.9).then_some(positive));
        }
        (first, second, labels)
    }

    /// Covariance matrix of the two AUROCs from all pairs of a positive and a negative, as DeLong et al. define it.
    fn by_definition(first: &[f32], second: &[f32], labels: &[Option<bool>]) -> ([f64; 2], [[f64; 2]; 2]) {
        let with = |wanted: bool| (0..labels.len()).filter(move |&row| labels[row] == Some(wanted)).collect::<Vec<_>>();
        let (positives, negatives) = (with(true), with(false));
        let (m, n) = (positives.len() as f64, negatives.len() as f64);
        let kernel = |scores: &[f32], x: usize, y: usize| match scores[x].partial_cmp(&scores[y]).unwrap() {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        };
        let scores = [first, second];
        let v10 = scores.map(|scores| -> Vec<f64> {
            positives.iter().map(|&x| negatives.iter().map(|&y| kernel(scores, x, y)).sum::<f64>() / n).collect()
        });
        let v01 = scores.map(|scores| -> Vec<f64> {
            negatives.iter().map(|&y| positives.iter().map(|&x| kernel(scores, x, y)).sum::<f64>() / m).collect()
        });
        let aurocs = [0, 1].map(|at: usize| v10[at].iter().sum::<f64>() / m);
        let covariance = |of: &[Vec<f64>; 2], r: usize, s: usize, count: f64| {
            let terms = of[r].iter().zip(&of[s]).map(|(a, b)| (a - aurocs[r]) * (b - aurocs[s]));
            terms.sum::<f64>() / (count - 1.0)
        };
        let entry = |r: usize, s: usize| covariance(&v10, r, s, m) / m + covariance(&v01, r, s, n) / n;
        (aurocs, [[entry(0, 0), entry(0, 1)], [entry(1, 0), entry(1, 1)]])
    }

    #[test]
    fn the_test_equals_the_definition_over_all_pairs() {
        let (first, second, labels) = rows(240);
        let (aurocs, covariance) = by_definition(&first, &second, &labels);
        let tested = DeLong::test(&first, &second, &labels).unwrap();
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-13, "{a} and {b}");
        close(tested.first, aurocs[0]);
        close(tested.second, auroc(&second, &labels).unwrap());
        close(tested.difference, aurocs[1] - aurocs[0]);
        close(tested.variance, covariance[0][0] + covariance[1][1] - 2.0 * covariance[0][1]);
        close(tested.z.unwrap(), tested.difference / tested.variance.sqrt());
        assert!(covariance[0][1] > 0.0 && tested.difference > 0.0, "{tested:?}");
        let reversed = DeLong::test(&second, &first, &labels).unwrap();
        close(reversed.z.unwrap(), -tested.z.unwrap());
        assert_eq!(reversed.p, tested.p);
        for (scores, at) in [(&first, 0), (&second, 1)] {
            let interval = DeLongInterval::of(scores.iter().copied().zip(labels.iter().copied())).unwrap();
            close(interval.standard_error, covariance[at][at].sqrt());
            close(interval.high - interval.low, 2.0 * 1.959_963_984_540_054 * interval.standard_error);
            close(f64::midpoint(interval.low, interval.high), aurocs[at]);
        }
    }

    #[test]
    fn a_test_without_variance_or_rows_says_so() {
        let (first, _, labels) = rows(80);
        let same = DeLong::test(&first, &first, &labels).unwrap();
        assert_eq!((same.difference, same.variance, same.z, same.p), (0.0, 0.0, None, Some(1.0)));
        // Both rank perfectly in one direction each: a difference without a variance.
        let labels = [false, false, true, true].map(Some);
        let opposite = DeLong::test(&[4.0, 3.0, 2.0, 1.0], &[1.0, 2.0, 3.0, 4.0], &labels).unwrap();
        assert_eq!((opposite.difference, opposite.z, opposite.p), (1.0, None, None));
        assert!(DeLong::test(&[0.1, 0.2, 0.3], &[0.1, 0.2, 0.3], &[true, false, false].map(Some)).is_none());
        assert!(DeLong::test(&[f32::NAN; 4], &[1.0; 4], &labels).is_none());
        let interval = |scores: [f32; 4], labels: [Option<bool>; 4]| DeLongInterval::of(scores.into_iter().zip(labels));
        let perfect = interval([1.0, 2.0, 3.0, 4.0], labels).unwrap();
        assert_eq!((perfect.standard_error, perfect.low, perfect.high), (0.0, 1.0, 1.0));
        let wide = interval([1.0, 3.0, 2.0, 4.0], labels).unwrap();
        assert!(wide.low < 0.75 && wide.high == 1.0, "{wide:?}");
        assert_eq!(interval([1.0; 4], [Some(true), Some(false), Some(false), None]), None);
    }
}
