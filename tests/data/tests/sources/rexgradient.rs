//! The source `rexgradient`.

use std::collections::BTreeSet;

use dataset::Dataset;
use helpers::{
    args, fails, files_with, folder, ingest, ok, phantom_of, read_text, records_by_id, rejects, rename, write_file,
};
use serde_json::{Map, Value, json};

use crate::shared::{no_images, says, verifies};

const SECTIONS: [&str; 4] = ["Indication", "Comparison", "Findings", "Impression"];

#[test]
fn sections_views_and_subsets_are_read() {
    let temporary = folder();
    let raw = phantom_of("rexgradient", temporary.path(), 50);
    let out = temporary.path().join("set");
    ingest("rexgradient", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    verifies(&out);
    let dataset = Dataset::open(&out).expect("a dataset");
    assert!(dataset.findings().is_empty());
    let found = records_by_id(&out);
    let (mut images, mut views, mut without) = (0, BTreeSet::new(), 0);
    for (part, subset) in [("train", "train"), ("valid", "validate"), ("test", "test")] {
        let text = read_text(&raw.join(format!("metadata/{part}_metadata_view_position.json")));
        let studies: Map<String, Value> = serde_json::from_str(&text).expect("JSON");
        for study in studies.values() {
            let text = |key: &str| study[key].as_str().filter(|text| *text != "None");
            let sections: Vec<(String, &str)> =
                SECTIONS.iter().filter_map(|name| Some((name.to_lowercase(), text(name)?.trim()))).collect();
            let lines: Vec<String> =
                sections.iter().map(|(name, text)| format!("{}: {text}", name.to_uppercase())).collect();
            for (number, path) in study["ImagePath"].as_array().expect("paths").iter().enumerate() {
                let path = path.as_str().and_then(|path| path.strip_prefix("../")).expect("a path");
                let name = path.rsplit('/').next().expect("a name").trim_end_matches(".png");
                let record = &found[&format!("rexgradient/{name}")];
                assert_eq!((record.source_path.as_str(), record.image_id.as_str()), (path, name));
                assert_eq!(
                    (Some(record.patient_id.as_str()), record.subset.as_deref()),
                    (text("PatientID"), Some(subset))
                );
                assert_eq!(
                    (Some(record.study_id.as_str()), record.sex.as_deref()),
                    (text("StudyInstanceUid"), text("PatientSex"))
                );
                let age = text("PatientAge").and_then(|age| age.trim_end_matches('Y').parse().ok());
                assert_eq!(record.age_years, age);
                let date = study["StudyDate"].to_string();
                assert_eq!(record.study_datetime, Some(format!("{}-{}-{}", &date[..4], &date[4..6], &date[6..])));
                let view = match study["ImageViewPosition"][number].as_str() {
                    Some("POSTERO_ANTERIOR") => Some("PA"),
                    Some("UNKNOWN") => None,
                    view => view,
                };
                assert_eq!(record.view.as_deref(), view);
                views.insert(view.map(str::to_owned));
                let stored: Vec<(String, &str)> =
                    record.texts.iter().map(|text| (text.name.clone(), text.text.as_str())).collect();
                assert_eq!(stored, sections);
                let of = |name: &str| sections.iter().find(|(own, _)| own == name).map(|(_, text)| *text);
                assert_eq!(
                    (record.findings.as_deref(), record.impression.as_deref()),
                    (of("findings"), of("impression"))
                );
                if sections.is_empty() {
                    assert_eq!((&record.report, &record.language), (&None, &None));
                    without += 1;
                } else {
                    assert_eq!(
                        (record.report.clone(), record.language.as_deref()),
                        (Some(lines.join("\n")), Some("en"))
                    );
                    assert!(record.texts.iter().all(|text| !text.token_ids.is_empty()) && !record.token_ids.is_empty());
                }
                images += 1;
            }
        }
    }
    assert_eq!((images, found.len()), (found.len(), files_with(&raw, ".png").len()));
    assert!(views.len() >= 4 && without < 12, "{views:?} {without}");
    let bare = no_images("rexgradient", &raw, &temporary.path().join("bare"), &[]);
    assert_eq!(bare.len(), images);
}

#[test]
fn faults_are_rejects() {
    let temporary = folder();
    let raw = phantom_of("rexgradient", temporary.path(), 10);
    // As a download has it.
    let name = "train_metadata_view_position.json";
    rename(&raw.join("metadata"), &raw.join("download/metadata"));
    let path = raw.join("download/metadata").join(name);
    let mut studies: Map<String, Value> = serde_json::from_str(&read_text(&path)).expect("JSON");
    let keys: Vec<String> = studies.keys().cloned().collect();
    studies[&keys[0]]["ImagePath"][0] = json!("../../secret/1.2.3.png");
    let lost = studies[&keys[1]]["ImagePath"][0].as_str().expect("a path").replace(".png", "9.png");
    studies[&keys[1]]["ImagePath"][0] = json!(&lost);
    studies.insert("strange".to_owned(), json!({"PatientID": 7}));
    write_file(&path, serde_json::to_vec(&studies).expect("JSON"));
    let out = temporary.path().join("set");
    ok("ingest", args!["rexgradient", &raw, &out, "--size", "64", "--vocab-size", "300", "--max-reject-rate", "1"]);
    says(&out, "../../secret/1.2.3.png", "table", "the path does not lead below deid_png/");
    says(&out, lost.trim_start_matches("../"), "read", "the file is missing");
    says(&out, &format!("download/metadata/{name}"), "table", "study \"strange\": another form");
    assert_eq!(rejects(&out).iter().filter(|reject| reject.error.contains("no table lists this file")).count(), 2);
    assert_eq!(rejects(&out).len(), 5);
    let message = fails("ingest", 1, args!["rexgradient", raw.join("deid_png"), temporary.path().join("x")]);
    assert!(message.contains("metadata/*_metadata_view_position.json"), "{message}");
}
