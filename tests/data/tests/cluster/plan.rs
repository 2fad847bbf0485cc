//! One task plans for all; another one takes over where it dies.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use helpers::{contents, text};

use crate::{Source, refused, start};

/// Waits for a condition.
fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_mins(3), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a task and stops its process while it plans.
fn stopped_planner(source: &Source, out: &Path, tasks: usize) -> Child {
    for _ in 0..20 {
        let mut task = source.task(out, 0, tasks);
        let mut planner = task.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        until("a claim", || out.join(".ingest/claim.json").exists() || out.join("dataset.json").exists());
        signal("-STOP", &planner);
        if out.join(".ingest/claim.json").exists() && !out.join(".ingest/plan.json").exists() {
            return planner;
        }
        // This test was interrupted for so long that the plan was made.
        planner.kill().expect("SIGKILL");
        planner.wait().expect("it ends");
        fs::remove_dir_all(out).expect("removed");
    }
    panic!("no planner is stopped in time");
}

fn signal(name: &str, child: &Child) {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill");
    assert!(sent.success());
}

#[test]
fn the_plan_is_made_once() {
    let source = Source::new(60);
    let out = source.out("set");
    source.run(&out, 2, 3);
    let (head, plan) = (out.join(".ingest/plan.json"), fs::metadata(out.join(".ingest/plan.json")).expect("a plan"));
    // The other tasks read neither tables nor the list of files.
    let tables: Vec<_> = contents(&source.raw).into_keys().filter(|name| name.ends_with(".csv.gz")).collect();
    assert!(tables.len() > 2, "{tables:?}");
    for name in &tables {
        fs::rename(source.raw.join(name), source.out("moved.").with_extension(name.replace('/', "-"))).expect("moved");
    }
    helpers::write_file(&source.raw.join("files/p10/stray.dcm"), "not in a table");
    let printed = text(&source.task(&out, 0, 3).output().expect("it starts").stderr);
    assert!(!printed.contains("planned"), "{printed}");
    assert_eq!(plan.modified().expect("a time"), fs::metadata(&head).expect("a plan").modified().expect("a time"));
    source.run(&out, 1, 3);
    source.is_at(&out);
}

#[test]
fn a_planner_that_died_is_replaced() {
    let source = Source::new(60);
    let out = source.out("set");
    let mut dead = stopped_planner(&source, &out, 3);
    dead.kill().expect("SIGKILL");
    dead.wait().expect("it ends");
    let status = helpers::ok("ingest", ["status".as_ref(), out.as_os_str()]);
    assert!(status.contains("the plan is being made on "), "{status}");
    let running: Vec<_> = [1, 2].map(|index| start(&mut source.task(&out, index, 3))).into();
    for mut child in running {
        assert!(child.wait().expect("it ends").success());
    }
    source.run(&out, 0, 3);
    source.is_at(&out);
}

#[test]
fn a_planner_that_stopped_and_goes_on_does_no_harm() {
    let source = Source::new(60);
    let out = source.out("set");
    let stopped = stopped_planner(&source, &out, 2);
    source.run(&out, 1, 2);
    signal("-CONT", &stopped);
    let output = stopped.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    source.is_at(&out);

    // One that goes on after the dataset is complete.
    let out = source.out("late");
    let stopped = stopped_planner(&source, &out, 1);
    source.run(&out, 0, 1);
    source.is_at(&out);
    signal("-CONT", &stopped);
    let output = stopped.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    source.is_at(&out);
}

#[test]
fn a_plan_that_cannot_be_made_leaves_nothing() {
    let source = Source::new(6);
    let table = source.raw.join("mimic-cxr-2.0.0-metadata.csv.gz");
    fs::remove_file(&table).expect("removed");
    let out = source.out("set");
    assert!(refused(&mut source.task(&out, 0, 2)).contains("no mimic-cxr-*-metadata.csv[.gz]"));
    assert!(!out.exists(), "no partial output");
    // Of several, each has the error.
    let running: Vec<_> = (0..3).map(|index| start(&mut source.task(&out, index, 3))).collect();
    for mut child in running {
        assert_eq!(child.wait().expect("it ends").code(), Some(1));
    }
    let left = if out.exists() { contents(&out).into_keys().collect() } else { Vec::new() };
    assert!(left.iter().all(|name| name == ".ingest/lock"), "{left:?}");
}

#[test]
fn a_damaged_plan_is_an_error() {
    let source = Source::new(60);
    let out = source.out("set");
    source.run(&out, 0, 2);
    let notes = out.join(".ingest");
    let records = contents(&notes).into_keys().find(|name| name.ends_with(".jsonl.gz")).expect("records");
    let damage = |path: &Path, byte: usize| helpers::flip_bit(path, byte, 3);
    damage(&notes.join(&records), fs::metadata(notes.join(&records)).expect("a file").len() as usize / 2);
    let message = refused(&mut source.task(&out, 1, 2));
    assert!(message.contains("the plan of the tasks is damaged"), "{message}");
    damage(&notes.join(&records), fs::metadata(notes.join(&records)).expect("a file").len() as usize / 2);
    let tokenizer = notes.join("tokenizer.json");
    damage(&tokenizer, 100);
    assert!(refused(&mut source.task(&out, 1, 2)).contains("this is not its tokenizer"));
    damage(&tokenizer, 100);
    helpers::edit(&notes.join("plan.json"), |text| text.truncate(100));
    assert!(refused(&mut source.task(&out, 1, 2)).contains("damaged"));
}
