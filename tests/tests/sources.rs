//! The sources of single challenges and of arbitrary folders: their phantoms, their faults, their real tables.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::Path;

use dataset::Dataset;
use dataset::format::image_codec::GrayPixels;
use dataset::format::record::{ImageEncoding, Record};
use ingest::image::mask::Runs;
use ingest::run::plan::Source;
use ingest::sources::OpenI;
use mrm_tests::{args, binary, contents, fails, folder, ingest, ok, phantom_of, real_data, rejects, text};

fn records(out: &Path) -> Vec<Record> {
    let dataset = Dataset::open(out).expect("a dataset");
    (0..dataset.len()).map(|row| dataset.record(row).expect("a record")).collect()
}

/// Header and rows of a CSV table.
fn table(path: &Path) -> (Vec<String>, Vec<Vec<String>>) {
    let text = fs::read_to_string(path).expect("a table");
    let mut rows = text.lines().map(|line| line.split(',').map(str::to_owned).collect::<Vec<_>>());
    (rows.next().expect("a header"), rows.collect())
}

/// Appends lines to a file.
fn append(path: &Path, lines: &str) {
    let text = fs::read_to_string(path).expect("a file");
    fs::write(path, text + lines).expect("written");
}

/// Paths of the files with an ending, relative to the folder.
fn files(raw: &Path, ending: &str) -> Vec<String> {
    contents(raw).into_keys().filter(|path| path.ends_with(ending)).collect()
}

/// (stage, a part of the error) of the only reject of a path.
fn says(out: &Path, path: &str, stage: &str, words: &str) {
    let found: Vec<_> = rejects(out).into_iter().filter(|reject| reject.source_path == path).collect();
    let fits = found.iter().filter(|reject| reject.stage == stage && reject.error.contains(words)).count();
    assert_eq!(fits, 1, "{path}, {stage}, {words}: {found:?}");
}

fn no_images(source: &str, raw: &Path, out: &Path, more: &[&str]) -> Dataset {
    let mut arguments = args![source, raw, out, "--no-images", "--tokenizer", "none"].to_vec();
    arguments.extend(more.iter().map(Into::into));
    ok("ingest", arguments);
    Dataset::open(out).expect("a dataset")
}

#[test]
fn rsna_gives_boxes_classes_and_what_the_headers_tell() {
    let temporary = folder();
    let raw = phantom_of("rsna", temporary.path(), 60);
    let out = temporary.path().join("set");
    ingest("rsna", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    let records = records(&out);
    assert_eq!(records.len(), 60);
    let dataset = Dataset::open(&out).expect("a dataset");
    assert_eq!(dataset.findings(), ["Pneumonia", "Normal", "No Lung Opacity / Not Normal", "Lung Opacity"]);
    let (_, rows) = table(&raw.join("stage_2_train_labels.csv"));
    let mut by_image: BTreeMap<&str, Vec<&Vec<String>>> = BTreeMap::new();
    rows.iter().for_each(|row| by_image.entry(&row[0]).or_default().push(row));
    let classes: BTreeMap<String, String> = table(&raw.join("stage_2_detailed_class_info.csv"))
        .1
        .into_iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let mut positive = 0;
    for record in &records {
        assert_eq!(record.record_id, format!("rsna/{}", record.image_id));
        assert_eq!((&record.patient_id, &record.study_id), (&record.image_id, &record.image_id));
        let header = dicom_object::open_file(raw.join(&record.source_path)).expect("a DICOM file");
        let text = |name| header.element_by_name(name).expect("an element").to_str().expect("text").trim().to_owned();
        assert_eq!(record.view.as_deref(), Some(text("ViewPosition").as_str()));
        assert_eq!(record.sex.as_deref(), Some(text("PatientSex").as_str()));
        assert_eq!(format!("{:03}Y", record.age_years.expect("an age")), text("PatientAge"));
        let Some(rows) = by_image.get(record.image_id.as_str()) else {
            assert_eq!(record.source_path, format!("stage_2_test_images/{}.dcm", record.image_id));
            assert_eq!((record.subset.as_deref(), record.labels.clone()), (Some("test"), vec![None; 4]));
            assert!(record.boxes.is_empty());
            continue;
        };
        assert_eq!(record.subset.as_deref(), Some("train"));
        let class = |name: &str| Some(i8::from(classes[&record.image_id] == name));
        let target = rows[0][5].parse::<i8>().expect("a code");
        assert_eq!(
            record.labels,
            [Some(target), class("Normal"), class("No Lung Opacity / Not Normal"), class("Lung Opacity")]
        );
        assert_eq!(record.boxes.len(), if target == 1 { rows.len() } else { 0 });
        let scale = f64::from(record.width) / f64::from(record.source_width);
        assert!(scale < 0.9, "the boxes are really scaled");
        for (found, row) in record.boxes.iter().zip(rows) {
            let expected = |column: usize| row[column].parse::<f64>().expect("a number");
            for (side, column) in [(found.x, 1), (found.width, 3)] {
                assert!((f64::from(side) - expected(column) * scale).abs() < 1e-3, "{found:?} {row:?}");
            }
            let down = f64::from(record.height) / f64::from(record.source_height);
            assert!((f64::from(found.y) - expected(2) * down).abs() < 1e-3);
            assert_eq!(found.label, "Pneumonia");
            assert!(found.x + found.width <= f32::from(record.width) + 1e-3);
        }
        positive += usize::from(target == 1);
    }
    assert!(positive > 3, "{positive} with boxes");
    assert!(by_image.len() < 60, "some are for the test");
    // Without the pixels the tables are the same, and the headers are not read.
    fs::remove_dir_all(raw.join("stage_2_train_images")).expect("removed");
    fs::remove_dir_all(raw.join("stage_2_test_images")).expect("removed");
    no_images("rsna", &raw, &temporary.path().join("bare"), &[]);
    let bare = self::records(&temporary.path().join("bare"));
    assert_eq!(bare.len(), by_image.len());
    let labels: BTreeMap<_, _> = records.iter().map(|record| (&record.record_id, &record.labels)).collect();
    assert!(bare.iter().all(|record| labels[&record.record_id] == &record.labels && record.view.is_none()));
}

#[test]
fn faults_of_rsna_become_rejects() {
    let temporary = folder();
    let raw = phantom_of("rsna", temporary.path(), 30);
    let labels = raw.join("stage_2_train_labels.csv");
    let (_, rows) = table(&labels);
    let negative: Vec<&str> = rows.iter().filter(|row| row[5] == "0").map(|row| row[0].as_str()).collect();
    let positive = rows.iter().find(|row| row[5] == "1").expect("a positive one");
    let twice = positive.join(",");
    append(
        &labels,
        &format!(
            "{twice}\n{},1.0,2.0,30.0,40.0,1\n{},,,,,1\n{},1,2,3,4,0\n{},1,2,3,4,1\n{},,,,,7\n,,,,,0\ntoo,short\ngone,,,,,0\n",
            positive[0], negative[0], negative[1], negative[2], negative[3]
        ),
    );
    // The class table in a folder of its own name, as some archives unpack, with rows of no use.
    let classes = raw.join("stage_2_detailed_class_info.csv");
    append(&classes, &format!("{},Lung Opacity\n{},Unheard of\nnobody,Normal\n", negative[4], negative[5]));
    let text = fs::read(&classes).expect("a table");
    fs::remove_file(&classes).expect("removed");
    fs::create_dir(&classes).expect("made");
    fs::write(classes.join("stage_2_detailed_class_info.csv"), text).expect("written");
    fs::copy(raw.join(format!("stage_2_train_images/{}.dcm", negative[0])), raw.join("stage_2_train_images/stray.dcm"))
        .expect("copied");
    let out = temporary.path().join("set");
    ingest("rsna", &raw, &out, &["--max-reject-rate", "1"]);
    let of = |id: &str| format!("stage_2_train_images/{id}.dcm");
    says(&out, &of(negative[0]), "table", "contradicts an earlier row");
    says(&out, &of(negative[1]), "table", "Target is 0, but there is a box");
    says(&out, &of(negative[2]), "table", "contradicts an earlier row");
    says(&out, &of(negative[3]), "table", "Target is neither 0 nor 1");
    says(&out, "stage_2_train_labels.csv", "table", "patientId is empty");
    says(&out, "stage_2_train_labels.csv", "table", "2 fields, the header has 6");
    says(&out, &of("gone"), "read", "listed, but the file is missing");
    says(&out, &of("stray"), "plan", "no table names this file");
    let class_table = "stage_2_detailed_class_info.csv/stage_2_detailed_class_info.csv";
    says(&out, class_table, "table", "contradicts an earlier row");
    says(&out, class_table, "table", "unknown class");
    says(&out, class_table, "table", "does not name this patientId");
    assert_eq!(rejects(&out).len(), 11);
    let records = records(&out);
    assert_eq!(records.len(), 30 - 4);
    let record = |id: &str| records.iter().find(|record| record.image_id == id).expect("a record");
    let boxes = rows.iter().filter(|row| row[0] == positive[0]).count();
    assert_eq!(record(&positive[0]).boxes.len(), boxes + 1, "a repeated row is one box, another row another one");
    assert_eq!(record(negative[4]).labels, [Some(0), None, None, None], "its class is open");

    fs::remove_file(&labels).expect("removed");
    let told = fails("ingest", 1, args!["rsna", &raw, temporary.path().join("x")]);
    assert!(told.contains("no stage_2_train_labels.csv[.gz]; give the directory"), "{told}");
}

#[test]
fn the_real_rsna_table_goes_in() {
    let Some(data) = real_data() else { return };
    let temporary = folder();
    let raw = temporary.path().join("raw");
    fs::create_dir(&raw).expect("made");
    let name = "stage_2_train_labels.csv.gz";
    fs::copy(data.join("labels").join(name), raw.join(name)).expect("copied");
    let out = temporary.path().join("set");
    let dataset = no_images("rsna", &raw, &out, &[]);
    assert_eq!((dataset.len(), rejects(&out).len()), (26_684, 0));
    let labels = dataset.labels().expect("labels");
    let with = |code| labels.iter().filter(|labels| **labels == [Some(code)]).count();
    assert_eq!((with(1), with(0)), (6_012, 20_672));
}

#[test]
fn siim_gives_masks() {
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
            assert_eq!((record.labels.as_slice(), &record.mask), ([None].as_slice(), &None));
            unlabeled += 1;
            continue;
        };
        let bytes = record.mask.as_ref().expect("a mask");
        assert_eq!((bytes[24], bytes[25]), (1, 0), "one bit of gray");
        let mask = dataset::format::image_codec::decode(bytes).expect("a PNG");
        assert_eq!((mask.width, mask.height), (record.width.into(), record.height.into()));
        let positive = *text != "-1";
        assert_eq!(record.labels, [Some(i8::from(positive))]);
        // The same mask drawn by hand: area and center agree with the raw one.
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

    // Padded and stretched squares hold the same share of the body.
    for (fit, size) in [("pad", 64), ("stretch", 64)] {
        let out = temporary.path().join(fit);
        ingest("siim", &raw, &out, &["--fit", fit]);
        for (record, before) in records(&out).iter().zip(&all) {
            let Some(mask) = &record.mask else { continue };
            let mask = dataset::format::image_codec::decode(mask).expect("a PNG");
            assert_eq!((mask.width, mask.height), (size, size));
            let count = |mask: &dataset::format::image_codec::GrayPixels| {
                mask.pixels.iter().filter(|pixel| **pixel > 0).count() as f64
            };
            let old = dataset::format::image_codec::decode(before.mask.as_ref().expect("a mask")).expect("a PNG");
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
    assert!(bare.iter().all(|record| record.labels[0].is_some() && record.mask.is_none()));
}

#[test]
fn faults_of_siim_become_rejects() {
    let temporary = folder();
    let raw = phantom_of("siim", temporary.path(), 40);
    let path = raw.join("train-rle.csv");
    let (_, rows) = table(&path);
    let negative: Vec<&str> = rows.iter().filter(|row| row[1] == "-1").map(|row| row[0].as_str()).collect();
    let positive = rows.iter().find(|row| row[1] != "-1").expect("a positive one");
    let file = |id: &str| files(&raw, &format!("{id}.dcm")).into_iter().next().expect("a file");
    // The mask of the first pixel column, in two rows; and rows that repeat word for word.
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
    says(&out, &file(negative[5]), "plan", "no table names this file");
    says(&out, &file(negative[6]), "table", "the run lengths are empty");
    says(&out, "dicom-images-train/gone.dcm", "read", "the file is missing");
    says(&out, "train-rle.csv", "table", "ImageId is empty");
    says(&out, "train-rle.csv", "table", "3 fields, the header has 2");
    assert_eq!(rejects(&out).len(), 8);
    let records = records(&out);
    assert_eq!(records.len(), 40 - 5);
    let record = |id: &str| records.iter().find(|record| record.image_id == id).expect("a record");
    // Images are smaller than 512, so they and their masks are stored as they are.
    let mask =
        |id: &str| dataset::format::image_codec::decode(record(id).mask.as_ref().expect("a mask")).expect("a PNG");
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
    let told = fails("ingest", 1, args!["siim", &raw, temporary.path().join("x")]);
    assert!(told.contains("there are several"), "{told}");
    fs::remove_file(raw.join("my-train-rle-b.csv")).expect("removed");
    ok("ingest", args!["siim", &raw, temporary.path().join("x"), "--dry-run"]);
    fs::rename(raw.join("my-train-rle-a.csv"), raw.join("stage_2_train.csv")).expect("renamed");
    ok("ingest", args!["siim", &raw, temporary.path().join("x"), "--dry-run"]);
}

#[test]
fn the_real_siim_table_and_film_go_in() {
    let Some(data) = real_data() else { return };
    let temporary = folder();
    let raw = temporary.path().join("raw");
    fs::create_dir(&raw).expect("made");
    let packed = data.join("labels/siim-pneumothorax-train-rle.csv.gz");
    fs::copy(&packed, raw.join("train-rle.csv.gz")).expect("copied");
    let all = no_images("siim", &raw, &temporary.path().join("all"), &[]);
    assert_eq!(rejects(&temporary.path().join("all")), []);
    assert_eq!(all.len(), 12_047);
    let labels = all.labels().expect("labels");
    let with = |code| labels.iter().filter(|labels| **labels == [Some(code)]).count();
    assert_eq!((with(1), with(0)), (2_669, 9_378));

    // Every row by itself, drawn on the size of the set.
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

    // The one film that is here, in the folders of the set.
    let id = "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819";
    let study = "1.2.276.0.7230010.3.1.2.8323329.6904.1517875201.850818";
    let series =
        raw.join("dicom-images-train").join(study).join("1.2.276.0.7230010.3.1.3.8323329.6904.1517875201.850817");
    fs::create_dir_all(&series).expect("made");
    fs::copy(data.join(format!("dicom/{id}.dcm")), series.join(format!("{id}.dcm"))).expect("copied");
    let own: String = text.lines().filter(|line| line.starts_with(id)).map(|line| format!("{line}\n")).collect();
    fs::remove_file(raw.join("train-rle.csv.gz")).expect("removed");
    fs::write(raw.join("train-rle.csv"), format!("ImageId, EncodedPixels\n{own}")).expect("written");
    let out = temporary.path().join("film");
    ok("ingest", args!["siim", &raw, &out, "--size", "256"]);
    assert_eq!(rejects(&out), []);
    let record = &records(&out)[0];
    assert_eq!((record.patient_id.as_str(), record.image_id.as_str()), (study, id));
    assert_eq!((record.width, record.source_width, record.labels.as_slice()), (256, 1024, [Some(0)].as_slice()));
    assert_eq!((record.view.as_deref(), record.sex.as_deref(), record.age_years), (Some("PA"), Some("M"), Some(62.0)));
    let mask = dataset::format::image_codec::decode(record.mask.as_ref().expect("a mask")).expect("a PNG");
    assert!(mask.width == 256 && mask.pixels.iter().all(|pixel| *pixel == 0), "this film shows none");
}

#[test]
fn openi_takes_sections_and_terms_from_the_xml() {
    let temporary = folder();
    let raw = phantom_of("openi", temporary.path(), 30);
    let out = temporary.path().join("set");
    ingest("openi", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    let records = records(&out);
    let images = files(&raw, ".png");
    assert_eq!(records.len(), images.len());
    assert!(images.len() > 30);
    let dataset = Dataset::open(&out).expect("a dataset");
    assert!(dataset.findings().is_sorted() && dataset.findings().iter().any(|name| name == "No Finding"));
    assert_eq!(dataset.manifest().totals.studies, 30);
    let mut without_headings = 0;
    for record in &records {
        assert_eq!(record.source_path, format!("NLMCXR_png/{}.png", record.image_id));
        assert_eq!(record.image_id.split('_').next(), Some(format!("CXR{}", record.patient_id).as_str()));
        assert_eq!(record.study_id, record.patient_id);
        let xml = fs::read_to_string(raw.join(format!("ecgen-radiology/{}.xml", record.patient_id))).expect("a report");
        let report = record.report.as_deref().expect("a report");
        let mut lines = report.lines();
        for label in ["COMPARISON", "INDICATION", "FINDINGS", "IMPRESSION"] {
            let open = format!("<AbstractText Label=\"{label}\">");
            let Some((_, rest)) = xml.split_once(&open) else {
                without_headings += usize::from(label == "INDICATION");
                continue;
            };
            let text =
                rest.split_once('<').expect("an end").0.replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&");
            assert_eq!(lines.next(), Some(format!("{label}: {text}").as_str()));
            match label {
                "FINDINGS" => assert_eq!(record.findings.as_deref(), Some(text.as_str())),
                "IMPRESSION" => assert_eq!(record.impression.as_deref(), Some(text.as_str())),
                _ => {}
            }
        }
        assert_eq!(lines.next(), None);
        for (finding, code) in dataset.findings().iter().zip(&record.labels) {
            let term = if finding == "No Finding" { "normal" } else { finding };
            let named = xml.contains(&format!("<major>{term}<")) || xml.contains(&format!("<major>{term}/"));
            assert_eq!(*code, Some(i8::from(named)), "{finding}");
        }
        assert!(record.token_ids.len() > 10);
    }
    assert!(without_headings > 0);
    let short = temporary.path().join("short");
    ingest("openi", &raw, &short, &["--report-text", "impression"]);
    assert!(self::records(&short).iter().all(|record| record.report == record.impression));
}

#[test]
fn faults_of_openi_become_rejects() {
    let temporary = folder();
    let raw = phantom_of("openi", temporary.path(), 16);
    let images = files(&raw, ".png");
    let of = |number: usize| -> Vec<&String> {
        images.iter().filter(|image| image.contains(&format!("/CXR{number}_"))).collect()
    };
    let xml = |number: usize| raw.join(format!("ecgen-radiology/{number}.xml"));
    let text = fs::read_to_string(xml(1)).expect("a report");
    fs::write(xml(1), &text[..text.len() / 2]).expect("written");
    fs::remove_file(raw.join(of(2)[0])).expect("removed");
    fs::copy(raw.join(of(3)[0]), raw.join("NLMCXR_png/CXR99_IM-1-1.png")).expect("copied");
    fs::copy(raw.join(of(3)[0]), raw.join("ecgen-radiology/CXR3_1_IM-0003-1001.png")).expect("copied");
    let text = fs::read_to_string(xml(4)).expect("a report");
    let bare: String =
        text.lines().filter(|line| !line.contains("parentImage")).map(|line| format!("{line}\n")).collect();
    fs::write(xml(4), bare).expect("written");
    let text = fs::read_to_string(xml(5))
        .expect("a report")
        .replace("<major>", "<automatic>")
        .replace("</major>", "</automatic>");
    fs::write(xml(5), text).expect("written");
    fs::copy(xml(6), raw.join("ecgen-radiology/6-again.xml")).expect("copied");
    let out = temporary.path().join("set");
    ingest("openi", &raw, &out, &["--max-reject-rate", "1"]);
    says(&out, "ecgen-radiology/1.xml", "table", "broken XML");
    for image in of(1).into_iter().chain(of(4)) {
        says(&out, image, "plan", "no report names this image");
    }
    says(&out, of(2)[0], "read", "listed, but the file is missing");
    says(&out, "NLMCXR_png/CXR99_IM-1-1.png", "plan", "no report names this image");
    says(&out, "ecgen-radiology/CXR3_1_IM-0003-1001.png", "plan", "another file of this image is taken");
    says(&out, "ecgen-radiology/4.xml", "report", "the report names no image");
    assert!(rejects(&out).iter().filter(|reject| reject.error.contains("listed twice")).count() == of(6).len());
    assert_eq!(rejects(&out).len(), 1 + of(1).len() + 1 + 1 + 1 + 1 + of(4).len() + of(6).len());
    let records = records(&out);
    assert_eq!(records.len(), images.len() - of(1).len() - 1 - of(4).len());
    let unlabeled = records.iter().filter(|record| record.patient_id == "5");
    assert!(unlabeled.clone().count() > 0 && unlabeled.clone().all(|r| r.labels.iter().all(Option::is_none)));
    fs::create_dir(temporary.path().join("empty")).expect("made");
    let told = fails("ingest", 1, args!["openi", temporary.path().join("empty"), temporary.path().join("x")]);
    assert!(told.contains("no report (*.xml); give the directory"), "{told}");
}

#[test]
fn all_real_openi_reports_go_in() {
    let Some(data) = real_data() else { return };
    let temporary = folder();
    let status = std::process::Command::new("tar")
        .arg("xzf")
        .arg(data.join("openi-reports/NLMCXR_reports.tgz"))
        .arg("-C")
        .arg(temporary.path())
        .status();
    assert!(status.expect("tar").success());
    let raw = temporary.path().join("ecgen-radiology");
    let out = temporary.path().join("set");
    let dataset = no_images("openi", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    let column = |name: &str| dataset.texts(name).expect("a column");
    let (study, image) = (column("study_id"), column("image_id"));
    let images: usize = [446, 2 * 3_208, 3 * 181, 4 * 15, 5].iter().sum();
    assert_eq!(dataset.len(), images + 104, "an entry an image, and one for each report without");
    let is_alone = |row: usize| image[row] == study[row].as_ref().map(|number| format!("CXR{number}"));
    assert_eq!((0..dataset.len()).filter(|row| is_alone(*row)).count(), 104);
    let reports: BTreeMap<&str, usize> =
        study.iter().enumerate().map(|(row, study)| (study.as_deref().expect("a study"), row)).collect();
    assert_eq!(reports.len(), 3_955);
    let (report, findings, impression) = (column("report"), column("findings"), column("impression"));
    let with = |heading: &str| {
        let heading = format!("{heading}: ");
        let stated = |row: &&usize| {
            report[**row].as_deref().is_some_and(|text| text.lines().any(|line| line.starts_with(&heading)))
        };
        reports.values().filter(stated).count()
    };
    let counts = ["COMPARISON", "INDICATION", "FINDINGS", "IMPRESSION"].map(with);
    assert_eq!(counts, [3_333, 3_865, 3_425, 3_921]);
    let stated = |column: &[Option<String>]| reports.values().filter(|row| column[**row].is_some()).count();
    assert_eq!((stated(&findings), stated(&impression)), (3_425, 3_921));
    let labels = dataset.labels().expect("labels");
    let count = |finding: &str| {
        let at = dataset.findings().iter().position(|name| name == finding).expect("a finding");
        reports.values().filter(|row| labels[**row][at] == Some(1)).count()
    };
    // As many files hold `<major>normal<`, and so on.
    assert_eq!([count("No Finding"), count("Cardiomegaly"), count("Pneumothorax")], [1_391, 375, 23]);
    assert_eq!(dataset.findings().len(), 118);
    let is_open = |row: &&usize| labels[**row].iter().all(Option::is_none);
    assert_eq!(reports.values().filter(is_open).count(), 95, "not indexed");
    assert_eq!(
        report[reports["1"]].as_deref(),
        Some(
            "COMPARISON: None.\nINDICATION: Positive TB test\nFINDINGS: The cardiac silhouette and mediastinum size are \
             within normal limits. There is no pulmonary edema. There is no focal consolidation. There are no XXXX of a \
             pleural effusion. There is no evidence of pneumothorax.\nIMPRESSION: Normal chest x-XXXX."
        )
    );
}

#[test]
fn every_dicom_file_of_openi_finds_its_report() {
    let Some(data) = real_data() else { return };
    let temporary = folder();
    let archive = data.join("openi-reports/NLMCXR_reports.tgz");
    let status = std::process::Command::new("tar").arg("xzf").arg(archive).arg("-C").arg(temporary.path()).status();
    assert!(status.expect("tar").success());
    let plan = || OpenI { reports_alone: false }.plan(temporary.path()).expect("a plan");
    // As the DICOM download names them: `2_IM-0652-1001`, and for the first report `1_IM-0001-3001`.
    for record in plan().records {
        let name = record.image_id.strip_prefix("CXR1_1_").map_or_else(
            || record.image_id.strip_prefix("CXR").expect("the collection's prefix").to_owned(),
            |rest| format!("1_{rest}"),
        );
        fs::write(temporary.path().join(format!("{name}.dcm")), "a film").expect("written");
    }
    let plan = plan();
    assert_eq!(plan.records.len(), 7_470);
    assert!(plan.records.iter().all(|record| record.source_bytes == Some(6)));
    assert!(plan.rejects.iter().all(|reject| reject.error == "the report names no image"));
}

#[test]
fn a_folder_without_a_table_goes_by_its_paths() {
    let temporary = folder();
    let raw = phantom_of("folder", temporary.path(), 24);
    fs::remove_file(raw.join("films.csv")).expect("removed");
    fs::remove_file(raw.join("phantom.json")).expect("removed");
    let out = temporary.path().join("set");
    let output = mrm_tests::run("ingest", args!["folder", &raw, &out, "--size", "64", "--vocab-size", "400"]);
    assert!(output.status.success());
    assert!(!mrm_tests::text(&output.stderr).contains("warning"), "folders tell the patients");
    assert_eq!(rejects(&out), []);
    let records = records(&out);
    let texts = files(&raw, ".txt");
    assert_eq!(records.len(), texts.len());
    let endings: BTreeSet<Option<&str>> =
        records.iter().map(|record| Path::new(&record.source_path).extension().and_then(|e| e.to_str())).collect();
    assert_eq!(endings, [None, Some("dcm"), Some("png")].into());
    for record in &records {
        let path = record.record_id.strip_prefix("folder/").expect("the source's name");
        let parts: Vec<&str> = path.split('/').collect();
        let study = format!("{}/{}", parts[0], parts[1]);
        assert_eq!((record.patient_id.as_str(), record.study_id.as_str()), (parts[0], study.as_str()));
        assert_eq!(record.image_id, parts[2]);
        let text = fs::read_to_string(raw.join(format!("{path}.txt"))).expect("a report");
        assert_eq!(record.report.as_deref(), Some(text.trim()));
        assert_eq!(record.view.is_some(), !record.source_path.ends_with(".png"), "DICOM tells it");
    }
    // A clash of names, a picture in no folder, files of no interest, a broken one, and an image without a report.
    let film =
        raw.join(records.iter().find(|r| r.source_path.ends_with(".png")).map(|r| &r.source_path).expect("a PNG"));
    fs::create_dir(raw.join("twins")).expect("made");
    for name in ["twins/a.png", "twins/a.jpeg", "lonely.PNG"] {
        fs::copy(&film, raw.join(name)).expect("copied");
    }
    fs::write(raw.join("twins/notes.txt"), "nothing").expect("written");
    fs::write(raw.join("twins/.hidden.png"), "nothing").expect("written");
    fs::write(raw.join("twins/README"), "no picture").expect("written");
    fs::write(raw.join("twins/broken.jpg"), "no picture").expect("written");
    let out = temporary.path().join("more");
    let output = mrm_tests::run(
        "ingest",
        args!["folder", &raw, &out, "--size", "64", "--vocab-size", "400", "--max-reject-rate", "1"],
    );
    let told = mrm_tests::text(&output.stderr);
    assert!(told.contains("warning: 1 of the images counts as a patient of its own"), "{told}");
    let more = self::records(&out);
    assert_eq!(more.len(), records.len() + 3);
    let of = |id: &str| more.iter().find(|record| record.record_id == id).expect("a record");
    assert_eq!(
        (of("folder/twins/a.png").patient_id.as_str(), of("folder/lonely").patient_id.as_str()),
        ("twins", "lonely")
    );
    assert_eq!(of("folder/twins/a.jpeg").report, None);
    says(&out, "twins/broken.jpg", "decode", "");
    assert_eq!(rejects(&out).len(), 1);
}

/// Columns of the phantom's table.
const COLUMNS: [&str; 14] = [
    "--table",
    "",
    "--image-column",
    "file",
    "--report-column",
    "report",
    "--patient-column",
    "patient",
    "--study-column",
    "study",
    "--view-column",
    "view",
    "--subset-column",
    "subset",
];

fn with_table<'a>(table: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = COLUMNS.to_vec();
    arguments[1] = table;
    arguments.extend(more);
    arguments
}

#[test]
fn a_folder_with_a_table_goes_by_its_columns() {
    let temporary = folder();
    let raw = phantom_of("folder", temporary.path(), 24);
    let path = raw.join("films.csv");
    let (header, rows) = table(&path);
    let findings = ["Pleural Effusion", "Pneumonia"];
    let labels = findings.join(",");
    let out = temporary.path().join("set");
    let arguments = with_table(path.to_str().expect("text"), &["--label-columns", &labels]);
    ingest("folder", &raw, &out, &arguments);
    assert_eq!(rejects(&out), []);
    let records = records(&out);
    assert_eq!(records.len(), rows.len());
    assert_eq!(Dataset::open(&out).expect("a dataset").findings(), findings);
    let by_file: BTreeMap<&str, &Vec<String>> = rows.iter().map(|row| (row[0].as_str(), row)).collect();
    for record in &records {
        let row = by_file[record.source_path.as_str()];
        assert_eq!((&record.patient_id, record.study_id.clone()), (&row[2], format!("{}/{}", row[2], row[3])));
        assert_eq!((record.view.as_ref(), record.subset.as_ref()), (Some(&row[4]), Some(&row[5])));
        let text = fs::read_to_string(raw.join(&row[1])).expect("a report");
        assert_eq!(record.report.as_deref(), Some(text.trim()));
        let code = |finding: &&str| row[header.iter().position(|name| name == finding).expect("a column")].parse().ok();
        assert_eq!(record.labels, findings.iter().map(code).collect::<Vec<Option<i8>>>());
    }
    let kinds: BTreeSet<Option<i8>> = records.iter().flat_map(|record| record.labels.clone()).collect();
    assert!(kinds.len() >= 3, "{kinds:?}");

    // Bare names, texts in cells, no patient column: a warning, and every image by itself.
    let list = temporary.path().join("list.csv");
    let lonely: Vec<&Vec<String>> = rows.iter().take(6).collect();
    let name = |row: &Vec<String>| row[0].replace('/', "-");
    for row in &lonely {
        fs::copy(raw.join(&row[0]), raw.join(name(row))).expect("copied");
    }
    let lines: String = lonely.iter().map(|row| format!("{},\"FINDINGS: all, clear\"\n", name(row))).collect();
    fs::write(&list, format!("name,text\n{lines}")).expect("written");
    let bare = temporary.path().join("bare");
    let arguments = args![
        "folder",
        &raw,
        &bare,
        "--table",
        &list,
        "--image-column",
        "name",
        "--report-column",
        "text",
        "--size",
        "64",
        "--vocab-size",
        "100",
        "--max-reject-rate",
        "1"
    ];
    let output = mrm_tests::run("ingest", arguments);
    let told = mrm_tests::text(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(
        told.contains("warning: every image counts as a patient of its own, so splits by patient cannot"),
        "{told}"
    );
    let found = self::records(&bare);
    assert_eq!(found.len(), 6);
    assert!(found.iter().all(|record| record.report.as_deref() == Some("FINDINGS: all, clear")));
    assert_eq!(found.iter().map(|record| &record.patient_id).collect::<BTreeSet<_>>().len(), 6);
    assert_eq!(rejects(&bare).len(), rows.len(), "the others are not named");
    // Without the images.
    let elsewhere = temporary.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("made");
    let list = list.to_str().expect("text");
    assert_eq!(
        no_images("folder", &elsewhere, &temporary.path().join("no"), &["--table", list, "--image-column", "name"])
            .len(),
        6
    );
}

#[test]
fn faults_of_a_table_become_rejects_or_clear_errors() {
    let temporary = folder();
    let raw = phantom_of("folder", temporary.path(), 12);
    let path = raw.join("films.csv");
    let (header, mut rows) = table(&path);
    let at = header.iter().position(|name| name == "Edema").expect("a column");
    rows[0][at] = "severe".to_owned();
    rows[1][5] = "everything".to_owned();
    rows[2][2] = String::new();
    rows[3][1] = "reports/lost.txt".to_owned();
    rows[4][0] = "../outside.png".to_owned();
    rows[5][0] = "film1.dcm".to_owned();
    let gone = rows[6].clone();
    fs::remove_file(raw.join(&gone[0])).expect("removed");
    let repeated = rows[7].clone();
    rows.push(repeated.clone());
    let lines: String = std::iter::once(&header).chain(&rows).map(|row| format!("{}\n", row.join(","))).collect();
    fs::write(&path, format!("{lines}short\n")).expect("written");
    let out = temporary.path().join("set");
    // The table's path may be relative to the raw directory.
    ingest(
        "folder",
        &raw,
        &out,
        &with_table("films.csv", &["--label-columns", "Edema,Pneumonia", "--max-reject-rate", "1"]),
    );
    says(
        &out,
        "films.csv",
        "table",
        "line 2: column `Edema`: `severe` is no label; say what it means with --label-map",
    );
    says(
        &out,
        "films.csv",
        "table",
        "line 3: column `subset`: unknown subset `everything`; it may be empty or one of train",
    );
    says(&out, "films.csv", "table", "line 4: the patient column is empty");
    says(&out, "films.csv", "table", "line 6: the path leads out of the raw directory");
    says(&out, "films.csv", "table", "line 7: the name `film1.dcm` means several files");
    says(&out, "films.csv", "table", "1 fields, the header has 19");
    says(&out, "reports/lost.txt", "report", "no report file");
    says(&out, &gone[0], "read", "the file is missing");
    says(&out, &repeated[0], "plan", "listed twice");
    let found = rejects(&out);
    assert_eq!(found.iter().filter(|reject| reject.error.contains("no table names")).count(), 2, "of rows 5 and 6");
    assert_eq!(found.len(), 11);
    assert_eq!(records(&out).len(), rows.len() - 1 - 6);

    let told = |code, arguments: &[&str]| {
        let mut all = args!["folder", &raw, temporary.path().join("x")].to_vec();
        all.extend(arguments.iter().map(Into::into));
        fails("ingest", code, all)
    };
    let error = told(1, &["--table", "films.csv", "--image-column", "files"]);
    assert!(error.contains("no column `files`; did you mean `file`"), "{error}");
    let error = told(1, &["--table", "films.csv", "--image-column", "file", "--label-columns", "Pneumonie"]);
    assert!(error.contains("no column `Pneumonie`; did you mean `Pneumonia`"), "{error}");
    assert!(told(2, &["--table", "films.csv"]).contains("--image-column"));
    assert!(told(2, &["--image-column", "file"]).contains("--table"));
    assert!(told(1, &["--table", "nowhere.csv", "--image-column", "file"]).contains("nowhere.csv"));
}

#[test]
fn the_patient_of_a_header_is_taken_when_asked_for() {
    let temporary = folder();
    let raw = phantom_of("folder", temporary.path(), 15);
    let films: Vec<String> =
        files(&raw, "").into_iter().filter(|path| path.contains("/film") && !path.ends_with(".txt")).collect();
    let flat = temporary.path().join("flat");
    fs::create_dir(&flat).expect("made");
    for film in &films {
        fs::copy(raw.join(film), flat.join(film.replace('/', "-"))).expect("copied");
    }
    let out = temporary.path().join("set");
    ingest("folder", &flat, &out, &["--patient-from-header", "--max-reject-rate", "1"]);
    let records = records(&out);
    let pictures = films.iter().filter(|film| film.ends_with(".png")).count();
    assert!(pictures > 0);
    assert_eq!(records.len(), films.len() - pictures);
    assert!(records.iter().all(|record| record.source_path.starts_with(&format!("{}-", record.patient_id))));
    let found = rejects(&out);
    assert!(found.iter().all(|reject| reject.error.contains("the patient is unknown: not a DICOM file")), "{found:?}");
    assert_eq!(found.len(), pictures);
    // Studies of a table may repeat from patient to patient.
    let lines: String = files(&flat, ".dcm").iter().map(|film| format!("{film},s1\n")).collect();
    fs::write(flat.join("studies.csv"), format!("file,study\n{lines}")).expect("written");
    let out = temporary.path().join("studies");
    let columns = ["--table", "studies.csv", "--image-column", "file", "--study-column", "study"];
    ingest("folder", &flat, &out, &[&columns[..], &["--patient-from-header", "--max-reject-rate", "1"]].concat());
    let with_studies = self::records(&out);
    assert!(!with_studies.is_empty());
    assert!(with_studies.iter().all(|record| record.study_id == format!("{}/s1", record.patient_id)));
    fs::remove_file(flat.join("studies.csv")).expect("removed");
    // Not asked for, nothing of it is stored.
    let out = temporary.path().join("plain");
    ingest("folder", &flat, &out, &[]);
    assert!(self::records(&out).iter().all(|record| record.patient_id == record.image_id));
}

/// The example of a source of one's own: its records, rejects and options are those of any other source.
#[test]
fn a_source_of_ones_own_is_a_subcommand() {
    let temporary = folder();
    let (raw, out) = (temporary.path().join("raw"), temporary.path().join("set"));
    fs::create_dir(&raw).expect("a folder");
    let gray = GrayPixels { width: 40, height: 30, pixels: (0..1200).map(|at| (at % 251) as u8).collect() };
    let png = gray.encode(ImageEncoding::Png).expect("a PNG");
    for (stem, report) in [("p1-s1", "A pneumothorax is seen."), ("p1-s2", "Clear lungs."), ("p2-s1", "Clear lungs.")] {
        fs::write(raw.join(format!("{stem}.png")), &png).expect("written");
        fs::write(raw.join(format!("{stem}.txt")), report).expect("written");
    }
    fs::write(raw.join("p3-s1.png"), "no image").expect("written");
    let run = |more: &[&str]| {
        let mut command = std::process::Command::new(binary("examples/custom_source"));
        command.arg("ward").arg(&raw).arg(&out).args(["--size", "16", "--vocab-size", "100"]).args(more);
        let output = command.output().expect("the example starts");
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, told) = run(&["--max-reject-rate", "0.5"]);
    assert_eq!(code, Some(0), "{told}");
    let found: Vec<_> =
        records(&out).into_iter().map(|record| (record.record_id, record.patient_id, record.labels)).collect();
    let of = |id: &str, patient: &str, code| (format!("ward/{id}"), patient.to_owned(), vec![Some(code)]);
    assert_eq!(found, [of("p1-s1", "p1", 1), of("p1-s2", "p1", 0), of("p2-s1", "p2", 0)]);
    says(&out, "p3-s1.png", "decode", "");
    assert!(ok("dataset", args!["verify", &out]).contains("3 records, all whole"));
    let (code, told) = run(&["--size", "none"]);
    assert!(code == Some(2) && told.contains("--size"), "{told}");
    let (code, told) = run(&["--max-reject-rate", "0.5"]);
    assert!(code == Some(0) && told.contains("nothing to do"), "{told}");
}
