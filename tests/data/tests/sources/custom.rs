//! A source that a user adds: `ingest/examples/custom_source.rs`.

use std::fs;

use dataset::format::image_codec::GrayPixels;
use dataset::format::record::ImageEncoding;
use helpers::{args, binary, folder, ok, records, text};

use crate::shared::says;

/// The example of a custom source has records, rejects and options like any other source.
#[test]
fn a_custom_source_is_a_subcommand() {
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
    let (code, message) = run(&["--max-reject-rate", "0.5"]);
    assert_eq!(code, Some(0), "{message}");
    let found: Vec<_> =
        records(&out).into_iter().map(|record| (record.record_id, record.patient_id, record.labels)).collect();
    let of = |id: &str, patient: &str, code| {
        (format!("ward/{id}"), patient.to_owned(), vec![dataset::Label::from_code(code)])
    };
    assert_eq!(found, [of("p1-s1", "p1", 1), of("p1-s2", "p1", 0), of("p2-s1", "p2", 0)]);
    says(&out, "p3-s1.png", "decode", "");
    assert!(ok("dataset", args!["verify", &out]).contains("3 records, all whole"));
    let (code, message) = run(&["--size", "none"]);
    assert!(code == Some(2) && message.contains("--size"), "{message}");
    let (code, message) = run(&["--max-reject-rate", "0.5"]);
    assert!(code == Some(0) && message.contains("nothing to do"), "{message}");
}
