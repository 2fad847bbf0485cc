//! Antialiased resampling of 8-bit grey images: the filters of Pillow, in whole numbers.
//!
//! One output row at a time: the rows that it covers are weighted and added (columns side by side, so that every
//! processor lane has work), then the columns. Weights have 14 bits, the row between the passes keeps 6 bits below a
//! grey level: results lie within one level of Pillow's. The AVX2 path and the portable one compute the same numbers.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Resampling filter; its support grows with the scale, so that down-scaling does not alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    Bilinear,
    /// a = -0.5.
    Bicubic,
    /// Three lobes.
    Lanczos,
}

impl Filter {
    /// Half the width of the filter, in pixels of the smaller image.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            Self::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            Self::Bicubic | Self::Lanczos => 0.0,
        }
    }
}

/// A rectangle in pixels of the source image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rectangle {
    pub left: u32,
    pub top: u32,
    pub width: u32,
    pub height: u32,
}

/// Bits of a weight: 1.0 is `1 << WEIGHT_BITS`.
const WEIGHT_BITS: u32 = 14;
/// Bits below a grey level that the row between the passes keeps.
const ROW_BITS: u32 = 6;
/// Weights of one output pixel are padded with zeros to a multiple of this: the values of half an AVX2 register.
const LANES: usize = 8;

/// The source pixels that each output pixel covers along one axis, and their weights.
#[derive(Default)]
struct Taps {
    /// First source pixel of each output pixel.
    starts: Vec<usize>,
    /// Number of source pixels of each output pixel.
    counts: Vec<usize>,
    /// `stride` weights an output pixel, zeros behind the last.
    weights: Vec<i16>,
    stride: usize,
}

impl Taps {
    /// Taps from `from` pixels to `to` pixels, as Pillow places them.
    fn compute(&mut self, from: usize, to: usize, filter: Filter) {
        let scale = from as f64 / to as f64;
        let spread = scale.max(1.0);
        let support = filter.support() * spread;
        self.stride = ((support.ceil() as usize * 2 + 1).min(from)).next_multiple_of(LANES);
        self.starts.clear();
        self.counts.clear();
        self.weights.clear();
        self.weights.resize(to * self.stride, 0);
        let mut exact = Vec::with_capacity(self.stride);
        for (index, weights) in self.weights.chunks_exact_mut(self.stride).enumerate() {
            let centre = (index as f64 + 0.5) * scale;
            let start = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            exact.clear();
            exact.extend((start..end).map(|x| filter.weight((x as f64 - centre + 0.5) / spread)));
            let unit = f64::from(1u32 << WEIGHT_BITS) / exact.iter().sum::<f64>();
            // The running sum is rounded, not each weight: together they are one exactly.
            let (mut sum, mut before) = (0.0, 0i32);
            for (weight, exact) in weights.iter_mut().zip(&exact) {
                sum += exact * unit;
                let now = sum.round() as i32;
                *weight = (now - before) as i16;
                before = now;
            }
            self.starts.push(start);
            self.counts.push(end - start);
        }
    }

    fn of(&self, index: usize) -> (usize, &[i16]) {
        (self.starts[index], &self.weights[index * self.stride..(index + 1) * self.stride])
    }
}

/// Taps of the last few scales: the radiographs of a set have few sizes.
#[derive(Default)]
struct Scales {
    known: Vec<((usize, usize, Filter), Taps)>,
    /// Which of them was asked for last, and which is to be forgotten next.
    current: usize,
    oldest: usize,
}

impl Scales {
    const KEPT: usize = 8;

    fn set(&mut self, from: usize, to: usize, filter: Filter) {
        let key = (from, to, filter);
        if let Some(found) = self.known.iter().position(|(known, _)| *known == key) {
            self.current = found;
            return;
        }
        if self.known.len() < Self::KEPT {
            self.known.push((key, Taps::default()));
            self.current = self.known.len() - 1;
        } else {
            self.current = self.oldest;
            self.oldest = (self.oldest + 1) % Self::KEPT;
            self.known[self.current].0 = key;
        }
        self.known[self.current].1.compute(from, to, filter);
    }

    fn taps(&self) -> &Taps {
        &self.known[self.current].1
    }
}

/// Resizes grey images with buffers that are kept between calls.
#[derive(Default)]
pub struct Resample {
    rows: Scales,
    columns: Scales,
    /// One row between the passes, zeros behind it.
    row: Vec<i16>,
    pixels: Vec<u8>,
    /// Source rows of a picture that comes in row by row.
    window: Vec<u8>,
}

impl Resample {
    /// Resizes a rectangle of a grey image (pixels row-major, width, height) to `width` × `height`, row-major; the
    /// result stays valid until the next call.
    ///
    /// # Errors
    /// When a side is zero, the rectangle leaves the image, or the pixels are not as many as width · height.
    pub fn resize(
        &mut self,
        source: (&[u8], u32, u32),
        part: Rectangle,
        width: u32,
        height: u32,
        filter: Filter,
    ) -> Result<&[u8]> {
        let (pixels, stride, lines) = (source.0, source.1 as usize, source.2 as usize);
        let [left, top, part_width, part_height] =
            [part.left, part.top, part.width, part.height].map(|side| side as usize);
        let inside = left + part_width <= stride && top + part_height <= lines;
        if part_width * part_height == 0 || width * height == 0 || !inside || pixels.len() != stride * lines {
            return Err(Error::Invalid(format!(
                "resize: {part:?} of {stride}×{lines} ({} bytes) to {width}×{height}",
                pixels.len()
            )));
        }
        let (width, height) = (width as usize, height as usize);
        self.pixels.resize(width * height, 0);
        if (part_width, part_height) == (width, height) {
            for (to, y) in self.pixels.chunks_exact_mut(width).zip(top..) {
                to.copy_from_slice(&pixels[y * stride + left..][..width]);
            }
            return Ok(&self.pixels);
        }
        self.rows.set(part_height, height, filter);
        self.columns.set(part_width, width, filter);
        let (rows, columns) = (self.rows.taps(), self.columns.taps());
        self.row.clear();
        self.row.resize(part_width + columns.stride, 0);
        let (down, across) = passes();
        for (y, out) in self.pixels.chunks_exact_mut(width).enumerate() {
            let (start, weights) = rows.of(y);
            let weights = &weights[..rows.counts[y]];
            let first = (top + start) * stride + left;
            let source = Lines { pixels: &pixels[first..], stride };
            down(source, weights, &mut self.row[..part_width]);
            across(&self.row, columns, out);
        }
        Ok(&self.pixels)
    }
}

/// A picture that is resized while its rows come in, so that it need not be held as a whole. The result is that of
/// [`Resample::resize`].
pub struct Rows<'a> {
    scratch: &'a mut Resample,
    /// Width of the source and of the result.
    widths: (usize, usize),
    /// Number of the first row in the window.
    first: usize,
    /// Number of the next row of the result.
    next: usize,
    window: Vec<u8>,
}

impl Resample {
    /// Begins to resize a picture of this width and height to `width` × `height`.
    ///
    /// # Errors
    /// When a side is zero.
    pub fn rows(&mut self, source: (u32, u32), width: u32, height: u32, filter: Filter) -> Result<Rows<'_>> {
        if [source.0, source.1, width, height].contains(&0) {
            return Err(Error::Invalid(format!("resize: {}×{} to {width}×{height}", source.0, source.1)));
        }
        self.rows.set(source.1 as usize, height as usize, filter);
        self.columns.set(source.0 as usize, width as usize, filter);
        self.row.clear();
        self.row.resize(source.0 as usize + self.columns.taps().stride, 0);
        self.pixels.resize(width as usize * height as usize, 0);
        let window = std::mem::take(&mut self.window);
        Ok(Rows { scratch: self, widths: (source.0 as usize, width as usize), first: 0, next: 0, window })
    }
}

impl Rows<'_> {
    /// Takes rows, whole ones, that `append` writes behind those already in the window.
    pub fn take(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        append(&mut self.window);
        let (down, across) = passes();
        let (width, new_width) = self.widths;
        let here = self.first + self.window.len() / width;
        let Resample { rows, columns, row, pixels, .. } = &mut *self.scratch;
        let (rows, columns) = (rows.taps(), columns.taps());
        while let Some((start, weights)) = (self.next < rows.starts.len()).then(|| rows.of(self.next)) {
            let count = rows.counts[self.next];
            if start + count > here {
                break;
            }
            let source = Lines { pixels: &self.window[(start - self.first) * width..], stride: width };
            down(source, &weights[..count], &mut row[..width]);
            across(row, columns, &mut pixels[self.next * new_width..][..new_width]);
            self.next += 1;
        }
        // Rows that nothing needs any more make room.
        let needed = rows.starts.get(self.next).copied().unwrap_or(here).min(here);
        let gone = (needed - self.first) * width;
        self.window.copy_within(gone.., 0);
        self.window.truncate(self.window.len() - gone);
        self.first = needed;
    }

    /// The result, row-major, once all rows were taken; black where they were not.
    pub fn finish(mut self) -> Vec<u8> {
        self.scratch.pixels[self.next * self.widths.1..].fill(0);
        self.window.clear();
        self.scratch.window = std::mem::take(&mut self.window);
        self.scratch.pixels.clone()
    }
}

/// Rows of an image, from the first pixel of interest on.
#[derive(Clone, Copy)]
struct Lines<'a> {
    pixels: &'a [u8],
    stride: usize,
}

type Down = fn(Lines, &[i16], &mut [i16]);
type Across = fn(&[i16], &Taps, &mut [u8]);

/// The two passes in their best form for this processor.
fn passes() -> (Down, Across) {
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
fn down(source: Lines, weights: &[i16], row: &mut [i16]) {
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
fn across(row: &[i16], taps: &Taps, out: &mut [u8]) {
    for (x, pixel) in out.iter_mut().enumerate() {
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
        _mm256_setzero_si256, _mm256_srai_epi32, _mm256_storeu_si256, _mm256_unpackhi_epi16, _mm256_unpacklo_epi16,
        _mm256_zextsi128_si256,
    };

    use super::{LANES, Lines, ROW_BITS, Taps, WEIGHT_BITS, across_one, down_one};

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
        let mut groups = out.chunks_exact_mut(8);
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
            let packed = _mm256_packus_epi16(_mm256_packs_epi32(levels, levels), _mm256_setzero_si256());
            let bytes = |half: __m128i| _mm_cvtsi128_si32(half).to_le_bytes();
            group[..4].copy_from_slice(&bytes(_mm256_castsi256_si128(packed)));
            group[4..].copy_from_slice(&bytes(_mm256_extracti128_si256::<1>(packed)));
            x += 8;
        }
        for pixel in groups.into_remainder() {
            *pixel = across_one(row, taps, x);
            x += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize) -> Vec<u8> {
        let mut state = 12345u32;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect()
    }

    /// The same in floating point, both passes unrounded.
    fn exact(pixels: &[u8], from: (usize, usize), to: (usize, usize), filter: Filter) -> Vec<f64> {
        let axis = |from: usize, to: usize| -> Vec<Vec<(usize, f64)>> {
            let scale = from as f64 / to as f64;
            let spread = scale.max(1.0);
            (0..to)
                .map(|i| {
                    let centre = (i as f64 + 0.5) * scale;
                    let start = (centre - filter.support() * spread + 0.5).max(0.0) as usize;
                    let end = ((centre + filter.support() * spread + 0.5) as usize).min(from);
                    let weights: Vec<f64> =
                        (start..end).map(|x| filter.weight((x as f64 - centre + 0.5) / spread)).collect();
                    let sum: f64 = weights.iter().sum();
                    (start..end).zip(weights.iter().map(|w| w / sum)).collect()
                })
                .collect()
        };
        let (rows, columns) = (axis(from.1, to.1), axis(from.0, to.0));
        let mut out = Vec::new();
        for row in &rows {
            for column in &columns {
                let sum: f64 = row
                    .iter()
                    .map(|(y, v)| v * column.iter().map(|(x, w)| w * f64::from(pixels[y * from.0 + x])).sum::<f64>())
                    .sum();
                out.push(sum.clamp(0.0, 255.0));
            }
        }
        out
    }

    #[test]
    fn every_scale_is_within_one_level_of_the_exact_sums() {
        let sizes =
            [((97, 61), (40, 33)), ((640, 90), (51, 40)), ((33, 20), (64, 64)), ((5, 3), (9, 17)), ((1, 1), (8, 8))];
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            for (from, to) in sizes {
                let pixels = noise(from.0 * from.1);
                let mut scratch = Resample::default();
                let whole = Rectangle { left: 0, top: 0, width: from.0 as u32, height: from.1 as u32 };
                let source = (pixels.as_slice(), from.0 as u32, from.1 as u32);
                let ours = scratch.resize(source, whole, to.0 as u32, to.1 as u32, filter).unwrap();
                let exact = exact(&pixels, from, to, filter);
                let worst = ours.iter().zip(&exact).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
                assert!(worst < 0.75, "{filter:?} {from:?} {to:?}: off by {worst}");
            }
        }
    }

    #[test]
    fn row_by_row_gives_the_same_picture() {
        let (width, height) = (75usize, 191usize);
        let pixels = noise(width * height);
        let whole = Rectangle { left: 0, top: 0, width: 75, height: 191 };
        let mut scratch = Resample::default();
        for (to, filter) in [((30, 44), Filter::Lanczos), ((75, 191), Filter::Bicubic), ((90, 300), Filter::Bilinear)] {
            let expected = scratch.resize((&pixels, 75, 191), whole, to.0, to.1, filter).unwrap().to_vec();
            for piece in [1, 7, 64, 500] {
                let mut rows = scratch.rows((75, 191), to.0, to.1, filter).unwrap();
                pixels.chunks(piece * width).for_each(|some| rows.take(|window| window.extend_from_slice(some)));
                assert!(rows.finish() == expected, "{to:?}, {piece} rows at a time");
            }
        }
        assert!(scratch.rows((0, 4), 2, 2, Filter::Bicubic).is_err());
    }

    #[test]
    fn both_forms_give_the_same_numbers() {
        let (width, height) = (213, 77);
        let pixels = noise(width * height);
        for (to, filter) in [(50, Filter::Lanczos), (400, Filter::Bicubic), (31, Filter::Bilinear)] {
            let (mut rows, mut columns) = (Taps::default(), Taps::default());
            rows.compute(height, to, filter);
            columns.compute(width, to, filter);
            let (fast_down, fast_across) = passes();
            for y in 0..to {
                let (start, weights) = rows.of(y);
                let weights = &weights[..rows.counts[y]];
                let lines = Lines { pixels: &pixels[start * width..], stride: width };
                let mut both = [vec![0; width + columns.stride], vec![0; width + columns.stride]];
                down(lines, weights, &mut both[0][..width]);
                fast_down(lines, weights, &mut both[1][..width]);
                assert_eq!(both[0], both[1]);
                let mut out = [vec![0; to], vec![0; to]];
                across(&both[0], &columns, &mut out[0]);
                fast_across(&both[0], &columns, &mut out[1]);
                assert_eq!(out[0], out[1]);
            }
        }
    }

    #[test]
    fn a_part_is_that_part_alone_and_flat_stays_flat() {
        let pixels = noise(50 * 40);
        let part = Rectangle { left: 7, top: 5, width: 36, height: 30 };
        let cut: Vec<u8> = (5..35).flat_map(|y| pixels[y * 50 + 7..y * 50 + 43].to_vec()).collect();
        let whole = Rectangle { left: 0, top: 0, width: 36, height: 30 };
        let mut scratch = Resample::default();
        let expected = scratch.resize((&cut, 36, 30), whole, 20, 22, Filter::Bicubic).unwrap().to_vec();
        assert_eq!(scratch.resize((&pixels, 50, 40), part, 20, 22, Filter::Bicubic).unwrap(), expected);
        assert_eq!(scratch.resize((&pixels, 50, 40), part, 36, 30, Filter::Bicubic).unwrap(), cut);
        let flat = vec![201; 50 * 40];
        for (width, height) in [(3, 3), (17, 90), (128, 128)] {
            let out = scratch.resize((&flat, 50, 40), part, width, height, Filter::Lanczos).unwrap();
            assert!(out.iter().all(|&pixel| pixel == 201));
        }
        assert!(scratch.resize((&pixels, 50, 40), Rectangle { left: 15, ..part }, 4, 4, Filter::Bicubic).is_err());
        assert!(scratch.resize((&pixels, 50, 40), part, 0, 4, Filter::Bicubic).is_err());
    }
}
