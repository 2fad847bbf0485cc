//! Runs that earlier builds left go on, and their weights give the same features.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use arrow_array::{Array, FixedSizeListArray, Float32Array};
use dataset::store::files::read_json;
use helpers::{args, copy_folder, fails, folder, ok, tests_folder};
use tempfile::TempDir;
use training::{checkpoints, numbers};

/// How far losses and features may be from those of another machine, relative to their size.
const TOLERANCE: f64 = 1e-4;

/// A small pre-training of a dataset in a folder.
fn pretraining(data: &Path, run: &Path, steps: &str) -> Vec<OsString> {
    let mut all =
        args!["pretrain", "--data", data, "--run", run, "--preset", "mrm-vit-tiny", "--split", "main"].to_vec();
    all.extend(args!["--device", "cpu", "--batch-size", "4", "--steps", steps]);
    for setting in [
        "model.vit.image_size=16",
        "model.vit.embed_dim=16",
        "model.vit.num_layers=1",
        "model.vit.num_heads=2",
        "model.vit.mlp_ratio=1",
        "model.decoder.embed_dim=16",
        "model.decoder.num_layers=1",
        "model.decoder.num_heads=2",
        "model.decoder.mlp_ratio=1",
        "model.bert.embed_dim=16",
        "model.bert.num_layers=1",
        "model.bert.num_heads=2",
        "model.bert.intermediate=16",
        "run.log_every=1",
    ] {
        all.extend(args!["--set", setting]);
    }
    all
}

/// A copy of a kept dataset in `data`, and of a kept run of four steps on it in `run`.
fn kept(data: &str, run: &str) -> TempDir {
    let (temporary, formats) = (folder(), tests_folder().join("corpus/formats"));
    copy_folder(&formats.join(data), &temporary.path().join("data"));
    copy_folder(&formats.join(run).join("run"), &temporary.path().join("run"));
    temporary
}

/// The features of the first two records.
fn features(data: &Path, run: &Path, out: &Path) -> Vec<f64> {
    ok("trainer", args!["embed", "--data", data, "--weights", run, "--device", "cpu", "--out", out]);
    let batch = dataset::format::table::read_table(out).expect("a table").remove(0);
    let found = batch.columns().iter().find_map(|column| column.as_any().downcast_ref::<FixedSizeListArray>());
    let values = found.expect("a column of features").values().clone();
    let values = values.as_any().downcast_ref::<Float32Array>().expect("floats").values().to_vec();
    values.into_iter().take(32).map(f64::from).collect()
}

fn is_near(found: f64, expected: f64) -> bool {
    (found - expected).abs() < TOLERANCE * (1.0 + expected.abs())
}

fn losses(run: &Path) -> Vec<f64> {
    numbers(run).iter().map(|line| line["loss"].as_f64().expect("a loss")).collect()
}

/// A kept run is complete, continues, and gives its features; the same steps from the beginning have its losses.
fn continues(data: &str, run: &str) {
    let temporary = kept(data, run);
    let path = |name: &str| temporary.path().join(name);
    let formats = tests_folder().join("corpus/formats");
    let (data, before) = (path("data"), losses(&path("run")));
    let weights = fs::read(path("run/checkpoints/step-4/model.safetensors")).expect("weights");
    ok("trainer", pretraining(&data, &path("run"), "4"));
    assert_eq!(losses(&path("run")), before, "the run is complete: nothing is made anew");
    assert!(fs::read(path("run/latest/model.safetensors")).expect("weights") == weights);

    let expected: Vec<f64> = read_json(&formats.join(run).join("features.json")).expect("features");
    let found = features(&data, &path("run"), &path("features.parquet"));
    assert_eq!(expected.len(), 32);
    assert!(found.iter().zip(&expected).all(|(a, b)| is_near(*a, *b)), "{found:?} and {expected:?}");

    ok("trainer", pretraining(&data, &path("run"), "6"));
    assert_eq!(checkpoints(&path("run")), ["step-4", "step-6"]);
    assert_eq!(losses(&path("run")).len(), 6);
    ok("trainer", pretraining(&data, &path("again"), "4"));
    let again = losses(&path("again"));
    assert_eq!(again.len(), 4);
    assert!(again.iter().zip(&before).all(|(a, b)| is_near(*a, *b)), "{again:?} and {before:?}");
}

#[test]
fn a_run_of_version_0_1_0_continues_and_gives_the_same_features() {
    continues("version-1", "version-1-run");
}

#[test]
fn a_run_on_format_version_2_continues_and_gives_the_same_features() {
    continues("version-2/data", "version-2");
}

#[test]
fn a_dataset_of_a_later_version_is_refused() {
    let temporary = kept("version-2/data", "version-2");
    let (data, run) = (temporary.path().join("data"), temporary.path().join("run"));
    let manifest = fs::read_to_string(data.join("dataset.json")).expect("a manifest");
    let newer = manifest.replacen("\"format_version\": 2", "\"format_version\": 3", 1);
    fs::write(data.join("dataset.json"), newer).expect("written");
    let message = fails("trainer", 1, pretraining(&data, &run, "8"));
    assert!(
        message.contains("format version 3, this build reads versions 1 and 2; use the build that wrote it"),
        "{message}"
    );
}
