//! Gaussian noise.

use std::f32::consts::SQRT_2;

use super::elementary::log2;
use super::tone::WHITE;
use crate::random::Stream;
use crate::transform::vectorized::vectorized;

/// Adds noise of this standard deviation, in gray levels, to gray levels. `bits` is memory to work in.
///
/// Each pixel takes 16 random bits, hence one of 65,536 equally probable values of the normal distribution, up to 4.3
/// standard deviations.
pub(super) fn add_noise(levels: &mut [f32], sigma: f32, random: &mut Stream, bits: &mut Vec<u16>) {
    bits.resize(levels.len(), 0);
    random.fill(bits);
    add_normal(levels, sigma, bits);
}

vectorized!(fn add_normal(levels: &mut [f32], sigma: f32, bits: &[u16]) = add_normal_portable);

#[inline(always)]
fn add_normal_portable(levels: &mut [f32], sigma: f32, bits: &[u16]) {
    for (level, &bits) in levels.iter_mut().zip(bits) {
        // The middle of one of 65,536 parts of (-1, 1).
        let share = (f32::from(bits) - 32_767.5) * (1.0 / 32_768.0);
        *level = (*level + sigma * normal(share)).clamp(0.0, WHITE);
    }
}

/// The value that a normal variable is below with probability (1 + `share`) / 2: √2 · erf⁻¹(share), by the polynomials of
/// Giles (GPU Computing Gems, 2011), whose relative error in single precision is below 1e-6 up to rounding.
#[inline(always)]
fn normal(share: f32) -> f32 {
    const CENTER: [f32; 9] = [
        2.810_226_4e-8,
        3.432_739_4e-7,
        -3.523_387_7e-6,
        -4.391_506_5e-6,
        2.185_808_7e-4,
        -1.253_725e-3,
        -4.177_681_6e-3,
        0.246_640_73,
        1.501_409_4,
    ];
    const TAIL: [f32; 9] = [
        -2.002_142_6e-4,
        1.009_505_6e-4,
        1.349_343_2e-3,
        -3.673_428_4e-3,
        5.739_507_7e-3,
        -7.622_461_3e-3,
        9.438_87e-3,
        1.001_674,
        2.832_976_8,
    ];
    let w = -std::f32::consts::LN_2 * log2((1.0 - share) * (1.0 + share));
    let is_center = w < 5.0;
    let x = if is_center { w - 2.5 } else { w.sqrt() - 3.0 };
    let mut sum = if is_center { CENTER[0] } else { TAIL[0] };
    for at in 1..CENTER.len() {
        sum = sum * x + if is_center { CENTER[at] } else { TAIL[at] };
    }
    SQRT_2 * sum * share
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The normal distribution function, by its integral.
    fn below(x: f64) -> f64 {
        let steps = 4000;
        let width = x / f64::from(steps);
        let density = |at: f64| (-at * at / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        0.5 + (0..steps).map(|step| density((f64::from(step) + 0.5) * width) * width).sum::<f64>()
    }

    #[test]
    fn values_are_quantiles_of_the_normal_distribution() {
        for bits in (0..=u16::MAX).step_by(37).chain([0, 1, 2, 100, 32_767, 32_768, u16::MAX]) {
            let share = (f32::from(bits) - 32_767.5) / 32_768.0;
            let expected = f64::midpoint(1.0, f64::from(share));
            let found = below(f64::from(normal(share)));
            assert!((found - expected).abs() < 2e-7, "{share}: {found}, not {expected}");
        }
    }

    #[test]
    fn noise_has_its_spread_and_comes_from_the_stream() {
        let noisy = |seed: u64| {
            let mut levels = vec![100.0; 10_001];
            add_noise(&mut levels, 5.0, &mut Stream::new(&[seed]), &mut Vec::new());
            levels
        };
        let levels = noisy(3);
        assert_eq!(levels, noisy(3));
        assert_ne!(levels, noisy(4));
        let mean = levels.iter().sum::<f32>() / 10_001.0;
        let spread = (levels.iter().map(|level| (level - mean).powi(2)).sum::<f32>() / 10_001.0).sqrt();
        assert!((mean - 100.0).abs() < 0.2 && (spread - 5.0).abs() < 0.15, "{mean} ± {spread}");
    }
}
