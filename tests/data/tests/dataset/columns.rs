//! Every column of a record is written, read, verified and exported as it was.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use dataset::format::grade::GradeScale;
use dataset::format::record::{BoundingBox, ImageEncoding, NamedMask, NamedText, Reading, Record};
use dataset::transform::{Crop, Transform};
use dataset::{Dataset, Label, Loader};
use helpers::{args, fails, folder, made_record, ok, python, python_output, write_graded_dataset};

const SIDES: (u16, u16) = (16, 12);

fn scales() -> Vec<GradeScale> {
    let scale = |name: &str, values: &[&str]| GradeScale {
        name: name.to_owned(),
        values: values.iter().map(ToString::to_string).collect(),
    };
    vec![scale("HeartSize", &["normal", "borderline", "enlarged"]), scale("Congestion", &["none", "(+)", "+"])]
}

/// A 1-bit PNG of which the rows before `end` are marked.
fn mask(name: &str, end: usize) -> NamedMask {
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, SIDES.0.into(), SIDES.1.into());
    encoder.set_depth(png::BitDepth::One);
    let bits: Vec<u8> = (0..usize::from(SIDES.1)).flat_map(|row| [if row < end { 0xFF } else { 0 }; 2]).collect();
    encoder.write_header().and_then(|mut writer| writer.write_image_data(&bits)).expect("a PNG");
    NamedMask { name: name.to_owned(), png }
}

/// Records of which every third has all columns.
fn records() -> Vec<Record> {
    let text = |name: &str, token: i32| NamedText {
        name: name.to_owned(),
        text: format!("é肺 word{token}"),
        token_ids: vec![2, 1, token],
    };
    let reading = |reader: &str, label: Label| Reading { reader: reader.to_owned(), labels: vec![Some(label), None] };
    let plain =
        BoundingBox { label: "A".to_owned(), x: 1.0, y: 2.0, width: 3.0, height: 4.0, ..BoundingBox::default() };
    (0..300)
        .map(|row| match row % 3 {
            0 => Record {
                study_datetime: Some(format!("2110-03-{:02}T14:05:09", row % 28 + 1)),
                study_order: Some(row as u32),
                pixel_spacing: Some([0.139, 0.25]),
                language: Some("pt-BR".to_owned()),
                findings: Some("Text of findings".to_owned()),
                texts: vec![text("indication", 5), text("findings", 7), text("findings", 8)],
                label_origin: Some("consensus".to_owned()),
                grades: vec![Some((row % 3) as i8), Some(2)],
                readings: vec![reading("R1", Label::Positive), reading("R2", Label::Uncertain)],
                boxes: vec![
                    plain.clone(),
                    BoundingBox {
                        score: Some(0.25),
                        sentence: Some("A small one.".to_owned()),
                        reader: Some("R2".to_owned()),
                        ..plain.clone()
                    },
                ],
                masks: vec![mask("left lung", 3), mask("heart", row % 12)],
                ..made_record(row, SIDES, 2)
            },
            1 => Record { grades: vec![None, Some(0)], masks: vec![mask("heart", 5)], ..made_record(row, SIDES, 2) },
            _ => Record {
                study_datetime: Some("2110-03-07".to_owned()),
                grades: vec![None, None],
                ..made_record(row, SIDES, 2)
            },
        })
        .collect()
}

fn write(folder: &Path, records: Vec<Record>) {
    write_graded_dataset(folder, &["A", "B"], &scales(), ImageEncoding::Raw, &[records]);
}

/// Reads the shard by pyarrow.
const COLUMNS: &str = r#"
import sys
import pyarrow.parquet as parquet
rows = parquet.read_table(sys.argv[1] + "/shards/part-00000.parquet").to_pylist()
row = rows[3]
print(row["study_datetime"], row["study_order"], row["pixel_spacing"], row["language"], row["label_origin"], row["window"])
print([(t["name"], t["token_ids"]) for t in row["texts"]], row["grades"])
print([(r["reader"], r["labels"]["A"], r["labels"]["B"]) for r in row["readings"]])
print([(b["score"], b["sentence"], b["reader"]) for b in row["boxes"]], [m["name"] for m in row["masks"]])
print(sum(len(row["masks"]) for row in rows), rows[2]["grades"], rows[2]["pixel_spacing"])
"#;

#[test]
fn every_column_is_read_as_it_was_written() {
    let temporary = folder();
    let out = temporary.path().join("set");
    let written = records();
    write(&out, written.clone());
    let dataset = Arc::new(Dataset::open(&out).expect("a dataset"));
    assert_eq!(dataset.manifest().masks, ["left lung", "heart"]);
    for (row, expected) in written.iter().enumerate() {
        assert_eq!(&dataset.record(row).expect("a record"), expected);
    }
    assert!(ok("dataset", args!["verify", &out]).contains("300 records, all whole"));
    let printed = python_output(python().args(["-c", COLUMNS]).arg(&out));
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        [
            "2110-03-04T14:05:09 3 {'row': 0.13899999856948853, 'column': 0.25} pt-BR consensus None",
            "[('indication', [2, 1, 5]), ('findings', [2, 1, 7]), ('findings', [2, 1, 8])] {'HeartSize': 0, 'Congestion': 2}",
            "[('R1', 1, None), ('R2', -1, None)]",
            "[(None, None, None), (0.25, 'A small one.', 'R2')] ['left lung', 'heart']",
            "300 {'HeartSize': None, 'Congestion': None} None",
        ]
    );
    let page = ok("dataset", args!["inspect", &out]);
    for line in [
        "language  not stated 200, pt-BR 100",
        "studies   200 records with a date or an order in time",
        "sections  findings 200, indication 100",
        "readers   R1 100, R2 100",
        "masks     named left lung, heart",
        "grade     HeartSize: normal 100",
        "grade     Congestion: none 100, + 100",
    ] {
        assert!(page.contains(line), "{line}\n{page}");
    }
    let page = ok("dataset", args!["inspect", &out, "--row", "made/00003"]);
    for words in ["0.139 × 0.25 mm", "pt-BR", "score 0.25, reader R2: A small one.", "R2: A=-1", "Congestion: +"] {
        assert!(page.contains(words), "{words}\n{page}");
    }
    let frame = dataset.metadata().expect("a table");
    let named: BTreeSet<&str> = frame.get_column_names().iter().map(|name| name.as_str()).collect();
    assert!(named.is_superset(&["texts", "grades", "readings", "study_order", "has_mask"].into()), "{named:?}");
    assert_eq!(frame.column("has_mask").expect("a column").bool().expect("flags").sum(), Some(200));
}

#[test]
fn a_loader_takes_the_mask_of_a_name() {
    let temporary = folder();
    let out = temporary.path().join("set");
    write(&out, records());
    let dataset = Arc::new(Dataset::open(&out).expect("a dataset"));
    let transform = Transform { crop: Crop::Stretch, ..Transform::evaluate(12) };
    let builder = Loader::builder(&dataset).masks(true).shuffle(false).batch_size(6).transform(transform);
    // Marked rows of each record of the first batch; `None` where the record has no such mask.
    let marked = |builder: dataset::loader::LoaderBuilder| -> Vec<Option<usize>> {
        let batch = builder.build().expect("a loader").next_batch().expect("a batch");
        let rows = |mask: &[u8]| (mask[0] != 255).then(|| mask.chunks(12).filter(|row| row[5] == 1).count());
        batch.masks().chunks(144).map(rows).collect()
    };
    assert_eq!(marked(builder.clone()), [Some(3), Some(5), None, Some(3), Some(5), None], "the first of each record");
    assert_eq!(marked(builder.clone().mask_name("heart")), [Some(0), Some(5), None, Some(3), Some(5), None]);
    assert_eq!(marked(builder.clone().mask_name("left lung")), [Some(3), None, None, Some(3), None, None]);
    let refused = builder.mask_name("hart").build().err().expect("refused").to_string();
    assert!(refused.contains("no masks `hart`; did you mean `heart`?"), "{refused}");
}

/// What is wrong, and how a record gets it.
type Change = (&'static str, fn(&mut Record));

#[test]
fn verify_names_invalid_values() {
    let temporary = folder();
    let check = |at: usize, change: &dyn Fn(&mut Record), words: &str| {
        let out = temporary.path().join(at.to_string());
        let mut all = records();
        all.truncate(6);
        change(&mut all[3]);
        write(&out, all);
        let printed = fails("dataset", 1, args!["verify", &out]);
        assert!(printed.contains(&format!("shards/part-00000.parquet, row 3: {words}")), "{words}\n{printed}");
    };
    let changes: [Change; 11] = [
        ("study_datetime \"2110-3-7\"", |record| record.study_datetime = Some("2110-3-7".to_owned())),
        ("a pixel spacing of 0 and 1 mm", |record| record.pixel_spacing = Some([0.0, 1.0])),
        ("language \"English text\"", |record| record.language = Some("English text".to_owned())),
        ("a name in `texts` is empty", |record| record.texts[1].name = " ".to_owned()),
        ("token id 100, but the vocabulary has 100 pieces", |record| record.texts[2].token_ids[1] = 100),
        ("101 token ids", |record| record.texts[0].token_ids = vec![5; 101]),
        ("grade 3 of `HeartSize`, which has 3 values", |record| record.grades[0] = Some(3)),
        ("a name in `readings` is empty", |record| record.readings[0].reader.clear()),
        ("a box with the score NaN", |record| record.boxes[1].score = Some(f32::NAN)),
        ("two masks `heart`", |record| record.masks[0].name = "heart".to_owned()),
        ("its mask is not a 1-bit gray PNG", |record| record.masks[1].png = vec![1; 50]),
    ];
    for (at, (words, change)) in changes.into_iter().enumerate() {
        check(at, &change, words);
    }
    // A mask that the manifest does not name.
    let out = temporary.path().join("unnamed");
    write(&out, records());
    let storage = dataset::Storage::folder(&out);
    let mut manifest = dataset::format::manifest::Manifest::load(&storage).expect("a manifest");
    manifest.masks.pop();
    manifest.save(&storage).expect("saved");
    let printed = fails("dataset", 1, args!["verify", &out]);
    assert!(printed.contains("rows 0 to 1: a mask `heart`, which is none of the manifest's: left lung"), "{printed}");
    manifest.grades.pop();
    manifest.save(&storage).expect("saved");
    let printed = fails("dataset", 1, args!["verify", &out]);
    assert!(printed.contains("other grades than the manifest's"), "{printed}");
}

/// Reads the three exports of the first records, and compares their columns with those of the shard.
const EXPORTS: &str = r#"
import csv, glob, io, json, sys, tarfile
import datasets, numpy, PIL.Image, pyarrow.parquet
root, tars, table, hugging_face = sys.argv[1:5]
rows = pyarrow.parquet.read_table(root + "/shards/part-00000.parquet").to_pylist()
names = ["left lung", "heart"]
masks = lambda row: {mask["name"]: mask["png"] for mask in row["masks"]}
boxes = lambda boxes: [{k: v for k, v in box.items() if v is not None} for box in boxes]

with tarfile.open(tars + "/part-00000.tar") as tar:
    members = {member.name: tar.extractfile(member).read() for member in tar}
for row in rows:
    key = row["record_id"].replace("/", "_")
    found = json.loads(members[key + ".json"])
    for name in ["study_datetime", "study_order", "language", "label_origin", "texts", "grades", "readings", "window"]:
        assert found[name] == row[name], (name, found[name], row[name])
    spacing = row["pixel_spacing"]
    assert (found["pixel_spacing"] is None) == (spacing is None)
    assert spacing is None or numpy.allclose(found["pixel_spacing"], [spacing["row"], spacing["column"]], rtol=1e-7)
    assert found["boxes"] == boxes(row["boxes"])
    for name in names:
        assert members.get(f"{key}.mask.{name.replace(' ', '_')}.png") == masks(row).get(name)

with open(table + "/metadata.csv", newline="") as file:
    listed = list(csv.DictReader(file))
for row, found in zip(rows, listed, strict=True):
    empty = lambda value: "" if value is None else str(value)
    for name in ["study_datetime", "study_order", "language", "label_origin"]:
        assert found[name] == empty(row[name])
    for name, grade in row["grades"].items():
        assert found["grade_" + name] == empty(grade)
    assert json.loads(found["texts"]) == row["texts"] and json.loads(found["readings"]) == row["readings"]
    assert json.loads(found["boxes"]) == boxes(row["boxes"])
    assert found["pixel_spacing_row"] == ("0.139" if row["pixel_spacing"] else "")
    for name in names:
        path = found[f"mask_{name}_file_name"]
        assert (open(f"{table}/{path}", "rb").read() if path else None) == masks(row).get(name)

data = datasets.load_dataset(hugging_face, split="train")
for row, found in zip(rows, data, strict=True):
    for name in ["study_datetime", "study_order", "language", "label_origin", "texts", "grades", "readings", "boxes"]:
        assert found[name] == row[name], (name, found[name], row[name])
    assert found["pixel_spacing"] == row["pixel_spacing"] or list(found["pixel_spacing"].values()) == [None, None]
    for name in names:
        image, png = found["mask_" + name], masks(row).get(name)
        assert (image is None) == (png is None)
        if png:
            assert (numpy.asarray(image.convert("L")) == numpy.asarray(PIL.Image.open(io.BytesIO(png)).convert("L"))).all()
own = datasets.load_dataset(root, split="train")
for row, found in zip(rows, own, strict=True):
    assert [mask["name"] for mask in found["masks"]] == list(masks(row))
    for mask in found["masks"]:
        png = PIL.Image.open(io.BytesIO(masks(row)[mask["name"]]))
        assert (numpy.asarray(mask["png"].convert("L")) == numpy.asarray(png.convert("L"))).all()
print("equal")
"#;

#[test]
fn exports_have_every_column() {
    let temporary = folder();
    let path = |name: &str| temporary.path().join(name);
    let out = path("set");
    let mut some = records();
    some.truncate(7);
    write(&out, some);
    // Hugging Face reads the card of a dataset.
    let manifest = dataset::format::manifest::Manifest::load(&dataset::Storage::folder(&out)).expect("a manifest");
    dataset::format::card::write(&dataset::Storage::folder(&out), &manifest).expect("a card");
    for format in ["webdataset", "csv", "hf"] {
        ok("dataset", args!["export", &out, path(format), "--to", format]);
    }
    let mut command = python();
    command.args(["-c", EXPORTS]).arg(&out).args([path("webdataset"), path("csv"), path("hf")]);
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", path("cache"));
    assert_eq!(python_output(&mut command).trim_end(), "equal");
}
