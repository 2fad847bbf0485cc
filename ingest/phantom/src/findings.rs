//! Draws findings on the healthy chest: one function for each kind, from the values that the report describes.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::anatomy::{Anatomy, on};
use crate::canvas::{CM, Point, Profile, Texture, curve, smooth};
use crate::devices;
use crate::disease::{Finding, Kind, Zone};
use crate::frontal::Scene;

/// Draws one finding from the front.
pub fn draw(scene: &mut Scene, anatomy: &Anatomy, finding: &Finding) {
    let random = &mut ChaCha8Rng::seed_from_u64(finding.seed);
    match finding.kind {
        Kind::Atelectasis => atelectasis(scene, anatomy, finding, random),
        Kind::Consolidation => {
            consolidation(scene, place(anatomy, finding, random), finding, random);
        }
        Kind::Edema => edema(scene, anatomy, finding, random),
        Kind::LungLesion => lesions(scene, anatomy, finding, random),
        Kind::LungOpacity => {
            for &sign in finding.side.signs() {
                let center = anatomy.place(sign, finding.zone.height(), random.random_range(0.35..0.65));
                opacity(scene, center, finding, random);
            }
        }
        Kind::PleuralEffusion => effusion(scene, anatomy, finding, random),
        Kind::PleuralOther => pleura(scene, anatomy, finding, random),
        Kind::Pneumonia => pneumonia(scene, place(anatomy, finding, random), finding, random),
        Kind::Pneumothorax => pneumothorax(scene, anatomy, finding),
        Kind::SupportDevices => devices::draw(scene, anatomy, finding, random),
        // These change the anatomy itself.
        Kind::Cardiomegaly | Kind::EnlargedCardiomediastinum | Kind::Fracture => {}
    }
}

/// A place for a one-sided finding of the lung.
pub fn place(anatomy: &Anatomy, finding: &Finding, random: &mut ChaCha8Rng) -> Point {
    let height = finding.zone.height() + random.random_range(-0.06..0.06);
    anatomy.place(finding.side.signs()[0], height, random.random_range(0.3..0.7))
}

/// Center and reach of an opacity in the lung, for its box.
pub fn focus(anatomy: &Anatomy, finding: &Finding) -> Option<(Point, f32)> {
    let reach = match finding.kind {
        Kind::Consolidation => 1.15 * (0.19 + 0.2 * finding.severity),
        Kind::Pneumonia => 1.6 * (0.12 + 0.15 * finding.severity),
        _ => return None,
    };
    // `draw` draws the place first, too.
    Some((place(anatomy, finding, &mut ChaCha8Rng::seed_from_u64(finding.seed)), reach))
}

/// Of a pneumothorax: the width of the gap at a point's height, and the point's distance inside of the pleural line.
pub fn collapse(anatomy: &Anatomy, finding: &Finding, (x, y): Point) -> (f32, f32) {
    let sign = finding.side.signs()[0];
    let lung = anatomy.lung(sign);
    let gap = 0.1 + 0.4 * finding.severity;
    let length = 0.5 + 1.1 * finding.severity;
    let open = gap * (1.0 - ((y - lung.apex) / length).clamp(0.0, 1.0)).powf(0.7);
    let lowered = y - 0.8 * open;
    let inside = if lowered < lung.apex { -0.1 } else { lung.lateral(lowered) - open - x * sign };
    (open, inside)
}

/// Bands across the base, or a raised dome (see `Anatomy`) with crowded lung above it.
fn atelectasis(scene: &mut Scene, anatomy: &Anatomy, finding: &Finding, random: &mut ChaCha8Rng) {
    let severity = finding.severity;
    for &sign in finding.side.signs() {
        let lung = anatomy.lung(sign);
        if finding.variant {
            let (x, width) = (sign * 0.45, 0.5);
            let reach = 0.1 + 0.22 * severity;
            let dome = lung.dome;
            let texture = Texture::random(random);
            scene.fill((x, dome), 0.9, |(px, py)| {
                let above = lung.diaphragm(px.abs()) - py + 0.06 * texture.cloud((px, py), 1.5);
                let near = 1.0 - ((px - x) / width).powi(2).min(1.0) * 0.5;
                if px * sign < 0.0 { 0.0 } else { (0.35 + 0.4 * severity) * near * smooth((reach - above) / reach) }
            });
        }
        let plates = if finding.variant { 1 } else { finding.count };
        for _ in 0..plates {
            let from = random.random_range(0.1..0.35);
            let y = lung.height(random.random_range(0.66..0.9));
            let (start, length) = (anatomy.place(sign, 0.8, from).0, 0.3 + 0.3 * severity);
            let tilt = random.random_range(-0.35..0.35);
            let sag = random.random_range(-0.04..0.04);
            let line = curve(8, |t| {
                (start + sign * length * t, y + tilt * length * (t - 0.5) + sag * (t * std::f32::consts::PI).sin())
            });
            let thick = 0.012 + 0.03 * severity;
            lung_stroke(scene, &line, (thick, thick * 0.6), Profile::Soft, 0.14 + 0.16 * severity);
        }
    }
}

/// A stroke that is seen only inside the lungs.
fn lung_stroke(scene: &mut Scene, line: &[Point], radii: (f32, f32), profile: Profile, amplitude: f32) {
    scene.markings.stroke(line, radii, profile, amplitude * 1.2);
}

/// A dense patch with a blurred, uneven edge, at times cut straight by a fissure.
fn consolidation(scene: &mut Scene, center: Point, finding: &Finding, random: &mut ChaCha8Rng) {
    let radius = 0.19 + 0.2 * finding.severity;
    let strength = 0.5 + 0.38 * finding.severity;
    let (wide, texture) = (random.random_range(0.85..1.3), Texture::random(random));
    let fissure = if random.random_bool(0.4) { random.random_range(0.1..0.5) } else { 9.0 };
    let above = finding.zone == Zone::Upper;
    scene.fill(center, radius * 1.9, |(x, y)| {
        let (u, v) = ((x - center.0) / (radius * wide), (y - center.1) / radius);
        let edge = (u * u + v * v).sqrt() + 0.4 * texture.cloud((x, y), 1.6);
        let cut = smooth((fissure - if above { v } else { -v }) / 0.06);
        strength * smooth((1.15 - edge) / 0.5) * cut
    });
}

/// A cluster of smaller patches with air-filled airways in it.
fn pneumonia(scene: &mut Scene, center: Point, finding: &Finding, random: &mut ChaCha8Rng) {
    let spread = 0.12 + 0.15 * finding.severity;
    let strength = 0.34 + 0.32 * finding.severity;
    let texture = Texture::random(random);
    let patches: Vec<(Point, f32)> = (0..random.random_range(4..8))
        .map(|_| {
            let x = center.0 + spread * random.random_range(-1.3..1.3);
            let y = center.1 + spread * random.random_range(-1.3..1.3);
            ((x, y), random.random_range(0.5..1.0) * spread)
        })
        .collect();
    scene.fill(center, spread * 2.6, |(x, y)| {
        let mut open = 1.0;
        for &((px, py), radius) in &patches {
            let squared = ((x - px).powi(2) + (y - py).powi(2)) / (radius * radius);
            open *= 1.0 - 0.8 * (-squared).exp();
        }
        strength * (1.0 - open) * (1.0 + 0.55 * texture.cloud((x, y), 0.55))
    });
    for _ in 0..4 {
        let start =
            (center.0 + spread * random.random_range(-0.6..0.6), center.1 + spread * random.random_range(-0.6..0.6));
        let angle = random.random_range(0.0..6.0f32);
        let end = (start.0 + spread * 0.8 * angle.cos(), start.1 + spread * 0.8 * angle.sin());
        scene.markings.stroke(&[start, end], (0.014, 0.007), Profile::Round, -0.16);
    }
}

/// A wide faint haze.
fn opacity(scene: &mut Scene, center: Point, finding: &Finding, random: &mut ChaCha8Rng) {
    let radius = 0.24 + 0.16 * finding.severity;
    let strength = 0.22 + 0.32 * finding.severity;
    let (wide, texture) = (random.random_range(0.8..1.3), Texture::random(random));
    scene.fill(center, radius * 2.4, |(x, y)| {
        let (u, v) = ((x - center.0) / (radius * wide), (y - center.1) / radius);
        strength * (-0.5 * (u * u + v * v)).exp() * (1.0 + 0.3 * texture.cloud((x, y), 1.2))
    });
}

/// Haze around both hila, blurred and thickened vessels, Kerley lines at the walls.
fn edema(scene: &mut Scene, anatomy: &Anatomy, finding: &Finding, random: &mut ChaCha8Rng) {
    let severity = finding.severity;
    let texture = Texture::random(random);
    for sign in [-1.0f32, 1.0] {
        let (hx, hy) = anatomy.hilum(sign);
        let center = (hx + sign * 0.12, hy + 0.12);
        let strength = 0.08 + 0.36 * severity;
        scene.fill(center, 1.4, |(x, y)| {
            let (u, v) = ((x - center.0) / 0.33, (y - center.1) / 0.46);
            let wing = (-0.5 * (u * u + v * v)).exp();
            (strength * wing + 0.06 * severity) * (1.0 + 0.5 * texture.cloud((x, y), 0.8))
        });
        scene.markings.glow((hx, hy), (0.1, 0.15), 0.0, 0.14 * severity);
        let lung = anatomy.lung(sign);
        for _ in 0..(3.0 + 9.0 * severity) as usize {
            let y = lung.height(random.random_range(0.6..0.98));
            let x = lung.lateral(y) - 0.02;
            let inner = x - random.random_range(0.08..0.16);
            scene.markings.stroke(&[(sign * x, y), (sign * inner, y - 0.015)], (0.005, 0.004), Profile::Flat, 0.12);
        }
        for _ in 0..(4.0 + 5.0 * severity) as usize {
            let angle = random.random_range(-1.3..-0.2f32);
            let reach = random.random_range(0.3..0.6);
            let end = (hx + sign * reach * angle.cos(), hy + reach * angle.sin());
            scene.markings.stroke(&[(hx, hy), end], (0.02, 0.012), Profile::Soft, 0.07 + 0.07 * severity);
        }
    }
}

/// Round nodules and masses; large ones at times with spikes.
fn lesions(scene: &mut Scene, anatomy: &Anatomy, finding: &Finding, random: &mut ChaCha8Rng) {
    let other = -finding.side.signs()[0];
    for number in 0..finding.count {
        let sign = if number % 2 == 1 && finding.count > 2 { other } else { finding.side.signs()[0] };
        let jitter = if number == 0 { 0.06 } else { 0.3 };
        let height = (finding.zone.height() + random.random_range(-jitter..jitter)).clamp(0.12, 0.88);
        let center = anatomy.place(sign, height, random.random_range(0.3..0.75));
        let radius = finding.centimeters / 2.0 * CM * if number == 0 { 1.0 } else { random.random_range(0.6..0.95) };
        let strength = 0.17 + 0.2 * (radius / 0.2).min(1.0);
        let texture = Texture::random(random);
        let data = &mut scene.solid.data;
        scene.frame.near(center, radius * 1.5, |i, (x, y)| {
            let distance = ((x - center.0).powi(2) + (y - center.1).powi(2)).sqrt() / radius;
            let cover = smooth((1.1 - distance - 0.14 * texture.cloud((x, y), 0.9)) / 0.22);
            data[i] += strength * cover * (1.0 - 0.35 * (distance * distance).min(1.0));
        });
        if finding.variant && finding.centimeters > 2.0 {
            for spike in 0..12 {
                let angle = spike as f32 * 0.524 + random.random_range(-0.2..0.2);
                let reach = radius * random.random_range(1.2..1.6);
                let end = (center.0 + reach * angle.cos(), center.1 + reach * angle.sin());
                scene.solid.stroke(&[center, end], (0.014, 0.004), Profile::Round, 0.07);
            }
        }
    }
}

/// Fluid from the lowest point up, with a meniscus that climbs the chest wall.
fn effusion(scene: &mut Scene, anatomy: &Anatomy, finding: &Finding, random: &mut ChaCha8Rng) {
    for &sign in finding.side.signs() {
        let lung = anatomy.lung(sign);
        let severity = (finding.severity * random.random_range(0.85..1.1)).min(1.0);
        let floor = lung.dome + lung.sulcus;
        let level = floor - 0.13 - 0.78 * severity;
        let climb = 0.1 + 0.16 * severity;
        scene.fill((sign * 0.5, floor - 0.4), 1.3, |(x, y)| {
            let out = (x * sign / lung.width).clamp(0.0, 1.1);
            if x * sign < 0.0 {
                return 0.0;
            }
            let surface = level + 0.06 - climb * out.powi(4);
            let haze = 0.22 * smooth((y - surface + 0.25) / 0.3);
            haze + 0.75 * smooth((y - surface) / 0.09 + 0.3)
        });
        let data = &mut scene.solid.data;
        let depth = &scene.depth;
        scene.frame.near((sign * 0.5, floor - 0.4), 1.3, |i, (x, y)| {
            if depth[i] > 0.0 && x * sign > 0.0 {
                data[i] += 0.06 * smooth((y - level) / 0.3);
            }
        });
    }
}

/// A cap over the apex, or a thick rim and plaques along the wall.
fn pleura(scene: &mut Scene, anatomy: &Anatomy, finding: &Finding, random: &mut ChaCha8Rng) {
    let texture = Texture::random(random);
    for sign in [-1.0f32, 1.0].into_iter().filter(|&sign| on(finding.side, sign)) {
        let lung = anatomy.lung(sign);
        if finding.variant {
            let thick = 0.06 + 0.11 * finding.severity;
            scene.fill((sign * 0.36, lung.apex), 0.75, |(x, y)| {
                let under = y - lung.apex - 0.5 * (x.abs() - 0.36).powi(2);
                let rim = under + 0.05 * texture.cloud((x, y), 0.8);
                if x * sign < 0.0 { 0.0 } else { 0.85 * smooth((thick + 0.05 - rim) / 0.06) }
            });
            let cap = curve(8, |t| wall(lung, sign, lung.apex + 0.03 + 0.3 * t, 0.03));
            lung_stroke(scene, &cap, (0.03, 0.012), Profile::Soft, 0.12);
        } else {
            let thick = 0.035 + 0.06 * finding.severity;
            let (top, bottom) = (lung.height(0.3), lung.height(1.1));
            scene.fill((sign * 0.8, 0.8), 1.2, |(x, y)| {
                let rim = lung.lateral(y) - x * sign + 0.03 * texture.cloud((x, y), 0.7);
                let along = smooth((y - top) / 0.15) * smooth((bottom - y) / 0.15);
                if x * sign < 0.0 { 0.0 } else { 0.85 * along * smooth((thick + 0.02 - rim) / 0.03) }
            });
            for _ in 0..(1.0 + 5.0 * finding.severity) as usize {
                let y = random.random_range(top..bottom - 0.1);
                let line = curve(4, |t| wall(lung, sign, y + 0.12 * t, thick * 0.8));
                scene.solid.stroke(&line, (0.016, 0.01), Profile::Flat, 0.13 + 0.08 * finding.severity);
            }
        }
    }
}

/// A point `inset` inside of the chest wall.
fn wall(lung: &crate::anatomy::Lung, sign: f32, y: f32, inset: f32) -> Point {
    (sign * (lung.lateral(y) - inset), y)
}

/// Air around the collapsed lung: a dark rim without vessels, widest at the apex, and the fine line of the pleura.
fn pneumothorax(scene: &mut Scene, anatomy: &Anatomy, finding: &Finding) {
    let sign = finding.side.signs()[0];
    let severity = finding.severity;
    let (air, depth, markings) = (&mut scene.air, &scene.depth, &mut scene.markings.data);
    let line = 0.011f32.max(0.6 / scene.frame.scale);
    scene.frame.near((sign * 0.5, 0.75), 1.4, |i, (x, y)| {
        if depth[i] <= -0.012 || x * sign < 0.0 {
            return;
        }
        let (open, inside) = collapse(anatomy, finding, (x, y));
        let beyond = smooth(-inside / 0.02 + 0.5) * smooth(open / 0.03);
        if depth[i] > 0.0 {
            air[i] *= 1.0 + 0.3 * beyond - 0.14 * severity * (1.0 - beyond);
            markings[i] *= 1.0 - beyond;
            markings[i] += 0.1 * (-(inside / line).powi(2)).exp() * smooth(open / 0.03);
        }
    });
}
