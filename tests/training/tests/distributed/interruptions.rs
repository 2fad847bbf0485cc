//! Jobs that are stopped, killed and stuck.

use std::path::Path;
use std::process::{Command, Stdio};

use dataset::store::files::read_json;
use helpers::{folder, text};
use serde_json::Value;
use training::{checkpoints, dataset, numbers, pretraining, signal, wait_for, weights};

use crate::launch::{process_of_rank, rank, ranks, torchrun};

/// A run that does not end by itself within a test.
const LONG: u64 = 100_000;

fn step(run: &Path) -> u64 {
    let state: Value = read_json(&run.join("latest/state.json")).expect("a state");
    state["step"].as_u64().expect("a step")
}

fn piped(mut command: Command) -> std::process::Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

#[test]
fn torchrun_names_a_killed_process_and_its_steps_are_saved() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let run = temporary.path().join("run");
    let Some(command) = torchrun(2, &[], &pretraining(&data, &run, LONG, &[])) else { return };
    let agent = piped(command);
    wait_for(&run, 5);
    signal(process_of_rank(agent.id(), 1), "KILL");
    let output = agent.wait_with_output().expect("it ends");
    let error = text(&output.stderr);
    assert!(!output.status.success());
    assert!(error.contains("error: rank 0 (") && error.contains("ended without a message: it was killed"), "{error}");
    assert!(error.contains("Root Cause") && error.contains("rank      : 1 (local_rank: 1)"), "{error}");
    assert!(error.contains("saved a checkpoint after step") && step(&run) >= 5, "{error}");
}

#[test]
fn torchrun_restarts_from_the_checkpoint() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let (whole, killed) = (temporary.path().join("whole"), temporary.path().join("killed"));
    let steps = 150;
    let Some(command) = torchrun(2, &["--max-restarts", "1"], &pretraining(&data, &killed, steps, &[])) else { return };
    let agent = piped(command);
    wait_for(&killed, 5);
    signal(process_of_rank(agent.id(), 0), "KILL");
    let output = agent.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(step(&killed), steps);
    let arguments = pretraining(&data, &whole, steps, &[]);
    assert!(ranks(&[arguments.clone(), arguments]).iter().all(|output| output.status.success()));
    assert_eq!(numbers(&killed), numbers(&whole));
    assert!(weights(&killed) == weights(&whole));
}

#[test]
fn a_stopped_job_continues_with_another_number_of_processes() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let (whole, stopped) = (temporary.path().join("whole"), temporary.path().join("stopped"));
    let settings = ["--set", "optimizer.batch_size=12", "--set", "run.ema=0.5"];
    let arguments = |run: &Path, steps: u64| {
        let mut all = pretraining(&data, run, steps, &settings);
        let at = all.iter().position(|argument| argument == "--batch-size").expect("a batch size");
        all.drain(at..at + 2);
        all
    };
    // torchrun passes SIGTERM on: all processes leave after the same step.
    let Some(command) = torchrun(2, &[], &arguments(&stopped, LONG)) else { return };
    let agent = piped(command);
    wait_for(&stopped, 3);
    signal(agent.id(), "TERM");
    let printed = text(&agent.wait_with_output().expect("it ends").stdout);
    assert!(printed.contains("give the same command again to continue"), "{printed}");
    let first = step(&stopped);
    assert!(first >= 3);

    // Three processes; SIGUSR2 to one of them stops all, with the exit code that was asked for.
    let port = crate::launch::free_port();
    let mut own = arguments(&stopped, LONG);
    own.extend(["--stop-exit-code".into(), "75".into()]);
    let children: Vec<_> = (0..3).map(|number| rank(number, 3, &port, &own).spawn().expect("it starts")).collect();
    wait_for(&stopped, first as usize + 3);
    signal(children[2].id(), "USR2");
    for child in children {
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(75), "{}", text(&output.stderr));
    }
    let second = step(&stopped);
    assert!(second >= first + 3);

    // One process. The loader went on where it was: the log has every step once, with the epochs of a run of one process.
    let end = second + 3;
    helpers::ok("trainer", arguments(&stopped, end));
    helpers::ok("trainer", arguments(&whole, end));
    let epochs = |run: &Path| -> Vec<(Value, Value)> {
        numbers(run).into_iter().map(|line| (line["step"].clone(), line["epoch"].clone())).collect()
    };
    assert_eq!(epochs(&stopped), epochs(&whole));
    assert_eq!(checkpoints(&stopped).len(), 2);
}

#[test]
fn a_process_that_gives_no_sign_of_life_is_named() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let run = temporary.path().join("run");
    let arguments = pretraining(&data, &run, LONG, &[]);
    let port = crate::launch::free_port();
    let first = rank(0, 2, &port, &arguments).spawn().expect("it starts");
    let mut second = rank(1, 2, &port, &arguments).spawn().expect("it starts");
    wait_for(&run, 3);
    signal(second.id(), "STOP");
    let output = first.wait_with_output().expect("it ends");
    second.kill().expect("SIGKILL");
    second.wait().expect("it ends");
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("rank 1 (") && error.contains("has given no sign of life for"), "{error}");
}

#[test]
fn a_record_that_cannot_be_read_ends_the_job_and_is_named() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let run = temporary.path().join("run");
    // One of the batches of an epoch holds the damaged record, on one of the ranks.
    let split = dataset::Split::load(&dataset::Dataset::open(&data).expect("a dataset"), "main").expect("a split");
    let row = split.rows(dataset::Subset::Train, None)[5] as usize;
    let (shard, _) = training::damage_image(&data, row);
    let shard = shard.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
    let arguments = pretraining(&data, &run, LONG, &[]);
    let outputs = ranks(&[arguments.clone(), arguments.clone()]);
    let errors: Vec<String> = outputs.iter().map(|output| text(&output.stderr)).collect();
    assert!(outputs.iter().all(|output| output.status.code() == Some(1)), "{errors:?}");
    let is_named = |error: &String| error.contains(&shard) && error.contains("`image` is damaged");
    assert!(errors.iter().all(is_named), "both name the record: {errors:?}");
    assert_eq!(errors.iter().filter(|error| error.contains(") failed: shards/")).count(), 1, "{errors:?}");
}
