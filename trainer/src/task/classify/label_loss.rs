//! The loss of labels: binary cross-entropy with smoothed targets and weighted positives.

use anyhow::Result;
use tch::{Device, Reduction, Tensor};

/// Largest weight of positives, and the inverse of the smallest: with a rarer finding, single records would decide the step.
const MOST: f64 = 20.0;

/// How labels become a loss.
#[derive(Debug, Default)]
pub struct LabelLoss {
    /// Weights of positives, `[C]`; none: 1.
    weights: Option<Tensor>,
    /// Share of label smoothing, 0 to below 1.
    smoothing: f64,
}

impl LabelLoss {
    /// With targets `y (1 - s) + s / 2` for a share `s` of label smoothing (Szegedy et al. 2016).
    pub fn smoothed(smoothing: f64) -> Self {
        Self { weights: None, smoothing }
    }

    /// With positives weighted, one weight a finding.
    #[must_use]
    pub fn weighted(mut self, weights: &[f64], device: Device) -> Self {
        let weights: Vec<f32> = weights.iter().map(|weight| *weight as f32).collect();
        self.weights = Some(Tensor::from_slice(&weights).to_device(device));
        self
    }

    /// The loss of each label: logits and targets (0 to 1) `[B, C]` → `[B, C]`.
    ///
    /// `-(w y log σ(x) + (1 - y) log(1 - σ(x)))`, with `w` the weight of the finding's positives.
    ///
    /// # Errors
    /// When torch fails.
    pub fn each(&self, logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
        let weights = self.weights.as_ref();
        if self.smoothing == 0.0 {
            return Ok(logits.f_binary_cross_entropy_with_logits(targets, None, weights, Reduction::None)?);
        }
        let smoothed = targets * (1.0 - self.smoothing) + self.smoothing / 2.0;
        Ok(logits.f_binary_cross_entropy_with_logits(&smoothed, None, weights, Reduction::None)?)
    }
}

/// Weights of positives by which the positives of each finding count as much as its negatives: negatives / positives, within
/// 1/20 and 20; 1 for a finding that lacks either. `targets` has a list a record.
pub(super) fn balanced_weights(targets: &[Vec<Option<bool>>], findings: usize) -> Vec<f64> {
    let count =
        |finding: usize, wanted| targets.iter().filter(|targets| targets[finding] == Some(wanted)).count() as f64;
    let weight = |finding| match (count(finding, true), count(finding, false)) {
        (positives, negatives) if positives > 0.0 && negatives > 0.0 => (negatives / positives).clamp(1.0 / MOST, MOST),
        _ => 1.0,
    };
    (0..findings).map(weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weighted_and_smoothed_losses_are_those_of_the_formula() {
        let logits = [[0.3_f64, -1.2, 2.0], [-0.7, 0.0, -3.1]];
        let targets = [[1.0_f64, 0.0, 0.25], [0.0, 1.0, 1.0]];
        let (weights, smoothing) = ([2.5, 0.4, 1.0], 0.1);
        let loss = LabelLoss::smoothed(smoothing).weighted(&weights, Device::Cpu);
        let tensor = |rows: [[f64; 3]; 2]| Tensor::from_slice(&rows.concat()).view([2, 3]).to_kind(tch::Kind::Float);
        let found = loss.each(&tensor(logits), &tensor(targets)).unwrap();
        for record in 0..2 {
            for (finding, weight) in weights.iter().enumerate() {
                let (x, y) = (logits[record][finding], targets[record][finding] * 0.9 + 0.05);
                let probability = 1.0 / (1.0 + (-x).exp());
                let expected = -(weight * y * probability.ln() + (1.0 - y) * (1.0 - probability).ln());
                let value = found.double_value(&[record as i64, finding as i64]);
                assert!((value - expected).abs() < 1e-6, "{record}, {finding}: {value} for {expected}");
            }
        }
        let plain = LabelLoss::default().each(&tensor(logits), &tensor(targets)).unwrap();
        assert!((plain.double_value(&[0, 0]) - (1.0 + (-0.3_f64).exp()).ln()).abs() < 1e-6);
    }

    #[test]
    fn balanced_weights_are_ratios_of_the_labels_that_count() {
        let (yes, no, open) = (Some(true), Some(false), None);
        let mut targets = vec![vec![yes, no, yes, open], vec![no, no, yes, open], vec![no, open, yes, yes]];
        assert_eq!(balanced_weights(&targets, 4), [2.0, 1.0, 1.0, 1.0]);
        targets.extend((0..50).map(|_| vec![no, no, no, open]));
        targets.push(vec![open, yes, open, no]);
        assert_eq!(balanced_weights(&targets, 4), [20.0, 20.0, 50.0 / 3.0, 1.0]);
        targets.extend((0..2_000).map(|_| vec![yes, open, open, open]));
        assert_eq!(balanced_weights(&targets, 1), [0.05]);
    }
}
