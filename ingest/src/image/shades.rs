//! The shade of every stored value of at most 16 bits, applied to many values at once.

/// Largest level that the conversion of [`Ramp`] to whole numbers may get.
const LARGEST: f32 = 1e9;

/// The shade of every 16-bit word. Where the shades of all values are a line with clamped ends, as those of a linear window
/// are, AVX2 computes them, which takes a quarter of the time of looking them up.
pub struct Shades {
    table: Box<[u8; 1 << 16]>,
    ramp: Option<Ramp>,
}

/// Shades as `(word & mask) · scale + offset`, rounded down and clamped to 0..=255.
#[derive(Clone, Copy)]
struct Ramp {
    mask: u16,
    scale: f32,
    offset: f32,
}

impl Shades {
    /// The shades of a table over all words. `line` states the unclamped levels of the first and of the last value, where the
    /// low bits of a word that `mask` has are a value without a sign.
    pub fn new(table: Box<[u8; 1 << 16]>, line: Option<(u16, [f64; 2])>) -> Self {
        let ramp = line.map(|(mask, [first, last])| {
            let scale = (last - first) / f64::from(mask.max(1));
            Ramp { mask, scale: scale as f32, offset: first as f32 }
        });
        // The table decides: a line that gives another shade anywhere is not used.
        let ramp =
            ramp.filter(|ramp| ramp.is_bounded() && (0..=ramp.mask).all(|v| ramp.shade(v) == table[usize::from(v)]));
        Self { table, ramp }
    }

    /// Appends the shades of bytes.
    pub fn of_bytes(&self, values: &[u8], gray: &mut Vec<u8>) {
        gray.extend(values.iter().map(|&value| self.table[usize::from(value)]));
    }

    /// Appends the shades of words in this machine's order.
    pub fn of_words(&self, words: &[u16], gray: &mut Vec<u8>) {
        let done = self.by_ramp(words.len(), words.as_ptr().cast(), cfg!(target_endian = "little"), gray);
        gray.extend(words[done..].iter().map(|&word| self.table[usize::from(word)]));
    }

    /// Appends the shades of little-endian words; a byte that is left over is ignored.
    pub fn of_little_endian(&self, bytes: &[u8], gray: &mut Vec<u8>) {
        let words = bytes.as_chunks::<2>().0;
        let done = self.by_ramp(words.len(), words.as_ptr().cast(), true, gray);
        let (eights, rest) = words[done..].as_chunks::<8>();
        let shade = |word: [u8; 2]| self.table[usize::from(u16::from_le_bytes(word))];
        gray.reserve(words.len() - done);
        eights.iter().for_each(|eight| gray.extend_from_slice(&eight.map(shade)));
        gray.extend(rest.iter().map(|&word| shade(word)));
    }

    /// Appends the shades of the first of `count` words by the ramp, and returns of how many: none where there is no ramp.
    /// `words` points to so many little-endian words.
    fn by_ramp(&self, count: usize, words: *const u8, is_little_endian: bool, gray: &mut Vec<u8>) -> usize {
        #[cfg(target_arch = "x86_64")]
        if let Some(ramp) = self.ramp.filter(|_| is_little_endian && std::arch::is_x86_feature_detected!("avx2")) {
            let whole = count / avx2::STEP * avx2::STEP;
            gray.reserve(whole);
            // SAFETY: the processor has AVX2; there are `whole` words to read, and room for as many shades, which are
            // initialized before the length grows.
            unsafe {
                avx2::apply(ramp, words, whole, gray.as_mut_ptr().add(gray.len()));
                gray.set_len(gray.len() + whole);
            }
            return whole;
        }
        let _ = (count, words, is_little_endian, gray, self.ramp);
        0
    }
}

impl Ramp {
    /// Whether no level is too large for the conversion to a whole number.
    fn is_bounded(self) -> bool {
        self.scale.abs() * f32::from(u16::MAX) + self.offset.abs() < LARGEST
    }

    fn shade(self, value: u16) -> u8 {
        ((f32::from(value) * self.scale + self.offset) as i32).clamp(0, 255) as u8
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::cast_ptr_alignment)] // Loads and stores are the unaligned ones.
mod avx2 {
    use std::arch::x86_64::{
        __m256i, _mm256_add_ps, _mm256_and_si256, _mm256_cvtepi32_ps, _mm256_cvttps_epi32, _mm256_loadu_si256,
        _mm256_mul_ps, _mm256_packs_epi32, _mm256_packus_epi16, _mm256_permute4x64_epi64, _mm256_set1_epi16,
        _mm256_set1_ps, _mm256_setzero_si256, _mm256_storeu_si256, _mm256_unpackhi_epi16, _mm256_unpacklo_epi16,
    };

    use super::Ramp;

    /// Words of one step.
    pub const STEP: usize = 32;

    /// Writes the shades of `count` words, a multiple of [`STEP`]. Packing saturates, which clamps them.
    ///
    /// # Safety
    /// `words` must point to so many words, and `shades` to room for as many bytes.
    #[target_feature(enable = "avx2")]
    pub unsafe fn apply(ramp: Ramp, words: *const u8, count: usize, shades: *mut u8) {
        let (scale, offset) = (_mm256_set1_ps(ramp.scale), _mm256_set1_ps(ramp.offset));
        let (mask, zero) = (_mm256_set1_epi16(ramp.mask as i16), _mm256_setzero_si256());
        let level = |values: __m256i| {
            _mm256_cvttps_epi32(_mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(values), scale), offset))
        };
        // Sixteen words to sixteen levels; unpacking and packing change the order in opposite ways.
        let levels = |at: usize| {
            // SAFETY: sixteen words are left at this place.
            let words = _mm256_and_si256(unsafe { _mm256_loadu_si256(words.add(2 * at).cast()) }, mask);
            _mm256_packs_epi32(level(_mm256_unpacklo_epi16(words, zero)), level(_mm256_unpackhi_epi16(words, zero)))
        };
        for at in (0..count).step_by(STEP) {
            let packed = _mm256_packus_epi16(levels(at), levels(at + STEP / 2));
            let packed = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
            // SAFETY: there is room for 32 more shades.
            unsafe { _mm256_storeu_si256(shades.add(at).cast(), packed) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(shade: impl Fn(u16) -> u8) -> Box<[u8; 1 << 16]> {
        let shades: Vec<u8> = (0..=u16::MAX).map(shade).collect();
        shades.into_boxed_slice().try_into().unwrap()
    }

    #[test]
    fn a_ramp_gives_the_shades_of_its_table() {
        // Every word, and some more so that the last step is not whole.
        let words: Vec<u16> = (0..=u16::MAX).chain(0..77).rev().collect();
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).chain([9]).collect();
        for (bits, first, last) in [
            (12, -40.3, 300.7),
            (12, 280.0, -20.0),
            (16, 0.5, 255.5),
            (8, -1000.0, 2000.0),
            (10, 128.0, 128.0),
            (1, 0.0, 255.0),
            (16, -9e6, 9e6),
        ] {
            let mask = ((1u32 << bits) - 1) as u16;
            let level = |word: u16| first + f64::from(word & mask) * (last - first) / f64::from(mask);
            let table = table(|word| level(word).floor().clamp(0.0, 255.0) as u8);
            let shades = Shades::new(table.clone(), Some((mask, [first, last])));
            let expected: Vec<u8> = words.iter().map(|&word| table[usize::from(word)]).collect();
            let (mut ours, mut little) = (vec![1, 2], vec![3]);
            shades.of_words(&words, &mut ours);
            shades.of_little_endian(&bytes, &mut little);
            assert!(ours[2..] == expected && little[1..] == expected, "{bits} bits, {first} to {last}");
            assert_eq!((ours[1], little[0]), (2, 3));
        }
    }

    #[test]
    fn a_line_that_is_not_that_of_the_table_is_not_used() {
        let curve = table(|word| (f64::from(word & 4095) / 4095.0).sqrt().mul_add(255.0, 0.5) as u8);
        assert!(Shades::new(curve.clone(), Some((4095, [0.5, 255.5]))).ramp.is_none());
        let mut padded = table(|word| (word & 4095) as u8 / 16 * 16);
        padded[7] = 200;
        assert!(Shades::new(padded, Some((4095, [0.0, 4095.0]))).ramp.is_none());
        for line in [[f64::NAN, 1.0], [0.0, f64::INFINITY], [-1e300, 1e300]] {
            assert!(Shades::new(table(|_| 0), Some((4095, line))).ramp.is_none());
        }
        assert!(Shades::new(table(|word| (word >> 4) as u8), Some((4095, [0.0, 255.9375]))).ramp.is_some());
    }
}
