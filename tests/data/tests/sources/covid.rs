//! The source `covid`.

use dataset::Dataset;
use dataset::format::record::Record;
use helpers::{args, folder, ingest, ok, phantom_of, read_text, real_data, records_by_id, rejects, write_file};
use ingest::sources::shared::table::{Table, texts};

#[test]
fn a_phantom_is_ingested() {
    let temporary = folder();
    let raw = phantom_of("covid", temporary.path(), 60);
    let out = temporary.path().join("set");
    ingest("covid", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    let header = read_text(&raw.join("metadata.csv")).lines().next().expect("a header").to_owned();
    if let Some(data) = real_data() {
        let real = read_text(&data.join("covid-chestxray/metadata.csv"));
        assert_eq!(Some(header.as_str()), real.lines().next());
    }
    let table = Table::read(&raw, &raw.join("metadata.csv"), &[]).expect("a table").frame;
    let column = |name: &str| texts(&table, name).expect("a column");
    let (names, finding, notes, view) =
        (column("filename"), column("finding"), column("clinical_notes"), column("view"));
    let (patient, offset) = (column("patientid"), column("offset"));
    let found = records_by_id(&out);
    let dataset = Dataset::open(&out).expect("a dataset");
    assert_eq!(found.len(), names.len());
    let code = |record: &Record, name: &str| {
        helpers::label_codes(record)[dataset.findings().iter().position(|finding| finding == name).expect("a finding")]
    };
    for row in 0..names.len() {
        let record = &found[&format!("covid/{}", names[row].expect("a name"))];
        assert_eq!(record.report.as_deref(), notes[row]);
        assert_eq!(record.view.as_deref(), view[row].map(|view| if view == "L" { "LATERAL" } else { view }));
        assert_eq!(record.study_id, format!("{}/{}", patient[row].expect("one"), offset[row].expect("one")));
        let origin = record.label_origin.as_deref();
        match finding[row].expect("a finding") {
            "todo" => assert!(record.labels.iter().all(Option::is_none) && origin.is_none()),
            name => {
                assert_eq!(origin, Some("publication"));
                assert_eq!(code(record, name), Some(1));
                assert_eq!(code(record, "Pneumonia"), Some(i8::from(name.starts_with("Pneumonia"))));
                assert_eq!(code(record, "No Finding"), Some(i8::from(name == "No Finding")));
            }
        }
    }
    // The table alone gives the same records, without images.
    let bare = temporary.path().join("bare");
    write_file(&bare.join("metadata.csv.gz"), read_text(&raw.join("metadata.csv")));
    let out = temporary.path().join("bare-set");
    ingest("covid", &bare, &out, &["--no-images"]);
    assert_eq!(rejects(&out), []);
    let bare = records_by_id(&out);
    assert!(bare.values().zip(found.values()).all(|(a, b)| a.labels == b.labels && a.token_ids == b.token_ids));
    assert_eq!(bare.len(), found.len());
}

#[test]
fn the_real_covid_set_is_ingested() {
    let Some(data) = real_data() else { return };
    let temporary = folder();
    let out = temporary.path().join("set");
    let message = ingest("covid", &data.join("covid-chestxray"), &out, &["--max-reject-rate", "0.1"]);
    assert!(message.contains("543 records"), "{message}");
    let found = rejects(&out);
    assert_eq!(found.len(), 28, "the CT slices");
    assert!(found.iter().all(|reject| reject.stage == "table" && reject.error.contains("CT")), "{found:?}");
    let dataset = Dataset::open(&out).expect("a dataset");
    let at = dataset.findings().iter().position(|name| name == "Pneumonia/Viral/COVID-19").expect("a label");
    let labels = helpers::dataset_codes(&dataset);
    assert!(labels.iter().filter(|codes| codes[at] == Some(1)).count() > 300);
    assert_eq!(labels.iter().filter(|codes| codes.iter().all(Option::is_none)).count(), 66, "not labeled yet");
    assert!(ok("dataset", args!["verify", &out]).contains("543 records, all whole"));
    let printed = ok("dataset", args!["split", &out, "--name", "main", "--ratios", "10,100"]);
    assert!(printed.contains("patients in more than one subset: 0"), "{printed}");
}
