//! The body's parameters and its outlines, seen from the front: `frontal` fills them in, and `findings` draws on them.

use rand::Rng;
use rand_distr::{Distribution, Normal};

use crate::canvas::{Point, smooth};
use crate::disease::{Device, Finding, Kind, Side};
use crate::patient::{Patient, Sex};

/// One lung, in mirrored coordinates: `across` runs from the midline to the chest wall on either side.
#[derive(Clone, Copy, Debug)]
pub struct Lung {
    /// Height of the apex.
    pub apex: f32,
    /// Half width of the chest at its widest.
    pub width: f32,
    /// Height of the diaphragm's dome.
    pub dome: f32,
    /// Distance of the costophrenic angle below the dome.
    pub sulcus: f32,
    /// Half width of the mediastinum on this side.
    pub medial: f32,
}

impl Lung {
    /// Distance of the chest wall from the midline at a height.
    pub fn lateral(&self, y: f32) -> f32 {
        let t = ((y - self.apex) / (0.78 * (1.45 - self.apex))).clamp(0.0, 1.0);
        let center = 0.36;
        let taper = 0.05 * smooth((y - 1.1) / 0.6);
        center + (self.width - center) * (1.0 - (1.0 - t).powi(2)).sqrt().powf(0.8) - taper
    }

    /// Distance of the mediastinal edge from the midline at a height.
    pub fn mediastinal(&self, y: f32) -> f32 {
        let t = ((y - self.apex) / 0.3).clamp(0.0, 1.0);
        0.36 - (0.36 - self.medial) * (1.0 - (1.0 - t).powi(2)).sqrt()
    }

    /// Height of the diaphragm at a distance from the midline.
    pub fn diaphragm(&self, across: f32) -> f32 {
        let top = 0.45 * self.width;
        let out = (across - top) / (self.width - top);
        if out > 0.0 {
            self.dome + self.sulcus * out.min(1.2).powf(2.3)
        } else {
            self.dome + 0.08 * (out * (self.width - top) / top).powi(2)
        }
    }

    /// Height of a zone in this lung.
    pub fn height(&self, part: f32) -> f32 {
        self.apex + part * (self.dome - self.apex)
    }
}

/// All parameters of one frontal image's anatomy.
#[derive(Clone, Debug)]
pub struct Anatomy {
    /// Right and left lung.
    pub lungs: [Lung; 2],
    /// Width of the heart over the inner width of the chest.
    pub heart_ratio: f32,
    /// Shift of the heart to the left, from -1 to 1.
    pub heart_lean: f32,
    pub aortic_knob: f32,
    /// Shift of the mediastinum by a turned patient.
    pub turn: f32,
    /// Sideways bend of the spine.
    pub spine_bend: f32,
    /// Thickness of the chest wall outside of the lung.
    pub wall: f32,
    /// Overall thickness of the body.
    pub thickness: f32,
    /// Size of the breast shadows; 0 for none.
    pub breast: f32,
    pub breast_height: f32,
    /// Angle of the upper arms.
    pub arm: f32,
    pub bone: f32,
    /// Steepness of the ribs.
    pub rib_slope: f32,
    pub rib_start: f32,
    pub rib_spacing: f32,
    pub clavicle: f32,
    pub vessels: f32,
    /// How much air the lungs hold; in some people they are denser throughout.
    pub aeration: f32,
    /// Size of the stomach's gas bubble; 0 for none.
    pub stomach: f32,
    /// Raised diaphragms.
    pub low_volumes: bool,
    /// Flat diaphragms and long lungs.
    pub hyperinflated: bool,
    pub tortuous_aorta: bool,
}

/// A draw around `mean`, cut at two and a half deviations.
pub fn around(random: &mut impl Rng, mean: f32, deviation: f32) -> f32 {
    let value = Normal::new(mean, deviation).expect("finite").sample(random);
    value.clamp(mean - 2.5 * deviation, mean + 2.5 * deviation)
}

impl Anatomy {
    /// The anatomy of a patient at one study: `own` draws what stays with the patient, `now` what changes.
    pub fn random(
        patient: &Patient,
        portable: bool,
        findings: &[Finding],
        own: &mut impl Rng,
        now: &mut impl Rng,
    ) -> Self {
        let old = (patient.age - 50.0) / 40.0;
        let habitus = around(own, 0.0, 1.0);
        let tall = around(own, 0.0, 1.0);
        let hyperinflated = own.random_bool(if patient.age > 55.0 { 0.14 } else { 0.03 });
        let low_volumes = !hyperinflated && now.random_bool(if portable { 0.3 } else { 0.08 });
        let tortuous_aorta = own.random_bool(if patient.age > 65.0 { 0.3 } else { 0.03 });
        let inspiration =
            around(now, 0.0, 0.05) + if low_volumes { -0.27 } else { 0.0 } + if hyperinflated { 0.14 } else { 0.0 };
        let turn = around(now, 0.0, if portable { 0.035 } else { 0.015 });
        let dome = 1.38 + 0.05 * tall - 0.03 * habitus + inspiration;
        let sulcus = (around(own, 0.25, 0.04) + if hyperinflated { -0.1 } else { 0.0 }).max(0.09);
        let medial = around(own, 0.16, 0.026);
        let lung = |random: &mut _, lower: f32, sign: f32| Lung {
            apex: around(random, 0.0, 0.02),
            width: around(random, 0.95, 0.02),
            dome: dome + lower + around(random, 0.0, 0.02),
            sulcus,
            medial: medial + sign * turn * 0.5,
        };
        let lungs = [lung(now, -0.02, -1.0), lung(now, 0.045, 1.0)];
        let female = patient.sex == Sex::Female;
        let breast = if female { around(own, 0.75 + 0.15 * habitus, 0.3).max(0.15) } else { (0.12 * habitus).max(0.0) };
        let mut anatomy = Self {
            lungs,
            heart_ratio: around(own, 0.44, 0.042) + 0.012 * old + if portable { 0.02 } else { 0.0 }
                - 0.09 * inspiration,
            heart_lean: around(own, 0.0, 0.5),
            aortic_knob: around(own, 0.1, 0.012) + 0.015 * old + if tortuous_aorta { 0.05 } else { 0.0 },
            turn,
            spine_bend: around(own, 0.0, 0.02),
            wall: (0.16 + 0.07 * habitus + if female { -0.02 } else { 0.0 }).max(0.05),
            thickness: 1.0 + 0.07 * habitus,
            breast,
            breast_height: around(own, 0.95, 0.08) + 0.06 * old,
            arm: around(now, 0.35, 0.22),
            bone: around(own, 0.9, 0.17) * if female { 0.9 } else { 1.0 } - 0.12 * old,
            rib_slope: around(own, 1.0, 0.14),
            rib_start: around(own, 0.0, 0.03),
            rib_spacing: around(own, 0.148, 0.009) + 0.02 * inspiration,
            clavicle: around(now, 0.0, 0.05) - if portable { 0.05 } else { 0.0 },
            vessels: around(own, 1.05, 0.3),
            aeration: around(now, 0.97, 0.07),
            stomach: if now.random_bool(0.5) { around(now, 0.16, 0.05).max(0.06) } else { 0.0 },
            low_volumes,
            hyperinflated,
            tortuous_aorta,
        };
        for finding in findings {
            anatomy.bend(finding);
        }
        anatomy
    }

    /// Changes the outlines by those findings that do.
    fn bend(&mut self, finding: &Finding) {
        let severity = finding.severity;
        match finding.kind {
            Kind::Cardiomegaly => {
                self.heart_ratio = 0.495 + 0.18 * severity + 0.6 * (self.heart_ratio - 0.45);
            }
            Kind::EnlargedCardiomediastinum => {
                self.lungs.iter_mut().for_each(|lung| lung.medial += 0.035 + 0.12 * severity);
                self.aortic_knob += 0.04 * severity;
            }
            Kind::Atelectasis if finding.variant => {
                for &sign in finding.side.signs() {
                    self.lungs[usize::from(sign > 0.0)].dome -= 0.06 + 0.24 * severity;
                }
            }
            Kind::Edema => self.vessels *= 1.0 + 0.45 * severity,
            Kind::SupportDevices if finding.device == Some(Device::EndotrachealTube) => {
                self.clavicle -= 0.02;
            }
            _ => {}
        }
    }

    /// The lung at this sign of x.
    pub fn lung(&self, sign: f32) -> &Lung {
        &self.lungs[usize::from(sign > 0.0)]
    }

    /// The sideways place of the spine at a height.
    pub fn midline(&self, y: f32) -> f32 {
        self.spine_bend * (y * 2.4).sin()
    }

    /// Height of the carina.
    pub fn carina(&self) -> f32 {
        self.lungs[0].height(0.4)
    }

    /// The hilum at this sign of x; the left one is a little higher.
    pub fn hilum(&self, sign: f32) -> Point {
        let lung = self.lung(sign);
        (sign * (lung.medial + 0.09) + self.turn, lung.height(if sign > 0.0 { 0.46 } else { 0.5 }))
    }

    /// A place in a lung: `out` runs from the mediastinum, 0, to the chest wall, 1.
    pub fn place(&self, sign: f32, height: f32, out: f32) -> Point {
        let lung = self.lung(sign);
        let y = lung.height(height);
        let medial = lung.mediastinal(y).max(if sign > 0.0 { 0.34 * smooth((height - 0.4) / 0.4) } else { 0.0 });
        (sign * (medial + out * (lung.lateral(y) - medial)), y)
    }

    /// Distance of a point to the nearest edge of its lung, negative outside of it.
    pub fn depth(&self, (x, y): Point) -> f32 {
        let lung = self.lung(x);
        if y <= lung.apex {
            return -1.0;
        }
        let mediastinal = lung.mediastinal(y) + if x > 0.0 { self.turn } else { -self.turn };
        (lung.lateral(y) - x.abs()).min(x.abs() - mediastinal).min(lung.diaphragm(x.abs()) - y)
    }

    /// Share of the heart and great vessels at a point, 0 to 1.
    pub fn heart(&self, (x, y): Point) -> f32 {
        let total = self.heart_ratio * 2.0 * 0.95;
        let x = x - self.turn - 0.05 * self.heart_lean * total;
        let base = self.lungs[1].dome + 0.06;
        let edge = 0.022;
        let mut open = 1.0;
        let mut part = |center: Point, radii: (f32, f32), angle: f32| {
            let (sin, cos) = angle.sin_cos();
            let (u, v) = (x - center.0, y - center.1);
            let (u, v) = ((u * cos + v * sin) / radii.0, (v * cos - u * sin) / radii.1);
            let distance = (u * u + v * v).sqrt();
            open *= 1.0 - smooth((1.0 - distance) * radii.0.min(radii.1) / edge + 0.5);
        };
        // The left ventricle, the right atrium, the outflow and the pulmonary trunk, the aortic knob, the upper cava.
        part((0.2 * total, base - 0.2 - 0.12 * total), (0.50 * total, 0.36 * total), 0.62);
        part((-0.1 * total, base - 0.2 - 0.1 * total), (0.27 * total, 0.36 * total + 0.05), 0.0);
        part((0.08 * total, base - 0.36 - 0.3 * total), (0.22 * total + 0.02, 0.26), -0.35);
        part((0.115, self.carina() + 0.04), (0.115, 0.12), 0.3);
        part((self.aortic_knob * 0.95 + 0.02, self.carina() - 0.16), (self.aortic_knob, self.aortic_knob * 1.1), 0.0);
        part((-0.11, self.carina() - 0.1), (0.08, 0.4), 0.0);
        1.0 - open
    }

    /// Course of a posterior rib from the spine, t = 0, to the chest wall, t = 1.
    pub fn rib(&self, sign: f32, number: usize, t: f32) -> Point {
        let lung = self.lung(sign);
        let start = self.rib_start - 0.02 + number as f32 * self.rib_spacing;
        let fall = self.rib_slope * (0.16 + 0.012 * number as f32);
        let y = start - 0.05 * (t * std::f32::consts::PI).sin() + fall * t * t;
        let reach = lung.lateral((start + fall).max(lung.apex + 0.1)) + 0.03;
        let across = 0.09 + (reach - 0.09) * (t * std::f32::consts::FRAC_PI_2).sin();
        (sign * across + self.midline(y), y)
    }

    /// Course of an anterior rib from the chest wall, t = 0, to its cartilage, t = 1.
    pub fn anterior_rib(&self, sign: f32, number: usize, t: f32) -> Point {
        let (x, y) = self.rib(sign, number, 1.0);
        let inner = 0.36 + 0.02 * number as f32;
        let across = x.abs() - (x.abs() - inner) * (1.0 - (1.0 - t).powi(2));
        (sign * across + self.turn, y + self.rib_slope * (0.1 * t + 0.26 * t * t) + 0.03 * (t * 3.0).sin())
    }
}

/// Whether a side includes this sign of x.
pub fn on(side: Side, sign: f32) -> bool {
    side.signs().contains(&sign)
}
