//! Fine-tuning: which weights move, labels, length, and its end.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use dataset::format::record::{ImageEncoding, Record};
use helpers::{args, fails, folder, made_record, ok, run, text, write_dataset};
use serde_json::Value;
use trainer::config::{ClassifyConfig, FindingTask, Recipe, classify_preset};
use trainer::task::{Classify, DataSource, Missing, Request, Task};
use trainer::train::logger::read_metrics;
use training::{dataset, finetuning, numbers, pretrained};

fn state(file: &Path) -> Vec<(String, tch::Tensor)> {
    tch::Tensor::read_safetensors(file).expect("weights")
}

#[test]
fn a_linear_probe_trains_only_the_head_and_layer_decay_slows_early_layers() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 60);
    let start = state(&mrm.join("latest/model.safetensors"));
    let moved = |run: &Path, name: &str| {
        let find = |tensors: &[(String, tch::Tensor)]| {
            tensors.iter().find(|(known, _)| known == name).map(|(_, tensor)| tensor.shallow_clone())
        };
        let after = find(&state(&run.join("latest/model.safetensors"))).expect("a tensor");
        let before = find(&start).unwrap_or_else(|| after.zeros_like());
        (after - before).abs().max().double_value(&[])
    };
    let run = |name: &str, more: &[&str]| {
        let run = temporary.path().join("runs").join(name);
        ok("trainer", finetuning(&data, &run, &mrm, more));
        run
    };
    let probe = run("probe", &["--set", "optimizer.freeze_encoder=true"]);
    for name in ["blocks.0.attn.qkv.weight", "patch_embed.proj.weight", "cls_token", "pos_embed"] {
        assert_eq!(moved(&probe, name), 0.0, "{name}");
    }
    assert!(moved(&probe, "head.weight") > 1e-3);
    let whole = run("whole", &[]);
    let slow = run("slow", &["--set", "optimizer.layer_decay=0.01"]);
    let name = "patch_embed.proj.weight"; // two layers below the head: a ten-thousandth of the learning rate
    assert!(moved(&whole, name) > 1e-4 && moved(&slow, name) < moved(&whole, name) * 0.01);
}

/// Viral or bacterial pneumonia: a record without either label is not used.
#[test]
fn blank_labels_of_a_custom_task_are_not_negatives() {
    let temporary = folder();
    let data = temporary.path().join("set");
    // Viral is 1, 0 (bacterial), uncertain, or blank with another label; the last records have no label.
    let codes = |row: usize| match row {
        0..36 => [Some(1), Some(0), Some(1)],
        36..46 => [Some(0), Some(0), None],
        46..49 => [Some(-1), Some(0), None],
        49..66 => [None, Some(1), None],
        _ => [None; 3],
    };
    let record = |row: usize| Record {
        labels: codes(row).map(|code| code.and_then(dataset::Label::from_code)).to_vec(),
        ..made_record(row, (32, 32), 3)
    };
    write_dataset(&data, &["Viral", "Normal", "Ticked"], ImageEncoding::Raw, &[(0..72).map(record).collect()]);
    ok("dataset", args!["split", &data, "--name", "main", "--unit", "image", "--ratios", "100"]);
    let finetune = |name: &str, task: &str, more: &[&str]| {
        let run = temporary.path().join(name);
        let mut all = args!["finetune", "--data", &data, "--run", &run, "--split", "main", "--task", task].to_vec();
        all.extend(args!["--preset", "mrm-vit-tiny", "--steps", "2", "--batch-size", "4", "--device", "cpu"]);
        all.extend(args!["--set", "model.vit.image_size=32", "--set", "model.vit.num_layers=1"]);
        all.extend(more.iter().map(Into::into));
        (run, all)
    };
    // The sums of the evaluations of the three subsets, and their number of records.
    let evaluations = |run: &Path| -> ([u64; 4], u64) {
        let of_subset = |subset: &str| {
            let all = args!["evaluate", "--data", &data, "--run", run, "--split", "main", "--subset", subset];
            let message = ok("trainer", all.into_iter().chain(args!["--draws", "10"]));
            let report: Value = dataset::store::files::read_json(&run.join(format!("evaluation-{subset}.json")))
                .expect("an evaluation");
            let finding = &report["findings"][0];
            let count = |key: &str| finding[key].as_u64().unwrap_or_else(|| panic!("{key}: {finding}"));
            let how = if finding["blank_as"] == "ignore" { "ignored" } else { "counted as negative" };
            assert!(message.contains(&format!("{} blank {how}", count("blank"))), "{message}");
            let records = report["records"].as_u64().expect("records");
            (["positives", "negatives", "uncertain", "blank"].map(count), records)
        };
        let all = ["train", "validate", "test"].map(of_subset);
        let sum = |at: usize| all.iter().map(|(counts, _)| counts[at]).sum();
        ([sum(0), sum(1), sum(2), sum(3)], all.iter().map(|(_, records)| records).sum())
    };
    let of_train = |run: &Path| -> u64 {
        let report: Value =
            dataset::store::files::read_json(&run.join("evaluation-train.json")).expect("an evaluation");
        report["records"].as_u64().expect("records")
    };

    let (run, all) = finetune("own", "labels:Viral", &[]);
    let message = ok("trainer", all);
    // Uncertain labels are negatives by default; blank ones are ignored in training and evaluation.
    assert_eq!(evaluations(&run), ([36, 13, 3, 17], 49));
    let line = message.lines().find(|line| line.trim_start().starts_with("Viral ")).expect("a line").trim();
    assert!(line.contains(" blank ignored)") && line.contains(" uncertain counted as negative"), "{message}");
    assert!(message.contains(&format!("{} labeled records", of_train(&run))), "{message}");

    let (run, all) = finetune("zeros", "labels:Viral", &["--set", "data.missing=zeros"]);
    let message = ok("trainer", all);
    assert!(message.contains(" blank counted as negative"), "{message}");
    assert_eq!(evaluations(&run), ([36, 30, 3, 17], 66));

    // A table with positives and blanks only: the message names the remedy.
    let message = fails("trainer", 1, finetune("ticked", "labels:Ticked", &[]).1);
    assert!(
        message.contains("there is nothing to learn") && message.contains("add --set data.missing=zeros"),
        "{message}"
    );
    ok("trainer", finetune("ticked", "labels:Ticked", &["--set", "data.missing=zeros"]).1);
    let output = helpers::run("trainer", finetune("both", "labels:Viral,Ticked", &[]).1);
    let message = text(&output.stderr);
    assert!(output.status.success() && message.contains("no negative among the"), "{message}");
    assert!(message.contains("Ticked (blank labels are ignored: "), "{message}");

    // Tasks of published datasets keep their convention for blank labels.
    let missing = |task: &str| {
        let task = FindingTask::parse(task).expect("a task");
        classify_preset("mrm-vit-tiny", &task, 100.0).expect("a preset").data.missing
    };
    assert_eq!(["chexpert5", "covid"].map(missing), [Missing::Zeros; 2]);
    assert_eq!(["nih14", "rsna", "viral", "labels:Edema"].map(missing), [Missing::Ignore; 4]);
}

#[test]
fn the_length_of_a_custom_task_follows_from_its_records() {
    let temporary = folder();
    let data = dataset(temporary.path(), 80);
    let source = DataSource::open(&data, Some("main")).expect("a dataset");
    let resolved = |steps, epochs, settings: &[&str]| {
        let zeros = ["data.missing=zeros"];
        let settings: Vec<String> = settings.iter().chain(&zeros).map(|setting| (*setting).to_owned()).collect();
        let request = Request {
            task: "labels:Cardiomegaly",
            init: None,
            init_name: None,
            model: None,
            preset: Some("mrm-vit-b16"),
            recipe: Recipe::Release,
            source: &source,
            ratio: 100.0,
            steps,
            epochs,
            file: None,
            settings: &settings,
        };
        let config = Classify.resolve(&request).expect("a configuration");
        let warnings = Classify.prepare(&config, &source).expect("it can begin").warnings;
        (config.read::<ClassifyConfig>().expect("of a classifier"), warnings)
    };
    let length = |(config, _): &(ClassifyConfig, Vec<String>)| {
        let optimizer = &config.optimizer.schedule;
        (optimizer.steps, optimizer.warmup, optimizer.evaluate_every, optimizer.patience)
    };
    // Fewer records than a batch: the minimum number of steps, not two hundred thousand.
    assert_eq!(length(&resolved(None, None, &[])), (500, 25, 10, 10));
    // One record per batch: fifty epochs, each with an evaluation.
    let single = resolved(None, None, &["optimizer.batch_size=1"]);
    let (steps, warmup, every, patience) = length(&single);
    assert!(steps % 50 == 0 && steps > 500, "{steps}");
    assert_eq!((warmup, every, patience), (steps / 20, steps / 50, 10));
    assert!(!single.1.iter().any(|warning| warning.contains("epochs")), "{:?}", single.1);
    let (double, ..) = length(&resolved(None, Some(100.0), &["optimizer.batch_size=1"]));
    assert_eq!(double, 2 * steps);
    // Many epochs without early stopping give a warning.
    let long = resolved(Some(200_000), None, &["optimizer.patience=0"]);
    assert_eq!(length(&long), (200_000, 10_000, 4_000, 0));
    let is_long = |warning: &String| warning.starts_with("200000 steps are ") && warning.contains(" epochs of the ");
    assert!(long.1.iter().any(is_long), "{:?}", long.1);
    // The learning rate follows the length and the optimizer, unless it is given.
    let lr = |steps, settings: &[&str]| resolved(steps, None, settings).0.optimizer.schedule.lr;
    assert_eq!((lr(None, &[]), lr(Some(3_000), &[]), lr(Some(3_001), &[])), (3e-2, 3e-2, 3e-3));
    assert_eq!((lr(None, &["optimizer.steps=3001"]), lr(Some(9_000), &["optimizer.lr=0.5"])), (3e-3, 0.5));
    let adamw = "optimizer.kind=adamw";
    assert_eq!((lr(None, &[adamw]), lr(None, &[adamw, "optimizer.lr=2e-4"])), (1e-3, 2e-4));
    // An epoch is some batches even of few records: no step takes the whole set.
    assert_eq!(long.0.optimizer.schedule.batch_size, 16);

    // From the command line.
    let run = temporary.path().join("run");
    let mut all =
        args!["finetune", "--data", &data, "--run", &run, "--split", "main", "--preset", "mrm-vit-tiny"].to_vec();
    all.extend(args!["--task", "labels:Cardiomegaly", "--device", "cpu", "--epochs", "2", "--batch-size", "16"]);
    all.extend(args!["--set", "model.vit.num_layers=1", "--set", "run.log_every=1"]);
    let printed = ok("trainer", &all);
    assert!(printed.contains("(2.0 epochs), on cpu with") && printed.contains("patience = 10"), "{printed}");
    let logged = read_metrics(&run).expect("a log").lines;
    let last = logged.iter().rfind(|line| line["loss"].is_f64()).expect("a step");
    assert_eq!(last["epoch"], 2.0);
    let endless = all.iter().map(|word| if word == "2" { "1e300".into() } else { word.clone() });
    assert!(fails("trainer", 2, endless).contains("at most 1000000"), "too many");
    all.extend(args!["--steps", "3"]);
    assert!(fails("trainer", 2, &all).contains("cannot be used with"), "one length");
}

/// The state in the newest checkpoint of a run, without its tensors.
fn state_of(run: &Path) -> Value {
    dataset::store::files::read_json(&run.join("latest/state.json")).expect("a state")
}

#[test]
fn patience_ends_a_run_when_its_score_stops_rising() {
    let temporary = folder();
    let data = dataset(temporary.path(), 60);
    let run = temporary.path().join("run");
    // With a learning rate of 0 the first evaluation is the best.
    let finetuning = |patience: &str| {
        let mut all =
            args!["finetune", "--data", &data, "--run", &run, "--split", "main", "--preset", "mrm-vit-tiny"].to_vec();
        all.extend(args!["--task", "chexpert5", "--device", "cpu", "--steps", "12", "--batch-size", "8"]);
        for setting in
            ["model.vit.num_layers=1", "optimizer.lr=0.0", "optimizer.evaluate_every=1", "run.checkpoint_every=1"]
        {
            all.extend(args!["--set", setting]);
        }
        all.extend(args!["--set", "run.log_every=1", "--set", "run.keep_last=20", "--patience", patience]);
        all
    };
    let ends = |patience: &str, words: &str| {
        let output = helpers::run("trainer", finetuning(patience));
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && out.contains("done: ") && err.contains(words), "{out}\n{err}");
        assert_eq!(state_of(&run)["best"][1], 1, "the best weights are kept");
        numbers(&run)
    };
    let log = ends(
        "3",
        "ended after 4 of 12 steps: no better validation score in 3 evaluations (optimizer.patience = 3; the",
    );
    assert_eq!((&state_of(&run)["step"], &state_of(&run)["since_best"]), (&4.into(), &3.into()));
    assert!(log.iter().rfind(|line| line["validate_auroc"].is_f64()).expect("an evaluation")["ended_early"] == true);
    // The run is finished.
    let again = fs::metadata(run.join("latest/model.safetensors")).expect("weights").modified().expect("a time");
    assert_eq!(ends("3", "ended after 4 of 12"), log);
    assert_eq!(fs::metadata(run.join("latest/model.safetensors")).expect("weights").modified().expect("a time"), again);
    let output =
        helpers::run("trainer", args!["evaluate", "--data", &data, "--run", &run, "--split", "main", "--draws", "10"]);
    assert!(output.status.success() && !text(&output.stderr).contains("of its 12 steps"), "{output:?}");
    // Killed before its last evaluations, it ends at the same step.
    for step in [3, 4] {
        fs::remove_dir_all(run.join(format!("checkpoints/step-{step}"))).expect("removed");
    }
    assert_eq!(ends("3", "ended after 4 of 12"), log);
    // With more patience the run continues.
    ends("5", "ended after 6 of 12");
    assert_eq!(ends("0", "next: ").iter().filter(|line| line["validate_auroc"].is_f64()).count(), 12);
    assert_eq!(state_of(&run)["step"], 12);

    // A sweep takes such a run as finished.
    let sweeps = temporary.path().join("sweep");
    let mut sweep =
        args!["sweep", "--data", &data, "--out", &sweeps, "--task", "labels:Cardiomegaly", "--split", "main"].to_vec();
    sweep.extend(args!["--steps", "12", "--draws", "20", "--device", "cpu", "--preset", "mrm-vit-tiny"]);
    sweep.extend(args!["--init", "scratch=random", "--patience", "1", "--set", "optimizer.lr=0.0"]);
    ok("trainer", &sweep);
    let one = sweeps.join("scratch-main-100-seed0");
    let report: Value = dataset::store::files::read_json(&one.join("evaluation-test.json")).expect("an evaluation");
    assert_eq!((&report["steps"], &state_of(&one)["step"]), (&2.into(), &2.into()));
    let printed = ok("trainer", &sweep);
    assert!(printed.contains("run 1 of 1") && !printed.contains("test AUROC 0"), "no run is repeated: {printed}");
}

#[test]
fn weights_of_an_unfinished_pretraining_are_reported() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 60);
    let runs = temporary.path().join("runs");
    let warned = |arguments: Vec<OsString>| {
        let output = run("trainer", arguments);
        let message = text(&output.stderr);
        assert!(output.status.success(), "{message}");
        message.lines().filter(|line| line.contains("of its 400 steps: these are its weights so far")).count()
    };
    let sweep = |name: &str| {
        let mut all =
            args!["sweep", "--data", &data, "--out", runs.join(name), "--task", "labels:Cardiomegaly"].to_vec();
        all.extend(args!["--split", "main", "--ratios", "50,100", "--steps", "1", "--draws", "10", "--device", "cpu"]);
        all.extend(args!["--init", format!("mrm={}", mrm.display()), "--set", "optimizer.batch_size=4"]);
        all
    };
    let commands = |name: &str| {
        let out = runs.join(format!("{name}.parquet"));
        let embed = args!["embed", "--data", &data, "--weights", &mrm, "--device", "cpu", "--out", out].to_vec();
        [finetuning(&data, &runs.join(name), &mrm, &[]), sweep(&format!("sweep-{name}")), embed]
    };
    assert_eq!(commands("done").map(warned), [0, 0, 0]);
    // Stopped early, with a length in steps.
    let file = mrm.join("config.toml");
    let config = fs::read_to_string(&file).expect("a configuration");
    let with_steps = |steps: u32| config.replace("\nsteps = 4\n", &format!("\nsteps = {steps}\n"));
    assert_ne!(with_steps(400), config);
    fs::write(&file, with_steps(400)).expect("written");
    assert_eq!(commands("updates").map(warned), [1, 1, 1]);
    // With a length in epochs, the checkpoint contains the number of steps.
    fs::write(&file, with_steps(0)).expect("written");
    assert_eq!(commands("epochs").map(warned), [0, 0, 0]);
    let file = mrm.join("latest/state.json");
    let state = fs::read_to_string(&file).expect("a state");
    assert!(state.contains("\"total\": 4,"), "{state}");
    fs::write(&file, state.replace("\"total\": 4,", "\"total\": 400,")).expect("written");
    assert_eq!(commands("stopped").map(warned), [1, 1, 1]);
}
