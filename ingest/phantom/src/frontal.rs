//! Draws the healthy chest from the front: outlines, lungs, heart, bones, vessels. `findings` adds the findings.

use std::f32::consts::PI;

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::anatomy::Anatomy;
use crate::canvas::{Frame, Layer, Point, Profile, Texture, curve, smooth, spline};
use crate::disease::{Finding, Kind};

/// An image before its layers are added up. Brightness is `body - AIR * air + markings + bones and metal`.
pub struct Scene {
    /// Position of the body on the image.
    pub frame: Frame,
    /// Thickness of aerated lung at each pixel, 0 to about 1.
    pub air: Vec<f32>,
    /// Distance to the nearest edge of the lung, negative outside of it.
    pub depth: Vec<f32>,
    /// Vessels: shown where there is air around them.
    pub markings: Layer,
    /// All that adds up: soft tissue, bones, metal.
    pub solid: Layer,
    /// The clouds of this image.
    pub texture: Texture,
}

/// Weight of a full thickness of air.
const AIR: f32 = 0.56;

/// Brightness of the air around the body.
pub const OUTSIDE: f32 = -0.15;

impl Scene {
    /// An empty scene.
    pub fn new(frame: Frame, random: &mut impl Rng) -> Self {
        let pixels = frame.width * frame.height;
        Self {
            frame,
            air: vec![0.0; pixels],
            depth: vec![-1.0; pixels],
            markings: Layer::new(frame),
            solid: Layer::new(frame),
            texture: Texture::random(random),
        }
    }

    /// Takes away a part of the air within `reach` of `center`: `fill(body point)` is the part, 0 to 1.
    pub fn fill(&mut self, center: Point, reach: f32, fill: impl Fn(Point) -> f32) {
        let (air, depth) = (&mut self.air, &self.depth);
        self.frame.near(center, reach, |i, point| {
            if depth[i] > 0.0 {
                air[i] *= 1.0 - fill(point).clamp(0.0, 1.0);
            }
        });
    }

    /// Adds up the layers.
    pub fn flatten(self) -> Vec<f32> {
        let mut sum = self.solid.data;
        for (i, value) in sum.iter_mut().enumerate() {
            let air = self.air[i];
            *value += self.markings.data[i] * air.min(1.0) - AIR * air;
        }
        sum
    }
}

/// Draws the healthy anatomy; of the `findings` only those count that change the course of a bone.
pub fn draw(frame: Frame, anatomy: &Anatomy, findings: &[Finding], random: &mut impl Rng) -> Scene {
    let mut scene = Scene::new(frame, random);
    fields(&mut scene, anatomy);
    shoulders(&mut scene, anatomy);
    ribs(&mut scene, anatomy, findings);
    for sign in [-1.0, 1.0] {
        vessels(&mut scene, anatomy, sign, random);
    }
    if anatomy.breast > 0.0 {
        breasts(&mut scene, anatomy);
    }
    if anatomy.stomach > 0.0 {
        let lung = anatomy.lung(1.0);
        let size = anatomy.stomach;
        let center = (0.42 + random.random_range(-0.08..0.08), lung.dome + 0.06 + size * 0.8);
        let beside = (center.0 + size * random.random_range(0.3..0.9), center.1 + size * 0.25);
        scene.solid.disc(center, size, 0.5, -0.12);
        scene.solid.disc(beside, size * random.random_range(0.4..0.8), 0.7, -0.08);
        for _ in 0..3 {
            let gas = (random.random_range(-0.7..0.7), lung.dome + random.random_range(0.4..0.8));
            scene.solid.glow(gas, (random.random_range(0.05..0.12), 0.06), 0.4, -0.07);
        }
    }
    scene
}

/// A function of one coordinate as a table: computing the outlines at every pixel would take too long.
struct Table {
    values: Vec<f32>,
}

impl Table {
    const LOW: f32 = -1.0;
    const STEP: f32 = 1.0 / 128.0;

    fn new(function: impl Fn(f32) -> f32) -> Self {
        Self { values: (0..520).map(|i| function(Self::LOW + i as f32 * Self::STEP)).collect() }
    }

    fn at(&self, x: f32) -> f32 {
        let place = ((x - Self::LOW) / Self::STEP).clamp(0.0, 517.9);
        let i = place as usize;
        let t = place - i as f32;
        self.values[i] * (1.0 - t) + self.values[i + 1] * t
    }
}

/// The body's soft tissue, the lungs, the heart, the spine and the airway, pixel by pixel.
fn fields(scene: &mut Scene, anatomy: &Anatomy) {
    let tables = anatomy.lungs.map(|lung| {
        let lateral = Table::new(|y| lung.lateral(y));
        let medial = Table::new(|y| lung.mediastinal(y));
        (lateral, medial, Table::new(|across| lung.diaphragm(across)), lung.apex)
    });
    let torso = Table::new(|y| {
        let side = anatomy.lungs[0].lateral(y.max(0.3)) + anatomy.wall + 0.03;
        let neck = 0.36 + 0.3 * anatomy.wall;
        let slope = smooth((y + 0.42) / 0.5);
        let shoulder = neck + (1.5 - neck) * slope * smooth((y + 0.52) / 0.3);
        if y < 0.12 { shoulder } else { shoulder.max(side) - (shoulder - side).max(0.0) * smooth((y - 0.12) / 0.33) }
    });
    let vertebra = Table::new(|y| 0.02 * (y * 2.0 * PI / 0.155).cos());
    let dome = anatomy.lungs[0].dome;
    let carina = anatomy.carina();
    let heart_top = carina - 0.45;
    let Scene { frame, air, depth, solid, texture, .. } = scene;
    let texture = *texture;
    frame.every(|i, (x, y)| {
        let half = torso.at(y);
        let across = (x / half).abs();
        if across >= 1.0 {
            solid.data[i] = OUTSIDE;
            return;
        }
        let squared = across * across;
        let mut body = OUTSIDE + (anatomy.thickness * 0.82 - OUTSIDE) * (1.0 - squared * squared).sqrt();
        body *= 1.0 - 0.22 * smooth((0.1 - y) / 0.5);
        let middle = anatomy.midline(y);
        let (lateral, medial, diaphragm, apex) = &tables[usize::from(x > 0.0)];
        let outward = x.abs();
        let mut inside = -1.0;
        if y > *apex {
            let mediastinal = medial.at(y) + if x > 0.0 { anatomy.turn } else { -anatomy.turn };
            inside = (lateral.at(y) - outward).min(outward - mediastinal).min(diaphragm.at(outward) - y);
        }
        depth[i] = inside;
        let heart = if y > heart_top && y < 2.2 && outward < 0.95 { anatomy.heart((x, y)) } else { 0.0 };
        if inside > -0.012 {
            let rise = smooth((inside + 0.012) / 0.03);
            let full = 0.66 + 0.34 * (1.0 - 1.0 / (1.0 + (inside.max(0.0) / 0.12).powi(2)));
            air[i] = anatomy.aeration * rise * full * (1.0 - 0.88 * heart) * (0.88 + 0.12 * smooth((1.2 - y) / 1.2));
        }
        body += 0.07 * heart;
        body += 0.10 * smooth((y - dome) / 0.5) * (1.0 - squared);
        // The spine, its discs, the edges of the vertebrae, the airway in front of it.
        let from_spine = (x - middle).abs();
        if from_spine < 0.2 {
            let band = smooth((0.135 - from_spine) / 0.04);
            body += anatomy.bone * band * (0.075 + vertebra.at(y) + 0.03 * smooth((from_spine - 0.08) / 0.03));
            if y < carina {
                let tube = (x - middle - 0.6 * anatomy.turn).abs();
                body -= 0.1 * smooth((0.062 - tube) / 0.025) * smooth((carina - y) / 0.06);
            }
        }
        solid.data[i] = body + 0.016 * texture.cloud((x, y), 1.7);
    });
    // The main bronchi.
    for sign in [-1.0f32, 1.0] {
        let start = (anatomy.midline(carina) + 0.6 * anatomy.turn, carina - 0.03);
        let (x, y) = anatomy.hilum(sign);
        solid.stroke(&[start, (x * 0.8, y - 0.02)], (0.035, 0.026), Profile::Round, -0.055);
    }
}

/// Arms, clavicles, shoulder blades.
fn shoulders(scene: &mut Scene, anatomy: &Anatomy) {
    let layer = &mut scene.solid;
    for sign in [-1.0f32, 1.0] {
        let joint = (sign * 1.22, 0.08 + anatomy.clavicle);
        let (sin, cos) = anatomy.arm.sin_cos();
        let elbow = (joint.0 + sign * 3.0 * sin, joint.1 + 3.0 * cos);
        let thick = 0.2 + 0.4 * anatomy.wall;
        layer.stroke(&[joint, elbow], (thick, thick * 0.85), Profile::Round, 0.42);
        layer.stroke(&[joint, elbow], (0.085, 0.07), Profile::Bone, 0.16 * anatomy.bone);
        layer.disc(joint, 0.11, 0.35, 0.05 * anatomy.bone);
        let inner = (sign * 0.1 + anatomy.turn * 1.4, 0.16 + anatomy.clavicle);
        let bone = spline(&[
            inner,
            (sign * 0.42 + anatomy.turn, 0.06 + anatomy.clavicle),
            (sign * 0.8, 0.03 + anatomy.clavicle * 1.4),
            (sign * 1.12, -0.03 + anatomy.clavicle * 1.2),
        ]);
        layer.stroke(&bone, (0.05, 0.04), Profile::Bone, 0.13 * anatomy.bone);
        let edge = 0.88 + 0.14 * anatomy.arm;
        let blade = spline(&[(sign * (edge + 0.2), 0.1), (sign * edge, 0.42), (sign * (edge + 0.12), 0.85)]);
        layer.stroke(&blade, (0.035, 0.02), Profile::Bone, 0.06 * anatomy.bone);
        layer.glow((sign * (edge + 0.17), 0.4), (0.12, 0.25), sign * 0.1, 0.05 * anatomy.bone);
    }
}

/// Both rows of ribs on both sides; a fracture cuts a rib in two and moves its outer part.
fn ribs(scene: &mut Scene, anatomy: &Anatomy, findings: &[Finding]) {
    let fracture = findings.iter().find(|f| f.kind == Kind::Fracture);
    let breaks = fracture.map(|f| Break::of(f, anatomy));
    for sign in [-1.0f32, 1.0] {
        for number in 0..11 {
            let strength = anatomy.bone * if number > 8 { 0.5 } else { 1.0 };
            let broken = breaks.as_ref().filter(|b| b.sign * sign > 0.0 && b.ribs.contains(&number));
            let whole = curve(18, |t| anatomy.rib(sign, number, t));
            let radii = (0.03, 0.034);
            if let Some(broken) = broken {
                // Neighboring ribs are broken at different places.
                let uneven = (number as f32 * 2.3).sin();
                let cut = ((broken.at + 0.06 * uneven) * 18.0) as usize;
                let moved = |(x, y): Point| (x - sign * 0.4 * broken.step, y + broken.step);
                scene.solid.stroke(&whole[..=cut], radii, Profile::Bone, 0.1 * strength);
                let outer: Vec<Point> = whole[cut + 1..].iter().map(|&p| moved(p)).collect();
                scene.solid.stroke(&outer, radii, Profile::Bone, 0.1 * strength);
                if broken.healed {
                    scene.solid.disc(moved(whole[cut]), 0.06 + 0.014 * uneven, 0.7, 0.16 * anatomy.bone);
                } else {
                    scene.solid.disc(moved(whole[cut + 1]), 0.04, 0.3, 0.12 * anatomy.bone);
                    scene.solid.disc(whole[cut], 0.04, 0.3, 0.12 * anatomy.bone);
                }
            } else {
                scene.solid.stroke(&whole, radii, Profile::Bone, 0.1 * strength);
            }
            if number < 7 {
                let front = curve(14, |t| anatomy.anterior_rib(sign, number, t));
                scene.solid.stroke(&front, (0.03, 0.038), Profile::Bone, 0.058 * strength);
            }
        }
    }
}

/// Where ribs are broken.
struct Break {
    sign: f32,
    ribs: std::ops::Range<usize>,
    at: f32,
    step: f32,
    healed: bool,
}

impl Break {
    fn of(finding: &Finding, anatomy: &Anatomy) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(finding.seed);
        let sign = finding.side.signs()[0];
        let y = anatomy.lung(sign).height(finding.zone.height());
        let first = (((y - anatomy.rib_start) / anatomy.rib_spacing) as usize).clamp(2, 6);
        Self {
            sign,
            ribs: first..first + finding.count,
            at: random.random_range(0.5..0.72),
            step: 0.035 + 0.05 * finding.severity,
            healed: finding.variant,
        }
    }
}

/// The tree of vessels out of one hilum.
fn vessels(scene: &mut Scene, anatomy: &Anatomy, sign: f32, random: &mut impl Rng) {
    let (x, y) = anatomy.hilum(sign);
    let strength = anatomy.vessels;
    scene.markings.glow((x, y), (0.07, 0.13), 0.2 * sign, 0.13 * strength);
    scene.markings.glow((x + 0.03 * sign, y + 0.14), (0.04, 0.1), -0.25 * sign, 0.08 * strength);
    let mut lines = Vec::new();
    for trunk in 0..11 {
        let angle = -1.4 + 2.9 * trunk as f32 / 10.0 + random.random_range(-0.2..0.2f32);
        let reach = random.random_range(0.02..0.1);
        let start = (x + sign * reach * angle.cos(), y + 1.6 * reach * angle.sin());
        let radius = random.random_range(0.015..0.027);
        branch(&mut lines, start, (sign, angle), radius, random);
    }
    // Thinner vessels have less weight.
    for (low, high, weight) in [(0.012, 9.0, 0.115), (0.007, 0.012, 0.09), (0.0, 0.007, 0.07)] {
        let some: Vec<Line> = lines.iter().filter(|(_, radii)| radii.0 >= low && radii.0 < high).cloned().collect();
        scene.markings.strokes(&some, Profile::Round, weight * strength);
    }
}

/// A polyline with the radii at its ends.
pub type Line = (Vec<Point>, (f32, f32));

/// One vessel, a thinner one off its side and one or two at its end.
pub fn branch(lines: &mut Vec<Line>, start: Point, (sign, angle): (f32, f32), radius: f32, random: &mut impl Rng) {
    let length = radius * random.random_range(7.0..15.0);
    let bend = random.random_range(-0.45..0.45);
    let at = |t: f32| {
        let angle = angle + bend * t;
        (start.0 + sign * length * t * angle.cos(), start.1 + length * t * angle.sin())
    };
    lines.push((curve(4, at), (radius, radius * 0.72)));
    if radius > 0.005 {
        let turn = angle + bend;
        let lean = random.random_range(0.1..0.35f32) * if random.random_bool(0.5) { 1.0 } else { -1.0 };
        branch(lines, at(0.97), (sign, turn + lean), radius * random.random_range(0.66..0.8), random);
        let side = -lean.signum() * random.random_range(0.4..0.9);
        let from = at(random.random_range(0.4..0.9));
        branch(lines, from, (sign, turn + side), radius * random.random_range(0.4..0.62), random);
    }
}

/// Breast shadows: denser towards their lower edge, which is crisp.
fn breasts(scene: &mut Scene, anatomy: &Anatomy) {
    let radius = 0.3 + 0.13 * anatomy.breast.min(1.6);
    for sign in [-1.0f32, 1.0] {
        let center = (sign * 0.58, anatomy.breast_height);
        let data = &mut scene.solid.data;
        scene.frame.near(center, radius * 1.1, |i, (x, y)| {
            let (u, v) = ((x - center.0) / radius, (y - center.1) / radius);
            let cover = smooth((1.02 - (u * u + v * v).sqrt()) / 0.14);
            data[i] += 0.13 * anatomy.breast.min(1.3) * cover * smooth((v + 1.0) / 1.8);
        });
    }
}
