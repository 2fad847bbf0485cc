//! Raster primitives in body coordinates: the frame that maps a body onto pixels, strokes, spots and textures.
//!
//! One body unit is half the inner width of the chest, about 14 cm; x grows to the patient's left (the image's right),
//! y grows downwards from the lung apex. This module does not depend on the anatomy.

use std::sync::LazyLock;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Body units in one centimeter.
pub const CM: f32 = 1.0 / 14.0;

/// A point in body coordinates, or in pixels where a function says so.
pub type Point = (f32, f32);

/// Position of the body on the image: a rotation, a scale and a shift.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Width of the image in pixels.
    pub width: usize,
    /// Height of the image in pixels.
    pub height: usize,
    /// Pixels in one body unit.
    pub scale: f32,
    cos: f32,
    sin: f32,
    center: Point,
    origin: Point,
}

impl Frame {
    /// An image of `width` by `height` pixels with the body's point `center` in its middle, turned by `angle` radians.
    pub fn new(width: usize, height: usize, scale: f32, angle: f32, center: Point) -> Self {
        let origin = (width as f32 / 2.0 - 0.5, height as f32 / 2.0 - 0.5);
        Self { width, height, scale, cos: angle.cos(), sin: angle.sin(), center, origin }
    }

    /// Body coordinates to pixels.
    pub fn pixel(&self, (x, y): Point) -> Point {
        let (x, y) = ((x - self.center.0) * self.scale, (y - self.center.1) * self.scale);
        (self.origin.0 + x * self.cos - y * self.sin, self.origin.1 + x * self.sin + y * self.cos)
    }

    /// Pixels to body coordinates.
    pub fn body(&self, (px, py): Point) -> Point {
        let (x, y) = (px - self.origin.0, py - self.origin.1);
        let (x, y) = (x * self.cos + y * self.sin, y * self.cos - x * self.sin);
        (x / self.scale + self.center.0, y / self.scale + self.center.1)
    }

    /// Calls `paint(index, body point)` for every pixel within `reach` body units of `center`, box-wise.
    pub fn near(&self, center: Point, reach: f32, mut paint: impl FnMut(usize, Point)) {
        let (cx, cy) = self.pixel(center);
        let Some(area) = Area::around(self, (cx, cy), (cx, cy), reach * self.scale) else {
            return;
        };
        self.each(area, &mut paint);
    }

    /// Calls `paint(index, body point)` for every pixel.
    pub fn every(&self, mut paint: impl FnMut(usize, Point)) {
        let area = Area { left: 0, right: self.width - 1, top: 0, bottom: self.height - 1 };
        self.each(area, &mut paint);
    }

    fn each(&self, area: Area, paint: &mut impl FnMut(usize, Point)) {
        let (dx, dy) = (self.cos / self.scale, -self.sin / self.scale);
        for row in area.top..=area.bottom {
            let (x, y) = self.body((area.left as f32, row as f32));
            for column in area.left..=area.right {
                let step = (column - area.left) as f32;
                paint(row * self.width + column, (x + dx * step, y + dy * step));
            }
        }
    }
}

/// An inclusive box of pixels inside an image.
#[derive(Clone, Copy)]
struct Area {
    left: usize,
    right: usize,
    top: usize,
    bottom: usize,
}

impl Area {
    /// The box around two pixel positions, grown by `margin` pixels; `None` where it misses the image.
    fn around(frame: &Frame, a: Point, b: Point, margin: f32) -> Option<Self> {
        let low = |a: f32, b: f32| (a.min(b) - margin).floor().max(0.0);
        let high = |a: f32, b: f32, size: usize| (a.max(b) + margin).ceil().min(size as f32 - 1.0);
        let (left, top) = (low(a.0, b.0), low(a.1, b.1));
        let (right, bottom) = (high(a.0, b.0, frame.width), high(a.1, b.1, frame.height));
        (left <= right && top <= bottom).then_some(Self {
            left: left as usize,
            right: right as usize,
            top: top as usize,
            bottom: bottom as usize,
        })
    }

    fn join(self, other: Self) -> Self {
        Self {
            left: self.left.min(other.left),
            right: self.right.max(other.right),
            top: self.top.min(other.top),
            bottom: self.bottom.max(other.bottom),
        }
    }
}

/// How a stroke falls off across its width.
#[derive(Clone, Copy, Debug)]
pub enum Profile {
    /// Even inside, one pixel of antialiasing at the edge: metal, plastic, lines.
    Flat,
    /// Denser at the edges than in the middle, as cortical bone is.
    Bone,
    /// Round, as a vessel or a limb is: the depth of a cylinder.
    Round,
    /// A Gaussian: no edge at all.
    Soft,
}

/// A layer of the image: one value a pixel, added to by strokes and spots.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The values, row by row.
    pub data: Vec<f32>,
    frame: Frame,
    scratch: Vec<f32>,
}

impl Layer {
    /// An empty layer.
    pub fn new(frame: Frame) -> Self {
        Self { data: vec![0.0; frame.width * frame.height], frame, scratch: Vec::new() }
    }

    /// Adds a polyline whose radius runs evenly from `radii.0` to `radii.1` (body units); joints do not add up.
    pub fn stroke(&mut self, points: &[Point], radii: (f32, f32), profile: Profile, amplitude: f32) {
        self.strokes(&[(points.to_vec(), radii)], profile, amplitude);
    }

    /// Adds several polylines as one shape: where they meet or cross, they do not add up.
    pub fn strokes(&mut self, lines: &[(Vec<Point>, (f32, f32))], profile: Profile, amplitude: f32) {
        if self.scratch.is_empty() {
            self.scratch = vec![0.0; self.data.len()];
        }
        let touched = lines.iter().filter_map(|(points, radii)| self.cover(points, *radii, profile)).reduce(Area::join);
        let Some(area) = touched else { return };
        for row in area.top..=area.bottom {
            let cells = row * self.frame.width + area.left..=row * self.frame.width + area.right;
            for (value, cover) in self.data[cells.clone()].iter_mut().zip(&mut self.scratch[cells]) {
                *value += amplitude * *cover;
                *cover = 0.0;
            }
        }
    }

    /// Raises the scratch layer to the cover of one polyline; returns the box it touched.
    fn cover(&mut self, points: &[Point], radii: (f32, f32), profile: Profile) -> Option<Area> {
        let pixels: Vec<Point> = points.iter().map(|&p| self.frame.pixel(p)).collect();
        let pieces = pixels.len().saturating_sub(1).max(1) as f32;
        let mut touched: Option<Area> = None;
        for (i, ends) in pixels.windows(2).enumerate() {
            let radius = |t: f32| (radii.0 + (radii.1 - radii.0) * (i as f32 + t) / pieces) * self.frame.scale;
            let reach = radius(0.0).max(radius(1.0)) * if matches!(profile, Profile::Soft) { 2.2 } else { 1.0 } + 1.0;
            let Some(area) = Area::around(&self.frame, ends[0], ends[1], reach) else {
                continue;
            };
            let (dx, dy) = (ends[1].0 - ends[0].0, ends[1].1 - ends[0].1);
            let length = (dx * dx + dy * dy).max(1e-6);
            for row in area.top..=area.bottom {
                let line = row * self.frame.width;
                for column in area.left..=area.right {
                    let (x, y) = (column as f32 - ends[0].0, row as f32 - ends[0].1);
                    let t = ((x * dx + y * dy) / length).clamp(0.0, 1.0);
                    let (ex, ey) = (x - t * dx, y - t * dy);
                    let squared = ex * ex + ey * ey;
                    if squared < reach * reach {
                        let cell = &mut self.scratch[line + column];
                        *cell = cell.max(across(profile, squared.sqrt(), radius(t)));
                    }
                }
            }
            touched = Some(touched.map_or(area, |seen| seen.join(area)));
        }
        touched
    }

    /// Adds a disc with an edge of `edge` times its radius (0 crisp, 1 soft from the middle on).
    pub fn disc(&mut self, center: Point, radius: f32, edge: f32, amplitude: f32) {
        let frame = self.frame;
        let data = &mut self.data;
        let edge = (edge * radius).max(1.0 / frame.scale);
        frame.near(center, radius + edge, |i, (x, y)| {
            let distance = ((x - center.0).powi(2) + (y - center.1).powi(2)).sqrt();
            data[i] += amplitude * smooth((radius + edge / 2.0 - distance) / edge);
        });
    }

    /// Adds a Gaussian spot with standard deviations `radii`, turned by `angle` radians.
    pub fn glow(&mut self, center: Point, radii: (f32, f32), angle: f32, amplitude: f32) {
        let frame = self.frame;
        let data = &mut self.data;
        let (sin, cos) = angle.sin_cos();
        frame.near(center, radii.0.max(radii.1) * 2.6, |i, (x, y)| {
            let (x, y) = (x - center.0, y - center.1);
            let (u, v) = ((x * cos + y * sin) / radii.0, (y * cos - x * sin) / radii.1);
            let squared = u * u + v * v;
            if squared < 6.7 {
                data[i] += amplitude * (-0.5 * squared).exp();
            }
        });
    }
}

/// Cover of a stroke of `radius` at `distance` from its middle, both in pixels; thin strokes fade instead of vanishing.
fn across(profile: Profile, distance: f32, radius: f32) -> f32 {
    let drawn = radius.max(0.5);
    let fade = (radius / drawn).min(1.0);
    let edge = (drawn + 0.5 - distance).clamp(0.0, 1.0);
    let relative = (distance / drawn).min(1.0);
    fade * match profile {
        Profile::Flat => edge,
        Profile::Bone => edge * (0.68 + 0.32 * relative * relative * relative),
        Profile::Round => edge * (1.0 - 0.85 * relative * relative).sqrt(),
        Profile::Soft => (-(distance / drawn).powi(2)).exp(),
    }
}

/// The cubic step: 0 below 0, 1 above 1.
pub fn smooth(t: f32) -> f32 {
    let t = t.clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// A polyline of `steps` pieces along `curve(t)`, t from 0 to 1.
pub fn curve(steps: usize, curve: impl Fn(f32) -> Point) -> Vec<Point> {
    (0..=steps).map(|i| curve(i as f32 / steps as f32)).collect()
}

/// A smooth line through the given points (Catmull-Rom).
pub fn spline(points: &[Point]) -> Vec<Point> {
    let last = points.len() - 1;
    let mut line = vec![points[0]];
    for i in 0..last {
        let [a, b, c, d] = [i.saturating_sub(1), i, i + 1, (i + 2).min(last)].map(|j| points[j]);
        for step in 1..=6 {
            let t = step as f32 / 6.0;
            let blend = |a: f32, b: f32, c: f32, d: f32| {
                b + 0.5 * t * (c - a + t * (2.0 * a - 5.0 * b + 4.0 * c - d + t * (3.0 * (b - c) + d - a)))
            };
            line.push((blend(a.0, b.0, c.0, d.0), blend(a.1, b.1, c.1, d.1)));
        }
    }
    line
}

const CLOUD: usize = 256;
const GRAIN: usize = 512;

/// Seamless cloud texture of mean 0 and values about -1 to 1. It is made once and read at any place and scale.
static CLOUDS: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let mut random = ChaCha8Rng::seed_from_u64(0x000C_10D5);
    let mut tile = vec![0.0; CLOUD * CLOUD];
    for (cells, weight) in [(4usize, 0.5), (8, 0.5), (16, 0.35), (32, 0.25), (64, 0.15)] {
        let knots: Vec<f32> = (0..cells * cells).map(|_| random.random_range(-1.0..1.0)).collect();
        let step = CLOUD / cells;
        for (i, value) in tile.iter_mut().enumerate() {
            let (row, column) = (i / CLOUD, i % CLOUD);
            let (r, c) = (row / step, column / step);
            let (u, v) = (smooth((row % step) as f32 / step as f32), smooth((column % step) as f32 / step as f32));
            let knot = |r: usize, c: usize| knots[(r % cells) * cells + c % cells];
            let top = knot(r, c) * (1.0 - v) + knot(r, c + 1) * v;
            let bottom = knot(r + 1, c) * (1.0 - v) + knot(r + 1, c + 1) * v;
            *value += weight * (top * (1.0 - u) + bottom * u);
        }
    }
    tile
});

/// Seamless detector noise of variance about 1, half of it correlated over neighboring pixels.
static GRAINS: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let mut random = ChaCha8Rng::seed_from_u64(0x0006_4A19);
    let white: Vec<f32> =
        (0..GRAIN * GRAIN).map(|_| (0..4).map(|_| random.random_range(-0.866f32..0.866)).sum()).collect();
    (0..GRAIN * GRAIN)
        .map(|i| {
            let (row, column) = (i / GRAIN, i % GRAIN);
            let at = |r: usize, c: usize| white[(r % GRAIN) * GRAIN + c % GRAIN];
            let block = at(row + 1, column) + at(row, column + 1) + at(row + 1, column + 1) + white[i];
            0.7 * white[i] + 0.3 * block
        })
        .collect()
});

/// A random offset into the periodic textures, so that images do not share their texture.
#[derive(Clone, Copy, Debug)]
pub struct Texture {
    shift: (usize, usize),
}

impl Texture {
    /// A random place.
    pub fn random(random: &mut impl Rng) -> Self {
        Self { shift: (random.random_range(0..GRAIN), random.random_range(0..GRAIN)) }
    }

    /// The cloud at a point; one tile spans `span` units.
    pub fn cloud(&self, (x, y): Point, span: f32) -> f32 {
        let tile: &[f32] = &CLOUDS;
        let size = CLOUD as f32;
        let (u, v) = (x / span * size + self.shift.0 as f32 + 4096.0, y / span * size + self.shift.1 as f32 + 4096.0);
        let (left, top) = (u as usize, v as usize);
        let (s, t) = (u - left as f32, v - top as f32);
        let at = |c: usize, r: usize| tile[(r % CLOUD) * CLOUD + c % CLOUD];
        let upper = at(left, top) * (1.0 - s) + at(left + 1, top) * s;
        let lower = at(left, top + 1) * (1.0 - s) + at(left + 1, top + 1) * s;
        upper * (1.0 - t) + lower * t
    }

    /// The detector noise at a pixel.
    pub fn grain(&self, column: usize, row: usize) -> f32 {
        GRAINS[((row + self.shift.1) % GRAIN) * GRAIN + (column + self.shift.0) % GRAIN]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_maps_there_and_back() {
        let frame = Frame::new(200, 300, 90.0, 0.1, (0.1, 0.7));
        let (x, y) = frame.body(frame.pixel((0.4, -0.2)));
        assert!((x - 0.4).abs() < 1e-4 && (y + 0.2).abs() < 1e-4);
        let mut seen = 0;
        frame.every(|i, point| {
            seen += 1;
            let pixel = frame.pixel(point);
            assert!((pixel.0 - (i % 200) as f32).abs() < 0.01 && (pixel.1 - (i / 200) as f32).abs() < 0.01);
        });
        assert_eq!(seen, 200 * 300);
    }

    #[test]
    fn a_stroke_covers_its_width_and_its_joints_do_not_add_up() {
        let mut layer = Layer::new(Frame::new(64, 64, 32.0, 0.0, (0.0, 0.0)));
        layer.stroke(&[(-0.5, 0.0), (0.0, 0.0), (0.5, 0.0)], (0.1, 0.1), Profile::Flat, 2.0);
        assert!((layer.data.iter().copied().fold(0.0, f32::max) - 2.0).abs() < 1e-6);
        assert!(layer.data.iter().filter(|&&v| v > 1.0).count() > 32 * 5);
        assert!(layer.data[0] == 0.0 && layer.scratch.iter().all(|&v| v == 0.0));
    }

    #[test]
    fn strokes_outside_of_the_image_are_ignored() {
        let mut layer = Layer::new(Frame::new(32, 32, 16.0, 0.0, (0.0, 0.0)));
        layer.stroke(&[(9.0, 9.0), (10.0, 9.0)], (0.1, 0.1), Profile::Soft, 1.0);
        layer.disc((9.0, 9.0), 0.5, 0.1, 1.0);
        layer.glow((-9.0, 9.0), (0.5, 0.5), 0.3, 1.0);
        assert!(layer.data.iter().all(|&v| v == 0.0));
    }
}
