//! The source `kermany`.

use std::fs;

use dataset::Dataset;
use helpers::{
    args, fails, files_with, folder, ingest, label_codes, ok, phantom_of, records, records_by_id, rejects, rename,
};

use crate::shared::{says, verifies};

#[test]
fn names_and_folders_state_the_labels() {
    let temporary = folder();
    let raw = phantom_of("kermany", temporary.path(), 120);
    let out = temporary.path().join("set");
    ingest("kermany", &raw, &out, &[]);
    assert_eq!(rejects(&out), []);
    verifies(&out);
    assert_eq!(
        Dataset::open(&out).expect("a dataset").findings(),
        ["Pneumonia", "Pneumonia/Bacterial", "Pneumonia/Viral"]
    );
    let all = records(&out);
    assert_eq!((all.len(), files_with(&raw, ".jpeg").len()), (120, 120));
    let mut counts = [0; 3];
    for record in &all {
        let [_, folder, class, file] = record.source_path.split('/').collect::<Vec<_>>()[..] else {
            panic!("four parts")
        };
        let subset = if folder == "val" { "validate" } else { folder };
        let name = file.trim_end_matches(".jpeg");
        assert_eq!(record.record_id, format!("kermany/{subset}/{class}/{name}"));
        assert_eq!((record.subset.as_deref(), record.image_id.as_str()), (Some(subset), name));
        let patient = if class == "NORMAL" { &name[..7] } else { name.split('_').next().expect("a patient") };
        assert_eq!(record.patient_id, format!("{subset}/{patient}"));
        let kind = [class == "NORMAL", name.contains("bacteria"), name.contains("virus")];
        assert_eq!(label_codes(record), [Some(i8::from(!kind[0])), Some(i8::from(kind[1])), Some(i8::from(kind[2]))]);
        assert_eq!(record.label_origin.as_deref(), Some("physician"));
        kind.iter().zip(&mut counts).for_each(|(is, count)| *count += usize::from(*is));
    }
    assert!(counts.iter().sum::<usize>() == 120 && counts.iter().all(|count| *count > 1), "{counts:?}");
    let patients: std::collections::BTreeSet<_> = all.iter().map(|record| &record.patient_id).collect();
    assert!(patients.len() < 120, "several images of a patient");
}

#[test]
fn other_names_and_a_copy_within_the_archive() {
    let temporary = folder();
    let raw = phantom_of("kermany", temporary.path(), 12);
    let normal = files_with(&raw, ".jpeg").into_iter().find(|path| path.contains("train/NORMAL")).expect("an image");
    let copy = |to: &str| {
        let path = raw.join("chest_xray").join(to);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::copy(raw.join(&normal), path).expect("copied");
    };
    copy("train/PNEUMONIA/BACTERIA-7422-0001.jpeg");
    copy("train/PNEUMONIA/VIRUS-7422-0002.jpeg");
    copy("train/PNEUMONIA/unknown.jpeg");
    copy("train/NORMAL/person5_virus_1.jpeg");
    copy("train/OTHER/a.jpeg");
    copy("train/NORMAL/._IM-0001-0001.jpeg");
    // The archive has a copy of itself.
    copy("chest_xray/train/NORMAL/IM-0001-0001.jpeg");
    let out = temporary.path().join("set");
    ok("ingest", args!["kermany", &raw, &out, "--size", "64", "--max-reject-rate", "1"]);
    says(&out, "chest_xray/train/NORMAL/person5_virus_1.jpeg", "plan", "the folder is NORMAL");
    says(&out, "chest_xray/train/OTHER/a.jpeg", "plan", "neither NORMAL nor PNEUMONIA");
    assert_eq!(rejects(&out).len(), 2);
    let found = records_by_id(&out);
    assert_eq!(found.len(), 12 + 3);
    let one = |name: &str| &found[&format!("kermany/train/PNEUMONIA/{name}")];
    assert_eq!(label_codes(one("unknown")), [Some(1), None, None]);
    assert_eq!(label_codes(one("BACTERIA-7422-0001")), [Some(1), Some(1), Some(0)]);
    assert_eq!(one("BACTERIA-7422-0001").patient_id, one("VIRUS-7422-0002").patient_id);

    let inner = temporary.path().join("inner");
    rename(&raw.join("chest_xray"), &inner);
    ok("ingest", args!["kermany", &inner, temporary.path().join("x"), "--dry-run"]);
    let message = fails("ingest", 1, args!["kermany", &raw, temporary.path().join("y")]);
    assert!(message.contains("train/NORMAL/*.jpeg"), "{message}");
}
