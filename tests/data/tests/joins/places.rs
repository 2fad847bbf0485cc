//! Masks and boxes: places in the raw image become places in the stored one, as a naive computation has them.

use std::path::Path;

use dataset::format::image_codec::{GrayPixels, decode};
use dataset::format::record::{BoundingBox, ImageEncoding, Record};
use dataset::transform::Transform;
use dataset::transform::geometry::IGNORED;
use dataset::{Dataset, Loader};
use helpers::{args, fails, folder, ingest, ok, phantom, records, write_file};

use crate::shared::{joined, joining, mimic, table};

/// The columns of CheXmask's tables.
const CHEXMASK: &str = "dicom_id,Dice RCA (Mean),Dice RCA (Max),Landmarks,Left Lung,Right Lung,Heart,Height,Width";
const NAMES: [&str; 3] = ["left lung", "right lung", "heart"];

/// A region of an image of some width and height: left, upper, right and lower edge.
fn region(row: usize, mask: usize, (width, height): (u32, u32)) -> [u32; 4] {
    let (left, top) = (width * (1 + mask as u32 * 2) / 8, height * (1 + (row as u32 % 3)) / 8);
    [left, top, left + width / 5, top + height / 3]
}

/// Run lengths along the rows, counted from 1.
fn runs([left, top, right, bottom]: [u32; 4], width: u32) -> String {
    let run = |y: u32| format!("{} {}", y * width + left + 1, right - left);
    (top..bottom).map(run).collect::<Vec<_>>().join(" ")
}

/// The stored pixels that a region of the raw image covers by at least half.
fn covered([left, top, right, bottom]: [u32; 4], raw: (u32, u32), stored: (u32, u32)) -> Vec<bool> {
    let overlap = |at: u32, raw: u32, stored: u32, from: u32, to: u32| {
        let (start, end) = (u64::from(at) * u64::from(raw), u64::from(at + 1) * u64::from(raw));
        let (from, to) = (u64::from(from) * u64::from(stored), u64::from(to) * u64::from(stored));
        end.min(to).saturating_sub(start.max(from))
    };
    let pixel = |at: u32| {
        let (x, y) = (at % stored.0, at / stored.0);
        let area = overlap(x, raw.0, stored.0, left, right) * overlap(y, raw.1, stored.1, top, bottom);
        2 * area >= u64::from(raw.0) * u64::from(raw.1)
    };
    (0..stored.0 * stored.1).map(pixel).collect()
}

fn sizes(record: &Record) -> ((u32, u32), (u32, u32)) {
    ((record.source_width, record.source_height), (record.width.into(), record.height.into()))
}

fn marked(png: &[u8]) -> Vec<bool> {
    decode(png).expect("a PNG").pixels.iter().map(|level| *level > 0).collect()
}

/// The rows of a table of CheXmask: the mask of each third record is of low quality, that of row 1 is of a copy of twice the
/// size, and row 2 has no heart.
fn chexmask_rows(all: &[Record]) -> Vec<String> {
    let of = |(row, record): (usize, &Record)| {
        let ((width, height), _) = sizes(record);
        let scale = if row == 1 { 2 } else { 1 };
        let cell = |mask: usize| {
            let region = region(row, mask, (width, height)).map(|edge| edge * scale);
            if row == 2 && mask == 2 { String::new() } else { runs(region, width * scale) }
        };
        let quality = if row % 3 == 0 { 0.69 } else { 0.7 };
        let cells = [cell(0), cell(1), cell(2)].join(",");
        format!("{},{quality},0.9,\"1,2,3\",{cells},{},{}", record.image_id, height * scale, width * scale)
    };
    all.iter().enumerate().map(of).collect()
}

const CHEXMASK_WORDS: [&str; 16] = [
    "--key",
    "dicom_id",
    "--as",
    "masks",
    "--name",
    "chexmask",
    "--mask-columns",
    "left lung=Left Lung,right lung=Right Lung,heart=Heart",
    "--mask-runs",
    "absolute",
    "--mask-order",
    "rows",
    "--size-columns",
    "Height,Width",
    "--min",
    "Dice RCA (Mean)=0.7",
];

#[test]
fn run_lengths_of_chexmask_become_masks() {
    let temporary = folder();
    let data = mimic(temporary.path());
    let all = records(&data);
    let path = table(temporary.path(), "MIMIC-CXR-JPG.csv", CHEXMASK, chexmask_rows(&all));
    let printed = ok("ingest", joining(&data, &path, &CHEXMASK_WORDS));
    let left_out = all.len().div_ceil(3);
    assert!(printed.contains(&format!("{left_out} have a value that is too small\n")), "{printed}");
    assert!(printed.contains(&format!("{} records with masks", all.len() - left_out)), "{printed}");
    assert!(ok("dataset", args!["verify", &data]).contains("all whole"));

    let seen = joined(&data, &["chexmask"]);
    assert_eq!(seen.mask_names(), NAMES);
    for (row, record) in all.iter().enumerate() {
        let masks = seen.record(row).expect("a record").masks;
        let (raw, stored) = sizes(record);
        let expected: Vec<(&str, Vec<bool>)> = (0..3)
            .filter(|mask| row % 3 != 0 && !(row == 2 && *mask == 2))
            .map(|mask| (NAMES[mask], covered(region(row, mask, raw), raw, stored)))
            .collect();
        let found: Vec<(&str, Vec<bool>)> = masks.iter().map(|mask| (mask.name.as_str(), marked(&mask.png))).collect();
        assert!(found == expected, "row {row}");
        assert!(expected.iter().all(|(_, mask)| mask.contains(&true)));
    }
    // Columns of one name are united, where a record has all of them.
    let mut words = CHEXMASK_WORDS;
    (words[5], words[7]) = ("both", "lungs=Left Lung,lungs=Right Lung,both=Left Lung,both=Heart");
    ok("ingest", joining(&data, &path, &words));
    let both = joined(&data, &["both"]);
    let (raw, stored) = sizes(&all[1]);
    let [left, right] = [0, 1].map(|mask| covered(region(1, mask, raw), raw, stored));
    let lungs: Vec<bool> = left.iter().zip(right).map(|(left, right)| *left || right).collect();
    assert_eq!(both.mask_names(), ["lungs", "both"]);
    assert!(marked(&both.record(1).expect("a record").masks[0].png) == lungs);
    assert_eq!(both.record(2).expect("a record").masks.len(), 1, "no heart");
    // The loader gives the mask of a name; a record without one is ignored.
    let transform = Transform::evaluate(32);
    let builder = Loader::builder(&std::sync::Arc::new(Dataset::open(&data).expect("a dataset")));
    let builder = builder.join("chexmask").expect("a join").masks(true).mask_name("heart").shuffle(false);
    let mut loader = builder.transform(transform).batch_size(all.len()).threads(1).build().expect("a loader");
    let batch = loader.next_batch().expect("a batch");
    for (row, mask) in batch.masks().chunks_exact(32 * 32).enumerate() {
        let has_heart = row % 3 != 0 && row != 2;
        assert_eq!(mask.iter().all(|class| *class == IGNORED), !has_heart, "row {row}");
        assert_eq!(mask.contains(&1), has_heart, "row {row}");
    }
}

#[test]
fn masks_of_another_shape_and_broken_ones_are_named() {
    let temporary = folder();
    let data = mimic(temporary.path());
    let all = records(&data);
    let mut rows = chexmask_rows(&all);
    let id = |row: usize| all[row].image_id.clone();
    // Another shape, as that of the padded squares in the folder Preprocessed; a run that ends behind the image; words.
    let ((width, height), _) = sizes(&all[1]);
    rows[1] = format!("{},0.9,0.9,,1 2,1 2,1 2,{},{width}", id(1), height * 2);
    rows[4] = format!("{},0.9,0.9,,1 999999999,,,{},{}", id(4), all[4].source_height, all[4].source_width);
    rows[5] = format!("{},0.9,0.9,,1 2 3,,,{},{}", id(5), all[5].source_height, all[5].source_width);
    rows[7] = format!("{},high,0.9,,1 2,,,{},{}", id(7), all[7].source_height, all[7].source_width);
    rows[8] = format!("{},0.9,0.9,,1 2,,,tall,{}", id(8), all[8].source_width);
    let path = table(temporary.path(), "masks.csv", CHEXMASK, rows);
    let message = fails("ingest", 1, joining(&data, &path, &CHEXMASK_WORDS));
    for words in [
        "join `chexmask`: 5 rows cannot be read",
        "--skip-unreadable",
        "line 3: it is about an image of ",
        "which is another shape",
        "line 6: column `Left Lung`: the mask reaches pixel",
        "line 7: column `Left Lung`: 3 numbers make no pairs",
        "line 9: column `Dice RCA (Mean)`: `high` is no number",
        "line 10: column `Height`: `tall` is no size in pixels",
    ] {
        assert!(message.contains(words), "{words} in {message}");
    }
    assert!(!data.join("joins").exists(), "nothing is written");
    let printed = ok("ingest", joining(&data, &path, &[&CHEXMASK_WORDS[..], &["--skip-unreadable"]].concat()));
    assert!(printed.contains("5 cannot be read and are left out ("), "{printed}");
    let seen = joined(&data, &["chexmask"]);
    let has_masks = |row: usize| !seen.record(row).expect("a record").masks.is_empty();
    assert_eq!([1, 2, 4, 5, 7, 8, 10].map(has_masks), [false, true, false, false, false, false, true]);
}

#[test]
fn files_and_other_run_lengths_are_masks_too() {
    let temporary = folder();
    let data = mimic(temporary.path());
    let all = records(&data);
    let folder = temporary.path().join("masks");
    let mask = |row: usize| region(row, 1, sizes(&all[row]).0);
    let write = |row: usize, path: &Path| {
        let ((width, height), _) = sizes(&all[row]);
        let [left, top, right, bottom] = mask(row);
        let inside = |at: u32| (left..right).contains(&(at % width)) && (top..bottom).contains(&(at / width));
        let pixels = (0..width * height).map(|at| if inside(at) { 255 } else { 0 }).collect();
        write_file(path, GrayPixels { width, height, pixels }.encode(ImageEncoding::Png).expect("a PNG"));
    };
    write(0, &folder.join("a/0.png"));
    // Down the columns, counted from 0.
    let ((_, height), _) = sizes(&all[1]);
    let [left, top, right, bottom] = mask(1);
    let columns: Vec<String> = (left..right).map(|x| format!("{} {}", x * height + top, bottom - top)).collect();
    let rows = [
        format!("{},a/0.png", all[0].image_id),
        format!("{},{}", all[1].image_id, columns.join(" ")),
        format!("{},-1", all[2].image_id),
    ];
    let path = table(temporary.path(), "masks.csv", "id,mask", rows);
    let words = ["--key", "id", "--as", "masks", "--mask-columns", "lung=mask", "--mask-runs", "from-zero"];
    let missing = fails("ingest", 1, joining(&data, &path, &words));
    assert!(missing.contains("line 2: column `mask`: the file of the mask, `a/0.png`: No such file"), "{missing}");
    let folder = folder.display().to_string();
    ok("ingest", joining(&data, &path, &[&words[..], &["--mask-folder", &folder]].concat()));
    let seen = joined(&data, &["masks"]);
    for (row, record) in all.iter().enumerate().take(3) {
        let (raw, stored) = sizes(record);
        let expected =
            if row == 2 { vec![false; (stored.0 * stored.1) as usize] } else { covered(mask(row), raw, stored) };
        assert!(marked(&seen.record(row).expect("a record").masks[0].png) == expected, "row {row}");
    }
}

/// The columns of MS-CXR.
const MS_CXR: &str = "dicom_id,category_name,label_text,path,x,y,w,h,image_width,image_height,split";

/// A box as a naive computation has it.
fn placed(raw: [f64; 4], scale: (f64, f64), offset: (f64, f64)) -> [f32; 4] {
    [raw[0] * scale.0 + offset.0, raw[1] * scale.1 + offset.1, raw[2] * scale.0, raw[3] * scale.1]
        .map(|edge| edge as f32)
}

fn edges(b: &BoundingBox) -> [f32; 4] {
    [b.x, b.y, b.width, b.height]
}

#[test]
fn phrases_of_ms_cxr_have_boxes_in_stored_pixels() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 12);
    for resize in ["shorter", "pad"] {
        let data = temporary.path().join(resize);
        ingest("mimic-cxr", &raw, &data, &["--resize", resize]);
        let all = records(&data);
        let boxes = [[3.0, 5.0, 30.0, 20.0], [10.0, 12.0, 7.0, 9.0]];
        let row = |record: &Record, [x, y, w, h]: [f64; 4], text: &str| {
            let (id, size) = (&record.image_id, (record.source_width, record.source_height));
            format!("{id},Pneumonia,\"{text}\",files/{id}.jpg,{x},{y},{w},{h},{},{},train", size.0, size.1)
        };
        let mut rows = vec![row(&all[1], boxes[0], "right, basal"), row(&all[1], boxes[1], "left apex")];
        rows.push(rows[0].clone());
        rows.push(row(&all[2], boxes[1], "a nodule"));
        // A row without numbers says that there is no box.
        rows.push(format!("{},Pneumonia,,x,,,,,9,9,val", all[3].image_id));
        let path = table(temporary.path(), "MS_CXR_Local_Alignment_v1.1.0.csv", MS_CXR, rows);
        let words = ["--key", "dicom_id", "--as", "boxes", "--name", "ms-cxr", "--box-columns", "x,y,w,h"];
        let more = ["--box-label", "category_name", "--sentence", "label_text"];
        let printed = ok("ingest", joining(&data, &path, &[&words[..], &more[..]].concat()));
        assert!(printed.contains("5: 5 are about records\n") && printed.contains("3 records with boxes"), "{printed}");
        assert!(ok("dataset", args!["verify", &data]).contains("all whole"));

        let seen = joined(&data, &["ms-cxr"]);
        let geometry = |record: &Record| {
            let (raw, stored) = sizes(record);
            if resize == "shorter" {
                return ((f64::from(stored.0) / f64::from(raw.0), f64::from(stored.1) / f64::from(raw.1)), (0.0, 0.0));
            }
            // The longer side has 64 pixels; the other one is centered.
            let longer = f64::from(raw.0.max(raw.1));
            let inner = [raw.0, raw.1].map(|side| (f64::from(side) * 64.0 / longer).round());
            let border = inner.map(|side| ((64.0 - side) / 2.0).floor());
            ((inner[0] / f64::from(raw.0), inner[1] / f64::from(raw.1)), (border[0], border[1]))
        };
        let (scale, offset) = geometry(&all[1]);
        let found = seen.record(1).expect("a record").boxes;
        let expected = boxes.map(|numbers| placed(numbers, scale, offset));
        assert_eq!(found.iter().map(edges).collect::<Vec<_>>(), expected, "equal rows count once");
        let said: Vec<_> = found.iter().map(|b| (b.label.as_str(), b.sentence.as_deref(), b.score)).collect();
        assert_eq!(said, [("Pneumonia", Some("right, basal"), None), ("Pneumonia", Some("left apex"), None)]);
        assert_eq!(seen.record(2).expect("a record").boxes.len(), 1);
        assert!([0, 3].iter().all(|row| seen.record(*row).expect("a record").boxes.is_empty()));
        let loader = Loader::builder(&std::sync::Arc::new(Dataset::open(&data).expect("a dataset")));
        let loader =
            loader.join("ms-cxr").expect("a join").boxes(true).shuffle(false).transform(Transform::evaluate(64));
        let batch = loader.batch_size(4).threads(1).build().expect("a loader").next_batch().expect("a batch");
        assert_eq!(batch.boxes().iter().map(|b| b.record).collect::<Vec<_>>(), [1, 1, 2]);

        // Corners, shares and stored pixels; a box outside of its image.
        let (width, height) = (f64::from(all[4].source_width), f64::from(all[4].source_height));
        let (scale, offset) = geometry(&all[4]);
        for (name, unit, row, expected) in [
            ("corners", "pixels", "8,4,20,30".to_owned(), placed([8.0, 4.0, 12.0, 26.0], scale, offset)),
            (
                "shares",
                "shares",
                "0.25,0.5,0.75,1".to_owned(),
                placed([0.25 * width, 0.5 * height, 0.5 * width, 0.5 * height], scale, offset),
            ),
            ("stored", "stored", "1,2,11,22".to_owned(), [1.0, 2.0, 10.0, 20.0]),
        ] {
            let path = table(
                temporary.path(),
                &format!("{name}.csv"),
                "id,what,a,b,c,d",
                [format!("{},x,{row}", all[4].image_id)],
            );
            let words = ["--key", "id", "--as", "boxes", "--box-columns", "a,b,c,d", "--box-label", "what"];
            let more = ["--box-form", "corners", "--box-unit", unit];
            ok("ingest", joining(&data, &path, &[&words[..], &more[..]].concat()));
            let found = joined(&data, &[name]).record(4).expect("a record").boxes;
            assert!(
                edges(&found[0]).iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4),
                "{name}: {found:?}, {expected:?}"
            );
        }
        let path =
            table(temporary.path(), "outside.csv", "id,what,a,b,c,d", [format!("{},x,1,1,9999,5", all[4].image_id)]);
        let words = ["--key", "id", "--as", "boxes", "--box-columns", "a,b,c,d", "--box-label", "what"];
        let message = fails("ingest", 1, joining(&data, &path, &words));
        assert!(message.contains("line 2: a box at") && message.contains("not inside its image"), "{message}");
    }
}

#[test]
fn rows_of_one_record_may_be_far_apart() {
    let temporary = folder();
    let data = mimic(temporary.path());
    let record = records(&data).remove(0);
    // The table is read in blocks of 4,096 rows.
    let row = |row: usize| {
        let is_first = row.is_multiple_of(4500);
        let id = if is_first { record.image_id.clone() } else { format!("nobody-{row}") };
        format!("{id},x,{},1,5,5", 2 + row / 4500)
    };
    let mut rows: Vec<String> = (0..9001).map(row).collect();
    rows[8000] = "nobody".to_owned();
    let path = table(temporary.path(), "far.csv", "id,what,a,b,c,d", rows);
    let words = ["--key", "id", "--as", "boxes", "--box-columns", "a,b,c,d", "--box-label", "what"];
    let message = fails("ingest", 1, joining(&data, &path, &words));
    assert!(
        message.contains("1 rows cannot be read") && message.contains("line 8002: 1 fields, the header has 6"),
        "{message}"
    );
    let printed = ok("ingest", joining(&data, &path, &[&words[..], &["--skip-unreadable"]].concat()));
    assert!(printed.contains("9001: 3 are about records\n") && printed.contains("1 record with boxes"), "{printed}");
    let found = joined(&data, &["far"]).record(0).expect("a record").boxes;
    let scale = f64::from(record.width) / f64::from(record.source_width);
    let expected = [2.0, 3.0, 4.0].map(|x| (x * scale) as f32);
    assert_eq!(found.iter().map(|b| b.x).collect::<Vec<_>>(), expected);
}

#[test]
fn a_dataset_without_images_has_no_places() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 6);
    let data = temporary.path().join("texts");
    ingest("mimic-cxr", &raw, &data, &["--no-images"]);
    let id = records(&data)[0].image_id.clone();
    let path = table(temporary.path(), "boxes.csv", "id,what,a,b,c,d", [format!("{id},x,1,1,5,5")]);
    let words = ["--key", "id", "--as", "boxes", "--box-columns", "a,b,c,d", "--box-label", "what"];
    let message = fails("ingest", 1, joining(&data, &path, &words));
    assert!(message.contains("the record has no image"), "{message}");
}
