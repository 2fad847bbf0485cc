//! The plan of a phantom set: patients, their studies and images, all from the seed, before a pixel is drawn.

use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::disease::{Device, Finding, Kind, weighted};
use crate::syndrome;

/// The patient's sex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sex {
    /// Female.
    Female,
    /// Male.
    Male,
}

impl Sex {
    /// The sex as DICOM and the tables spell it.
    pub fn letter(self) -> &'static str {
        if self == Self::Female { "F" } else { "M" }
    }
}

/// The projection of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Postero-anterior, standing.
    Pa,
    /// Antero-posterior, mostly in bed.
    Ap,
    /// From the side.
    Lateral,
}

impl View {
    /// The view as DICOM and the tables spell it.
    pub fn name(self) -> &'static str {
        match self {
            View::Pa => "PA",
            View::Ap => "AP",
            View::Lateral => "LATERAL",
        }
    }
}

/// The official subset of a patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subset {
    Train,
    Validate,
    Test,
}

impl Subset {
    /// The subset as the split tables spell it.
    pub fn name(self) -> &'static str {
        match self {
            Subset::Train => "train",
            Subset::Validate => "validate",
            Subset::Test => "test",
        }
    }
}

/// Of ten patients one is for validation and two for testing, spread evenly, so that a small set has all three subsets.
const SUBSETS: [Subset; 10] = {
    use Subset::{Test, Train, Validate};
    [Train, Train, Test, Train, Train, Validate, Train, Train, Test, Train]
};

/// A patient with all studies.
#[derive(Clone, Debug)]
pub struct Patient {
    /// Number from 0 on; the layouts derive their identifiers from it.
    pub index: usize,
    /// Sex; it is visible as breast shadows.
    pub sex: Sex,
    /// Age in years at the first study.
    pub age: f32,
    /// Official subset.
    pub subset: Subset,
    /// Seed of the anatomy that all studies share.
    pub seed: u64,
    /// Studies in the order of time.
    pub studies: Vec<Study>,
}

impl Patient {
    /// Whole years of age at one of the studies.
    pub fn age_at(&self, study: &Study) -> u32 {
        (self.age + study.day as f32 / 365.25) as u32
    }
}

/// One study.
#[derive(Clone, Debug)]
pub struct Study {
    /// Number from 0 on over the whole set.
    pub index: usize,
    /// Days since the patient's first study.
    pub day: u32,
    /// Time of the day in seconds.
    pub second: u32,
    /// The findings.
    pub findings: Vec<Finding>,
    /// Seed of the anatomy on this day.
    pub seed: u64,
    /// Images, the frontal one first.
    pub images: Vec<Image>,
    /// Seed of the report's wording.
    pub wording: u64,
}

impl Study {
    /// Whether it was taken in bed.
    pub fn portable(&self) -> bool {
        self.images[0].view == View::Ap
    }

    /// Whether a side view was taken.
    pub fn has_lateral(&self) -> bool {
        self.images.iter().any(|image| image.view == View::Lateral)
    }
}

/// One image.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// Projection.
    pub view: View,
    /// Height in pixels.
    pub rows: usize,
    /// Width in pixels.
    pub columns: usize,
    /// Seed of the positioning, the exposure and the noise.
    pub seed: u64,
    /// Random bits for identifiers.
    pub id: [u32; 5],
}

/// Width over height of the detectors.
const ASPECTS: [(f32, u32); 6] = [(0.8325, 6), (1.0, 3), (1.2, 4), (0.8203, 4), (1.0 / 0.8325, 2), (0.98, 2)];

/// Draws the plan of `studies` studies; a larger set begins with the smaller one of the same seed.
pub fn plan(studies: usize, seed: u64, size: usize) -> Vec<Patient> {
    let mut patients = Vec::new();
    let mut index = 0;
    while index < studies {
        let mut random = stream(seed, patients.len() as u64, true);
        let sex = if random.random_bool(0.48) { Sex::Female } else { Sex::Male };
        let age = random.random_range(20.0f32..91.0).max(random.random_range(20.0..91.0)).floor();
        let count = weighted(&mut random, &[(1usize, 5), (2, 3), (3, 2), (4, 1)]);
        let mut patient = Patient {
            index: patients.len(),
            sex,
            age,
            subset: SUBSETS[patients.len() % SUBSETS.len()],
            seed: random.next_u64(),
            studies: Vec::new(),
        };
        let mut day = 0;
        for _ in 0..count.min(studies - index) {
            let study = study(seed, index, day, size, patient.studies.last());
            day += weighted(&mut random, &[(1, 3), (4, 3), (35, 3), (240, 2)]) * random.random_range(1..4);
            patient.studies.push(study);
            index += 1;
        }
        patients.push(patient);
    }
    patients
}

/// The random numbers of one patient or one study: a stream of its own, independent of the thread that uses it.
fn stream(seed: u64, index: u64, patient: bool) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(index * 2 + u64::from(patient));
    random
}

fn study(seed: u64, index: usize, day: u32, size: usize, previous: Option<&Study>) -> Study {
    let mut random = stream(seed, index as u64, false);
    let mut findings = syndrome::findings(&mut random);
    if let Some(previous) = previous {
        keep_implants(&mut findings, &previous.findings);
    }
    let in_bed = findings
        .iter()
        .any(|f| matches!(f.device, Some(Device::EndotrachealTube | Device::ChestTube | Device::EntericTube)));
    let ill = findings.iter().filter(|f| f.severity > 0.3).count();
    let portable = in_bed || random.random_bool((0.2 + 0.14 * ill as f64).min(0.75));
    let frontal = if portable { View::Ap } else { View::Pa };
    let mut images = vec![image(frontal, size, &mut random)];
    if !portable && random.random_bool(0.3) {
        images.push(image(View::Lateral, size, &mut random));
    } else if random.random_bool(0.1) {
        images.push(image(frontal, size, &mut random));
    }
    Study {
        index,
        day,
        second: random.random_range(0..86_400),
        findings,
        seed: random.next_u64(),
        images,
        wording: random.next_u64(),
    }
}

/// Keeps pacemakers, ports and wires of the previous study.
fn keep_implants(findings: &mut Vec<Finding>, previous: &[Finding]) {
    let lasting = |f: &&Finding| matches!(f.device, Some(Device::Pacemaker | Device::SternalWires | Device::Port));
    for old in previous.iter().filter(lasting) {
        findings.retain(|f| f.device != old.device);
        findings.push(old.clone());
    }
    findings.sort_by_key(|f| (f.kind, f.device));
    debug_assert!(findings.iter().all(|f| (f.kind == Kind::SupportDevices) == f.device.is_some()));
}

fn image(view: View, size: usize, random: &mut ChaCha8Rng) -> Image {
    let aspect = if view == View::Lateral { 0.8325 } else { weighted(random, &ASPECTS) };
    let shorter =
        size as f32 * weighted(random, &[(0.9, 1), (1.0, 3), (1.08, 1), (1.15, 1)]) * random.random_range(0.98..1.02);
    let longer = shorter * if aspect < 1.0 { 1.0 / aspect } else { aspect };
    let (shorter, longer) = (shorter.round() as usize, longer.round() as usize);
    let (columns, rows) = if aspect < 1.0 { (shorter, longer) } else { (longer, shorter) };
    Image { view, rows, columns, seed: random.next_u64(), id: std::array::from_fn(|_| random.next_u32()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_plan_begins_with_the_smaller() {
        let (small, large) = (plan(20, 5, 64), plan(60, 5, 64));
        let studies = |plan: &[Patient]| plan.iter().flat_map(|p| p.studies.clone()).collect::<Vec<_>>();
        let (small, large) = (studies(&small), studies(&large));
        assert_eq!((small.len(), large.len()), (20, 60));
        for (a, b) in small.iter().zip(&large) {
            assert_eq!((a.seed, a.wording, a.images[0].id), (b.seed, b.wording, b.images[0].id));
        }
    }

    #[test]
    fn implants_are_kept() {
        for patient in plan(400, 1, 64) {
            for pair in patient.studies.windows(2) {
                let wires =
                    |s: &Study| s.findings.iter().find(|f| f.device == Some(Device::SternalWires)).map(|f| f.seed);
                assert!(wires(&pair[0]).is_none() || wires(&pair[0]) == wires(&pair[1]));
            }
        }
    }

    #[test]
    fn sizes_vary_around_the_nominal_one() {
        let plan = plan(200, 3, 100);
        let images: Vec<Image> = plan.iter().flat_map(|p| &p.studies).flat_map(|s| s.images.clone()).collect();
        assert!(images.iter().all(|i| (85..=125).contains(&i.rows.min(i.columns))));
        assert!(images.iter().any(|i| i.rows > i.columns) && images.iter().any(|i| i.rows < i.columns));
        assert!(images.iter().any(|i| i.view == View::Lateral));
    }
}
