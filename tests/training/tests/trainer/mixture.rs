//! Training on a mixture of datasets.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use helpers::{args, fails, folder, ingest, ok, phantom_of, run, text};
use serde_json::Value;
use training::{MINIATURE, evaluate, kill_after, numbers, weights};

/// A split dataset of a source's layout.
fn made(folder: &Path, source: &str, studies: usize) -> PathBuf {
    let raw = phantom_of(source, folder, studies);
    let out = folder.join(format!("set-{source}"));
    ingest(source, &raw, &out, &[]);
    let split = args!["split", &out, "--name", "main", "--ratios", "50,100", "--validation", "0.2", "--test", "0.2"];
    ok("dataset", split);
    out
}

/// Arguments of a short pre-training on some datasets.
fn pretraining(data: &[String], run: &Path, steps: u64, more: &[&str]) -> Vec<OsString> {
    let mut all = args!["pretrain", "--run", run, "--preset", "mrm-vit-tiny", "--split", "main"].to_vec();
    all.extend(args!["--device", "cpu", "--steps", steps.to_string(), "--batch-size", "6"]);
    all.extend(data.iter().flat_map(|data| args!["--data", data]));
    all.extend(MINIATURE.iter().chain(more).map(Into::into));
    all
}

fn number(line: &Value, key: &str) -> f64 {
    line[key].as_f64().unwrap_or_else(|| panic!("{key} in {line}"))
}

#[test]
fn pretraining_on_a_mixture_logs_each_dataset_and_resumes_to_the_same_numbers() {
    let temporary = folder();
    let [mimic, openi, siim] = ["mimic-cxr", "openi", "siim"].map(|source| made(temporary.path(), source, 30));
    let at = |name: &str| temporary.path().join(name);
    let weighted = |weights: [&str; 3]| -> Vec<String> {
        [&mimic, &openi, &siim]
            .iter()
            .zip(weights)
            .map(|(path, weight)| format!("{}{weight}", path.display()))
            .collect()
    };
    // The records of SIIM have no report.
    let data = weighted(["=0.3", "=0.2", "=0.5"]);
    let more = ["--set", "run.checkpoint_every=5", "--epoch-records", "60"];
    let output = run("trainer", pretraining(&data, &at("whole"), 24, &more));
    let (printed, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(printed.contains("set-siim: 30 records an epoch (50.0%), of "), "{printed}");
    assert!(said.contains("set-openi: its reports were made by another tokenizer"), "{said}");
    assert!(!said.contains("set-mimic-cxr: its"), "{said}");

    let expected = numbers(&at("whole"));
    let names = ["set-mimic-cxr", "set-openi", "set-siim"];
    let mut before = [0.0; 3];
    let mut of_reports = 0;
    for line in &expected {
        let drawn = names.map(|name| number(line, &format!("records/{name}")));
        let own: Vec<f64> = drawn.iter().zip(before).map(|(now, before)| now - before).collect();
        assert_eq!(own.iter().sum::<f64>(), 6.0, "{line}");
        // The losses of the datasets make the loss of the batch.
        let losses = names.iter().zip(&own).filter(|(_, count)| **count > 0.0);
        let mean: f64 = losses.map(|(name, count)| number(line, &format!("loss_image/{name}")) * count / 6.0).sum();
        assert!((mean / number(line, "loss_image") - 1.0).abs() < 1e-5, "{mean}: {line}");
        assert!(line.get("loss_report/set-siim").is_none(), "{line}");
        for (name, _) in names.iter().take(2).zip(&own).filter(|(_, count)| **count > 0.0) {
            of_reports += usize::from(number(line, &format!("loss_report/{name}")) > 1.0);
        }
        before = drawn;
    }
    assert_eq!(number(&expected[9], "records/set-siim"), 30.0, "an epoch has its share");
    assert!(of_reports > 20, "{of_reports}");

    // In place the losses are the same up to rounding.
    ok("trainer", pretraining(&data, &at("in-place"), 1, &[&more[..], &["--set", "run.in_place_loss=true"]].concat()));
    let line = &numbers(&at("in-place"))[0];
    for (key, value) in expected[0].as_object().expect("an object").iter().filter(|(key, _)| key.starts_with("loss")) {
        let value = value.as_f64().expect("a number");
        assert!((number(line, key) / value - 1.0).abs() < 1e-4, "{key}: {line}");
    }

    // Killed between two checkpoints, and continued.
    kill_after(12, &at("killed"), pretraining(&data, &at("killed"), 24, &more));
    ok("trainer", pretraining(&data, &at("killed"), 24, &more));
    assert_eq!(numbers(&at("killed")), expected);
    assert!(weights(&at("killed")) == weights(&at("whole")));

    // Other weights from a checkpoint on; other datasets are refused.
    let output = run("trainer", pretraining(&weighted(["=1", "=1", "=1"]), &at("killed"), 30, &more));
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let notice =
        "the mixture is weights 1, 1, 1; an epoch of 60 records from step 24 on, it was weights 0.3, 0.2, 0.5;";
    assert!(said.contains(notice), "{said}");
    let continued = numbers(&at("killed"));
    assert_eq!((continued.len(), &continued[..24]), (30, &expected[..]));
    let siim = |line: &Value| number(line, "records/set-siim");
    assert!(siim(&continued[29]) - siim(&continued[23]) < 16.0, "a third of 36");
    let fewer = fails("trainer", 1, pretraining(&data[..2], &at("killed"), 40, &more));
    assert!(fewer.contains("holds a run of another configuration"), "{fewer}");
}

#[test]
fn a_batch_without_any_report_is_trained_on_in_a_mixture() {
    let temporary = folder();
    let [mimic, siim] = ["mimic-cxr", "siim"].map(|source| made(temporary.path(), source, 20));
    let data = [format!("{}=0.1", mimic.display()), format!("{}=0.9", siim.display())];
    let at = temporary.path().join("run");
    let mut arguments = pretraining(&data, &at, 20, &[]);
    let size = arguments.iter().position(|word| word == "--batch-size").expect("an option");
    arguments[size + 1] = "2".into();
    ok("trainer", arguments);
    let lines = numbers(&at);
    let without = lines.iter().filter(|line| number(line, "loss_report") == 0.0).count();
    assert!((10..20).contains(&without), "{without}");
    assert!(lines.iter().all(|line| number(line, "loss_image") > 0.0));
}

#[test]
fn a_classifier_is_fine_tuned_on_a_mixture_and_evaluated_on_each_dataset() {
    let temporary = folder();
    let [mimic, chexpert, siim] = ["mimic-cxr", "chexpert", "siim"].map(|source| made(temporary.path(), source, 40));
    let at = |name: &str| temporary.path().join(name);
    let finetune = |data: &[&PathBuf], run: &Path, task: &str, more: &[&str]| {
        let mut all = args!["finetune", "--run", run, "--task", task, "--split", "main", "--device", "cpu"].to_vec();
        all.extend(args!["--preset", "mrm-vit-tiny", "--steps", "6", "--batch-size", "8", "--set", "run.log_every=1"]);
        all.extend(["model.vit.image_size=32", "model.vit.embed_dim=32"].iter().flat_map(|set| args!["--set", set]));
        all.extend(data.iter().flat_map(|data| args!["--data", data]));
        all.extend(more.iter().map(Into::into));
        all
    };
    let both = [&mimic, &chexpert];
    let printed = ok("trainer", finetune(&both, &at("both"), "labels:Cardiomegaly,Edema", &["--ratio", "50"]));
    assert!(
        printed.contains("set-chexpert: training labels") && printed.contains("best validation score"),
        "{printed}"
    );
    let lines: Vec<Value> = numbers(&at("both")).into_iter().filter(|line| line.get("loss").is_some()).collect();
    let keys = ["set-mimic-cxr", "set-chexpert"].map(|name| (format!("records/{name}"), format!("loss/{name}")));
    for (records, loss) in &keys {
        assert!(number(&lines[5], records) > 0.0 && lines.iter().any(|line| line[loss].is_f64()), "{lines:?}");
    }
    // Both are its own datasets: no evaluation is of a foreign one.
    assert!(evaluate(&mimic, &at("both"))["records"].as_u64() > Some(0));
    evaluate(&chexpert, &at("both"));
    ok("dataset", args!["split", &chexpert, "--name", "other", "--seed", "5"]);
    let other = args!["evaluate", "--data", &chexpert, "--run", at("both"), "--split", "other", "--draws", "10"];
    let refused = fails("trainer", 1, other);
    assert!(refused.contains("was trained on split `main` of this dataset"), "{refused}");

    let refused = fails("trainer", 1, finetune(&[&mimic, &siim], &at("a"), "labels:Cardiomegaly,Edema", &[]));
    assert!(refused.contains("this dataset has no label `Cardiomegaly`"), "{refused}");
    let refused = fails("trainer", 2, finetune(&both, &at("b"), "siim", &[]));
    assert!(refused.contains("--task siim trains on one dataset"), "{refused}");
    let unsplit = temporary.path().join("unsplit");
    ingest("openi", &phantom_of("openi", temporary.path(), 10), &unsplit, &[]);
    let refused = fails("trainer", 1, finetune(&[&mimic, &unsplit], &at("c"), "labels:Edema", &[]));
    assert!(refused.contains("unsplit") && refused.contains("this dataset has no split"), "{refused}");
    assert!(["a", "b", "c"].iter().all(|name| !at(name).exists()), "no partial output");
}
