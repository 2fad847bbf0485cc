//! The source `padchest-gr`.

use std::collections::BTreeSet;
use std::fs;

use dataset::Dataset;
use helpers::{
    args, fails, files_with, folder, ingest, label_codes, ok, phantom_of, read_text, records_by_id, rejects, write_file,
};
use serde_json::{Value, json};

use crate::shared::{header, quoted_rows, says, verifies};

const JSON: &str = "grounded_reports_20240819.json";
/// The columns of the published table.
const HEADER: &str = "StudyID,ImageID,label,boxes_count,extra_boxes_count,locations,prior_study,progression_status,\
    prior_imageID,sentence_en,sentence_es,study_is_benchmark,study_is_validation,split,PatientID,patient_is_benchmark,\
    PatientBirth,PatientSex_DICOM,StudyDate_DICOM,StudyDate,PatientAge,label_group,Year";

fn texts<'a>(finding: &'a Value, key: &str) -> Vec<&'a str> {
    finding[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

#[test]
fn sentences_boxes_and_subsets_are_read() {
    let temporary = folder();
    let raw = phantom_of("padchest-gr", temporary.path(), 50);
    assert_eq!(header(&raw.join("master_table.csv")), HEADER);
    let studies: Vec<Value> = serde_json::from_str(&read_text(&raw.join(JSON))).expect("JSON");
    let rows = quoted_rows(&raw.join("master_table.csv"));
    for (language, key) in [("en", "sentence_en"), ("es", "sentence_es")] {
        let out = temporary.path().join(language);
        ingest("padchest-gr", &raw, &out, &["--language", language]);
        assert_eq!(rejects(&out), []);
        verifies(&out);
        let dataset = Dataset::open(&out).expect("a dataset");
        let all = || studies.iter().flat_map(|study| study["findings"].as_array().expect("findings"));
        let named: BTreeSet<&str> = all().flat_map(|finding| texts(finding, "labels")).collect();
        assert_eq!(dataset.findings(), named.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let found = records_by_id(&out);
        assert_eq!(found.len(), studies.len());
        let (mut grounded, mut second) = (0, 0);
        for study in &studies {
            let image = study["ImageID"].as_str().expect("an image");
            let record = &found[&format!("padchest-gr/{image}")];
            let row = rows.iter().find(|row| row["ImageID"].as_deref() == Some(image)).expect("a row");
            assert_eq!(Some(record.patient_id.as_str()), row["PatientID"].as_deref());
            assert_eq!((Some(record.study_id.as_str()), record.image_id.as_str()), (study["StudyID"].as_str(), image));
            let split = row["split"].as_deref().map(|split| if split == "validation" { "validate" } else { split });
            assert_eq!((record.subset.as_deref(), record.sex.as_deref()), (split, row["PatientSex_DICOM"].as_deref()));
            assert_eq!((record.language.as_deref(), &record.study_datetime), (Some(language), &row["StudyDate"]));
            assert_eq!(record.age_years, row["PatientAge"].as_deref().and_then(|age| age.parse().ok()));
            let findings = study["findings"].as_array().expect("findings");
            let sentences: Vec<&str> = findings.iter().filter_map(|finding| finding[key].as_str()).collect();
            assert_eq!(record.report, Some(sentences.join("\n")));
            let own: BTreeSet<&str> = findings.iter().flat_map(|finding| texts(finding, "labels")).collect();
            let wanted: Vec<_> = named.iter().map(|name| Some(i8::from(own.contains(name)))).collect();
            assert_eq!(label_codes(record), wanted);
            let mut boxes = record.boxes.iter();
            for (finding, reader) in findings.iter().flat_map(|finding| [(finding, "1"), (finding, "2")]) {
                let drawn = &finding[if reader == "1" { "boxes" } else { "extra_boxes" }];
                for corners in drawn.as_array().into_iter().flatten() {
                    let [left, top, right, bottom] = [0, 1, 2, 3].map(|at| corners[at].as_f64().expect("a share"));
                    let stored = boxes.next().expect("a box");
                    assert_eq!(stored.sentence.as_deref(), finding[key].as_str());
                    assert_eq!(
                        (Some(stored.label.as_str()), stored.reader.as_deref()),
                        (finding["labels"][0].as_str(), Some(reader))
                    );
                    let (width, height) = (f64::from(record.width), f64::from(record.height));
                    let wanted = [left * width, top * height, (right - left) * width, (bottom - top) * height];
                    let sides = [stored.x, stored.y, stored.width, stored.height].map(f64::from);
                    assert!(sides.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 0.01), "{stored:?} {wanted:?}");
                    grounded += 1;
                    second += usize::from(reader == "2");
                }
            }
            assert!(boxes.next().is_none());
        }
        assert!(grounded > 30 && second > 5, "{grounded} {second}");
    }
}

#[test]
fn faults_are_rejects() {
    let temporary = folder();
    let raw = phantom_of("padchest-gr", temporary.path(), 14);
    let mut studies: Vec<Value> = serde_json::from_str(&read_text(&raw.join(JSON))).expect("JSON");
    let image = |studies: &[Value], at: usize| studies[at]["ImageID"].as_str().expect("an image").to_owned();
    studies[0]["StudyID"] = json!("777");
    studies[1]["findings"] =
        json!([{"sentence_en": "Wide.", "abnormal": true, "boxes": [[0.1, 0.2, 1.2, 0.4]], "labels": ["a"]}]);
    studies[2]["findings"] =
        json!([{"sentence_en": "Two.", "abnormal": true, "boxes": [[0.1, 0.2, 0.3, 0.4]], "labels": ["a", " b "]}]);
    studies[3] = json!({"StudyID": 3});
    studies.push(json!({"StudyID": "8", "ImageID": "../up.png", "findings": []}));
    write_file(&raw.join(JSON), serde_json::to_vec(&studies).expect("JSON"));
    // Images of earlier studies have no sentences; other files without a sentence are told.
    write_file(&raw.join("PadChest_GR_progression_prior_studies/1.png"), "x");
    write_file(&raw.join("Padchest_GR_files/PadChest_GR/extra.png"), "x");
    let out = temporary.path().join("set");
    ok("ingest", args!["padchest-gr", &raw, &out, "--size", "64", "--vocab-size", "300", "--max-reject-rate", "1"]);
    let file = |name: &str| files_with(&raw, name).into_iter().next().expect("a file");
    says(&out, &file(&image(&studies, 0)), "table", "master_table.csv does not have this study");
    says(&out, &file(&image(&studies, 1)), "table", "a box is not left, top, right, bottom between 0 and 1");
    says(&out, JSON, "table", "study 3: another form than StudyID, ImageID and findings");
    says(&out, JSON, "table", "study 14: ImageID is no plain name");
    says(&out, "Padchest_GR_files/PadChest_GR/extra.png", "plan", "no table lists this file");
    assert_eq!(rejects(&out).len(), 6, "and the image of study 3, which nothing lists");
    let found = records_by_id(&out);
    assert_eq!(found.len(), 14 - 3);
    let two = &found[&format!("padchest-gr/{}", image(&studies, 2))];
    let labels: Vec<&str> = two.boxes.iter().map(|found| found.label.as_str()).collect();
    assert_eq!((labels, two.boxes[0].x), (vec!["a", "b"], two.boxes[1].x), "a box of two labels is listed with each");
    fs::write(raw.join(JSON), "[1, 2").expect("written");
    let message = fails("ingest", 1, args!["padchest-gr", &raw, temporary.path().join("x")]);
    assert!(message.contains(JSON) && message.contains("EOF"), "{message}");
}
