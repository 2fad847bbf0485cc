//! Short runs of `trainer`, and golden numbers, for tests.

pub mod golden;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use helpers::{args, command, ingest, ok, phantom, tests_folder};
use serde_json::Value;
use trainer::train::logger::read_metrics;

/// A model of a few thousand weights.
pub const MINIATURE: [&str; 14] = [
    "--set",
    "model.vit.image_size=32",
    "--set",
    "model.vit.embed_dim=32",
    "--set",
    "model.vit.num_layers=1",
    "--set",
    "model.decoder.embed_dim=32",
    "--set",
    "model.bert.embed_dim=32",
    "--set",
    "model.bert.num_layers=1",
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

/// The log without the values that depend on the clock.
pub fn numbers(run: &Path) -> Vec<Value> {
    let mut lines = read_metrics(run).expect("metrics").lines;
    for line in &mut lines {
        let line = line.as_object_mut().expect("an object");
        for key in ["images_per_second", "step_s", "loader_wait_s", "loader_ready", "transfer_s"] {
            line.remove(key);
        }
        line.remove("time");
    }
    lines
}

/// The newest weights of a run, as bytes.
pub fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("latest/model.safetensors")).expect("weights")
}

/// Waits until a run has logged so many steps.
pub fn wait_for(run: &Path, steps: usize) {
    let started = Instant::now();
    while read_metrics(run).map_or(0, |metrics| metrics.lines.len()) < steps {
        assert!(started.elapsed() < Duration::from_mins(2), "the run makes no progress");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts `trainer`, and kills it once its run has logged so many steps.
///
/// # Panics
/// If it ends before.
pub fn kill_after(steps: usize, run: &Path, arguments: Vec<OsString>) {
    kill_once(|| wait_for(run, steps), arguments);
}

/// As [`kill_after`], once `reached` returns.
///
/// # Panics
/// If it ends before.
pub fn kill_once(reached: impl FnOnce(), arguments: Vec<OsString>) {
    let mut child =
        command("trainer").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    reached();
    child.kill().expect("SIGKILL");
    assert!(!child.wait().expect("it ends").success(), "the run ended before the kill");
}

/// Starts `trainer`, and asks it to stop once its run has logged so many steps.
pub fn stop_after(steps: usize, run: &Path, arguments: Vec<OsString>) -> Output {
    let mut stopped = command("trainer");
    stop_once(|| wait_for(run, steps), stopped.args(arguments))
}

/// As [`stop_after`], for any command, once `reached` returns.
pub fn stop_once(reached: impl FnOnce(), command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    reached();
    signal(child.id(), "TERM");
    child.wait_with_output().expect("it ends")
}

/// Sends a signal to a process.
pub fn signal(process: u32, name: &str) {
    let sent = Command::new("kill").args([format!("-{name}"), process.to_string()]).status().expect("kill");
    assert!(sent.success(), "kill -{name} {process}");
}

/// Names of the files in the folder of checkpoints.
pub fn checkpoints(run: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(run.join("checkpoints"))
        .expect("checkpoints")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Damages the stored image of a row. Returns the shard, and its bytes before that.
pub fn damage_image(data: &Path, row: usize) -> (PathBuf, Vec<u8>) {
    let opened = ::dataset::Dataset::open(data).expect("a dataset");
    let image = opened.record(row).expect("a record").image;
    for shard in &opened.manifest().shards {
        let path = data.join(&shard.path);
        let before = fs::read(&path).expect("a shard");
        if let Some(at) = before.windows(image.len()).position(|window| window == image) {
            let mut bytes = before.clone();
            // The length before the pixels.
            bytes[at - 1] ^= 1;
            fs::write(&path, bytes).expect("written");
            return (path, before);
        }
    }
    panic!("no shard holds row {row}");
}

/// A dataset, and a model pre-trained on it.
pub fn pretrained(folder: &Path, studies: usize) -> (PathBuf, PathBuf) {
    let data = dataset(folder, studies);
    let run = folder.join("runs/mrm");
    ok("trainer", pretraining(&data, &run, 4, &[]));
    (data, run)
}

pub fn finetuning(data: &Path, run: &Path, init: &Path, more: &[&str]) -> Vec<OsString> {
    let mut all = args!["finetune", "--data", data, "--run", run, "--init", init, "--split", "main"].to_vec();
    all.extend(args!["--task", "labels:Cardiomegaly,Edema", "--device", "cpu", "--steps", "6", "--batch-size", "8"]);
    all.extend(more.iter().map(Into::into));
    all
}

pub fn evaluate(data: &Path, run: &Path) -> Value {
    ok("trainer", args!["evaluate", "--data", data, "--run", run, "--split", "main", "--draws", "50"]);
    dataset::store::files::read_json(&run.join("evaluation-test.json")).expect("an evaluation")
}

/// A Python with torch, timm, transformers and what the notebooks need, that runs a script of `tests/python`; `None`, with a
/// line that says so, if `MRM_TORCH_PYTHON` is not set.
///
/// # Panics
/// With `MRM_REQUIRE_TEST_DATA=1` if it is not set.
pub fn torch_python(script: &str) -> Option<Command> {
    let Ok(python) = std::env::var("MRM_TORCH_PYTHON") else {
        assert!(std::env::var("MRM_REQUIRE_TEST_DATA").as_deref() != Ok("1"), "MRM_TORCH_PYTHON is not set");
        eprintln!("skipped: MRM_TORCH_PYTHON names no Python with torch, timm and transformers");
        return None;
    };
    let mut command = Command::new(python);
    command.arg("-B").arg(tests_folder().join("python").join(script));
    command.env("HF_HUB_OFFLINE", "1").env("OMP_NUM_THREADS", "1").env_remove("LIBTORCH");
    Some(command)
}
