//! Draws the chest from the side: the breastbone at the left of the image, the spine at the right.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::anatomy::Anatomy;
use crate::canvas::{CM, Frame, Point, Profile, Texture, curve, smooth, spline};
use crate::disease::{Device, Finding, Kind, Side};
use crate::frontal::{OUTSIDE, Scene, branch};

/// The outlines of the side view at one height: front and back of the lungs, front and back of the body.
struct Outline {
    front: f32,
    back: f32,
    skin: (f32, f32),
}

fn outline(anatomy: &Anatomy, y: f32) -> Outline {
    let t = (y / 1.2).clamp(0.0, 1.0);
    let bulge = (1.0 - (1.0 - t).powi(2)).sqrt();
    let front = -0.12 - 0.46 * bulge;
    let back = 0.4 + 0.22 * (-((y - 0.6) / 0.5).powi(2)).exp();
    let wall = 0.1 + 0.6 * anatomy.wall;
    let chest = 0.16 * anatomy.breast * (-((y - anatomy.breast_height) / 0.3).powi(2)).exp();
    let neck = smooth((0.1 - y) / 0.5);
    Outline { front, back, skin: (front - wall - chest + 0.12 * neck, back + wall + 0.06) }
}

/// Height of the diaphragm at x: high in front, deep behind.
fn diaphragm(dome: f32, sulcus: f32, x: f32) -> f32 {
    let back = ((x + 0.15) / 0.7).max(0.0);
    dome + (sulcus + 0.12) * back * back + 0.1 * ((-0.25 - x) / 0.3).max(0.0).powi(2)
}

/// Draws the side view with those findings that can be seen on it.
pub fn draw(frame: Frame, anatomy: &Anatomy, findings: &[Finding], random: &mut impl Rng) -> Scene {
    let mut scene = Scene::new(frame, random);
    fields(&mut scene, anatomy, findings);
    bones(&mut scene, anatomy);
    let mut lines = Vec::new();
    for trunk in 0..13 {
        let angle = 0.48 * trunk as f32 + random.random_range(-0.25..0.25f32);
        let reach = random.random_range(0.03..0.14);
        let start = (0.06 + reach * angle.cos(), 0.68 + reach * angle.sin());
        branch(&mut lines, start, (1.0, angle), random.random_range(0.01..0.02), random);
    }
    scene.markings.strokes(&lines, Profile::Round, 0.065 * anatomy.vessels);
    scene.markings.glow((0.06, 0.68), (0.09, 0.11), 0.0, 0.12 * anatomy.vessels);
    for finding in findings {
        draw_finding(&mut scene, anatomy, finding);
    }
    scene
}

fn fields(scene: &mut Scene, anatomy: &Anatomy, findings: &[Finding]) {
    let domes = anatomy.lungs.map(|lung| (lung.dome, lung.sulcus));
    let fluid = findings.iter().find(|f| f.kind == Kind::PleuralEffusion);
    let level = domes[0].0 + domes[0].1 + 0.1 - fluid.map_or(-9.0, |f| 0.1 + 0.75 * f.severity);
    let both = fluid.is_some_and(|f| f.side == Side::Both);
    let heart = 0.5 + 1.15 * (anatomy.heart_ratio - 0.43);
    let texture = scene.texture;
    let (air, depth, solid) = (&mut scene.air, &mut scene.depth, &mut scene.solid.data);
    scene.frame.every(|i, (x, y)| {
        let Outline { front, back, skin } = outline(anatomy, y);
        let middle = skin.0.midpoint(skin.1);
        let across = ((x - middle) / (skin.1 - middle)).abs();
        if across >= 1.0 {
            solid[i] = OUTSIDE;
            return;
        }
        let squared = across * across;
        let mut body = OUTSIDE + (anatomy.thickness * 0.92 - OUTSIDE) * (1.0 - squared * squared).sqrt();
        body += 0.16 * smooth((0.05 - y) / 0.25) * smooth((0.5 - (x - 0.1).abs()) / 0.2);
        // Each lung gives half of the air, so that both domes show.
        let mut thickness = 0.0;
        let apex = y + 0.14 - 1.6 * (x - 0.14).powi(2);
        let sides = (x - front).min(back - x).min(apex);
        let mut inside = -1.0f32;
        for (side, (dome, sulcus)) in domes.into_iter().enumerate() {
            let edge = sides.min(diaphragm(dome, sulcus, x) - y);
            inside = inside.max(edge);
            let wet = if side == 0 || both { smooth((y - level + 0.1 * (x - 0.2).max(0.0)) / 0.08) } else { 0.0 };
            thickness += 0.5 * smooth(edge / 0.07) * (1.0 - 0.9 * wet);
        }
        depth[i] = inside;
        // The heart rests on the front of the diaphragm and fades towards the hilum.
        let (u, v) = (x + 0.24, y - (domes[0].0 - 0.06));
        let (u, v) = ((0.8 * u + 0.6 * v) / (0.56 * heart), (0.8 * v - 0.6 * u) / (0.86 * heart));
        let shade = smooth((1.0 - (u * u + v * v).sqrt()) / 0.55 + 0.15);
        air[i] = thickness * (1.0 - 0.62 * shade) * (0.92 + 0.08 * smooth((y - 0.2) / 0.9));
        solid[i] = body + 0.04 * shade + 0.018 * texture.cloud((x, y), 1.6);
    });
}

fn bones(scene: &mut Scene, anatomy: &Anatomy) {
    let layer = &mut scene.solid;
    let sternum = curve(10, |t| (outline(anatomy, 0.1 + 0.8 * t).front - 0.04, 0.1 + 0.8 * t));
    layer.stroke(&sternum, (0.04, 0.03), Profile::Bone, 0.13 * anatomy.bone);
    let spine = |y: f32| outline(anatomy, y).back - 0.07;
    for number in 0..15 {
        let y = -0.1 + number as f32 * 0.14;
        let x = spine(y);
        layer.stroke(&[(x - 0.07, y), (x + 0.07, y + 0.01)], (0.048, 0.048), Profile::Bone, 0.1 * anatomy.bone);
    }
    for number in 0..9 {
        let start = 0.0 + number as f32 * anatomy.rib_spacing;
        for shift in [0.0, 0.035] {
            let rib = curve(10, |t| {
                let y = start + shift + 0.36 * t;
                (outline(anatomy, y).back - 0.02 - 0.75 * t, y + 0.1 * (t * 3.0).sin())
            });
            layer.stroke(&rib, (0.026, 0.024), Profile::Bone, 0.035 * anatomy.bone);
        }
    }
    let airway = spline(&[(0.12, -0.5), (0.1, 0.1), (0.08, 0.55)]);
    layer.stroke(&airway, (0.06, 0.05), Profile::Soft, -0.09);
}

fn draw_finding(scene: &mut Scene, anatomy: &Anatomy, finding: &Finding) {
    let random = &mut ChaCha8Rng::seed_from_u64(finding.seed ^ 1);
    let severity = finding.severity;
    let y = anatomy.lungs[0].height(finding.zone.height());
    let center: Point = (random.random_range(-0.2..0.35), y.min(1.25));
    let texture = Texture::random(random);
    let mut haze = |center: Point, radius: f32, strength: f32, uneven: f32| {
        scene.fill(center, radius * 2.3, |(x, y)| {
            let squared = ((x - center.0).powi(2) + (y - center.1).powi(2)) / (radius * radius);
            strength * (-0.6 * squared).exp() * (1.0 + uneven * texture.cloud((x, y), 0.7))
        });
    };
    match finding.kind {
        Kind::Consolidation => haze(center, 0.18 + 0.16 * severity, 0.3 + 0.3 * severity, 0.2),
        Kind::Pneumonia => haze(center, 0.16 + 0.14 * severity, 0.22 + 0.25 * severity, 0.6),
        Kind::LungOpacity => haze(center, 0.24 + 0.14 * severity, 0.12 + 0.2 * severity, 0.3),
        Kind::Edema => haze((0.06, 0.72), 0.42, 0.15 + 0.35 * severity, 0.4),
        Kind::Atelectasis => {
            let (at, y) = (random.random_range(-0.1..0.1), anatomy.lungs[0].height(0.85));
            let line = [(at, y), (at + 0.3, y + 0.06)];
            scene.markings.stroke(&line, (0.02, 0.012), Profile::Soft, 0.12 + 0.12 * severity);
        }
        Kind::LungLesion => scene.solid.disc(center, finding.centimeters / 2.0 * CM, 0.3, 0.16),
        Kind::SupportDevices => device(scene, anatomy, finding, random),
        _ => {}
    }
}

fn device(scene: &mut Scene, anatomy: &Anatomy, finding: &Finding, random: &mut ChaCha8Rng) {
    let layer = &mut scene.solid;
    match finding.device {
        Some(Device::Pacemaker) => {
            let (x, y) = (outline(anatomy, 0.3).front - 0.05, 0.3);
            layer.stroke(&[(x, y - 0.1), (x - 0.02, y + 0.1)], (0.035, 0.035), Profile::Flat, 0.4);
            let lead = spline(&[(x, y), (-0.1, 0.12), (0.04, 0.5), (0.0, 0.95), (-0.32, 1.2)]);
            layer.stroke(&lead, (0.011, 0.011), Profile::Flat, 0.28);
        }
        Some(Device::SternalWires) => {
            for wire in 0..6 {
                let y = 0.3 + 0.13 * wire as f32;
                let x = outline(anatomy, y).front - 0.04;
                layer.stroke(&[(x - 0.03, y), (x + 0.04, y + 0.02)], (0.012, 0.012), Profile::Flat, 0.34);
            }
        }
        Some(Device::CentralLine | Device::Picc | Device::Port) => {
            let line = spline(&[(0.0, -0.3), (0.02, 0.2), (0.05, random.random_range(0.6..0.75))]);
            layer.stroke(&line, (0.011, 0.011), Profile::Flat, 0.28);
        }
        _ => {}
    }
}
