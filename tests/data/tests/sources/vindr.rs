//! The sources `vindr-cxr` and `vindr-pcxr`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use dataset::Dataset;
use dataset::format::record::Record;
use helpers::{args, fails, folder, ingest, label_codes, ok, phantom_of, read_text, records, records_by_id, rejects};

use crate::shared::{append, codes, header, no_images, rows, says, verifies};

/// The first lines of the published tables.
const CXR_TRAIN: &str = "image_id,rad_id,Aortic enlargement,Atelectasis,Calcification,Cardiomegaly,Clavicle fracture,\
    Consolidation,Edema,Emphysema,Enlarged PA,ILD,Infiltration,Lung Opacity,Lung cavity,Lung cyst,Mediastinal shift,Nodule/Mass,\
    Pleural effusion,Pleural thickening,Pneumothorax,Pulmonary fibrosis,Rib fracture,Other lesion,COPD,Lung tumor,Pneumonia,\
    Tuberculosis,Other diseases,No finding";
const PCXR: &str = "image_id,rad_ID,No finding,Bronchitis,Brocho-pneumonia,Other disease,Bronchiolitis,Situs inversus,\
    Pneumonia,Pleuro-pneumonia,Diagphramatic hernia,Tuberculosis,Congenital emphysema,CPAM,Hyaline membrane disease,\
    Mediastinal tumor,Lung tumor";

/// A box as stored pixels, rounded to hundredths.
type Corners = (String, Option<String>, [i64; 4]);

fn stored(record: &Record) -> Vec<Corners> {
    let side = |value: f32| (f64::from(value) * 100.0).round() as i64;
    let all = record.boxes.iter();
    all.map(|b| (b.label.clone(), b.reader.clone(), [side(b.x), side(b.y), side(b.width), side(b.height)])).collect()
}

/// The boxes of the table's rows, in pixels of the stored image.
fn expected(record: &Record, text: &str, reader: &str) -> Vec<Corners> {
    let scale = f64::from(record.width) / f64::from(record.source_width);
    let scale_y = f64::from(record.height) / f64::from(record.source_height);
    let mut boxes = Vec::new();
    for row in rows(text).iter().filter(|row| row["image_id"] == record.image_id && row["class_name"] != "No finding") {
        let at = |name: &str| row[name].parse::<f64>().expect("a number");
        let (x, y) = (at("x_min") * scale, at("y_min") * scale_y);
        let (width, height) = (at("x_max") * scale - x, at("y_max") * scale_y - y);
        let corners = [x, y, width, height].map(|value| (value * 100.0).round() as i64);
        boxes.push((row["class_name"].to_owned(), row.get(reader).map(|id| (*id).to_owned()), corners));
    }
    boxes
}

fn close(a: &[Corners], b: &[Corners]) -> bool {
    let near = |(a, b): (&Corners, &Corners)| {
        (&a.0, &a.1) == (&b.0, &b.1) && a.2.iter().zip(b.2).all(|(a, b)| (a - b).abs() <= 1)
    };
    a.len() == b.len() && a.iter().zip(b).all(near)
}

#[test]
fn three_readers_are_merged_and_kept() {
    let temporary = folder();
    let raw = phantom_of("vindr-cxr", temporary.path(), 60);
    let tables = raw.join("annotations");
    assert_eq!(header(&tables.join("image_labels_train.csv")), CXR_TRAIN);
    let of_test = CXR_TRAIN.replace("rad_id,", "").replace("Other diseases", "Other disease");
    assert_eq!(header(&tables.join("image_labels_test.csv")), of_test);
    assert_eq!(header(&tables.join("annotations_train.csv")), "image_id,rad_id,class_name,x_min,y_min,x_max,y_max");
    assert_eq!(header(&tables.join("annotations_test.csv")), "image_id,class_name,x_min,y_min,x_max,y_max");
    let [majority, union, list] = ["majority", "union", "list"].map(|rule| {
        let out = temporary.path().join(rule);
        ingest("vindr-cxr", &raw, &out, &["--readers", rule]);
        assert_eq!(rejects(&out), []);
        verifies(&out);
        records_by_id(&out)
    });
    let findings = Dataset::open(temporary.path().join("union")).expect("a dataset").findings().to_vec();
    assert_eq!(findings, CXR_TRAIN.split(',').skip(2).map(str::to_owned).collect::<Vec<_>>());
    let (train, test) =
        (read_text(&tables.join("image_labels_train.csv")), read_text(&tables.join("image_labels_test.csv")));
    let boxes = ["train", "test"].map(|part| read_text(&tables.join(format!("annotations_{part}.csv"))));
    let mut by_image: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    let all = rows(&train);
    all.iter().for_each(|row| by_image.entry(row["image_id"]).or_default().push(row));
    let (mut differing, mut drawn) = (0, 0);
    for (image, own) in &by_image {
        let id = format!("vindr-cxr/{image}");
        let record = &majority[&id];
        assert_eq!(own.len(), 3);
        let mut read: Vec<(String, Vec<Option<i8>>)> =
            own.iter().map(|row| (row["rad_id"].to_owned(), codes(row, &findings))).collect();
        read.sort();
        let stored_readings: Vec<_> = record
            .readings
            .iter()
            .map(|reading| {
                (reading.reader.clone(), reading.labels.iter().map(|label| label.map(dataset::Label::code)).collect())
            })
            .collect();
        assert_eq!(stored_readings, read);
        for finding in 0..findings.len() {
            let positive = read.iter().filter(|(_, codes)| codes[finding] == Some(1)).count();
            assert_eq!(label_codes(record)[finding], Some(i8::from(positive >= 2)));
            assert_eq!(label_codes(&union[&id])[finding], Some(i8::from(positive >= 1)));
            let same = (positive % 3 == 0).then_some(i8::from(positive == 3));
            assert_eq!(label_codes(&list[&id])[finding], same);
            differing += usize::from(same.is_none());
        }
        assert_eq!(union[&id].readings, record.readings);
        assert_eq!(
            (record.patient_id.as_str(), record.study_id.as_str(), record.image_id.as_str()),
            (*image, *image, *image)
        );
        assert_eq!(record.source_path, format!("train/{image}.dicom"));
        assert_eq!((record.subset.as_deref(), record.label_origin.as_deref()), (Some("train"), Some("radiologist")));
        assert!(record.view.is_some() && record.sex.is_some() && record.age_years.is_some(), "from the header");
        let wanted = expected(record, &boxes[0], "rad_id");
        assert!(close(&stored(record), &wanted), "{:?} {wanted:?}", record.boxes);
        assert!(wanted.iter().all(|(_, reader, _)| reader.is_some()));
        drawn += wanted.len();
    }
    for row in rows(&test) {
        let record = &majority[&format!("vindr-cxr/{}", row["image_id"])];
        let names: Vec<String> = findings.iter().map(|name| name.replace("Other diseases", "Other disease")).collect();
        assert_eq!(label_codes(record), codes(&row, &names));
        assert_eq!((record.subset.as_deref(), record.label_origin.as_deref()), (Some("test"), Some("consensus")));
        assert!(record.readings.is_empty() && record.boxes.iter().all(|found| found.reader.is_none()));
        let wanted = expected(record, &boxes[1], "rad_id");
        assert!(close(&stored(record), &wanted), "{:?} {wanted:?}", record.boxes);
        drawn += wanted.len();
    }
    assert_eq!(majority.len(), by_image.len() + rows(&test).len());
    assert!(differing > 5 && drawn > 50, "{differing} {drawn}");
    let bare = no_images("vindr-cxr", &raw, &temporary.path().join("bare"), &[]);
    assert_eq!(helpers::dataset_codes(&bare), majority.values().map(label_codes).collect::<Vec<_>>());
}

#[test]
fn one_reader_reads_the_children() {
    let temporary = folder();
    let raw = phantom_of("vindr-pcxr", temporary.path(), 40);
    assert_eq!(header(&raw.join("image_labels_test.csv")), PCXR);
    assert_eq!(header(&raw.join("annotations_test.csv")), "image_id,rad_ID,class_name,x_min,y_min,x_max,y_max");
    let out = temporary.path().join("set");
    ingest("vindr-pcxr", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    verifies(&out);
    let dataset = Dataset::open(&out).expect("a dataset");
    assert_eq!(dataset.findings(), PCXR.split(',').skip(2).map(str::to_owned).collect::<Vec<_>>());
    let found = records_by_id(&out);
    let mut listed = 0;
    for part in ["train", "test"] {
        let (labels, boxes) = (
            read_text(&raw.join(format!("image_labels_{part}.csv"))),
            read_text(&raw.join(format!("annotations_{part}.csv"))),
        );
        for row in rows(&labels) {
            let record = &found[&format!("vindr-pcxr/{}", row["image_id"])];
            assert_eq!(label_codes(record), codes(&row, dataset.findings()));
            assert_eq!((record.subset.as_deref(), record.label_origin.as_deref()), (Some(part), Some("radiologist")));
            assert!(record.readings.is_empty(), "one reader");
            let wanted = expected(record, &boxes, "rad_ID");
            assert!(close(&stored(record), &wanted), "{:?} {wanted:?}", record.boxes);
            listed += 1;
        }
    }
    assert_eq!(found.len(), listed);
    assert_eq!(dataset.manifest().totals.patients, listed as u64);
}

/// The directory with the tables beside the images, as one copy has them.
fn flattened(raw: &Path) {
    for part in ["train", "test"] {
        for kind in ["image_labels", "annotations"] {
            let name = format!("{kind}_{part}.csv");
            fs::rename(raw.join("annotations").join(&name), raw.join(part).join(&name)).expect("moved");
        }
    }
}

#[test]
fn faults_are_rejects() {
    let temporary = folder();
    let raw = phantom_of("vindr-cxr", temporary.path(), 12);
    flattened(&raw);
    let (labels, boxes) = (raw.join("train/image_labels_train.csv"), raw.join("train/annotations_train.csv"));
    let text = read_text(&labels);
    let ids: BTreeSet<&str> = text.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let line_of = |id: &str| text.lines().find(|line| line.starts_with(id)).expect("a row").to_owned();
    let width = CXR_TRAIN.split(',').count() - 2;
    let other = |id: &str, reader: &str, code: &str| format!("{id},{reader},{}\n", vec![code; width].join(","));
    let first_reader = line_of(ids[0]).split(',').nth(1).expect("a reader").to_owned();
    append(&labels, &other(ids[0], &first_reader, "1"));
    append(&labels, &other(ids[1], "R90", "2"));
    append(&labels, &format!("{}\n", line_of(ids[2])));
    append(&labels, &other("0000gone", "R1", "0"));
    append(&labels, &other("../up", "R1", "0"));
    append(&labels, "\n,R1,0\n");
    append(&boxes, &format!("{},R1,Edema,10,10,9,20\n", ids[3]));
    append(&boxes, &format!("{},R1,Edema,10,10,20,90000\n", ids[4]));
    append(&boxes, "1111unlisted,R1,Edema,1,2,3,4\n");
    fs::write(raw.join("train/2222unlisted.dicom"), "x").expect("written");
    let out = temporary.path().join("set");
    ok("ingest", args!["vindr-cxr", &raw, &out, "--max-reject-rate", "1", "--size", "64", "--tokenizer", "none"]);
    let file = |id: &str| format!("train/{id}.dicom");
    says(&out, &file(ids[0]), "table", "the labels differ from an earlier row of this reader");
    says(&out, &file(ids[1]), "table", "column `Aortic enlargement`: `2` is none of 1, 0, -1 and empty");
    says(&out, &file("0000gone"), "read", "the file is missing");
    says(&out, "train/image_labels_train.csv", "table", "image_id is not a plain name");
    says(&out, "train/image_labels_train.csv", "table", "3 fields, the header has 30");
    says(&out, &file(ids[3]), "table", "x_min, y_min, x_max and y_max of `Edema` are not a box");
    says(&out, &file(ids[4]), "decode", "not inside its image");
    says(&out, &file("1111unlisted"), "table", "that of labels does not; its boxes are ignored");
    says(&out, &file("2222unlisted"), "plan", "no table lists this file");
    assert_eq!(rejects(&out).len(), 9);
    assert_eq!(records(&out).len(), 12 - 4, "an equal row of a reader counts once");
    let empty = folder();
    let message = fails("ingest", 1, args!["vindr-pcxr", empty.path(), temporary.path().join("x")]);
    assert!(message.contains("image_labels_train.csv"), "{message}");
}
