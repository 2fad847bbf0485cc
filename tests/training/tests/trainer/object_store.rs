//! Training on a dataset in an object store.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use helpers::object_store::{OUTAGE, Outage, Store, ingesting, ok_at, settings, url};
use helpers::store_faults::{Disturbance, Disturbed, When};
use helpers::{args, assert_without_secrets, command, contents, folder, ingest, ok, phantom, text, with_secrets};

/// Arguments of a short pre-training on a dataset in the store.
fn training(run: &Path, steps: u64) -> Vec<OsString> {
    let one_thread = ["--set", "run.loader_threads=1"];
    training::pretraining(Path::new(&url("set")), run, steps, &one_thread)
}

#[test]
fn training_continues_after_an_outage_and_saves_a_checkpoint_if_it_lasts() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 40);
    store.ok("ingest", &ingesting(&raw, &url("set"), &temporary.path().join("staging"), &[]));
    store.ok("dataset", &args!["split", url("set"), "--name", "main"]);
    let run = |name: &str| temporary.path().join(name);
    store.ok("trainer", &training(&run("whole"), 12));
    let whole = training::numbers(&run("whole"));
    let weights = training::weights(&run("whole"));

    let (outage, address) = Outage::of(&store, "part-", 70, OUTAGE);
    ok_at(&address, "trainer", &training(&run("interrupted"), 12));
    assert!(outage.happened());
    assert!(weights == training::weights(&run("interrupted")));

    // SIGTERM ends the run without waiting for the store.
    let (outage, address) = Outage::of(&store, "part-", 70, Duration::from_hours(1));
    let stopped = run("stopped");
    let out_of_reach = || {
        let begun = Instant::now();
        while !outage.happened() {
            assert!(begun.elapsed() < Duration::from_mins(2), "no request reached the store");
            std::thread::sleep(Duration::from_millis(20));
        }
        training::wait_for(&stopped, 1);
    };
    let mut command_of_run = command("trainer");
    let output =
        training::stop_once(out_of_reach, command_of_run.envs(settings(&address)).args(training(&stopped, 12)));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("give the same command again"), "{}", text(&output.stdout));
    store.ok("trainer", &training(&stopped, 12));
    assert_eq!(training::numbers(&stopped), whole);

    // No checkpoint is due before the outage, which does not end.
    let (_, address) = Outage::of(&store, "part-", 70, Duration::from_hours(1));
    let mut lost = command("trainer");
    lost.envs(settings(&address)).env("MRM_STORE_TIMEOUT", "1").args(training(&run("lost"), 12));
    let output = lost.output().expect("it runs");
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("saved a checkpoint after step"), "{message}");
    assert!(
        message.lines().last().is_some_and(|line| line.contains("no answer from") && line.contains(&address)),
        "{message}"
    );
    let made = training::numbers(&run("lost"));
    assert!(!made.is_empty() && made.len() < whole.len(), "{made:?}");
    let state: serde_json::Value =
        dataset::store::files::read_json(&run("lost").join("latest/state.json")).expect("a state");
    assert_eq!(state["step"].as_u64(), Some(made.len() as u64));
    store.ok("trainer", &training(&run("lost"), 12));
    assert_eq!(training::numbers(&run("lost")), whole);
    assert!(weights == training::weights(&run("lost")));
}

#[test]
fn disturbed_answers_change_no_weights_and_no_file_has_a_credential() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 40);
    store.ok("ingest", &ingesting(&raw, &url("set"), &temporary.path().join("staging"), &[]));
    store.ok("dataset", &args!["split", url("set"), "--name", "main"]);
    let run = |name: &str| temporary.path().join("runs").join(name);
    store.ok("trainer", &training(&run("whole"), 12));
    let weights = training::weights(&run("whole"));
    let cases = [
        ("flip", Disturbance::Flip, When::Once(40)),
        ("cut", Disturbance::Cut, When::Once(50)),
        ("expired", Disturbance::Refusal(403, "ExpiredToken"), When::From(70)),
        ("echo", Disturbance::Echo(400), When::From(70)),
    ];
    for (name, disturbance, when) in cases {
        let is_shard = |line: &str| line.contains("part-");
        let disturbed = Disturbed::of(&store, disturbance, when, is_shard, ("set", "old"));
        let mut trainer = command("trainer");
        trainer.envs(with_secrets(disturbed.settings())).env("RUST_LOG", "trace").args(training(&run(name), 12));
        let output = trainer.output().expect("the binary starts");
        let message = text(&output.stderr);
        assert!(!disturbed.disturbed().is_empty(), "{name}: {message}");
        assert_without_secrets(&[output.stdout, output.stderr].concat(), name);
        for (file, bytes) in contents(&run(name)) {
            assert_without_secrets(&bytes, &format!("{name}: {file}"));
        }
        if disturbance.passes() {
            assert!(output.status.success(), "{name}: {message}");
        } else {
            assert_eq!(output.status.code(), Some(1), "{name}: {message}");
            assert!(message.contains("saved a checkpoint after step"), "{name}: {message}");
            let last = message.lines().last().unwrap_or_default();
            assert!(last.contains("s3://radiographs/set/shards/part-"), "{name}: {message}");
            assert!(name != "expired" || last.contains("ExpiredToken"), "{name}: {message}");
            store.ok("trainer", &training(&run(name), 12));
        }
        assert!(weights == training::weights(&run(name)), "{name}");
    }
}

#[test]
fn credentials_are_in_no_output_of_finetuning_and_evaluation() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 60);
    store.ok("ingest", &ingesting(&raw, &url("set"), &temporary.path().join("staging"), &[]));
    store.ok("dataset", &args!["split", url("set"), "--name", "main", "--validation", "0.2", "--test", "0.3"]);
    let runs = temporary.path().join("runs");
    let finetune = |run: &Path| {
        let mut all =
            args!["finetune", "--data", url("set"), "--run", run, "--split", "main", "--device", "cpu"].to_vec();
        all.extend(args!["--task", "labels:Cardiomegaly,Edema", "--preset", "mrm-vit-tiny"]);
        all.extend(args!["--steps", "4", "--batch-size", "8", "--set", "model.vit.image_size=32"]);
        all.extend(args!["--set", "model.vit.embed_dim=32", "--set", "model.vit.num_layers=2"]);
        all
    };
    let evaluate =
        |run: &Path| args!["evaluate", "--data", url("set"), "--run", run, "--split", "main", "--draws", "10"].to_vec();
    let output_of = |settings: Vec<(String, String)>, arguments: &[OsString], what: &str| {
        let mut trainer = command("trainer");
        trainer.envs(with_secrets(settings)).env("RUST_LOG", "trace").env("RUST_BACKTRACE", "full").args(arguments);
        let output = trainer.output().expect("the binary starts");
        assert_without_secrets(&[output.stdout.as_slice(), output.stderr.as_slice()].concat(), what);
        output
    };
    let tuned = runs.join("tuned");
    for (what, arguments) in [("finetune", finetune(&tuned)), ("evaluate", evaluate(&tuned))] {
        let output = output_of(store.settings(), &arguments, what);
        assert!(output.status.success(), "{what}: {}", text(&output.stderr));
    }
    assert!(tuned.join("evaluation-test.json").is_file());
    // The store repeats the request in its answer.
    let disturbed = Disturbed::of(&store, Disturbance::Echo(403), When::From(1), |_| true, ("set", "old"));
    for (what, arguments) in [("finetune", finetune(&runs.join("refused"))), ("evaluate", evaluate(&tuned))] {
        let before = disturbed.disturbed().len();
        let output = output_of(disturbed.settings(), &arguments, what);
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{what}: {message}");
        assert!(message.contains("s3://radiographs/set") && message.contains("no access"), "{what}: {message}");
        assert!(disturbed.disturbed().len() > before, "{what}: {message}");
    }
    for (file, bytes) in contents(&runs) {
        assert_without_secrets(&bytes, &file);
        assert_without_secrets(file.as_bytes(), "the name of a file");
    }
}

/// The same weights from a folder and from a store.
#[test]
fn training_on_a_store_gives_the_weights_of_a_folder() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 40);
    let (local, staging) = (temporary.path().join("set"), temporary.path().join("staging"));
    ingest("mimic-cxr", &raw, &local, &[]);
    store.ok("ingest", &ingesting(&raw, &url("deep/set/"), &staging, &[]));
    let at = "s3://radiographs/deep/set";
    ok("dataset", args!["split", &local, "--name", "main"]);
    store.ok("dataset", &args!["split", at, "--name", "main"]);
    let trained = |data: OsString, name: &str| {
        let to = temporary.path().join(name);
        let mut run =
            args!["pretrain", "--data", data, "--run", &to, "--preset", "mrm-vit-tiny", "--split", "main"].to_vec();
        run.extend(args!["--device", "cpu", "--steps", "2", "--batch-size", "4", "--set", "model.vit.image_size=32"]);
        store.ok("trainer", &run);
        fs::read(to.join("latest/model.safetensors")).expect("weights")
    };
    assert!(trained(local.into(), "a") == trained(at.into(), "b"));
}

#[test]
fn an_unknown_split_of_a_store_is_reported_in_one_line() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 12);
    store.ok("ingest", &ingesting(&raw, &url("set"), &temporary.path().join("staging"), &[]));
    store.ok("dataset", &args!["split", url("set"), "--name", "main"]);
    let split =
        args!["pretrain", "--data", url("set"), "--run", temporary.path().join("run"), "--preset", "mrm-vit-tiny"];
    let mut unknown = split.to_vec();
    unknown.extend(args!["--split", "other"]);
    store.fails("trainer", &unknown, &["split `other`", "main"]);
}
