//! The source `candid-ptx`.

use std::collections::BTreeMap;
use std::fs;

use dataset::Dataset;
use dataset::format::image_codec::GrayPixels;
use helpers::{args, fails, files_with, folder, label_codes, ok, phantom_of, read_text, records_by_id, rejects};
use ingest::image::mask::Runs;

use crate::shared::{append, header, mask, no_images, quoted_rows, rows, says, verifies};

const KINDS: [(&str, &str); 3] =
    [("Pneumothorax", "pneumothorax"), ("Chest Tube", "chest_tube"), ("Acute Rib Fracture", "acute_rib_fracture")];

/// Whether a mask has exactly the pixels of run lengths; the image has its own size.
fn is_drawn(mask: &GrayPixels, runs: &str) -> bool {
    let drawn = Runs::parse(runs).expect("runs").draw(mask.width, mask.height).expect("a mask");
    drawn.iter().zip(&mask.pixels).all(|(a, b)| (*a == 1) == (*b == 255))
}

#[test]
fn reports_and_masks_of_three_kinds_are_read() {
    let temporary = folder();
    let raw = phantom_of("candid-ptx", temporary.path(), 80);
    assert_eq!(header(&raw.join("Pneumothorax_reports.csv")), "filename,SOPInstanceUID,EncodedPixels,Report");
    let further = ["chest_tube.csv", "acute_rib_fracture.csv"].map(|name| {
        assert_eq!(header(&raw.join(name)), "anon_SOPUID,mask_rle");
        let text = read_text(&raw.join(name));
        rows(&text)
            .iter()
            .map(|row| (row["anon_SOPUID"].to_owned(), row["mask_rle"].to_owned()))
            .collect::<BTreeMap<_, _>>()
    });
    let out = temporary.path().join("set");
    // Images and masks are stored in their own size.
    ok("ingest", args!["candid-ptx", &raw, &out, "--size", "512", "--vocab-size", "300"]);
    assert_eq!(rejects(&out), []);
    verifies(&out);
    let dataset = Dataset::open(&out).expect("a dataset");
    assert_eq!(dataset.findings(), KINDS.map(|(finding, _)| finding));
    assert_eq!(dataset.manifest().masks, KINDS.map(|(_, name)| name));
    let found = records_by_id(&out);
    let mut marked = [0; 3];
    for row in quoted_rows(&raw.join("Pneumothorax_reports.csv")) {
        let id = row["SOPInstanceUID"].clone().expect("an image");
        let record = &found[&format!("candid-ptx/{id}")];
        let patient = row["filename"].as_deref().and_then(|name| name.split('_').next());
        assert_eq!((Some(record.patient_id.as_str()), &record.study_id, &record.image_id), (patient, &id, &id));
        assert_eq!(record.source_path, format!("dataset/{id}"));
        let report = row["Report"].as_deref().expect("a report");
        assert_eq!((record.report.as_deref(), record.language.as_deref()), (Some(report.trim()), Some("en")));
        assert_eq!((record.subset.as_deref(), record.label_origin.as_deref()), (None, Some("radiologist")));
        assert!(record.view.is_some() && record.sex.is_some(), "from the header");
        let runs = [row["EncodedPixels"].as_ref(), further[0].get(&id), further[1].get(&id)]
            .map(|runs| runs.map_or("-1", String::as_str));
        for (kind, (_, name)) in KINDS.iter().enumerate() {
            let is_positive = runs[kind] != "-1";
            assert_eq!(label_codes(record)[kind], Some(i8::from(is_positive)));
            assert!(is_drawn(&mask(record, name).expect("a mask"), runs[kind]), "{id} {name}");
            marked[kind] += usize::from(is_positive);
        }
    }
    assert_eq!(found.len(), 80);
    assert!(marked.iter().all(|count| *count > 0), "{marked:?}");
    let bare = no_images("candid-ptx", &raw, &temporary.path().join("bare"), &[]);
    assert_eq!(helpers::dataset_codes(&bare), found.values().map(label_codes).collect::<Vec<_>>());
}

#[test]
fn faults_are_rejects() {
    let temporary = folder();
    let raw = phantom_of("candid-ptx", temporary.path(), 12);
    let table = raw.join("Pneumothorax_reports.csv");
    let rows: Vec<Vec<String>> = quoted_rows(&table)
        .into_iter()
        .map(|row| {
            ["filename", "SOPInstanceUID", "EncodedPixels"].map(|name| row[name].clone().expect("a cell")).to_vec()
        })
        .collect();
    let negative: Vec<&Vec<String>> = rows.iter().filter(|row| row[2] == "-1").collect();
    let id = |at: usize| negative[at][1].as_str();
    let line = |row: &Vec<String>| {
        let runs = match row[1].as_str() {
            own if own == id(0) => "0 20",
            own if own == id(1) => "",
            own if own == id(2) => "4 5 6",
            own if own == id(3) => "9999999 5",
            _ => &row[2],
        };
        let name = if row[1] == id(4) { "scan 7" } else { &row[0] };
        format!("{name},{},{runs},Line one.\n", row[1])
    };
    let text: String = rows.iter().map(line).collect();
    let more = format!("{},{},20 20,Line one.\nP1_1,gone,-1,None.\nP1_2,,1 2,None.\n", negative[0][0], id(0));
    fs::write(&table, format!("filename,SOPInstanceUID,EncodedPixels,Report\n{text}{more}")).expect("written");
    append(&raw.join("chest_tube.csv"), "7.7.7,1 2\n");
    fs::write(raw.join("dataset/1.1.1"), "x").expect("written");
    // Some copies gave the files an extension.
    fs::rename(raw.join("dataset").join(id(4)), raw.join("dataset").join(format!("{}.dcm", id(4)))).expect("renamed");
    let out = temporary.path().join("set");
    ok("ingest", args!["candid-ptx", &raw, &out, "--size", "512", "--vocab-size", "300", "--max-reject-rate", "1"]);
    let file = |at: usize| format!("dataset/{}", id(at));
    says(&out, &file(2), "table", "3 numbers make no pairs");
    says(&out, &file(3), "decode", "the mask reaches pixel");
    says(&out, "dataset/gone", "read", "the file is missing");
    says(&out, "Pneumothorax_reports.csv", "table", "SOPInstanceUID is empty");
    says(&out, "chest_tube.csv", "table", "7.7.7: Pneumothorax_reports.csv does not have this image");
    says(&out, "dataset/1.1.1", "plan", "no table lists this file");
    assert_eq!(rejects(&out).len(), 6);
    let found = records_by_id(&out);
    assert_eq!(found.len(), 12 - 2);
    let record = |at: usize| &found[&format!("candid-ptx/{}", id(at))];
    assert!(is_drawn(&mask(record(0), "pneumothorax").expect("a mask"), "0 40"), "the union of two rows");
    assert_eq!((record(1).labels[0], mask(record(1), "pneumothorax")), (None, None), "a blank cell states nothing");
    assert!(mask(record(1), "chest_tube").is_some());
    assert_eq!(
        (record(4).patient_id.as_str(), record(4).source_path.clone()),
        (id(4), format!("dataset/{}.dcm", id(4)))
    );
    assert_eq!(files_with(&raw, ".dcm").len(), 1);

    // Without the two further tables, there is one finding.
    fs::remove_file(raw.join("chest_tube.csv")).expect("removed");
    fs::remove_file(raw.join("acute_rib_fracture.csv")).expect("removed");
    let bare = no_images("candid-ptx", &raw, &temporary.path().join("bare"), &["--max-reject-rate", "1"]);
    assert_eq!(bare.findings(), ["Pneumothorax"]);
    let message = fails("ingest", 1, args!["candid-ptx", raw.join("dataset"), temporary.path().join("x")]);
    assert!(message.contains("Pneumothorax_reports.csv"), "{message}");
}
