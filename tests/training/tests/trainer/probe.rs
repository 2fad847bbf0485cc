//! `trainer probe`: frozen features, logistic regression, nearest neighbors.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use arrow_array::{Array, FixedSizeListArray, Float32Array, StringArray};
use dataset::Dataset;
use dataset::format::table::{column, read_table};
use dataset::store::files::read_json;
use helpers::{args, fails, files_with, folder, ok};
use serde_json::Value;
use training::{evaluate, finetuning, pretrained};

fn probing(data: &Path, weights: &Path, out: &Path, more: &[&str]) -> Vec<OsString> {
    let mut all = args!["probe", "--data", data, "--weights", weights, "--out", out, "--split", "main"].to_vec();
    all.extend(args!["--task", "labels:Cardiomegaly,Edema", "--device", "cpu", "--draws", "30"]);
    all.extend(more.iter().map(Into::into));
    all
}

fn report(out: &Path, name: &str) -> Value {
    read_json(&out.join(name).join("evaluation-test.json")).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Features by record, as `trainer embed` writes them.
fn features(path: &Path) -> BTreeMap<String, Vec<f32>> {
    let mut all = BTreeMap::new();
    for batch in read_table(path).expect("features") {
        let ids = column::<StringArray>(&batch, "record_id").expect("identifiers");
        let lists = column::<FixedSizeListArray>(&batch, "features").expect("features");
        for row in 0..ids.len() {
            let list = lists.value(row);
            let values = list.as_any().downcast_ref::<Float32Array>().expect("floats").values().to_vec();
            all.insert(ids.value(row).to_owned(), values);
        }
    }
    all
}

/// The vote of the nearest training records for a finding, by its definition.
fn vote(train: &[(&Vec<f32>, Option<bool>)], query: &[f32], k: usize) -> f64 {
    let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let cosine = |row: &[f32]| product(row, query) / (product(row, row) * product(query, query)).sqrt();
    let mut near: Vec<(f64, bool)> = train.iter().filter_map(|(row, label)| Some((cosine(row), (*label)?))).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    near.truncate(k);
    let sum =
        |positive: bool| near.iter().filter(|row| row.1 || !positive).map(|row| (row.0 / 0.07).exp()).sum::<f64>();
    sum(true) / sum(false)
}

#[test]
fn a_probe_evaluates_frozen_features_and_continues() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 90);
    let out = temporary.path().join("probe");
    let message = ok("trainer", probing(&data, &mrm, &out, &["--ratio", "50,100", "--subgroups", "sex"]));
    for words in ["embedded part 1 of 1", "| linear probe | main | 50% | 0 | l2 = ", "| kNN | main | 100% | 0 | k = "] {
        assert!(message.contains(words), "{words}: {message}");
    }
    let summary: Value = read_json(&out.join("probe.json")).expect("a table");
    assert_eq!(summary.as_array().map(Vec::len), Some(4));
    let names = ["linear-main-50-seed0", "knn-main-50-seed0", "linear-main-100-seed0", "knn-main-100-seed0"];
    for name in names {
        let report = report(&out, name);
        assert_eq!((&report["kind"], &report["subset"]), (&"classify".into(), &"test".into()));
        assert!(report["subgroups"][0]["findings"].is_array() && report["calibration"].is_array());
        let grid = report["probe"]["grid"].as_array().expect("a grid");
        // The chosen value is the best on the validation subset.
        let best = grid.iter().filter_map(|point| point["validation_auroc"].as_f64()).fold(0.0, f64::max);
        let chosen =
            grid.iter().find(|point| point["value"] == report["probe"]["chosen"]).expect("a value of the grid");
        assert_eq!(chosen["validation_auroc"].as_f64(), Some(best), "{report}");
        for file in ["predictions-test.parquet", "metrics-test.csv", "curves-test.parquet", "subgroups-test.csv"] {
            assert!(out.join(name).join(file).is_file(), "{name}/{file}");
        }
    }
    let fit = &report(&out, names[2])["probe"]["fit"];
    assert!(fit["converged"] == true && fit["largest_gradient"].as_f64() <= Some(1e-7), "{fit}");

    // The scores of the neighbors, from what `embed` writes.
    let table = temporary.path().join("features.parquet");
    ok("trainer", args!["embed", "--data", &data, "--weights", &mrm, "--device", "cpu", "--out", &table]);
    let features = features(&table);
    let dataset = Dataset::open(&data).expect("a dataset");
    let split = dataset::Split::load(&dataset, "main").expect("a split");
    let edema = dataset.findings().iter().position(|finding| finding == "Edema").expect("a finding");
    let labels = dataset.labels().expect("labels");
    let train: Vec<(&Vec<f32>, Option<bool>)> = split
        .rows(dataset::Subset::Train, None)
        .into_iter()
        .map(|row| {
            let label = labels[row as usize][edema].map(|label| label.code() == 1);
            (&features[dataset.record_id(row as usize).expect("an identifier")], label)
        })
        .collect();
    let knn = report(&out, names[3]);
    let k = knn["probe"]["chosen"].as_f64().expect("a number") as usize;
    let mut checked = 0;
    for batch in read_table(&out.join(names[3]).join("predictions-test.parquet")).expect("predictions") {
        let ids = column::<StringArray>(&batch, "record_id").expect("identifiers");
        let scores = column::<Float32Array>(&batch, "score Edema").expect("scores");
        for row in 0..ids.len() {
            let expected = vote(&train, &features[ids.value(row)], k);
            assert!((f64::from(scores.value(row)) - expected).abs() < 1e-3, "{}: {expected}", ids.value(row));
            checked += 1;
        }
    }
    assert!(checked > 10, "{checked}");

    // A probe that was stopped continues: features and results that are there stay, the others have the same bytes.
    let files = |name: &str| fs::read(out.join(name).join("evaluation-test.json")).expect("an evaluation");
    let before = names.map(files);
    let part = files_with(&out, "part-00000.parquet");
    assert_eq!(part.len(), 1, "{part:?}");
    let time = |path: &Path| fs::metadata(path).expect("a file").modified().expect("a time");
    let kept = [out.join(&part[0]), out.join(names[0]).join("evaluation-test.json")];
    let times = kept.each_ref().map(|path| time(path));
    fs::remove_dir_all(out.join(names[2])).expect("removed");
    let message = ok("trainer", probing(&data, &mrm, &out, &["--ratio", "50,100", "--subgroups", "sex"]));
    assert!(!message.contains("embedded part"), "{message}");
    assert!(names.map(files) == before && kept.each_ref().map(|path| time(path)) == times);
    // Without the cache the features are the same.
    fs::remove_file(&kept[0]).expect("removed");
    fs::remove_dir_all(out.join(names[3])).expect("removed");
    ok("trainer", probing(&data, &mrm, &out, &["--ratio", "50,100", "--subgroups", "sex"]));
    assert!(names.map(files) == before);
    // Other options are other results.
    ok("trainer", probing(&data, &mrm, &out, &["--ratio", "50", "--method", "knn", "--specificity", "0.8"]));
    assert!(files(names[1]) != before[1] && files(names[0]) == before[0]);

    // The page shows them beside a fine-tuned run, and they can be compared with it.
    let tuned = temporary.path().join("runs/tuned");
    ok("trainer", finetuning(&data, &tuned, &mrm, &[]));
    evaluate(&data, &tuned);
    let page = temporary.path().join("report.html");
    ok("trainer", args!["report", &out, &tuned, "--out", &page]);
    let html = fs::read_to_string(&page).expect("a page");
    assert!(html.contains("linear probe: pretrained (mrm)") && html.contains("kNN: pretrained (mrm)"), "{html}");
    assert!(html.contains("32 frozen features of "), "{html}");
    let message = ok("trainer", args!["compare", out.join(names[2]), &tuned, "--draws", "20"]);
    assert!(message.contains("DeLong's test"), "{message}");
}

#[test]
fn random_weights_are_probed_by_seed() {
    let temporary = folder();
    let (data, mrm) = pretrained(temporary.path(), 40);
    let out = temporary.path().join("probe");
    let random = Path::new("random");
    let more = ["--preset", "mrm-vit-tiny", "--seeds", "0,1", "--set", "data.missing=zeros"];
    ok("trainer", probing(&data, random, &out, &more));
    let [first, second] = ["knn-main-100-seed0", "knn-main-100-seed1"].map(|name| report(&out, name));
    assert_eq!((&first["init"], &first["init_name"]), (&"random".into(), &"kNN: random initialization".into()));
    assert_eq!([&first["seed"], &second["seed"]], [0, 1]);
    assert_ne!(first["probe"]["grid"], second["probe"]["grid"]);
    assert!(first["findings"][0]["blank_as"] == "zeros", "{first}");

    let message = fails("trainer", 1, probing(&data, random, &out, &[]));
    assert!(message.contains("no --preset is given"), "{message}");
    let message = fails("trainer", 1, probing(&data, &mrm, &out, &["--seeds", "1,2"]));
    assert!(message.contains("--seeds are those of random weights"), "{message}");
    let message = fails("trainer", 2, probing(&data, &mrm, &out, &["--set", "optimizer.lr=1"]));
    assert!(message.contains("no key `optimizer.lr`"), "{message}");
    let message = fails("trainer", 2, probing(&data, &mrm, &out, &["--method", "forest"]));
    assert!(message.contains("give linear, knn or both"), "{message}");
    let message = fails("trainer", 1, probing(&data, &mrm, &out, &["--ratio", "3"]));
    assert!(message.contains('3'), "{message}");
    let message = fails("trainer", 1, probing(&data, &mrm, &mrm, &[]));
    assert!(message.contains("is a run: give a folder"), "{message}");
}
