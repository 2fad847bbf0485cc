//! Short runs of `trainer`, for tests.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;
use trainer::train::run_dir::read_metrics;

use crate::{args, ingest, ok, phantom};

/// A model of a few thousand weights.
pub const MINIATURE: [&str; 14] = [
    "--set",
    "model.vit.image_size=32",
    "--set",
    "model.vit.width=32",
    "--set",
    "model.vit.depth=1",
    "--set",
    "model.decoder.width=32",
    "--set",
    "model.bert.hidden=32",
    "--set",
    "model.bert.layers=1",
    "--set",
    "run.log_every=1",
];

/// A small split dataset.
pub fn dataset(folder: &Path, studies: usize) -> PathBuf {
    let raw = phantom(folder, studies);
    let out = folder.join("set");
    ingest("mimic-cxr", &raw, &out, &[]);
    ok("dataset", args!["split", &out, "--name", "main", "--ratios", "50,100", "--validation", "0.2", "--test", "0.3"]);
    out
}

/// Arguments of a short pre-training.
pub fn pretraining(data: &Path, run: &Path, steps: u64, more: &[&str]) -> Vec<OsString> {
    let mut all = args![
        "pretrain",
        "--data",
        data,
        "--run",
        run,
        "--preset",
        "mrm-vit-tiny",
        "--split",
        "main",
        "--device",
        "cpu"
    ]
    .to_vec();
    all.extend(args!["--steps", steps.to_string(), "--batch-size", "8"]);
    all.extend(MINIATURE.iter().chain(more).map(Into::into));
    all
}

/// The log without what depends on the clock.
pub fn numbers(run: &Path) -> Vec<Value> {
    let mut lines = read_metrics(run).expect("metrics");
    for line in &mut lines {
        let line = line.as_object_mut().expect("an object");
        line.remove("images_per_second");
        line.remove("time");
    }
    lines
}

/// The newest weights of a run, as bytes.
pub fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("latest/model.safetensors")).expect("weights")
}

/// Waits until a run has logged so many updates.
pub fn wait_for(run: &Path, updates: usize) {
    let started = Instant::now();
    while read_metrics(run).map_or(0, |lines| lines.len()) < updates {
        assert!(started.elapsed() < Duration::from_mins(2), "the run makes no progress");
        std::thread::sleep(Duration::from_millis(5));
    }
}
