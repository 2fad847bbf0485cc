//! `ingest --check-sums` and `--source-digest`: damaged, missing and unlisted files, also in tasks and after a repair.

use std::fs;
use std::path::Path;

use helpers::{
    SMALL, args, command, contents, copy_folder, edit, fails, files_with, flip_bit, folder, ingest, ok, phantom,
    records_by_id, rejects, text,
};
use sha2::{Digest, Sha256};

const LIST: &str = "SHA256SUMS.txt";

/// Writes the list of all files of a raw directory, as PhysioNet does.
fn write_list(raw: &Path) {
    let line =
        |(name, bytes): (&String, &Vec<u8>)| format!("{} {name}\n", dataset::store::files::hex(&Sha256::digest(bytes)));
    let text: String = contents(raw).iter().filter(|(name, _)| *name != LIST).map(line).collect();
    fs::write(raw.join(LIST), text).expect("written");
}

/// Ingests with the list; many rejects are no failure.
fn checked(raw: &Path, out: &Path, more: &[&str]) -> String {
    let list = raw.join(LIST);
    let list = ["--check-sums", list.to_str().expect("a path"), "--max-reject-rate", "1"];
    ingest("mimic-cxr", raw, out, &[&list, more].concat())
}

fn shards(out: &Path) -> Vec<Vec<u8>> {
    contents(out).into_iter().filter(|(name, _)| name.starts_with("shards/")).map(|(_, bytes)| bytes).collect()
}

#[test]
fn files_are_compared_with_published_checksums_while_they_are_read() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 24);
    write_list(&raw);
    let out = |name: &str| temporary.path().join(name);
    let (images, reports) = (files_with(&raw, ".dcm"), files_with(&raw, ".txt"));
    let reports = reports.len() - 1;

    // The list changes no shard of a good directory.
    ingest("mimic-cxr", &raw, &out("plain"), &[]);
    let whole = checked(&raw, &out("whole"), &[]);
    let line = format!("checksums: {} files as listed, 0 files damaged, 0 files", images.len() + reports);
    assert!(whole.contains(&line), "{whole}");
    assert!(shards(&out("plain")) == shards(&out("whole")));
    assert!(rejects(&out("whole")).is_empty());

    // One image and one report have a flipped bit, one file is missing, one is in no list.
    let (image, report) = (&images[5], &files_with(&raw.join("files"), ".txt")[2]);
    flip_bit(&raw.join(image), fs::metadata(raw.join(image)).expect("a file").len() as usize - 3, 0);
    edit(&raw.join("files").join(report), |bytes| bytes.extend(b"!"));
    let zeros = "0".repeat(64);
    edit(&raw.join(LIST), |list| {
        let text = String::from_utf8(list.clone()).expect("text");
        let kept = text.lines().filter(|line| !line.ends_with(&images[9]));
        *list = kept
            .map(|line| format!("{line}\n"))
            .chain([format!("{zeros}  files/gone.dcm\n")])
            .collect::<String>()
            .into();
    });
    let printed = checked(&raw, &out("damaged"), &[]);
    let good = images.len() + reports - 3;
    let counts = format!("{good} files as listed, 2 files damaged, 1 file listed and missing, 1 file in no list");
    assert!(printed.contains(&counts), "{printed}");
    let found = rejects(&out("damaged"));
    let of = |path: &str| found.iter().find(|reject| reject.source_path.ends_with(path)).expect("a reject");
    let differs = format!("checksum differs from {LIST}: the file has ");
    assert!(of(image).stage == "read" && of(image).error.starts_with(&differs), "{found:?}");
    assert!(of(report).stage == "report" && of(report).error.contains(&differs), "{found:?}");
    let missing = of("files/gone.dcm");
    assert_eq!((missing.stage.as_str(), missing.record_id.as_deref()), ("plan", None));
    assert!(missing.error.contains("but it is missing"), "{missing:?}");
    assert!(ok("ingest", args!["mimic-cxr", &raw, "x", "--dry-run", "--check-sums", raw.join(LIST)]).contains(LIST));
    let of_report = records_by_id(&out("damaged"));
    let study = format!("/{}/", Path::new(report).file_stem().expect("a name").to_string_lossy());
    let affected: Vec<_> = of_report.values().filter(|record| record.source_path.contains(&study)).collect();
    assert!(!affected.is_empty() && affected.iter().all(|record| record.report.is_none()), "no text of a bad report");

    // Tasks give the same bytes and count the same.
    for task in ["0/2", "1/2"] {
        let printed = checked(&raw, &out("tasks"), &["--task", task]);
        assert_eq!(printed.contains(&counts), task == "1/2", "{printed}");
    }
    let without_notes = |name: &str| {
        contents(&out(name)).into_iter().filter(|(name, _)| !name.starts_with(".ingest/")).collect::<Vec<_>>()
    };
    assert!(without_notes("tasks") == without_notes("damaged"));

    // After a repair of the image, `--retry-rejects` adds it: the bytes are those of a run on the repaired directory.
    let again = checked(&raw, &out("damaged"), &["--retry-rejects"]);
    assert!(again.contains("nothing to do"), "{again}");
    flip_bit(&raw.join(image), fs::metadata(raw.join(image)).expect("a file").len() as usize - 3, 0);
    for name in ["damaged", "tasks"] {
        checked(&raw, &out(name), &["--retry-rejects"]);
        assert!(rejects(&out(name)).iter().all(|reject| reject.source_path != *image));
    }
    checked(&raw, &out("repaired"), &[]);
    assert!(
        without_notes("damaged") == without_notes("repaired") && without_notes("tasks") == without_notes("repaired")
    );
}

#[test]
fn a_damaged_table_ends_the_run_and_a_changed_list_is_noticed() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 8);
    write_list(&raw);
    let out = temporary.path().join("set");
    let list = raw.join(LIST);
    checked(&raw, &out, &[]);
    let refused = |more: &[&str]| {
        let mut run = command("ingest");
        let output =
            run.args(args!["mimic-cxr", &raw, &out]).args(SMALL).args(more).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
        text(&output.stderr)
    };
    let message = refused(&[]);
    assert!(message.contains("--check-sums was a file of SHA-256") && message.contains("is not given"), "{message}");
    let message = refused(&["--check-sums", list.to_str().expect("a path"), "--source-digest", "sha256"]);
    assert!(message.contains("--source-digest was blake3, is sha256;"), "{message}");

    let table = files_with(&raw, ".csv.gz")[0].clone();
    // Four bytes of the head are the time, which no reader checks.
    flip_bit(&raw.join(&table), 5, 0);
    let other = temporary.path().join("other");
    let message = fails("ingest", 1, args!["mimic-cxr", &raw, &other, "--check-sums", &list]);
    assert!(message.contains(&table) && message.contains("checksum differs from SHA256SUMS.txt"), "{message}");
    assert!(!other.join("dataset.json").exists());
    fs::write(&list, "nonsense\n").expect("written");
    let message = fails("ingest", 1, args!["mimic-cxr", &raw, &other, "--check-sums", &list]);
    assert!(message.contains("SHA256SUMS.txt: line 1 is no"), "{message}");
}

#[test]
fn a_list_beside_the_reports_is_used_too() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 6);
    let tree = temporary.path().join("physionet.org/mimic-cxr");
    copy_folder(&raw, &tree);
    write_list(&tree);
    let apart = temporary.path().join("reports");
    for name in files_with(&tree.join("files"), ".txt") {
        helpers::rename(&tree.join("files").join(&name), &apart.join("files").join(&name));
    }
    write_list(&apart);
    // The raw directory is above the first list; the reports are outside of it.
    let raw = temporary.path().join("physionet.org");
    let (first, second) = (tree.join(LIST), apart.join(LIST));
    edit(&first, |list| {
        let text = String::from_utf8(list.clone()).expect("text");
        *list = text
            .lines()
            .filter(|line| !line.ends_with(".txt"))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
            .into();
    });
    let words = args![
        "mimic-cxr",
        &raw,
        temporary.path().join("set"),
        "--reports",
        apart.join("files"),
        "--check-sums",
        &first,
        "--check-sums",
        &second
    ];
    let printed = ok("ingest", words);
    let (images, reports) = (files_with(&tree, ".dcm").len(), files_with(&apart, ".txt").len() - 1);
    let line =
        format!("checksums: {} files as listed, 0 files damaged, 0 files listed and missing, 0", images + reports);
    assert!(printed.contains(&line), "{printed}");
}

#[test]
fn a_record_has_the_digest_that_was_asked_for() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 4);
    for algorithm in ["blake3", "sha256"] {
        let out = temporary.path().join(algorithm);
        ingest("mimic-cxr", &raw, &out, &["--source-digest", algorithm]);
        for record in records_by_id(&out).values() {
            let bytes = fs::read(raw.join(&record.source_path)).expect("a file");
            let expected: [u8; 32] = match algorithm {
                "blake3" => blake3::hash(&bytes).into(),
                _ => Sha256::digest(&bytes).into(),
            };
            assert_eq!(record.source_digest, expected, "{algorithm}");
        }
        let unchanged = ok("ingest", args!["mimic-cxr", &raw, &out, "--check-input"]);
        assert!(unchanged.contains("the input is unchanged"), "{unchanged}");
    }
    let image = files_with(&raw, ".dcm").remove(0);
    flip_bit(&raw.join(&image), 10_000, 1);
    for algorithm in ["blake3", "sha256"] {
        let out = temporary.path().join(algorithm);
        assert_eq!(
            command("ingest").args(args!["mimic-cxr", &raw, &out, "--check-input"]).status().expect("run").code(),
            Some(1)
        );
    }
}
