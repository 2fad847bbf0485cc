//! What `dataset inspect` prints: rejects, prevalence, images; and which numbers the options accept.

use std::fs;

use dataset::Label;
use dataset::format::record::{ImageEncoding, Record};
use helpers::{args, fails, folder, ingest, made_record, ok, phantom, phantom_of, rejects, write_dataset};

#[test]
fn rejects_are_listed_with_their_reason() {
    let temporary = folder();
    let (raw, out) = (phantom(temporary.path(), 12), temporary.path().join("set"));
    let images = helpers::contents(&raw.join("files"));
    let cut = images.keys().find(|name| name.ends_with(".dcm")).expect("a radiograph");
    fs::write(raw.join("files").join(cut), b"cut\tshort").expect("written");
    let printed = ingest("mimic-cxr", &raw, &out, &["--max-reject-rate", "1"]);
    assert!(printed.contains(&format!("dataset inspect {} --rejects", out.display())), "{printed}");
    let listed = ok("dataset", args!["inspect", &out, "--rejects", "--all"]);
    let lines: Vec<Vec<&str>> = listed.lines().map(|line| line.split('\t').collect()).collect();
    let expected = rejects(&out);
    assert_eq!(lines.len(), expected.len());
    for (line, reject) in lines.iter().zip(&expected) {
        let id = reject.record_id.as_deref().unwrap_or_default();
        assert_eq!(*line, [&reject.stage, &reject.source_path, id, &reject.error], "{listed}");
    }
    assert!(lines.iter().any(|line| line[1].ends_with(cut.as_str())), "{listed}");
    assert!(ok("dataset", args!["inspect", &out]).contains("(see --rejects)"));
}

/// Rejects are grouped by their reason, without what differs from input to input, and counted.
#[test]
fn rejects_are_counted_by_reason() {
    let temporary = folder();
    let (raw, out) = (phantom_of("folder", temporary.path(), 12), temporary.path().join("set"));
    let table = raw.join("films.csv");
    let listed = fs::read_to_string(&table).expect("a table");
    fs::write(&table, format!("{listed}one\none,two\none,two,three\n")).expect("written");
    for number in 0..5 {
        fs::write(raw.join(format!("stray{number}.png")), "not in a table").expect("written");
    }
    let columns = ["--table", "films.csv", "--image-column", "file", "--max-reject-rate", "1"].map(str::to_owned);
    let columns = columns.map(|word| if word == "films.csv" { table.display().to_string() } else { word });
    ingest("folder", &raw, &out, &columns.each_ref().map(String::as_str));
    let printed = ok("dataset", args!["inspect", &out, "--rejects"]);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "8 inputs were left out, 2 reasons (--all lists every one)", "{printed}");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>()[..3], ["5", "plan", "no"], "{printed}");
    assert!(
        lines[1].ends_with("no table lists this file, so it has no record")
            && lines[2].ends_with("example: stray0.png"),
        "{printed}"
    );
    assert!(lines[3].trim().starts_with("3  table   line N: "), "{printed}");
    assert_eq!(lines.len(), 5, "{printed}");
    assert!(fails("dataset", 2, args!["inspect", &out, "--all"]).contains("--rejects"));
}

#[test]
fn a_record_is_found_by_its_image_name() {
    let temporary = folder();
    let out = temporary.path().join("set");
    let records = ["p1/s1/IM-0001-0001", "p1/s1/IM-0001-0002", "p2/s9/IM-0002-0001", "p3/s9/IM-0002-0001"];
    let record = |(row, path): (usize, &&str)| Record {
        record_id: format!("folder/{path}"),
        patient_id: path[..2].to_owned(),
        study_id: path[..5].to_owned(),
        image_id: path[6..].to_owned(),
        source_path: format!("{path}.png"),
        ..made_record(row, (10, 12), 1)
    };
    write_dataset(&out, &["A"], ImageEncoding::Raw, &[records.iter().enumerate().map(record).collect()]);
    let says = |name: &str, words: &str| {
        let message = fails("dataset", 1, args!["inspect", &out, "--row", name]);
        assert_eq!(message.trim_end(), format!("error: no record `{name}` in this dataset; {words}"));
    };
    let only = "did you mean `folder/p1/s1/IM-0001-0001`, the record of this image?";
    says("IM-0001-0001", only);
    says("im-0001-0001.PNG", only);
    says("/raw/p1/s1/IM-0001-0001.png", only);
    says("p1/s1/IM-0001-0001", "did you mean `folder/p1/s1/IM-0001-0001`?");
    let both = "`folder/p2/s9/IM-0002-0001`, `folder/p3/s9/IM-0002-0001`";
    says("IM-0002-0001", &format!("2 records have an image of this name: {both}"));
    says("p2", "did you mean `folder/p2/s9/IM-0002-0001`, the record of this patient?");
    says("IM-0003", "its records are named like `folder/p1/s1/IM-0001-0001`");
    // In such a dataset the study name starts with the patient, which the page does not repeat.
    let message = ok("dataset", args!["inspect", &out, "--row", "folder/p1/s1/IM-0001-0001"]);
    assert!(message.contains("\npatient / study  p1 / s1 / image IM-0001-0001\n"), "{message}");
}

/// `ingest` does not report a dataset with a lost shard as finished.
#[test]
fn a_lost_shard_is_reported_by_the_next_run() {
    let temporary = folder();
    let (raw, out) = (phantom(temporary.path(), 12), temporary.path().join("set"));
    ingest("mimic-cxr", &raw, &out, &[]);
    assert!(ingest("mimic-cxr", &raw, &out, &[]).contains("nothing to do"));
    fs::remove_file(out.join("shards/part-00000.parquet")).expect("removed");
    let mut again = args!["mimic-cxr", &raw, &out].to_vec();
    again.extend(helpers::SMALL.map(Into::into));
    let message = fails("ingest", 1, again);
    assert!(message.contains("shards/part-00000.parquet is missing or has another size"), "{message}");
    ingest("mimic-cxr", &raw, &out, &["--overwrite"]);
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
}

#[test]
fn prevalence_counts_labeled_records_only() {
    let temporary = folder();
    let labels = [Some(1), Some(1), Some(0), Some(-1), None, None, None, None];
    // B is stated for three of the four records with labels; its blank is not a negative.
    let others = [Some(1), Some(0), None, Some(0), None, None, None, None];
    let record = |row: usize| Record {
        labels: [labels[row], others[row], None].map(|code| code.and_then(Label::from_code)).to_vec(),
        ..made_record(row, (10, 12), 1)
    };
    let records: Vec<Record> = (0..labels.len()).map(record).collect();
    write_dataset(temporary.path(), &["A", "B", "C"], ImageEncoding::Raw, &[records]);
    let printed = ok("dataset", args!["inspect", temporary.path()]);
    assert!(printed.contains("labels    4 of 8 records have some"), "{printed}");
    let row = |name: &str| -> Vec<&str> {
        printed.lines().find(|line| line.starts_with(name)).expect("a row").split_whitespace().collect()
    };
    assert_eq!(
        row("finding")[1..],
        ["labeled", "positive", "negative", "uncertain", "blank", "prevalence"],
        "{printed}"
    );
    assert_eq!(row("A "), ["A", "4", "2", "1", "1", "0", "50.0%"], "{printed}");
    assert_eq!(row("B "), ["B", "3", "1", "2", "0", "1", "33.3%"], "{printed}");
    assert_eq!(row("C "), ["C", "0", "0", "0", "0", "4", "–"], "{printed}");
    // A split distributes labeled and unlabeled records equally.
    let split = ["--name", "main", "--unit", "image", "--validation", "0.25", "--test", "0.25", "--ratios", "100"];
    let mut all = args!["split", temporary.path()].to_vec();
    all.extend(split.map(Into::into));
    let printed = ok("dataset", all);
    let row: Vec<&str> =
        printed.lines().find(|l| l.starts_with("labeled")).expect("a row").split_whitespace().collect();
    assert_eq!(row, ["labeled", "2", "1", "1", "2"], "{printed}");
}

#[test]
fn numbers_out_of_range_are_usage_errors() {
    let temporary = folder();
    let (raw, out) = (phantom(temporary.path(), 4), temporary.path().join("set"));
    ingest("mimic-cxr", &raw, &out, &[]);
    let says = |program: &str, arguments: &[&str], words: &str| {
        let mut all = args![arguments[0], &out].to_vec();
        all.extend(arguments[1..].iter().map(Into::into));
        let message = fails(program, 2, all);
        assert!(message.contains(words), "{message}");
    };
    says("dataset", &["split", "--name", "x", "--seed", "-1"], "invalid value '-1' for '--seed <SEED>'");
    says("dataset", &["split", "--name", "a/b"], "give a name without `/`, `\\` and `.`");
    says(
        "dataset",
        &["export", "x", "--to", "hf", "--split", "m", "--subset", "test", "--ratio", "1"],
        "--subset train",
    );
    says("dataset", &["split", "--name", "x", "--ratios", "1,101"], "give a percentage above 0 and at most 100");
    says("dataset", &["split", "--name", "x", "--validation", "20"], "give a share from 0 to below 1");
    says("dataset", &["split", "--name", "x", "--test=1"], "give a share from 0 to below 1");
    says("dataset", &["bench", "--seconds", "0"], "give a number above 0");
    says("dataset", &["inspect", "--montage", "look.jpg"], "give a name that ends in .png");
    says("dataset", &["inspect", "--count", "3"], "--montage");
    says("dataset", &["bench", "--augment", r#"[{"kind": "sepia"}]"#], "gaussian_blur");
    says("dataset", &["doctor", "--augment", r#"[{"kind": "gamma", "gamma": [2, 1]}]"#], "gamma: gamma [2, 1]");
    says("ingest", &["mimic-cxr", "x", "--max-reject-rate", "-1"], "give a share from 0 to 1");
    says("ingest", &["phantom", "--size", "8"], "invalid value");
    ok("dataset", args!["split", &out, "--name", "main", "--ratios", "10, 100"]);
}
