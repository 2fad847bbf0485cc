//! Tasks that share nothing but an object store: each has a staging folder of its own.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use helpers::faults::{Call, EIO, Faults};
use helpers::object_store::{Store, url};
use helpers::{args, command, contents, text};
use rand::{Rng, SeedableRng};

use crate::{Source, refused, start, succeeds};

/// A task on a machine of its own.
fn on_machine(source: &Source, store: &Store, prefix: &str, machine: &Path, more: &[&str]) -> Command {
    let mut task = command("ingest");
    let arguments: Vec<OsString> = source.arguments(url(prefix), more);
    task.envs(store.settings()).args(arguments).arg("--staging").arg(machine.join("staging"));
    task
}

#[test]
fn tasks_make_the_same_objects() {
    let (source, store) = (Source::new(60), Store::start());
    let task = |prefix: &str, index: usize, tasks: usize| {
        let machine = source.out(&format!("machine-{index}"));
        on_machine(&source, &store, prefix, &machine, &["--task", &format!("{index}/{tasks}")])
    };
    // One after the other.
    for index in [2, 0, 1] {
        succeeds(&mut task("set", index, 3));
        if index == 0 {
            let status = store.ok("ingest", &args!["status", url("set")]);
            assert!(status.contains("3 of 5 shards done") && status.contains("not begun"), "{status}");
        }
    }
    assert!(store.objects("set") == source.whole, "{:?}", store.objects("set").keys());
    for index in 0..3 {
        assert!(
            contents(&source.out(&format!("machine-{index}"))).is_empty(),
            "nothing is left in the staging folders"
        );
    }
    assert!(succeeds(&mut task("set", 1, 3)).contains("nothing to do"));
    assert!(store.ok("ingest", &args!["status", url("set")]).contains("complete, "));
    assert!(store.objects("set") == source.whole);

    // At the same time, each twice.
    let running: Vec<_> = (0..2)
        .chain(0..2)
        .map(|index| task("twice", index, 2).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts"))
        .collect();
    for child in running {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert!(store.objects("twice") == source.whole, "{:?}", store.objects("twice").keys());

    // What tasks began, another machine completes alone.
    succeeds(&mut task("alone", 1, 3));
    let printed = succeeds(&mut on_machine(&source, &store, "alone", &source.out("other"), &[]));
    assert!(printed.contains("continued after 2 finished shards"), "{printed}");
    assert!(store.objects("alone") == source.whole);

    // Refusals.
    succeeds(&mut task("other", 1, 3));
    assert!(refused(&mut task("other", 1, 2)).contains("was begun with 3 tasks"));
    let before = store.objects("other");
    let mut finish = on_machine(&source, &store, "other", &source.out("other"), &["--finish"]);
    assert!(refused(&mut finish).contains("3 of 5 shards are missing: 0, 3 (task 0/3), 2 (task 2/3)"));
    assert!(before == store.objects("other"));
    succeeds(&mut on_machine(&source, &store, "other", &source.out("other"), &["--overwrite"]));
    assert!(store.objects("other") == source.whole);
    store.storage("mine").write("letter.txt", "no radiograph".as_bytes()).expect("written");
    assert!(refused(&mut task("mine", 0, 2)).contains("objects that are no part of a dataset"));
    store.storage("begun").write("shards/part-00000.parquet", "of another run".as_bytes()).expect("written");
    assert!(refused(&mut task("begun", 0, 2)).contains("that a run without --task began"));
}

#[test]
fn tasks_that_are_killed_make_the_same_objects() {
    const TASKS: usize = 2;
    let (source, store) = (Source::new(60), Store::start());
    let task = |index: usize| {
        let machine = source.out(&format!("machine-{index}"));
        on_machine(&source, &store, "set", &machine, &["--task", &format!("{index}/{TASKS}")])
    };
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    succeeds(&mut task(0));
    let staging = source.out("machine-1").join("staging");
    let has_begun = || {
        let folders = std::fs::read_dir(&staging).into_iter().flatten().flatten();
        folders.flat_map(|folder| std::fs::read_dir(folder.path()).into_iter().flatten()).flatten().count() > 0
    };
    let mut killed = 0;
    for attempt in 0..50 {
        let mut child = start(&mut task(1));
        while !has_begun() && child.try_wait().expect("a child").is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // The first kills come at once, so that there are some on any machine.
        std::thread::sleep(Duration::from_millis(random.random_range(0..=attempt) * 10));
        child.kill().expect("SIGKILL");
        killed += usize::from(!child.wait().expect("it ends").success());
        if killed == 8 || store.storage("set").read_if_there("dataset.json").expect("an answer").is_some() {
            break;
        }
    }
    assert!(killed > 0);
    succeeds(&mut task(1));
    assert!(store.objects("set") == source.whole, "{:?}", store.objects("set").keys());
    assert!(contents(&source.out("machine-1")).is_empty(), "the folders of killed tasks are removed");
}

#[test]
fn a_full_disk_of_one_machine_stops_its_task_alone() {
    let (source, store) = (Source::new(60), Store::start());
    let disk = source.out("small");
    std::fs::create_dir(&disk).expect("a folder");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=100k", "tmpfs"]).arg(&disk).status();
    if !mounted.is_ok_and(|status| status.success()) {
        assert!(!helpers::requires_cluster(), "mounting a small disk is not permitted");
        eprintln!("skipped: mounting a small disk is not permitted");
        return;
    }
    succeeds(&mut on_machine(&source, &store, "set", &source.out("large"), &["--task", "0/2"]));
    let output = on_machine(&source, &store, "set", &disk, &["--task", "1/2"]).output().expect("it starts");
    let status = store.ok("ingest", &args!["status", url("set")]);
    let left = contents(&disk);
    let unmounted = Command::new("umount").arg(&disk).status().is_ok_and(|status| status.success());
    let message = text(&output.stderr);
    assert!(output.status.code() == Some(1) && message.contains("No space left on device"), "{message}");
    assert!(status.contains("failed") && status.contains("No space left on device"), "{status}");
    assert!(unmounted && left.is_empty(), "{:?}", left.keys());
    succeeds(&mut on_machine(&source, &store, "set", &source.out("large"), &["--task", "1/2"]));
    assert!(store.objects("set") == source.whole);
}

#[test]
fn inputs_that_could_not_be_read_are_added_by_any_machine() {
    let (source, store) = (Source::new(40), Store::start());
    let Some(faults) = Faults::new(source.temporary.path()) else { return };
    let image = contents(&source.raw).into_keys().find(|name| name.ends_with(".dcm")).expect("an image");
    for index in 0..2 {
        let share = format!("{index}/2");
        let more = ["--task", &share, "--max-reject-rate", "1"];
        let mut task = on_machine(&source, &store, "set", &source.out("machine"), &more);
        faults.inject(&mut task, Call::Open, EIO, &[&image], None);
        succeeds(&mut task);
    }
    assert!(store.objects("set").contains_key(".ingest/plan.json"));
    let printed = succeeds(&mut on_machine(&source, &store, "set", &source.out("other"), &["--retry-rejects"]));
    assert!(printed.contains("continued after"), "{printed}");
    assert!(store.objects("set") == source.whole, "{:?}", store.objects("set").keys());
}
