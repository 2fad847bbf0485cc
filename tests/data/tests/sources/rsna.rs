//! The source `rsna`.

use std::collections::BTreeMap;
use std::fs;

use dataset::Dataset;
use helpers::{args, fails, folder, ingest, phantom_of, real_data, records, rejects};

use crate::shared::{append, no_images, says, table};

#[test]
fn boxes_classes_and_header_values_are_read() {
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
            helpers::label_codes(record),
            [Some(target), class("Normal"), class("No Lung Opacity / Not Normal"), class("Lung Opacity")]
        );
        assert_eq!(record.boxes.len(), if target == 1 { rows.len() } else { 0 });
        let scale = f64::from(record.width) / f64::from(record.source_width);
        assert!(scale < 0.9, "the boxes are scaled");
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
    // Without pixels the tables give the same values, and the headers are not read.
    fs::remove_dir_all(raw.join("stage_2_train_images")).expect("removed");
    fs::remove_dir_all(raw.join("stage_2_test_images")).expect("removed");
    no_images("rsna", &raw, &temporary.path().join("bare"), &[]);
    let bare = helpers::records(&temporary.path().join("bare"));
    assert_eq!(bare.len(), by_image.len());
    let labels: BTreeMap<_, _> = records.iter().map(|record| (&record.record_id, &record.labels)).collect();
    assert!(bare.iter().all(|record| labels[&record.record_id] == &record.labels && record.view.is_none()));
}

#[test]
fn faults_are_rejects() {
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
    // The class table in a folder of its name, as some archives unpack, with unusable rows.
    let classes = raw.join("stage_2_detailed_class_info.csv");
    append(&classes, &format!("{},Lung Opacity\n{},Unheard of\nnobody,Normal\n", negative[4], negative[5]));
    let text = fs::read(&classes).expect("a table");
    fs::remove_file(&classes).expect("removed");
    fs::create_dir(&classes).expect("a folder");
    fs::write(classes.join("stage_2_detailed_class_info.csv"), text).expect("written");
    fs::copy(raw.join(format!("stage_2_train_images/{}.dcm", negative[0])), raw.join("stage_2_train_images/stray.dcm"))
        .expect("copied");
    let out = temporary.path().join("set");
    ingest("rsna", &raw, &out, &["--max-reject-rate", "1"]);
    let of = |id: &str| format!("stage_2_train_images/{id}.dcm");
    says(&out, &of(negative[0]), "table", "differs from an earlier row");
    says(&out, &of(negative[1]), "table", "Target is 0, but there is a box");
    says(&out, &of(negative[2]), "table", "differs from an earlier row");
    says(&out, &of(negative[3]), "table", "Target is neither 0 nor 1");
    says(&out, "stage_2_train_labels.csv", "table", "patientId is empty");
    says(&out, "stage_2_train_labels.csv", "table", "2 fields, the header has 6");
    says(&out, &of("gone"), "read", "listed, but the file is missing");
    says(&out, &of("stray"), "plan", "no table lists this file, so it has no record");
    let class_table = "stage_2_detailed_class_info.csv/stage_2_detailed_class_info.csv";
    says(&out, class_table, "table", "differs from an earlier row");
    says(&out, class_table, "table", "unknown class");
    says(&out, class_table, "table", "does not have this patientId");
    assert_eq!(rejects(&out).len(), 11);
    let records = records(&out);
    assert_eq!(records.len(), 30 - 4);
    let record = |id: &str| records.iter().find(|record| record.image_id == id).expect("a record");
    let boxes = rows.iter().filter(|row| row[0] == positive[0]).count();
    assert_eq!(record(&positive[0]).boxes.len(), boxes + 1, "a repeated row is one box, a different row another box");
    assert_eq!(helpers::label_codes(record(negative[4])), [Some(0), None, None, None], "its class is unknown");

    fs::remove_file(&labels).expect("removed");
    let message = fails("ingest", 1, args!["rsna", &raw, temporary.path().join("x")]);
    assert!(message.contains("no stage_2_train_labels.csv[.gz]; give the directory"), "{message}");
}

#[test]
fn the_real_table_is_ingested() {
    let Some(data) = real_data() else { return };
    let temporary = folder();
    let raw = temporary.path().join("raw");
    fs::create_dir(&raw).expect("a folder");
    let name = "stage_2_train_labels.csv.gz";
    fs::copy(data.join("labels").join(name), raw.join(name)).expect("copied");
    let out = temporary.path().join("set");
    let dataset = no_images("rsna", &raw, &out, &[]);
    assert_eq!((dataset.len(), rejects(&out).len()), (26_684, 0));
    let labels = helpers::dataset_codes(&dataset);
    let with = |code| labels.iter().filter(|labels| **labels == [Some(code)]).count();
    assert_eq!((with(1), with(0)), (6_012, 20_672));
}
