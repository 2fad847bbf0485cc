//! Suspicious records: images of one value, text in the pixels, views that contradict the header.

use std::collections::BTreeSet;
use std::path::Path;

use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
use dicom_dictionary_std::tags;
use helpers::{SMALL, args, command, files_with, folder, phantom, read_text, records_by_id, rejects, text, write_file};

/// Changes elements of a DICOM file.
fn change(path: &Path, elements: &[(Tag, VR, PrimitiveValue)]) {
    let mut object = dicom_object::open_file(path).expect("a DICOM file");
    for (tag, vr, value) in elements {
        object.put(DataElement::new(*tag, *vr, value.clone()));
    }
    object.write_to_file(path).expect("written");
}

#[test]
fn suspicious_records_are_counted_named_and_rejected_on_request() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 20);
    let images = files_with(&raw, ".dcm");
    let id = |at: usize| Path::new(&images[at]).file_stem().expect("a name").to_string_lossy().into_owned();
    // A constant image, text in the pixels of another one, and a lateral view in the table with a frontal header.
    let path = raw.join(&images[0]);
    let count = dicom_object::open_file(&path)
        .expect("a file")
        .element(tags::PIXEL_DATA)
        .expect("pixels")
        .to_bytes()
        .expect("bytes")
        .len()
        / 2;
    change(&path, &[(tags::PIXEL_DATA, VR::OW, PrimitiveValue::U16(vec![700; count].into()))]);
    change(&raw.join(&images[1]), &[(tags::BURNED_IN_ANNOTATION, VR::CS, "YES".into())]);
    change(&raw.join(&images[2]), &[(tags::BURNED_IN_ANNOTATION, VR::CS, "NO".into())]);
    let table = files_with(&raw, "metadata.csv.gz").remove(0);
    let metadata = read_text(&raw.join(&table));
    let frontal = (3..images.len()).find(|&at| {
        let line = metadata.lines().find(|line| line.contains(&id(at))).expect("a row");
        line.contains(",PA,")
    });
    let frontal = frontal.expect("a PA image");
    let lines = metadata.lines().map(|line| {
        let line = if line.contains(&id(frontal)) { line.replace(",PA,", ",LATERAL,") } else { line.to_owned() };
        line + "\n"
    });
    write_file(&raw.join(&table), lines.collect::<String>());

    let run = |name: &str, more: &[&str]| {
        let out = temporary.path().join(name);
        let mut ingest = command("ingest");
        ingest.args(args!["mimic-cxr", &raw, &out, "--max-reject-rate", "1"]).args(SMALL).args(more);
        let output = ingest.output().expect("the binary starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        (out, text(&output.stderr))
    };
    let (out, warnings) = run("kept", &[]);
    for line in [
        format!("warning: 1 record with an image of one gray level: mimic-cxr/{};", id(0)),
        format!(
            "warning: 1 record with text in the pixels by BurnedInAnnotation, which may name the patient: mimic-cxr/{};",
            id(1)
        ),
        format!(
            "warning: 1 record whose view is contradicted: mimic-cxr/{} (the table says LATERAL, the header PA);",
            id(frontal)
        ),
    ] {
        assert!(warnings.contains(&line), "{line}\n{warnings}");
    }
    assert_eq!(records_by_id(&out).len(), images.len());
    let (out, warnings) = run("strict", &["--reject-constant", "--reject-burned-in"]);
    assert!(!warnings.contains("gray level:") && warnings.contains("contradicted"), "{warnings}");
    let found: BTreeSet<_> =
        rejects(&out).into_iter().map(|reject| (reject.source_path, reject.stage, reject.error)).collect();
    let expected = [
        (0, "all pixels have one value"),
        (1, "the pixels have text by BurnedInAnnotation, which may name the patient"),
    ];
    let expected = expected.map(|(at, error)| (images[at].clone(), "decode".to_owned(), error.to_owned()));
    assert_eq!(found, BTreeSet::from(expected));
    assert_eq!(records_by_id(&out).len(), images.len() - 2);
    // Tasks count the same.
    for task in ["0/2", "1/2"] {
        let (_, printed) = run("tasks", &["--task", task]);
        assert_eq!(printed.contains("contradicted"), task == "1/2", "{printed}");
    }
}
