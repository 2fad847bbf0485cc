//! The source `siim-covid`.

use std::collections::BTreeMap;
use std::fs;

use dataset::Dataset;
use helpers::{args, files_with, folder, label_codes, ok, phantom_of, records, rejects};

use crate::shared::{append, header, quoted_rows, says, verifies};

const APPEARANCES: [&str; 4] =
    ["Negative for Pneumonia", "Typical Appearance", "Indeterminate Appearance", "Atypical Appearance"];

/// The boxes of a label: `opacity 1 LEFT TOP RIGHT BOTTOM …`.
fn corners(label: &str) -> Vec<[f32; 4]> {
    let words: Vec<&str> = label.split(' ').collect();
    let boxes = words.chunks_exact(6).filter(|words| words[0] == "opacity");
    boxes.map(|words| std::array::from_fn(|at| words[at + 2].parse().expect("a number"))).collect()
}

#[test]
fn appearances_and_boxes_are_read() {
    let temporary = folder();
    let raw = phantom_of("siim-covid", temporary.path(), 60);
    assert_eq!(header(&raw.join("train_study_level.csv")), format!("id,{}", APPEARANCES.join(",")));
    assert_eq!(header(&raw.join("train_image_level.csv")), "id,boxes,label,StudyInstanceUID");
    let out = temporary.path().join("set");
    // Images are stored in their own size, so boxes keep their coordinates.
    ok("ingest", args!["siim-covid", &raw, &out, "--size", "512"]);
    assert_eq!(rejects(&out), []);
    verifies(&out);
    assert_eq!(Dataset::open(&out).expect("a dataset").findings(), APPEARANCES);
    let studies: BTreeMap<String, Vec<Option<i8>>> = quoted_rows(&raw.join("train_study_level.csv"))
        .into_iter()
        .map(|row| {
            let codes = APPEARANCES.map(|name| row[name].as_deref().map(|code| i8::from(code == "1"))).to_vec();
            (row["id"].clone().expect("an id"), codes)
        })
        .collect();
    let images: BTreeMap<String, _> = quoted_rows(&raw.join("train_image_level.csv"))
        .into_iter()
        .map(|row| (row["id"].clone().expect("an id"), row))
        .collect();
    let all = records(&out);
    assert_eq!(all.len(), files_with(&raw, ".dcm").len());
    let (mut drawn, mut in_test) = (0, 0);
    for record in &all {
        let parts: Vec<&str> = record.source_path.split('/').collect();
        assert_eq!((record.patient_id.as_str(), record.study_id.as_str()), (parts[1], parts[1]));
        assert_eq!((record.subset.as_deref(), parts.len()), (Some(parts[0]), 4));
        assert_eq!(format!("{}.dcm", record.image_id), parts[3]);
        assert!(record.sex.is_some() && record.age_years.is_some());
        if parts[0] == "test" {
            assert!(
                record.labels.iter().all(Option::is_none) && record.label_origin.is_none() && record.boxes.is_empty()
            );
            in_test += 1;
            continue;
        }
        assert_eq!(record.label_origin.as_deref(), Some("radiologist"));
        let row = &images[&format!("{}_image", record.image_id)];
        assert_eq!(row["StudyInstanceUID"].as_deref(), Some(parts[1]));
        assert_eq!(label_codes(record), studies[&format!("{}_study", parts[1])]);
        let boxes = record.boxes.iter().map(|b| [b.x, b.y, b.x + b.width, b.y + b.height]);
        assert_eq!(boxes.collect::<Vec<_>>(), corners(row["label"].as_deref().expect("a label")));
        assert!(record.boxes.iter().all(|found| found.label == "Opacity"));
        drawn += record.boxes.len();
    }
    assert!(drawn > 10 && in_test > 5, "{drawn} {in_test}");
    let positives = |at: usize| studies.values().filter(|codes| codes[at] == Some(1)).count();
    assert!((0..4).all(|at| positives(at) > 0), "each appearance is there");
}

#[test]
fn faults_are_rejects() {
    let temporary = folder();
    let raw = phantom_of("siim-covid", temporary.path(), 20);
    let (studies, images) = (raw.join("train_study_level.csv"), raw.join("train_image_level.csv"));
    let listed: Vec<(String, String)> = quoted_rows(&images)
        .into_iter()
        .map(|row| (row["id"].clone().expect("an id"), row["StudyInstanceUID"].clone().expect("a study")))
        .collect();
    let of_study = |study: &str| listed.iter().filter(|(_, own)| own == study).count();
    let ((a, first), (b, second)) =
        (&listed[0], listed.iter().find(|(_, study)| *study != listed[0].1).expect("another study"));
    // A later row of the same identifier replaces the earlier one.
    append(&studies, &format!("{first}_study,1,1,0,0\n,1,0,0,0\n"));
    append(&images, &format!("{b},\"[{{'x': 1, 'y': 2, 'width': 3}}]\",opacity,{second}\n"));
    append(&images, "gone_image,,none 1 0 0 1 1,nostudy\n");
    fs::write(raw.join("train/new.dcm"), "x").expect("written");
    let out = temporary.path().join("set");
    ok("ingest", args!["siim-covid", &raw, &out, "--max-reject-rate", "1", "--size", "64"]);
    let file = |id: &str| {
        let name = format!("{}.dcm", id.trim_end_matches("_image"));
        files_with(&raw, &name).into_iter().next().expect("a file")
    };
    says(&out, &file(a), "table", "not one of the four appearances is 1 and the others 0");
    says(&out, &file(b), "table", "boxes: not a list of x, y, width and height");
    says(&out, "train_study_level.csv", "table", "id is empty");
    says(&out, "train/gone.dcm", "table", "train_study_level.csv does not have study nostudy");
    says(&out, "train/new.dcm", "plan", "no table lists this file");
    assert_eq!(rejects(&out).len(), 4 + of_study(first));
    assert_eq!(records(&out).len() + 1 + of_study(first), files_with(&raw, ".dcm").len() - 1);
}
