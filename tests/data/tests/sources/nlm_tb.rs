//! The source `nlm-tb`.

use std::fs;

use dataset::Dataset;
use dataset::format::image_codec;
use helpers::{
    args, fails, files_with, folder, ingest, label_codes, ok, phantom_of, read_text, records_by_id, rejects, write_file,
};

use crate::shared::{mask, no_images, says, share, verifies};

#[test]
fn readings_labels_and_masks_are_read() {
    let temporary = folder();
    let raw = phantom_of("nlm-tb", temporary.path(), 40);
    let out = temporary.path().join("set");
    ingest("nlm-tb", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    verifies(&out);
    let dataset = Dataset::open(&out).expect("a dataset");
    assert_eq!(dataset.findings(), ["Tuberculosis"]);
    assert_eq!(dataset.manifest().masks, ["left_lung", "right_lung", "lungs"]);
    let found = records_by_id(&out);
    let images: Vec<String> = files_with(&raw, ".png").into_iter().filter(|path| path.contains("/CXR_png/")).collect();
    assert_eq!((found.len(), images.len()), (40, 40));
    let (mut ill, mut of_county, mut unmasked) = (0, 0, 0);
    for path in &images {
        let (set, name) = path.split_once("/CXR_png/").expect("a set");
        let name = name.trim_end_matches(".png");
        let record = &found[&format!("nlm-tb/{name}")];
        let (patient, code) = name.rsplit_once('_').expect("a label");
        assert_eq!((record.patient_id.as_str(), record.study_id.as_str()), (patient, patient));
        assert_eq!((record.image_id.as_str(), record.source_path.as_str()), (name, path.as_str()));
        assert_eq!(label_codes(record), [code.parse().ok()]);
        let reading = read_text(&raw.join(set).join("ClinicalReadings").join(format!("{name}.txt")));
        let mut lines = reading.lines();
        let (sex, age) = if set == "MontgomerySet" {
            let sex = lines.next().and_then(|line| line.strip_prefix("Patient's Sex: ")).expect("a sex");
            (
                sex,
                lines
                    .next()
                    .and_then(|line| line.strip_prefix("Patient's Age: "))
                    .expect("an age")
                    .trim_end_matches('Y'),
            )
        } else {
            let (sex, age) = lines.next().and_then(|line| line.split_once(' ')).expect("a sex and an age");
            (if sex == "female" { "F" } else { "M" }, age.trim_end_matches("yrs"))
        };
        assert_eq!((record.sex.as_deref(), record.age_years), (Some(sex), age.parse().ok()));
        let text = lines.collect::<Vec<_>>().join("\n");
        assert_eq!((record.report.as_deref(), record.language.as_deref()), (Some(text.as_str()), Some("en")));
        let raw_mask = |place: String| image_codec::decode(&fs::read(raw.join(set).join(place)).ok()?).ok();
        let files = [
            ("left_lung", raw_mask(format!("ManualMask/leftMask/{name}.png"))),
            ("right_lung", raw_mask(format!("ManualMask/rightMask/{name}.png"))),
            ("lungs", raw_mask(format!("mask/{name}_mask.png"))),
        ];
        for (kind, file) in files {
            let stored = mask(record, kind);
            assert_eq!(stored.is_some(), file.is_some(), "{name} {kind}");
            if let (Some(stored), Some(file)) = (stored, file) {
                let (own, whole) = (share(&stored), share(&file));
                assert!(whole > 0.02 && (own / whole - 1.0).abs() < 0.1, "{name} {kind}: {own} of {whole}");
            }
        }
        unmasked += usize::from(record.masks.is_empty());
        ill += usize::from(code == "1");
        of_county += usize::from(set == "MontgomerySet");
    }
    assert!(ill > 4 && of_county > 8 && unmasked > 1, "{ill} {of_county} {unmasked}");
    // The patient's left is on the right of an image.
    let center = |name: &str, kind: &str| {
        let mask = mask(&found[name], kind).expect("a mask");
        let columns: Vec<usize> =
            (0..mask.pixels.len()).filter(|at| mask.pixels[*at] > 0).map(|at| at % mask.width as usize).collect();
        columns.iter().sum::<usize>() / columns.len()
    };
    let first = found.iter().find(|(_, record)| record.masks.len() == 2).expect("a record").0;
    assert!(center(first, "left_lung") > center(first, "right_lung"));

    // One set alone, and the readings alone.
    let one = temporary.path().join("one");
    ingest("nlm-tb", &raw.join("MontgomerySet"), &one, &[]);
    assert_eq!(records_by_id(&one).len(), of_county);
    let bare = no_images("nlm-tb", &raw, &temporary.path().join("bare"), &[]);
    assert_eq!(helpers::dataset_codes(&bare), found.values().map(label_codes).collect::<Vec<_>>());
}

#[test]
fn faults_are_rejects() {
    let temporary = folder();
    let raw = phantom_of("nlm-tb", temporary.path(), 12);
    let images: Vec<String> =
        files_with(&raw, ".png").into_iter().filter(|path| path.contains("MontgomerySet/CXR_png/")).collect();
    let rename = |from: &str, to: &str| fs::rename(raw.join(from), raw.join(to)).expect("renamed");
    let set = "MontgomerySet";
    // A name without a label; a mask of another size, a damaged one, one without an image; no reading; a copy.
    rename(&images[0], &format!("{set}/CXR_png/MCUCXR_9999.png"));
    let left = |path: &str| path.replace("CXR_png", "ManualMask/leftMask");
    let small = fs::read(raw.join(left(&images[1]))).expect("a mask");
    let small = image_codec::decode(&small).expect("a mask");
    helpers::write_png(&raw.join(left(&images[1])), small.width + 1, small.height);
    write_file(&raw.join(left(&images[2])), "no picture");
    fs::remove_file(raw.join(images[3].replace("CXR_png", "ClinicalReadings").replace(".png", ".txt")))
        .expect("removed");
    fs::copy(raw.join(&images[3]), raw.join("MontgomerySet").join(images[3].rsplit('/').next().expect("a name")))
        .expect("copied");
    write_file(&raw.join("ChinaSet_AllFiles/Annotations-2/masks/CHNCXR_0327_1_Cavity_1.png"), "not read");
    let out = temporary.path().join("set");
    ok("ingest", args!["nlm-tb", &raw, &out, "--size", "64", "--vocab-size", "300", "--max-reject-rate", "1"]);
    says(&out, &format!("{set}/CXR_png/MCUCXR_9999.png"), "plan", "does not end with _0 or _1");
    says(&out, &images[1], "decode", &format!("its mask {}: it has", left(&images[1])));
    says(&out, &images[2], "decode", &format!("its mask {}: it is neither a PNG nor a JPEG", left(&images[2])));
    says(&out, &left(&images[0]), "plan", "there is no image of this name");
    let doubled =
        rejects(&out).into_iter().filter(|reject| reject.error.contains("another file has the same name")).count();
    assert_eq!(doubled, 1);
    // The reading and the other mask of the first image, too.
    assert_eq!(rejects(&out).len(), 7);
    let found = records_by_id(&out);
    assert_eq!(found.len(), 12 - 3);
    let unread = found.values().filter(|record| record.report.is_none());
    assert_eq!(unread.map(|record| (&record.sex, record.age_years)).collect::<Vec<_>>(), [(&None, None)]);
    let message = fails("ingest", 1, args!["nlm-tb", helpers::folder().path(), temporary.path().join("x")]);
    assert!(message.contains("MCUCXR_*.png"), "{message}");
}
