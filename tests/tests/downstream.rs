//! What comes after pre-training: probes, policies, evaluation, comparison, features, sweeps.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{Array, FixedSizeListArray, Float32Array, StringArray};
use dataset::format::record::{ImageEncoding, Record};
use dataset::transform::Transform;
use mrm_tests::training::{dataset, numbers, pretraining};
use mrm_tests::{args, fails, folder, made_record, ok, run, text, write_dataset};
use serde_json::Value;
use tch::Device;
use tch::nn::VarStore;
use trainer::commands::{DataSource, Finetuning, Request, prepare_finetune, resolve_finetune};
use trainer::config::{FinetuneConfig, PretrainConfig, Task, finetune_preset};
use trainer::model::classifier::{ClassifierConfig, VitClassifier};
use trainer::task::Missing;
use trainer::task::objective::images;
use trainer::train::run_dir;

/// A pre-trained run, and the dataset it saw.
fn pretrained(folder: &Path, studies: usize) -> (PathBuf, PathBuf) {
    let data = dataset(folder, studies);
    let run = folder.join("runs/mrm");
    ok("trainer", pretraining(&data, &run, 4, &[]));
    (data, run)
}

fn finetuning(data: &Path, run: &Path, init: &Path, more: &[&str]) -> Vec<OsString> {
    let mut all = args!["finetune", "--data", data, "--run", run, "--init", init, "--split", "main"].to_vec();
    all.extend(args!["--task", "labels:Cardiomegaly,Edema", "--device", "cpu", "--steps", "6", "--batch-size", "8"]);
    all.extend(more.iter().map(Into::into));
    all
}

fn evaluate(data: &Path, run: &Path) -> Value {
    ok("trainer", args!["evaluate", "--data", data, "--run", run, "--split", "main", "--draws", "50"]);
    dataset::store::files::read_json(&run.join("evaluation-test.json")).expect("an evaluation")
}

fn state(file: &Path) -> Vec<(String, tch::Tensor)> {
    tch::Tensor::read_safetensors(file).expect("weights")
}

#[test]
fn a_linear_probe_moves_the_head_alone_and_layer_decay_slows_the_early_layers() {
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
    let probe = run("probe", &["--set", "optimizer.linear_probe=true"]);
    for name in ["blocks.0.attn.qkv.weight", "patch_embed.proj.weight", "cls_token", "pos_embed"] {
        assert_eq!(moved(&probe, name), 0.0, "{name}");
    }
    assert!(moved(&probe, "head.weight") > 1e-3);
    let whole = run("whole", &[]);
    let slow = run("slow", &["--set", "optimizer.layer_decay=0.01"]);
    let name = "patch_embed.proj.weight"; // two layers below the head: a ten-thousandth of the rate
    assert!(moved(&whole, name) > 1e-4 && moved(&slow, name) < moved(&whole, name) * 0.01);
}

#[test]
fn evaluations_are_told_compared_and_swept() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 80);
    let runs = temporary.path().join("runs");
    let tuned = |name: &str, more: &[&str]| {
        let run = runs.join(name);
        ok("trainer", finetuning(&data, &run, &mrm, more));
        (evaluate(&data, &run), run)
    };
    let (report, first) = tuned("first", &[]);
    let (other, second) = tuned("second", &["--seed", "1"]);
    for metric in ["auroc", "average_precision", "sensitivity", "brier", "calibration_error"] {
        for scores in [&report["findings"][0], &report["mean"]] {
            let value = |key: &str| scores[metric][key].as_f64().unwrap_or_else(|| panic!("{metric}: {scores}"));
            assert!(value("low") <= value("value") && value("value") <= value("high"), "{metric}: {scores}");
        }
    }
    // The difference is the one of both evaluations, on the same records.
    let out = temporary.path().join("difference.json");
    let compare = |a: &Path, b: &Path| args!["compare", a, b, "--draws", "100", "--out", &out];
    let told = ok("trainer", compare(&first, &second));
    assert!(told.contains(" p = ") && told.contains("Cardiomegaly"), "{told}");
    let difference: Value = dataset::store::files::read_json(&out).expect("a comparison");
    let auroc = |report: &Value| report["findings"][0]["auroc"]["value"].as_f64().expect("an AUROC");
    assert!((auroc(&difference) - (auroc(&other) - auroc(&report))).abs() < 1e-12);
    let told = ok("trainer", compare(&first, &first));
    assert!(told.contains("+0.000 (+0.000 to +0.000) p = 1.000"), "{told}");
    assert!(fails("trainer", 1, args!["compare", &first, runs.join("none")]).contains("none does not exist"));
    let told = fails("trainer", 1, args!["compare", &first, &mrm]);
    assert!(told.contains("run `trainer evaluate --subset test`"), "{told}");

    // A run that has not made all its updates is evaluated, with a word about it.
    let config = fs::read_to_string(first.join("config.toml")).expect("a configuration");
    let steps = config.lines().find(|line| line.starts_with("steps = ")).expect("updates");
    fs::write(first.join("config.toml"), config.replace(steps, "steps = 400")).expect("written");
    let output =
        run("trainer", args!["evaluate", "--data", &data, "--run", &first, "--split", "main", "--draws", "10"]);
    assert!(output.status.success() && text(&output.stderr).contains("of its 400 updates"), "{output:?}");
    fs::write(first.join("config.toml"), config).expect("written");

    // Uncertain labels by finding: more positives than with the default.
    let (_, ones) = tuned("ones", &["--set", "data.uncertain_by_finding=[\"Edema=ones\"]"]);
    let positives = |run: &Path, finding: usize| {
        let of_train = args!["--subset", "train", "--draws", "10"];
        let all = args!["evaluate", "--data", &data, "--run", run, "--split", "main"];
        ok("trainer", all.into_iter().chain(of_train));
        let report: Value =
            dataset::store::files::read_json(&run.join("evaluation-train.json")).expect("an evaluation");
        report["findings"][finding]["positives"].as_u64()
    };
    assert!(positives(&ones, 1) > positives(&first, 1));
    assert_eq!(positives(&ones, 0), positives(&first, 0));
    for (setting, words) in
        [("Hernia=ones", "the task has no finding `Hernia`"), ("Edema=maybe", "is not FINDING=zeros|ones|ignore")]
    {
        let setting = format!("data.uncertain_by_finding=[\"{setting}\"]");
        let told = fails("trainer", 1, finetuning(&data, &runs.join("x"), &mrm, &["--set", &setting]));
        assert!(told.contains(words), "{told}");
    }

    let sweeps = temporary.path().join("sweep");
    let sweep = || {
        let mut all = args!["sweep", "--data", &data, "--out", &sweeps, "--task", "labels:Cardiomegaly"].to_vec();
        all.extend(args!["--split", "main", "--ratios", "50,100", "--seeds", "0,1", "--steps", "3", "--draws", "20"]);
        all.extend(args!["--device", "cpu", "--start", "scratch=random"]);
        all.extend(args!["--start", format!("mrm={}", mrm.display()), "--set", "optimizer.batch_size=8"]);
        all
    };
    let told = ok("trainer", sweep());
    assert!(told.contains("all starts train the same model: mrm-vit-tiny (1 blocks of width 32, "), "{told}");
    assert!(told.contains("run 8 of 8") && told.contains("| mrm |") && told.contains("(2 runs)"), "{told}");
    let cells: Value = dataset::store::files::read_json(&sweeps.join("sweep.json")).expect("cells");
    let mean = |seed: u64| {
        let report: Value =
            dataset::store::files::read_json(&sweeps.join(format!("mrm-main-100-seed{seed}/evaluation-test.json")))
                .expect("one");
        report["mean"]["auroc"]["value"].as_f64().expect("an AUROC")
    };
    let cell = cells.as_array().expect("a list").iter().find(|cell| cell["start"] == "mrm" && cell["ratio"] == 100.0);
    let of_cell = cell.expect("a cell")["auroc"]["mean"].as_f64().expect("a mean");
    assert!((of_cell - f64::midpoint(mean(0), mean(1))).abs() < 1e-12);
    let page = fs::read_to_string(sweeps.join("report.html")).expect("a page");
    assert!(page.contains("<td>scratch</td>") && page.contains("2 runs"), "a table of both starts");
    // Runs that saw other shares of the labels are compared, with a word about it.
    let of = |ratio: u32| sweeps.join(format!("mrm-main-{ratio}-seed0"));
    let warned = |a: PathBuf, b: PathBuf| text(&run("trainer", args!["compare", a, b, "--draws", "10"]).stderr);
    let told = warned(of(50), of(100));
    assert!(
        told.starts_with("warning: ") && told.contains("mrm-main-50-seed0 was trained on 50% of the labels"),
        "{told}"
    );
    assert_eq!(warned(of(50), of(50)), "");
    let mut nameless = sweep();
    nameless.extend(args!["--start", "random"]);
    assert!(fails("trainer", 2, nameless).contains("did you mean `scratch=random`?"));
    // More updates go on from those that are made, and are evaluated anew.
    let state = |name: &str| -> Value {
        dataset::store::files::read_json(&sweeps.join("mrm-main-100-seed1").join(name)).expect("a file")
    };
    let longer = || sweep().into_iter().map(|word| if word == "3" { "5".into() } else { word });
    assert_eq!(state("evaluation-test.json")["updates"], 3);
    ok("trainer", longer());
    assert_eq!(
        (&state("evaluation-test.json")["updates"], &state("latest/state.json")["step"]),
        (&5.into(), &5.into())
    );
    let sweep = longer;
    // What is done is not done again.
    let before = fs::metadata(sweeps.join("mrm-main-100-seed1/latest/model.safetensors")).expect("weights");
    ok("trainer", sweep());
    let after = fs::metadata(sweeps.join("mrm-main-100-seed1/latest/model.safetensors")).expect("weights");
    assert_eq!(before.modified().expect("a time"), after.modified().expect("a time"));
}

/// A baseline is the same model as what it is compared with, or it is said that it is not.
#[test]
fn a_baseline_is_the_same_model() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 60);
    let runs = temporary.path().join("runs");
    let wide = runs.join("wide");
    ok("trainer", pretraining(&data, &wide, 1, &["--set", "model.vit.width=64"]));
    let sweeps = temporary.path().join("sweep");
    let sweep = |starts: &[String], more: &[&str]| {
        let mut all =
            args!["sweep", "--data", &data, "--out", &sweeps, "--task", "chexpert5", "--split", "main"].to_vec();
        all.extend(args!["--steps", "2", "--draws", "10", "--device", "cpu", "--set", "optimizer.batch_size=4"]);
        all.extend(starts.iter().flat_map(|start| args!["--start", start]));
        all.extend(more.iter().map(Into::into));
        all
    };
    let start = |name: &str, weights: &Path| format!("{name}={}", weights.display());
    // A file of weights that lies in no run, and random start values, take the model of the run.
    let file = temporary.path().join("weights.safetensors");
    fs::copy(mrm.join("latest/model.safetensors"), &file).expect("copied");
    let starts = ["scratch=random".to_owned(), start("file", &file), start("mrm", &mrm)];
    ok("trainer", sweep(&starts, &[]));
    let config = |name: &str| -> FinetuneConfig {
        run_dir::load_config(&sweeps.join(format!("{name}-main-100-seed0"))).expect("a configuration")
    };
    let of_run = config("mrm");
    assert_eq!((of_run.model.vit.width, of_run.model.vit.depth), (32, 1), "not the preset's sizes");
    for (name, init) in [("scratch", "random".to_owned()), ("file", file.display().to_string())] {
        let other = config(name);
        assert_eq!((&other.start, &other.init), (&name.to_owned(), &init));
        assert_eq!(FinetuneConfig { init: of_run.init.clone(), start: of_run.start.clone(), ..other }, of_run);
    }

    let told = fails("trainer", 1, sweep(&[start("mrm", &mrm), start("wide", &wide)], &[]));
    for words in ["--start mrm=", "(1 blocks of width 32", "--start wide=", "(1 blocks of width 64", "the same model"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let told = fails("trainer", 1, sweep(&[start("mrm", &mrm)], &["--preset", "mrm-vit-s16"]));
    assert!(told.contains("is mrm-vit-tiny (") && told.contains("not mrm-vit-s16: leave --preset out"), "{told}");

    // Without --init, the model is named; another model than a run's is noticed when the two are compared.
    let scratch = runs.join("scratch");
    let mut all =
        args!["finetune", "--data", &data, "--run", &scratch, "--split", "main", "--task", "chexpert5"].to_vec();
    all.extend(args!["--preset", "mrm-vit-tiny", "--steps", "1", "--batch-size", "4", "--device", "cpu"]);
    let output = run("trainer", all);
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("no --init: random initialization of mrm-vit-tiny (4 blocks of width 128, "), "{told}");
    let default = args!["finetune", "--data", &data, "--run", runs.join("x"), "--split", "main", "--task", "chexpert5"];
    let told = fails("trainer", 2, default.into_iter().chain(args!["--set", "optimizer.warmup=9999999"]));
    assert!(told.contains("random initialization of mrm-vit-b16 (12 blocks") && told.contains("--preset"), "{told}");
    evaluate(&data, &scratch);
    let pretrained = sweeps.join("mrm-main-100-seed0");
    let compared = |first: &Path| {
        let output = run("trainer", args!["compare", first, &pretrained, "--draws", "10"]);
        assert!(output.status.success(), "{output:?}");
        text(&output.stderr)
    };
    assert!(compared(&scratch).contains("warning: the runs train different models: "));
    assert!(!compared(&sweeps.join("scratch-main-100-seed0")).contains("different models"));
}

/// Viral or bacterial: a record of neither is not one of the two.
#[test]
fn blank_labels_of_a_task_of_ones_own_are_no_negatives() {
    let temporary = folder();
    let data = temporary.path().join("set");
    // Viral is 1, 0 (bacterial), uncertain, or blank beside another label; the last records have no label at all.
    let codes = |row: usize| match row {
        0..36 => [Some(1), Some(0), Some(1)],
        36..46 => [Some(0), Some(0), None],
        46..49 => [Some(-1), Some(0), None],
        49..66 => [None, Some(1), None],
        _ => [None; 3],
    };
    let record = |row: usize| Record { labels: codes(row).to_vec(), ..made_record(row, (32, 32), 3) };
    write_dataset(&data, &["Viral", "Normal", "Ticked"], ImageEncoding::Raw, &[(0..72).map(record).collect()]);
    ok("dataset", args!["split", &data, "--name", "main", "--unit", "image", "--ratios", "100"]);
    let finetune = |name: &str, task: &str, more: &[&str]| {
        let run = temporary.path().join(name);
        let mut all = args!["finetune", "--data", &data, "--run", &run, "--split", "main", "--task", task].to_vec();
        all.extend(args!["--preset", "mrm-vit-tiny", "--steps", "2", "--batch-size", "4", "--device", "cpu"]);
        all.extend(args!["--set", "model.vit.image_size=32", "--set", "model.vit.depth=1"]);
        all.extend(more.iter().map(Into::into));
        (run, all)
    };
    // What the evaluations of the three subsets say together, and how many records they are of.
    let evaluations = |run: &Path| -> ([u64; 4], u64) {
        let of_subset = |subset: &str| {
            let all = args!["evaluate", "--data", &data, "--run", run, "--split", "main", "--subset", subset];
            let told = ok("trainer", all.into_iter().chain(args!["--draws", "10"]));
            let report: Value = dataset::store::files::read_json(&run.join(format!("evaluation-{subset}.json")))
                .expect("an evaluation");
            let finding = &report["findings"][0];
            let count = |key: &str| finding[key].as_u64().unwrap_or_else(|| panic!("{key}: {finding}"));
            let how = if finding["blank_as"] == "ignore" { "ignored" } else { "counted as negative" };
            assert!(told.contains(&format!("{} blank {how}", count("blank"))), "{told}");
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
    let told = ok("trainer", all);
    // Uncertain ones are negatives by default; no blank one is, in training and evaluation.
    assert_eq!(evaluations(&run), ([36, 13, 3, 17], 49));
    let line = told.lines().find(|line| line.trim_start().starts_with("Viral ")).expect("a line").trim();
    assert!(line.contains(" blank ignored)") && line.contains(" uncertain counted as negative"), "{told}");
    assert!(told.contains(&format!("{} labeled records", of_train(&run))), "{told}");

    let (run, all) = finetune("zeros", "labels:Viral", &["--set", "data.missing=zeros"]);
    let told = ok("trainer", all);
    assert!(told.contains(" blank counted as negative"), "{told}");
    assert_eq!(evaluations(&run), ([36, 30, 3, 17], 66));

    // A table that ticks positives and leaves the rest blank: the remedy is told.
    let told = fails("trainer", 1, finetune("ticked", "labels:Ticked", &[]).1);
    assert!(told.contains("there is nothing to learn") && told.contains("add --set data.missing=zeros"), "{told}");
    ok("trainer", finetune("ticked", "labels:Ticked", &["--set", "data.missing=zeros"]).1);
    let output = mrm_tests::run("trainer", finetune("both", "labels:Viral,Ticked", &[]).1);
    let told = text(&output.stderr);
    assert!(output.status.success() && told.contains("no negative among the"), "{told}");
    assert!(told.contains("Ticked (blank labels are ignored: "), "{told}");

    // Tasks of published data keep the convention of their labels.
    let missing = |task: &str| {
        let task = Task::parse(task).expect("a task");
        finetune_preset("mrm-vit-tiny", &task, 100.0).expect("a preset").data.missing
    };
    assert_eq!(["chexpert5", "covid"].map(missing), [Missing::Zeros; 2]);
    assert_eq!(["nih14", "rsna", "viral", "labels:Edema"].map(missing), [Missing::Ignore; 4]);
}

#[test]
fn a_task_of_ones_own_is_as_long_as_its_records_say() {
    let temporary = folder();
    let data = dataset(temporary.path(), 80);
    let source = DataSource::open(&data, Some("main")).expect("a dataset");
    let resolved = |steps, epochs, settings: &[&str]| {
        let zeros = ["data.missing=zeros"];
        let settings: Vec<String> = settings.iter().chain(&zeros).map(|setting| (*setting).to_owned()).collect();
        let request = Request {
            task: "labels:Cardiomegaly",
            init: None,
            preset: Some("mrm-vit-b16"),
            source: &source,
            ratio: 100.0,
            steps,
            epochs,
            file: None,
            settings: &settings,
        };
        prepare_finetune(resolve_finetune(&request).expect("a configuration"), &source).expect("it can begin")
    };
    let length = |run: &Finetuning| {
        let optimizer = &run.config().optimizer;
        (optimizer.steps, optimizer.warmup, optimizer.evaluate_every, optimizer.patience)
    };
    // Fewer records than a batch: the least that there is, and no two hundred thousand updates.
    assert_eq!(length(&resolved(None, None, &[])), (500, 25, 10, 10));
    // One record a batch: fifty epochs, of which each is evaluated.
    let single = resolved(None, None, &["optimizer.batch_size=1"]);
    let (steps, warmup, every, patience) = length(&single);
    assert!(steps % 50 == 0 && steps > 500, "{steps}");
    assert_eq!((warmup, every, patience), (steps / 20, steps / 50, 10));
    assert!(!single.remarks().iter().any(|remark| remark.contains("epochs")), "{:?}", single.remarks());
    let (double, ..) = length(&resolved(None, Some(100.0), &["optimizer.batch_size=1"]));
    assert_eq!(double, 2 * steps);
    // Many epochs without early stopping are told of.
    let long = resolved(Some(200_000), None, &["optimizer.patience=0"]);
    assert_eq!(length(&long), (200_000, 10_000, 4_000, 0));
    assert!(
        long.remarks().iter().any(|remark| remark.starts_with("200000 updates are 200000 epochs of the ")),
        "no warning"
    );

    // As a user gives it.
    let run = temporary.path().join("run");
    let mut all =
        args!["finetune", "--data", &data, "--run", &run, "--split", "main", "--preset", "mrm-vit-tiny"].to_vec();
    all.extend(args!["--task", "labels:Cardiomegaly", "--device", "cpu", "--epochs", "2", "--batch-size", "16"]);
    all.extend(args!["--set", "model.vit.depth=1", "--set", "run.log_every=1"]);
    let told = ok("trainer", &all);
    assert!(told.contains("(2.0 epochs), on cpu with") && told.contains("patience = 10"), "{told}");
    let logged = run_dir::read_metrics(&run).expect("a log");
    let last = logged.iter().rfind(|line| line["loss"].is_f64()).expect("an update");
    assert_eq!(last["epoch"], 2.0);
    let endless = all.iter().map(|word| if word == "2" { "1e300".into() } else { word.clone() });
    assert!(fails("trainer", 2, endless).contains("at most 1000000"), "too many");
    all.extend(args!["--steps", "3"]);
    assert!(fails("trainer", 2, &all).contains("cannot be used with"), "one length");
}

#[test]
fn a_run_ends_when_its_score_no_longer_rises() {
    let temporary = folder();
    let data = dataset(temporary.path(), 60);
    let run = temporary.path().join("run");
    // At a rate of 0 the first evaluation is the best.
    let finetuning = |patience: &str| {
        let mut all =
            args!["finetune", "--data", &data, "--run", &run, "--split", "main", "--preset", "mrm-vit-tiny"].to_vec();
        all.extend(args!["--task", "chexpert5", "--device", "cpu", "--steps", "12", "--batch-size", "8"]);
        for setting in
            ["model.vit.depth=1", "optimizer.rate=0.0", "optimizer.evaluate_every=1", "run.checkpoint_every=1"]
        {
            all.extend(args!["--set", setting]);
        }
        all.extend(args!["--set", "run.log_every=1", "--set", "run.keep_last=20", "--patience", patience]);
        all
    };
    let ends = |patience: &str, words: &str| {
        let output = mrm_tests::run("trainer", finetuning(patience));
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && out.contains("done: ") && err.contains(words), "{out}\n{err}");
        assert_eq!(state_of(&run)["best"][1], 1, "the best weights are kept");
        numbers(&run)
    };
    let log = ends(
        "3",
        "ended after 4 of 12 updates: no better validation score in 3 evaluations (optimizer.patience = 3; the",
    );
    assert_eq!((&state_of(&run)["step"], &state_of(&run)["since_best"]), (&4.into(), &3.into()));
    assert!(log.iter().rfind(|line| line["validate_auroc"].is_f64()).expect("an evaluation")["ended_early"] == true);
    // The run is whole.
    let again = fs::metadata(run.join("latest/model.safetensors")).expect("weights").modified().expect("a time");
    assert_eq!(ends("3", "ended after 4 of 12"), log);
    assert_eq!(fs::metadata(run.join("latest/model.safetensors")).expect("weights").modified().expect("a time"), again);
    let output = mrm_tests::run(
        "trainer",
        args!["evaluate", "--data", &data, "--run", &run, "--split", "main", "--draws", "10"],
    );
    assert!(output.status.success() && !text(&output.stderr).contains("of its 12 updates"), "{output:?}");
    // Killed before its last evaluations, it ends at the same place.
    for step in [3, 4] {
        fs::remove_dir_all(run.join(format!("checkpoints/step-{step}"))).expect("removed");
    }
    assert_eq!(ends("3", "ended after 4 of 12"), log);
    // More patience goes on.
    ends("5", "ended after 6 of 12");
    assert_eq!(ends("0", "next: ").iter().filter(|line| line["validate_auroc"].is_f64()).count(), 12);
    assert_eq!(state_of(&run)["step"], 12);

    // A sweep takes such a run for done.
    let sweeps = temporary.path().join("sweep");
    let mut sweep =
        args!["sweep", "--data", &data, "--out", &sweeps, "--task", "labels:Cardiomegaly", "--split", "main"].to_vec();
    sweep.extend(args!["--steps", "12", "--draws", "20", "--device", "cpu", "--preset", "mrm-vit-tiny"]);
    sweep.extend(args!["--start", "scratch=random", "--patience", "1", "--set", "optimizer.rate=0.0"]);
    ok("trainer", &sweep);
    let one = sweeps.join("scratch-main-100-seed0");
    let report: Value = dataset::store::files::read_json(&one.join("evaluation-test.json")).expect("an evaluation");
    assert_eq!((&report["updates"], &state_of(&one)["step"]), (&2.into(), &2.into()));
    let told = ok("trainer", &sweep);
    assert!(told.contains("run 1 of 1") && !told.contains("test AUROC 0"), "nothing is done again: {told}");
}

/// What the newest checkpoint of a run keeps beside its tensors.
fn state_of(run: &Path) -> Value {
    dataset::store::files::read_json(&run.join("latest/state.json")).expect("a state")
}

#[test]
fn records_without_labels_or_splits_are_predicted() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 60);
    let run = temporary.path().join("tuned");
    ok("trainer", finetuning(&data, &run, &mrm, &[]));
    let predict = |data: &Path, out: &Path, more: &[&str]| {
        let mut all = args!["predict", "--data", data, "--weights", &run, "--device", "cpu", "--out", out].to_vec();
        all.extend(more.iter().map(Into::into));
        all
    };
    // A dataset without any label.
    let plain = temporary.path().join("plain");
    let records = (0..5).map(|row| made_record(row, (70, 64), 0)).collect::<Vec<_>>();
    write_dataset(&plain, &[], ImageEncoding::Raw, &[records]);
    let (csv, parquet) = (temporary.path().join("scores.csv"), temporary.path().join("scores.parquet"));
    let told = ok("trainer", predict(&plain, &csv, &[]));
    assert!(
        told.contains("5 records, probabilities of 2 findings, written to ") && told.contains("scores.csv"),
        "{told}"
    );
    let lines = fs::read_to_string(&csv).expect("a table");
    let lines: Vec<Vec<&str>> = lines.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines[0], ["record_id", "patient_id", "study_id", "Cardiomegaly", "Edema"]);
    assert_eq!(lines[1][..3], ["made/00000", "p0", "s0"]);
    ok("trainer", predict(&plain, &parquet, &[]));
    let batches = dataset::format::table::read_table(&parquet).expect("a table");
    let scores =
        dataset::format::table::column::<Float32Array>(&batches[0], "Edema").expect("probabilities").values().to_vec();
    let of_csv: Vec<f32> = lines[1..].iter().map(|line| line[4].parse().expect("a number")).collect();
    assert_eq!(of_csv, scores);
    assert!(scores.iter().all(|score| (0.0..=1.0).contains(score)) && scores.windows(2).any(|pair| pair[0] != pair[1]));

    // On the run's own test subset they are those of its evaluation, which are written as CSV too.
    evaluate(&data, &run);
    let own = temporary.path().join("own.csv");
    ok("trainer", predict(&data, &own, &["--split", "main", "--subset", "test"]));
    let column = |path: &Path, name: &str| {
        let table = fs::read_to_string(path).expect("a table");
        let mut lines = table.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
        let place = lines.next().expect("a header").iter().position(|column| column == name).expect("a column");
        lines.map(|line| (line[0].clone(), line[place].clone())).collect::<BTreeMap<_, _>>()
    };
    let (predicted, evaluated) = (column(&own, "Edema"), column(&run.join("predictions-test.csv"), "score Edema"));
    assert!(!evaluated.is_empty());
    for (record, score) in evaluated {
        let number = |text: &str| text.parse::<f32>().expect("a number");
        assert!((number(&predicted[&record]) - number(&score)).abs() < 1e-5, "{record}");
    }

    let told = fails("trainer", 1, args!["predict", "--data", &plain, "--weights", &mrm, "--out", &csv]);
    assert!(told.contains("is a pre-training run, which knows no findings; `trainer finetune --init"), "{told}");
    let told = fails("trainer", 2, predict(&plain, &temporary.path().join("scores.txt"), &[]));
    assert!(told.contains("give a name that ends in .csv or .parquet"), "{told}");
    let told = fails("trainer", 1, predict(&plain, &temporary.path().join("no/scores.csv"), &[]));
    assert!(told.contains("is missing"), "{told}");
}

#[test]
fn weights_of_an_unfinished_pretraining_are_told() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 60);
    let runs = temporary.path().join("runs");
    let warned = |arguments: Vec<OsString>| {
        let output = run("trainer", arguments);
        let told = text(&output.stderr);
        assert!(output.status.success(), "{told}");
        told.lines().filter(|line| line.contains("of its 400 updates: these are its weights so far")).count()
    };
    let sweep = |name: &str| {
        let mut all =
            args!["sweep", "--data", &data, "--out", runs.join(name), "--task", "labels:Cardiomegaly"].to_vec();
        all.extend(args!["--split", "main", "--ratios", "50,100", "--steps", "1", "--draws", "10", "--device", "cpu"]);
        all.extend(args!["--start", format!("mrm={}", mrm.display()), "--set", "optimizer.batch_size=4"]);
        all
    };
    let commands = |name: &str| {
        let out = runs.join(format!("{name}.parquet"));
        let embed = args!["embed", "--data", &data, "--weights", &mrm, "--device", "cpu", "--out", out].to_vec();
        [finetuning(&data, &runs.join(name), &mrm, &[]), sweep(&format!("sweep-{name}")), embed]
    };
    assert_eq!(commands("done").map(warned), [0, 0, 0]);
    // Stopped early, by updates.
    let file = mrm.join("config.toml");
    let config = fs::read_to_string(&file).expect("a configuration");
    let updates = |steps: u32| config.replace("\nsteps = 4\n", &format!("\nsteps = {steps}\n"));
    assert_ne!(updates(400), config);
    fs::write(&file, updates(400)).expect("written");
    assert_eq!(commands("updates").map(warned), [1, 1, 1]);
    // And by epochs: then the checkpoint knows of how many updates it is one.
    fs::write(&file, updates(0)).expect("written");
    assert_eq!(commands("epochs").map(warned), [0, 0, 0]);
    let file = mrm.join("latest/state.json");
    let state = fs::read_to_string(&file).expect("a state");
    assert!(state.contains("\"total\": 4,"), "{state}");
    fs::write(&file, state.replace("\"total\": 4,", "\"total\": 400,")).expect("written");
    assert_eq!(commands("stopped").map(warned), [1, 1, 1]);
}

#[test]
fn features_are_those_of_the_encoder() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 20);
    let out = temporary.path().join("features.parquet");
    let told = ok("trainer", args!["embed", "--data", &data, "--weights", &mrm, "--device", "cpu", "--out", &out]);
    assert!(told.contains("32 features each"), "{told}");
    let batches = dataset::format::table::read_table(&out).expect("a table");
    let ids = dataset::format::table::column::<StringArray>(&batches[0], "record_id").expect("identifiers");
    let features = dataset::format::table::column::<FixedSizeListArray>(&batches[0], "features").expect("features");
    assert_eq!((features.value_length(), features.len()), (32, ids.len()));
    // What the library gives for some records by themselves.
    let set = Arc::new(dataset::Dataset::open(&data).expect("a dataset"));
    let config: PretrainConfig = run_dir::load_config(&mrm).expect("a configuration");
    let store = VarStore::new(Device::Cpu);
    let sizes = ClassifierConfig { vit: config.model.vit.clone(), classes: 1, drop_path: 0.0 };
    let model = VitClassifier::new(&store.root(), &sizes).expect("a model");
    run_dir::load(&store, &run_dir::weights(&mrm).expect("weights")).expect("loaded");
    for place in [0, ids.len() - 1] {
        let row = set.row_of(ids.value(place)).expect("a record") as u32;
        let transform = Transform {
            mean: config.data.mean as f32,
            std: config.data.std as f32,
            ..Transform::evaluate(config.model.vit.image_size as u32)
        };
        let loader = dataset::Loader::builder(&set).rows(vec![row]).batch_size(1).transform(transform).build();
        let batch = loader.expect("a loader").next_batch().expect("a batch");
        let pooled = model.features(&images(&batch, Device::Cpu), false).expect("features");
        let pooled = Vec::<f32>::try_from(pooled.view([-1])).expect("floats");
        let stored = features.value(place);
        let stored = stored.as_any().downcast_ref::<Float32Array>().expect("floats");
        let largest = pooled.iter().zip(stored.values()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest < 1e-5, "{largest}");
    }

    // A subset of a split, from a file of weights in the run.
    let file = mrm.join("latest/model.safetensors");
    let some = temporary.path().join("some.parquet");
    let mut all = args!["embed", "--data", &data, "--weights", &file, "--device", "cpu", "--out", &some].to_vec();
    all.extend(args!["--split", "main", "--subset", "test"]);
    ok("trainer", all);
    let fewer = dataset::format::table::read_table(&some).expect("a table");
    assert!(fewer[0].num_rows() < batches[0].num_rows());
    let told = fails("trainer", 1, args!["embed", "--data", &data, "--weights", &data, "--out", &some]);
    assert!(told.contains("--preset"), "{told}");
}

#[test]
fn a_benchmark_adds_up() {
    let temporary = folder();
    let data = dataset(temporary.path(), 20);
    let bench = |batch: &str, more: &[&str]| -> Value {
        let mut all = args!["bench", "--preset", "mrm-vit-tiny", "--device", "cpu", "--batch-size", batch].to_vec();
        all.extend(args!["--steps", "2", "--warmup", "1", "--json"]);
        all.extend(more.iter().map(Into::into));
        serde_json::from_str(&ok("trainer", all)).expect("JSON")
    };
    for (measured, loads) in [
        (bench("4", &["--set", "model.bert.vocab_size=500"]), false),
        (bench("4", &["--data", &data.to_string_lossy(), "--set", "run.precision=bf16"]), true),
    ] {
        let value = |key: &str| measured[key].as_f64().unwrap_or_else(|| panic!("{key}: {measured}"));
        assert_eq!(measured["loads"], loads);
        assert_eq!(value("batch"), 4.0);
        assert!(value("utilization") > 0.0 && value("peak_memory_gib") > 0.01);
        assert!(value("utilization") < 1.5, "{measured}");
        let shares = measured["shares"].as_object().expect("shares");
        assert!((shares.values().filter_map(Value::as_f64).sum::<f64>() - 1.0).abs() < 1e-6);
    }
    // A batch larger than the dataset is counted as what it holds.
    let records = dataset::Dataset::open(&data).expect("a dataset").len() as f64;
    let whole = bench("64", &["--data", &data.to_string_lossy()]);
    assert_eq!(whole["batch"].as_f64(), Some(records));
}

#[test]
fn a_split_drawn_anew_is_no_test_and_another_dataset_is_one_of_its_own() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 60);
    let run = temporary.path().join("runs/tuned");
    ok("trainer", finetuning(&data, &run, &mrm, &[]));
    evaluate(&data, &run);
    let split = |name: &str, more: &[&str]| {
        let mut all = args!["split", &data, "--name", name, "--ratios", "50,100", "--test", "0.3"].to_vec();
        all.extend(more.iter().map(Into::into));
        all
    };
    let told = fails("dataset", 1, split("main", &["--seed", "5"]));
    assert!(told.contains("exists with other members") && told.contains("--overwrite"), "{told}");
    ok("dataset", split("other", &["--seed", "5"]));
    let on =
        |data: &Path, name: &str| args!["evaluate", "--data", data, "--run", &run, "--split", name, "--draws", "20"];
    let told = fails("trainer", 1, on(&data, "other"));
    assert!(told.contains("whose patients `other` may test on"), "{told}");
    // Start weights that have seen the other split's test patients are told of.
    let second = finetuning(&data, &temporary.path().join("runs/second"), &run, &[]);
    let second: Vec<OsString> =
        second.into_iter().map(|word| if word == "main" { "other".into() } else { word }).collect();
    let output = mrm_tests::run("trainer", second);
    let told = text(&output.stderr);
    assert!(output.status.success() && told.contains("was trained on split `main` of this dataset"), "{told}");
    ok("dataset", split("main", &["--seed", "5", "--overwrite"]));
    let told = fails("trainer", 1, on(&data, "main"));
    assert!(told.contains("drawn anew since the run was trained"), "{told}");

    // External validation stands beside the run's own test.
    let own = fs::read(run.join("evaluation-test.json")).expect("an evaluation");
    let raw = mrm_tests::phantom_of("chexpert", temporary.path(), 40);
    let outside = temporary.path().join("outside");
    mrm_tests::ingest("chexpert", &raw, &outside, &[]);
    ok("dataset", args!["split", &outside, "--name", "main"]);
    ok("trainer", on(&outside, "main"));
    assert!(run.join("evaluation-test-on-outside.json").is_file());
    assert!(fs::read(run.join("evaluation-test.json")).expect("an evaluation") == own);
}
