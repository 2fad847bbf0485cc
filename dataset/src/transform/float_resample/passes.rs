//! The two passes of a resize in 32-bit floats, down the columns and across the rows: portable, and with AVX2.
//!
//! Both compute the same bits: each sum is made in the same order, and no product is fused with a sum. An output of the pass
//! down adds up its lines one after the other. One of the pass across adds up every eighth product, which gives eight sums
//! `s`, and then these as `((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7))`.

use super::axis::{Axis, LANES};

/// Rows of little-endian pixels of 16 bits, from the first pixel that is used on.
#[derive(Clone, Copy)]
pub struct Lines<'a> {
    pub pixels: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
}

/// Adds up weighted lines into one row.
pub type Down = fn(Lines, &[f32], &mut [f32]);
/// Resizes one row, which has the length of [`Axis::row_length`].
pub type Across = fn(&[f32], &Axis, &mut [f32]);

/// The two passes in the fastest form for this processor.
pub fn passes() -> (Down, Across) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        return (
            // SAFETY: the processor has AVX2.
            |lines, weights, out| unsafe { avx2::down(lines, weights, out) },
            // SAFETY: the processor has AVX2.
            |row, axis, out| unsafe { avx2::across(row, axis, out) },
        );
    }
    (down, across)
}

/// `out[x]` = sum over k of `weights[k]` · line k at x.
pub fn down(lines: Lines, weights: &[f32], out: &mut [f32]) {
    out.fill(0.0);
    for (line, &weight) in weights.iter().enumerate() {
        let words = lines.pixels[line * lines.stride..][..2 * out.len()].as_chunks::<2>().0;
        out.iter_mut().zip(words).for_each(|(sum, word)| *sum += weight * f32::from(u16::from_le_bytes(*word)));
    }
}

/// `out[x]` = the weighted sum of the pixels that x covers.
pub fn across(row: &[f32], axis: &Axis, out: &mut [f32]) {
    for (x, out) in out.iter_mut().enumerate().take(axis.starts.len()) {
        *out = across_one(row, axis, x);
    }
}

fn across_one(row: &[f32], axis: &Axis, x: usize) -> f32 {
    let weights = &axis.weights[x * axis.stride..(x + 1) * axis.stride];
    let values = &row[axis.starts[x]..][..axis.stride];
    let mut sums = [0.0f32; LANES];
    for (weights, values) in weights.as_chunks::<LANES>().0.iter().zip(values.as_chunks::<LANES>().0) {
        for ((sum, weight), value) in sums.iter_mut().zip(weights).zip(values) {
            *sum += weight * value;
        }
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::cast_ptr_alignment)] // Loads and stores are the unaligned ones.
mod avx2 {
    use std::arch::x86_64::{
        __m128i, __m256, _mm_loadu_ps, _mm_loadu_si128, _mm256_add_ps, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32,
        _mm256_loadu_ps, _mm256_mul_ps, _mm256_permute2f128_ps, _mm256_set_m128, _mm256_set1_ps, _mm256_setzero_ps,
        _mm256_shuffle_ps, _mm256_storeu_ps,
    };

    use super::super::axis::{Axis, LANES};
    use super::{Lines, across_one};

    /// Registers of sums that one step of the pass down has, and its columns.
    const REGISTERS: usize = 4;
    const STEP: usize = REGISTERS * LANES;
    /// Outputs that one step of the pass across makes.
    const GROUP: usize = LANES;
    /// Floats of half a register.
    const HALF: usize = LANES / 2;

    #[target_feature(enable = "avx2")]
    pub fn down(lines: Lines, weights: &[f32], out: &mut [f32]) {
        let width = out.len();
        if width < STEP || weights.is_empty() {
            return super::down(lines, weights, out);
        }
        // Every load below ends within the last line's pixels of interest.
        assert!(lines.pixels.len() >= (weights.len() - 1) * lines.stride + 2 * width);
        let mut x = 0;
        while x < width {
            // The last step ends with the row, and overlaps the one before.
            x = x.min(width - STEP);
            let mut sums = [_mm256_setzero_ps(); REGISTERS];
            for (line, &weight) in weights.iter().enumerate() {
                let weight = _mm256_set1_ps(weight);
                for (register, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: x + STEP ≤ width, and the assertion above.
                    let words = unsafe {
                        let from = lines.pixels.as_ptr().add(line * lines.stride + 2 * (x + register * LANES));
                        _mm_loadu_si128(from.cast::<__m128i>())
                    };
                    let values = _mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(words));
                    *sum = _mm256_add_ps(*sum, _mm256_mul_ps(weight, values));
                }
            }
            for (register, sum) in sums.into_iter().enumerate() {
                // SAFETY: x + STEP ≤ width.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(x + register * LANES), sum) };
            }
            x += STEP;
        }
    }

    #[target_feature(enable = "avx2")]
    pub fn across(row: &[f32], axis: &Axis, out: &mut [f32]) {
        let count = axis.starts.len();
        let out = &mut out[..count];
        // Every load of the functions below ends within the row or the weights.
        assert!(row.len() >= axis.last_start + axis.stride && axis.weights.len() >= count * axis.stride);
        let is_narrow = axis.most <= HALF;
        let mut groups = out.chunks_exact_mut(GROUP);
        for (index, (group, starts)) in groups.by_ref().zip(axis.starts.as_chunks::<GROUP>().0).enumerate() {
            let weights = axis.weights[index * GROUP * axis.stride..].as_ptr();
            // SAFETY: the assertion above; `weights` are those of the first of the group's outputs.
            let sums = unsafe {
                if is_narrow {
                    sums_of_few(row.as_ptr(), starts, weights, axis.stride)
                } else {
                    sums_of_many(row.as_ptr(), starts, weights, axis.stride)
                }
            };
            // SAFETY: a group has as many floats as a register.
            unsafe { _mm256_storeu_ps(group.as_mut_ptr(), sums) };
        }
        for (out, x) in groups.into_remainder().iter_mut().zip(count / GROUP * GROUP..) {
            *out = across_one(row, axis, x);
        }
    }

    /// Outputs that cover at most four pixels each, such as those of enlarging: two in a register.
    ///
    /// # Safety
    /// From each start on there must be four values, and for each output `stride` weights.
    #[target_feature(enable = "avx2")]
    unsafe fn sums_of_few(row: *const f32, starts: &[usize; GROUP], weights: *const f32, stride: usize) -> __m256 {
        let both = |output: usize| {
            let other = output + HALF;
            // SAFETY: the caller's promise.
            let (weights, values) = unsafe {
                (
                    _mm256_set_m128(
                        _mm_loadu_ps(weights.add(other * stride)),
                        _mm_loadu_ps(weights.add(output * stride)),
                    ),
                    _mm256_set_m128(_mm_loadu_ps(row.add(starts[other])), _mm_loadu_ps(row.add(starts[output]))),
                )
            };
            // The other half of the eight sums is zero.
            _mm256_add_ps(_mm256_setzero_ps(), _mm256_mul_ps(weights, values))
        };
        sums_of_halves([both(0), both(1), both(2), both(3)])
    }

    /// Outputs that cover any number of pixels.
    ///
    /// # Safety
    /// From each start on there must be `stride` values, a multiple of [`LANES`], and for each output `stride` weights.
    #[target_feature(enable = "avx2")]
    unsafe fn sums_of_many(row: *const f32, starts: &[usize; GROUP], weights: *const f32, stride: usize) -> __m256 {
        let mut sums = [_mm256_setzero_ps(); GROUP];
        for at in (0..stride).step_by(LANES) {
            for (output, (sum, start)) in sums.iter_mut().zip(starts).enumerate() {
                // SAFETY: the caller's promise.
                let (weights, values) = unsafe {
                    (_mm256_loadu_ps(weights.add(output * stride + at)), _mm256_loadu_ps(row.add(start + at)))
                };
                *sum = _mm256_add_ps(*sum, _mm256_mul_ps(weights, values));
            }
        }
        let both = |output: usize| {
            let (one, other) = (sums[output], sums[output + HALF]);
            _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(one, other), _mm256_permute2f128_ps::<0x31>(one, other))
        };
        sums_of_halves([both(0), both(1), both(2), both(3)])
    }

    /// The sums of eight outputs from four sums of each. Register `i` has those of output `i` in its lower half and those of
    /// output `i + 4` in its upper half.
    #[target_feature(enable = "avx2")]
    fn sums_of_halves([a, b, c, d]: [__m256; HALF]) -> __m256 {
        // Lanes 0, 1 and 2, 3 of two registers; then lanes 0, 2 and 1, 3, of each half.
        let two = |a, b| _mm256_add_ps(_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xEE>(a, b));
        let (first, last) = (two(a, b), two(c, d));
        _mm256_add_ps(_mm256_shuffle_ps::<0x88>(first, last), _mm256_shuffle_ps::<0xDD>(first, last))
    }
}
