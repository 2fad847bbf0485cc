//! The calibration error over adaptive bins, for any weights of the rows.

use crate::eval::curves::Bin;

/// The labeled rows of one class by adaptive bin. The bins are those of all rows, whatever the weights.
pub(super) struct AdaptiveBins {
    /// Row, and its score minus its label, of each bin.
    bins: Vec<Vec<(u32, f64)>>,
}

impl AdaptiveBins {
    /// Divides pairs of score and label, one per row, into the adaptive bins that they have
    /// ([`Curves::adaptive`](crate::eval::curves::Curves::adaptive)).
    pub fn new(rows: impl Iterator<Item = (f32, Option<bool>)>, bins: &[Bin]) -> Self {
        let mut labeled: Vec<(f32, u32, bool)> =
            rows.enumerate().filter_map(|(row, (score, label))| Some((score, row as u32, label?))).collect();
        labeled.sort_by(|a, b| a.0.total_cmp(&b.0));
        let error = |(score, row, positive): (f32, u32, bool)| (row, f64::from(score) - f64::from(u8::from(positive)));
        let mut rest = labeled.into_iter().map(error);
        Self { bins: bins.iter().map(|bin| rest.by_ref().take(bin.records as usize).collect()).collect() }
    }

    /// The expected calibration error with row `i` counted `weights[i]` times; none without rows.
    ///
    /// # Panics
    /// When `weights` is shorter than the number of rows.
    pub fn error(&self, weights: &[u32]) -> Option<f64> {
        let weight = |row: u32| f64::from(weights[row as usize]);
        let (mut gaps, mut all) = (0.0, 0.0);
        for bin in &self.bins {
            gaps += bin.iter().map(|&(row, error)| weight(row) * error).sum::<f64>().abs();
            all += bin.iter().map(|&(row, _)| weight(row)).sum::<f64>();
        }
        (all > 0.0).then(|| gaps / all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::curves::{Curves, calibration_error};
    use dataset::random::Stream;

    #[test]
    fn the_error_is_that_of_the_bins_and_a_weight_counts_as_a_repetition() {
        let mut random = Stream::new(&[5]);
        let row = |_| {
            let score = (random.uniform() * 40.0).floor() / 40.0; // with ties
            (score as f32, (random.uniform() < 0.9).then_some(random.uniform() < 0.4))
        };
        let rows: Vec<(f32, Option<bool>)> = (0..200).map(row).collect();
        let bins = Curves::of(rows.iter().copied()).adaptive;
        let adaptive = AdaptiveBins::new(rows.iter().copied(), &bins);
        let error = adaptive.error(&[1; 200]).unwrap();
        assert!((error - calibration_error(&bins).unwrap()).abs() < 1e-12, "{error}");
        // Bin by bin, each from the score after that of the bin before.
        let weights: Vec<u32> = (0..200).map(|row| row % 3).collect();
        let mut labeled: Vec<(f32, bool, u32)> =
            rows.iter().zip(&weights).filter_map(|(row, weight)| Some((row.0, row.1?, *weight))).collect();
        labeled.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut from, mut gaps) = (0, 0.0);
        for bin in &bins {
            let of_bin = &labeled[from..from + bin.records as usize];
            let repeated = of_bin.iter().flat_map(|row| vec![(row.0, row.1); row.2 as usize]);
            gaps += repeated.map(|(score, label)| f64::from(score) - f64::from(u8::from(label))).sum::<f64>().abs();
            from += bin.records as usize;
        }
        let all: u32 = labeled.iter().map(|row| row.2).sum();
        assert!((adaptive.error(&weights).unwrap() - gaps / f64::from(all)).abs() < 1e-12);
        assert_eq!(adaptive.error(&[0; 200]), None);
        assert_eq!(AdaptiveBins::new([(0.5, None)].into_iter(), &[]).error(&[1]), None);
    }
}
