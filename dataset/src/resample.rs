//! Antialiased resampling of 8-bit grey images: the filters of Pillow, in whole numbers.
//!
//! One output row at a time: the rows that it covers are weighted and added (columns side by side, so that every
//! processor lane has work), then the columns. Weights have 14 bits, the row between the passes keeps 6 bits below a
//! grey level: results lie within one level of Pillow's. The AVX2 path and the portable one compute the same numbers.

mod passes;
mod taps;

use std::f64::consts::PI;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use passes::{Lines, padded, passes, row_length};
use taps::Scales;

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

    #[inline(always)]
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

/// Resizes grey images with buffers that are kept between calls.
#[derive(Default)]
pub struct Resample {
    rows: Scales,
    columns: Scales,
    /// One row between the passes, zeros behind it.
    row: Vec<i16>,
    /// One row of the result, as long as the passes want it.
    out: Vec<u8>,
    pixels: Vec<u8>,
    /// Source rows of a picture that comes in row by row.
    window: Vec<u8>,
}

/// A grey image: pixels row-major, width, height.
pub type Source<'a> = (&'a [u8], u32, u32);

impl Resample {
    /// Resizes a rectangle of a grey image to `width` × `height`, row-major; the result stays valid until the next call.
    ///
    /// # Errors
    /// When a side is zero, the rectangle leaves the image, or the pixels are not as many as width · height.
    pub fn resize(
        &mut self,
        source: Source,
        part: Rectangle,
        width: u32,
        height: u32,
        filter: Filter,
    ) -> Result<&[u8]> {
        let mut pixels = std::mem::take(&mut self.pixels);
        pixels.resize(width as usize * height as usize, 0);
        let row_of = |y: usize| y * width as usize..(y + 1) * width as usize;
        let done = self.each_row(source, part, (width, height), filter, 0..height, |y, row| {
            pixels[row_of(y)].copy_from_slice(row);
        });
        self.pixels = pixels;
        done.map(|()| self.pixels.as_slice())
    }

    /// Resizes a rectangle of a grey image to width × height, and hands over some rows of the result, one at a time,
    /// with their numbers.
    ///
    /// # Errors
    /// Those of [`Resample::resize`], and when the rows leave the result.
    pub fn each_row(
        &mut self,
        source: Source,
        part: Rectangle,
        (width, height): (u32, u32),
        filter: Filter,
        rows: Range<u32>,
        mut take: impl FnMut(usize, &mut [u8]),
    ) -> Result<()> {
        let (pixels, stride, lines) = (source.0, source.1 as usize, source.2 as usize);
        let [left, top, part_width, part_height] =
            [part.left, part.top, part.width, part.height].map(|side| side as usize);
        let inside = left + part_width <= stride && top + part_height <= lines && rows.end <= height;
        if part_width * part_height == 0 || width == 0 || height == 0 || !inside || pixels.len() != stride * lines {
            return Err(Error::Invalid(format!(
                "resize: {part:?} of {stride}×{lines} ({} bytes) to {width}×{height}",
                pixels.len()
            )));
        }
        let (width, height) = (width as usize, height as usize);
        let rows = rows.start as usize..rows.end as usize;
        let out = &mut self.out;
        out.resize(padded(width), 0);
        if (part_width, part_height) == (width, height) {
            for y in rows {
                out[..width].copy_from_slice(&pixels[(top + y) * stride + left..][..width]);
                take(y, &mut out[..width]);
            }
            return Ok(());
        }
        self.rows.set(part_height, height, filter);
        self.columns.set(part_width, width, filter);
        let (down_taps, across_taps) = (self.rows.taps(), self.columns.taps());
        self.row.clear();
        self.row.resize(row_length(part_width, across_taps), 0);
        let (down, across) = passes();
        for y in rows {
            let (start, weights) = down_taps.of(y);
            let first = (top + start) * stride + left;
            let source = Lines { pixels: &pixels[first..], stride };
            down(source, &weights[..down_taps.counts[y]], &mut self.row[..part_width]);
            across(&self.row, across_taps, out);
            take(y, &mut out[..width]);
        }
        Ok(())
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
        self.row.resize(row_length(source.0 as usize, self.columns.taps()), 0);
        self.out.resize(padded(width as usize), 0);
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
        let Resample { rows, columns, row, out, pixels, .. } = &mut *self.scratch;
        let (rows, columns) = (rows.taps(), columns.taps());
        while let Some((start, weights)) = (self.next < rows.starts.len()).then(|| rows.of(self.next)) {
            let count = rows.counts[self.next];
            if start + count > here {
                break;
            }
            let source = Lines { pixels: &self.window[(start - self.first) * width..], stride: width };
            down(source, &weights[..count], &mut row[..width]);
            across(row, columns, out);
            pixels[self.next * new_width..][..new_width].copy_from_slice(&out[..new_width]);
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

#[cfg(test)]
mod tests {
    use super::passes::{across, down};
    use super::taps::Taps;
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
        let scales = [
            (50, Filter::Lanczos),
            (400, Filter::Bicubic),
            (31, Filter::Bilinear),
            (190, Filter::Bicubic),
            (120, Filter::Bilinear),
        ];
        for (to, filter) in scales {
            let (mut rows, mut columns) = (Taps::default(), Taps::default());
            rows.compute(height, to, filter);
            columns.compute(width, to, filter);
            let (fast_down, fast_across) = passes();
            for y in 0..to {
                let (start, weights) = rows.of(y);
                let weights = &weights[..rows.counts[y]];
                let lines = Lines { pixels: &pixels[start * width..], stride: width };
                let mut both = [vec![0; row_length(width, &columns)], vec![0; row_length(width, &columns)]];
                down(lines, weights, &mut both[0][..width]);
                fast_down(lines, weights, &mut both[1][..width]);
                assert_eq!(both[0], both[1]);
                let mut out = [vec![0; padded(to)], vec![0; padded(to)]];
                across(&both[0], &columns, &mut out[0]);
                fast_across(&both[0], &columns, &mut out[1]);
                assert_eq!(out[0][..to], out[1][..to]);
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
