//! Affine maps of images, masks and boxes about the center of the output.

use crate::transform::geometry::IGNORED;
use crate::transform::vectorized::{rounded, vectorized};

/// A moved box is dropped where less than this share of the rectangle around it is inside the output.
pub const MIN_BOX_SHARE: f64 = 0.1;

/// Two rows of a 2 × 3 matrix.
type Matrix = [[f64; 3]; 2];

/// An affine map of an image of `size` × `size` pixels onto itself. Coordinates are in pixels, with the edge of the first
/// pixel at 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AffineMap {
    /// From the image to the output.
    forward: Matrix,
    /// From the output to the image.
    inverse: Matrix,
    /// Gray level beside the image, 0 to 255.
    fill: f32,
    size: usize,
}

/// Rotation in degrees (clockwise), translation in pixels, scale, shear (x, y) in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Parameters {
    pub degrees: f64,
    pub translation: [f64; 2],
    pub scale: f64,
    pub shear: [f64; 2],
}

impl AffineMap {
    /// The map of torchvision's `affine`: shear, then rotation and scale about the center, then translation.
    pub(super) fn new(parameters: &Parameters, fill: f32, size: usize) -> Self {
        let Parameters { degrees, translation: [tx, ty], scale, shear } = *parameters;
        let (rotation, [shear_x, shear_y]) = (degrees.to_radians(), shear.map(f64::to_radians));
        let turned = rotation - shear_y;
        let (a, c) = (turned.cos() / shear_y.cos(), turned.sin() / shear_y.cos());
        let (b, d) = (-a * shear_x.tan() - rotation.sin(), rotation.cos() - c * shear_x.tan());
        // The determinant of [[a, b], [c, d]] is 1.
        let center = size as f64 / 2.0;
        let forward = [
            [a * scale, b * scale, center + tx - scale * (a + b) * center],
            [c * scale, d * scale, center + ty - scale * (c + d) * center],
        ];
        let (x, y) = (center + tx, center + ty);
        let inverse = [
            [d / scale, -b / scale, center - (d * x - b * y) / scale],
            [-c / scale, a / scale, center - (a * y - c * x) / scale],
        ];
        Self { forward, inverse, fill, size }
    }

    /// Moves an image of gray levels, `[size, size]`, with bilinear interpolation. Beside the image is `fill`, so that its
    /// edges are mixed with that. `framed` is memory to work in.
    pub(super) fn image(&self, levels: &[f32], framed: &mut Vec<f32>, out: &mut [f32]) {
        // One pixel of `fill` before the image, two after it: the four neighbors of every place within one pixel of it.
        let (size, stride) = (self.size, self.size + 3);
        framed.clear();
        framed.resize(stride * stride, self.fill);
        for (row, line) in levels.chunks_exact(size).enumerate() {
            framed[(row + 1) * stride + 1..][..size].copy_from_slice(line);
        }
        // Places are in pixels of the frame, whose centers are whole numbers.
        let [[xx, xy, x0], [yx, yy, y0]] = self.inverse;
        let most = (size + 1) as f32;
        for (row, out) in out.chunks_exact_mut(size).enumerate() {
            let y = row as f64 + 0.5;
            let start = [(xx * 0.5 + xy * y + x0 + 0.5) as f32, (yx * 0.5 + yy * y + y0 + 0.5) as f32];
            sample(framed, stride, &Line { start, step: [xx as f32, yx as f32], most }, out);
        }
    }

    /// Moves a mask, `[size, size]`: each pixel has the class of the nearest one, [`IGNORED`] beside the image.
    pub(super) fn mask(&self, mask: &[u8], out: &mut [u8]) {
        let size = self.size;
        for (row, out) in out.chunks_exact_mut(size).enumerate() {
            for (column, class) in out.iter_mut().enumerate() {
                let place = (column as f64 + 0.5, row as f64 + 0.5);
                let [x, y] = apply(&self.inverse, place).map(|at| (at - 0.5).round_ties_even());
                let inside = |at: f64| (0.0..size as f64).contains(&at);
                *class = if inside(x) && inside(y) { mask[y as usize * size + x as usize] } else { IGNORED };
            }
        }
    }

    /// Where a point of the image is in the output.
    pub(super) fn point(&self, place: (f64, f64)) -> (f64, f64) {
        let [x, y] = apply(&self.forward, place);
        (x, y)
    }
}

/// Places (x, y) on a line through an image, each clamped to 0 … `most`.
struct Line {
    start: [f32; 2],
    step: [f32; 2],
    most: f32,
}

/// Places that are computed side by side.
const LANES: usize = 8;

vectorized!(
    /// Samples an image with rows of `stride` pixels along a line, with bilinear interpolation.
    fn sample(image: &[f32], stride: usize, line: &Line, out: &mut [f32]) = sample_portable
);

#[inline(always)]
fn sample_portable(image: &[f32], stride: usize, line: &Line, out: &mut [f32]) {
    let mut column = [0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
    for out in out.chunks_mut(LANES) {
        let (mut corners, mut shares) = ([0usize; LANES], [[0.0f32; LANES]; 2]);
        for lane in 0..LANES {
            // The pixel before a place. Where that is the center of a pixel, the one before it will do.
            let place = |axis: usize| {
                let at = (line.start[axis] + line.step[axis] * column[lane]).clamp(0.0, line.most);
                let (whole, number) = rounded(at - 0.5);
                (number, at - whole)
            };
            let ((left, right_share), (top, lower_share)) = (place(0), place(1));
            corners[lane] = (top * stride as i32 + left) as usize;
            (shares[0][lane], shares[1][lane]) = (right_share, lower_share);
            column[lane] += LANES as f32;
        }
        let [mut upper_left, mut upper_right, mut lower_left, mut lower_right] = [[0.0f32; LANES]; 4];
        for lane in 0..LANES {
            let (upper, lower) = image[corners[lane]..][..stride + 2].split_at(stride);
            (upper_left[lane], upper_right[lane]) = (upper[0], upper[1]);
            (lower_left[lane], lower_right[lane]) = (lower[0], lower[1]);
        }
        let mut sampled = [0.0; LANES];
        for lane in 0..LANES {
            let upper = upper_left[lane] + (upper_right[lane] - upper_left[lane]) * shares[0][lane];
            let lower = lower_left[lane] + (lower_right[lane] - lower_left[lane]) * shares[0][lane];
            sampled[lane] = upper + (lower - upper) * shares[1][lane];
        }
        out.copy_from_slice(&sampled[..out.len()]);
    }
}

fn apply(matrix: &Matrix, (x, y): (f64, f64)) -> [f64; 2] {
    matrix.map(|[along_x, along_y, constant]| along_x * x + along_y * y + constant)
}

/// The rectangle (x, y, width, height) around a rectangle whose corners were moved by maps of an output of this size,
/// clipped to the output; `None` where less than [`MIN_BOX_SHARE`] of it is left.
pub(super) fn moved_box(maps: &[&AffineMap], [x, y, width, height]: [f32; 4], size: u32) -> Option<[f32; 4]> {
    let [x, y, width, height] = [x, y, width, height].map(f64::from);
    let corners = [(x, y), (x + width, y), (x, y + height), (x + width, y + height)]
        .map(|corner| maps.iter().fold(corner, |at, map| map.point(at)));
    let around = |of: fn(&(f64, f64)) -> f64| {
        let values = corners.iter().map(of);
        (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max))
    };
    let ((left, right), (top, bottom)) = (around(|corner| corner.0), around(|corner| corner.1));
    let clipped = |at: f64| at.clamp(0.0, f64::from(size));
    let (width, height) = (clipped(right) - clipped(left), clipped(bottom) - clipped(top));
    let share = width * height / ((right - left) * (bottom - top));
    (share >= MIN_BOX_SHARE).then(|| [clipped(left), clipped(top), width, height].map(|edge| edge as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STILL: Parameters = Parameters { degrees: 0.0, translation: [0.0; 2], scale: 1.0, shear: [0.0; 2] };

    #[test]
    fn a_quarter_turn_moves_pixels_masks_and_boxes_clockwise() {
        let map = AffineMap::new(&Parameters { degrees: 90.0, ..STILL }, 0.0, 3);
        let levels: Vec<f32> = (1..=9).map(|level| level as f32).collect();
        let mut out = vec![0.0; 9];
        map.image(&levels, &mut Vec::new(), &mut out);
        let rounded: Vec<f32> = out.iter().map(|level| level.round()).collect();
        assert_eq!(rounded, [7.0, 4.0, 1.0, 8.0, 5.0, 2.0, 9.0, 6.0, 3.0]);
        let mut mask = vec![0; 9];
        map.mask(&[1, 2, 3, 4, 5, 6, 7, 8, 9], &mut mask);
        assert_eq!(mask, [7, 4, 1, 8, 5, 2, 9, 6, 3]);
        let moved = moved_box(&[&map], [0.0, 0.0, 2.0, 1.0], 3).unwrap();
        assert!(moved.iter().zip([2.0, 0.0, 1.0, 2.0]).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-5), "{moved:?}");
    }

    #[test]
    fn forward_and_inverse_undo_each_other() {
        let parameters = Parameters { degrees: 31.0, translation: [5.0, -3.0], scale: 0.7, shear: [12.0, -20.0] };
        let map = AffineMap::new(&parameters, 0.0, 50);
        for place in [(0.0, 0.0), (50.0, 13.0), (25.0, 25.0)] {
            let back = apply(&map.inverse, map.point(place));
            assert!((back[0] - place.0).abs() < 1e-9 && (back[1] - place.1).abs() < 1e-9, "{place:?}: {back:?}");
        }
        let center = map.point((25.0, 25.0));
        assert!((center.0 - 30.0).abs() < 1e-9 && (center.1 - 22.0).abs() < 1e-9, "{center:?}");
    }

    #[test]
    fn what_comes_from_beside_the_image_has_the_fill_and_boxes_that_leave_are_dropped() {
        let map = AffineMap::new(&Parameters { translation: [2.0, 0.0], ..STILL }, 9.0, 4);
        let mut out = vec![0.0; 16];
        map.image(&[1.0; 16], &mut Vec::new(), &mut out);
        out.chunks(4).for_each(|row| assert_eq!(row, [9.0, 9.0, 1.0, 1.0]));
        let mut mask = vec![0; 16];
        map.mask(&[1; 16], &mut mask);
        mask.chunks(4).for_each(|row| assert_eq!(row, [IGNORED, IGNORED, 1, 1]));
        assert_eq!(moved_box(&[&map], [1.0, 1.0, 2.0, 2.0], 4), Some([3.0, 1.0, 1.0, 2.0]));
        assert_eq!(moved_box(&[&map], [1.9, 1.0, 2.0, 2.0], 4), None, "a twentieth is left");
        assert_eq!(moved_box(&[&map], [2.0, 1.0, 1.0, 2.0], 4), None);
    }
}
