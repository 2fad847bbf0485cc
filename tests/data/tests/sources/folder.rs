//! The source `folder`: any directory, by its paths or by a table.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use dataset::Dataset;
use helpers::{args, fails, files_with, folder, ingest, ok, phantom_of, records, rejects, write_png};

use crate::shared::{no_images, says, table};

#[test]
fn without_a_table_paths_name_patients_and_studies() {
    let temporary = folder();
    let raw = phantom_of("folder", temporary.path(), 24);
    fs::remove_file(raw.join("films.csv")).expect("removed");
    fs::remove_file(raw.join("phantom.json")).expect("removed");
    let out = temporary.path().join("set");
    let output = helpers::run("ingest", args!["folder", &raw, &out, "--size", "64", "--vocab-size", "400"]);
    assert!(output.status.success());
    assert!(!helpers::text(&output.stderr).contains("warning"), "patients come from the folders");
    assert_eq!(rejects(&out), []);
    let records = records(&out);
    let texts = files_with(&raw, ".txt");
    assert_eq!(records.len(), texts.len());
    let endings: BTreeSet<Option<&str>> =
        records.iter().map(|record| Path::new(&record.source_path).extension().and_then(|e| e.to_str())).collect();
    assert_eq!(endings, [None, Some("dcm"), Some("png")].into());
    for record in &records {
        let path = record.record_id.strip_prefix("folder/").expect("the source's name");
        let parts: Vec<&str> = path.split('/').collect();
        let study = format!("{}/{}", parts[0], parts[1]);
        assert_eq!((record.patient_id.as_str(), record.study_id.as_str()), (parts[0], study.as_str()));
        assert_eq!(record.image_id, parts[2]);
        let text = fs::read_to_string(raw.join(format!("{path}.txt"))).expect("a report");
        assert_eq!(record.report.as_deref(), Some(text.trim()));
        assert_eq!(record.view.is_some(), !record.source_path.ends_with(".png"), "the view is in DICOM headers");
    }
    // A name used twice, an image outside of the folders, other files, a damaged one, and an image without a report.
    let radiograph =
        raw.join(records.iter().find(|r| r.source_path.ends_with(".png")).map(|r| &r.source_path).expect("a PNG"));
    fs::create_dir(raw.join("twins")).expect("a folder");
    for name in ["twins/a.png", "twins/a.jpeg", "lonely.PNG"] {
        fs::copy(&radiograph, raw.join(name)).expect("copied");
    }
    fs::write(raw.join("twins/notes.txt"), "nothing").expect("written");
    fs::write(raw.join("twins/.hidden.png"), "nothing").expect("written");
    fs::write(raw.join("twins/README"), "no image").expect("written");
    fs::write(raw.join("twins/broken.jpg"), "no image").expect("written");
    let out = temporary.path().join("more");
    let output = helpers::run(
        "ingest",
        args!["folder", &raw, &out, "--size", "64", "--vocab-size", "400", "--max-reject-rate", "1"],
    );
    let message = helpers::text(&output.stderr);
    assert!(message.contains("warning: 1 of the images counts as a patient of its own"), "{message}");
    let more = helpers::records(&out);
    assert_eq!(more.len(), records.len() + 3);
    let of = |id: &str| more.iter().find(|record| record.record_id == id).expect("a record");
    assert_eq!(
        (of("folder/twins/a.png").patient_id.as_str(), of("folder/lonely").patient_id.as_str()),
        ("twins", "lonely")
    );
    assert_eq!(of("folder/twins/a.jpeg").report, None);
    says(&out, "twins/broken.jpg", "decode", "");
    assert_eq!(rejects(&out).len(), 1);
}

/// Columns of the phantom's table.
const COLUMNS: [&str; 14] = [
    "--table",
    "",
    "--image-column",
    "file",
    "--report-column",
    "report",
    "--patient-column",
    "patient",
    "--study-column",
    "study",
    "--view-column",
    "view",
    "--subset-column",
    "subset",
];

fn with_table<'a>(table: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = COLUMNS.to_vec();
    arguments[1] = table;
    arguments.extend(more);
    arguments
}

#[test]
fn a_table_names_patients_reports_and_labels() {
    let temporary = folder();
    let raw = phantom_of("folder", temporary.path(), 24);
    let path = raw.join("films.csv");
    let (header, rows) = table(&path);
    let findings = ["Pleural Effusion", "Pneumonia"];
    let labels = findings.join(",");
    let out = temporary.path().join("set");
    let arguments = with_table(path.to_str().expect("text"), &["--label-columns", &labels]);
    ingest("folder", &raw, &out, &arguments);
    assert_eq!(rejects(&out), []);
    let records = records(&out);
    assert_eq!(records.len(), rows.len());
    assert_eq!(Dataset::open(&out).expect("a dataset").findings(), findings);
    let by_file: BTreeMap<&str, &Vec<String>> = rows.iter().map(|row| (row[0].as_str(), row)).collect();
    for record in &records {
        let row = by_file[record.source_path.as_str()];
        assert_eq!((&record.patient_id, record.study_id.clone()), (&row[2], format!("{}/{}", row[2], row[3])));
        assert_eq!((record.view.as_ref(), record.subset.as_ref()), (Some(&row[4]), Some(&row[5])));
        let text = fs::read_to_string(raw.join(&row[1])).expect("a report");
        assert_eq!(record.report.as_deref(), Some(text.trim()));
        let code = |finding: &&str| row[header.iter().position(|name| name == finding).expect("a column")].parse().ok();
        assert_eq!(helpers::label_codes(record), findings.iter().map(code).collect::<Vec<Option<i8>>>());
    }
    let kinds: BTreeSet<Option<i8>> = records.iter().flat_map(helpers::label_codes).collect();
    assert!(kinds.len() >= 3, "{kinds:?}");

    // File names without folders, reports in cells, no patient column: a warning, and every image is its own patient.
    let list = temporary.path().join("list.csv");
    let lonely: Vec<&Vec<String>> = rows.iter().take(6).collect();
    let name = |row: &Vec<String>| row[0].replace('/', "-");
    for row in &lonely {
        fs::copy(raw.join(&row[0]), raw.join(name(row))).expect("copied");
    }
    let lines: String = lonely.iter().map(|row| format!("{},\"FINDINGS: all, clear\"\n", name(row))).collect();
    fs::write(&list, format!("name,text\n{lines}")).expect("written");
    let bare = temporary.path().join("bare");
    let arguments = args![
        "folder",
        &raw,
        &bare,
        "--table",
        &list,
        "--image-column",
        "name",
        "--report-column",
        "text",
        "--size",
        "64",
        "--vocab-size",
        "100",
        "--max-reject-rate",
        "1"
    ];
    let output = helpers::run("ingest", arguments);
    let message = helpers::text(&output.stderr);
    assert!(output.status.success(), "{message}");
    assert!(
        message.contains(
            "warning: every image counts as a patient of its own, so a split may have one patient in several subsets"
        ),
        "{message}"
    );
    let found = helpers::records(&bare);
    assert_eq!(found.len(), 6);
    assert!(found.iter().all(|record| record.report.as_deref() == Some("FINDINGS: all, clear")));
    assert_eq!(found.iter().map(|record| &record.patient_id).collect::<BTreeSet<_>>().len(), 6);
    assert_eq!(rejects(&bare).len(), rows.len(), "the other images are not in the table");
    // Without the images.
    let elsewhere = temporary.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("a folder");
    let list = list.to_str().expect("text");
    assert_eq!(
        no_images("folder", &elsewhere, &temporary.path().join("no"), &["--table", list, "--image-column", "name"])
            .len(),
        6
    );
}

#[test]
fn faults_of_a_table_are_rejects_or_errors() {
    let temporary = folder();
    let raw = phantom_of("folder", temporary.path(), 12);
    let path = raw.join("films.csv");
    let (header, mut rows) = table(&path);
    let at = header.iter().position(|name| name == "Edema").expect("a column");
    rows[0][at] = "severe".to_owned();
    rows[1][5] = "everything".to_owned();
    rows[2][2] = String::new();
    rows[3][1] = "reports/lost.txt".to_owned();
    rows[4][0] = "../outside.png".to_owned();
    rows[5][0] = "film1.dcm".to_owned();
    let gone = rows[6].clone();
    fs::remove_file(raw.join(&gone[0])).expect("removed");
    let repeated = rows[7].clone();
    rows.push(repeated.clone());
    let lines: String = std::iter::once(&header).chain(&rows).map(|row| format!("{}\n", row.join(","))).collect();
    fs::write(&path, format!("{lines}short\n")).expect("written");
    let out = temporary.path().join("set");
    // The table's path may be relative to the raw directory.
    ingest(
        "folder",
        &raw,
        &out,
        &with_table("films.csv", &["--label-columns", "Edema,Pneumonia", "--max-reject-rate", "1"]),
    );
    says(&out, "films.csv", "table", "line 2: column `Edema`: `severe` is no label; map it with --label-map");
    says(
        &out,
        "films.csv",
        "table",
        "line 3: column `subset`: unknown subset `everything`; leave it empty or write one of train",
    );
    says(&out, "films.csv", "table", "line 4: the patient column is empty");
    says(&out, "films.csv", "table", "line 6: the path leads out of the raw directory");
    says(&out, "films.csv", "table", "line 7: the name `film1.dcm` matches several files");
    says(&out, "films.csv", "table", "1 fields, the header has 19");
    says(&out, "reports/lost.txt", "report", "no report file");
    says(&out, &gone[0], "read", "the file is missing");
    says(&out, &repeated[0], "plan", "listed twice");
    let found = rejects(&out);
    assert_eq!(found.iter().filter(|reject| reject.error.contains("no table lists")).count(), 2, "of rows 5 and 6");
    assert_eq!(found.len(), 11);
    assert_eq!(records(&out).len(), rows.len() - 1 - 6);

    let printed = |code, arguments: &[&str]| {
        let mut all = args!["folder", &raw, temporary.path().join("x")].to_vec();
        all.extend(arguments.iter().map(Into::into));
        fails("ingest", code, all)
    };
    let error = printed(1, &["--table", "films.csv", "--image-column", "files"]);
    assert!(error.contains("no column `files`; did you mean `file`"), "{error}");
    let error = printed(1, &["--table", "films.csv", "--image-column", "file", "--label-columns", "Pneumonie"]);
    assert!(error.contains("no column `Pneumonie`; did you mean `Pneumonia`"), "{error}");
    assert!(printed(2, &["--table", "films.csv"]).contains("--image-column"));
    assert!(printed(2, &["--image-column", "file"]).contains("--table"));
    assert!(printed(1, &["--table", "nowhere.csv", "--image-column", "file"]).contains("nowhere.csv"));
}

#[test]
fn patient_from_header_takes_the_patient_of_dicom_files() {
    let temporary = folder();
    let raw = phantom_of("folder", temporary.path(), 15);
    let radiographs: Vec<String> =
        files_with(&raw, "").into_iter().filter(|path| path.contains("/film") && !path.ends_with(".txt")).collect();
    let flat = temporary.path().join("flat");
    fs::create_dir(&flat).expect("a folder");
    for radiograph in &radiographs {
        fs::copy(raw.join(radiograph), flat.join(radiograph.replace('/', "-"))).expect("copied");
    }
    let out = temporary.path().join("set");
    ingest("folder", &flat, &out, &["--patient-from-header", "--max-reject-rate", "1"]);
    let records = records(&out);
    let images = radiographs.iter().filter(|radiograph| radiograph.ends_with(".png")).count();
    assert!(images > 0);
    assert_eq!(records.len(), radiographs.len() - images);
    assert!(records.iter().all(|record| record.source_path.starts_with(&format!("{}-", record.patient_id))));
    let found = rejects(&out);
    assert!(found.iter().all(|reject| reject.error.contains("the patient is unknown: not a DICOM file")), "{found:?}");
    assert_eq!(found.len(), images);
    // Study names of a table may repeat in other patients.
    let lines: String = files_with(&flat, ".dcm").iter().map(|radiograph| format!("{radiograph},s1\n")).collect();
    fs::write(flat.join("studies.csv"), format!("file,study\n{lines}")).expect("written");
    let out = temporary.path().join("studies");
    let columns = ["--table", "studies.csv", "--image-column", "file", "--study-column", "study"];
    ingest("folder", &flat, &out, &[&columns[..], &["--patient-from-header", "--max-reject-rate", "1"]].concat());
    let with_studies = helpers::records(&out);
    assert!(!with_studies.is_empty());
    assert!(with_studies.iter().all(|record| record.study_id == format!("{}/s1", record.patient_id)));
    fs::remove_file(flat.join("studies.csv")).expect("removed");
    // Without the option nothing of the header's patient is stored.
    let out = temporary.path().join("plain");
    ingest("folder", &flat, &out, &[]);
    assert!(helpers::records(&out).iter().all(|record| record.patient_id == record.image_id));
}

#[test]
fn a_name_with_a_line_break_is_rejected() {
    let temporary = folder();
    let path = temporary.path();
    // It would fail `verify`.
    let names = path.join("names");
    for name in ["one.png", "two\nlines.png"] {
        write_png(&names.join(name), 64, 64);
    }
    let out = path.join("names-set");
    ingest("folder", &names, &out, &["--max-reject-rate", "1", "--tokenizer", "none"]);
    let rejected = rejects(&out);
    assert_eq!((rejected.len(), rejected[0].source_path.as_str()), (1, "two\nlines.png"));
    assert!(rejected[0].error.ends_with("contains the control character U+000A"), "{}", rejected[0].error);
    assert!(ok("dataset", args!["verify", &out]).contains("1 record, all whole"));
}
