//! What `dataset inspect` says: rejects, prevalence, pictures; and how all three programs take numbers.

use std::fs;

use dataset::record::{ImageEncoding, Record};
use mrm_tests::{args, fails, folder, ingest, made_record, ok, phantom, rejects, write_dataset};

#[test]
fn rejects_are_listed_with_their_reason() {
    let temporary = folder();
    let (raw, out) = (phantom(temporary.path(), 12), temporary.path().join("set"));
    let pictures = mrm_tests::contents(&raw.join("files"));
    let cut = pictures.keys().find(|name| name.ends_with(".dcm")).expect("a film");
    fs::write(raw.join("files").join(cut), b"cut\tshort").expect("written");
    let told = ingest("mimic-cxr", &raw, &out, &["--max-reject-rate", "1"]);
    assert!(told.contains(&format!("dataset inspect {} --rejects", out.display())), "{told}");
    let listed = ok("dataset", args!["inspect", &out, "--rejects"]);
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

/// `ingest` does not call a dataset finished of which a shard is lost.
#[test]
fn a_lost_shard_is_noticed_by_the_next_run() {
    let temporary = folder();
    let (raw, out) = (phantom(temporary.path(), 12), temporary.path().join("set"));
    ingest("mimic-cxr", &raw, &out, &[]);
    assert!(ingest("mimic-cxr", &raw, &out, &[]).contains("nothing to do"));
    fs::remove_file(out.join("shards/part-00000.parquet")).expect("removed");
    let mut again = args!["mimic-cxr", &raw, &out].to_vec();
    again.extend(mrm_tests::SMALL.map(Into::into));
    let told = fails("ingest", 1, again);
    assert!(told.contains("shards/part-00000.parquet is missing or has another size"), "{told}");
    ingest("mimic-cxr", &raw, &out, &["--overwrite"]);
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
}

#[test]
fn prevalence_is_that_among_labelled_records() {
    let temporary = folder();
    let labels = [Some(1), Some(1), Some(0), Some(-1), None, None, None, None];
    // B is stated for three of the four records with labels: its blank is no negative.
    let others = [Some(1), Some(0), None, Some(0), None, None, None, None];
    let record = |row: usize| Record { labels: vec![labels[row], others[row], None], ..made_record(row, (10, 12), 1) };
    let records: Vec<Record> = (0..labels.len()).map(record).collect();
    write_dataset(temporary.path(), &["A", "B", "C"], ImageEncoding::Raw, &[records]);
    let told = ok("dataset", args!["inspect", temporary.path()]);
    assert!(told.contains("labels    4 of 8 records have some"), "{told}");
    let row = |name: &str| -> Vec<&str> {
        told.lines().find(|line| line.starts_with(name)).expect("a row").split_whitespace().collect()
    };
    assert_eq!(row("finding")[1..], ["labeled", "positive", "negative", "uncertain", "blank", "prevalence"], "{told}");
    assert_eq!(row("A "), ["A", "4", "2", "1", "1", "0", "50.0%"], "{told}");
    assert_eq!(row("B "), ["B", "3", "1", "2", "0", "1", "33.3%"], "{told}");
    assert_eq!(row("C "), ["C", "0", "0", "0", "0", "4", "–"], "{told}");
    // A drawn split deals out labelled and unlabelled records alike.
    let split = ["--name", "main", "--unit", "image", "--validation", "0.25", "--test", "0.25", "--ratios", "100"];
    let mut all = args!["split", temporary.path()].to_vec();
    all.extend(split.map(Into::into));
    let told = ok("dataset", all);
    let row: Vec<&str> = told.lines().find(|l| l.starts_with("labelled")).expect("a row").split_whitespace().collect();
    assert_eq!(row, ["labelled", "2", "1", "1", "2"], "{told}");
}

#[test]
fn numbers_out_of_range_are_misuse_and_no_options() {
    let temporary = folder();
    let (raw, out) = (phantom(temporary.path(), 4), temporary.path().join("set"));
    ingest("mimic-cxr", &raw, &out, &[]);
    let says = |program: &str, arguments: &[&str], words: &str| {
        let mut all = args![arguments[0], &out].to_vec();
        all.extend(arguments[1..].iter().map(Into::into));
        let told = fails(program, 2, all);
        assert!(told.contains(words), "{told}");
    };
    says("dataset", &["split", "--name", "x", "--seed", "-1"], "invalid value '-1' for '--seed <SEED>'");
    says("dataset", &["split", "--name", "x", "--ratios", "1,101"], "give a percentage above 0 and at most 100");
    says("dataset", &["split", "--name", "x", "--validation", "20"], "give a share from 0 to below 1");
    says("dataset", &["split", "--name", "x", "--test=1"], "give a share from 0 to below 1");
    says("dataset", &["bench", "--seconds", "0"], "give a number above 0");
    says("dataset", &["inspect", "--montage", "look.jpg"], "give a name that ends in .png");
    says("dataset", &["inspect", "--count", "3"], "--montage");
    says("ingest", &["mimic-cxr", "x", "--max-reject-rate", "-1"], "give a share from 0 to 1");
    says("ingest", &["phantom", "--size", "8"], "invalid value");
    says("trainer", &["compare", "x", "--specificity", "90"], "give a share from 0 to 1");
    ok("dataset", args!["split", &out, "--name", "main", "--ratios", "10, 100"]);
}
