//! Which pixels of a stored image a transformed image shows, so that masks and boxes are transformed as the image.

use crate::transform::resample::Rectangle;

/// Class of a pixel that is beside the image, or whose image has no mask.
pub const IGNORED: u8 = 255;

/// A transform with its random choices made: a part of the stored image is resized, and an output of `size` × `size`
/// pixels is cut from that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The part, in pixels of the stored image.
    pub part: Rectangle,
    /// Width and height that the part is resized to.
    pub resized: (u32, u32),
    /// Upper left corner (x, y) of the output in the resized part; negative where the output begins beside it.
    pub corner: (i64, i64),
    /// Whether the output is flipped left to right.
    pub flip: bool,
    /// Side of the output in pixels.
    pub size: u32,
}

/// The pixels of an output axis that show the resized part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visible {
    /// First output pixel.
    pub start: usize,
    /// The pixel of the resized part that it shows.
    pub from: usize,
    /// Number of pixels.
    pub length: usize,
}

impl Geometry {
    fn visible(&self, corner: i64, length: u32) -> Visible {
        let start = (-corner).max(0);
        let end = (i64::from(length) - corner).min(i64::from(self.size)).max(start);
        Visible { start: start as usize, from: (start + corner) as usize, length: (end - start) as usize }
    }

    /// Output columns that show the resized part, before the flip.
    pub fn columns(&self) -> Visible {
        self.visible(self.corner.0, self.resized.0)
    }

    /// Output rows that show the resized part.
    pub fn rows(&self) -> Visible {
        self.visible(self.corner.1, self.resized.1)
    }

    /// First column of a range of output columns after the flip, where there is one.
    pub fn mirrored(&self, start: usize, length: usize) -> usize {
        if self.flip { self.size as usize - start - length } else { start }
    }

    /// Transforms a mask of the stored image (row-major, `width` pixels in each row) into `out` `[size, size]`: each pixel
    /// has the class of the pixel under its center, as Pillow's nearest neighbor; [`IGNORED`] beside the image.
    pub fn mask(&self, mask: &[u8], width: usize, out: &mut [u8]) {
        out.fill(IGNORED);
        let (rows, columns) = (self.rows(), self.columns());
        let under = |pixel: usize, part: u32, resized: u32| {
            ((pixel as f64 + 0.5) * f64::from(part) / f64::from(resized)).floor().min(f64::from(part - 1)) as usize
        };
        let size = self.size as usize;
        let to = self.mirrored(columns.start, columns.length);
        for row in 0..rows.length {
            let y = self.part.top as usize + under(rows.from + row, self.part.height, self.resized.1);
            let line = &mask[y * width..(y + 1) * width];
            let out = &mut out[(rows.start + row) * size + to..][..columns.length];
            for (column, class) in out.iter_mut().enumerate() {
                *class = line[self.part.left as usize + under(columns.from + column, self.part.width, self.resized.0)];
            }
            if self.flip {
                out.reverse();
            }
        }
    }

    /// Transforms a rectangle (x, y, width, height) of the stored image into the output, clipped to the output and the
    /// image; `None` where nothing of it is left.
    pub fn rectangle(&self, [x, y, width, height]: [f32; 4]) -> Option<[f32; 4]> {
        let axis = |low: f32, length: f32, part: (u32, u32), resized: u32, corner: i64| {
            let scale = f64::from(resized) / f64::from(part.1);
            let place = |edge: f64| {
                let resized_edge = ((edge - f64::from(part.0)) * scale).clamp(0.0, f64::from(resized));
                (resized_edge - corner as f64).clamp(0.0, f64::from(self.size))
            };
            (place(f64::from(low)), place(f64::from(low) + f64::from(length)))
        };
        let part = self.part;
        let (left, right) = axis(x, width, (part.left, part.width), self.resized.0, self.corner.0);
        let (top, bottom) = axis(y, height, (part.top, part.height), self.resized.1, self.corner.1);
        let x = if self.flip { f64::from(self.size) - right } else { left };
        let output = [x, top, right - left, bottom - top].map(|value| value as f32);
        (output[2] > 0.0 && output[3] > 0.0).then_some(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry() -> Geometry {
        let part = Rectangle { left: 4, top: 2, width: 8, height: 4 };
        Geometry { part, resized: (16, 8), corner: (2, -1), flip: false, size: 10 }
    }

    #[test]
    fn a_box_and_its_drawn_mask_stay_together() {
        // A 20 × 10 image with the box (6, 3)…(9, 5).
        let mut mask = vec![0; 200];
        (3..5).for_each(|y| mask[y * 20 + 6..y * 20 + 9].fill(1));
        for flip in [false, true] {
            let geometry = Geometry { flip, ..geometry() };
            let mut out = vec![0; 100];
            geometry.mask(&mask, 20, &mut out);
            let [x, y, width, height] = geometry.rectangle([6.0, 3.0, 3.0, 2.0]).unwrap().map(|v| v as usize);
            assert_eq!((y, width, height), (3, 6, 4));
            for (at, &class) in out.iter().enumerate() {
                let (px, py) = (at % 10, at / 10);
                let inside = (x..x + width).contains(&px) && (y..y + height).contains(&py);
                let beside = py == 0 || py == 9;
                let expected = if beside { IGNORED } else { u8::from(inside) };
                assert_eq!(class, expected, "{flip} at {px}, {py}");
            }
        }
    }

    #[test]
    fn boxes_are_cut_at_the_edges_and_vanish_outside() {
        let geometry = geometry();
        assert_eq!(geometry.rectangle([0.0, 0.0, 20.0, 10.0]), Some([0.0, 1.0, 10.0, 8.0]));
        assert_eq!(geometry.rectangle([0.0, 0.0, 4.0, 10.0]), None);
        assert_eq!(geometry.rectangle([6.0, 3.0, 0.0, 2.0]), None);
    }
}
