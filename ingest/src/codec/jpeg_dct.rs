//! JPEG baseline and extended sequential (ITU-T T.81 annex F), one component, 8 or 12 bits; at full size, or reduced
//! to a half, a quarter or an eighth by transforming the low frequencies of each block alone.

use super::jpeg::{Bits, Header};
use super::{DecodeError, Result};

/// Natural position of each coefficient in zigzag order.
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21,
    28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63,
];

/// Index of a frequency that is not used at reduced size.
const UNUSED: usize = 255;

/// A sample of 8 or 12 bits.
pub trait Sample: Copy + Default {
    /// Bits of the type.
    const BITS: u8;
    /// Converts a level that is in the range of the type.
    fn from_level(level: i32) -> Self;
}

impl Sample for u8 {
    const BITS: u8 = 8;
    fn from_level(level: i32) -> Self {
        level as Self
    }
}

impl Sample for u16 {
    const BITS: u8 = 16;
    fn from_level(level: i32) -> Self {
        level as Self
    }
}

/// Decodes into `samples`, row-major; returns width and height, which are those of the header divided by `reduction` (1, 2, 4
/// or 8), rounded up.
pub fn decode<S: Sample>(header: &Header, reduction: usize, samples: &mut Vec<S>) -> Result<(usize, usize)> {
    match (header.precision, reduction) {
        (8 | 12, _) if S::BITS < header.precision => Err(DecodeError::Unsupported("a JPEG stream of more than 8 bits")),
        (8 | 12, 1) => blocks::<S, 8>(header, samples),
        (8 | 12, 2) => blocks::<S, 4>(header, samples),
        (8 | 12, 4) => blocks::<S, 2>(header, samples),
        (8 | 12, 8) => blocks::<S, 1>(header, samples),
        _ => Err(DecodeError::Malformed("a sequential JPEG scan with impossible parameters")),
    }
}

widest! {
    /// Decodes each block to `N` × `N` samples.
    fn blocks<S: Sample, const N: usize>(header: &Header, samples: &mut Vec<S>) -> Result<(usize, usize)> = each_block
}

#[inline(always)]
fn each_block<S: Sample, const N: usize>(header: &Header, samples: &mut Vec<S>) -> Result<(usize, usize)> {
    let reduced = |side: usize| side.div_ceil(8 / N);
    let (width, height) = (reduced(header.width), reduced(header.height));
    let across = header.width.div_ceil(8);
    samples.clear();
    samples.resize(width * height, S::default());
    // By zigzag position: the quantization step, and the index among the frequencies that are transformed.
    let scale: [(f32, u8); 64] = std::array::from_fn(|k| {
        let (row, column) = (usize::from(ZIGZAG[k]) / 8, usize::from(ZIGZAG[k]) % 8);
        let place = if row < N && column < N { row * N + column } else { UNUSED };
        (f32::from(header.steps[k]), place as u8)
    });
    let inverse = Inverse::<N>::new(header.precision);
    let mut bits = Bits::new(header.scan);
    let (mut dc, mut until_restart) = (0i32, header.restart);
    // One row of blocks: N lines, as wide as all blocks.
    let mut band = vec![S::default(); across * N * N];
    for lines in samples.chunks_mut(width * N) {
        for column in 0..across {
            if header.restart > 0 {
                if until_restart == 0 {
                    bits.restart()?;
                    (dc, until_restart) = (0, header.restart);
                }
                until_restart -= 1;
            }
            let mut block = [[0f32; N]; N];
            bits.load();
            dc = dc.wrapping_add(header.dc.next(&mut bits)?.1);
            block[0][0] = dc as f32 * scale[0].0;
            let (mut k, mut last) = (1, 0);
            while k < 64 {
                bits.load();
                let (symbol, value) = header.ac.next(&mut bits)?;
                if symbol.trailing_zeros() >= 4 {
                    if symbol != 0xF0 {
                        break;
                    }
                    k += 16;
                    continue;
                }
                k += usize::from(symbol >> 4);
                if k > 63 {
                    return Err(DecodeError::Malformed("a JPEG block with too many coefficients"));
                }
                let (step, place) = scale[k];
                if let Some(frequency) = block.as_flattened_mut().get_mut(usize::from(place)) {
                    *frequency = value as f32 * step;
                    last = last.max(usize::from(place) / N);
                }
                k += 1;
            }
            inverse.apply(&block[..=last], &mut band[column * N..], across * N);
        }
        if bits.is_beyond_the_end() {
            return Err(DecodeError::Malformed("the JPEG scan ends early"));
        }
        for (line, from) in lines.chunks_exact_mut(width).zip(band.chunks_exact(across * N)) {
            line.copy_from_slice(&from[..width]);
        }
    }
    Ok((width, height))
}

/// The inverse cosine transform of the lowest `N` × `N` frequencies.
struct Inverse<const N: usize> {
    /// By frequency, then position.
    basis: [[f32; N]; N],
    middle: f32,
    largest: f32,
}

impl<const N: usize> Inverse<N> {
    fn new(precision: u8) -> Self {
        let basis = std::array::from_fn(|u| {
            let norm = if u == 0 { 0.5f64.sqrt() } else { 1.0 };
            std::array::from_fn(|x| {
                let angle = (2 * x + 1) as f64 * u as f64 * std::f64::consts::PI / (2 * N) as f64;
                (norm / 2.0 * angle.cos()) as f32
            })
        });
        Self { basis, middle: f32::from(1u16 << (precision - 1)), largest: f32::from((1u16 << precision) - 1) }
    }

    /// Writes the samples of a block to `out`, whose lines are `stride` apart; `block` has the lines of frequencies up to the
    /// last one that is not zero.
    #[inline(always)]
    fn apply<S: Sample>(&self, block: &[[f32; N]], out: &mut [S], stride: usize) {
        // First along the lines, then across them.
        let mut half = [[0f32; N]; N];
        for (half, frequencies) in half.iter_mut().zip(block) {
            for (&value, basis) in frequencies.iter().zip(&self.basis) {
                half.iter_mut().zip(basis).for_each(|(sum, basis)| *sum += value * basis);
            }
        }
        for y in 0..N {
            let mut line = [self.middle + 0.5; N];
            for (half, basis) in half[..block.len()].iter().zip(&self.basis) {
                let weight = basis[y];
                line.iter_mut().zip(half).for_each(|(sum, value)| *sum += weight * value);
            }
            let out = &mut out[y * stride..][..N];
            for (to, level) in out.iter_mut().zip(line) {
                let level = level.clamp(0.0, self.largest);
                // SAFETY: `level` is clamped to 0..=4095, and a sum of finite numbers of this size is no NaN. The checked
                // conversion would take longer than the transform.
                *to = S::from_level(unsafe { level.to_int_unchecked::<i32>() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use image::codecs::jpeg::JpegEncoder;
    use image::{ExtendedColorType, ImageEncoder};

    use super::super::jpeg::header;
    use super::*;

    fn pattern(width: usize, height: usize) -> Vec<u8> {
        (0..width * height)
            .map(|i| {
                let (x, y) = ((i % width) as f64, (i / width) as f64);
                (128.0 + 90.0 * (x / 9.0).sin() * (y / 13.0).cos() + ((i * 7919) % 23) as f64) as u8
            })
            .collect()
    }

    #[test]
    fn the_result_is_within_one_level_of_the_library_s() {
        for (width, height) in [(64, 48), (37, 61), (8, 8), (1, 1), (129, 7)] {
            let mut file = Vec::new();
            JpegEncoder::new_with_quality(&mut file, 92)
                .write_image(&pattern(width, height), width as u32, height as u32, ExtendedColorType::L8)
                .unwrap();
            let theirs = image::load_from_memory(&file).unwrap().into_luma8();
            let mut ours: Vec<u8> = Vec::new();
            let header = header(&file).unwrap();
            assert_eq!(decode(&header, 1, &mut ours).unwrap(), (width, height));
            let worst = ours.iter().zip(theirs.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
            assert!(worst <= 1, "{width}×{height}: off by {worst}");
        }
    }

    #[test]
    fn an_image_of_reduced_size_has_the_means_of_the_full_one() {
        let (width, height) = (160, 96);
        let smooth: Vec<u8> = (0..width * height).map(|i| (40 + (i % width) + (i / width) / 2) as u8).collect();
        let mut file = Vec::new();
        JpegEncoder::new_with_quality(&mut file, 98)
            .write_image(&smooth, width as u32, height as u32, ExtendedColorType::L8)
            .unwrap();
        let header = header(&file).unwrap();
        for reduction in [2, 4, 8] {
            let mut ours: Vec<u8> = Vec::new();
            let (w, h) = decode(&header, reduction, &mut ours).unwrap();
            assert_eq!((w, h), (width / reduction, height / reduction));
            for (i, &value) in ours.iter().enumerate() {
                let (x, y) = (i % w * reduction, i / w * reduction);
                let block = (0..reduction * reduction)
                    .map(|k| f64::from(smooth[(y + k / reduction) * width + x + k % reduction]));
                let mean = block.sum::<f64>() / (reduction * reduction) as f64;
                assert!((f64::from(value) - mean).abs() < 2.0, "reduced by {reduction} at {x}, {y}: {value}, {mean}");
            }
        }
    }

    #[test]
    fn a_truncated_scan_is_an_error() {
        let mut file = Vec::new();
        let pixels = pattern(64, 64);
        JpegEncoder::new_with_quality(&mut file, 92).write_image(&pixels, 64, 64, ExtendedColorType::L8).unwrap();
        let mut samples: Vec<u8> = Vec::new();
        let cut = header(&file[..file.len() / 2 + 200]).and_then(|header| decode(&header, 1, &mut samples));
        assert!(matches!(cut, Err(DecodeError::Malformed(_))), "{cut:?}");
    }
}
