//! What several processes cannot do, each with one clear error.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use helpers::{args, folder, ok, text};
use training::{dataset, pretraining};

use crate::launch::{free_port, rank, ranks};

fn errors(arguments: &[Vec<OsString>]) -> Vec<String> {
    let outputs = ranks(arguments);
    for output in &outputs {
        assert!(!output.status.success(), "{}", text(&output.stdout));
    }
    outputs.iter().map(|output| text(&output.stderr)).collect()
}

#[test]
fn processes_with_other_data_splits_or_settings_are_refused() {
    let temporary = folder();
    let (first, second) = (temporary.path().join("first"), temporary.path().join("second"));
    let data = dataset(&first, 12);
    let other = dataset(&second, 14);
    ok("dataset", args!["split", &data, "--name", "other", "--ratios", "100", "--seed", "9"]);
    let run = temporary.path().join("run");
    let arguments = |data: &Path, more: &[&str]| pretraining(data, &run, 4, more);

    for error in errors(&[arguments(&data, &[]), arguments(&other, &[])]) {
        assert!(error.contains("rank 1 (") && error.contains("has another dataset than rank 0"), "{error}");
    }
    let mut split = arguments(&data, &[]);
    let at = split.iter().position(|argument| argument == "main").expect("a split");
    split[at] = "other".into();
    for error in errors(&[arguments(&data, &[]), split]) {
        assert!(error.contains("has another split than rank 0") && error.contains("other, not main"), "{error}");
    }
    for error in errors(&[arguments(&data, &[]), arguments(&data, &["--seed", "1"])]) {
        assert!(error.contains("has another configuration than rank 0"), "{error}");
    }
    assert!(!run.exists(), "nothing was written");
}

#[test]
fn a_process_that_fails_before_it_joins_is_named_by_the_others() {
    let temporary = folder();
    let data = dataset(temporary.path(), 12);
    let run = temporary.path().join("run");
    let missing = temporary.path().join("missing");
    let [first, second] =
        errors(&[pretraining(&data, &run, 4, &[]), pretraining(&missing, &run, 4, &[])]).try_into().expect("two");
    assert!(second.contains("error: rank 1: ") && second.contains("missing"), "{second}");
    assert!(first.contains("rank 1 (") && first.contains(") failed: "), "{first}");
    assert!(!run.exists(), "nothing was written");
}

#[test]
fn the_main_process_alone_checks_the_run_and_tells_the_others() {
    let temporary = folder();
    let data = dataset(temporary.path(), 12);
    let run = temporary.path().join("run");
    fs::create_dir_all(&run).expect("a folder");
    fs::write(run.join("notes.txt"), "mine").expect("written");
    let arguments = pretraining(&data, &run, 4, &[]);
    let [first, second] = errors(&[arguments.clone(), arguments]).try_into().expect("two");
    assert!(first.contains("holds other files (notes.txt)"), "{first}");
    assert!(second.contains("rank 0 (") && second.contains("holds other files (notes.txt)"), "{second}");
    assert_eq!(fs::read_to_string(run.join("notes.txt")).expect("a file"), "mine");
}

#[test]
fn a_batch_must_be_divisible_and_other_commands_run_alone() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let run = temporary.path().join("run");
    let mut arguments = pretraining(&data, &run, 4, &[]);
    let at = arguments.iter().position(|argument| argument == "--batch-size").expect("a batch size");
    arguments[at + 1] = "7".into();
    for error in errors(&[arguments.clone(), arguments]) {
        assert!(error.contains("a batch of 7 records cannot be divided among 2 processes"), "{error}");
    }
    assert!(!run.exists(), "a run without a step is removed");

    let report =
        rank(0, 2, &free_port(), &args!["report", &run, "--out", run.join("page.html")]).output().expect("it starts");
    assert_eq!(report.status.code(), Some(2));
    assert!(text(&report.stderr).contains("only pretrain and finetune train in several processes"), "{report:?}");
}

#[test]
fn partial_variables_are_errors_that_name_them() {
    let temporary = folder();
    let data = dataset(temporary.path(), 12);
    let arguments = pretraining(&data, &temporary.path().join("run"), 4, &[]);
    for (variables, expected) in [
        (&[("RANK", "0")][..], "RANK is set, but WORLD_SIZE is not"),
        (&[("WORLD_SIZE", "2")], "WORLD_SIZE is set, but RANK is not"),
        (&[("RANK", "0"), ("WORLD_SIZE", "2")], "MASTER_ADDR is not"),
        (&[("RANK", "2"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "x"), ("MASTER_PORT", "1")], "rank 2 of 2 processes"),
    ] {
        let output =
            helpers::command("trainer").args(&arguments).envs(variables.iter().copied()).output().expect("it starts");
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    let outside = helpers::command("trainer")
        .args(pretraining(&data, &temporary.path().join("run"), 4, &["--set", "run.join_timeout=1"]))
        .envs([("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", &free_port())])
        .output()
        .expect("it starts");
    let error = text(&outside.stderr);
    assert!(error.contains("missing after 1 s (run.join_timeout): 1 of ranks 0 to 1"), "{error}");
    assert!(!temporary.path().join("run").exists(), "nothing was written");
}
