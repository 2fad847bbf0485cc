//! Time of patient-level confidence intervals: 1,000 draws on 25,000 records of 14 findings.
//!
//! `cargo bench --workspace --bench bootstrap` prints the median seconds of three runs: all metrics of the ranking, decisions at a
//! threshold, and the groups of one column.

use std::time::Instant;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use trainer::eval::bootstrap::{Bootstrap, Predictions};
use trainer::eval::decisions::{Decisions, f1_threshold};
use trainer::eval::subgroups::{Grouping, by_group};

const RECORDS: usize = 25_000;
const FINDINGS: usize = 14;
const DRAWS: usize = 1_000;
const GROUPS: u32 = 5;

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
    let rows = |class: usize| (class..scores.len()).step_by(FINDINGS).map(|at| (scores[at], labels[at]));
    let thresholds: Vec<Option<f32>> = (0..FINDINGS).map(|class| f1_threshold(rows(class))).collect();

    println!("{DRAWS} draws, {RECORDS} records, {FINDINGS} findings:");
    measure("metrics of the ranking", || assert!(bootstrap.classes(predictions).mean.auroc.is_some()));
    measure("decisions at a threshold", || {
        let decide =
            |class: usize| Decisions::new(rows(class), thresholds[class].expect("a positive")).expect("numbers");
        let decisions: Vec<Decisions> = (0..FINDINGS).map(decide).collect();
        let of_draw = |weights: &[u32]| decisions.iter().map(|d| d.weighted(weights).scores().values()).collect();
        assert!(bootstrap.by_class(&patients, FINDINGS, of_draw).1[0].is_some());
    });
    let findings: Vec<String> = (0..FINDINGS).map(|class| format!("finding {class}")).collect();
    let grouping = Grouping {
        column: "site".to_owned(),
        groups: (0..GROUPS).map(|group| group.to_string()).collect(),
        of_row: patients.iter().map(|patient| patient % GROUPS).collect(),
        unstated: None,
    };
    measure(&format!("{GROUPS} groups of a column"), || {
        let column = by_group(&bootstrap, predictions, &findings, &thresholds, &grouping);
        assert!(column.mean.gap.f1.is_some());
    });
}

fn measure(name: &str, compute: impl Fn()) {
    let mut seconds: Vec<f64> = (0..3)
        .map(|_| {
            let started = Instant::now();
            compute();
            started.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_unstable_by(f64::total_cmp);
    println!("  {name}: {seconds:.2?} s, median {:.2} s", seconds[1]);
}
