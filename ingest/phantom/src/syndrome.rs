//! Combinations of findings: diseases with several findings, and devices that go with them.

use rand::Rng;
use rand::seq::IndexedRandom;

use crate::disease::{Device, Finding, Kind, weighted};

/// The findings of a disease and their probabilities.
type Syndrome = &'static [(Kind, f64)];

/// Diseases with their weights.
const SYNDROMES: [(Syndrome, u32); 7] = [
    // Heart failure.
    (
        &[
            (Kind::Cardiomegaly, 0.85),
            (Kind::Edema, 0.8),
            (Kind::PleuralEffusion, 0.7),
            (Kind::Atelectasis, 0.25),
            (Kind::SupportDevices, 0.45),
        ],
        24,
    ),
    // Infection.
    (
        &[
            (Kind::Pneumonia, 0.82),
            (Kind::Consolidation, 0.52),
            (Kind::LungOpacity, 0.35),
            (Kind::PleuralEffusion, 0.25),
            (Kind::SupportDevices, 0.15),
        ],
        20,
    ),
    // Intensive care.
    (
        &[
            (Kind::SupportDevices, 0.95),
            (Kind::Atelectasis, 0.5),
            (Kind::PleuralEffusion, 0.4),
            (Kind::LungOpacity, 0.35),
            (Kind::Consolidation, 0.3),
            (Kind::Edema, 0.25),
            (Kind::EnlargedCardiomediastinum, 0.25),
            (Kind::Pneumothorax, 0.2),
        ],
        15,
    ),
    // Trauma.
    (
        &[
            (Kind::Fracture, 0.75),
            (Kind::Pneumothorax, 0.85),
            (Kind::Atelectasis, 0.3),
            (Kind::LungOpacity, 0.25),
            (Kind::SupportDevices, 0.4),
        ],
        15,
    ),
    // Malignancy.
    (
        &[
            (Kind::LungLesion, 0.95),
            (Kind::EnlargedCardiomediastinum, 0.35),
            (Kind::PleuralEffusion, 0.25),
            (Kind::PleuralOther, 0.25),
            (Kind::LungOpacity, 0.2),
            (Kind::SupportDevices, 0.25),
        ],
        16,
    ),
    // Old age and old disease.
    (
        &[
            (Kind::PleuralOther, 0.68),
            (Kind::Cardiomegaly, 0.45),
            (Kind::Atelectasis, 0.4),
            (Kind::EnlargedCardiomediastinum, 0.35),
            (Kind::Fracture, 0.35),
        ],
        16,
    ),
    // A single finding of any kind.
    (&[], 12),
];

/// Share of the studies without a finding.
const NORMAL: f64 = 0.35;

/// Share of the normal studies with a device.
const NORMAL_WITH_DEVICE: f64 = 0.1;

/// The findings of one study, in the order of `Kind`, each kind but devices at most once.
pub fn findings(random: &mut impl Rng) -> Vec<Finding> {
    let mut kinds = Vec::new();
    if random.random_bool(NORMAL) {
        if random.random_bool(NORMAL_WITH_DEVICE) {
            kinds.push(Kind::SupportDevices);
        }
    } else {
        let syndrome = weighted(random, &SYNDROMES);
        while kinds.iter().all(|&kind| kind == Kind::SupportDevices) {
            kinds = syndrome.iter().filter(|(_, chance)| random.random_bool(*chance)).map(|&(kind, _)| kind).collect();
            if syndrome.is_empty() || random.random_bool(0.12) {
                kinds.push(*Kind::ALL.choose(random).expect("there are kinds"));
            }
        }
    }
    kinds.sort_unstable();
    kinds.dedup();
    let mut findings: Vec<Finding> = Vec::new();
    for &kind in &kinds {
        if kind == Kind::SupportDevices {
            findings.extend(devices(&kinds, random).into_iter().map(|device| Finding::device(device, random)));
        } else {
            findings.push(Finding::random(kind, random));
        }
    }
    agree(&mut findings);
    findings
}

/// Devices that fit the other findings.
fn devices(kinds: &[Kind], random: &mut impl Rng) -> Vec<Device> {
    let has = |kind| kinds.contains(&kind);
    let mut devices = Vec::new();
    if has(Kind::Pneumothorax) && random.random_bool(0.6) {
        devices.push(Device::ChestTube);
    } else if has(Kind::Cardiomegaly) && random.random_bool(0.7) {
        devices.push(*[Device::Pacemaker, Device::SternalWires].choose(random).expect("two"));
    } else if has(Kind::LungLesion) && random.random_bool(0.7) {
        devices.push(Device::Port);
    }
    if devices.is_empty() || random.random_bool(0.4) {
        let choice = [
            (Device::EndotrachealTube, 4),
            (Device::CentralLine, 4),
            (Device::Picc, 4),
            (Device::Pacemaker, 4),
            (Device::SternalWires, 3),
            (Device::EntericTube, 1),
            (Device::Port, 1),
        ];
        let device = weighted(random, &choice);
        devices.push(device);
        if device == Device::EndotrachealTube && random.random_bool(0.7) {
            devices.push(Device::EntericTube);
        }
    }
    devices.sort_unstable();
    devices.dedup();
    devices
}

/// Puts findings of one cause on one side: a chest tube on the side of the air, the air on the side of broken ribs.
fn agree(findings: &mut [Finding]) {
    let side = |findings: &[Finding], kind| findings.iter().find(|f| f.kind == kind).map(|f| f.side);
    if let Some(broken) = side(findings, Kind::Fracture) {
        findings.iter_mut().filter(|f| f.kind == Kind::Pneumothorax).for_each(|f| f.side = broken);
    }
    if let Some(air) = side(findings, Kind::Pneumothorax) {
        findings.iter_mut().filter(|f| f.device == Some(Device::ChestTube)).for_each(|f| f.side = air);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn every_finding_is_common_enough_for_a_small_set() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let studies: Vec<_> = (0..4000).map(|_| findings(&mut random)).collect();
        for kind in Kind::ALL {
            let share = studies.iter().filter(|s| s.iter().any(|f| f.kind == kind)).count() as f64 / 4000.0;
            assert!((0.08..0.32).contains(&share), "{} in {share}", kind.name());
        }
        let normal = studies.iter().filter(|s| s.iter().all(|f| f.kind == Kind::SupportDevices)).count();
        assert!((0.32..0.38).contains(&(normal as f64 / 4000.0)));
    }

    #[test]
    fn the_chest_tube_is_on_the_side_of_the_air() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        for _ in 0..2000 {
            let study = findings(&mut random);
            let air = study.iter().find(|f| f.kind == Kind::Pneumothorax);
            let tube = study.iter().find(|f| f.device == Some(Device::ChestTube));
            if let (Some(air), Some(tube)) = (air, tube) {
                assert_eq!(air.side, tube.side);
            }
        }
    }
}
