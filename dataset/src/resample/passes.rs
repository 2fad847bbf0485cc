//! The two passes of a resize, down the columns and across a row: portable, and with AVX2. Both give the same numbers.

use super::taps::{GROUP, Taps, WEIGHT_BITS};

/// Bits below a grey level that the row between the passes keeps.
const ROW_BITS: u32 = 6;

/// Rows of an image, from the first pixel of interest on.
#[derive(Clone, Copy)]
pub struct Lines<'a> {
    pub pixels: &'a [u8],
    pub stride: usize,
}

/// Adds up weighted lines: the row between the passes.
pub type Down = fn(Lines, &[i16], &mut [i16]);
/// From the row between the passes to grey levels. The output is as long as [`padded`] says; only its first pixels, one
/// an output of the taps, mean anything.
pub type Across = fn(&[i16], &Taps, &mut [u8]);

/// Length of a buffer for a row of this many pixels.
pub fn padded(width: usize) -> usize {
    width.next_multiple_of(GROUP)
}

/// Values of the row between the passes: those of the source's columns, and zeros that loads may reach.
pub fn row_length(columns: usize, taps: &Taps) -> usize {
    (columns + taps.stride).max(taps.near.reach)
}

/// The two passes in their best form for this processor.
pub fn passes() -> (Down, Across) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return (
            |source, weights, row| unsafe { avx2::down(source, weights, row) },
            |row, taps, out| unsafe { avx2::across(row, taps, out) },
        );
    }
    (down, across)
}

/// `row[x]` = sum over k of `weights[k]` · line k at x, with `ROW_BITS` bits below a grey level.
pub fn down(source: Lines, weights: &[i16], row: &mut [i16]) {
    for (x, value) in row.iter_mut().enumerate() {
        *value = down_one(source, weights, x);
    }
}

fn down_one(source: Lines, weights: &[i16], x: usize) -> i16 {
    let sum: i32 =
        weights.iter().enumerate().map(|(k, &w)| i32::from(w) * i32::from(source.pixels[k * source.stride + x])).sum();
    let shift = WEIGHT_BITS - ROW_BITS;
    ((sum + (1 << (shift - 1))) >> shift) as i16
}

/// `out[x]` = the weighted sum of the pixels that x covers, rounded to a grey level.
pub fn across(row: &[i16], taps: &Taps, out: &mut [u8]) {
    for (x, pixel) in out.iter_mut().enumerate().take(taps.starts.len()) {
        *pixel = across_one(row, taps, x);
    }
}

fn across_one(row: &[i16], taps: &Taps, x: usize) -> u8 {
    let (start, weights) = taps.of(x);
    let sum: i32 = weights.iter().zip(&row[start..]).map(|(&w, &v)| i32::from(w) * i32::from(v)).sum();
    grey_level(sum)
}

fn grey_level(sum: i32) -> u8 {
    let shift = WEIGHT_BITS + ROW_BITS;
    ((sum + (1 << (shift - 1))) >> shift).clamp(0, 255) as u8
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::cast_ptr_alignment)] // Loads and stores are the unaligned ones.
mod avx2 {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_madd_epi16, _mm256_add_epi32,
        _mm256_castsi256_si128, _mm256_cvtepu8_epi16, _mm256_extracti128_si256, _mm256_hadd_epi32, _mm256_loadu_si256,
        _mm256_madd_epi16, _mm256_packs_epi32, _mm256_packus_epi16, _mm256_set_m128i, _mm256_set1_epi32,
        _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srai_epi32, _mm256_storeu_si256, _mm256_unpackhi_epi16,
        _mm256_unpacklo_epi16, _mm256_zextsi128_si256,
    };

    use super::super::taps::{GROUP, LANES, Taps, WEIGHT_BITS};
    use super::{Lines, ROW_BITS, across_one, down_one};

    /// Values of one register, and columns that one step of the row pass takes.
    const WIDE: usize = 2 * LANES;
    const STEP: usize = 2 * WIDE;

    #[target_feature(enable = "avx2")]
    pub fn down(source: Lines, weights: &[i16], row: &mut [i16]) {
        let width = row.len();
        if width < STEP || weights.is_empty() {
            return super::down(source, weights, row);
        }
        // Every load below ends within the last line's pixels of interest.
        assert!(source.pixels.len() >= (weights.len() - 1) * source.stride + width);
        let mut x = 0;
        while x < width {
            // The last step begins early enough to end with the row.
            x = x.min(width - STEP);
            // SAFETY: x + STEP ≤ width, and the assertion above.
            unsafe {
                let at = |k: usize, half: usize| {
                    let from = source.pixels.as_ptr().add(k * source.stride + x + half * WIDE);
                    _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast::<__m128i>()))
                };
                let mut sums = [_mm256_set1_epi32(1 << (WEIGHT_BITS - ROW_BITS - 1)); 4];
                let mut k = 0;
                while k < weights.len() {
                    // Lines go in pairs; the last of an odd number pairs with itself at weight 0.
                    let (next, weight) = match weights.get(k + 1) {
                        Some(&weight) => (k + 1, weight),
                        None => (k, 0),
                    };
                    let pair = (i32::from(weight) << 16) | i32::from(weights[k] as u16);
                    let pair = _mm256_set1_epi32(pair);
                    for half in 0..2 {
                        let (a, b) = (at(k, half), at(next, half));
                        let low = _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), pair);
                        let high = _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), pair);
                        sums[half * 2] = _mm256_add_epi32(sums[half * 2], low);
                        sums[half * 2 + 1] = _mm256_add_epi32(sums[half * 2 + 1], high);
                    }
                    k += 2;
                }
                for half in 0..2 {
                    let shift = |sum| _mm256_srai_epi32::<{ (WEIGHT_BITS - ROW_BITS) as i32 }>(sum);
                    // Unpacking and packing both work within the register's halves: the order comes back.
                    let values = _mm256_packs_epi32(shift(sums[half * 2]), shift(sums[half * 2 + 1]));
                    let to = row.as_mut_ptr().add(x + half * WIDE);
                    _mm256_storeu_si256(to.cast::<__m256i>(), values);
                }
            }
            x += STEP;
        }
        debug_assert_eq!(row[width - 1], down_one(source, weights, width - 1));
    }

    #[target_feature(enable = "avx2")]
    pub fn across(row: &[i16], taps: &Taps, out: &mut [u8]) {
        // Bicubic enlarging covers two pairs of pixels, reducing to two thirds covers four at most.
        match taps.near.pairs {
            _ if taps.near.groups.is_empty() => across_far(row, taps, out),
            1 => across_near::<1>(row, taps, out),
            2 => across_near::<2>(row, taps, out),
            3 => across_near::<3>(row, taps, out),
            4 => across_near::<4>(row, taps, out),
            _ => across_far(row, taps, out),
        }
    }

    /// Outputs whose source pixels lie near each other: eight side by side, a pair of taps at a time.
    #[target_feature(enable = "avx2")]
    fn across_near<const PAIRS: usize>(row: &[i16], taps: &Taps, out: &mut [u8]) {
        let near = &taps.near;
        assert!(row.len() >= near.reach && near.pairs == PAIRS);
        let weights = near.weights.as_chunks::<PAIRS>().0;
        for ((group, weights), out) in near.groups.iter().zip(weights).zip(out.chunks_exact_mut(GROUP)) {
            // SAFETY: `order` has 32 bytes.
            let order = unsafe { _mm256_loadu_si256(group.order.as_ptr().cast::<__m256i>()) };
            let mut sum = _mm256_set1_epi32(1 << (WEIGHT_BITS + ROW_BITS - 1));
            for (pair, weights) in weights.iter().enumerate() {
                // SAFETY: the row reaches eight values beyond the last pair of each base, and a pair has 16 weights.
                let (low, high, weights) = unsafe {
                    let half = |base: usize| _mm_loadu_si128(row.as_ptr().add(base + 2 * pair).cast::<__m128i>());
                    let weights = _mm256_loadu_si256(weights.as_ptr().cast::<__m256i>());
                    (half(group.bases[0]), half(group.bases[1]), weights)
                };
                let values = _mm256_shuffle_epi8(_mm256_set_m128i(high, low), order);
                sum = _mm256_add_epi32(sum, _mm256_madd_epi16(values, weights));
            }
            let levels = _mm256_srai_epi32::<{ (WEIGHT_BITS + ROW_BITS) as i32 }>(sum);
            out.copy_from_slice(&bytes(levels));
        }
    }

    /// Eight sums as grey levels.
    #[target_feature(enable = "avx2")]
    fn bytes(levels: __m256i) -> [u8; 8] {
        let packed = _mm256_packus_epi16(_mm256_packs_epi32(levels, levels), _mm256_setzero_si256());
        let four = |half: __m128i| u64::from(_mm_cvtsi128_si32(half).cast_unsigned());
        let (low, high) = (_mm256_castsi256_si128(packed), _mm256_extracti128_si256::<1>(packed));
        (four(low) | (four(high) << 32)).to_le_bytes()
    }

    /// Outputs that cover many source pixels each: its taps side by side.
    #[target_feature(enable = "avx2")]
    fn across_far(row: &[i16], taps: &Taps, out: &mut [u8]) {
        let mut groups = out[..taps.starts.len()].chunks_exact_mut(GROUP);
        let mut x = 0;
        for group in groups.by_ref() {
            let mut sums = [_mm256_setzero_si256(); 8];
            for (lane, sum) in sums.iter_mut().enumerate() {
                let (start, weights) = taps.of(x + lane);
                let (weights, rest) = weights.as_chunks::<WIDE>();
                let (values, more) = row[start..].split_at(weights.len() * WIDE);
                for (weights, values) in weights.iter().zip(values.chunks_exact(WIDE)) {
                    // SAFETY: both are WIDE values of 16 bits.
                    let (w, v) = unsafe {
                        (
                            _mm256_loadu_si256(weights.as_ptr().cast::<__m256i>()),
                            _mm256_loadu_si256(values.as_ptr().cast::<__m256i>()),
                        )
                    };
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(w, v));
                }
                if rest.len() == LANES {
                    let values = &more[..LANES];
                    // SAFETY: both are LANES values of 16 bits.
                    let (w, v) = unsafe {
                        (
                            _mm_loadu_si128(rest.as_ptr().cast::<__m128i>()),
                            _mm_loadu_si128(values.as_ptr().cast::<__m128i>()),
                        )
                    };
                    *sum = _mm256_add_epi32(*sum, _mm256_zextsi128_si256(_mm_madd_epi16(w, v)));
                }
            }
            let [a, b, c, d, e, f, g, h] = sums;
            let low = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
            let high = _mm256_hadd_epi32(_mm256_hadd_epi32(e, f), _mm256_hadd_epi32(g, h));
            // Each half of the registers holds half of the sums of four outputs.
            let half = |four: __m256i| {
                let other = _mm256_extracti128_si256::<1>(four);
                _mm_add_epi32(_mm256_castsi256_si128(four), other)
            };
            let eight = _mm256_set_m128i(half(high), half(low));
            let rounded = _mm256_add_epi32(eight, _mm256_set1_epi32(1 << (WEIGHT_BITS + ROW_BITS - 1)));
            let levels = _mm256_srai_epi32::<{ (WEIGHT_BITS + ROW_BITS) as i32 }>(rounded);
            group.copy_from_slice(&bytes(levels));
            x += 8;
        }
        for pixel in groups.into_remainder() {
            *pixel = across_one(row, taps, x);
            x += 1;
        }
    }
}
