//! The source `taix-ray`.

use std::collections::BTreeMap;
use std::fs;

use dataset::Dataset;
use helpers::{
    args, fails, folder, ingest, label_codes, ok, phantom_of, read_text, records, records_by_id, rejects, write_file,
};

use crate::shared::{append, header, no_images, rows, says, verifies};

const HEADER: &str = "UID,PatientID,PhysicianID,StudyDate,Age,Sex,HeartSize,PulmonaryCongestion,PleuralEffusion_Right,\
    PleuralEffusion_Left,PulmonaryOpacities_Right,PulmonaryOpacities_Left,Atelectasis_Right,Atelectasis_Left";

#[test]
fn grades_labels_and_folds_are_read() {
    let temporary = folder();
    let raw = phantom_of("taix-ray", temporary.path(), 50);
    let table = raw.join("metadata/annotation.csv");
    assert_eq!(header(&table), HEADER);
    let findings: Vec<&str> = HEADER.split(',').skip(6).collect();
    let (annotations, folds) = (read_text(&table), read_text(&raw.join("metadata/split.csv")));
    for (fold, threshold) in [(0, 1), (3, 2)] {
        let out = temporary.path().join(format!("fold{fold}"));
        ingest("taix-ray", &raw, &out, &["--fold", &fold.to_string(), "--threshold", &threshold.to_string()]);
        assert_eq!(rejects(&out), []);
        verifies(&out);
        let dataset = Dataset::open(&out).expect("a dataset");
        assert_eq!(dataset.findings(), findings);
        let scales: Vec<(&str, usize)> =
            dataset.manifest().grades.iter().map(|scale| (scale.name.as_str(), scale.values.len())).collect();
        assert_eq!(
            scales,
            findings.iter().map(|name| (*name, if *name == "HeartSize" { 4 } else { 5 })).collect::<Vec<_>>()
        );
        let subset_of: BTreeMap<&str, &str> = rows(&folds)
            .into_iter()
            .filter(|row| row["Fold"] == fold.to_string())
            .map(|row| (row["UID"], if row["Split"] == "val" { "validate" } else { row["Split"] }))
            .collect();
        let found = records_by_id(&out);
        let mut seen: BTreeMap<i8, usize> = BTreeMap::new();
        for row in rows(&annotations) {
            let record = &found[&format!("taix-ray/{}", row["UID"])];
            assert_eq!((record.patient_id.as_str(), record.study_id.as_str()), (row["PatientID"], row["UID"]));
            assert_eq!(
                (record.image_id.as_str(), record.source_path.clone()),
                (row["UID"], format!("data/{}.png", row["UID"]))
            );
            assert_eq!(
                (record.subset.as_deref(), record.sex.as_deref()),
                (Some(subset_of[row["UID"]]), Some(row["Sex"]))
            );
            let days: f32 = row["Age"].parse().expect("days");
            assert_eq!(
                (record.age_years, record.study_datetime.as_deref()),
                (Some(days / 365.25), Some(row["StudyDate"]))
            );
            let grades: Vec<i8> = findings.iter().map(|name| row[name].parse().expect("a grade")).collect();
            assert_eq!(record.grades, grades.iter().copied().map(Some).collect::<Vec<_>>());
            assert_eq!(
                label_codes(record),
                grades.iter().map(|grade| Some(i8::from(*grade >= threshold))).collect::<Vec<_>>()
            );
            assert_eq!(record.label_origin.as_deref(), Some("radiologist"));
            grades.into_iter().for_each(|grade| *seen.entry(grade).or_default() += 1);
        }
        assert_eq!(found.len(), 50);
        assert!(seen.keys().eq(&[0, 1, 2, 3, 4]), "{seen:?}");
    }
    let message = fails("ingest", 1, args!["taix-ray", &raw, temporary.path().join("x"), "--fold", "5"]);
    assert!(message.contains("no row of fold 5"), "{message}");
    fs::remove_file(raw.join("metadata/split.csv")).expect("removed");
    let bare = no_images("taix-ray", &raw, &temporary.path().join("bare"), &[]);
    assert_eq!(bare.len(), 50);
    assert!(records(&temporary.path().join("bare")).iter().all(|record| record.subset.is_none()));
}

#[test]
fn other_grades_and_ages_in_years() {
    let temporary = folder();
    let raw = phantom_of("taix-ray", temporary.path(), 12);
    let table = raw.join("metadata/annotation.csv");
    let text = read_text(&table);
    let mut lines: Vec<Vec<String>> = text.lines().map(|line| line.split(',').map(str::to_owned).collect()).collect();
    // In years; a heart that could not be graded, a blank grade; grades of another scale.
    lines.iter_mut().skip(1).for_each(|line| line[4] = "71".to_owned());
    (lines[1][6], lines[1][7]) = ("-1".to_owned(), String::new());
    lines[2][6] = "4".to_owned();
    lines[3][7] = "mild".to_owned();
    lines[4][0] = "a/b".to_owned();
    let text: Vec<String> = lines.iter().map(|line| line.join(",")).collect();
    // The name in the owners' scripts, and in the folder itself.
    fs::remove_file(&table).expect("removed");
    write_file(&raw.join("metadata/annotations.csv"), text.join("\n"));
    append(&raw.join("metadata/split.csv"), "x,y,0,later\n");
    let out = temporary.path().join("set");
    ok("ingest", args!["taix-ray", &raw, &out, "--size", "64", "--max-reject-rate", "1"]);
    let name = "metadata/annotations.csv";
    says(&out, name, "table", "column `HeartSize`: `4` is no grade from 0 to 3");
    says(&out, name, "table", "column `PulmonaryCongestion`: `mild` is no grade from 0 to 4");
    says(&out, name, "table", "UID or PatientID is empty or no plain name");
    says(&out, "metadata/split.csv", "table", "not a UID, a fold and train, val or test");
    assert_eq!(rejects(&out).len(), 5, "and the image of the row without a UID");
    let found = records(&out);
    assert_eq!(found.len(), 12 - 3);
    assert!(found.iter().all(|record| record.age_years == Some(71.0)));
    let first = found.iter().find(|record| record.image_id == lines[1][0]).expect("a record");
    assert_eq!((first.grades[0], first.labels[0], first.grades[1], first.labels[1]), (None, None, None, None));
    assert!(first.grades[2].is_some() && first.labels[2].is_some());
}
