//! `dataset doctor`: its measurements, what it says of a run, and its refusals.

use std::fs;

use dataset::format::record::ImageEncoding;
use helpers::{args, fails, folder, ingest, made_record, ok, phantom, write_dataset};
use serde_json::Value;

const QUICK: [&str; 8] = ["--size", "64", "--seconds", "0.05", "--threads", "2", "--batch-size", "8"];

#[test]
fn stages_are_measured_and_a_run_is_judged() {
    let temporary = folder();
    let (raw, out) = (phantom(temporary.path(), 12), temporary.path().join("set"));
    ingest("mimic-cxr", &raw, &out, &[]);
    let report = |more: &[&str]| -> Value {
        let mut all = args!["doctor", &out, "--json"].to_vec();
        all.extend(QUICK.iter().chain(more).map(Into::into));
        serde_json::from_str(&ok("dataset", all)).expect("JSON")
    };
    let plain = report(&[]);
    for key in ["sequential_megabytes_per_second", "random_images_per_second", "page_bytes"] {
        assert!(plain["disk"][key].as_f64() > Some(0.0), "{key}: {plain}");
    }
    assert_eq!(plain["disk"]["without_page_cache"], true);
    let stages =
        |report: &Value| ["read", "decode", "transform", "assembly"].map(|name| report["stages"][name].as_f64());
    assert!(stages(&plain).iter().all(|micros| *micros >= Some(0.0)), "{plain}");
    assert!(plain["stages"]["transform"].as_f64() > Some(1.0), "{plain}");
    assert!(plain["loader_images_per_second"].as_f64() > Some(0.0) && plain["training"].is_null(), "{plain}");
    // A slow augmentation makes the transform the limit.
    let blur = r#"[{"kind": "gaussian_blur", "sigma": [15, 15]}, {"kind": "gaussian_blur", "sigma": [15, 15]}]"#;
    let slow = report(&["--augment", blur]);
    assert!(slow["stages"]["transform"].as_f64() > plain["stages"]["transform"].as_f64(), "{slow}");

    // A run that hardly waits, and one that waits most of its time.
    let run = temporary.path().join("run");
    fs::create_dir(&run).expect("a folder");
    let log = |wait: f64| {
        let line = format!(
            "{{\"step\": 20, \"loss\": 1, \"step_s\": 10.0, \"step_records\": 8, \"loader_wait_s\": {wait}, \
             \"loader_ready\": 4, \"transfer_s\": 0.001}}\n"
        );
        fs::write(run.join("metrics.jsonl"), line).expect("written");
    };
    let with_run = ["--with-trainer", run.to_str().expect("a path")];
    log(0.01);
    assert_eq!(report(&with_run)["finding"]["limit"], "device");
    log(8.0);
    let waiting = report(&with_run);
    let limit = waiting["finding"]["limit"].as_str().expect("a limit");
    assert!(["storage", "read", "decode", "transform", "assembly"].contains(&limit), "{waiting}");
    assert!(waiting["finding"]["text"].as_str().expect("words").contains("waits 80% of its time"), "{waiting}");

    let mut all = args!["doctor", &out].to_vec();
    all.extend(QUICK.iter().chain(&with_run).map(Into::into));
    let table = ok("dataset", all.clone());
    let names: Vec<&str> = table.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["storage", "read", "decode", "transform", "assembly", "loader", "training", "limit"], "{table}");

    fs::write(run.join("metrics.jsonl"), "{\"step\": 1, \"loss\": 1}\n").expect("written");
    let refused = fails("dataset", 1, all);
    assert!(refused.contains("metrics.jsonl") && refused.contains("step_s"), "{refused}");
}

#[test]
fn a_dataset_without_images_is_refused() {
    let temporary = folder();
    write_dataset(temporary.path(), &["A"], ImageEncoding::Raw, &[vec![made_record(0, (0, 0), 1)]]);
    assert!(fails("dataset", 1, args!["doctor", temporary.path(), "--seconds", "0.01"]).contains("no images"));
}
