//! The two passes of a resize, across the rows and down the columns, each rounded to gray levels: portable, and with
//! AVX2. Both give the same numbers.

use super::taps::{GROUP, Taps, WEIGHT_BITS, Weights};

/// Rows of an image, from the first pixel that is used on.
#[derive(Clone, Copy)]
pub struct Lines<'a> {
    pub pixels: &'a [u8],
    pub stride: usize,
}

/// Resizes one row of 16 bits (see [`widen`]). The output has the length of [`padded`]; its pixels after those of the taps
/// have no meaning.
pub type Across = fn(&[i16], &Taps, &mut [u8]);
/// Adds up weighted lines into one row.
pub type Down = fn(Lines, Weights, &mut [u8]);

/// Length of a buffer for a row of this many pixels.
pub fn padded(width: usize) -> usize {
    width.next_multiple_of(GROUP)
}

/// Values of a widened row: those of the source's columns, and zeros that loads may reach.
pub fn row_length(columns: usize, taps: &Taps) -> usize {
    (columns + taps.stride).max(taps.near.reach)
}

/// A row of gray levels as 16-bit values, at the beginning of a longer one.
pub fn widen(row: &[u8], wide: &mut [i16]) {
    wide.iter_mut().zip(row).for_each(|(wide, &level)| *wide = level.into());
}

/// The two passes in the fastest form for this processor.
pub fn passes() -> (Across, Down) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        return (
            // SAFETY: the processor has AVX2.
            |row, taps, out| unsafe { avx2::across(row, taps, out) },
            // SAFETY: the processor has AVX2.
            |source, weights, out| unsafe { avx2::down(source, weights, out) },
        );
    }
    (across, down)
}

/// `out[x]` = the weighted sum of the pixels that x covers, rounded to a gray level.
pub fn across(row: &[i16], taps: &Taps, out: &mut [u8]) {
    for (x, pixel) in out.iter_mut().enumerate().take(taps.starts.len()) {
        *pixel = across_one(row, taps, x);
    }
}

fn across_one(row: &[i16], taps: &Taps, x: usize) -> u8 {
    let (start, weights) = taps.of(x);
    gray_level((0..taps.counts[x]).map(|k| weights.of(k) * i32::from(row[start + k])).sum())
}

/// `out[x]` = sum over k of `weights[k]` · line k at x, rounded to a gray level.
pub fn down(source: Lines, weights: Weights, out: &mut [u8]) {
    for (x, pixel) in out.iter_mut().enumerate() {
        *pixel = down_one(source, weights, x);
    }
}

fn down_one(source: Lines, weights: Weights, x: usize) -> u8 {
    let at = |k: usize| i32::from(source.pixels[k * source.stride + x]);
    gray_level((0..weights.coarse.len()).map(|k| weights.of(k) * at(k)).sum())
}

fn gray_level(sum: i32) -> u8 {
    ((sum + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS).clamp(0, 255) as u8
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::cast_ptr_alignment)] // Loads and stores are the unaligned ones.
mod avx2 {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_madd_epi16, _mm256_add_epi32,
        _mm256_castsi256_si128, _mm256_cvtepu8_epi16, _mm256_extracti128_si256, _mm256_hadd_epi32, _mm256_loadu_si256,
        _mm256_madd_epi16, _mm256_packs_epi32, _mm256_packus_epi16, _mm256_permute4x64_epi64, _mm256_set_m128i,
        _mm256_set1_epi32, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srai_epi32,
        _mm256_storeu_si256, _mm256_unpackhi_epi16, _mm256_unpacklo_epi16, _mm256_zextsi128_si256,
    };

    use super::super::taps::{FINE_BITS, GROUP, LANES, Taps, WEIGHT_BITS, Weights};
    use super::{Lines, across_one, down_one};

    /// Values of one register, and columns that one step of the row pass takes.
    const WIDE: usize = 2 * LANES;
    const STEP: usize = 2 * WIDE;

    #[target_feature(enable = "avx2")]
    pub fn down(source: Lines, weights: Weights, out: &mut [u8]) {
        if out.len() < STEP || weights.coarse.is_empty() {
            super::down(source, weights, out);
        } else if weights.fine.is_empty() {
            down_wide::<false>(source, weights, out);
        } else {
            down_wide::<true>(source, weights, out);
        }
    }

    #[target_feature(enable = "avx2")]
    fn down_wide<const FINE: bool>(source: Lines, weights: Weights, out: &mut [u8]) {
        let (width, count) = (out.len(), weights.coarse.len());
        // Every load below ends within the last line's pixels of interest.
        assert!(source.pixels.len() >= (count - 1) * source.stride + width && width >= STEP);
        assert!(!FINE || weights.fine.len() == count);
        // Lines are processed in pairs; the last of an odd number is paired with itself at weight 0.
        let pair = |parts: &[i16], k: usize| {
            let next = parts.get(k + 1).map_or(0, |&weight| i32::from(weight));
            _mm256_set1_epi32((next << 16) | i32::from(parts[k] as u16))
        };
        let mut x = 0;
        while x < width {
            // The last step ends with the row, and overlaps the one before.
            x = x.min(width - STEP);
            let mut coarse = [_mm256_setzero_si256(); 4];
            let mut fine = [_mm256_setzero_si256(); 4];
            for k in (0..count).step_by(2) {
                let (coarse_pair, next) = (pair(weights.coarse, k), (k + 1).min(count - 1));
                let fine_pair = if FINE { pair(weights.fine, k) } else { coarse_pair };
                for half in 0..2 {
                    // SAFETY: x + STEP ≤ width, and the assertion above.
                    let at = |k: usize| unsafe {
                        let from = source.pixels.as_ptr().add(k * source.stride + x + half * WIDE);
                        _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast::<__m128i>()))
                    };
                    let (a, b) = (at(k), at(next));
                    for (place, values) in
                        [_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)].into_iter().enumerate()
                    {
                        let sum = half * 2 + place;
                        coarse[sum] = _mm256_add_epi32(coarse[sum], _mm256_madd_epi16(values, coarse_pair));
                        if FINE {
                            fine[sum] = _mm256_add_epi32(fine[sum], _mm256_madd_epi16(values, fine_pair));
                        }
                    }
                }
            }
            let level = |sum: usize| levels(coarse[sum], fine[sum]);
            // Unpacking and packing work within the halves of a register; the last packing needs a permutation.
            let half = |half: usize| _mm256_packs_epi32(level(half * 2), level(half * 2 + 1));
            let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi16(half(0), half(1)));
            // SAFETY: x + STEP ≤ width.
            unsafe { _mm256_storeu_si256(out.as_mut_ptr().add(x).cast::<__m256i>(), bytes) };
            x += STEP;
        }
        debug_assert_eq!(out[width - 1], down_one(source, weights, width - 1));
    }

    /// Gray levels, not clipped, of sums of coarse and fine parts.
    #[target_feature(enable = "avx2")]
    fn levels(coarse: __m256i, fine: __m256i) -> __m256i {
        let sum = _mm256_add_epi32(_mm256_slli_epi32::<{ FINE_BITS as i32 }>(coarse), fine);
        _mm256_srai_epi32::<{ WEIGHT_BITS as i32 }>(_mm256_add_epi32(sum, _mm256_set1_epi32(1 << (WEIGHT_BITS - 1))))
    }

    /// Eight of them as bytes.
    #[target_feature(enable = "avx2")]
    fn bytes(levels: __m256i) -> [u8; 8] {
        let packed = _mm256_packus_epi16(_mm256_packs_epi32(levels, levels), _mm256_setzero_si256());
        let four = |half: __m128i| u64::from(_mm_cvtsi128_si32(half).cast_unsigned());
        let (low, high) = (_mm256_castsi256_si128(packed), _mm256_extracti128_si256::<1>(packed));
        (four(low) | (four(high) << 32)).to_le_bytes()
    }

    #[target_feature(enable = "avx2")]
    pub fn across(row: &[i16], taps: &Taps, out: &mut [u8]) {
        if let Some(weights) = taps.coarse_alone() {
            // Reducing to a tenth takes four registers for each output.
            return match taps.stride / WIDE {
                1 => across_coarse::<1>(row, taps, weights, out),
                2 => across_coarse::<2>(row, taps, weights, out),
                3 => across_coarse::<3>(row, taps, weights, out),
                4 => across_coarse::<4>(row, taps, weights, out),
                _ => across_far(row, taps, out),
            };
        }
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

    /// Outputs whose source pixels are near each other: eight side by side, a pair of taps at a time.
    #[target_feature(enable = "avx2")]
    fn across_near<const PAIRS: usize>(row: &[i16], taps: &Taps, out: &mut [u8]) {
        let near = &taps.near;
        assert!(row.len() >= near.reach && near.pairs == PAIRS);
        let weights = near.coarse.as_chunks::<PAIRS>().0.iter().zip(near.fine.as_chunks::<PAIRS>().0);
        for ((group, (coarse, fine)), out) in near.groups.iter().zip(weights).zip(out.chunks_exact_mut(GROUP)) {
            // SAFETY: `order` has 32 bytes.
            let order = unsafe { _mm256_loadu_si256(group.order.as_ptr().cast::<__m256i>()) };
            let mut sums = [_mm256_setzero_si256(); 2];
            for pair in 0..PAIRS {
                // SAFETY: the row reaches eight values beyond the last pair of each base, and a pair has 16 weights.
                let (low, high, weights) = unsafe {
                    let half = |base: usize| _mm_loadu_si128(row.as_ptr().add(base + 2 * pair).cast::<__m128i>());
                    let parts = |parts: &[i16; 2 * GROUP]| _mm256_loadu_si256(parts.as_ptr().cast::<__m256i>());
                    (half(group.bases[0]), half(group.bases[1]), [parts(&coarse[pair]), parts(&fine[pair])])
                };
                let values = _mm256_shuffle_epi8(_mm256_set_m128i(high, low), order);
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(values, weights));
                }
            }
            out.copy_from_slice(&bytes(levels(sums[0], sums[1])));
        }
    }

    /// Outputs of weights without fine parts, which fill `REGISTERS` registers for each.
    #[target_feature(enable = "avx2")]
    fn across_coarse<const REGISTERS: usize>(row: &[i16], taps: &Taps, weights: &[i16], out: &mut [u8]) {
        let (stride, count) = (REGISTERS * WIDE, taps.starts.len());
        // Every load below ends within the row or the weights.
        assert!(taps.stride == stride && weights.len() == count * stride && row.len() >= taps.last_start + stride);
        let mut groups = out[..count].chunks_exact_mut(GROUP);
        for (index, (group, starts)) in groups.by_ref().zip(taps.starts.chunks_exact(GROUP)).enumerate() {
            let mut sums = [_mm256_setzero_si256(); GROUP];
            for (lane, (sum, start)) in sums.iter_mut().zip(starts).enumerate() {
                for register in 0..REGISTERS {
                    // SAFETY: `start` is at most the last start, and there are `stride` weights for each output.
                    let (weights, values) = unsafe {
                        let at = (index * GROUP + lane) * stride + register * WIDE;
                        (
                            _mm256_loadu_si256(weights.as_ptr().add(at).cast::<__m256i>()),
                            _mm256_loadu_si256(row.as_ptr().add(start + register * WIDE).cast::<__m256i>()),
                        )
                    };
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(weights, values));
                }
            }
            group.copy_from_slice(&bytes(levels(sums_of(sums), _mm256_setzero_si256())));
        }
        for (pixel, x) in groups.into_remainder().iter_mut().zip(count / GROUP * GROUP..) {
            *pixel = across_one(row, taps, x);
        }
    }

    /// The sums of the values in each register.
    #[target_feature(enable = "avx2")]
    fn sums_of([a, b, c, d, e, f, g, h]: [__m256i; GROUP]) -> __m256i {
        let low = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
        let high = _mm256_hadd_epi32(_mm256_hadd_epi32(e, f), _mm256_hadd_epi32(g, h));
        // Each half of the registers holds half of the sums of four outputs.
        let half = |four: __m256i| {
            let other = _mm256_extracti128_si256::<1>(four);
            _mm_add_epi32(_mm256_castsi256_si128(four), other)
        };
        _mm256_set_m128i(half(high), half(low))
    }

    /// Outputs that cover many source pixels each: its taps side by side.
    #[target_feature(enable = "avx2")]
    fn across_far(row: &[i16], taps: &Taps, out: &mut [u8]) {
        let mut groups = out[..taps.starts.len()].chunks_exact_mut(GROUP);
        let mut x = 0;
        for group in groups.by_ref() {
            let mut sums = [_mm256_setzero_si256(); GROUP];
            for (lane, sum) in sums.iter_mut().enumerate() {
                let (start, weights) = taps.of(x + lane);
                let coarse = products(weights.coarse, &row[start..]);
                *sum = _mm256_slli_epi32::<{ FINE_BITS as i32 }>(coarse);
                if !weights.fine.is_empty() {
                    *sum = _mm256_add_epi32(*sum, products(weights.fine, &row[start..]));
                }
            }
            group.copy_from_slice(&bytes(levels(_mm256_setzero_si256(), sums_of(sums))));
            x += GROUP;
        }
        for pixel in groups.into_remainder() {
            *pixel = across_one(row, taps, x);
            x += 1;
        }
    }

    /// Eight sums of products of weights and values, which add up to all of them.
    #[target_feature(enable = "avx2")]
    fn products(weights: &[i16], values: &[i16]) -> __m256i {
        let (wide, rest) = weights.as_chunks::<WIDE>();
        let (values, more) = values.split_at(wide.len() * WIDE);
        let mut sum = _mm256_setzero_si256();
        for (weights, values) in wide.iter().zip(values.chunks_exact(WIDE)) {
            // SAFETY: both are WIDE values of 16 bits.
            let (w, v) = unsafe {
                (
                    _mm256_loadu_si256(weights.as_ptr().cast::<__m256i>()),
                    _mm256_loadu_si256(values.as_ptr().cast::<__m256i>()),
                )
            };
            sum = _mm256_add_epi32(sum, _mm256_madd_epi16(w, v));
        }
        if rest.len() == LANES {
            let values = &more[..LANES];
            // SAFETY: both are LANES values of 16 bits.
            let (w, v) = unsafe {
                (_mm_loadu_si128(rest.as_ptr().cast::<__m128i>()), _mm_loadu_si128(values.as_ptr().cast::<__m128i>()))
            };
            sum = _mm256_add_epi32(sum, _mm256_zextsi128_si256(_mm_madd_epi16(w, v)));
        }
        sum
    }
}
