//! Gaussian blur: one pass along rows, one along columns.

use crate::transform::vectorized::vectorized;

/// Standard deviations on either side that the kernel covers.
const REACH: f64 = 4.0;

/// The weights of a kernel: that of the center, then those at a distance of 1, 2 … on either side.
fn weights(sigma: f64, size: usize) -> Vec<f32> {
    // An image is reflected once.
    let reach = ((REACH * sigma).ceil() as usize).min(size - 1);
    let exact: Vec<f64> = (0..=reach).map(|distance| (-0.5 * (distance as f64 / sigma).powi(2)).exp()).collect();
    let sum = 2.0 * exact.iter().sum::<f64>() - exact[0];
    exact.iter().map(|weight| (weight / sum) as f32).collect()
}

/// Blurs gray levels `[size, size]` in place; `passed` and `line` are memory to work in.
pub(super) fn blur(levels: &mut [f32], size: usize, sigma: f64, passed: &mut Vec<f32>, line: &mut Vec<f32>) {
    let weights = weights(sigma, size);
    passed.resize(size * size, 0.0);
    line.resize(size + 2 * (weights.len() - 1), 0.0);
    passes(levels, size, &weights, passed, line);
}

vectorized!(
    fn passes(levels: &mut [f32], size: usize, weights: &[f32], passed: &mut [f32], line: &mut [f32]) = passes_portable
);

#[inline(always)]
fn passes_portable(levels: &mut [f32], size: usize, weights: &[f32], passed: &mut [f32], line: &mut [f32]) {
    let reach = weights.len() - 1;
    for (row, out) in levels.chunks_exact(size).zip(passed.chunks_exact_mut(size)) {
        line[reach..reach + size].copy_from_slice(row);
        for distance in 1..=reach {
            line[reach - distance] = row[distance];
            line[reach + size - 1 + distance] = row[size - 1 - distance];
        }
        out.iter_mut().zip(row).for_each(|(out, level)| *out = level * weights[0]);
        for (distance, &weight) in weights.iter().enumerate().skip(1) {
            let (before, after) = (&line[reach - distance..][..size], &line[reach + distance..][..size]);
            add(out, before, after, weight);
        }
    }
    let row_of = |row: usize| &passed[row * size..(row + 1) * size];
    for (row, out) in levels.chunks_exact_mut(size).enumerate() {
        out.iter_mut().zip(row_of(row)).for_each(|(out, level)| *out = level * weights[0]);
        for (distance, &weight) in weights.iter().enumerate().skip(1) {
            let last = size - 1;
            let (before, after) = (row.abs_diff(distance), row + distance);
            let after = if after > last { 2 * last - after } else { after };
            add(out, row_of(before), row_of(after), weight);
        }
    }
}

/// `out` += `weight` · (`before` + `after`)
#[inline(always)]
fn add(out: &mut [f32], before: &[f32], after: &[f32], weight: f32) {
    for ((out, before), after) in out.iter_mut().zip(before).zip(after) {
        *out += weight * (before + after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_images_stay_and_a_point_becomes_the_gaussian() {
        let blurred = |levels: &[f32], size: usize, sigma: f64| {
            let mut copy = levels.to_vec();
            blur(&mut copy, size, sigma, &mut Vec::new(), &mut Vec::new());
            copy
        };
        for (size, sigma) in [(1, 3.0), (2, 0.5), (7, 100.0), (33, 2.0)] {
            let flat = blurred(&vec![77.0; size * size], size, sigma);
            assert!(flat.iter().all(|level| (level - 77.0).abs() < 1e-3), "{size} {sigma}");
        }
        let mut point = vec![0.0; 31 * 31];
        point[15 * 31 + 15] = 1000.0;
        let blurred = blurred(&point, 31, 1.5);
        for (at, level) in blurred.iter().enumerate() {
            let (x, y) = (at % 31, at / 31);
            let square = (x as f64 - 15.0).powi(2) + (y as f64 - 15.0).powi(2);
            let density = 1000.0 * (-square / 4.5).exp() / (2.0 * std::f64::consts::PI * 2.25);
            assert!((f64::from(*level) - density).abs() < 0.05, "{x}, {y}: {level}, not {density}");
        }
    }
}
