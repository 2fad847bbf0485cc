//! Antialiased resampling of 16-bit gray images, in 32-bit floats: the filters of [`resample`](crate::transform::resample),
//! without rounding between the passes.
//!
//! Columns are resized first, then rows. Sums are made in a fixed order, so that every processor computes the same numbers.

mod axis;
mod passes;

use std::ops::Range;

use crate::error::{Error, Result};
use crate::transform::resample::{Filter, Rectangle};
use axis::Axis;
use passes::{Lines, passes};

/// A gray image of 16 bits: little-endian pixels `[height, width]`, width, height.
pub type Words<'a> = (&'a [u8], u32, u32);

/// Resizes 16-bit gray images, with buffers that are used again.
#[derive(Default)]
pub struct FloatResample {
    rows: Axis,
    columns: Axis,
    /// One row of the result before its width is resized, and zeros that weights of 0 may reach.
    line: Vec<f32>,
    out: Vec<f32>,
}

impl FloatResample {
    /// Resizes a rectangle of an image to a width and height, and calls `take` for some rows of the result, one at a time,
    /// with their numbers. Values are those of the pixels; filters with negative weights overshoot at edges, also below 0.
    ///
    /// # Errors
    /// When a side is zero, the rectangle is not inside the image, there are not width · height pixels, or the rows are not
    /// inside the result.
    pub fn each_row(
        &mut self,
        (pixels, source_width, source_height): Words,
        part: Rectangle,
        (width, height): (u32, u32),
        filter: Filter,
        rows: Range<u32>,
        mut take: impl FnMut(usize, &mut [f32]),
    ) -> Result<()> {
        let (stride, lines) = (source_width as usize, source_height as usize);
        let [left, top, part_width, part_height] =
            [part.left, part.top, part.width, part.height].map(|side| side as usize);
        let inside = left + part_width <= stride && top + part_height <= lines && rows.end <= height;
        if part_width * part_height == 0 || width == 0 || height == 0 || !inside || pixels.len() != 2 * stride * lines {
            return Err(Error::Invalid(format!(
                "resize: {part:?} of {stride}×{lines} ({} bytes of 16-bit pixels) to {width}×{height}",
                pixels.len()
            )));
        }
        let (width, height) = (width as usize, height as usize);
        let lines = |y: usize| Lines { pixels: &pixels[2 * ((top + y) * stride + left)..], stride: 2 * stride };
        let (down, across) = passes();
        self.out.resize(width, 0.0);
        let out = &mut self.out[..width];
        let rows = rows.start as usize..rows.end as usize;
        if (part_width, part_height) == (width, height) {
            for y in rows {
                down(lines(y), &[1.0], out);
                take(y, out);
            }
            return Ok(());
        }
        self.rows.set(part_height, height, filter);
        self.columns.set(part_width, width, filter);
        self.line.clear();
        self.line.resize(self.columns.row_length(part_width), 0.0);
        for y in rows {
            let (start, weights) = self.rows.of(y);
            down(lines(start), weights, &mut self.line[..part_width]);
            across(&self.line, &self.columns, out);
            take(y, out);
        }
        Ok(())
    }

    /// Resizes a whole image with [`Filter::Lanczos`], rounded and clamped to 16 bits; returns `[height, width]`.
    ///
    /// # Errors
    /// As [`FloatResample::each_row`].
    pub fn resize(&mut self, source: Words, width: u32, height: u32) -> Result<Vec<u16>> {
        let whole = Rectangle { left: 0, top: 0, width: source.1, height: source.2 };
        let mut resized = Vec::with_capacity(width as usize * height as usize);
        self.each_row(source, whole, (width, height), Filter::Lanczos, 0..height, |_, row| {
            // The conversion clamps.
            resized.extend(row.iter().map(|value| (value + 0.5) as u16));
        })?;
        Ok(resized)
    }
}

#[cfg(test)]
mod tests {
    use super::passes::{across, down};
    use super::*;

    #[test]
    fn both_forms_compute_the_same_bits() {
        // From one tap to many, sides around whole registers and groups, and parts of wider images.
        let sides =
            [(1, 8), (3, 40), (5, 9), (31, 64), (64, 64), (97, 40), (213, 190), (214, 31), (300, 7), (333, 448)];
        let mut random = crate::random::Stream::new(&[9]);
        for (filter, (from, to)) in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos]
            .into_iter()
            .flat_map(|filter| sides.map(|sides| (filter, sides)))
        {
            let (mut rows, mut columns) = (Axis::default(), Axis::default());
            rows.set(from, to, filter);
            columns.set(from, to, filter);
            let (fast_down, fast_across) = passes();
            let stride = 2 * from + 6;
            // Black pixels, and few of them white: sums of both signs and of zero.
            let pixels: Vec<u8> =
                (0..from * stride).map(|_| if random.below(3) == 0 { random.below(256) as u8 } else { 0 }).collect();
            for y in 0..to {
                let (start, weights) = rows.of(y);
                let lines = Lines { pixels: &pixels[start * stride..], stride };
                let mut line = [vec![f32::NAN; columns.row_length(from)], vec![f32::NAN; columns.row_length(from)]];
                let mut out = [vec![f32::NAN; to], vec![f32::NAN; to]];
                for (form, (down, across)) in
                    [(down as passes::Down, across as passes::Across), (fast_down, fast_across)].into_iter().enumerate()
                {
                    line[form][from..].fill(0.0);
                    down(lines, weights, &mut line[form][..from]);
                    across(&line[form], &columns, &mut out[form]);
                }
                let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
                assert_eq!(bits(&line[0]), bits(&line[1]), "{filter:?} {from} to {to}, row {y}");
                assert_eq!(bits(&out[0]), bits(&out[1]), "{filter:?} {from} to {to}, row {y}");
            }
        }
    }

    /// The same in double precision.
    fn exact(pixels: &[u16], from: (usize, usize), to: (usize, usize), filter: Filter) -> Vec<f64> {
        let weights = |index: usize, from: usize, to: usize| -> Vec<f64> {
            let scale = from as f64 / to as f64;
            let spread = scale.max(1.0);
            let center = (index as f64 + 0.5) * scale;
            let all: Vec<f64> = (0..from).map(|x| filter.weight((x as f64 + 0.5 - center) / spread)).collect();
            let sum: f64 = all.iter().sum();
            all.into_iter().map(|weight| weight / sum).collect()
        };
        let columns: Vec<Vec<f64>> = (0..to.0).map(|x| weights(x, from.0, to.0)).collect();
        let of_row = |y: usize| {
            let rows = weights(y, from.1, to.1);
            let line: Vec<f64> = (0..from.0)
                .map(|x| rows.iter().enumerate().map(|(y, w)| w * f64::from(pixels[y * from.0 + x])).sum())
                .collect();
            columns.iter().map(|column| column.iter().zip(&line).map(|(w, v)| w * v).sum()).collect::<Vec<f64>>()
        };
        (0..to.1).flat_map(of_row).collect()
    }

    #[test]
    fn sums_are_within_a_hundredth_of_the_exact_ones() {
        let sizes =
            [((97, 61), (40, 33)), ((640, 90), (51, 40)), ((33, 20), (64, 64)), ((5, 3), (9, 17)), ((1, 1), (8, 8))];
        let mut resample = FloatResample::default();
        for filter in [Filter::Bilinear, Filter::Bicubic, Filter::Lanczos] {
            for (from, to) in sizes {
                let mut random = crate::random::Stream::new(&[from.0 as u64]);
                let pixels: Vec<u16> = (0..from.0 * from.1).map(|_| random.below(1 << 16) as u16).collect();
                let bytes: Vec<u8> = pixels.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
                let source = (bytes.as_slice(), from.0 as u32, from.1 as u32);
                let whole = Rectangle { left: 0, top: 0, width: source.1, height: source.2 };
                let (size, mut ours) = ((to.0 as u32, to.1 as u32), Vec::new());
                let take = |_, row: &mut [f32]| ours.extend(row.iter().map(|&value| f64::from(value)));
                resample.each_row(source, whole, size, filter, 0..size.1, take).unwrap();
                let exact = exact(&pixels, from, to, filter);
                assert_eq!(ours.len(), exact.len());
                let worst = ours.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(worst < 0.05, "{filter:?} {from:?} {to:?}: off by {worst}");
                if filter == Filter::Lanczos {
                    let stored = resample.resize(source, size.0, size.1).unwrap();
                    let near =
                        |(stored, exact): (&u16, &f64)| (f64::from(*stored) - exact.clamp(0.0, 65_535.0)).abs() < 0.55;
                    assert!(stored.iter().zip(&exact).all(near));
                }
            }
        }
        // A part is that part alone, and an unscaled one is its pixels.
        let bytes: Vec<u8> = (0..60u16).flat_map(|pixel| (pixel * 1000).to_le_bytes()).collect();
        let part = Rectangle { left: 3, top: 1, width: 4, height: 2 };
        let mut rows = Vec::new();
        let take = |y: usize, row: &mut [f32]| rows.push((y, row.to_vec()));
        resample.each_row((&bytes, 10, 6), part, (4, 2), Filter::Bicubic, 1..2, take).unwrap();
        assert_eq!(rows, [(1, vec![23_000.0, 24_000.0, 25_000.0, 26_000.0])]);
        let mut refused = |source: Words, size: (u32, u32)| {
            resample.each_row(source, part, size, Filter::Bicubic, 0..size.1, |_, _| {}).is_err()
        };
        assert!(
            refused((&bytes[1..], 10, 6), (4, 4))
                && refused((&bytes, 6, 10), (4, 4))
                && refused((&bytes, 10, 6), (0, 4))
        );
    }
}
