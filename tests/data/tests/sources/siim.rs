//! The source `siim`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;

use dataset::format::record::Record;
use helpers::{args, fails, files_with, folder, ingest, ok, phantom_of, real_data, records, rejects};
use ingest::image::mask::Runs;

use crate::shared::{no_images, says, table};

/// The PNG of the mask, which has the name of the finding.
fn png(record: &Record) -> Option<&[u8]> {
    let mask = record.masks.first()?;
    assert_eq!((mask.name.as_str(), record.masks.len()), ("pneumothorax", 1));
    Some(&mask.png)
}

#[test]
fn masks_are_read() {
    let temporary = folder();
    let raw = phantom_of("siim", temporary.path(), 80);
    let (header, rows) = table(&raw.join("train-rle.csv"));
    assert_eq!(header, ["ImageId", " EncodedPixels"]);
    let table: BTreeMap<&str, &str> = rows.iter().map(|row| (row[0].as_str(), row[1].as_str())).collect();
    let out = temporary.path().join("set");
    ingest("siim", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    let all = records(&out);
    assert_eq!(all.len(), 80);
    let (mut marked, mut unlabeled) = (0, 0);
    for record in &all {
        let parts: Vec<&str> = record.source_path.split('/').collect();
        assert_eq!(parts.len(), 4);
        assert_eq!((record.patient_id.as_str(), record.study_id.as_str()), (parts[1], parts[1]));
        assert_eq!(record.source_path, format!("{}/{}/{}/{}.dcm", parts[0], parts[1], parts[2], record.image_id));
        assert!(record.view.is_some() && record.sex.is_some() && record.age_years.is_some());
        let Some(text) = table.get(record.image_id.as_str()) else {
            assert_eq!((parts[0], record.subset.as_deref()), ("dicom-images-test", Some("test")));
            assert_eq!((record.labels.as_slice(), record.masks.len()), ([None].as_slice(), 0));
            unlabeled += 1;
            continue;
        };
        let bytes = png(record).expect("a mask");
        assert_eq!((bytes[24], bytes[25]), (1, 0), "one bit of gray");
        let mask = dataset::format::image_codec::decode(bytes).expect("a PNG");
        assert_eq!((mask.width, mask.height), (record.width.into(), record.height.into()));
        let positive = *text != "-1";
        assert_eq!(helpers::label_codes(record), [Some(i8::from(positive))]);
        // The mask decoded here: area and center agree with the stored one.
        let raw_mask =
            Runs::parse(text).expect("runs").draw(record.source_width, record.source_height).expect("a mask");
        let moments = |pixels: &[u8], width: u32, height: u32| {
            let at: Vec<usize> = (0..pixels.len()).filter(|&i| pixels[i] > 0).collect();
            let mean = |of: &dyn Fn(usize) -> f64| at.iter().map(|&i| of(i)).sum::<f64>() / at.len().max(1) as f64;
            let x = mean(&|i| ((i % width as usize) as f64 + 0.5) / f64::from(width));
            let y = mean(&|i| ((i / width as usize) as f64 + 0.5) / f64::from(height));
            (at.len() as f64 / pixels.len() as f64, x, y)
        };
        let small = moments(&mask.pixels, mask.width, mask.height);
        let large = moments(&raw_mask, record.source_width, record.source_height);
        if large.0 > 0.01 {
            assert!((small.0 / large.0 - 1.0).abs() < 0.15, "{small:?} {large:?}");
            assert!((small.1 - large.1).abs() < 0.02 && (small.2 - large.2).abs() < 0.02, "{small:?} {large:?}");
            marked += 1;
        }
        assert!(positive || small.0 == 0.0);
    }
    assert!(marked >= 3 && unlabeled >= 5, "{marked} {unlabeled}");

    // Padded and stretched images have masks of the same share of the body.
    for (fit, size) in [("pad", 64), ("stretch", 64)] {
        let out = temporary.path().join(fit);
        ingest("siim", &raw, &out, &["--resize", fit]);
        for (record, before) in records(&out).iter().zip(&all) {
            let Some(mask) = png(record) else { continue };
            let mask = dataset::format::image_codec::decode(mask).expect("a PNG");
            assert_eq!((mask.width, mask.height), (size, size));
            let count = |mask: &dataset::format::image_codec::GrayPixels| {
                mask.pixels.iter().filter(|pixel| **pixel > 0).count() as f64
            };
            let old = dataset::format::image_codec::decode(png(before).expect("a mask")).expect("a PNG");
            let (old_area, area) =
                (count(&old) / f64::from(old.width * old.height), count(&mask) / f64::from(size * size));
            let (width, height) = (f64::from(record.source_width), f64::from(record.source_height));
            let body = if fit == "pad" { width.min(height) / width.max(height) } else { 1.0 };
            assert!((area / body - old_area).abs() < 0.01 + 0.1 * old_area, "{fit}: {area} of {body}, {old_area}");
        }
    }

    fs::remove_dir_all(raw.join("dicom-images-train")).expect("removed");
    fs::remove_dir_all(raw.join("dicom-images-test")).expect("removed");
    no_images("siim", &raw, &temporary.path().join("bare"), &[]);
    let bare = records(&temporary.path().join("bare"));
    assert_eq!(bare.len(), table.len());
    assert!(bare.iter().all(|record| record.labels[0].is_some() && record.masks.is_empty()));
}

#[test]
fn faults_are_rejects() {
    let temporary = folder();
    let raw = phantom_of("siim", temporary.path(), 40);
    let path = raw.join("train-rle.csv");
    let (_, rows) = table(&path);
    let negative: Vec<&str> = rows.iter().filter(|row| row[1] == "-1").map(|row| row[0].as_str()).collect();
    let positive = rows.iter().find(|row| row[1] != "-1").expect("a positive one");
    let file = |id: &str| files_with(&raw, &format!("{id}.dcm")).into_iter().next().expect("a file");
    // The mask of the first pixel column, in two rows; and repeated rows.
    let changed: String = rows
        .iter()
        .map(|row| match row[0].as_str() {
            id if id == negative[0] => format!("{id},0 20\n{id},20 20\n{id},20 20\n"),
            id if id == negative[1] => format!("{id}, -1\n{id}, -1\n"),
            id if id == negative[2] => format!("{id},-1\n{id},4 5\n"),
            id if id == negative[3] => format!("{id},4 5 6\n"),
            id if id == negative[4] => format!("{id},100000 5\n"),
            id if id == negative[5] => String::new(),
            id if id == negative[6] => format!("{id},\n"),
            id => format!("{id},{}\n", row[1]),
        })
        .collect();
    fs::write(&path, format!("ImageId, EncodedPixels\n{changed}gone,-1\n,1 2\na,b,c\n")).expect("written");
    let out = temporary.path().join("set");
    ok("ingest", args!["siim", &raw, &out, "--size", "512", "--max-reject-rate", "1"]);
    says(&out, &file(negative[2]), "table", "an empty mask beside another row");
    says(&out, &file(negative[3]), "table", "3 numbers make no pairs");
    says(&out, &file(negative[4]), "decode", "the mask reaches pixel 100005, the image has");
    says(&out, &file(negative[5]), "plan", "no table lists this file, so it has no record");
    says(&out, &file(negative[6]), "table", "the run lengths are empty");
    says(&out, "dicom-images-train/gone.dcm", "read", "the file is missing");
    says(&out, "train-rle.csv", "table", "ImageId is empty");
    says(&out, "train-rle.csv", "table", "3 fields, the header has 2");
    assert_eq!(rejects(&out).len(), 8);
    let records = records(&out);
    assert_eq!(records.len(), 40 - 5);
    let record = |id: &str| records.iter().find(|record| record.image_id == id).expect("a record");
    // Images are smaller than 512, so images and masks are stored in their own size.
    let mask = |id: &str| dataset::format::image_codec::decode(png(record(id)).expect("a mask")).expect("a PNG");
    let united = mask(negative[0]);
    let marked: BTreeSet<(u32, u32)> = (0..united.width * united.height)
        .filter(|&i| united.pixels[i as usize] > 0)
        .map(|i| (i % united.width, i / united.width))
        .collect();
    assert_eq!(marked, (0..40).map(|row| (0, row)).collect(), "both rows, down the first column");
    assert!(mask(negative[1]).pixels.iter().all(|pixel| *pixel == 0));
    let drawn = Runs::parse(&positive[1]).expect("runs");
    let same = mask(&positive[0]);
    let drawn = drawn.draw(same.width, same.height).expect("a mask");
    assert!(drawn.iter().zip(&same.pixels).all(|(a, b)| (*a == 1) == (*b == 255)));

    fs::rename(&path, raw.join("my-train-rle-a.csv")).expect("renamed");
    fs::copy(raw.join("my-train-rle-a.csv"), raw.join("my-train-rle-b.csv")).expect("copied");
    let message = fails("ingest", 1, args!["siim", &raw, temporary.path().join("x")]);
    assert!(message.contains("there are several"), "{message}");
    fs::remove_file(raw.join("my-train-rle-b.csv")).expect("removed");
    ok("ingest", args!["siim", &raw, temporary.path().join("x"), "--dry-run"]);
    fs::rename(raw.join("my-train-rle-a.csv"), raw.join("stage_2_train.csv")).expect("renamed");
    ok("ingest", args!["siim", &raw, temporary.path().join("x"), "--dry-run"]);
}

#[test]
fn the_real_table_and_radiograph_are_ingested() {
    let Some(data) = real_data() else { return };
    let temporary = folder();
    let raw = temporary.path().join("raw");
    fs::create_dir(&raw).expect("a folder");
    let packed = data.join("labels/siim-pneumothorax-train-rle.csv.gz");
    fs::copy(&packed, raw.join("train-rle.csv.gz")).expect("copied");
    let all = no_images("siim", &raw, &temporary.path().join("all"), &[]);
    assert_eq!(rejects(&temporary.path().join("all")), []);
    assert_eq!(all.len(), 12_047);
    let labels = helpers::dataset_codes(&all);
    let with = |code| labels.iter().filter(|labels| **labels == [Some(code)]).count();
    assert_eq!((with(1), with(0)), (2_669, 9_378));

    // Every row alone, on the image size of the set.
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(fs::File::open(&packed).expect("a table"))
        .read_to_string(&mut text)
        .expect("gzip");
    let (mut rows, mut empty, mut pixels) = (0, 0, 0u64);
    for line in text.lines().skip(1) {
        let runs = Runs::parse(line.split_once(',').expect("two fields").1).expect("runs");
        rows += 1;
        if runs.is_empty() {
            empty += 1;
            continue;
        }
        let mask = runs.draw(1024, 1024).expect("no run leaves the image");
        let own = mask.iter().map(|&pixel| u64::from(pixel)).sum::<u64>();
        assert!(own > 0);
        pixels += own;
    }
    assert_eq!((rows, empty), (12_954, 9_378));
    assert_eq!(pixels, 39_729_957);

    // The one radiograph of the test data, in the folders of the set.
    let id = "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819";
    let study = "1.2.276.0.7230010.3.1.2.8323329.6904.1517875201.850818";
    let series =
        raw.join("dicom-images-train").join(study).join("1.2.276.0.7230010.3.1.3.8323329.6904.1517875201.850817");
    fs::create_dir_all(&series).expect("a folder");
    fs::copy(data.join(format!("dicom/{id}.dcm")), series.join(format!("{id}.dcm"))).expect("copied");
    let own: String = text.lines().filter(|line| line.starts_with(id)).map(|line| format!("{line}\n")).collect();
    fs::remove_file(raw.join("train-rle.csv.gz")).expect("removed");
    fs::write(raw.join("train-rle.csv"), format!("ImageId, EncodedPixels\n{own}")).expect("written");
    let out = temporary.path().join("film");
    ok("ingest", args!["siim", &raw, &out, "--size", "256"]);
    assert_eq!(rejects(&out), []);
    let record = &records(&out)[0];
    assert_eq!((record.patient_id.as_str(), record.image_id.as_str()), (study, id));
    assert_eq!(
        (record.width, record.source_width, record.labels.as_slice()),
        (256, 1024, [Some(dataset::Label::Negative)].as_slice())
    );
    assert_eq!((record.view.as_deref(), record.sex.as_deref(), record.age_years), (Some("PA"), Some("M"), Some(62.0)));
    let mask = dataset::format::image_codec::decode(png(record).expect("a mask")).expect("a PNG");
    assert!(mask.width == 256 && mask.pixels.iter().all(|pixel| *pixel == 0), "this radiograph has no pneumothorax");
}
