//! The findings of a study: those of the CheXpert vocabulary with their side, place, size and severity. Image
//! and report are both made from these values, so the report can be read from the image.

use rand::Rng;

/// A finding of the CheXpert vocabulary (all but `No Finding`, which follows from the others).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Atelectasis,
    Cardiomegaly,
    Consolidation,
    Edema,
    EnlargedCardiomediastinum,
    Fracture,
    LungLesion,
    LungOpacity,
    PleuralEffusion,
    PleuralOther,
    Pneumonia,
    Pneumothorax,
    SupportDevices,
}

impl Kind {
    /// Every kind, in the order of the label tables.
    pub const ALL: [Kind; 13] = [
        Kind::Atelectasis,
        Kind::Cardiomegaly,
        Kind::Consolidation,
        Kind::Edema,
        Kind::EnlargedCardiomediastinum,
        Kind::Fracture,
        Kind::LungLesion,
        Kind::LungOpacity,
        Kind::PleuralEffusion,
        Kind::PleuralOther,
        Kind::Pneumonia,
        Kind::Pneumothorax,
        Kind::SupportDevices,
    ];

    /// The name in the label tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Atelectasis => "Atelectasis",
            Kind::Cardiomegaly => "Cardiomegaly",
            Kind::Consolidation => "Consolidation",
            Kind::Edema => "Edema",
            Kind::EnlargedCardiomediastinum => "Enlarged Cardiomediastinum",
            Kind::Fracture => "Fracture",
            Kind::LungLesion => "Lung Lesion",
            Kind::LungOpacity => "Lung Opacity",
            Kind::PleuralEffusion => "Pleural Effusion",
            Kind::PleuralOther => "Pleural Other",
            Kind::Pneumonia => "Pneumonia",
            Kind::Pneumothorax => "Pneumothorax",
            Kind::SupportDevices => "Support Devices",
        }
    }
}

/// The patient's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Right,
    Left,
    Both,
}

impl Side {
    /// The sides drawn, as signs of x: the patient's right is at negative x.
    pub fn signs(self) -> &'static [f32] {
        match self {
            Side::Right => &[-1.0],
            Side::Left => &[1.0],
            Side::Both => &[-1.0, 1.0],
        }
    }
}

/// The height in the lung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    Apex,
    Upper,
    Middle,
    Lower,
    Base,
}

impl Zone {
    /// The height as a part of the way from the apex to the dome of the diaphragm.
    pub fn height(self) -> f32 {
        match self {
            Zone::Apex => 0.08,
            Zone::Upper => 0.27,
            Zone::Middle => 0.52,
            Zone::Lower => 0.76,
            Zone::Base => 0.9,
        }
    }
}

/// A tube, line or implant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Device {
    Pacemaker,
    EndotrachealTube,
    CentralLine,
    Picc,
    EntericTube,
    ChestTube,
    SternalWires,
    Port,
}

/// Severity in the four degrees of the reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Degree {
    Subtle,
    Mild,
    Moderate,
    Severe,
}

/// One finding of a study.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// Where it is; `Both` for findings of the midline.
    pub side: Side,
    /// How high it is.
    pub zone: Zone,
    /// From 0, hardly visible, to 1.
    pub severity: f32,
    /// Size in centimeters where a report states one: a nodule's diameter, a tube's distance from the carina.
    pub centimeters: f32,
    /// How many: nodules, broken ribs, plates.
    pub count: usize,
    /// The device, for `SupportDevices`.
    pub device: Option<Device>,
    /// The other of the two forms a finding takes: plate or volume loss, cap or rim, acute or healed.
    pub variant: bool,
    /// Seed of the details that no report mentions.
    pub seed: u64,
}

impl Finding {
    /// A random finding of this kind.
    pub fn random(kind: Kind, random: &mut impl Rng) -> Self {
        let severity = severity(random);
        let side = match kind {
            Kind::Cardiomegaly | Kind::Edema | Kind::EnlargedCardiomediastinum => Side::Both,
            Kind::PleuralEffusion => weighted(random, &[(Side::Right, 4), (Side::Left, 4), (Side::Both, 4)]),
            Kind::Atelectasis => weighted(random, &[(Side::Right, 4), (Side::Left, 5), (Side::Both, 2)]),
            Kind::LungOpacity | Kind::PleuralOther => {
                weighted(random, &[(Side::Right, 5), (Side::Left, 5), (Side::Both, 2)])
            }
            _ => weighted(random, &[(Side::Right, 11), (Side::Left, 9)]),
        };
        let variant = random.random_bool(0.4);
        let zone = match kind {
            Kind::Atelectasis | Kind::PleuralEffusion => Zone::Base,
            Kind::Pneumothorax => Zone::Apex,
            Kind::PleuralOther if variant => Zone::Apex,
            Kind::PleuralOther => Zone::Middle,
            Kind::Consolidation | Kind::Pneumonia => {
                weighted(random, &[(Zone::Upper, 3), (Zone::Middle, 3), (Zone::Lower, 5)])
            }
            _ => weighted(random, &[(Zone::Upper, 3), (Zone::Middle, 3), (Zone::Lower, 3)]),
        };
        let (centimeters, count) = match kind {
            Kind::LungLesion => {
                let count = weighted(random, &[(1, 7), (2, 1), (4, 2)]);
                let size = 1.0 + 4.5 * severity * severity;
                ((size * 2.0).round() / 2.0, count)
            }
            Kind::Fracture => (0.0, if severity > 0.4 { random.random_range(2..=4) } else { 1 }),
            Kind::Atelectasis => (0.0, random.random_range(1..=3)),
            _ => (0.0, 1),
        };
        Self { kind, side, zone, severity, centimeters, count, device: None, variant, seed: random.random() }
    }

    /// A device; its side and variant follow the common practice.
    pub fn device(device: Device, random: &mut impl Rng) -> Self {
        let mut finding = Self::random(Kind::SupportDevices, random);
        finding.device = Some(device);
        finding.side = match device {
            Device::Pacemaker => weighted(random, &[(Side::Left, 5), (Side::Right, 1)]),
            Device::CentralLine | Device::Picc | Device::Port => weighted(random, &[(Side::Left, 2), (Side::Right, 3)]),
            Device::ChestTube => weighted(random, &[(Side::Left, 1), (Side::Right, 1)]),
            _ => Side::Both,
        };
        if device == Device::EndotrachealTube {
            finding.centimeters = random.random_range(4..=12) as f32 / 2.0;
        }
        finding
    }

    /// The severity in four steps.
    pub fn degree(&self) -> Degree {
        match self.severity {
            s if s < 0.25 => Degree::Subtle,
            s if s < 0.5 => Degree::Mild,
            s if s < 0.75 => Degree::Moderate,
            _ => Degree::Severe,
        }
    }
}

/// One in five is subtle; the rest spread evenly.
fn severity(random: &mut impl Rng) -> f32 {
    if random.random_bool(0.2) { random.random_range(0.05..0.25) } else { random.random_range(0.3..1.0) }
}

/// One of the values by weight.
pub fn weighted<T: Copy>(random: &mut impl Rng, values: &[(T, u32)]) -> T {
    let mut left = random.random_range(0..values.iter().map(|(_, weight)| weight).sum());
    for &(value, weight) in values {
        if left < weight {
            return value;
        }
        left -= weight;
    }
    unreachable!("the draw is below the sum of the weights")
}
