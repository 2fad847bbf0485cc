//! Tables that do not fit, joins that do not fit their dataset, damaged and interrupted ones.

use std::fs;
use std::process::Stdio;
use std::time::Instant;

use dataset::Dataset;
use helpers::{args, command, contents, copy_folder, edit, fails, folder, ingest, ok, phantom, records, write_file};
use rand::{Rng, SeedableRng};

use crate::shared::{joining, mimic, refused, table};

#[test]
fn what_does_not_fit_is_named() {
    let temporary = folder();
    let (data, here) = (mimic(temporary.path()), temporary.path());
    let all = records(&data);
    let (one, two) = (&all[0].image_id, &all[1].image_id);
    let labels = |name: &str, rows: &[String], more: &[&str]| {
        let path = table(here, name, "id,Hernia,note", rows.iter().cloned());
        let words = [&["--key", "id", "--as", "labels", "--label-columns", "Hernia"], more].concat();
        joining(&data, &path, &words)
    };
    let good = [format!("{one},1,a"), format!("{two},0,b")];
    for (rows, more, words) in [
        (
            vec!["nobody,1,a".to_owned()],
            &[][..],
            vec!["its column `id` has keys like `nobody`", "image_id `", "give another column to --key"],
        ),
        (vec![",1,a".to_owned()], &[][..], vec!["1 rows cannot be read", "line 2: the key column `id` is empty"]),
        (good.to_vec(), &["--on", "study_id"][..], vec!["the records have study_id `", "--key or --on"]),
        (
            vec![good[0].clone(), format!("{two},perhaps not,b")],
            &[][..],
            vec![
                "1 rows cannot be read",
                "line 3: column `Hernia`: `perhaps not` is no label",
                "--label-map 'perhaps not=1'",
            ],
        ),
        (
            vec![good[0].clone(), format!("{two},1")],
            &[][..],
            vec!["1 rows cannot be read", "line 3: 2 fields, the header has 3"],
        ),
        (
            vec![good[0].clone(), format!("{one},0,b")],
            &[][..],
            vec!["1 rows contradict others", "line 3: it differs from an earlier row about the same record"],
        ),
        (good.to_vec(), &["--rename", "Hernias=x"][..], vec!["no finding `Hernias`; did you mean `Hernia`?"]),
        (good.to_vec(), &["--min", "note=1"][..], vec!["2 rows cannot be read", "column `note`: `a` is no number"]),
        (good.to_vec(), &["--min", "other=1"][..], vec!["no column `other` (the table has: id, Hernia, note)"]),
    ] {
        let message = fails("ingest", 1, labels("bad.csv", &rows, more));
        assert!(words.iter().all(|word| message.contains(word)), "{words:?} in {message}");
        assert!(!data.join("joins").exists(), "{message}");
    }
    // Equal rows are no contradiction; the first of unequal ones on request.
    let equal = [good[0].clone(), format!("{one},1,c")];
    assert!(ok("ingest", labels("equal.csv", &equal, &[])).contains("2: 2 are about records"));
    let printed =
        ok("ingest", labels("first.csv", &[good[0].clone(), format!("{one},0,b")], &["--duplicates", "first"]));
    assert!(printed.contains("1 differ from an earlier row about the same record"), "{printed}");
    let printed = ok("ingest", labels("some.csv", &[good[0].clone(), format!("{two},?,b")], &["--skip-unreadable"]));
    assert!(
        printed.contains("1 cannot be read and are left out") && printed.contains("1 record with labels"),
        "{printed}"
    );

    // Options.
    let all_columns = table(here, "notes.csv", "id,note", [format!("{one},x")]);
    let message = fails("ingest", 1, joining(&data, &all_columns, &["--key", "id", "--as", "labels"]));
    assert!(message.contains("no column has labels") && message.contains("--label-columns"), "{message}");
    for (words, said) in [
        (&["--as", "labels", "--box-columns", "a,b,c,d"][..], "--box-columns is no option of --as labels"),
        (&["--as", "labels", "--size-columns", "a,b"][..], "--size-columns is no option of --as labels"),
        (&["--as", "boxes"][..], "--box-columns"),
        (&["--as", "boxes", "--box-columns", "a,b", "--box-label", "c"][..], "give four columns, not 2"),
        (&["--as", "masks", "--mask-columns", "a", "--size-columns", "a"][..], "give two columns, not 1"),
        (&["--as", "labels", "--name", "a/b"][..], "give a name without"),
        (&["--as", "labels", "--min", "a"][..], "give COLUMN=NUMBER"),
        (&["--as", "grades"][..], "possible values: labels, boxes, masks, texts, subset"),
    ] {
        let message = fails("ingest", 2, joining(&data, &all_columns, &[&["--key", "id"], words].concat()));
        assert!(message.contains(said), "{said} in {message}");
    }
    let message = fails("ingest", 1, joining(here.join("nowhere"), &all_columns, &["--key", "id", "--as", "labels"]));
    assert!(message.contains("does not exist"), "{message}");
    let message = fails("ingest", 1, joining(&data, &here.join("no.csv"), &["--key", "id", "--as", "labels"]));
    assert!(message.contains("no.csv: No such file"), "{message}");
}

#[test]
fn a_join_is_written_once_and_refused_after_its_dataset_changed() {
    let temporary = folder();
    let (data, here) = (mimic(temporary.path()), temporary.path());
    let all = records(&data);
    let rows = |code: u8| all.iter().map(move |record| format!("{},{code}", record.image_id));
    let path = table(here, "hernia.csv", "id,Hernia", rows(1));
    let words = ["--key", "id", "--as", "labels"];
    ok("ingest", joining(&data, &path, &words));
    let before = contents(&data);
    assert!(ok("ingest", joining(&data, &path, &words)).contains("nothing to do"));
    assert!(
        ok("ingest", joining(&data, &path, &[&words[..], &["--overwrite", "--jobs", "3"]].concat()))
            .contains("has labels: Hernia")
    );
    assert!(contents(&data) == before, "the same bytes");
    table(here, "hernia.csv", "id,Hernia", rows(0));
    let message = fails("ingest", 1, joining(&data, &path, &words));
    assert!(
        message.contains("hernia.parquet exists (`ingest join --table hernia.csv --key id --as labels`)")
            && message.contains("--overwrite"),
        "{message}"
    );
    assert!(contents(&data) == before);

    // The join of the same shards fits; that of others does not.
    let raw = here.join("mimic-cxr");
    ingest("mimic-cxr", &raw, &data, &["--overwrite"]);
    assert!(!data.join("joins").exists(), "joins are removed with the dataset");
    write_file(&data.join("joins/hernia.parquet"), &before["joins/hernia.parquet"]);
    assert!(ok("dataset", args!["inspect", &data, "--join", "hernia"]).contains("(shown here)"));
    ingest("mimic-cxr", &raw, &data, &["--overwrite", "--limit", "20"]);
    write_file(&data.join("joins/hernia.parquet"), &before["joins/hernia.parquet"]);
    let stale =
        "join `hernia`: the dataset was changed or replaced after the join was made; make it again: ingest join ";
    let message = refused(&data, "hernia");
    assert!(
        message.starts_with(stale) && message.ends_with("--table hernia.csv --key id --as labels --overwrite"),
        "{message}"
    );
    assert!(fails("dataset", 1, args!["inspect", &data, "--join", "hernia"]).contains(stale));
    assert!(
        ok("dataset", args!["inspect", &data])
            .contains("joins     hernia: unusable: join `hernia`: the dataset was changed")
    );
    assert!(fails("dataset", 1, args!["verify", &data]).contains(stale));
    assert!(fails("ingest", 1, joining(&data, &path, &words)).contains("exists"));
    ok("ingest", joining(&data, &path, &[&words[..], &["--overwrite"]].concat()));
    assert!(ok("dataset", args!["verify", &data]).contains("all whole"));
}

#[test]
fn a_damaged_join_is_an_error_and_never_other_values() {
    let temporary = folder();
    let (data, here) = (mimic(temporary.path()), temporary.path());
    let all = records(&data);
    let path = table(
        here,
        "texts.csv",
        "id,said",
        all.iter().enumerate().map(|(row, record)| format!("{},text {row}", record.image_id)),
    );
    ok("ingest", joining(&data, &path, &["--key", "id", "--as", "texts", "--text-columns", "said"]));
    let file = data.join("joins/texts.parquet");
    let whole = fs::read(&file).expect("a join");
    let texts = || -> Result<Vec<String>, String> {
        let dataset =
            Dataset::open(&data).expect("a dataset").with_joins(&["texts"]).map_err(|error| error.to_string())?;
        let text = |row: usize| match dataset.record(row) {
            Ok(record) => Ok(record.texts.last().expect("a text").text.clone()),
            Err(error) => Err(error.to_string()),
        };
        (0..dataset.len()).map(text).collect()
    };
    let expected = texts().expect("texts");
    assert_eq!(expected[3], "text 3");
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(2);
    let mut refused = 0;
    for _ in 0..400 {
        let (byte, bit) = (random.random_range(0..whole.len()), random.random_range(0..8));
        edit(&file, |bytes| {
            bytes.clone_from(&whole);
            bytes[byte] ^= 1 << bit;
        });
        match texts() {
            Ok(found) => assert!(found == expected, "byte {byte}, bit {bit}"),
            Err(message) => {
                refused += 1;
                assert!(message.contains("texts"), "{message}");
            }
        }
    }
    assert!(refused > 100, "{refused}");
    for length in [0, 3, 11, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..length]).expect("written");
        let message = texts().expect_err("a part of a file");
        assert!(message.starts_with("join `texts`: ") && message.contains("make it again, or restore it"), "{message}");
        assert!(fails("dataset", 1, args!["verify", &data]).contains("join `texts`: "));
    }
    // A value that no record may have.
    fs::write(&file, &whole).expect("written");
    let other = here.join("other");
    copy_folder(&data, &other);
    fs::rename(other.join("joins/texts.parquet"), other.join("joins/renamed.parquet")).expect("renamed");
    assert!(ok("dataset", args!["verify", &other]).contains("all whole"), "a name is that of the file");
}

#[test]
fn a_killed_join_leaves_nothing_and_is_made_again() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 200);
    let data = temporary.path().join("set");
    ingest("mimic-cxr", &raw, &data, &[]);
    let all = records(&data);
    let rows = all.iter().map(|record| format!("{},1 {}", record.image_id, record.source_width));
    let path = table(temporary.path(), "masks.csv", "id,mask", rows);
    let words = [
        "--key",
        "id",
        "--as",
        "masks",
        "--mask-columns",
        "lung=mask",
        "--mask-order",
        "rows",
        "--mask-runs",
        "absolute",
    ];
    let line = joining(&data, &path, &words);
    let before = contents(&data);
    let begun = Instant::now();
    ok("ingest", &line);
    let span = begun.elapsed();
    let whole = contents(&data);
    assert_eq!(whole.len(), before.len() + 1);
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    let mut killed = 0;
    for _ in 0..12 {
        fs::remove_dir_all(data.join("joins")).expect("removed");
        let mut child =
            command("ingest").args(&line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(span.mul_f64(random.random_range(0.0..1.0)));
        child.kill().expect("SIGKILL");
        killed += usize::from(!child.wait().expect("it ends").success());
        let found = contents(&data);
        let join = found.get("joins/masks.parquet");
        assert!(join.is_none() || join == whole.get("joins/masks.parquet"), "whole or not there");
        Dataset::open(&data).expect("a dataset");
        ok("ingest", &line);
        assert!(contents(&data) == whole, "the same bytes, and nothing else");
    }
    assert!(killed > 0);
}
