//! Antialiased resampling of 8-bit gray images: the filters of Pillow, in whole numbers.
//!
//! As in Pillow up to version 12, rows are resized and rounded to gray levels first, then columns. The order matters: a
//! filter with negative weights overshoots at sharp edges (such as letters on a radiograph), where rounding clips it.
//! Bilinear and bicubic weights have Pillow's 22 bits, so that the results are equal to Pillow's. Lanczos weights have 14
//! bits, and columns are resized first. The AVX2 and the portable form compute the same numbers.

mod passes;
mod taps;

use std::f64::consts::PI;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use passes::{Lines, padded, passes, row_length, widen};
use taps::Scales;

/// Resampling filter. Its support grows with the scale, so that reducing does not alias.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Triangle.
    Bilinear,
    /// Cubic convolution with a = -0.5 (Keys 1981), as in Pillow.
    Bicubic,
    /// Windowed sinc with three lobes.
    Lanczos,
}

impl Filter {
    /// Half the width of the filter, in pixels of the smaller image.
    pub(super) fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// Whether rows are resized before columns, as in Pillow. Lanczos reduces whole radiographs: columns first remove most of
    /// the pixels, which takes half the time.
    fn rows_first(self) -> bool {
        self != Self::Lanczos
    }

    /// The weight at a distance, in pixels of the smaller image; not yet scaled to a sum of 1.
    #[inline]
    pub(super) fn weight(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Self::Bilinear => (1.0 - x).max(0.0),
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0,
            // sinc(x) sinc(x / 3), whose two sines are those of an angle and of three times the angle.
            Self::Lanczos if x == 0.0 => 1.0,
            Self::Lanczos if x < 3.0 => {
                let angle = PI * x / 3.0;
                let sine = angle.sin();
                sine * (3.0 - 4.0 * sine * sine) * sine / (3.0 * angle * angle)
            }
            Self::Bicubic | Self::Lanczos => 0.0,
        }
    }
}

/// A rectangle in pixels of the source image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rectangle {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Number of columns.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
}

/// Resizes gray images, with buffers that are used again.
#[derive(Default)]
pub struct Resample {
    rows: Scales,
    columns: Scales,
    /// One source row in 16 bits, with zeros after it.
    wide: Vec<i16>,
    /// Source rows, resized to the width of the result; for [`Rows`], the source rows themselves.
    lines: Vec<u8>,
    /// One row of the result before its width is resized.
    line: Vec<u8>,
    /// One row of the result, with the padding that the passes need.
    out: Vec<u8>,
    pixels: Vec<u8>,
}

/// A gray image: pixels `[height, width]`, width, height.
pub type Source<'a> = (&'a [u8], u32, u32);

impl Resample {
    /// Resizes a rectangle of a gray image; returns the pixels, `[height, width]`.
    ///
    /// # Errors
    /// When a side is zero, the rectangle is not inside the image, or there are not width · height pixels.
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

    /// Resizes a rectangle of a gray image to a width and height, and calls `take` for some rows of the result, one at a
    /// time, with their numbers.
    ///
    /// # Errors
    /// Those of [`Resample::resize`], and when the rows are not inside the result.
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
        self.wide.clear();
        self.wide.resize(row_length(part_width, across_taps), 0);
        let (across, down) = passes();
        if !filter.rows_first() {
            self.line.resize(part_width, 0);
            for y in rows {
                let source = Lines { pixels: &pixels[(top + down_taps.starts[y]) * stride + left..], stride };
                down(source, down_taps.weights(y), &mut self.line);
                widen(&self.line, &mut self.wide);
                across(&self.wide, across_taps, out);
                take(y, &mut out[..width]);
            }
            return Ok(());
        }
        let line_width = padded(width);
        self.lines.resize(part_height * line_width, 0);
        // Lines are computed in order, when the first row needs them.
        let mut next = rows.clone().next().map_or(0, |y| down_taps.starts[y]);
        for y in rows {
            let (start, weights) = (down_taps.starts[y], down_taps.weights(y));
            let end = start + down_taps.counts[y];
            for line in next..end {
                widen(&pixels[(top + line) * stride + left..][..part_width], &mut self.wide);
                across(&self.wide, across_taps, &mut self.lines[line * line_width..(line + 1) * line_width]);
            }
            next = next.max(end);
            let source = Lines { pixels: &self.lines[start * line_width..], stride: line_width };
            down(source, weights, out);
            take(y, &mut out[..width]);
        }
        Ok(())
    }
}

/// Reduces an image while its rows are read, so that it is never in memory as a whole. The result is that of
/// [`Resample::resize`] with [`Filter::Lanczos`].
pub struct Rows<'a> {
    scratch: &'a mut Resample,
    /// Width of the source and of the result.
    widths: (usize, usize),
    /// Number of the first source row among the lines.
    first: usize,
    /// Number of the next row of the result.
    next: usize,
}

impl Resample {
    /// Begins to resize an image of this width and height (`source`) to `width` × `height`.
    ///
    /// # Errors
    /// When a side is zero.
    pub fn rows(&mut self, source: (u32, u32), width: u32, height: u32) -> Result<Rows<'_>> {
        if [source.0, source.1, width, height].contains(&0) {
            return Err(Error::Invalid(format!("resize: {}×{} to {width}×{height}", source.0, source.1)));
        }
        let widths = (source.0 as usize, width as usize);
        self.rows.set(source.1 as usize, height as usize, Filter::Lanczos);
        self.columns.set(widths.0, widths.1, Filter::Lanczos);
        self.wide.clear();
        self.wide.resize(row_length(widths.0, self.columns.taps()), 0);
        self.line.resize(widths.0, 0);
        self.out.resize(padded(widths.1), 0);
        self.pixels.resize(widths.1 * height as usize, 0);
        self.lines.clear();
        Ok(Rows { scratch: self, widths, first: 0, next: 0 })
    }
}

impl Rows<'_> {
    /// Resizes further rows of the source, which `append` appends to the buffer as whole rows.
    pub fn take(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        let Resample { rows, columns, wide, lines, line, out, pixels } = &mut *self.scratch;
        append(lines);
        let (across, down) = passes();
        let (rows, columns) = (rows.taps(), columns.taps());
        let (width, new_width) = self.widths;
        let here = self.first + lines.len() / width;
        while let Some(&start) = rows.starts.get(self.next) {
            if start + rows.counts[self.next] > here {
                break;
            }
            let source = Lines { pixels: &lines[(start - self.first) * width..], stride: width };
            down(source, rows.weights(self.next), line);
            widen(line, wide);
            across(wide, columns, out);
            pixels[self.next * new_width..][..new_width].copy_from_slice(&out[..new_width]);
            self.next += 1;
        }
        // Rows that are not needed further are removed where they are more than the others, which have to be moved.
        let needed = rows.starts.get(self.next).copied().unwrap_or(here).min(here);
        let gone = (needed - self.first) * width;
        if 2 * gone > lines.len() {
            lines.copy_within(gone.., 0);
            lines.truncate(lines.len() - gone);
            self.first = needed;
        }
    }

    /// The result, `[height, width]`; black where rows of the source are missing.
    pub fn finish(self) -> Vec<u8> {
        self.scratch.pixels[self.next * self.widths.1..].fill(0);
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

    /// The same in floating point, rounded between the passes.
    fn exact(pixels: &[u8], from: (usize, usize), to: (usize, usize), filter: Filter) -> Vec<f64> {
        let axis = |from: usize, to: usize| -> Vec<Vec<(usize, f64)>> {
            let scale = from as f64 / to as f64;
            let spread = scale.max(1.0);
            (0..to)
                .map(|i| {
                    let center = (i as f64 + 0.5) * scale;
                    let start = (center - filter.support() * spread + 0.5).max(0.0) as usize;
                    let end = ((center + filter.support() * spread + 0.5) as usize).min(from);
                    let weights: Vec<f64> =
                        (start..end).map(|x| filter.weight((x as f64 - center + 0.5) / spread)).collect();
                    let sum: f64 = weights.iter().sum();
                    (start..end).zip(weights.iter().map(|w| w / sum)).collect()
                })
                .collect()
        };
        let (rows, columns) = (axis(from.1, to.1), axis(from.0, to.0));
        let level = |sum: f64| (sum + 0.5).floor().clamp(0.0, 255.0);
        let at = |x: usize, y: usize| f64::from(pixels[y * from.0 + x]);
        let mut out = Vec::new();
        for row in &rows {
            for column in &columns {
                let sum: f64 = if filter.rows_first() {
                    let line = |y: usize| level(column.iter().map(|&(x, w)| w * at(x, y)).sum());
                    row.iter().map(|&(y, v)| v * line(y)).sum()
                } else {
                    let line = |x: usize| level(row.iter().map(|&(y, v)| v * at(x, y)).sum());
                    column.iter().map(|&(x, w)| w * line(x)).sum()
                };
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
                assert!(worst < 1.5, "{filter:?} {from:?} {to:?}: off by {worst}");
            }
        }
    }

    #[test]
    fn row_by_row_gives_the_same_picture() {
        let (width, height) = (75usize, 191usize);
        let pixels = noise(width * height);
        let whole = Rectangle { left: 0, top: 0, width: 75, height: 191 };
        let mut scratch = Resample::default();
        for to in [(30, 44), (75, 191), (90, 300)] {
            let expected = scratch.resize((&pixels, 75, 191), whole, to.0, to.1, Filter::Lanczos).unwrap().to_vec();
            for piece in [1, 7, 64, 500] {
                let mut rows = scratch.rows((75, 191), to.0, to.1).unwrap();
                pixels.chunks(piece * width).for_each(|some| rows.take(|window| window.extend_from_slice(some)));
                assert!(rows.finish() == expected, "{to:?}, {piece} rows at a time");
            }
        }
        assert!(scratch.rows((0, 4), 2, 2).is_err());
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
            let (fast_across, fast_down) = passes();
            let line = padded(to);
            let mut both = [vec![0; height * line], vec![0; height * line]];
            let mut wide = vec![0; row_length(width, &columns)];
            for (y, row) in pixels.chunks(width).enumerate() {
                widen(row, &mut wide);
                across(&wide, &columns, &mut both[0][y * line..(y + 1) * line]);
                fast_across(&wide, &columns, &mut both[1][y * line..(y + 1) * line]);
                assert_eq!(both[0][y * line..][..to], both[1][y * line..][..to]);
            }
            for y in 0..to {
                let (start, weights) = (rows.starts[y], rows.weights(y));
                let lines = Lines { pixels: &both[0][start * line..], stride: line };
                let mut out = [vec![0; line], vec![0; line]];
                down(lines, weights, &mut out[0]);
                fast_down(lines, weights, &mut out[1]);
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
