//! Images that are values of Parquet tables: TAIX-Ray as it is published, and tables of the source `folder`.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringArray, StructArray};
use dataset::format::byte_column::ByteColumn;
use dataset::format::record::Record;
use dataset::random::Stream;
use helpers::{
    SMALL, args, command, contents, copy_folder, edit, fails, folder, ingest, ok, phantom_of, read_text, records,
    records_by_id, rejects, run, text, write_png,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::shared::{mask, rows, says, verifies};

/// How a table is written.
type Form = fn(WriterPropertiesBuilder) -> WriterPropertiesBuilder;

/// As pyarrow writes: all images of a row group are in its dictionary.
const DICTIONARY: Form = |form| form.set_compression(Compression::SNAPPY).set_dictionary_page_size_limit(1 << 30);
const SMALL_PAGES: Form = |form| {
    let form = form.set_dictionary_enabled(false).set_write_batch_size(1).set_data_page_size_limit(4096);
    form.set_compression(Compression::ZSTD(ZstdLevel::default()))
};
const SECOND_VERSION: Form = |form| {
    form.set_writer_version(WriterVersion::PARQUET_2_0).set_dictionary_enabled(false).set_encoding(Encoding::PLAIN)
};
const BOTH_KINDS_OF_PAGES: Form =
    |form| form.set_write_batch_size(1).set_data_page_size_limit(4096).set_dictionary_page_size_limit(20_000);

fn texts<T: Into<String>>(values: impl IntoIterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(values.into_iter().map(|value| value.map(Into::into)).collect::<StringArray>())
}

fn bytes(values: &[Option<Vec<u8>>]) -> ArrayRef {
    Arc::new(values.iter().map(Option::as_deref).collect::<BinaryArray>())
}

/// Images as Hugging Face has them.
fn images(values: &[(Option<&str>, Option<Vec<u8>>)]) -> ArrayRef {
    let paths = texts(values.iter().map(|(path, _)| *path));
    let values: Vec<Option<Vec<u8>>> = values.iter().map(|(_, bytes)| bytes.clone()).collect();
    Arc::new(StructArray::try_from(vec![("bytes", bytes(&values)), ("path", paths)]).expect("a struct"))
}

/// Writes a table with row groups of seven rows.
fn write_table(path: &Path, columns: Vec<(&str, ArrayRef)>, form: Form) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    let columns = columns.into_iter().map(|(name, values)| (name, values, true));
    let batch = RecordBatch::try_from_iter_with_nullable(columns).expect("a batch");
    let properties = form(WriterProperties::builder().set_max_row_group_row_count(Some(7))).build();
    let file = File::create(path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("a table");
    writer.write(&batch).expect("written");
    writer.close().expect("written");
}

/// A small PNG file of one gray, whose height says which one it is.
fn png(number: u32) -> Vec<u8> {
    let temporary = folder();
    let path = temporary.path().join("a.png");
    write_png(&path, 40, 30 + number);
    fs::read(path).expect("a PNG")
}

/// Writes a phantom of TAIX-Ray as the published Parquet files beside `raw`, without `split.csv`.
fn published(raw: &Path, form: Form) -> PathBuf {
    let out = raw.with_file_name("published");
    let _ = fs::remove_dir_all(&out);
    let (annotations, splits) =
        (read_text(&raw.join("metadata/annotation.csv")), read_text(&raw.join("metadata/split.csv")));
    let mut all = rows(&annotations);
    // The order of the tables is not that of the identifiers.
    all.sort_by_key(|row| row["UID"].bytes().rev().collect::<Vec<_>>());
    let split: BTreeMap<&str, &str> =
        rows(&splits).into_iter().filter(|row| row["Fold"] == "0").map(|row| (row["UID"], row["Split"])).collect();
    let header: Vec<&str> = annotations.lines().next().expect("a header").split(',').collect();
    for (number, part) in all.chunks(20).enumerate() {
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("Fold", Arc::new(Int64Array::from(vec![0; part.len()]))),
            ("Split", texts(part.iter().map(|row| Some(split[row["UID"]])))),
        ];
        for &name in &header {
            let is_number = !["UID", "PatientID", "PhysicianID", "StudyDate", "Sex"].contains(&name);
            columns.push((
                name,
                if is_number {
                    Arc::new(part.iter().map(|row| row[name].parse().ok()).collect::<Int64Array>())
                } else {
                    texts(part.iter().map(|row| Some(row[name])))
                },
            ));
        }
        let names: Vec<String> = part.iter().map(|row| format!("{}.png", row["UID"])).collect();
        let read = |name: &String| fs::read(raw.join("data").join(name)).expect("a PNG");
        let values: Vec<_> = names.iter().map(|name| (Some(name.as_str()), Some(read(name)))).collect();
        columns.push(("Image", images(&values)));
        write_table(&out.join(format!("data/train-{number:05}-of-00003.parquet")), columns, form);
    }
    out
}

/// Records without their paths, which differ.
fn without_paths(out: &Path) -> Vec<Record> {
    records(out).into_iter().map(|record| Record { source_path: String::new(), ..record }).collect()
}

#[test]
fn taix_ray_is_the_same_from_parquet_and_from_files() {
    let temporary = folder();
    let raw = phantom_of("taix-ray", temporary.path(), 50);
    let out = |name: &str| temporary.path().join(name);
    ingest("taix-ray", &raw, &out("files"), &[]);
    let files = without_paths(&out("files"));
    for (number, form) in [DICTIONARY, SMALL_PAGES, SECOND_VERSION, BOTH_KINDS_OF_PAGES].into_iter().enumerate() {
        let tables = published(&raw, form);
        let [one, three] = [1, 3].map(|jobs| {
            let out = out(&format!("{number}-{jobs}"));
            ingest("taix-ray", &tables, &out, &["--jobs", &jobs.to_string()]);
            assert_eq!(rejects(&out), []);
            out
        });
        assert!(contents(&one) == contents(&three), "any number of threads");
        verifies(&one);
        assert!(without_paths(&one) == files, "form {number}");
        let paths: Vec<String> = records(&one).into_iter().map(|record| record.source_path).collect();
        assert!(paths.contains(&"data/train-00000-of-00003.parquet#01".to_owned()), "{paths:?}");
        assert!(paths.contains(&"data/train-00002-of-00003.parquet#10".to_owned()), "{paths:?}");
        let printed = ok("ingest", args!["taix-ray", &tables, &one, "--check-input"]);
        assert!(printed.contains("the input is unchanged"), "{printed}");
    }

    // The published table of all folds, and 16 bits a pixel.
    let tables = published(&raw, DICTIONARY);
    let message = fails("ingest", 1, args!["taix-ray", &tables, out("x"), "--fold", "3"]);
    assert!(message.contains("no row of fold 3 in the Parquet files") && message.contains("split.csv"), "{message}");
    fs::copy(raw.join("metadata/split.csv"), tables.join("split.csv")).expect("copied");
    for (name, raw) in [("files-3", &raw), ("tables-3", &tables)] {
        ingest("taix-ray", raw, &out(name), &["--fold", "3", "--bits", "16", "--image-encoding", "png"]);
    }
    assert!(without_paths(&out("files-3")) == without_paths(&out("tables-3")));

    // Image files beside the tables are preferred, with a line that says so; without them the tables are read.
    copy_folder(&tables.join("data"), &raw.join("parquet"));
    let both = run("ingest", args!["taix-ray", &raw, out("both"), "--size", "64"]);
    assert!(
        both.status.success() && text(&both.stderr).contains("the Parquet files are not read"),
        "{}",
        text(&both.stderr)
    );
    assert!(records(&out("both")).iter().all(|record| record.source_path.ends_with(".png")));
    fs::remove_dir_all(raw.join("data")).expect("removed");
    ingest("taix-ray", &raw, &out("tables"), &[]);
    assert!(without_paths(&out("tables")) == files);
}

#[test]
fn a_killed_run_continues_and_a_changed_table_is_noticed() {
    let temporary = folder();
    let raw = published(&phantom_of("taix-ray", temporary.path(), 60), DICTIONARY);
    let (whole, out) = (temporary.path().join("whole"), temporary.path().join("set"));
    let arguments = |out: &Path| {
        let small = ["--size", "64", "--tokenizer", "none", "--rows-per-shard", "4", "--jobs", "1"];
        [args!["taix-ray", &raw, out].to_vec(), small.iter().map(Into::into).collect()].concat()
    };
    ok("ingest", arguments(&whole));
    let mut tries = 0;
    while !out.join(".ingest/part-00000.json").exists() {
        tries += 1;
        assert!(tries < 20, "it always ends before it is killed");
        let _ = fs::remove_dir_all(&out);
        let quiet = || Stdio::null();
        let mut child =
            command("ingest").args(arguments(&out)).stdout(quiet()).stderr(quiet()).spawn().expect("it starts");
        while !out.join(".ingest/part-00000.json").exists() && child.try_wait().expect("a child").is_none() {
            std::thread::yield_now();
        }
        child.kill().expect("SIGKILL");
        child.wait().expect("it ends");
    }
    let tables = [0, 1, 2].map(|number| raw.join(format!("data/train-{number:05}-of-00003.parquet")));
    let before = tables.clone().map(|table| fs::read(table).expect("a table"));
    let touch = |table: &PathBuf| {
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(100);
        File::options().write(true).open(table).and_then(|file| file.set_modified(later)).expect("touched");
    };
    // Other bytes of the same length in all images.
    for table in &tables {
        edit(table, |bytes| {
            let marks: Vec<usize> = (0..bytes.len() - 4).filter(|at| &bytes[*at..*at + 4] == b"IDAT").collect();
            assert!(!marks.is_empty());
            marks.into_iter().for_each(|at| bytes[at + 8] ^= 1);
        });
        touch(table);
    }
    let message = fails("ingest", 1, arguments(&out));
    assert!(message.contains("(data/train-0000") && message.contains("changed since it was read"), "{message}");
    tables.iter().zip(&before).for_each(|(table, bytes)| {
        fs::write(table, bytes).expect("restored");
        touch(table);
    });
    let printed = ok("ingest", arguments(&out));
    assert!(printed.contains("continued after"), "{printed}");
    assert!(contents(&out) == contents(&whole), "{printed}");

    // A finished dataset notices it, too.
    edit(&tables[0], |bytes| {
        let at = bytes.windows(4).position(|four| four == b"IDAT").expect("an image");
        bytes[at + 8] ^= 1;
    });
    let checked = run("ingest", args!["taix-ray", &raw, &out, "--check-input"]);
    let printed = text(&checked.stdout) + &text(&checked.stderr);
    assert_eq!(checked.status.code(), Some(1), "{printed}");
    assert!(printed.contains("train-00000-of-00003.parquet#01: has other bytes"), "{printed}");
}

/// Ingests the tables of a folder.
fn of_tables(raw: &Path, out: &Path, more: &[&str]) -> String {
    let arguments = ["--table", "data/*.parquet", "--image-column", "image", "--max-reject-rate", "1"];
    ingest("folder", raw, out, &[&arguments, more].concat())
}

#[test]
fn tables_of_hugging_face_are_read_by_folder() {
    let temporary = folder();
    let (raw, out) = (temporary.path().join("raw"), temporary.path().join("set"));
    let (bad, empty) = (b"no image at all".to_vec(), Vec::new());
    let first = [
        (Some("p1/a.png"), Some(png(1))),
        (Some("b.png"), Some(png(2))),
        (Some("same.png"), Some(png(3))),
        (None, Some(png(4))),
        (Some("null.png"), None),
        (Some("bad.png"), Some(bad)),
        (Some("empty.png"), Some(empty)),
        (Some("/home/someone/c.png"), Some(png(5))),
    ];
    let second = [(Some("same.png"), Some(png(6))), (Some("d.jpg"), Some(png(7))), (Some("d.png"), Some(png(8)))];
    let label = |names: &[&str]| texts(names.iter().map(|name| Some(*name)));
    let names = ["cat", "normal", "normal", "cat", "normal", "normal", "normal", "cat"];
    write_table(
        &raw.join("data/train-0.parquet"),
        vec![("image", images(&first)), ("label", label(&names))],
        DICTIONARY,
    );
    let names = label(&["normal", "dog", "dog"]);
    let sexes = texts([Some("F"), None, Some("M")]);
    let columns = vec![("label", names), ("image", images(&second)), ("sex", sexes)];
    write_table(&raw.join("data/test-0.parquet"), columns, SMALL_PAGES);
    write_png(&raw.join("lonely.png"), 40, 30);

    of_tables(&raw, &out, &["--class-column", "label", "--sex-column", "sex"]);
    verifies(&out);
    let found = records_by_id(&out);
    let ids: Vec<&str> = found.keys().map(String::as_str).collect();
    let expected = [
        ("folder/b", 32, "train-0.parquet#2"),
        ("folder/c", 35, "train-0.parquet#8"),
        ("folder/d.jpg", 37, "test-0.parquet#2"),
        ("folder/d.png", 38, "test-0.parquet#3"),
        ("folder/data/test-0.parquet#1", 36, "test-0.parquet#1"),
        ("folder/data/train-0.parquet#3", 33, "train-0.parquet#3"),
        ("folder/data/train-0.parquet#4", 34, "train-0.parquet#4"),
        ("folder/p1/a", 31, "train-0.parquet#1"),
    ];
    assert_eq!(ids, expected.map(|(id, ..)| id));
    for (id, height, path) in expected {
        let record = &found[id];
        assert_eq!((record.source_height, record.source_path.clone()), (height, format!("data/{path}")), "{id}");
        let digest: [u8; 32] = blake3::hash(&png(height - 30)).into();
        assert_eq!(record.source_digest, digest, "{id}");
    }
    assert_eq!((found["folder/p1/a"].image_id.as_str(), found["folder/p1/a"].patient_id.as_str()), ("a", "p1/a"));
    assert_eq!((found["folder/d.png"].sex.as_deref(), found["folder/b"].sex.as_deref()), (Some("M"), None));
    let dataset = dataset::Dataset::open(&out).expect("a dataset");
    assert_eq!(dataset.findings(), ["cat", "dog", "normal"], "classes of all tables");
    says(&out, "data/train-0.parquet#5", "read", "the row has no image");
    says(&out, "data/train-0.parquet#6", "decode", "");
    says(&out, "data/train-0.parquet#7", "read", "the row has no image");
    says(&out, "lonely.png", "plan", "no table lists this file");
    assert_eq!(rejects(&out).len(), 4);

    // Hashes in place of paths leave no name behind.
    let hashed = temporary.path().join("hashed");
    of_tables(&raw, &hashed, &["--hash-paths"]);
    let names = ["train-0", "p1", "same", "someone"];
    let is_clean = |text: &str| names.iter().all(|name| !text.contains(name));
    for record in records(&hashed) {
        assert!(
            [&record.record_id, &record.patient_id, &record.study_id, &record.source_path]
                .into_iter()
                .all(|text| is_clean(text))
        );
    }
    assert!(rejects(&hashed).iter().all(|reject| is_clean(&reject.source_path) && is_clean(&reject.error)));

    // Options that do not fit.
    let arguments = |more: &[&str]| {
        let words = ["--table", "data/*.parquet", "--image-column", "image"];
        [args!["folder", &raw, temporary.path().join("x")].to_vec(), words.iter().chain(more).map(Into::into).collect()]
            .concat()
    };
    let message = fails("ingest", 2, arguments(&["--patient-from-header"]));
    assert!(message.contains("these images are in tables; give --patient-column"), "{message}");
    let outside = temporary.path().join("outside.parquet");
    fs::copy(raw.join("data/train-0.parquet"), &outside).expect("copied");
    let words = args!["folder", &raw, temporary.path().join("x"), "--table", &outside, "--image-column", "image"];
    let message = fails("ingest", 1, words);
    assert!(message.contains("outside.parquet") && message.contains("must be below RAW_DIR"), "{message}");
    let words =
        args!["folder", &raw, temporary.path().join("x"), "--table", "none/*.parquet", "--image-column", "image"];
    let message = fails("ingest", 1, words);
    assert!(message.contains("no table `none/*.parquet`"), "{message}");
}

#[test]
fn plain_bytes_have_identifiers_of_their_rows_or_of_a_column() {
    let temporary = folder();
    let raw = temporary.path().join("raw");
    let values: Vec<Option<Vec<u8>>> = (1..=12).map(|number| Some(png(number))).collect();
    let ids = (1..=12).map(|number| (number != 5).then(|| format!("x{}", 100 - number)));
    let columns = vec![("image", bytes(&values)), ("id", texts(ids))];
    let table = raw.join("data/all.parquet");
    write_table(&table, columns, BOTH_KINDS_OF_PAGES);
    let heights = |out: &Path| -> Vec<(String, u32)> {
        records(out).into_iter().map(|record| (record.record_id, record.source_height)).collect()
    };
    let rows = temporary.path().join("rows");
    of_tables(&raw, &rows, &[]);
    let expected = (1..=12).map(|row| (format!("folder/data/all.parquet#{row:02}"), 30 + row));
    assert_eq!(heights(&rows), expected.collect::<Vec<_>>(), "in the order of the table");

    let by_id = temporary.path().join("ids");
    fs::create_dir_all(raw.join("masks/lung")).expect("a folder");
    write_png(&raw.join("masks/lung/x98.png"), 40, 32);
    of_tables(&raw, &by_id, &["--id-column", "id", "--masks", "masks/lung"]);
    let expected = (1..=12).rev().filter(|row| *row != 5).map(|row| (format!("folder/x{}", 100 - row), 30 + row));
    assert_eq!(heights(&by_id), expected.collect::<Vec<_>>());
    says(&by_id, "data/all.parquet", "table", "row 5: the identifier column is empty");
    let with_mask: Vec<String> = records(&by_id)
        .iter()
        .filter(|record| mask(record, "lung").is_some())
        .map(|record| record.record_id.clone())
        .collect();
    assert_eq!(with_mask, ["folder/x98"]);

    // A table that is named by its path, from another folder.
    fs::remove_dir_all(raw.join("masks")).expect("removed");
    let words =
        args!["folder", "raw", "named", "--table", "raw/data/all.parquet", "--image-column", "image", "--size", "64"];
    let named = command("ingest").args(words).current_dir(temporary.path()).output().expect("it starts");
    assert!(named.status.success(), "{}", text(&named.stderr));
    assert_eq!(heights(&temporary.path().join("named")), heights(&rows));

    // Where no bytes are stored, the paths beside them are those of files.
    let files = temporary.path().join("files");
    write_png(&files.join("a.png"), 40, 33);
    let values = images(&[(Some("a.png"), None)]);
    write_table(&files.join("data/list.parquet"), vec![("image", values)], DICTIONARY);
    of_tables(&files, &temporary.path().join("paths"), &[]);
    assert_eq!(heights(&temporary.path().join("paths")), [("folder/a".to_owned(), 33)]);
}

/// Values of up to 300 KB, some of which repeat or are null: noise, and texts that compress.
fn values() -> Vec<Option<Vec<u8>>> {
    let mut random = Stream::new(&[7]);
    let mut value = |row: u8| -> Option<Vec<u8>> {
        let length = 1 + random.below(300_000) as usize;
        match row % 5 {
            0 => None,
            1 => Some(b"a text that repeats ".iter().copied().cycle().take(length).collect()),
            2 => Some(vec![row; length]),
            _ => Some((0..length).map(|_| random.below(256) as u8).collect()),
        }
    };
    let mut values: Vec<Option<Vec<u8>>> = (0..40).map(&mut value).collect();
    let again = values[3].clone();
    values[33] = again;
    values
}

#[test]
fn each_value_is_read_with_those_beside_it_and_alone() {
    let (values, temporary) = (values(), folder());
    let forms: [(&str, usize, Form); 5] = [
        ("dictionary", 32, DICTIONARY),
        ("pages", 32, |form| form.set_compression(Compression::SNAPPY).set_dictionary_enabled(false)),
        ("plain", 32, |form| form.set_compression(Compression::UNCOMPRESSED)),
        ("zstd", 0, SMALL_PAGES),
        ("second", 0, SECOND_VERSION),
    ];
    for (name, expected, form) in forms {
        let path = temporary.path().join(name);
        write_table(&path, vec![("image", bytes(&values))], form);
        let column = ByteColumn::open(&path, "image").expect("a column");
        assert_eq!(column.rows(), 40);
        assert!(column.place(40).is_err() && ByteColumn::open(&path, "other").is_err());
        let mut alone = 0;
        for (row, value) in (0..).zip(&values) {
            let place = column.place(row).expect("a place");
            let read = column.read(place).expect("values");
            assert!(read.get(row) == value.as_deref(), "row {row} of {name}");
            assert!(read.bytes() <= column.cost(place) + 10_000);
            if let Some(again) = column.read_again(place, row).expect("a value") {
                assert!(Some(&again) == value.as_ref(), "row {row} of {name}, alone");
                alone += 1;
            }
        }
        assert_eq!(alone, expected, "{name}");
        edit(&path, |bytes| bytes.push(0));
        assert!(column.read(column.place(3).expect("a place")).is_err(), "it changed");
        assert!(expected == 0 || column.read_again(column.place(3).expect("a place"), 3).is_err(), "it changed");
    }
}

#[test]
fn damaged_tables_end_the_run_or_reject_their_rows() {
    let temporary = folder();
    let raw = temporary.path().join("raw");
    let values: Vec<Option<Vec<u8>>> = (1..=20).map(|number| Some(png(number))).collect();
    let table = raw.join("data/all.parquet");
    write_table(&table, vec![("image", bytes(&values))], DICTIONARY);
    let whole = fs::read(&table).expect("a table");
    let x = temporary.path().join("x");
    let arguments = args!["folder", &raw, &x, "--table", &table, "--image-column", "image", "--max-reject-rate", "1"];

    // A list of checksums names tables; a damaged one ends the run.
    let sum = dataset::store::files::sha256(&table).expect("a digest");
    let list = raw.join("SHA256SUMS.txt");
    fs::write(&list, format!("{sum}  data/all.parquet\n")).expect("written");
    let out = temporary.path().join("sums");
    let printed = of_tables(&raw, &out, &["--check-sums", list.to_str().expect("a path")]);
    assert!(printed.contains("checksums: 1 file as listed, 0 files damaged"), "{printed}");
    edit(&table, |bytes| bytes[100] ^= 1);
    let message = fails("ingest", 1, [arguments.to_vec(), args!["--check-sums", &list].to_vec()].concat());
    assert!(message.contains("all.parquet") && message.contains("checksum differs"), "{message}");

    // Without its footer it is no table.
    fs::write(&table, &whole[..whole.len() - 9]).expect("cut");
    let message = fails("ingest", 1, arguments.clone());
    assert!(message.contains("all.parquet: damaged, or no Parquet file"), "{message}");

    // A damaged page rejects the rows of its row group.
    let starts = |bytes: &[u8]| -> Vec<usize> {
        let reader = SerializedFileReader::new(bytes::Bytes::copy_from_slice(bytes)).expect("a table");
        let groups = reader.metadata().row_groups().iter();
        groups.map(|group| group.column(0).dictionary_page_offset().expect("a dictionary") as usize).collect()
    };
    let mut damaged = whole.clone();
    damaged[starts(&whole)[1] + 20..][..40].fill(0xff);
    fs::write(&table, &damaged).expect("written");
    let out = temporary.path().join("damaged");
    of_tables(&raw, &out, &[]);
    let kept: Vec<u32> = records(&out).iter().map(|record| record.source_height - 30).collect();
    assert_eq!(kept, (1..=7).chain(15..=20).collect::<Vec<_>>(), "the other row groups");
    let found = rejects(&out);
    let is_damage = |error: &str| error.starts_with("damaged, or no Parquet file");
    assert!(
        found.len() == 7 && found.iter().all(|found| found.stage == "read" && is_damage(&found.error)),
        "{found:?}"
    );
    ok(
        "ingest",
        [arguments[..2].to_vec(), args![&out].to_vec(), arguments[3..].to_vec(), SMALL.map(Into::into).to_vec()]
            .concat(),
    );

    // A page that claims a gigabyte is refused by its header.
    write_table(&table, vec![("image", bytes(&values[..5]))], DICTIONARY);
    edit(&table, |bytes| {
        // The type, then two bytes of the size in memory.
        let size = starts(bytes)[0] + 3;
        assert!(bytes[size] & 0x80 != 0 && bytes[size + 1] & 0x80 == 0);
        bytes.splice(size..size + 2, [0xfe, 0xff, 0xff, 0xff, 0x07]);
    });
    let out = temporary.path().join("lying");
    let run = run("ingest", [arguments[..2].to_vec(), args![&out].to_vec(), arguments[3..].to_vec()].concat());
    let printed = text(&run.stderr) + &text(&run.stdout);
    assert!(printed.contains("claims to have 1073741823 bytes, more than an image needs"), "{printed}");
    assert!(!printed.contains("panicked"), "{printed}");
}
