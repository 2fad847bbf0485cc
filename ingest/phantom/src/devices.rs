//! Draws tubes, lines and implants from the front.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::anatomy::Anatomy;
use crate::canvas::{CM, Layer, Point, Profile, curve, spline};
use crate::disease::{Device, Finding};
use crate::frontal::Scene;

/// Draws one device.
pub fn draw(scene: &mut Scene, anatomy: &Anatomy, finding: &Finding, random: &mut ChaCha8Rng) {
    let Some(device) = finding.device else { return };
    let sign = finding.side.signs()[0];
    let layer = &mut scene.solid;
    let carina = anatomy.carina();
    // The junction of the superior vena cava and the right atrium.
    let junction = (-0.13 + anatomy.turn, carina + 0.12 + random.random_range(-0.06..0.1));
    match device {
        Device::Pacemaker => pacemaker(layer, anatomy, sign, finding.variant, random),
        Device::EndotrachealTube => {
            let tip = carina - finding.centimeters * CM;
            let line = [(0.02, -0.6), (anatomy.midline(-0.2) + anatomy.turn, -0.2), (0.6 * anatomy.turn, tip)];
            let line = spline(&line);
            line_shadow(layer, &line, 0.03, 0.1);
            layer.stroke(&line, (0.007, 0.007), Profile::Flat, 0.32);
        }
        Device::CentralLine => {
            let neck = [(sign * 0.3, -0.6), (sign * 0.24, -0.25), (sign * 0.14, 0.1)];
            line_shadow(layer, &to_junction(&neck, sign, carina, junction), 0.013, 0.32);
        }
        Device::Picc => {
            let arm = [(sign * 1.6, 0.75), (sign * 1.15, 0.3), (sign * 0.75, 0.12), (sign * 0.3, 0.12)];
            line_shadow(layer, &to_junction(&arm, sign, carina, junction), 0.011, 0.32);
        }
        Device::Port => {
            let (x, y) = (sign * random.random_range(0.55..0.68), random.random_range(0.33..0.45));
            layer.disc((x, y), 0.085, 0.05, 0.28);
            layer.disc((x, y), 0.045, 0.05, 0.16);
            let neck = [(x, y), (sign * 0.5, 0.12), (sign * 0.25, 0.04), (sign * 0.14, 0.14)];
            line_shadow(layer, &to_junction(&neck, sign, carina, junction), 0.011, 0.32);
        }
        Device::EntericTube => {
            let lung = anatomy.lung(1.0);
            let bend = random.random_range(-0.02..0.03);
            let line = [
                (0.03, -0.6),
                (anatomy.midline(0.2) + 0.03, 0.2),
                (0.04 + bend, carina + 0.3),
                (0.08, lung.dome - 0.1),
                (0.2, lung.dome + 0.25),
                (random.random_range(0.3..0.5), lung.dome + 0.35),
            ];
            line_shadow(layer, &spline(&line), 0.014, 0.28);
        }
        Device::ChestTube => {
            let lung = anatomy.lung(sign);
            let base = lung.height(random.random_range(0.7..0.95));
            let end = lung.height(random.random_range(0.08..0.35));
            let line = [
                (sign * 1.5, base + 0.15),
                (sign * (lung.lateral(base) - 0.02), base),
                (sign * 0.72, lung.height(0.5)),
                (sign * random.random_range(0.35..0.5), end),
            ];
            let line = spline(&line);
            line_shadow(layer, &line, 0.034, 0.12);
            layer.stroke(&line, (0.009, 0.009), Profile::Flat, 0.35);
        }
        Device::SternalWires => sternum(layer, anatomy, carina, random),
    }
}

/// A line with a catheter's even shadow.
fn line_shadow(layer: &mut Layer, line: &[Point], radius: f32, amplitude: f32) {
    layer.stroke(line, (radius, radius), Profile::Flat, amplitude);
}

/// Continues a catheter into the superior vena cava; from the left it crosses the midline first.
fn to_junction(start: &[Point], sign: f32, carina: f32, junction: Point) -> Vec<Point> {
    let mut points = start.to_vec();
    if sign > 0.0 {
        points.push((0.0, carina - 0.26));
    }
    points.push((-0.12, carina - 0.12));
    points.push(junction);
    spline(&points)
}

/// The box under the collarbone and one or two leads into the heart.
fn pacemaker(layer: &mut Layer, anatomy: &Anatomy, sign: f32, two_leads: bool, random: &mut ChaCha8Rng) {
    let center = (sign * random.random_range(0.62..0.78), random.random_range(0.2..0.38));
    let tilt = random.random_range(-0.4..0.4f32);
    let (dx, dy) = (0.1 * tilt.cos(), 0.1 * tilt.sin());
    layer.stroke(
        &[(center.0 - dx, center.1 - dy), (center.0 + dx, center.1 + dy)],
        (0.105, 0.105),
        Profile::Flat,
        0.42,
    );
    layer.disc((center.0 + dx * 0.5, center.1), 0.05, 0.2, 0.12);
    let total = anatomy.heart_ratio * 1.9;
    let base = anatomy.lungs[1].dome;
    let carina = anatomy.carina();
    let ventricle = (anatomy.turn + 0.42 * total, base - 0.08);
    let atrium = (anatomy.turn - 0.12, carina + 0.5);
    let start = [center, (sign * 0.45, 0.14), (sign * 0.16, 0.18)];
    let mut way = start.to_vec();
    if sign > 0.0 {
        way.push((0.0, carina - 0.26));
    }
    way.extend([(-0.12, carina - 0.08), (-0.13, carina + 0.3)]);
    let mut lead = way.clone();
    lead.extend([(0.0, base - 0.16), ventricle]);
    layer.stroke(&spline(&lead), (0.011, 0.011), Profile::Flat, 0.3);
    layer.stroke(&[(ventricle.0 - 0.06, ventricle.1), ventricle], (0.018, 0.018), Profile::Flat, 0.2);
    if two_leads {
        way.extend([(-0.1, carina + 0.44), (-0.2, carina + 0.4), (atrium.0 - 0.05, atrium.1 - 0.15)]);
        layer.stroke(&spline(&way), (0.011, 0.011), Profile::Flat, 0.26);
    }
}

/// Loops of wire down the sternum, at times with clips beside the heart.
fn sternum(layer: &mut Layer, anatomy: &Anatomy, carina: f32, random: &mut ChaCha8Rng) {
    let x = anatomy.turn * 1.5;
    for wire in 0..6 {
        let y = carina - 0.25 + wire as f32 * 0.17 + random.random_range(-0.02..0.02);
        let (wide, lean) = (random.random_range(0.04..0.06), random.random_range(-0.3..0.3f32));
        let ring = curve(12, |t| {
            let angle = t * std::f32::consts::TAU;
            (x + wide * angle.cos(), y + 0.026 * angle.sin() + lean * wide * angle.cos())
        });
        layer.stroke(&ring, (0.011, 0.011), Profile::Flat, 0.34);
    }
    for _ in 0..random.random_range(0..6) {
        let at = (x + random.random_range(0.05..0.4), carina + random.random_range(0.1..0.5));
        layer.stroke(&[at, (at.0 + 0.015, at.1 + 0.03)], (0.01, 0.01), Profile::Flat, 0.3);
    }
}
