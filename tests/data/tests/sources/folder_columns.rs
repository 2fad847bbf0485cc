//! What a folder's table, and folders of masks, say besides labels: sections, times, spacings, masks; tables of other kinds;
//! patterns of paths.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use dataset::Dataset;
use dataset::format::image_codec::{GrayPixels, decode};
use dataset::format::record::{ImageEncoding, Record};
use helpers::{SMALL, args, fails, folder, ok, python, python_output, read_text, records, rejects, write_file};

use crate::shared::says;

const SIDE: u32 = 40;

/// Writes a gray image; `level` gives the level of a column and a row.
fn write_gray(path: &Path, side: u32, encoding: ImageEncoding, level: impl Fn(u32, u32) -> u8) {
    let pixels = (0..side * side).map(|at| level(at % side, at / side)).collect();
    write_file(path, GrayPixels { width: side, height: side, pixels }.encode(encoding).expect("an image"));
}

fn images(raw: &Path, names: &[&str]) {
    for (at, name) in names.iter().enumerate() {
        write_gray(&raw.join(name), SIDE, ImageEncoding::Png, |x, y| ((x * 7 + y * 3 + at as u32) % 251) as u8);
    }
}

/// A mask whose left columns are marked, before `end`.
fn write_mask(path: &Path, end: u32) {
    let encoding =
        if path.extension().is_some_and(|found| found == "jpg") { ImageEncoding::Jpeg } else { ImageEncoding::Png };
    write_gray(path, SIDE, encoding, |x, _| if x < end { 255 } else { 0 });
}

/// The number of marked columns of the middle row of each mask, by name.
fn masks(record: &Record) -> Vec<(&str, usize)> {
    let marked = |png: &[u8]| {
        let mask = decode(png).expect("a PNG");
        let width = mask.width as usize;
        mask.pixels[width * (width / 2)..][..width].iter().filter(|level| **level > 0).count()
    };
    record.masks.iter().map(|mask| (mask.name.as_str(), marked(&mask.png))).collect()
}

fn arguments(raw: &Path, out: &Path, more: &[&str]) -> Vec<OsString> {
    let mut all = args!["folder", raw, out, "--max-reject-rate", "1"].to_vec();
    all.extend(SMALL.iter().chain(more).map(Into::into));
    all
}

fn by_image(out: &Path) -> BTreeMap<String, Record> {
    records(out).into_iter().map(|record| (record.image_id.clone(), record)).collect()
}

const TABLE: &str = "\
file;alter;tag;nr;abstand;Befund;Beurteilung;Erguss;lunge
a.png;40-44;07.03.2021;3;0,139;Kleiner Erguss rechts.;Erguss.;positiv;masken/a.png
b.png;90+;2021-03-07 14:05;1;0.139\\0.25;;Unauffällig.;negativ;1 40
c.png;045Y;20210307;2.0;na;;;;-1
d.png;;;;;Herz normal groß.;;fraglich;
e.png;;07/03/2021;;;;;;
f.png;;;;0;;;;
g.png;;;;;;;;masken/fehlt.png
h.png;;;;;;;;masken/klein.png
";

/// The options for the columns of [`TABLE`].
const COLUMNS: [&str; 22] = [
    "--image-column",
    "file",
    "--age-column",
    "alter",
    "--date-column",
    "tag",
    "--order-column",
    "nr",
    "--spacing-columns",
    "abstand",
    "--text-columns",
    "findings=Befund,Impression=Beurteilung",
    "--label-columns",
    "Erguss",
    "--label-map",
    "positiv=1,negativ=0,fraglich=-1",
    "--label-origin",
    "radiologist",
    "--mask-columns",
    "Lunge=lunge",
    "--language",
    "de",
];

/// A raw directory with the table.
fn ward(at: &Path) -> PathBuf {
    let raw = at.join("ward");
    images(&raw, &["a.png", "b.png", "c.png", "d.png", "e.png", "f.png", "g.png", "h.png"]);
    write_mask(&raw.join("masken/a.png"), 10);
    write_gray(&raw.join("masken/klein.png"), 20, ImageEncoding::Png, |_, _| 1);
    write_file(&raw.join("liste.csv"), TABLE);
    raw
}

#[test]
fn the_columns_of_a_table_become_those_of_records() {
    let temporary = folder();
    let raw = ward(temporary.path());
    let out = temporary.path().join("set");
    let table = raw.join("liste.csv").display().to_string();
    let more = [&["--table", &table, "--images", "*.png", "--mask-runs", "absolute"], &COLUMNS[..]].concat();
    ok("ingest", arguments(&raw, &out, &more));
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
    let dataset = Dataset::open(&out).expect("a dataset");
    assert_eq!(dataset.manifest().masks, ["lunge"]);
    let found = by_image(&out);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    let of = |name: &str| {
        let record = &found[name];
        (record.age_years, record.study_datetime.as_deref(), record.study_order, record.pixel_spacing)
    };
    assert_eq!(of("a"), (Some(42.0), Some("2021-03-07"), Some(3), Some([0.139, 0.139])));
    assert_eq!(of("b"), (Some(90.0), Some("2021-03-07T14:05:00"), Some(1), Some([0.139, 0.25])));
    assert_eq!(of("c"), (Some(45.0), Some("2021-03-07"), Some(2), None));
    assert_eq!(of("d"), (None, None, None, None));
    let texts = |name: &str| -> Vec<(String, String)> {
        found[name].texts.iter().map(|text| (text.name.clone(), text.text.clone())).collect()
    };
    let pair = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    assert_eq!(texts("a"), [pair("findings", "Kleiner Erguss rechts."), pair("impression", "Erguss.")]);
    assert_eq!(found["a"].report.as_deref(), Some("Kleiner Erguss rechts.\nErguss."));
    assert_eq!(found["a"].impression.as_deref(), Some("Erguss."));
    assert_eq!(texts("b"), [pair("impression", "Unauffällig.")]);
    assert!(texts("c").is_empty() && found["c"].report.is_none());
    let stated = |name: &str| {
        let record = &found[name];
        (record.language.as_deref(), helpers::label_codes(record)[0], record.label_origin.as_deref())
    };
    assert_eq!(stated("a"), (Some("de"), Some(1), Some("radiologist")));
    assert_eq!(stated("b"), (Some("de"), Some(0), Some("radiologist")));
    assert_eq!(stated("c"), (None, None, None), "neither a report nor a label");
    assert_eq!(stated("d"), (Some("de"), Some(-1), Some("radiologist")));
    assert_eq!(masks(&found["a"]), [("lunge", 10)]);
    assert_eq!(masks(&found["b"]), [("lunge", 1)], "40 pixels down the first column");
    assert_eq!(masks(&found["c"]), [("lunge", 0)], "an empty mask");
    assert!(found["d"].masks.is_empty(), "no mask");

    says(&out, "liste.csv", "table", "line 6: column `tag`: `07/03/2021` is no date; write 2021-03-07");
    says(&out, "liste.csv", "table", "line 7: column `abstand`: `0` is no distance in millimeters");
    says(&out, "g.png", "read", "the file of its mask is missing: masken/fehlt.png");
    says(&out, "h.png", "decode", "its mask masken/klein.png: it has 20×20 pixels, its image has 40×40");
    assert_eq!(rejects(&out).len(), 4, "files that no pattern names are ignored");

    let mut both = arguments(&raw, &temporary.path().join("x"), &more);
    both.extend(["--report-column", "Befund"].map(Into::into));
    assert!(fails("ingest", 2, both).contains("cannot be used with"));
    for (option, value, words) in [
        ("--language", "German language", "no tag of BCP 47"),
        ("--images", "/etc/*.png", "relative to RAW_DIR"),
        ("--masks", "../elsewhere", "relative to RAW_DIR"),
    ] {
        let message = fails("ingest", 2, arguments(&raw, &temporary.path().join("x"), &[option, value]));
        assert!(message.contains(words), "{message}");
    }
}

/// Writes the rows of a CSV table as JSON lines, and as Parquet with numbers, times and categories.
const OTHER_KINDS: &str = r#"
import csv, datetime, json, sys
import pyarrow, pyarrow.parquet
rows = list(csv.DictReader(open(sys.argv[1] + "/liste.csv", newline=""), delimiter=";"))[:4]
for row in rows:
    row["nr"] = float(row["nr"]) if row["nr"] else None
    row["alter"] = row["alter"] or None
with open(sys.argv[1] + "/liste.jsonl", "w") as file:
    for row in rows:
        file.write(json.dumps({name: value for name, value in row.items() if value != ""}) + "\n")
times = [datetime.datetime(2021, 3, 7), datetime.datetime(2021, 3, 7, 14, 5), datetime.datetime(2021, 3, 7), None]
table = pyarrow.Table.from_pylist(rows)
table = table.set_column(2, "tag", pyarrow.array(times, pyarrow.timestamp("us", "UTC")))
labels = table.column("Erguss").combine_chunks().dictionary_encode()
table = table.set_column(table.column_names.index("Erguss"), "Erguss", labels)
pyarrow.parquet.write_table(table, sys.argv[1] + "/liste.parquet")
pyarrow.parquet.write_table(table.append_column("list", pyarrow.array([[1]] * 4)), sys.argv[1] + "/listen.pq", compression="zstd")
"#;

#[test]
fn json_lines_and_parquet_are_tables_too() {
    let temporary = folder();
    let raw = ward(temporary.path());
    let short: Vec<&str> = TABLE.lines().take(5).collect();
    write_file(&raw.join("liste.csv"), short.join("\n"));
    python_output(python().args(["-c", OTHER_KINDS]).arg(&raw));
    write_file(&raw.join("liste.jsonl.gz"), read_text(&raw.join("liste.jsonl")));
    let of = |table: &str| {
        let out = temporary.path().join(table);
        let path = raw.join(table).display().to_string();
        let more = [&["--table", &path, "--images", "?.png"], &COLUMNS[..]].concat();
        ok("ingest", arguments(&raw, &out, &[&more[..], &["--mask-runs", "absolute"]].concat()));
        by_image(&out)
    };
    let expected = of("liste.csv");
    assert_eq!(expected.len(), 4);
    for table in ["liste.jsonl", "liste.jsonl.gz", "liste.parquet", "listen.pq"] {
        assert!(of(table) == expected, "{table}");
    }
    write_file(&raw.join("bad.jsonl"), "{\"file\": \"a.png\"}\nnothing\n");
    let out = temporary.path().join("bad");
    let path = raw.join("bad.jsonl").display().to_string();
    ok("ingest", arguments(&raw, &out, &["--table", &path, "--image-column", "file"]));
    says(&out, "bad.jsonl", "table", "line 2: no JSON object: ");
    write_file(&raw.join("bad.parquet"), "PAR1 and nothing more");
    let path = raw.join("bad.parquet").display().to_string();
    let message =
        fails("ingest", 1, arguments(&raw, &temporary.path().join("x"), &["--table", &path, "--image-column", "file"]));
    assert!(message.contains("bad.parquet"), "{message}");
}

#[test]
fn masks_of_a_folder_belong_to_images_of_their_name() {
    let temporary = folder();
    let raw = temporary.path().join("raw");
    images(
        &raw,
        &["images/p1/a.png", "images/p1/b.png", "images/p2/a.png", "images/p3/c.png", "images/p4/d.png", "other/e.png"],
    );
    write_mask(&raw.join("masks/lung/p1/a.png"), 5);
    write_mask(&raw.join("masks/lung/images/p2/a.jpg"), 16);
    write_mask(&raw.join("masks/lung/b.png"), 7);
    write_mask(&raw.join("masks/lung/nobody.png"), 7);
    write_mask(&raw.join("masks/heart/p1/a.png"), 9);
    write_gray(&raw.join("masks/heart/c.png"), 30, ImageEncoding::Png, |_, _| 1);
    write_file(&raw.join("masks/heart/d.png"), "no PNG");
    let more = ["--images", "images/**/*.png", "--masks", "masks/lung", "--masks", "masks/heart=Heart"];
    let out = temporary.path().join("set");
    ok("ingest", arguments(&raw, &out, &more));
    assert_eq!(Dataset::open(&out).expect("a dataset").manifest().masks, ["lung", "heart"]);
    let found: BTreeMap<String, Record> =
        records(&out).into_iter().map(|record| (record.record_id.clone(), record)).collect();
    assert_eq!(found.len(), 3);
    assert_eq!(masks(&found["folder/images/p1/a"]), [("lung", 5), ("heart", 9)]);
    assert_eq!(masks(&found["folder/images/p1/b"]), [("lung", 7)]);
    assert_eq!(masks(&found["folder/images/p2/a"]), [("lung", 16)], "a JPEG file");
    says(&out, "masks/lung/nobody.png", "plan", "no image has the name of this mask");
    says(&out, "images/p3/c.png", "decode", "its mask masks/heart/c.png: it has 30×30 pixels, its image has 40×40");
    says(&out, "images/p4/d.png", "decode", "its mask masks/heart/d.png: it is neither a PNG nor a JPEG file");
    assert_eq!(rejects(&out).len(), 3);

    // Two images of one name share no mask.
    fs::rename(raw.join("masks/lung/p1/a.png"), raw.join("masks/lung/a.png")).expect("renamed");
    fs::remove_file(raw.join("masks/lung/images/p2/a.jpg")).expect("removed");
    let out = temporary.path().join("shared");
    ok("ingest", arguments(&raw, &out, &more));
    for image in ["images/p1/a.png", "images/p2/a.png"] {
        says(&out, image, "plan", "its mask masks/lung/a.png has the name of several images");
    }
    let message = fails("ingest", 1, arguments(&raw, &temporary.path().join("x"), &["--masks", "nowhere"]));
    assert!(message.contains("no such folder of masks"), "{message}");
    let twice = ["--masks", "masks/lung", "--masks", "masks/heart=lung"];
    let message = fails("ingest", 1, arguments(&raw, &temporary.path().join("x"), &twice));
    assert!(message.contains("two kinds of masks have the name `lung`"), "{message}");
}
