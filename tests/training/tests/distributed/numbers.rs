//! Several processes compute what one does.

use std::ffi::OsString;
use std::path::Path;

use dataset::store::files::read_json;
use helpers::{args, folder, ingest, ok, phantom_of};
use serde_json::Value;
use trainer::train::logger::read_metrics;
use trainer::weights::source::read_weights;
use training::{dataset, finetuning, numbers, pretraining, weights};

use crate::launch::{ranks, succeeds, torchrun};

/// Relative error of the loss and of the norm of all gradients against one process with the same global batch. The sums are
/// the same in another order.
const TOLERANCE: f64 = 2e-5;

/// Loss and gradient norm of each step.
pub fn curve(run: &Path) -> Vec<(f64, f64)> {
    let lines = read_metrics(run).expect("metrics").lines;
    let pair = |line: &Value| Some((line.get("loss")?.as_f64()?, line.get("grad_norm")?.as_f64()?));
    lines.iter().filter_map(pair).collect()
}

pub fn assert_same(run: &Path, expected: &[(f64, f64)]) {
    let found = curve(run);
    assert_eq!(found.len(), expected.len());
    for (step, (a, b)) in found.iter().zip(expected).enumerate() {
        let error = ((a.0 - b.0) / b.0).abs().max(((a.1 - b.1) / b.1).abs());
        assert!(error < TOLERANCE, "{} step {step}: {a:?} for {b:?}", run.display());
    }
}

/// Settings without which two runs of one process would have other dropout than one of two.
const NO_DROPOUT: [&str; 4] = ["--set", "model.drop_path=0", "--set", "run.log_every=1"];

fn from_random(data: &Path, run: &Path, more: &[&str]) -> Vec<OsString> {
    let mut all = finetuning(data, run, Path::new("random"), &NO_DROPOUT);
    let init = all.iter().position(|argument| argument == "--init").expect("an initialization");
    all.drain(init..init + 2);
    all.extend(args![
        "--preset",
        "mrm-vit-tiny",
        "--set",
        "model.vit.image_size=32",
        "--set",
        "model.vit.embed_dim=32"
    ]);
    all.extend(more.iter().map(Into::into));
    all
}

#[test]
fn gradients_are_those_of_one_process_with_the_whole_batch() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let at = |name: &str| temporary.path().join(name);
    // Some labels of a record are blank: the mean over the known ones is that of the whole batch.
    let settings = ["--set", "optimizer.accumulation=2", "--set", "data.missing=ignore", "--set", "optimizer.clip=0.5"];
    ok("trainer", from_random(&data, &at("one"), &settings));
    let expected = curve(&at("one"));
    assert_eq!(expected.len(), 6);

    let two = from_random(&data, &at("two"), &settings);
    let Some(printed) = succeeds(torchrun(2, &[], &two)) else { return };
    assert!(printed.contains("on 2 processes, each on cpu with 1 thread"), "{printed}");
    assert_eq!(printed.matches("done: ").count(), 1, "one process prints: {printed}");
    assert_same(&at("two"), &expected);

    // The same again: the same bits; by one sum of all gradients: the same bits at two ranks.
    for (name, sync) in [("again", "buckets"), ("coalesced", "coalesced")] {
        let setting = format!("run.gradient_sync={sync}");
        let arguments = from_random(&data, &at(name), &[&settings[..], &["--set", &setting]].concat());
        let outputs = ranks(&[arguments.clone(), arguments]);
        assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
        assert_eq!(numbers(&at(name)), numbers(&at("two")), "{name}");
        assert!(weights(&at(name)) == weights(&at("two")), "{name}");
    }
}

/// Of a mixture, each process gets records of each dataset; the losses by dataset are over all of them.
#[test]
fn a_mixture_is_the_same_for_two_processes() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let other = temporary.path().join("other");
    ingest("chexpert", &phantom_of("chexpert", temporary.path(), 30), &other, &[]);
    ok("dataset", args!["split", &other, "--name", "main", "--ratios", "50,100"]);
    let at = |name: &str| temporary.path().join(name);
    let arguments = |run: &Path| {
        let mut all = from_random(&data, run, &["--set", "optimizer.accumulation=2"]);
        all.extend(args!["--data", &other]);
        all
    };
    ok("trainer", arguments(&at("one")));
    let outputs = ranks(&[arguments(&at("two")), arguments(&at("two"))]);
    assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
    assert_same(&at("two"), &curve(&at("one")));
    let of_datasets = |run: &Path| -> Vec<(String, f64)> {
        let lines = numbers(run);
        let all = lines.iter().filter_map(Value::as_object).flatten().filter(|(key, _)| key.contains('/'));
        all.map(|(key, value)| (key.clone(), value.as_f64().expect("a number"))).collect()
    };
    let (one, two) = (of_datasets(&at("one")), of_datasets(&at("two")));
    assert!(one.len() > 20 && one.len() == two.len(), "{one:?}");
    for ((key, a), (other, b)) in one.iter().zip(&two) {
        assert!(key == other && ((a - b) / a).abs() < 1e-4, "{key}: {a}, {other}: {b}");
    }
}

#[test]
fn processes_share_a_batch_that_they_cannot_divide_evenly() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let at = |name: &str| temporary.path().join(name);
    // The batch is larger than the training subset, so each step has all its records.
    let arguments = |run: &Path| {
        let mut all = from_random(&data, run, &["--set", "optimizer.batch_size=60"]);
        let at = all.iter().position(|argument| argument == "--batch-size").expect("a batch size");
        all.drain(at..at + 2);
        all
    };
    let printed = ok("trainer", arguments(&at("one")));
    let records = printed.lines().find_map(|line| line.split_once(" labeled records")).expect("a summary").0;
    let records: usize = records.parse().expect("a number");
    let expected = curve(&at("one"));
    for world_size in [2, 3] {
        if records.is_multiple_of(world_size) {
            continue;
        }
        let run = at(&world_size.to_string());
        let Some(printed) = succeeds(torchrun(world_size, &[], &arguments(&run))) else { return };
        assert!(printed.contains(&format!("on {world_size} processes")), "{printed}");
        assert_same(&run, &expected);
    }
    assert!(!records.is_multiple_of(6), "{records} records are divided evenly: choose another dataset");
}

#[test]
fn the_batch_norms_of_a_segmenter_are_over_all_processes() {
    let temporary = folder();
    let raw = phantom_of("siim", temporary.path(), 24);
    let data = temporary.path().join("set");
    ingest("siim", &raw, &data, &[]);
    ok("dataset", args!["split", &data, "--name", "main", "--ratios", "100"]);
    let at = |name: &str| temporary.path().join(name);
    let arguments = |run: &Path| -> Vec<OsString> {
        let mut all = args!["finetune", "--data", &data, "--run", run, "--task", "siim", "--split", "main"].to_vec();
        all.extend(args!["--preset", "mrm-vit-tiny", "--steps", "3", "--batch-size", "4", "--device", "cpu"]);
        let sizes =
            ["model.vit.image_size=32", "model.vit.embed_dim=32", "model.channels=8", "model.auxiliary_channels=8"];
        let settings = ["model.head=upernet", "model.dropout=0", "model.drop_path=0", "run.log_every=1"];
        all.extend(sizes.iter().chain(&settings).flat_map(|setting| args!["--set", setting]));
        all
    };
    ok("trainer", arguments(&at("one")));
    let outputs = ranks(&[arguments(&at("two")), arguments(&at("two"))]);
    assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
    assert_same(&at("two"), &curve(&at("one")));
    let statistics = |run: &Path| {
        let mut tensors = read_weights(&run.join("latest/model.safetensors")).expect("weights");
        tensors.retain(|(name, _)| name.contains("running_"));
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        tensors
    };
    let (one, two) = (statistics(&at("one")), statistics(&at("two")));
    assert!(!one.is_empty() && one.len() == two.len());
    for ((name, a), (_, b)) in one.iter().zip(&two) {
        let error = ((a - b).abs().max() / a.abs().max().clamp_min(1e-3)).double_value(&[]);
        assert!(error < 1e-3, "{name}: {error}");
    }
}

#[test]
fn pretraining_on_two_processes_learns_like_one() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let at = |name: &str| temporary.path().join(name);
    let settings = ["--set", "run.precision=bf16", "--set", "run.ema=0.9", "--set", "optimizer.accumulation=2"];
    ok("trainer", pretraining(&data, &at("one"), 40, &settings));
    let arguments = pretraining(&data, &at("two"), 40, &settings);
    let outputs = ranks(&[arguments.clone(), arguments]);
    assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
    // The processes draw other masks than one alone: the curves agree in the mean.
    let mean = |run: &Path, steps: std::ops::Range<usize>| {
        let curve = curve(run);
        curve[steps.clone()].iter().map(|(loss, _)| loss).sum::<f64>() / steps.len() as f64
    };
    for steps in [0..10, 30..40] {
        let (one, two) = (mean(&at("one"), steps.clone()), mean(&at("two"), steps.clone()));
        assert!((one - two).abs() / one < 0.05, "{steps:?}: {one} and {two}");
    }
    assert!(mean(&at("two"), 30..40) < 0.9 * mean(&at("two"), 0..10));
    let state: Value = read_json(&at("two").join("latest/state.json")).expect("a state");
    let alone: Value = read_json(&at("one").join("latest/state.json")).expect("a state");
    assert_eq!(state["loader"], alone["loader"], "the position does not depend on the number of processes");
    assert!(at("two").join("latest/ema.safetensors").is_file());
}

/// Every record is compared with those of all processes, and the gradients are those of one process with the whole batch.
#[test]
fn a_contrast_is_over_the_records_of_all_processes() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let at = |name: &str| temporary.path().join(name);
    // Without dropout, and with all patches: processes draw other random numbers than one alone.
    let plain = ["--set", "model.bert.dropout=0", "--set", "optimizer.accumulation=2", "--set", "model.mask_ratio=0"];
    for (name, more) in [
        ("clip", &["--set", "model.contrast.correlation=true"][..]),
        ("siglip", &["--set", "model.contrast.logit_bias=-2.0"][..]),
    ] {
        let objective = [&["--objective", name][..], &plain, more].concat();
        let one = at(&format!("{name}-one"));
        ok("trainer", pretraining(&data, &one, 6, &objective));
        let expected = curve(&one);
        assert!(expected.len() == 6 && expected.iter().all(|(loss, norm)| *loss > 0.1 && *norm > 0.01), "{expected:?}");
        for sync in ["buckets", "coalesced"] {
            let run = at(&format!("{name}-{sync}"));
            let setting = format!("run.gradient_sync={sync}");
            let arguments = pretraining(&data, &run, 6, &[&objective[..], &["--set", &setting]].concat());
            let outputs = ranks(&[arguments.clone(), arguments]);
            assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
            assert_same(&run, &expected);
        }
    }
}

/// Views, pairs of views and reports of both processes are those of one with the whole batch.
#[test]
fn several_views_are_those_of_all_processes() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let at = |name: &str| temporary.path().join(name);
    // Without dropout, and with all patches: processes draw other random numbers than one alone.
    let settings =
        ["--set", "model.bert.dropout=0", "--set", "model.mask_ratio=0", "--set", "model.reconstruct=report-only"];
    let objective = [&["--objective", "mvmae-v2t", "--set", "model.views.align_ramp=0"][..], &settings].concat();
    ok("trainer", pretraining(&data, &at("one"), 6, &objective));
    let expected = curve(&at("one"));
    assert!(expected.len() == 6 && expected.iter().all(|(loss, norm)| *loss > 0.1 && *norm > 0.01), "{expected:?}");
    let arguments = pretraining(&data, &at("two"), 6, &objective);
    let outputs = ranks(&[arguments.clone(), arguments]);
    assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
    assert_same(&at("two"), &expected);
}

#[test]
fn master_weights_do_not_change_the_numbers_of_two_processes() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let at = |name: &str| temporary.path().join(name);
    let settings = ["--set", "run.precision=bf16", "--set", "optimizer.accumulation=2", "--set", "optimizer.clip=1.0"];
    for (name, masters) in [("autocast", "false"), ("masters", "true")] {
        let setting = format!("run.master_weights={masters}");
        let arguments = pretraining(&data, &at(name), 5, &[&settings[..], &["--set", &setting]].concat());
        let outputs = ranks(&[arguments.clone(), arguments]);
        assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
    }
    assert_eq!(numbers(&at("masters")), numbers(&at("autocast")));
    assert!(weights(&at("masters")) == weights(&at("autocast")));
}

/// Mixup within a rank's share, weights of classes, and a range test, in two processes.
#[test]
fn two_processes_mix_their_shares_and_agree_on_a_learning_rate() {
    let temporary = folder();
    let data = dataset(temporary.path(), 80);
    let at = |name: &str| temporary.path().join(name);
    let more = [
        "--lr",
        "auto",
        "--set",
        "data.mixup=0.4",
        "--set",
        "optimizer.class_weights=balanced",
        "--set",
        "optimizer.label_smoothing=0.1",
    ];
    let mut curves = Vec::new();
    for name in ["mixed", "again"] {
        let arguments = from_random(&data, &at(name), &more);
        let outputs = ranks(&[arguments.clone(), arguments]);
        assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
        let printed = String::from_utf8_lossy(&outputs[0].stdout).into_owned();
        assert!(printed.contains(" from a range test: the smoothed loss falls fastest from "), "{printed}");
        curves.push(std::fs::read(at(name).join("lr-range-test.csv")).expect("a curve"));
    }
    assert!(curves[0] == curves[1], "the same curve");
    assert_eq!(numbers(&at("mixed")), numbers(&at("again")));
    assert!(weights(&at("mixed")) == weights(&at("again")));
    // Without mixup and dropout, two processes make the test of one.
    let plain = ["--lr", "auto"];
    ok("trainer", from_random(&data, &at("one"), &plain));
    let arguments = from_random(&data, &at("two"), &plain);
    let outputs = ranks(&[arguments.clone(), arguments]);
    assert!(outputs.iter().all(|output| output.status.success()), "{outputs:?}");
    let losses = |name: &str| -> Vec<f64> {
        let curve: Value = read_json(&at(name).join("lr-range-test.json")).expect("a curve");
        let points = curve["points"].as_array().expect("points").clone();
        points.iter().map(|point| point["loss"].as_f64().expect("a loss")).collect()
    };
    // Of these steps the learning rate is at most 3e-5: rounding does not grow.
    for (one, two) in losses("one").into_iter().zip(losses("two")).take(30) {
        assert!(((one - two) / one).abs() < 5.0 * TOLERANCE, "{one} and {two}");
    }
}
