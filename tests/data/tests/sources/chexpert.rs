//! The source `chexpert`.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use dataset::Dataset;
use dataset::format::record::Record;
use helpers::{
    args, contents, fails, folder, ingest, ok, phantom, phantom_of, read_text, real_data, records_by_id, rejects,
    write_file, write_png,
};

use crate::shared::{codes, rows};

#[test]
fn a_phantom_is_ingested() {
    let temporary = folder();
    let raw = phantom_of("chexpert", temporary.path(), 60);
    let out = temporary.path().join("set");
    ingest("chexpert", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    let found = records_by_id(&out);
    let dataset = Dataset::open(&out).expect("a dataset");
    let mut seen = 0;
    let mut kinds = std::collections::BTreeSet::new();
    for (table, subset) in [("train", "train"), ("valid", "validate")] {
        let text = read_text(&raw.join(format!("CheXpert-v1.0-small/{table}.csv")));
        assert_eq!(dataset.findings(), text.lines().next().expect("a header").split(',').skip(5).collect::<Vec<_>>());
        for row in rows(&text) {
            seen += 1;
            let inner = row["Path"].strip_prefix("CheXpert-v1.0-small/").expect("the release's folder");
            let record = &found[&format!("chexpert/{}", inner.strip_suffix(".jpg").expect("a JPEG"))];
            assert_eq!(record.source_path, row["Path"]);
            assert_eq!(helpers::label_codes(record), codes(&row, dataset.findings()), "{inner}");
            let view = if row["Frontal/Lateral"] == "Lateral" { "LATERAL" } else { row["AP/PA"] };
            let parts: Vec<&str> = inner.split('/').collect();
            assert_eq!(
                (record.patient_id.as_str(), &record.study_id),
                (parts[1], &format!("{}/{}", parts[1], parts[2]))
            );
            assert_eq!((record.view.as_deref(), record.subset.as_deref()), (Some(view), Some(subset)));
            assert_eq!(record.sex.as_deref(), Some(&row["Sex"][..1]));
            assert_eq!(record.age_years, row["Age"].parse().ok());
            let origin = if table == "train" { "nlp:chexpert" } else { "consensus" };
            let is_labeled = record.labels.iter().any(Option::is_some);
            assert_eq!(record.label_origin.as_deref(), is_labeled.then_some(origin));
            assert!(record.report.is_none() && record.width.min(record.height) == 64);
            kinds.extend(helpers::label_codes(record));
            kinds.insert(Some(if view == "LATERAL" { 7 } else { 8 }));
        }
    }
    assert_eq!((seen, found.len()), (contents(&raw).keys().filter(|path| path.ends_with(".jpg")).count(), seen));
    assert_eq!(kinds.len(), 6, "1, 0, -1, blank, frontal, lateral: {kinds:?}");
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
}

#[test]
fn labels_view_and_subset_are_read() {
    let temporary = folder();
    let path = temporary.path();
    let chexpert = path.join("chexpert/CheXpert-v1.0-small");
    write_png(&chexpert.join("train/patient00001/study1/view1_frontal.jpg"), 80, 100);
    write_png(&chexpert.join("train/patient00001/study1/view2_lateral.jpg"), 80, 100);
    write_png(&chexpert.join("valid/patient64541/study1/view1_frontal.jpg"), 80, 100);
    let header = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Cardiomegaly,Edema\n";
    let folder = "CheXpert-v1.0-small";
    let train = format!(
        "{header}{folder}/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,,1.0,-1.0\n\
         {folder}/train/patient00001/study1/view2_lateral.jpg,Female,68,Lateral,,,1.0,-1.0\n"
    );
    fs::write(chexpert.join("train.csv"), train).expect("written");
    let valid =
        format!("{header}{folder}/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,PA,1.0,0.0,0.0\n");
    fs::write(chexpert.join("valid.csv"), valid).expect("written");
    let out = path.join("chexpert-set");
    ingest("chexpert", &path.join("chexpert"), &out, &[]);
    let dataset = Dataset::open(&out).expect("a dataset");
    let record = dataset.record(1).expect("a record");
    assert_eq!(record.record_id, "chexpert/train/patient00001/study1/view2_lateral");
    assert_eq!(
        (record.view.as_deref(), record.sex.as_deref(), record.age_years),
        (Some("LATERAL"), Some("F"), Some(68.0))
    );
    assert_eq!(helpers::label_codes(&record), [None, Some(1), Some(-1)]);
    assert_eq!(dataset.record(2).expect("a record").subset.as_deref(), Some("validate"));
}

#[test]
fn batches_other_spellings_and_tables_alone_are_found() {
    let temporary = folder();
    let raw = phantom_of("chexpert", temporary.path(), 40);
    let whole = temporary.path().join("whole");
    ingest("chexpert", &raw, &whole, &[]);
    let expected = records_by_id(&whole);

    // The full release: tables and validation images in the first batch, training images in two others.
    let batches = temporary.path().join("batches");
    let base = batches.join("chexpert-V1.0");
    let first = base.join("CheXpert-v1.0 batch 1 (validate & csv)");
    for name in ["train", "valid"] {
        let text = read_text(&raw.join(format!("CheXpert-v1.0-small/{name}.csv")));
        let ending = if name == "train" { "csv.gz" } else { "csv" };
        write_file(&first.join(format!("{name}.{ending}")), text.replace("CheXpert-v1.0-small/", "CheXpert-v1.0/"));
    }
    for path in contents(&raw).keys().filter(|path| path.ends_with(".jpg")) {
        let inner = path.strip_prefix("CheXpert-v1.0-small/").expect("the release's folder");
        let to = match inner.strip_prefix("train/") {
            Some(rest) if rest < "patient00012" => base.join("CheXpert-v1.0 batch 2 (train 1)").join(rest),
            Some(rest) => base.join("CheXpert-v1.0 batch 3 (train 2)").join(rest),
            None => first.join(inner),
        };
        write_file(&to, fs::read(raw.join(path)).expect("an image"));
    }
    write_file(&base.join("CheXpert-v1.0 batch 3 (train 2)/patient99999/study1/view1_frontal.jpg"), "not in a table");
    let out = temporary.path().join("set");
    ingest("chexpert", &batches, &out, &["--max-reject-rate", "0.1"]);
    let found = rejects(&out);
    assert!(found.len() == 1 && found[0].error == "no table lists this file, so it has no record", "{found:?}");
    let apart = |records: BTreeMap<String, Record>| -> Vec<_> {
        records.into_values().map(|record| Record { source_path: String::new(), ..record }).collect()
    };
    assert!(apart(records_by_id(&out)) == apart(expected.clone()));

    // The tables alone.
    let bare = temporary.path().join("bare/CHEXPERT");
    for name in ["train.csv", "valid.csv"] {
        write_file(&bare.join(name), read_text(&raw.join("CheXpert-v1.0-small").join(name)));
    }
    let out = temporary.path().join("bare-set");
    ingest("chexpert", &temporary.path().join("bare"), &out, &["--no-images"]);
    assert_eq!(rejects(&out), []);
    let found = records_by_id(&out);
    assert!(found.keys().eq(expected.keys()));
    assert!(found.values().zip(expected.values()).all(|(a, b)| a.labels == b.labels && a.view == b.view));
    // CheXlocalize's names of the tables and of a folder.
    let localize = temporary.path().join("localize/CheXpert");
    let valid = read_text(&raw.join("CheXpert-v1.0-small/valid.csv"));
    write_file(&localize.join("val_labels.csv"), &valid);
    write_file(
        &localize.join("test_labels.csv"),
        valid.replace("/valid/", "/test/").replace("CheXpert-v1.0-small/", ""),
    );
    for row in rows(&valid) {
        let inner = row["Path"].strip_prefix("CheXpert-v1.0-small/valid/").expect("the release's folder");
        for folder in ["val", "test"] {
            write_file(&localize.join(folder).join(inner), fs::read(raw.join(row["Path"])).expect("an image"));
        }
    }
    let out = temporary.path().join("localize-set");
    ingest("chexpert", &temporary.path().join("localize"), &out, &[]);
    assert_eq!(rejects(&out), []);
    let found = records_by_id(&out);
    assert_eq!(found.len(), 2 * rows(&valid).len());
    for (id, record) in &found {
        let listed = &expected[&id.replace("/test/", "/valid/")];
        assert!(record.labels == listed.labels && record.image == listed.image, "{id}");
        assert_eq!(record.subset.as_deref(), Some(if id.contains("/test/") { "test" } else { "validate" }));
    }
    // With images, each missing one is a reject.
    let message = fails("ingest", 3, args!["chexpert", temporary.path().join("bare"), temporary.path().join("none")]);
    assert!(message.contains("--max-reject-rate"), "{message}");
}

#[test]
fn invalid_rows_are_rejected() {
    let temporary = folder();
    let raw = phantom_of("chexpert", temporary.path(), 30);
    let table = raw.join("CheXpert-v1.0-small/train.csv");
    let text = read_text(&table);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines[1] = format!("{},2.0", lines[1].rsplit_once(',').expect("fields").0);
    let path = lines[2].split(',').next().expect("a path").to_owned();
    lines[2] = lines[2].replacen(&path, "image.jpg", 1);
    let path = lines[3].split(',').next().expect("a path").to_owned();
    lines[3] = lines[3].replacen(&path, "a/../train/../patient1/study1/view1.jpg", 1);
    lines.push("one,two".to_owned());
    write_file(&table, lines.join("\n"));
    let out = temporary.path().join("set");
    ingest("chexpert", &raw, &out, &["--max-reject-rate", "1"]);
    let found = rejects(&out);
    let count = |stage: &str, words: &str| found.iter().filter(|r| r.stage == stage && r.error.contains(words)).count();
    assert_eq!(count("table", "line 2: column `Support Devices`: `2.0` is none of 1, 0, -1 and empty"), 1, "{found:?}");
    assert_eq!(count("table", "Path does not contain patient and study"), 2, "{found:?}");
    assert_eq!(count("table", "2 fields, the header has 19"), 1, "{found:?}");
    assert_eq!(count("plan", "no table lists this file, so it has no record"), 3, "{found:?}");
    assert_eq!(found.len(), 7);
}

#[test]
fn chexpert_plus_adds_reports() {
    let temporary = folder();
    let raw = phantom_of("chexpert", temporary.path(), 30);
    let base = raw.join("CheXpert-v1.0-small");
    let train = read_text(&base.join("train.csv"));
    let listed = rows(&train);
    let mut table = String::from(
        "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,patient_report_date_order,report,\
         section_clinical_history,section_accession_number,section_findings,section_impression,age,sex,race,insurance_type,\
         split\n",
    );
    for (i, row) in listed.iter().enumerate() {
        let inner = row["Path"].strip_prefix("CheXpert-v1.0-small/").expect("the release's folder");
        let dicom = inner.replace(".jpg", ".dcm");
        let report = match i % 4 {
            0 => "\"NARRATIVE:\r\nThe heart, in short, is normal.\r\n\r\nIMPRESSION:\r\n1. \"\"Clear\"\" lungs.\"",
            1 => "Nothing new.",
            _ => "",
        };
        let (findings, impression) = if i % 4 == 3 { ("", "") } else { ("\"Heart, normal.\"", " Clear lungs. ") };
        table += &format!(
            "{inner},{dicom},{},{},patient{i:05},{i},{report},Cough.,Martian 7,{findings},{impression},61.5,Female,Martian,\
             Moonshine,train\n",
            row["Frontal/Lateral"], row["AP/PA"]
        );
    }
    write_file(&base.join("df_chexpert_plus_240401.csv"), &table);
    // One image exists as DICOM only.
    let dicom = phantom(temporary.path(), 2);
    let dicom = contents(&dicom).into_iter().find(|(path, _)| path.ends_with(".dcm")).expect("a DICOM file").1;
    let swapped = raw.join(listed[5]["Path"]);
    fs::remove_file(&swapped).expect("removed");
    fs::write(swapped.with_extension("dcm"), dicom).expect("written");

    let out = temporary.path().join("set");
    ingest("chexpert", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    let found = records_by_id(&out);
    let of = |row: &HashMap<&str, &str>| {
        let inner = row["Path"].strip_prefix("CheXpert-v1.0-small/").expect("the release's folder");
        found[&format!("chexpert/{}", inner.strip_suffix(".jpg").expect("a JPEG"))].clone()
    };
    for (i, row) in listed.iter().enumerate() {
        let record = of(row);
        let report = match i % 4 {
            0 => Some("NARRATIVE:\nThe heart, in short, is normal.\n\nIMPRESSION:\n1. \"Clear\" lungs."),
            1 => Some("Nothing new."),
            2 => Some("FINDINGS: Heart, normal.\nIMPRESSION: Clear lungs."),
            _ => None,
        };
        assert_eq!(record.report.as_deref(), report);
        let sections = (i % 4 != 3).then_some(("Heart, normal.", "Clear lungs."));
        assert_eq!(record.findings.as_deref().zip(record.impression.as_deref()), sections);
        let texts: Vec<&str> = record.texts.iter().map(|text| text.name.as_str()).collect();
        let expected: &[&str] = match i % 4 {
            3 => &[],
            _ => &["clinical history", "findings", "impression"],
        };
        assert_eq!(texts, expected);
        assert_eq!(record.study_order, Some(i as u32));
        assert_eq!(record.language.as_deref(), report.map(|_| "en"));
        assert_eq!(record.age_years, row["Age"].parse().ok(), "the table with labels has priority");
        assert_eq!(record.token_ids.is_empty(), report.is_none());
    }
    assert!(of(&listed[5]).source_path.ends_with(".dcm"));
    for (path, bytes) in contents(&out) {
        let printed = String::from_utf8_lossy(&bytes);
        assert!(!printed.contains("Martian") && !printed.contains("Moonshine"), "{path}");
    }

    // The labels of a part of the report; those of radiologists stay. DICOM files alone.
    let mut lines = String::new();
    for row in listed.iter().skip(1) {
        let inner = row["Path"].strip_prefix("CheXpert-v1.0-small/").expect("the release's folder");
        lines += &format!("{{\"path_to_image\": \"{inner}\", \"Edema\": 1.0, \"No Finding\": null, \"New\": -1}}\n");
    }
    write_file(&base.join("chexbert_labels/impression_fixed.json"), lines);
    let refused = fails("ingest", 1, args!["chexpert", &raw, temporary.path().join("x"), "--labels", "findings"]);
    assert!(refused.contains("no findings_fixed.json, here or in chexbert_labels/; leave out --labels"), "{refused}");
    let out = temporary.path().join("part");
    let more = ["--labels", "impression", "--images", "dicom", "--max-reject-rate", "1"];
    ingest("chexpert", &raw, &out, &more);
    assert_eq!(records_by_id(&out).len(), 1, "one DICOM file");
    let out = temporary.path().join("part-alone");
    ingest("chexpert", &raw, &out, &["--labels", "impression", "--no-images"]);
    let dataset = Dataset::open(&out).expect("a dataset");
    assert_eq!((dataset.findings().len(), dataset.findings().last().map(String::as_str)), (15, Some("New")));
    let part = records_by_id(&out);
    for record in part.values() {
        let stated: Vec<(&str, i8)> = dataset
            .findings()
            .iter()
            .zip(helpers::label_codes(record))
            .filter_map(|(name, code)| Some((name.as_str(), code?)))
            .collect();
        if record.subset.as_deref() == Some("validate") {
            assert!(record.label_origin.as_deref() == Some("consensus") && stated.len() == 14);
        } else if record.source_path == listed[0]["Path"] {
            assert!(record.label_origin.is_none() && stated.is_empty(), "the file does not have it");
        } else {
            assert_eq!(record.label_origin.as_deref(), Some("nlp:chexbert"));
            assert_eq!(stated, [("Edema", 1), ("New", -1)]);
        }
    }

    // The Plus table alone: records without labels.
    for name in ["train.csv", "valid.csv"] {
        fs::remove_file(base.join(name)).expect("removed");
    }
    let out = temporary.path().join("alone");
    ingest("chexpert", &raw, &out, &["--no-images", "--report-text", "findings+impression"]);
    let alone = records_by_id(&out);
    assert_eq!(alone.len(), listed.len());
    for record in alone.values() {
        assert_eq!((record.age_years, record.sex.as_deref()), (Some(61.5), Some("F")));
        assert!(record.subset.as_deref() == Some("train") && record.view.is_some());
        assert!(record.report.as_deref().is_none_or(|report| report == "Heart, normal.\nClear lungs."));
    }
}

#[test]
fn the_real_chexpert_table_is_ingested() {
    let Some(data) = real_data() else { return };
    let temporary = folder();
    let raw = temporary.path().join("raw");
    fs::create_dir(&raw).expect("a folder");
    fs::copy(data.join("labels/chexpert_train.csv.gz"), raw.join("train.csv.gz")).expect("copied");
    let out = temporary.path().join("set");
    ok("ingest", args!["chexpert", &raw, &out, "--no-images"]);
    assert_eq!(rejects(&out), []);
    let dataset = Dataset::open(&out).expect("a dataset");
    let totals = dataset.manifest().totals;
    assert_eq!((totals.records, totals.patients, totals.studies), (223_414, 64_540, 187_641));
    // Counted with Python's csv module: positive, negative, uncertain.
    let expected = [
        ("No Finding", [22_381, 0, 0]),
        ("Enlarged Cardiomediastinum", [10_798, 21_638, 12_403]),
        ("Cardiomegaly", [27_000, 11_116, 8_087]),
        ("Lung Opacity", [105_581, 6_599, 5_598]),
        ("Lung Lesion", [9_186, 1_270, 1_488]),
        ("Edema", [52_246, 20_726, 12_984]),
        ("Consolidation", [14_783, 28_097, 27_742]),
        ("Pneumonia", [6_039, 2_799, 18_770]),
        ("Atelectasis", [33_376, 1_328, 33_739]),
        ("Pneumothorax", [19_448, 56_341, 3_145]),
        ("Pleural Effusion", [86_187, 35_396, 11_628]),
        ("Pleural Other", [3_523, 316, 2_653]),
        ("Fracture", [9_040, 2_512, 642]),
        ("Support Devices", [116_001, 6_137, 1_079]),
    ];
    assert_eq!(dataset.findings(), expected.map(|(finding, _)| finding));
    let labels = helpers::dataset_codes(&dataset);
    for (at, (finding, counts)) in expected.into_iter().enumerate() {
        let count = |code: i8| labels.iter().filter(|codes| codes[at] == Some(code)).count();
        assert_eq!([count(1), count(0), count(-1)], counts, "{finding}");
    }
}
