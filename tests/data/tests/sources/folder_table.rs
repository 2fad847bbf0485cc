//! A table as a lab exports it: words as labels, classes, semicolons, absolute paths; and paths that contain names of
//! patients.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use dataset::Dataset;
use dataset::format::image_codec::GrayPixels;
use dataset::format::record::{ImageEncoding, Record};
use helpers::{SMALL, args, contents, fails, folder, ok, phantom_of, rejects, run, text};
use helpers::{real_data, records};

/// Writes small PNG files; a name may contain folders.
fn images(raw: &Path, names: &[&str]) {
    for (at, name) in names.iter().enumerate() {
        let path = raw.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let pixels = (0..40 * 40).map(|pixel| ((pixel + at) * 7 % 251) as u8).collect();
        let gray = GrayPixels { width: 40, height: 40, pixels };
        fs::write(path, gray.encode(ImageEncoding::Png).expect("a PNG")).expect("written");
    }
}

/// A raw directory of six images and the table `list.csv`.
fn ward(at: &Path, table: &str) -> PathBuf {
    let raw = at.join("ward");
    images(&raw, &["a.png", "b.png", "c.png", "d.png", "e.png", "f.png"]);
    fs::write(raw.join("list.csv"), table).expect("written");
    raw
}

fn arguments(raw: &Path, out: &Path, more: &[&str]) -> Vec<OsString> {
    let mut all = args!["folder", raw, out, "--table", raw.join("list.csv"), "--image-column", "file"].to_vec();
    all.extend(SMALL.iter().chain(more).map(Into::into));
    all
}

/// The records of a dataset by image.
fn by_image(out: &Path) -> BTreeMap<String, Record> {
    records(out).into_iter().map(|record| (record.image_id.clone(), record)).collect()
}

#[test]
fn a_semicolon_table_with_words_is_read_without_options() {
    let temporary = folder();
    let raw = ward(temporary.path(), "");
    let absolute = raw.canonicalize().expect("a folder").join("c.png");
    // As a spreadsheet writes it where the decimal separator is a comma.
    let table = format!(
        "\u{feff}file;sex;age;set;Effusion;Edema\r\n\
         a.png;F;34;Training;yes;1,0\r\n\
         b.png;male;34,5;tr;No;0,0\r\n\
         {};Female;034Y;val;maybe;-1\r\n\
         .\\d.png;M;6M;dev;n/a;NEGATIVE\r\n\
         e.png;;;Testing;unknown;present\r\n\
         f;u;unknown;hold-out;;\r\n",
        absolute.display()
    );
    fs::write(raw.join("list.csv"), table).expect("written");
    let out = temporary.path().join("set");
    let columns = "--sex-column sex --age-column age --subset-column set --label-columns Effusion,Edema";
    let columns: Vec<&str> = columns.split(' ').collect();
    ok("ingest", arguments(&raw, &out, &columns));
    assert_eq!(rejects(&out), []);
    let found = by_image(&out);
    let row = |name: &str| {
        let record = &found[name];
        let codes = helpers::label_codes(record);
        let labels = [codes[0], codes[1]];
        (record.sex.as_deref(), record.age_years, record.subset.as_deref(), labels)
    };
    assert_eq!(row("a"), (Some("F"), Some(34.0), Some("train"), [Some(1), Some(1)]));
    assert_eq!(row("b"), (Some("M"), Some(34.5), Some("train"), [Some(0), Some(0)]));
    assert_eq!(row("c"), (Some("F"), Some(34.0), Some("validate"), [Some(-1), Some(-1)]));
    assert_eq!(row("d"), (Some("M"), Some(0.5), Some("validate"), [None, Some(0)]));
    assert_eq!(row("e"), (None, None, Some("test"), [None, Some(1)]));
    assert_eq!(row("f"), (None, None, Some("test"), [None, None]));

    // The same table with tabs gives the same records.
    let tabs = fs::read_to_string(raw.join("list.csv")).expect("a table").replace(';', "\t");
    fs::write(raw.join("list.csv"), &tabs).expect("written");
    let again = temporary.path().join("tabs");
    ok("ingest", arguments(&raw, &again, &columns));
    assert!(by_image(&again) == found);
    fs::write(raw.join("list.tsv"), tabs).expect("written");
    let tsv = temporary.path().join("tsv");
    let mut named = arguments(&raw, &tsv, &columns);
    named[4] = raw.join("list.tsv").into();
    ok("ingest", named);
    assert!(by_image(&tsv) == found);
}

#[test]
fn invalid_values_are_rejected_with_a_remedy() {
    let temporary = folder();
    let table = "file,sex,age,set,Edema\n\
                 a.png,1,34,train,1\n\
                 b.png,F,1954,train,1\n\
                 c.png,F,34,everything,1\n\
                 d.png,F,34,train,severe\n\
                 /elsewhere/e.png,F,34,train,1\n\
                 f.png,F,34,train,1\n";
    let raw = ward(temporary.path(), table);
    let out = temporary.path().join("set");
    let more = "--sex-column sex --age-column age --subset-column set --label-columns Edema --max-reject-rate 1";
    ok("ingest", arguments(&raw, &out, &more.split(' ').collect::<Vec<_>>()));
    let found: Vec<String> =
        rejects(&out).into_iter().filter(|reject| reject.stage == "table").map(|reject| reject.error).collect();
    let parts = [
        "line 2: column `sex`: `1` is no sex; write F, M, O",
        "line 3: column `age`: `1954` is no age; write years",
        "line 4: column `set`: unknown subset `everything`; leave it empty or write one of train (training, tr), validate (",
        "line 5: column `Edema`: `severe` is no label; map it with --label-map 'severe=1'",
        "line 6: the absolute path `/elsewhere/e.png` is not below RAW_DIR; give the folder that holds all images as",
    ];
    assert_eq!(found.len(), parts.len(), "{found:#?}");
    for (error, part) in found.iter().zip(parts) {
        assert!(error.starts_with(part), "{error}");
    }
    assert_eq!(by_image(&out).len(), 1);
}

const CLASSES: &str = "file,diagnosis,severity\n\
                       a.png,bacteria,mild\nb.png,Virus,none\nc.png,normal,none\nd.png,virus,\ne.png,,severe\nf.png,virus,mild\n";

#[test]
fn unknown_label_words_are_rejected_with_the_option_that_maps_them() {
    let temporary = folder();
    let raw = ward(temporary.path(), CLASSES);
    let out = temporary.path().join("set");
    let column = ["--label-columns", "diagnosis"];
    // All rows except one are left out.
    let output = run("ingest", arguments(&raw, &out, &[&column[..], &["--dry-run"]].concat()));
    let (page, message) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{message}");
    assert!(message.contains("1 radiographs planned, 5 inputs rejected"), "{message}");
    assert!(message.contains("5 × line N: column `diagnosis`: `…` is no label; map it with --label-map"), "{message}");
    assert!(message.contains("e.g. list.csv: line 2: column `diagnosis`: `bacteria` is no label;"), "{message}");
    assert!(
        message.contains("words that are no labels: `virus` (2), `Virus` (1), `bacteria` (1), `normal` (1)"),
        "{message}"
    );
    assert!(message.contains("--class-column 'diagnosis'"), "{message}");
    assert!(page.contains("to be ingested: 1 radiograph (1 study, 1 patient; 0 with a report)"), "{page}");
    assert!(page.contains("rejected: 5 inputs"), "{page}");
    assert!(!out.exists());

    // A run without any radiograph fails with the reason, with `--dry-run` too.
    fs::write(raw.join("list.csv"), CLASSES.replace("e.png,,severe\n", "")).expect("written");
    fs::remove_file(raw.join("e.png")).expect("removed");
    for more in [&column[..], &[&column[..], &["--dry-run"]].concat()] {
        let message = fails("ingest", 1, arguments(&raw, &out, more));
        let error = message.lines().find(|line| line.starts_with("error: ")).expect("an error");
        assert!(
            error.contains("no radiograph is left: all 5 inputs are rejected, 5 for a reason like this"),
            "{message}"
        );
        assert!(error.contains("list.csv: line 2: column `diagnosis`: `bacteria` is no label"), "{message}");
        assert!(error.contains("--label-map 'bacteria=1'"), "{message}");
        assert!(message.contains("5 × line N: column"), "{message}");
        assert!(!out.exists());
    }

    // With the options that the message names.
    let map = "bacteria=1,virus=1,normal=0,severity:none=0,mild=1,severe=-1";
    let more = ["--label-columns", "diagnosis,severity", "--label-map", map];
    fs::write(raw.join("list.csv"), CLASSES).expect("written");
    images(&raw, &["e.png"]);
    ok("ingest", arguments(&raw, &out, &more));
    let found = by_image(&out);
    let labels: Vec<Vec<Option<i8>>> = found.values().map(helpers::label_codes).collect();
    let row = |a, b| vec![a, b];
    assert_eq!(
        labels,
        [
            row(Some(1), Some(1)),
            row(Some(1), Some(0)),
            row(Some(0), Some(0)),
            row(Some(1), None),
            row(None, Some(-1)),
            row(Some(1), Some(1))
        ]
    );
    let message = fails("ingest", 2, arguments(&raw, &out, &["--label-columns", "diagnosis", "--label-map", "virus"]));
    assert!(message.contains("give WORD=CODE or COLUMN:WORD=CODE"), "{message}");
    let typo = ["--label-columns", "diagnosis", "--label-map", "bacteria=1,virus=1,nromal=0", "--dry-run"];
    let message = text(&run("ingest", arguments(&raw, &out, &typo)).stderr);
    assert!(message.contains("--label-map nromal=0: no cell of the label columns is `nromal`"), "{message}");
}

#[test]
fn a_table_of_an_unknown_compression_is_refused_with_the_known_ones() {
    let temporary = folder();
    let raw = temporary.path().join("ward");
    images(&raw, &["a.png"]);
    let script = "import sys, pyarrow, pyarrow.parquet as parquet\n\
                  table = pyarrow.table({'file': ['a.png'], 'edema': [1]})\n\
                  parquet.write_table(table, sys.argv[1], compression='gzip')";
    helpers::python_output(helpers::python().args(["-c", script]).arg(raw.join("table.parquet")));
    let out = temporary.path().join("out");
    let table = args!["--table", "table.parquet", "--image-column", "file"];
    let message = fails("ingest", 1, args!["folder", &raw, &out].into_iter().chain(table));
    assert!(message.contains("table.parquet: its compression is none of Snappy, Zstandard and LZ4"), "{message}");
}

#[test]
fn each_class_of_a_column_becomes_a_finding() {
    let temporary = folder();
    let raw = ward(temporary.path(), CLASSES);
    let out = temporary.path().join("set");
    let more = ["--class-column", "diagnosis"];
    let page = ok("ingest", arguments(&raw, &out, &[&more[..], &["--dry-run"]].concat()));
    for line in [
        "bacteria                 1         4          0         1",
        "normal                   1         4          0         1",
        "virus                    3         2          0         1",
        "subsets: not stated 6",
    ] {
        assert!(page.contains(line), "{page}");
    }
    ok("ingest", arguments(&raw, &out, &more));
    assert_eq!(Dataset::open(&out).expect("a dataset").findings(), ["bacteria", "normal", "virus"]);
    let found = by_image(&out);
    let of = |name: &str| helpers::label_codes(&found[name]);
    assert_eq!((of("a"), of("b")), (vec![Some(1), Some(0), Some(0)], vec![Some(0), Some(0), Some(1)]));
    assert_eq!((of("d"), of("e")), (of("b"), vec![None; 3]));

    let lines: String = (0..200).map(|row| format!("{row}.png,patient {row}\n")).collect();
    fs::write(raw.join("list.csv"), format!("file,diagnosis\n{lines}")).expect("written");
    let message = fails("ingest", 1, arguments(&raw, &out, &more));
    assert!(message.contains("list.csv: column `diagnosis` has 200 distinct values (`patient 0`, "), "{message}");
}

#[test]
fn every_source_reports_why_inputs_are_left_out() {
    let temporary = folder();
    let raw = phantom_of("rsna", temporary.path(), 12);
    for stray in ["stray", "stray2", "stray3"] {
        fs::write(raw.join(format!("stage_2_train_images/{stray}.dcm")), "no image").expect("written");
    }
    let listed = contents(&raw).into_keys().find(|name| name.ends_with(".dcm") && !name.contains("stray"));
    let out = temporary.path().join("set");
    let mut command = args!["rsna", &raw, &out, "--max-reject-rate", "1"].to_vec();
    command.extend(SMALL.iter().map(Into::into));
    for dry in [true, false] {
        let more = if dry { vec!["--dry-run".into()] } else { Vec::new() };
        let message = text(&run("ingest", [command.clone(), more].concat()).stderr);
        assert!(message.contains("3 × no table lists this file, so it has no record"), "{message}");
        assert!(message.contains("e.g. stage_2_train_images/stray.dcm"), "{message}");
        assert_eq!(message.matches("no table lists").count(), 1, "reported once: {message}");
    }
    // Inputs that are rejected while files are read are reported at the end.
    fs::write(raw.join(listed.expect("an image")), "no image").expect("written");
    let output = run("ingest", [command, args!["--overwrite"].to_vec()].concat());
    let message = text(&output.stderr);
    assert!(output.status.success() && message.matches("3 × no table lists").count() == 2, "{message}");
    assert!(message.contains("      1 × "), "{message}");
}

#[test]
fn a_second_run_with_another_option_or_table_is_refused() {
    let temporary = folder();
    let table =
        "file,patient,Edema,Mass\na.png,p1,1,0\nb.png,p1,0,0\nc.png,p2,1,1\nd.png,p2,,0\ne.png,p3,1,0\nf.png,p3,1,0\n";
    let raw = ward(temporary.path(), table);
    let out = temporary.path().join("set");
    let given = ["--patient-column", "patient", "--label-columns", "Edema"];
    ok("ingest", arguments(&raw, &out, &given));
    let before = contents(&out);
    let refused = |more: &[&str], words: &[&str]| {
        let message = fails("ingest", 1, arguments(&raw, &out, more));
        assert!(
            words.iter().all(|word| message.contains(word)) && message.contains("--overwrite"),
            "{words:?} {message}"
        );
        assert!(!message.contains("input_sha256") && contents(&out) == before, "{message}");
    };
    let mut sized = arguments(&raw, &out, &given);
    let at = sized.iter().position(|word| word == "64").expect("a size");
    sized[at] = "32".into();
    let message = fails("ingest", 1, sized);
    assert!(message.contains("holds another dataset: --size was 64, is 32; take another OUT"), "{message}");
    refused(
        &["--patient-column", "patient", "--label-columns", "Edema,Mass"],
        &["holds another dataset: --label-columns was Edema, is Edema,Mass; take"],
    );
    refused(&["--label-columns", "Edema"], &["--patient-column was patient, is not given"]);
    refused(&[&given[..], &["--label-map", "1=0"]].concat(), &["--label-map was not given, is 1=0"]);
    refused(&[&given[..], &["--no-images"]].concat(), &["--no-images was not given, is given"]);

    // Other entries in the table, and other files.
    let change = |from: &str, to: &str, words: &[&str]| {
        fs::write(raw.join("list.csv"), table.replace(from, to)).expect("written");
        refused(&given, &[&["the input changed since: ", "--check-input lists each changed"], words].concat());
    };
    change("c.png,p2,1,", "c.png,p2,0,", &["1 record (folder/c) with another label"]);
    change("a.png,p1", "a.png,p9", &["1 record (folder/a) with another patient_id"]);
    change("f.png,p3,1,0\n", "", &["1 input (f.png) no longer listed"]);
    change("f.png,p3,1,0\n", "f.png,p3,1,0\ng.png,p3,1,0\n", &["1 input (g.png) added"]);
    fs::write(raw.join("list.csv"), table).expect("written");
    images(&raw, &["new.png"]);
    refused(&given, &["1 input (new.png: no table lists this file, so it has no record) rejected now and not before"]);
    fs::remove_file(raw.join("new.png")).expect("removed");
    let kept = fs::read(raw.join("b.png")).expect("a file");
    fs::remove_file(raw.join("b.png")).expect("removed");
    refused(&given, &["1 image file (b.png) missing"]);
    fs::write(raw.join("b.png"), kept).expect("written");
    // The same table under another name is the same dataset.
    fs::rename(raw.join("list.csv"), raw.join("other.csv")).expect("renamed");
    let mut renamed = arguments(&raw, &out, &given);
    renamed[4] = raw.join("other.csv").into();
    assert!(ok("ingest", renamed).contains("nothing to do"));
}

/// A name that must not be in the output.
const NAME: &str = "Mustermann";

fn assert_nameless(out: &Path) {
    for (path, bytes) in contents(out) {
        let holds = bytes.windows(NAME.len()).any(|window| window.eq_ignore_ascii_case(NAME.as_bytes()));
        assert!(!holds && !path.contains(NAME), "{path}");
    }
    // Compressed columns too.
    let dataset = Dataset::open(out).expect("a dataset");
    for column in ["record_id", "patient_id", "study_id", "image_id", "source_path"] {
        let values = dataset.texts(column).expect("a column");
        assert!(values.iter().flatten().all(|value| !value.contains(NAME)), "{column}: {values:?}");
    }
    for reject in rejects(out) {
        assert!(!format!("{reject:?}").contains(NAME), "{reject:?}");
    }
}

#[test]
fn hashed_paths_contain_no_name_and_keep_the_groups() {
    let temporary = folder();
    let raw = temporary.path().join("raw");
    let names = ["Mustermann_Max/2020/1.png", "Mustermann_Max/2020/2.png", "Mustermann_Max/2021/1.png", "Other/x.PNG"];
    images(&raw, &names);
    images(&raw, &["Mustermann_Lone.png"]);
    fs::write(raw.join("Mustermann_Max/2020/1.txt"), "FINDINGS: Clear lungs.").expect("written");
    fs::write(raw.join("Mustermann_Max/broken.png"), "no image").expect("written");
    std::os::unix::fs::symlink("nowhere.png", raw.join("Mustermann_Max/lost.png")).expect("linked");
    let (plain, out) = (temporary.path().join("plain"), temporary.path().join("set"));
    let map = temporary.path().join("map.csv");
    let command = |out: &Path, more: &[&str]| {
        let mut all = args!["folder", &raw, out, "--max-reject-rate", "1"].to_vec();
        all.extend(SMALL.iter().chain(more).map(Into::into));
        all
    };
    ok("ingest", command(&plain, &[]));
    let hashed = ["--hash-paths", "--path-map", map.to_str().expect("text")];
    let output = run("ingest", command(&out, &hashed));
    let message = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() && !message.contains(NAME), "{message}");
    assert_nameless(&out);
    assert!(fs::read_to_string(out.join("dataset.json")).expect("a manifest").contains("\"hash_paths\": true"));

    // The map has the file of each hash; images and groups are those of the dataset without hashes.
    let text_of = fs::read_to_string(&map).expect("a map");
    let paths: BTreeMap<&str, &str> = text_of
        .lines()
        .skip(1)
        .map(|line| line.split_once(',').expect("two fields"))
        .map(|(hash, path)| (hash, path.trim_matches('"')))
        .collect();
    let by_path = |out: &Path, path_of: &dyn Fn(&Record) -> String| -> BTreeMap<String, Record> {
        let dataset = Dataset::open(out).expect("a dataset");
        let record = |row| dataset.record(row).expect("a record");
        (0..dataset.len()).map(record).map(|record| (path_of(&record), record)).collect()
    };
    let without_ending = |path: &str| path.split('.').next().expect("a hash").to_owned();
    let plain_records = by_path(&plain, &|record| record.source_path.clone());
    let hashed_records = by_path(&out, &|record| paths[without_ending(&record.source_path).as_str()].to_owned());
    assert_eq!(hashed_records.len(), 5);
    assert!(hashed_records.keys().eq(plain_records.keys()));
    for (path, record) in &hashed_records {
        let plain = &plain_records[path];
        let hash = without_ending(&record.source_path);
        assert_eq!((hash.len(), record.source_path.as_str()), (24, format!("{hash}.png").as_str()));
        assert_eq!((&record.record_id, &record.image_id), (&format!("folder/{hash}"), &hash));
        assert_eq!(paths[record.patient_id.as_str()], plain.patient_id);
        assert_eq!(paths[record.study_id.as_str()], plain.study_id);
        assert!(record.image == plain.image && record.report == plain.report, "{path}");
    }
    let patients: BTreeSet<&String> = hashed_records.values().map(|record| &record.patient_id).collect();
    assert_eq!(patients.len(), 3);
    // `printf PATH | sha256sum | cut -c1-24` gives the same.
    let digest = dataset::store::files::sha256(&{
        let path = temporary.path().join("path");
        fs::write(&path, "Mustermann_Max/2020/1.png").expect("written");
        path
    });
    assert_eq!(paths[&digest.expect("a digest")[..24]], "Mustermann_Max/2020/1.png");
    // Rejects of the stages `decode` and `plan` can be found by their hash.
    let found: BTreeSet<&str> =
        rejects(&out).iter().map(|reject| paths[without_ending(&reject.source_path).as_str()]).collect();
    assert_eq!(found, ["Mustermann_Max/broken.png", "Mustermann_Max/lost.png"].into());

    // A second run has the same bytes; another choice is reported.
    let again = temporary.path().join("again");
    ok("ingest", command(&again, &["--hash-paths", "--jobs", "1"]));
    assert!(contents(&again) == contents(&out));
    let message = fails("ingest", 1, command(&out, &[]));
    assert!(message.contains("--hash-paths was given, is not given"), "{message}");
    let inside = out.join("map.csv");
    let inside = ["--hash-paths", "--path-map", inside.to_str().expect("text")];
    assert!(fails("ingest", 1, command(&out, &inside)).contains("would be part of the dataset"));
    assert!(fails("ingest", 2, command(&out, &hashed[1..])).contains("--hash-paths"));
    // A new file is named by its hash.
    images(&raw, &["Mustermann_Max/2022/1.png"]);
    fs::write(raw.join("Mustermann_Max/2020/2.png"), fs::read(raw.join("Other/x.PNG")).expect("an image"))
        .expect("written");
    let output = run("ingest", command(&out, &["--hash-paths", "--check-input"]));
    let message = text(&output.stdout) + &text(&output.stderr);
    assert!(message.contains("is new") && !message.contains(NAME), "{message}");
    let message = fails("ingest", 1, command(&out, &["--hash-paths"]));
    assert!(message.contains("changed since") && !message.contains(NAME), "{message}");
    // Exports name their files after the records.
    let export = temporary.path().join("export");
    ok("dataset", args!["export", &out, "--to", "webdataset", &export]);
    for (path, bytes) in contents(&export) {
        assert!(!path.contains(NAME) && !text(&bytes).contains(NAME), "{path}");
    }
}

#[test]
fn hashed_paths_of_a_table_contain_no_name() {
    let temporary = folder();
    let raw = temporary.path().join("raw");
    images(&raw, &["Mustermann/a.png", "Mustermann/b.png", "Mustermann2/b.png", "x.png", "Mustermann_unlisted.png"]);
    let rows = "Mustermann/a.png,7,1\nb.png,7,1\nx.png,8,0\n/elsewhere/Mustermann.png,8,0\nMustermann/gone.png,9,1\n";
    fs::write(raw.join("Mustermann_list.csv"), format!("file,pseudonym,Edema\n{rows}")).expect("written");
    let out = temporary.path().join("set");
    let mut command = args!["folder", &raw, &out, "--table", "Mustermann_list.csv", "--hash-paths"].to_vec();
    let more = ["--image-column", "file", "--patient-column", "pseudonym", "--label-columns", "Edema"];
    command.extend(SMALL.iter().chain(&more).chain(&["--max-reject-rate", "1"]).map(Into::into));
    let output = run("ingest", &command);
    let message = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() && !message.contains(NAME), "{message}");
    assert_nameless(&out);
    let found: BTreeMap<String, Record> =
        by_image(&out).into_values().map(|record| (record.patient_id.clone(), record)).collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["7", "8"], "pseudonyms of a column are not hashed");
    let errors: Vec<String> = rejects(&out).into_iter().map(|reject| reject.error).collect();
    let with = |words: &str| errors.iter().filter(|error| error.contains(words)).count();
    assert_eq!((with("matches several files"), with("is not below RAW_DIR")), (1, 1), "{errors:#?}");
    assert_eq!(
        (with("no table lists this file, so it has no record"), with("the file is missing")),
        (3, 1),
        "{errors:#?}"
    );
    assert_eq!(errors.len(), 6);
}

#[test]
fn the_real_covid_table_is_read_as_a_folder_table() {
    let Some(data) = real_data() else { return };
    let temporary = folder();
    let raw = data.join("covid-chestxray");
    let out = temporary.path().join("set");
    let mut command = args!["folder", &raw, &out, "--table", "metadata.csv", "--image-column", "filename"].to_vec();
    let more = "--patient-column patientid --view-column view --sex-column sex --age-column age --class-column finding \
                --label-columns intubated,RT_PCR_positive --no-images --max-reject-rate 1 --label-map";
    command.extend(more.split_whitespace().map(Into::into));
    command.push("finding:todo=blank,Not visible=blank".into());
    ok("ingest", &command);
    let dataset = Dataset::open(&out).expect("a dataset");
    assert_eq!((dataset.len(), rejects(&out)), (571, Vec::new()));
    let labels = helpers::dataset_codes(&dataset);
    let count = |code| labels.iter().filter(|labels| labels[0] == code).count();
    assert_eq!([Some(1), Some(0), None].map(count), [102, 93, 357 + 19]);
    assert!(dataset.findings().iter().any(|name| name == "Pneumonia/Viral/COVID-19"));
    assert!(!dataset.findings().iter().any(|name| name == "todo"));
}
