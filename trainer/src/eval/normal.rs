//! Tail probabilities of the normal distribution.

use std::f64::consts::{PI, SQRT_2};

/// From here on the continued fraction is used, below it the series.
const LARGE: f64 = 2.0;

/// Terms of the continued fraction; from [`LARGE`] on, the rest is below the rounding.
const TERMS: u32 = 100;

/// A standard normal variable is nearer to zero with a probability of 95%.
pub(super) const NORMAL_95: f64 = 1.959_963_984_540_054;

/// Probability that a standard normal variable is at least as far from zero as `z`.
pub(super) fn two_sided_p(z: f64) -> f64 {
    erfc(z.abs() / SQRT_2)
}

/// The complementary error function of a number of 0 or more (Abramowitz and Stegun 7.1.6 and 7.1.14).
fn erfc(x: f64) -> f64 {
    let scale = (-x * x).exp() / PI.sqrt();
    if x >= LARGE {
        let fraction = (1..=TERMS).rev().fold(x, |fraction, term| x + f64::from(term) / 2.0 / fraction);
        return scale / fraction;
    }
    let (mut term, mut sum, mut odd) = (2.0 * x, 2.0 * x, 1.0);
    while term > sum * f64::EPSILON / 2.0 {
        odd += 2.0;
        term *= 2.0 * x * x / odd;
        sum += term;
    }
    1.0 - scale * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tail by Simpson's rule up to where the density is below the rounding.
    fn integrated(z: f64) -> f64 {
        let density = |x: f64| (-x * x / 2.0).exp() / (2.0 * PI).sqrt();
        let steps = 200_000;
        let width = (40.0 - z) / f64::from(steps);
        let weight = |step: i32| if step == 0 || step == steps { 1.0 } else { f64::from(2 + 2 * (step % 2)) };
        let sum: f64 = (0..=steps).map(|step| weight(step) * density(z + f64::from(step) * width)).sum();
        2.0 * sum * width / 3.0
    }

    #[test]
    fn tails_equal_the_integral_of_the_density() {
        for z in [0.0, 0.01, 0.5, 1.0, 1.959963984540054, 2.7, 2.828, 2.829, 3.5, 6.0, 10.0] {
            let (computed, integral) = (two_sided_p(z), integrated(z));
            assert!((computed / integral - 1.0).abs() < 1e-10, "{z}: {computed} and {integral}");
            assert_eq!(two_sided_p(-z), computed);
        }
        assert!((two_sided_p(NORMAL_95) - 0.05).abs() < 1e-14);
    }
}
