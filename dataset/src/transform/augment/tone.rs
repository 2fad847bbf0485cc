//! Brightness, contrast and gamma: each gray level by itself.

use super::elementary::{exp2, log2};
use crate::transform::vectorized::vectorized;

/// The brightest gray level.
pub(super) const WHITE: f32 = 255.0;

/// Sums that are kept apart, so that a vectorized sum is the same on every processor.
const LANES: usize = 16;

/// Multiplies gray levels by a factor.
pub(super) fn brightness(levels: &mut [f32], factor: f32) {
    scale(levels, factor, 0.0);
}

/// Multiplies differences to the mean by a factor.
pub(super) fn contrast(levels: &mut [f32], factor: f32) {
    scale(levels, factor, (1.0 - factor) * mean(levels));
}

vectorized!(fn scale(levels: &mut [f32], factor: f32, offset: f32) = scale_portable);

#[inline(always)]
fn scale_portable(levels: &mut [f32], factor: f32, offset: f32) {
    levels.iter_mut().for_each(|level| *level = (*level * factor + offset).clamp(0.0, WHITE));
}

vectorized!(
    /// Raises gray levels, as numbers from 0 to 1, to a power.
    pub(super) fn gamma(levels: &mut [f32], gamma: f32) = gamma_portable
);

#[inline(always)]
fn gamma_portable(levels: &mut [f32], gamma: f32) {
    for level in levels {
        let share = *level * (1.0 / WHITE);
        let power = exp2((gamma * log2(share.max(f32::MIN_POSITIVE))).max(-126.0)) * WHITE;
        *level = if share > 0.0 { power.min(WHITE) } else { 0.0 };
    }
}

/// The mean gray level; 0 of no levels.
fn mean(levels: &[f32]) -> f32 {
    // Sums of a few thousand levels each, in single precision; theirs in double.
    let sum = levels.chunks(256 * LANES).fold(0.0, |all, part| {
        let mut sums = [0.0f32; LANES];
        let (groups, rest) = part.as_chunks::<LANES>();
        for group in groups {
            sums.iter_mut().zip(group).for_each(|(sum, level)| *sum += level);
        }
        sums.iter().chain(rest).fold(all, |all, &sum| all + f64::from(sum))
    });
    (sum / levels.len().max(1) as f64) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_hold_and_clip() {
        let levels: Vec<f32> = (0..=255).map(|level| level as f32).collect();
        let with = |work: &dyn Fn(&mut [f32])| {
            let mut copy = levels.clone();
            work(&mut copy);
            copy
        };
        assert!((mean(&levels) - 127.5).abs() < 1e-5);
        assert_eq!(mean(&[]), 0.0);
        let brighter = with(&|levels| brightness(levels, 1.5));
        assert_eq!((brighter[100], brighter[200]), (150.0, 255.0));
        let flatter = with(&|levels| contrast(levels, 0.5));
        assert!((flatter[0] - 63.75).abs() < 1e-4 && (flatter[255] - 191.25).abs() < 1e-4);
        for exponent in [0.3f32, 0.8, 1.0, 2.2, 5.0] {
            let powers = with(&|levels| gamma(levels, exponent));
            for (level, power) in powers.iter().enumerate() {
                let expected = 255.0 * (level as f64 / 255.0).powf(f64::from(exponent));
                assert!((f64::from(*power) - expected).abs() < 2e-3, "{level}^{exponent}: {power}, not {expected}");
            }
        }
    }
}
