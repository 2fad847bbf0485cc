//! Ways of fine-tuning, and learning rates that nobody gives: `--recipe`, `--lr auto`, grids.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use dataset::store::files::read_json;
use helpers::{args, fails, folder, ok, run, text};
use serde_json::Value;
use trainer::train::run_dir::load_config;
use training::{dataset, evaluate, finetuning, numbers, pretrained, stop_after, weights};

/// A number or a text of a run's configuration.
fn setting(run: &Path, key: &str) -> Value {
    let config = load_config(run).expect("a configuration");
    serde_json::to_value(config.get(key).unwrap_or_else(|| panic!("{key}"))).expect("JSON")
}

#[test]
fn benchx_trains_the_encoder_at_a_tenth_and_is_stored() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 60);
    let at = |name: &str| temporary.path().join("runs").join(name);
    let benchx = |run: &Path, more: &[&str]| {
        let mut all = finetuning(&data, run, &mrm, &["--recipe", "benchx", "--set", "run.log_every=1"]);
        all.extend(more.iter().map(Into::into));
        all
    };
    let printed = ok("trainer", benchx(&at("benchx"), &[]));
    assert!(printed.contains("recipe = \"benchx\"\n") && printed.contains("encoder_lr_scale = 0.1\n"), "{printed}");
    assert_eq!(setting(&at("benchx"), "model.drop_path").as_f64(), Some(0.0));
    assert_eq!(evaluate(&data, &at("benchx"))["recipe"], "benchx");

    // SGD's first step moves each parameter by its learning rate times its gradient: the encoder's factor alone differs.
    let state = |run: &Path| -> BTreeMap<String, tch::Tensor> {
        tch::Tensor::read_safetensors(run.join("latest/model.safetensors")).expect("weights").into_iter().collect()
    };
    let before = state(&mrm);
    // The second and last step has the learning rate 0. A large head gives the encoder large gradients.
    let sgd = ["--set", "optimizer.kind=sgd", "--set", "optimizer.weight_decay=0", "--set", "model.head_std=0.5"];
    let sgd = [&sgd[..], &["--set", "optimizer.lr=1", "--steps", "2"]].concat();
    let step = |name: &str, scale: &str| {
        let mut all = benchx(&at(name), &["--set", scale]);
        let steps = all.iter().position(|word| word == "--steps").expect("a length");
        all.drain(steps..steps + 2);
        all.extend(sgd.iter().map(OsString::from));
        ok("trainer", all);
        state(&at(name))
    };
    let (slow, fast) = (step("slow", "optimizer.encoder_lr_scale=0.1"), step("fast", "optimizer.encoder_lr_scale=1"));
    let mut compared = 0;
    for (name, after) in &slow {
        let Some(before) = before.get(name).filter(|before| before.size() == after.size()) else {
            assert!(name.starts_with("head.") || name.starts_with("fc_norm."), "{name}");
            assert_eq!(after, &fast[name], "{name}: the head has the same learning rate");
            continue;
        };
        let (slow, fast) = (after - before, &fast[name] - before);
        let error = (&slow * 10.0 - &fast).abs().max().double_value(&[]);
        let largest = fast.abs().max().double_value(&[]);
        assert!(error <= largest * 0.05 + 1e-6, "{name}: {error} of {largest}");
        compared += usize::from(largest > 1e-6);
    }
    assert!(compared > 5, "{compared} parameters moved");

    ok("trainer", finetuning(&data, &at("release"), &mrm, &[]));
    evaluate(&data, &at("release"));
    let compared = run("trainer", args!["compare", at("release"), at("benchx"), "--draws", "10"]);
    let warning = "by the recipe release, ";
    assert!(compared.status.success() && text(&compared.stderr).contains(warning), "{}", text(&compared.stderr));

    // Another recipe is another configuration; a task without the recipe says so.
    let message = fails("trainer", 1, finetuning(&data, &at("benchx"), &mrm, &[]));
    assert!(message.contains("holds a run of another configuration") && message.contains("recipe"), "{message}");
    let unknown = fails("trainer", 2, finetuning(&data, &at("x"), &mrm, &["--recipe", "best"]));
    assert!(unknown.contains("give one of: release, benchx"), "{unknown}");
}

/// A run of a version without the keys of recipes continues.
#[test]
fn a_run_without_the_keys_of_recipes_continues() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 60);
    let (whole, older) = (temporary.path().join("whole"), temporary.path().join("older"));
    let more = ["--set", "run.checkpoint_every=1", "--set", "run.keep_last=9", "--set", "run.log_every=1"];
    for run in [&whole, &older] {
        ok("trainer", finetuning(&data, run, &mrm, &more));
    }
    for step in [4, 5, 6] {
        fs::remove_dir_all(older.join(format!("checkpoints/step-{step}"))).expect("removed");
    }
    let added = [
        "recipe",
        "head_norm",
        "head_std",
        "crop ",
        "mixup",
        "encoder_lr_scale",
        "cosine_steps",
        "class_weights",
        "label_smoothing",
        "lr_from",
    ];
    let config = fs::read_to_string(older.join("config.toml")).expect("a configuration");
    let kept: Vec<String> = config
        .lines()
        .filter(|line| !added.iter().any(|key| line.starts_with(key)))
        .map(|line| line.replace("freeze_encoder", "linear_probe"))
        .collect();
    assert_eq!(kept.len() + added.len(), config.lines().count(), "{config}");
    fs::write(older.join("config.toml"), kept.join("\n") + "\n").expect("written");
    let output = run("trainer", finetuning(&data, &older, &mrm, &more));
    assert!(output.status.success() && text(&output.stderr).contains("resuming after 3 of 6"), "{output:?}");
    assert_eq!(numbers(&older), numbers(&whole));
    assert!(weights(&older) == weights(&whole));
}

fn sweep(data: &Path, out: &Path, more: &[&str]) -> Vec<OsString> {
    let mut all =
        args!["sweep", "--data", data, "--out", out, "--task", "labels:Cardiomegaly", "--split", "main"].to_vec();
    all.extend(args!["--steps", "4", "--draws", "20", "--device", "cpu", "--preset", "mrm-vit-tiny"]);
    all.extend(args!["--init", "scratch=random", "--set", "optimizer.batch_size=8", "--set", "model.vit.num_layers=1"]);
    all.extend(more.iter().map(Into::into));
    all
}

#[test]
fn a_sweep_of_recipes_has_a_column_for_each() {
    let temporary = folder();
    let data = dataset(temporary.path(), 60);
    let out = temporary.path().join("sweep");
    let printed = ok("trainer", sweep(&data, &out, &["--recipe", "release,benchx"]));
    assert!(
        printed.contains("run 4 of 4") && printed.contains("mean ± sd | 100%, release | 100%, benchx |"),
        "{printed}"
    );
    assert!(printed.contains("(1 run) |") && printed.contains("(3 runs) |"), "{printed}");
    assert_eq!(setting(&out.join("scratch-main-100-seed0"), "recipe").as_str(), Some("release"));
    for seed in [42, 0, 1] {
        assert_eq!(
            setting(&out.join(format!("scratch-benchx-main-100-seed{seed}")), "recipe").as_str(),
            Some("benchx")
        );
    }
    let cells: Value = read_json(&out.join("sweep.json")).expect("cells");
    let recipes: Vec<&Value> = cells.as_array().expect("a list").iter().map(|cell| &cell["recipe"]).collect();
    assert_eq!(recipes, ["release", "benchx"]);
    let csv = fs::read_to_string(out.join("sweep.csv")).expect("a table");
    assert_eq!(csv.lines().filter(|line| line.contains(",auroc,")).count(), 2, "{csv}");
    assert!(fs::read_to_string(out.join("sweep.md")).expect("a table").contains("100%, benchx"));
    let page = fs::read_to_string(out.join("report.html")).expect("a page");
    assert!(
        page.contains("<td>scratch</td>") && page.contains("<td>scratch, benchx</td>"),
        "lines of the chart's table"
    );
    assert!(page.contains("<th>recipe</th>"), "a column of the settings");
}

#[test]
fn a_stopped_sweep_says_so_by_its_exit_code_and_continues() {
    let temporary = folder();
    let data = dataset(temporary.path(), 40);
    let out = temporary.path().join("sweep");
    let more = ["--seeds", "0,1,2,3,4,5,6,7", "--stop-exit-code", "75", "--set", "run.log_every=1"];
    let output = stop_after(1, &out.join("scratch-main-100-seed0"), sweep(&data, &out, &more));
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert!(text(&output.stdout).contains("give the same command again"), "{output:?}");
    let printed = ok("trainer", sweep(&data, &out, &more));
    assert!(printed.contains("(8 runs)"), "{printed}");
}

#[test]
fn a_grid_is_selected_on_the_validation_subset() {
    let temporary = folder();
    let data = dataset(temporary.path(), 60);
    let out = temporary.path().join("sweep");
    let grid =
        ["--lr", "1e-6,1e-2", "--grid", "optimizer.label_smoothing=0.0,0.1", "--set", "optimizer.evaluate_every=1"];
    let printed = ok("trainer", sweep(&data, &out, &grid));
    assert!(printed.contains("run 4 of 4") && printed.contains("chosen on the validation subset: lr="), "{printed}");
    let path =
        |lr: &str, smoothing: &str| out.join(format!("scratch-main-100-seed0-lr{lr}-label_smoothing{smoothing}"));
    let points = [("1e-6", "0.0"), ("1e-6", "0.1"), ("1e-2", "0.0"), ("1e-2", "0.1")];
    // The best score in each log, and not that of the test subset.
    let score = |(lr, smoothing): &(&str, &str)| {
        let scores = numbers(&path(lr, smoothing)).into_iter().filter_map(|line| line["validate_auroc"].as_f64());
        scores.fold(f64::NEG_INFINITY, f64::max)
    };
    let scores: Vec<f64> = points.iter().map(score).collect();
    let best = (0..4).fold(0, |best, at| if scores[at] > scores[best] { at } else { best });
    let evaluated = points.map(|(lr, smoothing)| path(lr, smoothing).join("evaluation-test.json").exists());
    let mut expected = [false; 4];
    expected[best] = true;
    assert_eq!(evaluated, expected, "{scores:?}");
    let (lr, smoothing) = points[best];
    let words = format!("lr={lr}, label_smoothing={smoothing}");
    let cells: Value = read_json(&out.join("sweep.json")).expect("cells");
    assert_eq!((cells.as_array().map(Vec::len), &cells[0]["chosen"][0]), (Some(1), &words.as_str().into()));
    assert!(printed.contains(&format!("(1 run; {words})")), "{printed}");
    let report: Value = read_json(&path(lr, smoothing).join("evaluation-test.json")).expect("an evaluation");
    assert_eq!(cells[0]["auroc"]["mean"], report["mean"]["auroc"]["value"]);

    // Nothing is made twice.
    let modified = |(lr, smoothing): (&str, &str)| {
        let file = fs::metadata(path(lr, smoothing).join("latest/model.safetensors")).expect("weights");
        file.modified().expect("a time")
    };
    let before = points.map(modified);
    ok("trainer", sweep(&data, &out, &grid));
    assert_eq!(points.map(modified), before);

    let message = fails("trainer", 2, sweep(&data, &out, &["--lr", "auto,1e-3"]));
    assert!(message.contains("give auto or numbers"), "{message}");
    let message = fails("trainer", 2, sweep(&data, &out, &["--grid", "optimizer.lr"]));
    assert!(message.contains("is not KEY=VALUE,VALUE"), "{message}");
    let message = fails("trainer", 2, sweep(&data, &out, &["--grid", "optimizer.lrr=1,2"]));
    assert!(message.contains("did you mean `optimizer.lr`?"), "{message}");
}

#[test]
fn a_range_test_gives_a_learning_rate_that_is_recorded_and_kept() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 60);
    let at = |name: &str| temporary.path().join("runs").join(name);
    let auto = |run: &Path, more: &[&str]| {
        let mut all = finetuning(&data, run, &mrm, &["--lr", "auto", "--set", "run.log_every=1"]);
        all.extend(more.iter().map(Into::into));
        all
    };
    let printed = ok("trainer", auto(&at("a"), &[]));
    assert!(
        printed.contains("learning rate ")
            && printed.contains(" from a range test: the smoothed loss falls fastest from "),
        "{printed}"
    );
    assert_eq!(setting(&at("a"), "optimizer.lr_from").as_str(), Some("range test"));
    let lr = setting(&at("a"), "optimizer.lr").as_f64().expect("a number");
    let curve: Value = read_json(&at("a").join("lr-range-test.json")).expect("a curve");
    assert_eq!(curve["lr"].as_f64(), Some(lr));
    // The rule, computed anew from the losses of the curve.
    let points = curve["points"].as_array().expect("points");
    let (mut average, mut weight, mut smoothed) = (0.0, 0.0, Vec::new());
    for point in points {
        average = 0.9 * average + 0.1 * point["loss"].as_f64().expect("a loss");
        weight = 0.9 * weight + 0.1;
        smoothed.push(average / weight);
    }
    let lowest = (0..smoothed.len()).fold(0, |best, at| if smoothed[at] < smoothed[best] { at } else { best });
    let falls = (10..=lowest).map(|end| (smoothed[end - 10] - smoothed[end], end - 5));
    let (_, middle) = falls.fold((0.0, 0), |best, fall| if fall.0 > best.0 { fall } else { best });
    let steepest = points[middle]["lr"].as_f64().expect("a number");
    assert!((lr / steepest - 1.0).abs() < 0.06, "{lr} for {steepest}");
    let growth = points[1]["lr"].as_f64().expect("a number") / points[0]["lr"].as_f64().expect("a number");
    assert!((growth.powi(20) - 10.0).abs() < 1e-6, "{growth}");
    let csv = fs::read_to_string(at("a").join("lr-range-test.csv")).expect("a table");
    assert_eq!(csv.lines().count(), points.len() + 1);
    // The run begins with the weights from before the test, and has a log of its own steps alone.
    let given = format!("{lr}");
    ok("trainer", finetuning(&data, &at("given"), &mrm, &["--lr", &given, "--set", "run.log_every=1"]));
    assert_eq!(numbers(&at("a")), numbers(&at("given")));
    assert!(weights(&at("a")) == weights(&at("given")));

    // The same again in another directory; none on a resumed run.
    ok("trainer", auto(&at("b"), &[]));
    assert_eq!(fs::read(at("b").join("lr-range-test.csv")).expect("a table"), csv.as_bytes());
    let longer: Vec<OsString> =
        auto(&at("a"), &[]).into_iter().map(|word| if word == "6" { "8".into() } else { word }).collect();
    let output = run("trainer", longer);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success() && err.contains("resuming after 6 of 8") && !out.contains("from a range test:"),
        "{err}"
    );
    assert_eq!(setting(&at("a"), "optimizer.lr").as_f64(), Some(lr));
    let message = fails("trainer", 1, auto(&at("given"), &[]));
    assert!(message.contains("whose learning rate is from no range test"), "{message}");
    assert!(fails("trainer", 2, auto(&at("x"), &["--lr", "fast"])).contains("lr"), "no number");

    // In a sweep, each run has its own test.
    let out = temporary.path().join("sweep");
    let printed = ok("trainer", sweep(&data, &out, &["--lr", "auto"]));
    let lr = setting(&out.join("scratch-main-100-seed0"), "optimizer.lr").as_f64().expect("a number");
    assert!(printed.contains(&format!("(1 run; lr={lr})")), "{printed}");
    assert!(out.join("scratch-main-100-seed0/lr-range-test.json").exists());
    let again = ok("trainer", sweep(&data, &out, &["--lr", "auto"]));
    assert!(!again.contains("from a range test:") && again.contains(&format!("lr={lr}")), "{again}");
}
