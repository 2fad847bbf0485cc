//! A run that an earlier build left goes on, and its weights give the same features.

use std::fs;

use arrow_array::{Array, FixedSizeListArray, Float32Array};
use helpers::{args, copy_folder, fails, folder, ok, tests_folder};
use serde_json::Value;
use training::{checkpoints, numbers};

/// How far losses and features may be from those of another machine, relative to their size.
const TOLERANCE: f64 = 1e-4;

#[test]
fn a_kept_run_continues_and_gives_the_same_features() {
    let temporary = folder();
    let kept = tests_folder().join("corpus/formats/version-2");
    copy_folder(&kept, temporary.path());
    let (data, run) = (temporary.path().join("data"), temporary.path().join("run"));
    let pretraining = |run: &std::path::Path, steps: &str| {
        let mut all =
            args!["pretrain", "--data", &data, "--run", run, "--preset", "mrm-vit-tiny", "--split", "main"].to_vec();
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
    };
    let before = fs::read(run.join("checkpoints/step-4/model.safetensors")).expect("weights");
    let log = numbers(&run);
    ok("trainer", pretraining(&run, "4"));
    assert_eq!(numbers(&run), log, "the run is complete: nothing is made anew");
    assert!(fs::read(run.join("latest/model.safetensors")).expect("weights") == before);

    // The features of the weights.
    let out = temporary.path().join("features.parquet");
    ok("trainer", args!["embed", "--data", &data, "--weights", &run, "--device", "cpu", "--out", &out]);
    let expected: Value = dataset::store::files::read_json(&kept.join("features.json")).expect("features");
    let batch = dataset::format::table::read_table(&out).expect("a table").remove(0);
    let features = batch.columns().iter().find_map(|column| column.as_any().downcast_ref::<FixedSizeListArray>());
    let features = features.expect("a column of features").values().clone();
    let features = features.as_any().downcast_ref::<Float32Array>().expect("floats").values().to_vec();
    let expected: Vec<f64> =
        expected.as_array().expect("a list").iter().map(|value| value.as_f64().expect("a float")).collect();
    let found: Vec<f64> = features.iter().take(expected.len()).map(|&value| value.into()).collect();
    let is_near = |(a, b): (&f64, &f64)| (a - b).abs() < TOLERANCE * (1.0 + b.abs());
    assert!(expected.len() == 32 && found.iter().zip(&expected).all(is_near), "{found:?}");

    // Two steps more, and the same four steps from the beginning.
    ok("trainer", pretraining(&run, "6"));
    assert_eq!(checkpoints(&run), ["step-4", "step-6"]);
    let again = temporary.path().join("again");
    ok("trainer", pretraining(&again, "4"));
    let loss = |line: &Value| line["loss"].as_f64().expect("a loss");
    assert!(numbers(&run).len() == 6 && numbers(&again).len() == 4);
    for (found, expected) in numbers(&again).iter().zip(&log) {
        assert!(is_near((&loss(found), &loss(expected))), "{found} and {expected}");
    }

    // A dataset of a version that this build does not know.
    let manifest = fs::read_to_string(data.join("dataset.json")).expect("a manifest");
    let newer = manifest.replacen("\"format_version\": 2", "\"format_version\": 3", 1);
    fs::write(data.join("dataset.json"), newer).expect("written");
    let message = fails("trainer", 1, pretraining(&run, "8"));
    assert!(
        message.contains("format version 3, this build reads versions 1 and 2; use the build that wrote it"),
        "{message}"
    );
}
