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

/// A command of the trainer with a small vision transformer.
fn training(kind: &str, data: &Path, run: &Path, steps: u64, more: &[&str]) -> Vec<OsString> {
    let mut all = args![kind, "--data", data, "--run", run, "--preset", "mrm-vit-tiny", "--split", "main"].to_vec();
    all.extend(args!["--device", "cpu", "--batch-size", "4", "--steps", steps.to_string()]);
    let settings = [
        "model.vit.image_size=16",
        "model.vit.embed_dim=16",
        "model.vit.num_layers=1",
        "model.vit.num_heads=2",
        "model.vit.mlp_ratio=1",
        "run.log_every=1",
    ];
    all.extend(settings.iter().flat_map(|setting| args!["--set", setting]));
    all.extend(more.iter().map(OsString::from));
    all
}

/// A small pre-training.
fn pretraining(data: &Path, run: &Path, steps: u64) -> Vec<OsString> {
    let settings = [
        "model.decoder.embed_dim=16",
        "model.decoder.num_layers=1",
        "model.decoder.num_heads=2",
        "model.decoder.mlp_ratio=1",
        "model.bert.embed_dim=16",
        "model.bert.num_layers=1",
        "model.bert.num_heads=2",
        "model.bert.intermediate=16",
    ];
    training("pretrain", data, run, steps, &settings.map(|setting| ["--set", setting]).concat())
}

/// A small fine-tuning for two findings.
fn finetuning(data: &Path, run: &Path, steps: u64) -> Vec<OsString> {
    training("finetune", data, run, steps, &["--task", "labels:Cardiomegaly,Edema", "--set", "optimizer.lr=0.01"])
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
    numbers(run).iter().filter_map(|line| line["loss"].as_f64()).collect()
}

/// Records of a table of predictions, each with its scores for the two findings.
fn scores(table: &Path) -> Vec<(String, [f64; 2])> {
    let table = fs::read_to_string(table).expect("a table");
    let row = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        (cells[0].to_owned(), [cells[2], cells[4]].map(|score| score.parse().expect("a score")))
    };
    table.lines().skip(1).map(row).collect()
}

/// A kept run of a command is complete, continues, and gives its features; the same steps from the beginning have its losses.
fn continues(data: &str, run: &str, command: fn(&Path, &Path, u64) -> Vec<OsString>) {
    let temporary = kept(data, run);
    let path = |name: &str| temporary.path().join(name);
    let formats = tests_folder().join("corpus/formats");
    let (data, before) = (path("data"), losses(&path("run")));
    let weights = fs::read(path("run/checkpoints/step-4/model.safetensors")).expect("weights");
    ok("trainer", command(&data, &path("run"), 4));
    assert_eq!(losses(&path("run")), before, "the run is complete: nothing is made anew");
    assert!(fs::read(path("run/latest/model.safetensors")).expect("weights") == weights);

    let expected: Vec<f64> = read_json(&formats.join(run).join("features.json")).expect("features");
    let found = features(&data, &path("run"), &path("features.parquet"));
    assert_eq!(expected.len(), 32);
    assert!(found.iter().zip(&expected).all(|(a, b)| is_near(*a, *b)), "{found:?} and {expected:?}");

    ok("trainer", command(&data, &path("run"), 6));
    assert_eq!(checkpoints(&path("run")), ["step-4", "step-6"]);
    assert_eq!(losses(&path("run")).len(), 6);
    ok("trainer", command(&data, &path("again"), 4));
    let again = losses(&path("again"));
    assert_eq!(again.len(), 4);
    assert!(again.iter().zip(&before).all(|(a, b)| is_near(*a, *b)), "{again:?} and {before:?}");
}

#[test]
fn a_run_of_version_0_1_0_continues_and_gives_the_same_features() {
    continues("version-1", "version-1-run", pretraining);
}

#[test]
fn a_run_on_format_version_2_continues_and_gives_the_same_features() {
    continues("version-2/data", "version-2", pretraining);
}

/// Also from its best weights.
#[test]
fn a_fine_tuned_run_on_format_version_2_continues_and_gives_the_same_scores() {
    let temporary = kept("version-2/data", "version-2-finetuned");
    let (data, run) = (temporary.path().join("data"), temporary.path().join("run"));
    ok("trainer", args!["evaluate", "--data", data, "--run", &run, "--split", "main", "--subset", "train"]);
    let of = |folder: &Path| scores(&folder.join("predictions-train.csv"));
    let (found, expected) = (of(&run), of(&tests_folder().join("corpus/formats/version-2-finetuned")));
    assert_eq!(expected.len(), 22);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.0, expected.0);
        assert!(found.1.iter().zip(&expected.1).all(|(a, b)| is_near(*a, *b)), "{found:?} and {expected:?}");
    }
    continues("version-2/data", "version-2-finetuned", finetuning);
}

#[test]
fn a_dataset_of_a_later_version_is_refused() {
    let temporary = kept("version-2/data", "version-2");
    let (data, run) = (temporary.path().join("data"), temporary.path().join("run"));
    let manifest = fs::read_to_string(data.join("dataset.json")).expect("a manifest");
    let newer = manifest.replacen("\"format_version\": 2", "\"format_version\": 3", 1);
    fs::write(data.join("dataset.json"), newer).expect("written");
    let message = fails("trainer", 1, pretraining(&data, &run, 8));
    assert!(
        message.contains("format version 3, this build reads versions 1 and 2; use the build that wrote it"),
        "{message}"
    );
}
