//! Normalizes gray levels to floats, a row at a time: `level · gain + offset`.
//!
//! A batch of large images does not fit into the caches of the processor. Its rows are therefore written past the caches
//! where their address allows it: otherwise each line of memory would be read before it is overwritten.

/// The gain and offset that normalize gray levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalize {
    gain: f32,
    offset: f32,
}

impl Normalize {
    /// From the mean and standard deviation of pixels, which are 0 to 1.
    pub fn new(mean: f32, std: f32) -> Self {
        Self { gain: 1.0 / (255.0 * std), offset: -mean / std }
    }

    /// Normalizes one gray level.
    pub fn level(self, level: u8) -> f32 {
        self.float(level.into())
    }

    fn float(self, level: f32) -> f32 {
        level * self.gain + self.offset
    }

    /// Normalizes a row of gray levels into floats of the same length. The AVX2 and the portable form compute the same
    /// numbers.
    pub fn row(self, levels: &[u8], out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { avx2::row(self, levels, out) };
        }
        levels.iter().zip(out).for_each(|(&level, out)| *out = self.level(level));
    }

    /// As [`row`](Self::row), of gray levels that are not whole numbers.
    pub fn floats(self, levels: &[f32], out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") {
            // SAFETY: the processor has AVX2.
            return unsafe { avx2::floats(self, levels, out) };
        }
        levels.iter().zip(out).for_each(|(&level, out)| *out = self.float(level));
    }

    /// Must be called after the last row, before another thread reads the rows.
    pub fn finish() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 processor has this fence.
        unsafe {
            std::arch::x86_64::_mm_sfence();
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::cast_ptr_alignment)] // Loads are the unaligned ones; streamed stores check the address.
mod avx2 {
    use std::arch::x86_64::{
        __m128i, __m256, _mm_loadl_epi64, _mm_stream_ps, _mm256_add_ps, _mm256_castps256_ps128, _mm256_cvtepi32_ps,
        _mm256_cvtepu8_epi32, _mm256_extractf128_ps, _mm256_loadu_ps, _mm256_mul_ps, _mm256_set1_ps, _mm256_storeu_ps,
    };

    use super::Normalize;

    /// Floats of one step.
    const STEP: usize = 8;
    /// Alignment of a streamed store in bytes.
    const ALIGNED: usize = 16;

    #[target_feature(enable = "avx2")]
    pub fn row(normalize: Normalize, levels: &[u8], out: &mut [f32]) {
        // SAFETY: eight bytes are read.
        let load = |levels: &[u8; STEP]| unsafe {
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(levels.as_ptr().cast::<__m128i>())))
        };
        steps(normalize, levels, out, load, |level| normalize.level(level));
    }

    #[target_feature(enable = "avx2")]
    pub fn floats(normalize: Normalize, levels: &[f32], out: &mut [f32]) {
        // SAFETY: eight floats are read.
        let load = |levels: &[f32; STEP]| unsafe { _mm256_loadu_ps(levels.as_ptr()) };
        steps(normalize, levels, out, load, |level| normalize.float(level));
    }

    /// Normalizes eight levels at a time, and the rest one by one.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn steps<L: Copy>(
        normalize: Normalize,
        levels: &[L],
        out: &mut [f32],
        load: impl Fn(&[L; STEP]) -> __m256,
        one: impl Fn(L) -> f32,
    ) {
        let (gain, offset) = (_mm256_set1_ps(normalize.gain), _mm256_set1_ps(normalize.offset));
        let streamed = (out.as_ptr() as usize).is_multiple_of(ALIGNED);
        let (eights, rest) = levels.as_chunks::<STEP>();
        let (out, out_rest) = out.as_chunks_mut::<STEP>();
        for (levels, out) in eights.iter().zip(out) {
            let floats = _mm256_add_ps(_mm256_mul_ps(load(levels), gain), offset);
            // SAFETY: eight floats are written. Steps of 32 bytes keep the address aligned.
            unsafe {
                if streamed {
                    _mm_stream_ps(out.as_mut_ptr(), _mm256_castps256_ps128(floats));
                    _mm_stream_ps(out.as_mut_ptr().add(STEP / 2), _mm256_extractf128_ps::<1>(floats));
                } else {
                    _mm256_storeu_ps(out.as_mut_ptr(), floats);
                }
            }
        }
        rest.iter().zip(out_rest).for_each(|(&level, out)| *out = one(level));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_any_length_and_address_are_the_levels_formula() {
        let normalize = Normalize::new(0.4978, 0.2449);
        let levels: Vec<u8> = (0..=255).collect();
        for length in [0, 1, 7, 8, 9, 100, 256] {
            for start in 0..5 {
                let mut out = vec![f32::NAN; length + 5];
                normalize.row(&levels[256 - length..], &mut out[start..start + length]);
                Normalize::finish();
                let expected: Vec<f32> = levels[256 - length..].iter().map(|&level| normalize.level(level)).collect();
                assert_eq!(out[start..start + length], expected);
                let floats: Vec<f32> = levels[256 - length..].iter().map(|&level| f32::from(level)).collect();
                out.fill(f32::NAN);
                normalize.floats(&floats, &mut out[start..start + length]);
                Normalize::finish();
                assert_eq!(out[start..start + length], expected);
            }
        }
        assert!((normalize.level(255) - (1.0 - 0.4978) / 0.2449).abs() < 1e-5);
    }
}
