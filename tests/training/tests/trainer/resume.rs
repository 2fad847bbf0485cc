//! Stopped and killed runs continue to the same numbers.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dataset::{Dataset, Split, Subset};
use helpers::{args, contents, copy_folder, fails, folder, ok, text};
use training::{
    checkpoints, damage_image, dataset, finetuning, kill_after, kill_once, numbers, pretrained, pretraining,
    stop_after, wait_for, weights,
};

#[test]
fn a_stopped_run_resumes_to_the_same_numbers() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let (whole, stopped, killed) = (temporary.path().join("a"), temporary.path().join("b"), temporary.path().join("c"));
    let every = ["--set", "run.checkpoint_every=7", "--set", "optimizer.accumulation=2"];
    ok("trainer", pretraining(&data, &whole, 60, &every));
    let expected = numbers(&whole);
    assert_eq!(expected.len(), 60);
    assert!(expected.iter().all(|line| line["loss_image"].is_f64() && line["loss_report"].is_f64()));
    let (first, last) = (expected[0]["loss"].as_f64().expect("a loss"), expected[59]["loss"].as_f64().expect("a loss"));
    assert!(last < first, "{first} → {last}");

    // SIGTERM: a checkpoint, a line that says how to continue, exit code 0.
    let output = stop_after(3, &stopped, pretraining(&data, &stopped, 60, &every));
    assert!(output.status.success(), "{output:?}");
    let printed = text(&output.stdout);
    assert!(printed.contains("give the same command again"), "{printed}");
    assert!(numbers(&stopped).len() < 60);
    ok("trainer", pretraining(&data, &stopped, 60, &every));
    assert_eq!(numbers(&stopped), expected);
    assert!(weights(&stopped) == weights(&whole));

    for steps in [10, 24] {
        kill_after(steps, &killed, pretraining(&data, &killed, 60, &every));
    }
    ok("trainer", pretraining(&data, &killed, 60, &every));
    assert_eq!(numbers(&killed), expected);
    assert!(weights(&killed) == weights(&whole));
    let kept = fs::read_dir(whole.join("checkpoints")).expect("checkpoints").count();
    assert_eq!(kept, 2, "the last two");
}

#[test]
fn a_killed_run_in_half_precision_with_averaged_weights_resumes_to_the_same_bits() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let (whole, killed) = (temporary.path().join("a"), temporary.path().join("b"));
    let settings = [
        "--set",
        "run.checkpoint_every=1",
        "--set",
        "run.precision=fp16",
        "--set",
        "run.ema=0.9",
        "--set",
        "optimizer.clip=1.0",
    ];
    ok("trainer", pretraining(&data, &whole, 30, &settings));
    let expected = numbers(&whole);
    assert!(expected.iter().all(|line| line["loss_scale"].as_f64().is_some_and(|scale| scale >= 1.0)), "{expected:?}");
    let (first, last) = (expected[0]["loss"].as_f64(), expected[29]["loss"].as_f64());
    assert!(last < first, "{first:?} → {last:?}");

    // A checkpoint after each step: most of the time is spent writing them, so the kills happen then. Each kill comes after
    // a checkpoint, and before the last one.
    for (number, steps) in (2..=24).step_by(2).enumerate() {
        let reached = || {
            wait_for(&killed, steps);
            std::thread::sleep(Duration::from_millis(number as u64 * 7 % 23));
        };
        kill_once(reached, pretraining(&data, &killed, 30, &settings));
        assert!(checkpoints(&killed).iter().any(|name| name.starts_with("step-")), "kill {number}");
    }
    ok("trainer", pretraining(&data, &killed, 30, &settings));
    assert_eq!(numbers(&killed), expected);
    assert!(weights(&killed) == weights(&whole));
    let read = |run: &Path, file: &str| fs::read(run.join("latest").join(file)).expect("a checkpoint's file");
    for file in ["ema.safetensors", "optimizer.safetensors", "state.json"] {
        assert!(read(&killed, file) == read(&whole, file), "{file}");
    }
    assert!(read(&whole, "ema.safetensors") != weights(&whole));
    assert_eq!(checkpoints(&killed), ["step-29", "step-30"], "no partial file is left");
}

/// Mixup draws from torch's generator, which each step seeds by its number.
#[test]
fn a_killed_fine_tuning_with_mixup_resumes_to_the_same_bits() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 60);
    let at = |name: &str| temporary.path().join("runs").join(name);
    let settings = [
        "data.mixup=0.4",
        "optimizer.class_weights=balanced",
        "optimizer.label_smoothing=0.1",
        "run.checkpoint_every=1",
        "run.log_every=1",
        "optimizer.steps=30",
    ];
    let mixed = |run: &Path, further: &[&str]| {
        let all: Vec<&str> = settings.iter().chain(further).flat_map(|setting| ["--set", *setting]).collect();
        let words = finetuning(&data, run, &mrm, &all);
        words.into_iter().map(|word| if word == "6" { "30".into() } else { word }).collect::<Vec<_>>()
    };
    let printed = ok("trainer", mixed(&at("whole"), &[]));
    assert!(printed.contains("weights of positive labels: Cardiomegaly "), "{printed}");
    for steps in [4, 11] {
        kill_after(steps, &at("killed"), mixed(&at("killed"), &[]));
    }
    ok("trainer", mixed(&at("killed"), &[]));
    assert_eq!(numbers(&at("killed")), numbers(&at("whole")));
    assert!(weights(&at("killed")) == weights(&at("whole")));
    // Each of them changes the run.
    let first = |name: &str, setting: &str| {
        ok("trainer", mixed(&at(name), &[setting, "optimizer.steps=2"]));
        numbers(&at(name))[0]["loss"].as_f64().expect("a loss")
    };
    let with_all = first("all", "data.mixup=0.4");
    for (name, setting) in [
        ("plain", "data.mixup=0.0"),
        ("equal", "optimizer.class_weights=none"),
        ("sharp", "optimizer.label_smoothing=0.0"),
    ] {
        assert!((first(name, setting) - with_all).abs() > 1e-4, "{setting}");
    }
}

#[test]
fn a_checkpoint_with_the_former_name_of_the_optimizers_file_resumes_to_the_same_bits() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let (whole, resumed) = (temporary.path().join("a"), temporary.path().join("b"));
    let every = ["--set", "run.checkpoint_every=1", "--set", "run.keep_last=20"];
    for run in [&whole, &resumed] {
        ok("trainer", pretraining(&data, run, 6, &every));
    }
    back_to(&resumed, 3);
    let checkpoint = resumed.join("checkpoints/step-3");
    fs::rename(checkpoint.join("optimizer.safetensors"), checkpoint.join("optimiser.safetensors")).expect("renamed");
    ok("trainer", pretraining(&data, &resumed, 6, &every));
    assert_eq!(numbers(&resumed), numbers(&whole));
    assert!(weights(&resumed) == weights(&whole));
    let moments = |run: &Path| fs::read(run.join("latest/optimizer.safetensors")).expect("the optimizer's state");
    assert!(moments(&resumed) == moments(&whole));
}

#[test]
fn a_run_continues_with_master_weights_to_the_same_bits_and_the_loss_in_place_is_close() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let run = |name: &str| temporary.path().join(name);
    let train = |name: &str, settings: &[&str]| {
        let common = ["run.precision=bf16", "run.checkpoint_every=1", "run.keep_last=20", "optimizer.accumulation=2"];
        let all: Vec<&str> = common.iter().chain(settings).flat_map(|setting| ["--set", *setting]).collect();
        pretraining(&data, &run(name), 6, &all)
    };
    ok("trainer", train("plain", &[]));
    ok("trainer", train("switched", &[]));
    back_to(&run("switched"), 3);
    // A run of an older version, whose configuration lacks the keys.
    let config = fs::read_to_string(run("switched").join("config.toml")).expect("a configuration");
    let older: String = config
        .lines()
        .filter(|line| !["master_weights", "in_place_loss", "cuda_graph"].iter().any(|key| line.starts_with(key)))
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_eq!(older.lines().count() + 3, config.lines().count(), "{config}");
    fs::write(run("switched").join("config.toml"), older).expect("written");
    ok("trainer", train("switched", &["run.master_weights=true"]));
    assert_eq!(numbers(&run("switched")), numbers(&run("plain")));
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let read = |name: &str| fs::read(run(name).join("latest").join(file)).expect("a checkpoint's file");
        assert!(read("switched") == read("plain"), "{file}");
    }

    ok("trainer", train("in place", &["run.in_place_loss=true"]));
    let losses =
        |name: &str| numbers(&run(name)).into_iter().filter_map(|line| line["loss"].as_f64()).collect::<Vec<_>>();
    for (a, b) in losses("in place").iter().zip(losses("plain")) {
        assert!((a - b).abs() < 0.01 * b, "{a} and {b}");
    }
    let message = fails("trainer", 1, train("in place", &[]));
    assert!(message.contains("holds a run of another configuration"), "{message}");
}

#[test]
fn a_killed_fine_tuning_keeps_the_same_best_weights() {
    let temporary = folder();
    let data = dataset(temporary.path(), 60);
    let (whole, killed) = (temporary.path().join("a"), temporary.path().join("b"));
    let arguments = |run: &Path| {
        let mut all =
            args!["finetune", "--data", &data, "--run", run, "--split", "main", "--preset", "mrm-vit-tiny"].to_vec();
        all.extend(args!["--task", "labels:Cardiomegaly", "--device", "cpu", "--steps", "40", "--batch-size", "8"]);
        for setting in
            ["model.vit.num_layers=1", "optimizer.evaluate_every=2", "run.checkpoint_every=3", "run.log_every=1"]
        {
            all.extend(args!["--set", setting]);
        }
        all
    };
    ok("trainer", arguments(&whole));
    for steps in [4, 20] {
        kill_after(steps, &killed, arguments(&killed));
    }
    ok("trainer", arguments(&killed));
    assert_eq!(numbers(&killed), numbers(&whole));
    for file in ["best.safetensors", "latest/model.safetensors", "latest/state.json", "latest/optimizer.safetensors"] {
        let read = |run: &Path| fs::read(run.join(file)).expect("a file");
        assert!(read(&killed) == read(&whole), "{file}");
    }
}

#[test]
fn settings_without_influence_may_change_but_data_may_not() {
    let temporary = folder();
    let data = dataset(temporary.path(), 20);
    let run = temporary.path().join("run");
    ok("trainer", pretraining(&data, &run, 4, &[]));
    ok("trainer", pretraining(&data, &run, 4, &["--set", "run.loader_threads=1", "--set", "run.keep_last=5"]));
    let other = temporary.path().join("more");
    fs::create_dir(&other).expect("a folder");
    let other = dataset(&other, 30);
    let message = fails("trainer", 1, pretraining(&other, &run, 4, &[]));
    assert!(message.contains("holds a run of another configuration (now dataset ="), "{message}");
    // A folder with other files is refused and not changed.
    let taken = temporary.path().join("taken");
    fs::create_dir(&taken).expect("a folder");
    fs::write(taken.join("metrics.jsonl"), "{\"mine\": 1}\n").expect("written");
    let message = fails("trainer", 1, pretraining(&data, &taken, 4, &[]));
    assert!(message.contains("holds other files (metrics.jsonl) and no run"), "{message}");
    assert_eq!(fs::read_to_string(taken.join("metrics.jsonl")).expect("a file"), "{\"mine\": 1}\n");
}

/// Removes the checkpoints after a step, as if the run had been killed then.
fn back_to(run: &Path, step: u64) {
    for name in checkpoints(run) {
        if name.strip_prefix("step-").and_then(|text| text.parse::<u64>().ok()).is_some_and(|at| at > step) {
            fs::remove_dir_all(run.join("checkpoints").join(name)).expect("removed");
        }
    }
}

#[test]
fn a_finished_run_continues_to_more_steps() {
    let temporary = folder();
    let data = dataset(temporary.path(), 60);
    let place = |name: &str| temporary.path().join(name);
    let (run, whole) = (place("run"), place("whole"));
    let every = ["--set", "run.checkpoint_every=1", "--set", "run.keep_last=20"];
    ok("trainer", pretraining(&data, &run, 6, &every));
    ok("trainer", pretraining(&data, &whole, 10, &every));
    let before = contents(&run);
    let refused = |steps: u64, more: &[&str], words: &str| {
        let message = fails("trainer", 1, pretraining(&data, &run, steps, &[&every, more].concat()));
        assert!(message.contains(words), "{message}");
        assert!(contents(&run) == before, "a refused command changes nothing");
    };
    refused(4, &[], "has made 6 steps, and 4 are asked for: ask for more (--steps or --epochs)");
    refused(8, &["--seed", "3"], "seed = 3, was 0");

    let output = helpers::run("trainer", pretraining(&data, &run, 10, &every));
    let message = text(&output.stderr);
    assert!(
        output.status.success() && message.contains("continues from step 6 to 10; from here on its learning rate"),
        "{message}"
    );
    let longer = numbers(&run);
    assert_eq!(longer.len(), 10);
    // The first steps are unchanged; the others have the learning rates of a run of ten steps.
    let lrs = |lines: &[serde_json::Value]| lines.iter().map(|line| line["lr"].to_string()).collect::<Vec<_>>();
    assert_eq!(lrs(&longer)[6..], lrs(&numbers(&whole))[6..]);
    assert_ne!(lrs(&longer)[..6], lrs(&numbers(&whole))[..6]);
    // Killed after step 8, it ends with the same weights.
    let end = weights(&run);
    back_to(&run, 8);
    ok("trainer", pretraining(&data, &run, 10, &every));
    assert_eq!(numbers(&run), longer);
    assert!(weights(&run) == end);

    // In epochs too; a classifier is evaluated at its new end, and keeps its best weights.
    let in_epochs = |epochs: &str| {
        let mut all = pretraining(&data, &place("epochs"), 1, &["--epochs", epochs]);
        let steps = all.iter().position(|word| word == "--steps").expect("an option");
        all.drain(steps..steps + 2);
        all
    };
    ok("trainer", in_epochs("1"));
    let first = numbers(&place("epochs")).len();
    ok("trainer", in_epochs("2"));
    assert_eq!(numbers(&place("epochs")).len(), 2 * first);
    let finetuning = |steps: &str| {
        let mut all =
            args!["finetune", "--data", &data, "--run", place("tuned"), "--split", "main", "--preset", "mrm-vit-tiny"]
                .to_vec();
        all.extend(args!["--task", "chexpert5", "--device", "cpu", "--batch-size", "8", "--steps", steps]);
        all.extend(args!["--set", "model.vit.num_layers=1", "--set", "run.log_every=1"]);
        all
    };
    ok("trainer", finetuning("4"));
    ok("trainer", finetuning("6"));
    let logged = numbers(&place("tuned"));
    let evaluated = logged.iter().filter(|line| line["validate_auroc"].is_f64());
    assert_eq!(evaluated.filter_map(|line| line["step"].as_u64()).max(), Some(6));
    assert_eq!(logged.iter().filter(|line| line["loss"].is_f64()).count(), 6);
}

#[test]
fn a_failed_evaluation_is_repeated_on_resumption() {
    let temporary = folder();
    let data = dataset(temporary.path(), 80);
    let (whole, lost) = (temporary.path().join("a"), temporary.path().join("b"));
    let arguments = |run: &Path| {
        let mut all =
            args!["finetune", "--data", &data, "--run", run, "--split", "main", "--preset", "mrm-vit-tiny"].to_vec();
        all.extend(args!["--task", "labels:Cardiomegaly", "--device", "cpu", "--steps", "8", "--batch-size", "8"]);
        for setting in ["model.vit.num_layers=1", "optimizer.evaluate_every=4", "run.log_every=1", "run.ema=0.5"] {
            all.extend(args!["--set", setting]);
        }
        all
    };
    ok("trainer", arguments(&whole));
    let opened = Arc::new(Dataset::open(&data).expect("a dataset"));
    let labels = opened.labels().expect("labels");
    let validate = Split::load(&opened, "main").expect("a split").rows(Subset::Validate, None);
    let finding = opened.findings().iter().position(|name| name == "Cardiomegaly").expect("a finding");
    let labeled = validate.iter().find(|&&row| labels[row as usize][finding].is_some()).expect("a labeled record");
    let (shard, before) = damage_image(&data, *labeled as usize);
    for _ in 0..2 {
        let message = fails("trainer", 1, arguments(&lost));
        assert!(message.contains("shards/part-"), "{message}");
        assert_eq!(checkpoints(&lost), ["step-4"], "{message}");
    }
    fs::write(&shard, before).expect("written");
    ok("trainer", arguments(&lost));
    assert_eq!(numbers(&lost), numbers(&whole));
    for file in ["best.safetensors", "latest/model.safetensors", "latest/state.json", "latest/ema.safetensors"] {
        let read = |run: &Path| fs::read(run.join(file)).expect("a file");
        assert!(read(&lost) == read(&whole), "{file}");
    }
}

#[test]
fn files_of_a_killed_first_checkpoint_are_replaced() {
    let temporary = folder();
    let data = dataset(temporary.path(), 20);
    let leftovers = ["config.toml.tmp", "metrics.jsonl.tmp", "events.out.tfevents.mrm.tmp", ".latest.tmp", ".lock"];
    for (number, name) in leftovers.into_iter().enumerate() {
        let run = temporary.path().join(number.to_string());
        fs::create_dir_all(run.join("checkpoints/.step-1.tmp")).expect("a folder");
        fs::write(run.join(name), "half of").expect("written");
        ok("trainer", pretraining(&data, &run, 2, &[]));
        let left: Vec<String> = contents(&run).into_keys().filter(|name| name.ends_with(".tmp")).collect();
        assert!(left.is_empty(), "{left:?}");
        assert_eq!(checkpoints(&run), ["step-2"]);
    }
    // A run that fails before its first step leaves nothing, even if a killed run left files before.
    let run = temporary.path().join("failing");
    fs::create_dir_all(run.join("checkpoints/.step-1.tmp")).expect("a folder");
    fs::write(run.join("metrics.jsonl.tmp"), "half of").expect("written");
    let unfit = [
        "--set",
        "model.vit.embed_dim=65536",
        "--set",
        "model.vit.image_size=8192",
        "--set",
        "model.vit.patch_size=4096",
    ];
    fails("trainer", 1, pretraining(&data, &run, 2, &unfit));
    assert!(!run.exists());
    // Other files in the folder are not removed.
    fs::create_dir_all(run.join("checkpoints/mine")).expect("a folder");
    let message = fails("trainer", 1, pretraining(&data, &run, 2, &[]));
    assert!(message.contains("holds other files (checkpoints) and no run"), "{message}");
}

#[test]
fn a_run_resumes_without_its_link_with_an_extra_checkpoint_or_a_damaged_log() {
    let temporary = folder();
    let data = dataset(temporary.path(), 60);
    let run = temporary.path().join("run");
    let settings = ["--set", "run.checkpoint_every=2"];
    ok("trainer", pretraining(&data, &run, 6, &settings));
    let (expected, last) = (numbers(&run), weights(&run));
    assert_eq!(checkpoints(&run), ["step-4", "step-6"]);

    // Without the link, commands that read the run find its newest checkpoint.
    fs::remove_file(run.join("latest")).expect("a link");
    let features = temporary.path().join("features.parquet");
    let embed = args!["embed", "--data", &data, "--weights", &run, "--device", "cpu", "--out", &features];
    let message = ok("trainer", embed.clone());
    assert!(message.contains("features each, written to"), "{message}");
    ok("trainer", args!["export", &run, "--to", "timm", "--out", temporary.path().join("timm")]);
    ok("trainer", args!["report", &run, "--out", temporary.path().join("report.html")]);
    let mut finetune =
        args!["finetune", "--data", &data, "--run", temporary.path().join("f"), "--split", "main"].to_vec();
    finetune.extend(args![
        "--task",
        "labels:Edema",
        "--init",
        &run,
        "--device",
        "cpu",
        "--steps",
        "2",
        "--batch-size",
        "4"
    ]);
    ok("trainer", finetune);
    // An incomplete checkpoint is skipped.
    fs::create_dir(run.join("checkpoints/step-9")).expect("a folder");
    ok("trainer", embed);
    fs::remove_dir(run.join("checkpoints/step-9")).expect("removed");

    // A kill after a checkpoint leaves the old link, and one checkpoint too many.
    fs::create_dir(run.join("checkpoints/step-2")).expect("a folder");
    fs::copy(run.join("checkpoints/step-4/state.json"), run.join("checkpoints/step-2/state.json")).expect("a copy");
    std::os::unix::fs::symlink("checkpoints/step-4", run.join("latest")).expect("a link");
    // Invalid UTF-8 in the middle of the log and in its last line.
    let log = run.join("metrics.jsonl");
    let mut lines = fs::read(&log).expect("a log");
    let second = lines.iter().position(|&byte| byte == b'\n').expect("a line") + 1;
    lines.splice(second..second, *b"{\"step\": 1, \xff\xfe}\n\0\0\0\0\n");
    lines.extend(b"{\"step\": \xff");
    fs::write(&log, lines).expect("written");
    let output = helpers::run("trainer", pretraining(&data, &run, 6, &settings));
    let message = text(&output.stderr);
    assert!(output.status.success() && message.contains("metrics.jsonl: 2 damaged lines are left out"), "{message}");
    assert_eq!(checkpoints(&run), ["step-4", "step-6"]);
    assert_eq!(fs::read_link(run.join("latest")).expect("a link"), Path::new("checkpoints/step-6"));
    assert_eq!(numbers(&run), expected);
    assert!(weights(&run) == last);
}

/// Programs that follow links when they copy a run leave a folder `latest`.
#[test]
fn a_copy_of_a_run_without_links_continues() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let (whole, copy) = (temporary.path().join("whole"), temporary.path().join("copy"));
    let to = |run: &Path, steps| pretraining(&data, run, steps, &["--set", "run.checkpoint_every=2"]);
    ok("trainer", to(&whole, 4));
    copy_folder(&whole, &copy);
    assert!(copy.join("latest").is_dir() && !copy.join("latest").is_symlink());
    for run in [&whole, &copy] {
        ok("trainer", to(run, 6));
    }
    assert_eq!(fs::read_link(copy.join("latest")).expect("a link"), Path::new("checkpoints/step-6"));
    assert!(weights(&copy) == weights(&whole));

    // A checkpoint that is nowhere else is not removed.
    fs::remove_file(copy.join("latest")).expect("a link");
    copy_folder(&copy.join("checkpoints/step-4"), &copy.join("latest"));
    fs::remove_dir_all(copy.join("checkpoints/step-4")).expect("removed");
    let before = contents(&copy);
    let message = fails("trainer", 1, to(&copy, 6));
    assert!(message.contains("latest is a folder with a checkpoint that is not in"), "{message}");
    assert!(contents(&copy) == before);
}
