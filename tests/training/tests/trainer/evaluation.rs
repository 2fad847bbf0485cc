//! Evaluation, comparison, sweeps and predictions.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use arrow_array::Float32Array;
use dataset::format::record::ImageEncoding;
use helpers::{args, fails, folder, made_record, ok, run, text, write_dataset};
use serde_json::Value;
use trainer::config::ClassifyConfig;
use trainer::train::run_dir;
use training::{evaluate, finetuning, pretrained, pretraining};

#[test]
fn evaluations_are_printed_compared_and_swept() {
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
    // The difference equals that of the two evaluations, on the same records.
    let out = temporary.path().join("difference.json");
    let compare = |a: &Path, b: &Path| args!["compare", a, b, "--draws", "100", "--out", &out];
    let message = ok("trainer", compare(&first, &second));
    assert!(message.contains(" p = ") && message.contains("Cardiomegaly"), "{message}");
    let difference: Value = dataset::store::files::read_json(&out).expect("a comparison");
    let auroc = |report: &Value| report["findings"][0]["auroc"]["value"].as_f64().expect("an AUROC");
    assert!((auroc(&difference) - (auroc(&other) - auroc(&report))).abs() < 1e-12);
    let message = ok("trainer", compare(&first, &first));
    assert!(message.contains("+0.000 (+0.000 to +0.000) p = 1.000"), "{message}");
    assert!(fails("trainer", 1, args!["compare", &first, runs.join("none")]).contains("none does not exist"));
    let message = fails("trainer", 1, args!["compare", &first, &mrm]);
    assert!(message.contains("run `trainer evaluate --subset test`"), "{message}");

    // An unfinished run is evaluated with a warning.
    let config = fs::read_to_string(first.join("config.toml")).expect("a configuration");
    let steps = config.lines().find(|line| line.starts_with("steps = ")).expect("steps");
    fs::write(first.join("config.toml"), config.replace(steps, "steps = 400")).expect("written");
    let output =
        run("trainer", args!["evaluate", "--data", &data, "--run", &first, "--split", "main", "--draws", "10"]);
    assert!(output.status.success() && text(&output.stderr).contains("of its 400 steps"), "{output:?}");
    fs::write(first.join("config.toml"), config).expect("written");

    // Uncertain labels counted as positive for a finding give more positives.
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
        let message = fails("trainer", 1, finetuning(&data, &runs.join("x"), &mrm, &["--set", &setting]));
        assert!(message.contains(words), "{message}");
    }

    let sweeps = temporary.path().join("sweep");
    let sweep = || {
        let mut all = args!["sweep", "--data", &data, "--out", &sweeps, "--task", "labels:Cardiomegaly"].to_vec();
        all.extend(args!["--split", "main", "--ratios", "50,100", "--seeds", "0,1", "--steps", "3", "--draws", "20"]);
        all.extend(args!["--device", "cpu", "--init", "scratch=random"]);
        all.extend(args!["--init", format!("mrm={}", mrm.display()), "--set", "optimizer.batch_size=8"]);
        all
    };
    let message = ok("trainer", sweep());
    assert!(message.contains("all runs train the same model: mrm-vit-tiny (1 layers of embed_dim 32, "), "{message}");
    assert!(message.contains("run 8 of 8") && message.contains("| mrm |") && message.contains("(2 runs)"), "{message}");
    let cells: Value = dataset::store::files::read_json(&sweeps.join("sweep.json")).expect("cells");
    let mean = |seed: u64| {
        let report: Value =
            dataset::store::files::read_json(&sweeps.join(format!("mrm-main-100-seed{seed}/evaluation-test.json")))
                .expect("one");
        report["mean"]["auroc"]["value"].as_f64().expect("an AUROC")
    };
    let cell =
        cells.as_array().expect("a list").iter().find(|cell| cell["init_name"] == "mrm" && cell["ratio"] == 100.0);
    let of_cell = cell.expect("a cell")["auroc"]["mean"].as_f64().expect("a mean");
    assert!((of_cell - f64::midpoint(mean(0), mean(1))).abs() < 1e-12);
    let page = fs::read_to_string(sweeps.join("report.html")).expect("a page");
    assert!(page.contains("<td>scratch</td>") && page.contains("2 runs"), "a table of both initializations");
    // Runs on other ratios of the labels are compared with a warning.
    let of = |ratio: u32| sweeps.join(format!("mrm-main-{ratio}-seed0"));
    let warned = |a: PathBuf, b: PathBuf| text(&run("trainer", args!["compare", a, b, "--draws", "10"]).stderr);
    let message = warned(of(50), of(100));
    assert!(
        message.starts_with("warning: ") && message.contains("mrm-main-50-seed0 was trained on 50% of the labels"),
        "{message}"
    );
    assert_eq!(warned(of(50), of(50)), "");
    let mut nameless = sweep();
    nameless.extend(args!["--init", "random"]);
    assert!(fails("trainer", 2, nameless).contains("did you mean `scratch=random`?"));
    // More steps continue the finished runs, which are evaluated again.
    let state = |name: &str| -> Value {
        dataset::store::files::read_json(&sweeps.join("mrm-main-100-seed1").join(name)).expect("a file")
    };
    let longer = || sweep().into_iter().map(|word| if word == "3" { "5".into() } else { word });
    assert_eq!(state("evaluation-test.json")["steps"], 3);
    ok("trainer", longer());
    assert_eq!((&state("evaluation-test.json")["steps"], &state("latest/state.json")["step"]), (&5.into(), &5.into()));
    let sweep = longer;
    // Finished runs are not repeated.
    let before = fs::metadata(sweeps.join("mrm-main-100-seed1/latest/model.safetensors")).expect("weights");
    ok("trainer", sweep());
    let after = fs::metadata(sweeps.join("mrm-main-100-seed1/latest/model.safetensors")).expect("weights");
    assert_eq!(before.modified().expect("a time"), after.modified().expect("a time"));
}

/// Baselines have the model of the run they are compared with, or a warning says that they do not.
#[test]
fn a_sweep_trains_the_same_model_from_every_initialization() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 60);
    let runs = temporary.path().join("runs");
    let wide = runs.join("wide");
    ok("trainer", pretraining(&data, &wide, 1, &["--set", "model.vit.embed_dim=64"]));
    let sweeps = temporary.path().join("sweep");
    let sweep = |starts: &[String], more: &[&str]| {
        let mut all =
            args!["sweep", "--data", &data, "--out", &sweeps, "--task", "chexpert5", "--split", "main"].to_vec();
        all.extend(args!["--steps", "2", "--draws", "10", "--device", "cpu", "--set", "optimizer.batch_size=4"]);
        all.extend(starts.iter().flat_map(|start| args!["--init", start]));
        all.extend(more.iter().map(Into::into));
        all
    };
    let start = |name: &str, weights: &Path| format!("{name}={}", weights.display());
    // A weights file outside of a run, and random initialization, use the model of the run.
    let file = temporary.path().join("weights.safetensors");
    fs::copy(mrm.join("latest/model.safetensors"), &file).expect("copied");
    let starts = ["scratch=random".to_owned(), start("file", &file), start("mrm", &mrm)];
    ok("trainer", sweep(&starts, &[]));
    let config = |name: &str| -> ClassifyConfig {
        let file = run_dir::load_config(&sweeps.join(format!("{name}-main-100-seed0"))).expect("a configuration");
        file.read().expect("of a classifier")
    };
    let of_run = config("mrm");
    assert_eq!((of_run.model.vit.embed_dim, of_run.model.vit.num_layers), (32, 1), "not the preset's sizes");
    for (name, init) in [("scratch", "random".to_owned()), ("file", file.display().to_string())] {
        let other = config(name);
        assert_eq!((&other.keys.init_name, &other.keys.provenance.init), (&name.to_owned(), &init));
        assert_eq!(ClassifyConfig { keys: of_run.keys.clone(), ..other }, of_run);
    }

    let message = fails("trainer", 1, sweep(&[start("mrm", &mrm), start("wide", &wide)], &[]));
    for words in
        ["--init mrm=", "(1 layers of embed_dim 32", "--init wide=", "(1 layers of embed_dim 64", "the same model"]
    {
        assert!(message.contains(words), "{words}: {message}");
    }
    let message = fails("trainer", 1, sweep(&[start("mrm", &mrm)], &["--preset", "mrm-vit-s16"]));
    assert!(
        message.contains("is mrm-vit-tiny (") && message.contains("not mrm-vit-s16: leave --preset out"),
        "{message}"
    );

    // Without --init the preset is printed; a comparison of different models warns.
    let scratch = runs.join("scratch");
    let mut all =
        args!["finetune", "--data", &data, "--run", &scratch, "--split", "main", "--task", "chexpert5"].to_vec();
    all.extend(args!["--preset", "mrm-vit-tiny", "--steps", "1", "--batch-size", "4", "--device", "cpu"]);
    let output = run("trainer", all);
    let message = text(&output.stderr);
    assert!(output.status.success(), "{message}");
    assert!(
        message.contains("no --init: random initialization of mrm-vit-tiny (4 layers of embed_dim 128, "),
        "{message}"
    );
    let default = args!["finetune", "--data", &data, "--run", runs.join("x"), "--split", "main", "--task", "chexpert5"];
    let message = fails("trainer", 2, default.into_iter().chain(args!["--set", "optimizer.warmup=9999999"]));
    assert!(
        message.contains("random initialization of mrm-vit-b16 (12 layers") && message.contains("--preset"),
        "{message}"
    );
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
    let message = ok("trainer", predict(&plain, &csv, &[]));
    assert!(
        message.contains("5 records, probabilities of 2 findings, written to ") && message.contains("scores.csv"),
        "{message}"
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

    // On the test subset of the run they equal those of its evaluation, which are also written as CSV.
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

    let message = fails("trainer", 1, args!["predict", "--data", &plain, "--weights", &mrm, "--out", &csv]);
    assert!(message.contains("is a pre-training run, which knows no findings; `trainer finetune --init"), "{message}");
    let message = fails("trainer", 2, predict(&plain, &temporary.path().join("scores.txt"), &[]));
    assert!(message.contains("give a name that ends in .csv or .parquet"), "{message}");
    let message = fails("trainer", 1, predict(&plain, &temporary.path().join("no/scores.csv"), &[]));
    assert!(message.contains("is missing"), "{message}");
}

#[test]
fn evaluation_refuses_a_redrawn_split_and_accepts_another_dataset() {
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
    let message = fails("dataset", 1, split("main", &["--seed", "5"]));
    assert!(message.contains("exists with other members") && message.contains("--overwrite"), "{message}");
    ok("dataset", split("other", &["--seed", "5"]));
    let on =
        |data: &Path, name: &str| args!["evaluate", "--data", data, "--run", &run, "--split", name, "--draws", "20"];
    let message = fails("trainer", 1, on(&data, "other"));
    assert!(message.contains("whose patients `other` may test on"), "{message}");
    // Pretrained weights that were trained on test patients of the other split are reported.
    let second = finetuning(&data, &temporary.path().join("runs/second"), &run, &[]);
    let second: Vec<OsString> =
        second.into_iter().map(|word| if word == "main" { "other".into() } else { word }).collect();
    let output = helpers::run("trainer", second);
    let message = text(&output.stderr);
    assert!(output.status.success() && message.contains("was trained on split `main` of this dataset"), "{message}");
    ok("dataset", split("main", &["--seed", "5", "--overwrite"]));
    let message = fails("trainer", 1, on(&data, "main"));
    assert!(message.contains("drawn anew since the run was trained"), "{message}");

    // The evaluation on another dataset is kept beside that of the run's own test subset.
    let own = fs::read(run.join("evaluation-test.json")).expect("an evaluation");
    let raw = helpers::phantom_of("chexpert", temporary.path(), 40);
    let outside = temporary.path().join("outside");
    helpers::ingest("chexpert", &raw, &outside, &[]);
    ok("dataset", args!["split", &outside, "--name", "main"]);
    ok("trainer", on(&outside, "main"));
    assert!(run.join("evaluation-test-on-outside.json").is_file());
    assert!(fs::read(run.join("evaluation-test.json")).expect("an evaluation") == own);
}
