//! Confidence intervals by bootstrap over patients.
//!
//! A draw takes as many patients as there are, with replacement, each with all of its rows, since the rows of one patient are
//! not independent (cluster bootstrap). Each draw has its own random stream, so results do not depend on the number of
//! threads. Intervals are percentile intervals (Efron and Tibshirani 1993).

use std::collections::HashMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::eval::metrics::{Ranking, Scores, mean_defined};

/// The settings of a bootstrap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// Number of draws.
    pub draws: usize,
    /// Seed; draw `i` uses stream `i` of it.
    pub seed: u64,
    /// Confidence level of the interval, 0 to 1.
    pub level: f64,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self { draws: 1000, seed: 0, level: 0.95 }
    }
}

/// A value with its percentile interval.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Interval {
    /// The value on all rows.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Draws in which the value was defined, from which the interval is computed.
    pub draws: usize,
}

impl Interval {
    /// Whether the value was undefined in more than a tenth of the draws, so that the interval is unreliable.
    pub fn is_thin(&self, draws: usize) -> bool {
        self.draws * 10 < draws * 9
    }
}

/// A difference between two predictions of the same rows, with its interval.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Difference {
    /// Second minus first.
    #[serde(flatten)]
    pub interval: Interval,
    /// Two-sided p-value: twice the smaller share of draws on one side of zero, with one draw added to each side.
    pub p: f64,
}

/// The smallest p-value of a number of draws: that of a difference with the same sign in all of them.
pub fn smallest_p(draws: usize) -> f64 {
    2.0 / (draws + 1) as f64
}

/// A value for each class of a multi-label prediction, and for the mean over classes; none where it is undefined on all rows.
#[derive(Debug, Clone, PartialEq)]
pub struct ByClass<T> {
    /// One entry per class.
    pub classes: Vec<Scores<T>>,
    /// The mean over the classes for which the metric is defined.
    pub mean: Scores<T>,
}

/// Predictions of several classes on the same rows.
#[derive(Debug, Clone, Copy)]
pub struct Predictions<'a> {
    /// Scores `[rows, classes]`, row-major.
    pub scores: &'a [f32],
    /// Labels `[rows, classes]`, row-major; none: the row does not count for the class.
    pub labels: &'a [Option<bool>],
    /// A number per row, equal for rows of one patient.
    pub patients: &'a [u32],
    /// Number of classes.
    pub classes: usize,
    /// The specificity at which sensitivity is computed.
    pub specificity: f64,
}

impl Predictions<'_> {
    /// The rows of a class: score and label.
    pub fn class(&self, class: usize) -> impl Iterator<Item = (f32, Option<bool>)> + '_ {
        let of_rows = self.scores.iter().zip(self.labels).skip(class).step_by(self.classes);
        of_rows.map(|(score, label)| (*score, *label))
    }

    fn rankings(&self) -> Vec<Ranking> {
        assert_eq!(self.scores.len(), self.patients.len() * self.classes, "scores must be rows x classes");
        assert_eq!(self.labels.len(), self.scores.len(), "labels must be rows x classes");
        let ranking = |class: usize| Ranking::of(self.class(class)).at_specificity(self.specificity);
        (0..self.classes).into_par_iter().map(ranking).collect()
    }
}

impl Bootstrap {
    /// Intervals of all metrics, for each class and for the mean. A draw counts for the mean only if it defines every class
    /// that all rows together define, so the mean is always over the same classes.
    ///
    /// # Panics
    /// When the slices do not have `rows · classes`, `rows · classes` and `rows` values.
    pub fn classes(&self, predictions: Predictions) -> ByClass<Interval> {
        let rankings = predictions.rankings();
        let metrics = |weights: &[u32]| rankings.iter().map(|ranking| ranking.weighted(weights).values()).collect();
        let (classes, mean) = self.by_class(predictions.patients, rankings.len(), metrics);
        ByClass { classes: classes.into_iter().map(Scores::of).collect(), mean: Scores::of(mean) }
    }

    /// Differences between a second prediction of the same rows and a first one; both use the same draws of patients.
    ///
    /// # Panics
    /// As [`classes`](Self::classes), and when `scores` has another length.
    pub fn paired(&self, first: Predictions, scores: &[f32]) -> ByClass<Difference> {
        let rankings: Vec<_> = first.rankings().into_iter().zip(Predictions { scores, ..first }.rankings()).collect();
        let minus = |second: Scores, first: Scores| {
            let (second, first) = (second.values(), first.values());
            std::array::from_fn(|metric| Some(second[metric]? - first[metric]?))
        };
        let differences = |weights: &[u32]| -> Vec<[Option<f64>; 5]> {
            rankings.iter().map(|(a, b)| minus(b.weighted(weights), a.weighted(weights))).collect()
        };
        let (all, draws) = self.draw(first.patients, differences);
        let (classes, mean) = summary(&all, &draws, all.len(), |value, draws| self.difference(value, draws));
        ByClass { classes: classes.into_iter().map(Scores::of).collect(), mean: Scores::of(mean) }
    }

    /// Intervals of `N` statistics of several classes, and of the means over the first `averaged` ones, by the rule of
    /// [`classes`](Self::classes). `statistics` gets the number of times that each row was drawn, and gives one entry a class;
    /// none where a statistic is undefined.
    pub fn by_class<const N: usize>(
        &self,
        patients: &[u32],
        averaged: usize,
        statistics: impl Fn(&[u32]) -> Vec<[Option<f64>; N]> + Sync,
    ) -> (Vec<[Option<Interval>; N]>, [Option<Interval>; N]) {
        let (all, draws) = self.draw(patients, statistics);
        summary(&all, &draws, averaged, |value, draws| self.interval(value, draws))
    }

    /// Statistics of all rows, and those of each draw.
    fn draw<T: Send>(&self, patients: &[u32], statistics: impl Fn(&[u32]) -> T + Sync) -> (T, Vec<T>) {
        (statistics(&vec![1; patients.len()]), self.resample(patients, &statistics))
    }

    /// The difference of the means of two values a row, second minus first, patients drawn for both together; none without
    /// rows.
    ///
    /// # Panics
    /// When the slices differ in length.
    pub fn paired_mean(&self, first: &[f64], second: &[f64], patients: &[u32]) -> Option<Difference> {
        assert_eq!(first.len(), second.len(), "the same rows");
        let differences: Vec<f64> = first.iter().zip(second).map(|(first, second)| second - first).collect();
        let (value, draws) = self.means(&differences, patients)?;
        Some(self.difference(value, draws))
    }

    /// A difference and its draws as an interval with a p-value.
    fn difference(&self, value: f64, draws: Vec<f64>) -> Difference {
        let side = |below: bool| draws.iter().filter(|&&d| if below { d <= 0.0 } else { d >= 0.0 }).count() + 1;
        let p = (2.0 * side(true).min(side(false)) as f64 / (draws.len() + 1) as f64).min(1.0);
        Difference { interval: self.interval(value, draws), p }
    }

    /// The interval of the mean of one value per row, such as Dice; none without rows.
    ///
    /// # Panics
    /// When `values` and `patients` differ in length.
    pub fn mean(&self, values: &[f64], patients: &[u32]) -> Option<Interval> {
        let (value, draws) = self.means(values, patients)?;
        Some(self.interval(value, draws))
    }

    /// The interval of a statistic of the rows, which gets the number of times that each row counts, such as a median; none
    /// without rows.
    pub fn statistic(&self, patients: &[u32], statistic: impl Fn(&[u32]) -> f64 + Sync) -> Option<Interval> {
        let value = (!patients.is_empty()).then(|| statistic(&vec![1; patients.len()]))?;
        Some(self.interval(value, self.resample(patients, statistic)))
    }

    /// The mean of a value a row, on all rows and in each draw; none without rows.
    fn means(&self, values: &[f64], patients: &[u32]) -> Option<(f64, Vec<f64>)> {
        assert_eq!(values.len(), patients.len(), "one patient per value");
        let mean = |weights: &[u32]| {
            let sum: f64 = values.iter().zip(weights).map(|(value, &weight)| value * f64::from(weight)).sum();
            sum / weights.iter().map(|&weight| f64::from(weight)).sum::<f64>()
        };
        let value = (!values.is_empty()).then(|| mean(&vec![1; values.len()]))?;
        Some((value, self.resample(patients, mean)))
    }

    /// A statistic of every draw, in the order of draws. `statistic` gets the number of times that each row was drawn.
    pub fn resample<T: Send>(&self, patients: &[u32], statistic: impl Fn(&[u32]) -> T + Sync) -> Vec<T> {
        let (groups, count) = dense(patients);
        let draw = |(drawn, weights): &mut (Vec<u32>, Vec<u32>), stream: usize| {
            let mut random = ChaCha8Rng::seed_from_u64(self.seed);
            random.set_stream(stream as u64);
            drawn.fill(0);
            for _ in 0..count {
                drawn[random.random_range(0..count) as usize] += 1;
            }
            for (weight, &group) in weights.iter_mut().zip(&groups) {
                *weight = drawn[group as usize];
            }
            statistic(weights)
        };
        let buffers = || (vec![0; count as usize], vec![0; patients.len()]);
        (0..self.draws).into_par_iter().map_init(buffers, draw).collect()
    }

    /// The percentile interval; both ends are the value itself if no draw defines it.
    fn interval(&self, value: f64, mut draws: Vec<f64>) -> Interval {
        if draws.is_empty() {
            return Interval { value, low: value, high: value, draws: 0 };
        }
        draws.sort_unstable_by(f64::total_cmp);
        let tail = (1.0 - self.level) / 2.0;
        Interval { value, low: quantile(&draws, tail), high: quantile(&draws, 1.0 - tail), draws: draws.len() }
    }
}

/// Applies `summarize` to each value and its draws, by class and for the mean over the first `averaged` classes.
fn summary<const N: usize, T>(
    all: &[[Option<f64>; N]],
    draws: &[Vec<[Option<f64>; N]>],
    averaged: usize,
    summarize: impl Fn(f64, Vec<f64>) -> T,
) -> (Vec<[Option<T>; N]>, [Option<T>; N]) {
    let of_class = |class: usize, at: usize| {
        let values = draws.iter().filter_map(|draw| draw[class][at]).collect();
        Some(summarize(all[class][at]?, values))
    };
    let classes = (0..all.len()).map(|class| std::array::from_fn(|at| of_class(class, at))).collect();
    let mean = std::array::from_fn(|at| {
        let defined: Vec<usize> = (0..averaged).filter(|&class| all[class][at].is_some()).collect();
        let of_draw = |draw: &[[Option<f64>; N]]| {
            let values: Option<Vec<f64>> = defined.iter().map(|&class| draw[class][at]).collect();
            mean_defined(values?.into_iter().map(Some))
        };
        let value = of_draw(all)?;
        Some(summarize(value, draws.iter().filter_map(|draw| of_draw(draw)).collect()))
    });
    (classes, mean)
}

/// The quantile of sorted values, with linear interpolation (numpy's default).
fn quantile(sorted: &[f64], probability: f64) -> f64 {
    let position = probability.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (below, above) = (position.floor() as usize, position.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
}

/// Numbers patients without gaps, in order of appearance; returns the number of each row, and the count.
fn dense(patients: &[u32]) -> (Vec<u32>, u32) {
    let mut numbers = HashMap::new();
    let groups = patients
        .iter()
        .map(|&patient| {
            let next = numbers.len() as u32;
            *numbers.entry(patient).or_insert(next)
        })
        .collect();
    (groups, numbers.len() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of `count` patients, two each, with scores that are informative for two of three classes.
    fn rows(count: u32) -> (Vec<f32>, Vec<Option<bool>>, Vec<u32>) {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let (mut scores, mut labels, mut patients) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..2 * count {
            patients.push(row / 2 * 10);
            for class in 0..3 {
                let positive = random.random_bool(0.3);
                scores.push(random.random::<f32>() + if positive && class < 2 { 0.5 } else { 0.0 });
                labels.push((class != 1 || row % 5 != 0).then_some(positive));
            }
        }
        (scores, labels, patients)
    }

    fn predictions<'a>(
        scores: &'a [f32],
        labels: &'a [Option<bool>],
        patients: &'a [u32],
        classes: usize,
    ) -> Predictions<'a> {
        Predictions { scores, labels, patients, classes, specificity: 0.9 }
    }

    #[test]
    fn a_paired_difference_is_narrower_than_the_intervals_and_zero_for_equal_predictions() {
        let (scores, labels, patients) = rows(200);
        let bootstrap = Bootstrap { draws: 300, seed: 5, level: 0.95 };
        let first = predictions(&scores, &labels, &patients, 3);
        let same = bootstrap.paired(first, &scores).mean.auroc.unwrap();
        assert_eq!((same.interval.value, same.interval.low, same.interval.high, same.p), (0.0, 0.0, 0.0, 1.0));
        // Noise makes the scores less informative.
        let mut random = ChaCha8Rng::seed_from_u64(9);
        let noisy: Vec<f32> = scores.iter().map(|score| score + random.random::<f32>() * 2.0).collect();
        let difference = bootstrap.paired(first, &noisy).classes[0].auroc.unwrap();
        let alone = bootstrap.classes(first).classes[0].auroc.unwrap();
        let of_noisy = bootstrap.classes(predictions(&noisy, &labels, &patients, 3)).classes[0].auroc.unwrap();
        assert!((difference.interval.value - (of_noisy.value - alone.value)).abs() < 1e-12);
        assert!(difference.interval.high < 0.0 && difference.p < 0.05, "{difference:?}");
        let width = |interval: Interval| interval.high - interval.low;
        assert!(width(difference.interval) < width(alone) + width(of_noisy));
    }

    #[test]
    fn intervals_contain_their_value_and_do_not_depend_on_threads() {
        let (scores, labels, patients) = rows(200);
        let bootstrap = Bootstrap { draws: 300, seed: 5, level: 0.95 };
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| bootstrap.classes(predictions(&scores, &labels, &patients, 3)))
        };
        let (one, three) = (run(1), run(3));
        assert_eq!(one, three);
        let aurocs = one.classes.iter().map(|scores| scores.auroc);
        for interval in aurocs.chain([one.mean.auroc, one.mean.average_precision, one.mean.brier]).flatten() {
            assert!(interval.low < interval.value && interval.value < interval.high, "{interval:?}");
            assert_eq!(interval.draws, 300);
        }
        let auroc = |class: usize| one.classes[class].auroc.unwrap();
        assert!(auroc(0).low > 0.8);
        assert!(auroc(2).low < 0.5 && auroc(2).high > 0.5);
    }

    #[test]
    fn rows_of_a_patient_are_drawn_together() {
        let bootstrap = Bootstrap { draws: 50, ..Bootstrap::default() };
        let patients = [4, 9, 4, 9, 7];
        for weights in bootstrap.resample(&patients, <[u32]>::to_vec) {
            assert_eq!((weights[0], weights[1]), (weights[2], weights[3]));
            assert_eq!(weights[0] + weights[1] + weights[4], 3);
        }
    }

    #[test]
    fn undefined_classes_stay_out_of_the_mean() {
        let scores = [0.1, 0.5, 0.9, 0.5, 0.3, 0.5, 0.7, 0.5];
        let labels = [false, false, true, false, false, false, true, false].map(Some);
        let intervals = Bootstrap::default().classes(predictions(&scores, &labels, &[0, 1, 2, 3], 2));
        assert_eq!(intervals.classes[1].auroc, None);
        let mean = intervals.mean.auroc.unwrap();
        assert_eq!(mean.value, 1.0);
        assert!(mean.draws < 1000); // some draws have one label value only
    }

    #[test]
    fn the_interval_of_a_mean_has_the_theoretical_width() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 2)).collect();
        let patients: Vec<u32> = (0..400).collect();
        let interval = Bootstrap::default().mean(&values, &patients).unwrap();
        assert_eq!(interval.value, 0.5);
        assert!((interval.high - interval.low - 2.0 * 1.96 * 0.025).abs() < 0.01, "{interval:?}"); // 0.5 / √400
        assert_eq!(Bootstrap::default().mean(&[], &[]), None);
    }

    #[test]
    fn a_paired_difference_of_means_is_narrower_than_the_intervals_of_both() {
        let first: Vec<f64> = (0..200).map(|i| f64::from(i % 10)).collect();
        let second: Vec<f64> = first.iter().enumerate().map(|(i, value)| value + 0.1 + (i % 3) as f64 / 10.0).collect();
        let patients: Vec<u32> = (0..200).map(|i| i / 2).collect();
        let bootstrap = Bootstrap { draws: 200, ..Bootstrap::default() };
        let difference = bootstrap.paired_mean(&first, &second, &patients).unwrap();
        let of = |values: &[f64]| bootstrap.mean(values, &patients).unwrap();
        assert!((difference.interval.value - (of(&second).value - of(&first).value)).abs() < 1e-12);
        assert!(difference.interval.low > 0.0 && difference.p <= smallest_p(200) + 1e-12, "{difference:?}");
        assert!(difference.interval.high - difference.interval.low < of(&first).high - of(&first).low);
        assert_eq!(bootstrap.paired_mean(&first, &first, &patients).unwrap().p, 1.0);
        assert_eq!(bootstrap.paired_mean(&[], &[], &[]), None);
    }

    #[test]
    fn an_interval_is_thin_below_nine_of_ten_draws() {
        let is_thin = |draws| Interval { value: 0.0, low: 0.0, high: 0.0, draws }.is_thin(100);
        assert_eq!([89, 90, 91].map(is_thin), [true, false, false]);
    }

    #[test]
    fn p_values_count_draws_on_both_sides() {
        let p = |draws: &[f64]| Bootstrap::default().difference(1.0, draws.to_vec()).p;
        assert_eq!(p(&[-1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]), 0.6);
        assert_eq!(p(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]), 0.2);
        assert_eq!(p(&[0.0; 9]), 1.0);
        assert_eq!(smallest_p(9), 0.2);
    }

    #[test]
    fn a_statistic_gets_the_weight_of_each_row() {
        let bootstrap = Bootstrap { draws: 20, ..Bootstrap::default() };
        let rows = |weights: &[u32]| f64::from(weights.iter().sum::<u32>());
        let interval = bootstrap.statistic(&[3, 5, 8], rows).unwrap();
        assert_eq!((interval.value, interval.low, interval.high, interval.draws), (3.0, 3.0, 3.0, 20));
        assert_eq!(bootstrap.statistic(&[], rows), None);
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[1.0, 2.0, 4.0], 0.75), 3.0);
        assert_eq!(quantile(&[7.0], 0.9), 7.0);
    }
}
