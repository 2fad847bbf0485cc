//! Training on the labels and masks of joins.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use arrow_array::{Array, Int8Array, StringArray};
use dataset::Dataset;
use dataset::format::table::{column, read_table};
use helpers::{args, fails, folder, ok, write_file};
use serde_json::Value;
use training::dataset as split_dataset;

/// Joins a table whose rows `row` makes of each record's identifier, number, width and height.
fn join(data: &Path, name: &str, header: &str, words: &[&str], row: impl Fn(&str, usize, (u32, u32)) -> String) {
    let dataset = Dataset::open(data).expect("a dataset");
    let mut lines = vec![header.to_owned()];
    for number in 0..dataset.len() {
        let record = dataset.record_without_image(number).expect("a record");
        lines.push(row(&record.record_id, number, (record.source_width, record.source_height)));
    }
    let table = data.parent().expect("a folder").join(format!("{name}.csv"));
    write_file(&table, lines.join("\n") + "\n");
    let mut all = args!["join", data, "--table", &table, "--key", "id", "--name", name].to_vec();
    all.extend(words.iter().map(Into::into));
    ok("ingest", all);
}

fn finetuning(data: &Path, run: &Path, task: &str, more: &[&str]) -> Vec<OsString> {
    let mut all = args!["finetune", "--data", data, "--run", run, "--task", task, "--split", "main"].to_vec();
    all.extend(args!["--preset", "mrm-vit-tiny", "--device", "cpu", "--steps", "4", "--batch-size", "4"]);
    let small =
        ["--set", "model.vit.image_size=32", "--set", "model.vit.embed_dim=32", "--set", "model.vit.num_layers=2"];
    all.extend(small.iter().chain(more).map(Into::into));
    all
}

fn evaluating(data: &Path, run: &Path, more: &[&str]) -> Vec<OsString> {
    let mut all = args!["evaluate", "--data", data, "--run", run, "--split", "main", "--draws", "10"].to_vec();
    all.extend(more.iter().map(Into::into));
    all
}

#[test]
fn a_classifier_learns_the_labels_of_a_join() {
    let temporary = folder();
    let data = split_dataset(temporary.path(), 60);
    let code = |number: usize| number % 3 % 2;
    join(&data, "rare", "id,Hernia", &["--as", "labels"], |id, number, _| format!("{id},{}", code(number)));
    let run: PathBuf = temporary.path().join("run");
    let without = fails("trainer", 1, finetuning(&data, &run, "labels:Hernia", &[]));
    assert!(without.contains("Hernia"), "{without}");
    ok("trainer", finetuning(&data, &run, "labels:Hernia", &["--join", "rare"]));
    let config = fs::read_to_string(run.join("config.toml")).expect("a configuration");
    assert!(config.contains("joins = [[\"rare\", \""), "{config}");

    // The run's joins are those of its evaluation.
    ok("trainer", evaluating(&data, &run, &[]));
    let batches = read_table(&run.join("predictions-test.parquet")).expect("predictions");
    let dataset = Dataset::open(&data).expect("a dataset");
    let mut seen = 0;
    for batch in &batches {
        let ids = column::<StringArray>(batch, "record_id").expect("identifiers");
        let labels = column::<Int8Array>(batch, "label Hernia").expect("labels");
        for at in 0..batch.num_rows() {
            assert_eq!(usize::from(labels.value(at) == 1), code(dataset.row_of(ids.value(at)).expect("a record")));
            seen += 1;
        }
    }
    assert!(seen > 5);

    // Other labels of the same name are another run, and are not what the run was trained with.
    join(&data, "rare", "id,Hernia", &["--as", "labels", "--overwrite"], |id, number, _| {
        format!("{id},{}", 1 - code(number))
    });
    let message = fails("trainer", 1, finetuning(&data, &run, "labels:Hernia", &["--join", "rare"]));
    assert!(message.contains("joins"), "{message}");
    let message = fails("trainer", 1, evaluating(&data, &run, &[]));
    assert!(message.contains("join `rare` was made anew since the run was trained"), "{message}");
    ok("trainer", evaluating(&data, &run, &["--join", "rare"]));
    let message = fails("trainer", 2, {
        let mut all = finetuning(&data, &temporary.path().join("both"), "labels:Edema", &["--join", "rare"]);
        all.extend(args!["--data", &data]);
        all
    });
    assert!(message.contains("--join is for one dataset"), "{message}");
}

#[test]
fn groups_come_from_the_texts_and_labels_of_joins() {
    let temporary = folder();
    let data = split_dataset(temporary.path(), 60);
    let site = |number: usize| ["north", "south", ""][number % 3];
    join(&data, "hospital", "id,Site", &["--as", "texts", "--text-columns", "Site=Site"], |id, number, _| {
        format!("{id},{}", site(number))
    });
    join(&data, "rare", "id,Hernia", &["--as", "labels"], |id, number, _| format!("{id},{}", number % 2));
    let run = temporary.path().join("run");
    ok("trainer", finetuning(&data, &run, "labels:Cardiomegaly", &[]));
    let words = ["--join", "hospital", "--join", "rare", "--subgroups", "Site,Hernia"];
    ok("trainer", evaluating(&data, &run, &words));
    let report: Value = dataset::store::files::read_json(&run.join("evaluation-test.json")).expect("a report");
    let dataset = Dataset::open(&data).expect("a dataset");
    let batches = read_table(&run.join("predictions-test.parquet")).expect("predictions");
    let ids = column::<StringArray>(&batches[0], "record_id").expect("identifiers");
    let labels = column::<Int8Array>(&batches[0], "label Cardiomegaly").expect("labels");
    let count = |wanted: &dyn Fn(usize) -> bool| {
        let rows = (0..ids.len()).filter(|&at| wanted(dataset.row_of(ids.value(at)).expect("a record")));
        rows.filter(|&at| labels.value(at) == 1).count()
    };
    let positives = |column: usize| -> Vec<(String, u64)> {
        let groups = report["subgroups"][column]["findings"][0]["groups"].as_array().expect("groups");
        let group =
            |group: &Value| (group["group"].as_str().unwrap_or_default().to_owned(), group["positives"].as_u64());
        groups.iter().map(group).map(|(name, count)| (name, count.expect("a count"))).collect()
    };
    let expected = |name: &str, count: usize| (name.to_owned(), count as u64);
    let of_site = |wanted: &'static str| count(&|number| site(number) == wanted);
    assert_eq!(
        positives(0),
        [expected("north", of_site("north")), expected("south", of_site("south")), expected("not stated", of_site(""))]
    );
    assert_eq!(
        positives(1),
        [
            expected("negative", count(&|number| number % 2 == 0)),
            expected("positive", count(&|number| number % 2 == 1))
        ]
    );
    // Without the join there is no such column.
    let message = fails("trainer", 1, evaluating(&data, &run, &["--subgroups", "site"]));
    assert!(message.contains("no column `site`"), "{message}");
}

#[test]
fn a_segmenter_learns_a_mask_of_a_join() {
    let temporary = folder();
    let data = split_dataset(temporary.path(), 40);
    let words =
        ["--as", "masks", "--mask-columns", "all=all,top=top", "--mask-runs", "absolute", "--mask-order", "rows"];
    join(&data, "areas", "id,all,top", &words, |id, _, (width, height)| {
        format!("{id},1 {},1 {}", width * height, width * (height / 2))
    });
    let train = |name: &str, more: &[&str]| {
        let run = temporary.path().join(name);
        let small = ["--join", "areas", "--set", "model.channels=16", "--set", "model.auxiliary_channels=16"];
        ok("trainer", finetuning(&data, &run, "siim", &[&small[..], more].concat()));
        ok("trainer", evaluating(&data, &run, &[]));
        let report: Value = dataset::store::files::read_json(&run.join("evaluation-test.json")).expect("a report");
        let batches = read_table(&run.join("predictions-test.parquet")).expect("predictions");
        let areas = column::<arrow_array::UInt64Array>(&batches[0], "target_area").expect("areas").values().to_vec();
        assert_eq!(report["records"].as_u64().expect("records") as usize, areas.len());
        areas
    };
    assert!(train("first", &[]).iter().all(|area| *area == 32 * 32));
    assert!(train("named", &["--set", "data.mask=top"]).iter().all(|area| area.abs_diff(32 * 16) <= 32));
    let run = temporary.path().join("none");
    let message = fails("trainer", 1, finetuning(&data, &run, "siim", &["--join", "areas", "--set", "data.mask=tops"]));
    assert!(message.contains("no record has a mask `tops`; did you mean `top`?"), "{message}");
}
