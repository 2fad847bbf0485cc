//! Logarithm and power of two in whole operations on floats, so that loops over them can be vectorized and give the same
//! numbers on every processor.

use crate::transform::vectorized::rounded;

/// log2(x) of a positive, normal number; the relative error of `exp2(y · log2(x))` stays below 1e-6 for y up to 4.
#[inline(always)]
pub fn log2(x: f32) -> f32 {
    // x = 2^exponent · mantissa, with the mantissa from sqrt(1/2) to sqrt(2).
    const SQRT_HALF: u32 = 0x3F35_04F3;
    let bits = x.to_bits().wrapping_sub(SQRT_HALF);
    let exponent = (bits.cast_signed() >> 23) as f32;
    let mantissa = f32::from_bits((bits & 0x007F_FFFF).wrapping_add(SQRT_HALF));
    // ln(mantissa) = 2 · artanh(t), a series in odd powers of t, which is at most 0.172.
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let square = t * t;
    let series = ((square * (1.0 / 9.0) + 1.0 / 7.0) * square + 1.0 / 5.0) * square + 1.0 / 3.0;
    let artanh = t + t * square * series;
    exponent + artanh * (2.0 * std::f32::consts::LOG2_E)
}

/// 2^x for x from -126 to 127.
#[inline(always)]
pub fn exp2(x: f32) -> f32 {
    let (whole, exponent) = rounded(x);
    let rest = (x - whole) * std::f32::consts::LN_2;
    // The exponential series; |rest| is at most 0.347.
    let series = rest * (1.0 / 5040.0) + 1.0 / 720.0;
    let series = (((series * rest + 1.0 / 120.0) * rest + 1.0 / 24.0) * rest + 1.0 / 6.0) * rest + 0.5;
    let power = (series * rest + 1.0) * rest + 1.0;
    power * f32::from_bits((exponent + 127).cast_unsigned() << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_those_of_double_precision() {
        let mut worst = [0.0f64; 2];
        for step in 0..200_000 {
            let x = 2f32.powf(step as f32 / 200_000.0 * 60.0 - 30.0);
            let error = (f64::from(log2(x)) - f64::from(x).log2()).abs() / f64::from(x).log2().abs().max(1.0);
            worst[0] = worst[0].max(error);
            let y = step as f32 / 200_000.0 * 240.0 - 120.0;
            worst[1] = worst[1].max((f64::from(exp2(y)) / f64::from(y).exp2() - 1.0).abs());
        }
        assert!(worst[0] < 3e-7 && worst[1] < 4e-7, "{worst:?}");
        assert_eq!((log2(1.0), exp2(0.0), exp2(3.0)), (0.0, 1.0, 8.0));
    }
}
