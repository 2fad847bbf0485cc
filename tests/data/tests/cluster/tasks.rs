//! The same bytes for any number of tasks, in any order, however often each is run and killed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use helpers::faults::{Call, EIO, Faults};
use helpers::{SMALL, contents, fails, ok, text};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{Source, refused, start, succeeds};

#[test]
fn any_number_of_tasks_gives_the_same_bytes() {
    let source = Source::new(60);
    let mut random = ChaCha8Rng::seed_from_u64(1);
    // There are five shards.
    for tasks in [1, 2, 3, 5, 8] {
        let out = source.out(&format!("of-{tasks}"));
        let mut order: Vec<usize> = (0..tasks).chain(0..tasks).collect();
        order.shuffle(&mut random);
        for index in order {
            let printed = source.run(&out, index, tasks);
            assert!(printed.contains(" of 60 studies and ") || printed.contains(&format!("task {index}/{tasks}: ")));
        }
        source.is_at(&out);
    }
    // A run alone has nothing to do, nor has a task of another number.
    let out = source.out("of-3");
    assert!(ok("ingest", source.arguments(&out, &[])).contains("nothing to do"));
    assert!(source.run(&out, 6, 7).contains("nothing to do"));
    assert!(ok("ingest", source.arguments(&out, &["--finish"])).contains("nothing to do"));
    source.is_at(&out);
}

#[test]
fn tasks_that_run_at_the_same_time_give_the_same_bytes() {
    let source = Source::new(60);
    for (round, tasks) in [2, 4].into_iter().enumerate() {
        let out = source.out(&format!("round-{round}"));
        // Each task is started twice.
        let all = (0..tasks).chain(0..tasks);
        let running: Vec<_> = all
            .map(|index| {
                source
                    .task(&out, index, tasks)
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .expect("it starts")
            })
            .collect();
        for child in running {
            let output = child.wait_with_output().expect("it ends");
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
        // Of tasks that end at once, each may miss the last shard of the other only where a folder is seen with a delay.
        source.is_at(&out);
    }
}

#[test]
fn tasks_that_are_killed_again_and_again_give_the_same_bytes() {
    const TASKS: usize = 3;
    const KILLS: usize = 25;
    let source = Source::new(150);
    let begun = Instant::now();
    ok("ingest", source.arguments(source.out("timed"), &[]));
    let span = begun.elapsed();
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let mut killed = 0;
    for round in 0.. {
        let out = source.out(&format!("killed-{round}"));
        while !out.join("dataset.json").exists() {
            let mut running: Vec<_> = (0..TASKS).map(|index| start(&mut source.task(&out, index, TASKS))).collect();
            // The claim of a killed planner is waited for, so that no task is killed before there is a plan.
            while !out.join(".ingest/plan.json").exists() && running[0].try_wait().expect("a child").is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            running.shuffle(&mut random);
            for mut child in running {
                std::thread::sleep(span.mul_f64(random.random_range(0.0..0.15)));
                child.kill().expect("SIGKILL");
                killed += usize::from(!child.wait().expect("it ends").success());
            }
        }
        // One may have been killed after it wrote the manifest and before it removed the notes.
        source.run(&out, 0, TASKS);
        source.is_at(&out);
        if killed >= KILLS {
            break;
        }
    }
}

/// Makes all shards, and leaves the dataset without a manifest, as where the last task does not see the note of another one.
fn unfinished(source: &Source, out: &Path) {
    source.run(out, 0, 2);
    let (note, hidden) = (out.join(".ingest/part-00002.json"), out.join("hidden.json"));
    fs::rename(&note, &hidden).expect("hidden");
    let printed = source.run(out, 1, 2);
    assert!(printed.contains("task 1/2: 2 shards done; 1 of 5 shards of the dataset missing"), "{printed}");
    fs::rename(&hidden, &note).expect("visible");
}

#[test]
fn finish_completes_what_no_task_completed() {
    let source = Source::new(60);
    let out = source.out("set");
    let finish = |out: &Path| {
        let mut finish = Command::new(helpers::binary("ingest"));
        finish.args(source.arguments(out, &["--finish"]));
        finish
    };
    assert!(refused(&mut finish(&out)).contains("no tasks have begun a dataset here"));
    source.run(&out, 1, 3);
    let message = refused(&mut finish(&out));
    assert!(
        message.contains("3 of 5 shards are missing: 0, 3 (task 0/3), 2 (task 2/3); run these tasks again"),
        "{message}"
    );
    fs::remove_dir_all(&out).expect("removed");

    unfinished(&source, &out);
    let status = ok("ingest", ["status".as_ref(), out.as_os_str()]);
    assert!(status.contains("5 of 5 shards done") && status.contains("--finish writes the manifest"), "{status}");
    // Several at once.
    let running: Vec<_> = (0..4)
        .map(|_| finish(&out).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts"))
        .collect();
    for child in running {
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    source.is_at(&out);

    // A shard of another size than its note says does not count; the task makes it again.
    let out = source.out("damaged");
    unfinished(&source, &out);
    let shard = out.join("shards/part-00003.parquet");
    helpers::edit(&shard, |bytes| bytes.truncate(100));
    assert!(refused(&mut finish(&out)).contains("1 of 5 shards are missing: 3 (task 1/2)"));
    source.run(&out, 1, 2);
    source.is_at(&out);
}

#[test]
fn a_run_alone_completes_what_tasks_began() {
    let source = Source::new(60);
    let out = source.out("set");
    source.run(&out, 1, 3);
    let printed = ok("ingest", source.arguments(&out, &[]));
    assert!(printed.contains("continued after 2 finished shards"), "{printed}");
    source.is_at(&out);
    // Also where no shard is missing.
    let out = source.out("all");
    unfinished(&source, &out);
    ok("ingest", source.arguments(&out, &[]));
    source.is_at(&out);
    // With --overwrite it begins anew.
    let out = source.out("anew");
    source.run(&out, 0, 4);
    ok("ingest", source.arguments(&out, &["--overwrite"]));
    source.is_at(&out);
}

#[test]
fn status_shows_every_task() {
    let source = Source::new(60);
    let out = source.out("set");
    let status = |out: &Path| ok("ingest", ["status".as_ref(), out.as_os_str()]);
    assert!(fails("ingest", 1, ["status".as_ref(), out.as_os_str()]).contains("holds no dataset"));
    source.run(&out, 0, 3);
    let printed = status(&out);
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines[0].contains("2 of 5 shards done, 32 of ") && lines[0].contains(" radiographs ("), "{printed}");
    let row = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(row(lines[1]), ["task", "host", "shards", "radiographs", "rate", "state"]);
    let first = row(lines[2]);
    assert_eq!([&first[0], &first[2], &first[3], &first[5]], ["0/3", "2/2", "32/32", "done"], "{printed}");
    assert_eq!(row(lines[3])[..3], ["1/3", "-", "0/2"], "{printed}");
    assert!(lines[3].ends_with("not begun") && lines[4].starts_with("2/3"), "{printed}");
    // A task that fails says why; one that is killed is not heard of any more.
    let shards = out.join("shards");
    fs::rename(&shards, out.join("away")).expect("moved");
    fs::write(&shards, "no folder").expect("written");
    refused(&mut source.task(&out, 1, 3));
    let printed = status_with(&out, || {
        fs::remove_file(&shards).expect("removed");
        fs::rename(out.join("away"), &shards).expect("moved");
    });
    assert!(printed.contains("failed ") && printed.contains("shards"), "{printed}");
    for index in 1..3 {
        source.run(&out, index, 3);
    }
    assert!(status(&out).contains("complete, ") && status(&out).contains("5 shards"));
    source.is_at(&out);

    // A run without tasks.
    let alone = source.out("alone");
    fs::create_dir_all(alone.join(".ingest")).expect("a folder");
    fs::write(alone.join(".ingest/arguments.json"), "{}").expect("written");
    assert!(status(&alone).contains("begun by a run without --task; finished so far: 0 shards"));
}

fn status_with(out: &Path, repair: impl FnOnce()) -> String {
    repair();
    ok("ingest", ["status".as_ref(), out.as_os_str()])
}

#[test]
fn a_task_continues_after_a_full_disk() {
    let source = Source::new(60);
    let disk = source.out("disk");
    fs::create_dir(&disk).expect("a folder");
    let mount = |size: &str, how: &str| {
        let options = format!("{how}size={size}");
        Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&disk).stderr(Stdio::null()).status()
    };
    if !mount("160k", "").is_ok_and(|status| status.success()) {
        assert!(!helpers::requires_cluster(), "mounting a small disk is not permitted");
        eprintln!("skipped: mounting a small disk is not permitted");
        return;
    }
    let out = disk.join("set");
    let outputs = [0, 1].map(|index| source.task(&out, index, 2).output().expect("it starts"));
    let unfinished: Vec<String> =
        contents(&out).into_keys().filter(|path| path.contains("work-") || path.ends_with(".tmp")).collect();
    let has_manifest = out.join("dataset.json").exists();
    let grown = mount("64m", "remount,").is_ok_and(|status| status.success());
    let again = [0, 1].map(|index| source.task(&out, index, 2).output().expect("it starts"));
    let found = contents(&out);
    let unmounted = Command::new("umount").arg(&disk).status().is_ok_and(|status| status.success());
    assert!(outputs.iter().any(|output| text(&output.stderr).contains("No space left on device")));
    assert!(outputs.iter().all(|output| !text(&output.stderr).contains("panicked")));
    assert_eq!(unfinished, [] as [String; 0]);
    assert!(grown && unmounted && !has_manifest && again.iter().all(|output| output.status.success()));
    assert!(found == source.whole);
}

#[test]
fn inputs_that_a_task_could_not_read_are_added_by_a_retry() {
    let source = Source::new(40);
    let Some(faults) = Faults::new(source.temporary.path()) else { return };
    let image = contents(&source.raw).into_keys().find(|name| name.ends_with(".dcm")).expect("an image");
    let out = source.out("set");
    for index in 0..2 {
        let mut task = source.task(&out, index, 2);
        task.args(["--max-reject-rate", "1"]);
        faults.inject(&mut task, Call::Open, EIO, &[&image], None);
        succeeds(&mut task);
    }
    assert!(contents(&out) != source.whole && out.join(".ingest/plan.json").exists());
    assert!(!out.join(".ingest/task-00000.json").exists());
    // A task of the complete dataset changes nothing.
    let before = contents(&out);
    let mut task = source.task(&out, 0, 2);
    assert!(succeeds(task.args(["--max-reject-rate", "1"])).contains("nothing to do"));
    assert!(before == contents(&out));
    assert!(ok("ingest", source.arguments(&out, &["--retry-rejects"])).contains("continued after"));
    source.is_at(&out);
}

#[test]
fn a_source_of_your_own_can_be_made_by_tasks() {
    let source = helpers::binary("examples/custom_source");
    let temporary = helpers::folder();
    let raw = temporary.path().join("ward");
    for number in 0..40 {
        helpers::write_png(&raw.join(format!("p{}-s{number:02}.png", number % 7)), 40, 50);
        helpers::write_file(&raw.join(format!("p{}-s{number:02}.txt", number % 7)), "No pneumothorax is seen.");
    }
    let run = |out: &Path, more: &[&str]| {
        let mut command = Command::new(&source);
        command.arg("ward").arg(&raw).arg(out).args(SMALL).args(more);
        succeeds(&mut command)
    };
    let [alone, tasks] = ["alone", "tasks"].map(|name| temporary.path().join(name));
    run(&alone, &[]);
    run(&tasks, &["--task", "1/2"]);
    run(&tasks, &["--task", "0/2"]);
    assert!(contents(&alone) == contents(&tasks));
}
