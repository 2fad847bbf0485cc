//! From the body to a radiograph: positioning, exposure, noise, markers, collimation, 12-bit values.

use dataset::format::image_codec::GrayPixels;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::anatomy::{Anatomy, around};
use crate::canvas::{Frame, Layer, Point, Profile, Texture, smooth};
use crate::disease::Finding;
use crate::patient::{Image, Patient, Study, View};
use crate::{findings, frontal, lateral};

/// The largest stored value.
pub const MAXIMUM: u16 = 4095;

/// A radiograph: 12-bit values, bright where the body is dense.
pub struct Radiograph {
    /// Height in pixels.
    pub rows: usize,
    /// Width in pixels.
    pub columns: usize,
    /// Values row by row, 0 to `MAXIMUM`.
    pub values: Vec<u16>,
}

impl Radiograph {
    /// The image at 8 bits, with the whole range of values.
    pub fn gray(&self) -> GrayPixels {
        let shade = |&value: &u16| (u32::from(value) * 255 / u32::from(MAXIMUM)) as u8;
        let pixels = self.values.iter().map(shade).collect();
        GrayPixels { width: self.columns as u32, height: self.rows as u32, pixels }
    }
}

/// The anatomy of a study, which the report uses as well.
pub fn anatomy(patient: &Patient, study: &Study) -> Anatomy {
    let own = &mut ChaCha8Rng::seed_from_u64(patient.seed);
    let now = &mut ChaCha8Rng::seed_from_u64(study.seed);
    Anatomy::random(patient, study.portable(), &study.findings, own, now)
}

/// The position of the body on an image of a study.
pub fn frame(patient: &Patient, study: &Study, image: &Image) -> Frame {
    position(image, &anatomy(patient, study), &mut ChaCha8Rng::seed_from_u64(image.seed))
}

/// Renders an image of a study.
pub fn render(patient: &Patient, study: &Study, image: &Image) -> Radiograph {
    let anatomy = anatomy(patient, study);
    // The patient's seed gives vessels and other details; the image's seed gives position, exposure and noise.
    let details = &mut ChaCha8Rng::seed_from_u64(patient.seed ^ 0x5EED);
    let random = &mut ChaCha8Rng::seed_from_u64(image.seed);
    let frame = position(image, &anatomy, random);
    let scene = if image.view == View::Lateral {
        lateral::draw(frame, &anatomy, &study.findings, details)
    } else {
        front(frame, &anatomy, &study.findings, details)
    };
    expose(&scene.flatten(), frame, image.view, random)
}

fn front(frame: Frame, anatomy: &Anatomy, list: &[Finding], details: &mut ChaCha8Rng) -> frontal::Scene {
    let mut scene = frontal::draw(frame, anatomy, list, details);
    for finding in list {
        findings::draw(&mut scene, anatomy, finding);
    }
    scene
}

/// Places the body on the image: zoom, shift, tilt.
fn position(image: &Image, anatomy: &Anatomy, random: &mut impl Rng) -> Frame {
    let (columns, rows) = (image.columns as f32, image.rows as f32);
    let bottom = anatomy.lungs[0].dome + 0.36;
    let top = -0.28f32;
    let width = if image.view == View::Lateral { 1.0 } else { 1.0 + 0.9 * anatomy.wall };
    let fit = (columns / (2.0 * width)).min(rows / (bottom - top));
    let (zoom, tilt) = if image.view == View::Ap { (0.08, 0.05) } else { (0.05, 0.022) };
    let scale = fit * around(random, 0.98, zoom);
    let center = (around(random, 0.0, 0.06), top.midpoint(bottom) + around(random, 0.0, 0.06));
    Frame::new(image.columns, image.rows, scale, around(random, 0.0, tilt), center)
}

/// Applies the characteristic curve, uneven exposure, noise, marker and borders.
fn expose(density: &[f32], frame: Frame, view: View, random: &mut impl Rng) -> Radiograph {
    let portable = view == View::Ap;
    let level = around(random, if view == View::Lateral { 0.6 } else { 0.55 }, if portable { 0.055 } else { 0.035 });
    let contrast = around(random, 5.4, if portable { 0.75 } else { 0.5 });
    let slope = (around(random, 0.0, 0.03), around(random, 0.0, 0.025));
    let speed = around(random, 0.011, 0.004) * if portable { 1.5 } else { 1.0 };
    let texture = Texture::random(random);
    let (low, high) = (random.random_range(60.0..320.0), random.random_range(3300.0..4030.0f32));
    // The noise has the size of detector pixels, so a smaller image averages it.
    let fine = (frame.width.min(frame.height) as f32 / 512.0).clamp(0.25, 1.0).sqrt();
    let mut overlay = Layer::new(frame);
    marker(&mut overlay, frame, random);
    let border = Border::random(frame, random);
    let mut values = Vec::with_capacity(density.len());
    for row in 0..frame.height {
        let v = row as f32 / frame.height as f32 - 0.5;
        for column in 0..frame.width {
            let i = row * frame.width + column;
            let u = column as f32 / frame.width as f32 - 0.5;
            let body = density[i] + slope.0 * u + slope.1 * v;
            let noise = speed * fine * (0.45 + 1.3 * body.max(0.0)) * texture.grain(column, row);
            let bright = 1.0 / (1.0 + (-(body + noise - level) * contrast).exp());
            let bright = bright.max(overlay.data[i]);
            values.push(border.apply(row, column, low + (high - low) * bright));
        }
    }
    Radiograph { rows: frame.height, columns: frame.width, values }
}

/// Draws the letter of the side marker in an upper corner.
fn marker(layer: &mut Layer, frame: Frame, random: &mut impl Rng) {
    if random.random_bool(0.15) {
        return;
    }
    let (width, height) = (frame.width as f32, frame.height as f32);
    let size = width.min(height) * random.random_range(0.022..0.034);
    let left = random.random_bool(0.6);
    let margin = random.random_range(0.06..0.14);
    let at = (if left { 1.0 - margin } else { margin } * width, random.random_range(0.05..0.2) * height);
    let lean = random.random_range(-0.3..0.3f32);
    let letter: &[&[Point]] = if left {
        &[&[(-0.5, -1.0), (-0.5, 1.0), (0.6, 1.0)]]
    } else {
        &[&[(-0.5, 1.0), (-0.5, -1.0), (0.3, -1.0), (0.6, -0.5), (0.3, 0.0), (-0.5, 0.0)], &[(0.0, 0.0), (0.6, 1.0)]]
    };
    let bright = random.random_range(0.8..1.0);
    for stroke in letter {
        let line: Vec<Point> = stroke
            .iter()
            .map(|&(x, y)| frame.body((at.0 + size * (x - lean * y), at.1 + size * (y + lean * x))))
            .collect();
        let radius = size * 0.2 / frame.scale;
        layer.stroke(&line, (radius, radius), Profile::Flat, bright);
    }
    layer.data.iter_mut().for_each(|value| *value = value.min(1.0));
}

/// The edge of the collimator; the area outside of it is black or white.
struct Border {
    edges: [f32; 4],
    value: f32,
}

impl Border {
    fn random(frame: Frame, random: &mut impl Rng) -> Self {
        let value = if random.random_bool(0.7) { 0.0 } else { 4095.0 };
        let mut edges = [-9.0, -9.0, frame.width as f32 + 9.0, frame.height as f32 + 9.0];
        if random.random_bool(0.3) {
            for (side, edge) in edges.iter_mut().enumerate() {
                if random.random_bool(0.5) {
                    let size = if side % 2 == 0 { frame.width } else { frame.height } as f32;
                    let inset = random.random_range(0.01..0.05) * size;
                    *edge = if side < 2 { inset } else { size - inset };
                }
            }
        }
        Self { edges, value }
    }

    fn apply(&self, row: usize, column: usize, value: f32) -> u16 {
        let (x, y) = (column as f32, row as f32);
        let [left, top, right, bottom] = self.edges;
        let inside = (x - left).min(y - top).min(right - x).min(bottom - y);
        let shown = smooth(inside / 2.0 + 0.5);
        (value * shown + self.value * (1.0 - shown)).clamp(0.0, MAXIMUM as f32) as u16
    }
}
