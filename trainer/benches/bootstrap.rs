//! Time of patient-level confidence intervals: 1,000 draws on 25,000 records of 14 findings, all metrics.
//!
//! `cargo bench --workspace --bench bootstrap` prints the seconds of five runs and their median.

use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use trainer::eval::bootstrap::{Bootstrap, Predictions};

const RECORDS: usize = 25_000;
const FINDINGS: usize = 14;
const DRAWS: usize = 1_000;

fn main() {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let (mut scores, mut labels) = (Vec::new(), Vec::new());
    for _ in 0..RECORDS * FINDINGS {
        let positive = random.random_bool(0.05);
        scores.push((random.random::<f32>() + if positive { 0.4 } else { 0.0 }) / 1.4);
        labels.push(Some(positive));
    }
    // One to five records per patient.
    let mut patients = Vec::new();
    for patient in 0_u32.. {
        patients.extend(std::iter::repeat_n(patient, random.random_range(1..=5)));
        if patients.len() >= RECORDS {
            break;
        }
    }
    patients.truncate(RECORDS);
    let predictions =
        Predictions { scores: &scores, labels: &labels, patients: &patients, classes: FINDINGS, specificity: 0.9 };
    let bootstrap = Bootstrap { draws: DRAWS, ..Bootstrap::default() };
    let mut seconds: Vec<f64> = (0..5)
        .map(|_| {
            let started = Instant::now();
            let intervals = bootstrap.classes(predictions);
            assert!(intervals.mean.auroc.is_some());
            started.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_unstable_by(f64::total_cmp);
    println!("{DRAWS} draws, {RECORDS} records, {FINDINGS} findings: {seconds:.2?} s, median {:.2} s", seconds[2]);
}
