//! Two writers of one place, on different machines: exactly one of them writes, and a killed one is in nobody's way for longer
//! than its user wants.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use helpers::object_store::{Store, fails, url};
use helpers::store_faults::{Disturbance, Disturbed, When};
use helpers::{args, command, contents, folder, ingest, ok, phantom, records, text, write_file};

/// Times that two processes begin at once.
const ROUNDS: usize = 12;

/// Whether a request may be disturbed, by its first line.
type Eligible = fn(&str) -> bool;

const LOCK: &str = ".ingest/store-lock.json";

/// Small settings, with many shards.
const SMALL: [&str; 8] = ["--size", "64", "--vocab-size", "400", "--rows-per-shard", "2", "--jobs", "1"];

/// A machine has a staging folder of its own.
fn run_of(raw: &Path, prefix: &str, machine: &Path, more: &[&str]) -> Vec<OsString> {
    let mut all = args!["mimic-cxr", raw, url(prefix), "--staging", machine.join("staging")].to_vec();
    all.extend(SMALL.iter().chain(more).map(Into::into));
    all
}

fn spawn(store: &Store, name: &str, arguments: &[OsString]) -> Child {
    let mut child = command(name);
    child.args(arguments).envs(store.settings()).stdout(Stdio::piped()).stderr(Stdio::piped());
    child.spawn().expect("the binary starts")
}

/// Runs two commands at once.
fn both(store: &Store, name: &str, commands: [Vec<OsString>; 2]) -> [Output; 2] {
    let running = commands.map(|arguments| spawn(store, name, &arguments));
    running.map(|child| child.wait_with_output().expect("it ends"))
}

/// Waits for an object, and kills a run then.
fn killed_when(store: &Store, prefix: &str, below: &str, arguments: &[OsString]) {
    let mut child = spawn(store, "ingest", arguments);
    let begun = Instant::now();
    while store.storage(prefix).list(below).expect("a listing").is_empty() {
        assert!(begun.elapsed() < Duration::from_mins(1), "nothing is uploaded");
        assert!(child.try_wait().expect("its state").is_none(), "it ended before it was killed");
    }
    child.kill().expect("SIGKILL");
    child.wait().expect("it ends");
}

/// A dataset of the raw directory in a folder, for its bytes.
fn local(raw: &Path, at: PathBuf, more: &[&str]) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut all = args!["mimic-cxr", raw, &at].to_vec();
    all.extend(SMALL.iter().chain(more).map(Into::into));
    ok("ingest", all);
    contents(&at)
}

#[test]
fn of_two_runs_that_begin_at_once_one_writes() {
    let (store, temporary) = (Store::atomic(), folder());
    let raw = phantom(temporary.path(), 8);
    let machines = ["a", "b"].map(|name| temporary.path().join(name));
    let options: [&[&str]; 2] = [&[], &["--intensity", "minmax"]];
    let whole = [0, 1].map(|at| local(&raw, temporary.path().join(format!("local-{at}")), options[at]));
    let (mut locked, mut won) = (0, [0, 0]);
    for round in 0..ROUNDS {
        let prefix = format!("set-{round}");
        let outputs = both(&store, "ingest", [0, 1].map(|at| run_of(&raw, &prefix, &machines[at], options[at])));
        let messages = outputs.each_ref().map(|output| text(&output.stderr));
        let winners: Vec<usize> = (0..2).filter(|&at| outputs[at].status.success()).collect();
        assert_eq!(winners.len(), 1, "round {round}: {messages:?}");
        won[winners[0]] += 1;
        let refusal = &messages[1 - winners[0]];
        locked += usize::from(refusal.contains("another ingest is writing to it"));
        let known = ["another ingest is writing to it", "unfinished dataset", "holds another dataset"];
        assert!(known.iter().any(|words| refusal.contains(words)), "round {round}: {refusal}");
        assert!(store.objects(&prefix) == whole[winners[0]], "round {round}: {:?}", store.objects(&prefix).keys());
        assert!(machines.iter().all(|machine| contents(machine).is_empty()), "round {round}");
    }
    eprintln!("{locked} of {ROUNDS} were refused by the lock; {won:?} won");
    assert!(locked > 0);

    // With `--overwrite` one after the other may write, but never both at once.
    for round in 0..ROUNDS / 2 {
        let overwriting = |at: usize| {
            let more = [options[at], &["--overwrite"]].concat();
            run_of(&raw, "set-0", &machines[at], &more)
        };
        let outputs = both(&store, "ingest", [overwriting(0), overwriting(1)]);
        assert!(outputs.iter().any(|output| output.status.success()), "round {round}: {outputs:?}");
        for output in outputs.iter().filter(|output| !output.status.success()) {
            assert!(text(&output.stderr).contains("another ingest is writing to it"), "{}", text(&output.stderr));
        }
        let found = store.objects("set-0");
        assert!(whole.contains(&found), "round {round}: {:?}", found.keys());
    }
}

#[test]
fn the_lock_of_a_killed_run_is_taken_by_the_same_machine_or_broken_by_hand() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 24);
    let [here, there] = ["here", "there"].map(|name| temporary.path().join(name));
    let whole = local(&raw, temporary.path().join("local"), &[]);
    killed_when(&store, "set", "shards", &run_of(&raw, "set", &here, &[]));
    assert!(store.objects("set").contains_key(LOCK));
    // Another machine has no notes of it, and may not replace it.
    store.fails("ingest", &run_of(&raw, "set", &there, &[]), &["s3://radiographs/set", "unfinished", "--overwrite"]);
    let overwriting = run_of(&raw, "set", &there, &["--overwrite"]);
    store.fails("ingest", &overwriting, &["s3://radiographs/set", "process", "--break-lock"]);
    let begun = store.objects("set");
    assert!(begun.contains_key(LOCK) && begun.len() > 1 && contents(&there).is_empty(), "{:?}", begun.keys());
    // Nor may a task.
    let task = run_of(&raw, "set", &there, &["--task", "0/2"]);
    assert!(!store.run("ingest", &task).status.success() && begun == store.objects("set"));
    // The same machine goes on.
    assert!(store.ok("ingest", &run_of(&raw, "set", &here, &[])).contains("continued after"));
    assert!(store.objects("set") == whole && contents(&here).is_empty());

    // A run that was killed before its first shard.
    killed_when(&store, "early", ".ingest", &run_of(&raw, "early", &here, &[]));
    store.fails("ingest", &run_of(&raw, "early", &there, &[]), &["another ingest is writing to it", "--break-lock"]);
    let task = run_of(&raw, "early", &there, &["--task", "0/1"]);
    store.fails("ingest", &task, &["another ingest is writing to it", "--break-lock"]);
    store.ok("ingest", &run_of(&raw, "early", &there, &["--break-lock", "--overwrite"]));
    assert!(store.objects("early") == whole && contents(&there).is_empty());
    // The first one does not go on where another run wrote the same meanwhile.
    store.ok("ingest", &run_of(&raw, "early", &here, &[]));
    assert!(store.objects("early") == whole && contents(&here).is_empty());
    // A task breaks a lock, too.
    killed_when(&store, "task", ".ingest", &run_of(&raw, "task", &here, &[]));
    store.ok("ingest", &run_of(&raw, "task", &there, &["--task", "0/1", "--break-lock"]));
    assert!(store.objects("task") == whole);
}

#[test]
fn a_run_whose_lock_was_taken_over_ends() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 60);
    let here = temporary.path().join("here");
    let owner = serde_json::json!({ "run": "of another machine", "host": "elsewhere", "process": 7, "since": 0 });
    for (round, taken) in [Some(owner.to_string()), None].into_iter().enumerate() {
        let prefix = format!("set-{round}");
        let child = spawn(&store, "ingest", &run_of(&raw, &prefix, &here, &[]));
        let storage = store.storage(&prefix);
        while storage.list("shards").expect("a listing").is_empty() {}
        match &taken {
            Some(owner) => storage.write(LOCK, owner.clone().into_bytes()).expect("written"),
            None => storage.remove(&[LOCK]).expect("removed"),
        }
        let output = child.wait_with_output().expect("it ends");
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        let words = if taken.is_some() { "process 7 on elsewhere" } else { "the lock of this run was removed" };
        assert!(message.contains(words) && message.contains("--break-lock"), "{message}");
        let found = store.objects(&prefix);
        assert!(!found.contains_key("dataset.json"), "{:?}", found.keys());
        assert_eq!(found.get(LOCK).map(|found| text(found)), taken, "the lock of another run stays");
        store.ok("ingest", &run_of(&raw, &prefix, &here, &["--break-lock"]));
        assert!(!store.objects(&prefix).contains_key(LOCK));
    }
}

#[test]
fn a_store_without_conditional_writes_is_used_when_its_user_says_so() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 6);
    let here = temporary.path().join("here");
    let whole = local(&raw, temporary.path().join("local"), &[]);
    let is_put = |line: &str| line.starts_with("PUT ");
    let is_lock = |line: &str| line.starts_with("PUT ") && line.contains("store-lock");
    let faults: [(Disturbance, Eligible); 2] =
        [(Disturbance::Unconditional, is_put), (Disturbance::Refusal(501, "NotImplemented"), is_lock)];
    for (round, (disturbance, eligible)) in faults.into_iter().enumerate() {
        let disturbed = Disturbed::of(&store, disturbance, When::From(1), eligible, ("set", "old"));
        let prefix = format!("set-{round}");
        let run = || {
            let mut run: Command = command("ingest");
            run.args(run_of(&raw, &prefix, &here, &[])).envs(disturbed.settings());
            run
        };
        fails(&mut run(), &["s3://radiographs/set", "no conditional writes", "AWS_CONDITIONAL_PUT=disabled"]);
        assert!(store.objects(&prefix).is_empty(), "{:?}", store.objects(&prefix).keys());
        if disturbance == Disturbance::Unconditional {
            let output = run().env("AWS_CONDITIONAL_PUT", "disabled").output().expect("the binary starts");
            assert!(output.status.success(), "{}", text(&output.stderr));
            assert!(store.objects(&prefix) == whole, "{:?}", store.objects(&prefix).keys());
        }
    }
}

#[test]
fn of_two_splits_or_joins_of_one_name_one_is_written() {
    let (store, temporary) = (Store::atomic(), folder());
    let raw = phantom(temporary.path(), 12);
    let here = temporary.path().join("here");
    store.ok("ingest", &run_of(&raw, "set", &here, &[]));
    let local = temporary.path().join("local");
    ingest("mimic-cxr", &raw, &local, &[]);
    let tables = [0, 1].map(|at| {
        let rows = records(&local).iter().map(|record| format!("{},{at}\n", record.image_id)).collect::<String>();
        let table = temporary.path().join(format!("table-{at}.csv"));
        write_file(&table, format!("id,Hernia\n{rows}"));
        table
    });
    let mut refused = 0;
    for round in 0..ROUNDS {
        let name = format!("n{round}");
        let split = |test: &str| args!["split", url("set"), "--name", &name, "--test", test].to_vec();
        let join = |at: usize| {
            let mut all = args!["join", url("set"), "--table", &tables[at], "--key", "id", "--as", "labels"].to_vec();
            all.extend(args!["--name", &name]);
            all
        };
        for (program, commands) in [("dataset", [split("0.2"), split("0.5")]), ("ingest", [join(0), join(1)])] {
            let outputs = both(&store, program, commands.clone());
            let messages = outputs.each_ref().map(|output| text(&output.stderr));
            let winners: Vec<usize> = (0..2).filter(|&at| outputs[at].status.success()).collect();
            assert_eq!(winners.len(), 1, "{program}, round {round}: {messages:?}");
            let refusal = &messages[1 - winners[0]];
            assert!(refusal.contains("exists") || refusal.contains("meanwhile"), "{program}, round {round}: {refusal}");
            refused += usize::from(refusal.contains("meanwhile") || refusal.contains("by a process that runs"));
            // What is there is that of the winner: its command has nothing to change.
            let before = store.objects("set");
            store.ok(program, &commands[winners[0]]);
            assert!(before == store.objects("set"), "{program}, round {round}");
        }
    }
    eprintln!("{refused} of {} were refused after both had begun", 2 * ROUNDS);
    assert!(store.ok("dataset", &args!["verify", url("set")]).contains("all whole"));
}
