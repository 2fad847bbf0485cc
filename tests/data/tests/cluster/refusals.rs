//! Tasks that do not fit the dataset are refused with one line, before they write anything.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use helpers::{args, command, contents, fails, ok};

use crate::{Source, refused, start};

#[test]
fn a_task_of_another_run_is_refused() {
    let source = Source::new(40);
    let out = source.out("set");
    source.run(&out, 1, 3);
    let before = contents(&out);
    let says = |more: &[&str], words: &[&str]| {
        let message = refused(command("ingest").args(source.arguments(&out, more)));
        assert!(words.iter().all(|word| message.contains(word)), "{words:?} in {message}");
    };
    says(&["--task", "1/4"], &["was begun with 3 tasks", "this is task 1/4", "give --task I/3", "without --task"]);
    says(&["--task", "0/3", "--intensity", "minmax"], &["--intensity was voi, is minmax", "take another OUT"]);
    says(&["--task", "0/3", "--labels", "negbio"], &["--labels was not given, is negbio"]);
    says(&["--task", "0/3", "--limit", "7"], &["--limit was not given, is 7"]);
    says(&["--finish", "--limit", "7"], &["--limit was not given, is 7"]);
    says(&["--limit", "7"], &["holds an unfinished dataset of another run", "--limit was not given, is 7"]);
    assert!(before == contents(&out), "nothing is written");
    // Another version.
    let head = out.join(".ingest/plan.json");
    let text = fs::read_to_string(&head).expect("a plan");
    fs::write(&head, text.replacen("mrm ingest ", "mrm ingest 0.0.", 1)).expect("written");
    for more in [&["--task", "0/3"] as &[&str], &["--finish"], &[]] {
        let message = refused(command("ingest").args(source.arguments(&out, more)));
        assert!(message.contains("mrm ingest 0.0.") && message.contains("may write other bytes"), "{message}");
    }
    fs::write(&head, text).expect("written");

    // Input of finished shards that changed.
    let shard = fs::read_to_string(out.join(".ingest/part-00001.inputs")).expect("stamps");
    let image = shard.lines().find(|line| line.contains(".dcm")).and_then(|line| line.split('"').nth(1));
    let image = source.raw.join(image.expect("an image"));
    helpers::edit(&image, |bytes| *bytes.last_mut().expect("bytes") ^= 1);
    let message = refused(&mut source.task(&out, 1, 3));
    assert!(message.contains("1 file (files/") && message.contains("changed since it was read"), "{message}");
    helpers::edit(&image, |bytes| *bytes.last_mut().expect("bytes") ^= 1);
    for index in 0..3 {
        source.run(&out, index, 3);
    }
    source.is_at(&out);

    // A finished dataset.
    let message = refused(command("ingest").args(source.arguments(&out, &["--task", "0/3", "--limit", "7"])));
    assert!(message.contains("holds another dataset: --limit was not given, is 7"), "{message}");
}

#[test]
fn a_place_that_holds_something_else_is_refused() {
    let source = Source::new(40);
    let mine = source.out("mine");
    helpers::write_file(&mine.join("thesis.txt"), "years of work");
    assert!(refused(&mut source.task(&mine, 0, 2)).contains("is neither empty nor a dataset"));
    assert_eq!(contents(&mine).len(), 1);

    // A dataset that a run alone began.
    let alone = source.out("alone");
    let arguments = source.arguments(&alone, &[]);
    for _ in 0..20 {
        let mut child = start(command("ingest").args(&arguments));
        let begun = Instant::now();
        while !alone.join(".ingest/part-00000.json").exists() && begun.elapsed() < Duration::from_mins(1) {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().expect("SIGKILL");
        child.wait().expect("it ends");
        if !alone.join("dataset.json").exists() {
            break;
        }
        fs::remove_dir_all(&alone).expect("removed");
    }
    let before = contents(&alone);
    let message = refused(&mut source.task(&alone, 0, 2));
    assert!(
        message.contains("a run without --task began this dataset; continue it with the same command"),
        "{message}"
    );
    assert!(before == contents(&alone));
    ok("ingest", &arguments);
    source.is_at(&alone);
}

#[test]
fn tasks_and_a_run_alone_exclude_each_other() {
    let source = Source::new(40);
    let out = source.out("set");
    source.run(&out, 0, 2);
    let path = out.join(".ingest/lock");
    let lock = File::options().read(true).write(true).open(&path).expect("a lock");
    lock.lock_shared().expect("locked, as by another task");
    let message = refused(command("ingest").args(source.arguments(&out, &[])));
    assert!(message.contains("another ingest is writing to it"), "{message}");
    lock.unlock().expect("unlocked");
    lock.lock().expect("locked, as by a run alone");
    let message = refused(&mut source.task(&out, 1, 2));
    assert!(message.contains("a run without --task is writing to it"), "{message}");
    lock.unlock().expect("unlocked");
    lock.lock_shared().expect("locked");
    source.run(&out, 1, 2);
    source.is_at(&out);
}

#[test]
fn a_task_that_is_not_given_is_taken_from_the_launcher() {
    let source = Source::new(40);
    let out = source.out("set");
    let with = |variables: &[(&str, &str)], more: &[&str]| {
        let mut task = command("ingest");
        for name in ["SLURM_ARRAY_TASK_ID", "SLURM_PROCID", "RANK", "WORLD_SIZE", "JOB_COMPLETION_INDEX"] {
            task.env_remove(name);
        }
        task.args(source.arguments(&out, more)).envs(variables.iter().copied());
        task
    };
    for (variables, words) in [
        (&[] as &[(&str, &str)], "no environment variables name a task"),
        (&[("RANK", "1")], "RANK is set, but WORLD_SIZE is not"),
        (&[("RANK", "2"), ("WORLD_SIZE", "2")], "there is no task 2 of 2"),
        (&[("SLURM_ARRAY_TASK_ID", "1")], "SLURM_ARRAY_TASK_ID is set, but SLURM_ARRAY_TASK_COUNT is not"),
        (&[("JOB_COMPLETION_INDEX", "1")], "give --task $(JOB_COMPLETION_INDEX)/N"),
    ] {
        for more in [&["--task", "auto"] as &[&str], &["--task"]] {
            let message = refused(&mut with(variables, more));
            assert!(message.contains("--task auto: ") && message.contains(words), "{message}");
        }
    }
    assert!(!out.exists());
    let array = |id: &'static str| {
        [
            ("SLURM_ARRAY_TASK_ID", id),
            ("SLURM_ARRAY_TASK_COUNT", "2"),
            ("SLURM_ARRAY_TASK_MIN", "1"),
            ("SLURM_ARRAY_TASK_MAX", "2"),
        ]
    };
    crate::succeeds(&mut with(&array("2"), &["--task"]));
    crate::succeeds(&mut with(&[("RANK", "0"), ("WORLD_SIZE", "2")], &["--task=auto"]));
    source.is_at(&out);
    // The variables alone change nothing.
    let out = source.out("plain");
    let mut plain = command("ingest");
    plain.args(source.arguments(&out, &[])).envs(array("2"));
    crate::succeeds(&mut plain);
    source.is_at(&out);

    for odd in ["4/4", "1", "-1/4", "a/b", "1/0"] {
        let mut arguments = source.arguments(source.out("odd"), &[]);
        arguments.push(format!("--task={odd}").into());
        assert!(fails("ingest", 2, arguments).contains("--task"), "{odd}");
    }
    for other in ["--overwrite", "--retry-rejects", "--check-input", "--dry-run", "--finish"] {
        fails("ingest", 2, source.arguments(source.out("odd"), &["--task", "0/2", other]));
    }
    assert!(!source.out("odd").exists());
    fails("ingest", 2, args!["status"]);
}
