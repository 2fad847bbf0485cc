//! Labels: long-tail labels by image, labels of studies by hand, paths as keys, tables of other kinds.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use dataset::format::record::Record;
use dataset::loader::LoaderBuilder;
use dataset::transform::Transform;
use dataset::{Dataset, Label, Loader};
use helpers::{args, fails, folder, ingest, ok, phantom_of, python, python_output, read_text, records};

use crate::shared::{joined, joining, mimic, table};

/// The first columns of the tables of CXR-LT, and some of its findings.
const LONG_TAIL: &str = "dicom_id,subject_id,study_id,ViewPosition,fpath,Adenopathy,Edema,Tortuous Aorta";
const FINDINGS: [&str; 3] = ["Adenopathy", "Edema", "Tortuous Aorta"];

/// The label of a finding in the table; the records of odd rows have no row.
fn long_tail(row: usize, finding: usize) -> Option<Label> {
    [Some(Label::Positive), Some(Label::Negative), None, Some(Label::Uncertain)][(row / 2 + finding) % 4]
}

fn cell(label: Option<Label>) -> String {
    label.map_or_else(String::new, |label| format!("{}.0", label.code()))
}

fn long_tail_rows(all: &[Record]) -> Vec<String> {
    let mut rows: Vec<String> = all
        .iter()
        .enumerate()
        .filter(|(row, _)| row % 2 == 0)
        .map(|(row, record)| {
            let labels: Vec<String> = (0..3).map(|finding| cell(long_tail(row, finding))).collect();
            let (patient, study) = (&record.patient_id, &record.study_id);
            format!("{},{patient},{study},PA,files/x.jpg,{}", record.image_id, labels.join(","))
        })
        .collect();
    rows.reverse();
    rows.push("0000-of-no-record,1,2,AP,files/y.jpg,1,0,".to_owned());
    rows
}

fn position(findings: &[String], name: &str) -> usize {
    findings.iter().position(|finding| finding == name).expect("a finding")
}

/// The rows and the labels of all batches, and the order of the loader.
fn batches(builder: LoaderBuilder) -> (Vec<u32>, Vec<f32>, u64) {
    let loader = builder.batch_size(7).seed(3).threads(2).transform(Transform::evaluate(16));
    let loader = loader.build().expect("a loader");
    let order = loader.state().order;
    let (mut rows, mut labels) = (Vec::new(), Vec::new());
    for batch in loader {
        let batch = batch.expect("a batch");
        rows.extend_from_slice(batch.rows());
        labels.extend_from_slice(batch.labels());
    }
    (rows, labels, order)
}

#[test]
fn labels_of_images_are_over_those_of_the_dataset() {
    let temporary = folder();
    let (data, here) = (mimic(temporary.path()), temporary.path());
    let all = records(&data);
    let path = table(here, "train_labeled.csv", LONG_TAIL, long_tail_rows(&all));
    let words = ["--key", "dicom_id", "--as", "labels", "--name", "cxr-lt", "--label-origin", "nlp:cxr-lt"];
    let printed = ok("ingest", joining(&data, &path, &words));
    let (rows, with) = (all.len().div_ceil(2) + 1, all.len().div_ceil(2));
    for line in [
        "joins/cxr-lt.parquet has labels: Adenopathy, Edema, Tortuous Aorta\n".to_owned(),
        "`dicom_id` is the image_id of records\n".to_owned(),
        format!("{rows}: {with} are about records\n"),
        "1 have a key that no record has (0000-of-no-record)\n".to_owned(),
        format!("{with} records with labels, {} without", all.len() - with),
    ] {
        assert!(printed.contains(&line), "{line} in {printed}");
    }

    let stored = Dataset::open(&data).expect("a dataset");
    assert_eq!(stored.joins().expect("joins"), ["cxr-lt"]);
    let facts = stored.join("cxr-lt").expect("a join").facts().clone();
    assert_eq!((facts.names.as_slice(), facts.on.as_str()), (&FINDINGS.map(str::to_owned)[..], "image_id"));
    let own: Vec<String> = stored.findings().to_vec();
    let seen = joined(&data, &["cxr-lt"]);
    let findings = seen.findings().to_vec();
    assert!(own.contains(&"Edema".to_owned()) && findings.starts_with(&own));
    assert_eq!(findings[own.len()..], ["Adenopathy", "Tortuous Aorta"]);
    let expected = |row: usize| -> Vec<Option<Label>> {
        let of = |finding: &String| match FINDINGS.iter().position(|name| name == finding) {
            Some(at) if row.is_multiple_of(2) => long_tail(row, at),
            Some(_) => None,
            None => all[row].labels[position(&own, finding)],
        };
        findings.iter().map(of).collect()
    };
    for (row, record) in all.iter().enumerate() {
        let now = seen.record(row).expect("a record");
        assert_eq!(now.labels, expected(row), "row {row}");
        let origin = if row % 2 == 0 { Some("nlp:cxr-lt") } else { None };
        assert_eq!(now.label_origin.as_deref(), origin, "row {row}");
        assert_eq!(
            (now.image, now.token_ids, now.report),
            (record.image.clone(), record.token_ids.clone(), record.report.clone())
        );
    }
    assert_eq!(seen.labels().expect("labels"), (0..all.len()).map(expected).collect::<Vec<_>>());
    let frame = seen.metadata().expect("a table");
    assert_eq!(frame.height(), all.len());

    // The loader: the same order, other labels.
    let plain = Arc::new(stored);
    let (rows, _, order) = batches(Loader::builder(&plain));
    let (joined_rows, labels, joined_order) = batches(Loader::builder(&plain).join("cxr-lt").expect("a join"));
    assert_eq!((&rows, order), (&joined_rows, joined_order));
    let of_rows = joined_rows.iter().flat_map(|&row| expected(row as usize)).map(Label::tensor_value);
    assert!(labels.iter().map(|value| value.to_bits()).eq(of_rows.map(f32::to_bits)));
    assert!(Loader::builder(&plain).join("other").err().expect("an error").to_string().contains("there are: cxr-lt"));

    // The commands.
    let page = ok("dataset", args!["inspect", &data]);
    let listed = format!(
        "joins     cxr-lt: labels of Adenopathy, Edema, Tortuous Aorta; {with} of {} records, from train_labeled.csv by image_id\n",
        all.len()
    );
    assert!(page.contains(&listed) && !page.contains("\nTortuous Aorta"), "{page}");
    let page = ok("dataset", args!["inspect", &data, "--join", "cxr-lt"]);
    assert!(page.contains("\nTortuous Aorta") && page.contains("(shown here)"), "{page}");
    let shown = ok("dataset", args!["inspect", &data, "--join", "cxr-lt", "--row", &all[0].record_id]);
    assert!(shown.contains("Adenopathy=1") && shown.contains("nlp:cxr-lt"), "{shown}");
    assert!(ok("dataset", args!["verify", &data]).contains("all whole"));
}

#[test]
fn labels_of_studies_by_hand_keep_those_of_other_studies() {
    let temporary = folder();
    let (data, here) = (mimic(temporary.path()), temporary.path());
    let all = records(&data);
    let studies: BTreeSet<&str> = all.iter().map(|record| record.study_id.as_str()).collect();
    let chosen: Vec<&str> = studies.into_iter().step_by(3).collect();
    // The findings of MIMIC-CXR-JPG 2.1.0, of which the table has one under another name.
    let header = "study_id,Airspace Opacity,Edema";
    let rows = chosen.iter().enumerate().map(|(at, study)| format!("{study},{},-1.0", at % 2));
    let path = table(here, "mimic-cxr-2.1.0-test-set-labeled.csv", header, rows);
    let words = ["--key", "study_id", "--as", "labels", "--name", "by-hand", "--unmatched", "keep"];
    let more = ["--rename", "Airspace Opacity=Lung Opacity", "--label-origin", "radiologist"];
    let printed = ok("ingest", joining(&data, &path, &[&words[..], &more[..]].concat()));
    assert!(printed.contains("`study_id` is the study_id of records\n"), "{printed}");

    let seen = joined(&data, &["by-hand"]);
    assert_eq!(seen.findings(), Dataset::open(&data).expect("a dataset").findings(), "no new finding");
    let (opacity, edema) = (position(seen.findings(), "Lung Opacity"), position(seen.findings(), "Edema"));
    let mut images = 0;
    for (row, record) in all.iter().enumerate() {
        let mut expected = record.clone();
        if let Some(at) = chosen.iter().position(|study| *study == record.study_id) {
            images += 1;
            expected.labels[opacity] = Label::from_code((at % 2) as i8);
            expected.labels[edema] = Some(Label::Uncertain);
            expected.label_origin = Some("radiologist".to_owned());
        }
        assert_eq!(seen.record(row).expect("a record"), expected);
    }
    assert!(images > chosen.len(), "a study of several images");
    assert!(printed.contains(&format!("{images} records with labels")), "{printed}");
    // A later join is over an earlier one.
    let path = table(here, "one.csv", "dicom_id,Edema", [format!("{},1", all[0].image_id)]);
    ok(
        "ingest",
        joining(&data, &path, &["--key", "dicom_id", "--as", "labels", "--name", "one", "--unmatched", "keep"]),
    );
    let both = joined(&data, &["by-hand", "one"]);
    assert_eq!(both.record(0).expect("a record").labels[edema], Some(Label::Positive));
    let reversed = joined(&data, &["one", "by-hand"]);
    for row in 1..all.len() {
        assert_eq!(both.record(row).expect("a record").labels, reversed.record(row).expect("a record").labels);
    }
}

#[test]
fn paths_are_keys_whatever_folders_precede_them() {
    let temporary = folder();
    let (raw, data) = (phantom_of("chexpert", temporary.path(), 20), temporary.path().join("set"));
    ingest("chexpert", &raw, &data, &[]);
    let all = records(&data);
    let label = |row: usize| Label::from_code((row % 2) as i8);
    let row_of = |(row, record): (usize, &Record)| {
        let path = record.source_path.rsplit_once('.').map_or("", |(stem, _)| stem);
        format!("{path}.jpg,{}", row % 2)
    };
    let rows: Vec<String> = all.iter().enumerate().map(row_of).collect();
    let folders = all[0].source_path.split('/').count();
    let longer = rows.iter().map(|row| format!("CheXpert-v1.0-other/{row}"));
    let shorter = rows.iter().map(|row| row.split_once('/').expect("a folder").1.to_owned());
    for (name, rows, words) in [
        ("same", rows.clone(), "source_path of records\n"),
        ("longer", longer.collect(), "source_path of records, without the first folder of the table's paths\n"),
        (
            "shorter",
            shorter.collect::<Vec<_>>(),
            "source_path of records, without the first folder of the records' paths\n",
        ),
    ] {
        if name == "shorter" && folders < 4 {
            continue;
        }
        let path = table(temporary.path(), &format!("{name}.csv"), "Path,Nodule", rows);
        let printed = ok("ingest", joining(&data, &path, &["--key", "Path", "--as", "labels"]));
        assert!(printed.contains(words), "{printed}");
        let seen = joined(&data, &[name]);
        let nodule = position(seen.findings(), "Nodule");
        let found: Vec<_> = seen.labels().expect("labels").into_iter().map(|labels| labels[nodule]).collect();
        assert_eq!(found, (0..all.len()).map(label).collect::<Vec<_>>());
    }
    // A name of many images is no key.
    let file = all[0].source_path.rsplit('/').next().expect("a name");
    let path = table(temporary.path(), "names.csv", "file,Nodule", [format!("{file},1")]);
    let message = fails("ingest", 1, joining(&data, &path, &["--key", "file", "--as", "labels", "--on", "image_id"]));
    assert!(message.contains("is the image_id of several images"), "{message}");
}

/// Writes the rows of a CSV table as JSON lines and as Parquet.
const OTHER_KINDS: &str = r#"
import csv, json, sys
import pyarrow, pyarrow.parquet
rows = [{name: value or None for name, value in row.items()} for row in csv.DictReader(open(sys.argv[1], newline=""))]
with open(sys.argv[2] + ".jsonl", "w") as file:
    file.writelines(json.dumps(row) + "\n" for row in rows)
pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sys.argv[2] + ".parquet")
"#;

#[test]
fn tables_of_all_kinds_and_words_of_a_mapping_give_the_same_join() {
    let temporary = folder();
    let (data, here) = (mimic(temporary.path()), temporary.path());
    let all = records(&data);
    let csv = table(here, "labels.csv", LONG_TAIL, long_tail_rows(&all));
    python_output(python().args(["-c", OTHER_KINDS]).args([&csv, &here.join("labels")]));
    let written = |name: &str, path: &Path, more: &[&str]| {
        let words = [&["--key", "dicom_id", "--as", "labels", "--name", name], more].concat();
        ok("ingest", joining(&data, path, &words));
        let join = Dataset::open(&data).expect("a dataset").join(name).expect("a join");
        assert_eq!(join.facts().names, FINDINGS);
        join.values(0..join.rows()).expect("values")
    };
    let expected = written("csv", &csv, &[]);
    for ending in ["jsonl", "parquet"] {
        let values = written(ending, &here.join(format!("labels.{ending}")), &[]);
        assert!(values.as_ref() == expected.as_ref(), "{ending}");
    }
    let words = read_text(&csv).replace(",1.0", ",seen").replace(",0.0", ",not seen").replace(",-1.0", ",who knows");
    let path = here.join("words.tsv");
    helpers::write_file(&path, words.replace(',', "\t"));
    let columns = ["--label-columns", "Adenopathy,Edema,Tortuous Aorta", "--jobs", "1"];
    let map = ["--label-map", "seen=1,not seen=0,who knows=-1"];
    assert!(written("words", &path, &[&columns[..], &map[..]].concat()).as_ref() == expected.as_ref());
    // Classes become findings.
    let class = |row: usize| ["normal", "virus"][row % 2];
    let rows = all.iter().enumerate().map(|(row, record)| format!("{},{}", record.record_id, class(row)));
    let path = table(here, "classes.csv", "id,diagnosis", rows);
    ok("ingest", joining(&data, &path, &["--key", "id", "--as", "labels", "--class-column", "diagnosis"]));
    let seen = joined(&data, &["classes"]);
    let virus = position(seen.findings(), "virus");
    assert!(
        seen.labels()
            .expect("labels")
            .iter()
            .enumerate()
            .all(|(row, labels)| labels[virus] == Label::from_code((row % 2) as i8))
    );
}
