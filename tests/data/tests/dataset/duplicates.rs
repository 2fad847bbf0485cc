//! Equal images: `dataset inspect --duplicates` and `dataset split --keep-duplicates-together`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use dataset::Subset;
use helpers::splits::certificate;
use helpers::{args, fails, files_with, folder, ingest, ok, phantom, records, records_by_id};
use serde_json::Value;

/// A raw directory in which images of other patients are copies, and the groups of their record identifiers: one of three
/// patients, one that joins another patient to them by a chain, and one of two images of other patients.
fn planted(folder: &Path) -> (std::path::PathBuf, Vec<BTreeSet<String>>) {
    let raw = phantom(folder, 60);
    // One image for each patient, but two of the second patient of the chain.
    let mut by_patient: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in files_with(&raw, ".dcm") {
        by_patient.entry(name.split('/').nth(2).expect("a patient").to_owned()).or_default().push(name);
    }
    let (two, one): (Vec<_>, Vec<_>) = by_patient.into_values().partition(|images| images.len() > 1);
    let groups = [vec![&one[0][0], &one[1][0], &two[0][0]], vec![&two[0][1], &one[2][0]], vec![&one[3][0], &one[4][0]]];
    let id = |name: &str| format!("mimic-cxr/{}", Path::new(name).file_stem().expect("a name").to_string_lossy());
    for group in &groups {
        for copy in &group[1..] {
            fs::copy(raw.join(group[0]), raw.join(copy)).expect("copied");
        }
    }
    let ids = groups.iter().map(|group| group.iter().map(|name| id(name)).collect()).collect();
    (raw, ids)
}

fn inspected(out: &Path, more: &[&str]) -> Value {
    let words = args!["inspect", out, "--duplicates", "--json"];
    let page = ok("dataset", words.into_iter().chain(more.iter().map(Into::into)));
    serde_json::from_str(&page).expect("JSON")
}

#[test]
fn equal_images_are_listed_and_kept_in_one_subset() {
    let temporary = folder();
    let (raw, groups) = planted(temporary.path());
    let out = temporary.path().join("set");
    ingest("mimic-cxr", &raw, &out, &["--image-encoding", "png"]);
    let all = records_by_id(&out);
    let found = inspected(&out, &[]);
    let listed: Vec<BTreeSet<String>> = found["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .map(|group| {
            let records = group.as_array().expect("records").iter();
            records
                .map(|record| {
                    let record_id = record["record_id"].as_str().expect("an identifier");
                    assert_eq!(record["patient_id"], all[record_id].patient_id.as_str());
                    assert_eq!(record["subset"].as_str(), all[record_id].subset.as_deref());
                    record_id.to_owned()
                })
                .collect()
        })
        .collect();
    let sorted = |groups: &[BTreeSet<String>]| groups.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(sorted(&listed), sorted(&groups));
    assert_eq!((&found["records"], &found["of_several_patients"]), (&7.into(), &3.into()));
    let page = ok("dataset", args!["inspect", &out, "--duplicates"]);
    assert!(page.starts_with("3 groups of equal images with 7 records; 3 of several patients, "), "{page}");

    // Drawn splits: without the option some divide a group, with it none does, and no patient is divided.
    let mut divided = 0;
    for seed in 0..6 {
        let (plain, kept) = (format!("plain{seed}"), format!("kept{seed}"));
        let seed = seed.to_string();
        ok("dataset", args!["split", &out, "--name", &plain, "--seed", &seed]);
        divided += inspected(&out, &["--split", &plain])["in_several_subsets"].as_u64().expect("a count");
        let words = args!["split", &out, "--name", &kept, "--seed", &seed, "--keep-duplicates-together"];
        let page = ok("dataset", words);
        assert!(
            page.contains("equal images: 3 groups of 7 records, 3 of several patients; 0 in more than one subset"),
            "{page}"
        );
        assert_eq!(inspected(&out, &["--split", &kept])["in_several_subsets"], 0);
        let certificate = certificate(&out, &kept);
        let duplicates = certificate.duplicates.as_ref().expect("duplicates");
        assert_eq!((duplicates.groups, duplicates.records, duplicates.shared), (3, 7, 0));
        assert_eq!((certificate.shared_patients, certificate.options.keep_duplicates_together), (0, true));
        let command = certificate.command(&out, &kept);
        assert!(command.contains(" --keep-duplicates-together"), "{command}");
        // The first two groups share a patient, so they are together; each ratio has all or none of them.
        let split = dataset::Split::load(&dataset::Dataset::open(&out).expect("a dataset"), &kept).expect("a split");
        let chain: BTreeSet<_> = records(&out)
            .iter()
            .zip(&split.members)
            .filter(|(record, _)| groups[0].contains(&record.record_id) || groups[1].contains(&record.record_id))
            .map(|(_, member)| (member.subset.map(Subset::name), member.ratio.map(|ratio| ratio.to_string())))
            .collect();
        assert_eq!(chain.len(), 1, "{chain:?}");
    }
    assert!(divided > 0, "some split without the option divides a group");

    // The source's own subsets stay as they are, and what they divide is counted.
    ok("dataset", args!["split", &out, "--name", "own", "--official", "--keep-duplicates-together"]);
    let own = certificate(&out, "own").duplicates.expect("duplicates").shared;
    assert_eq!(own, inspected(&out, &[])["in_several_subsets"]);
    assert!(fails("dataset", 2, args!["inspect", &out, "--json"]).contains("--duplicates"));
}

#[test]
fn images_of_one_gray_level_are_no_duplicates() {
    let temporary = folder();
    for (name, gray) in [("a/1.png", 90), ("b/1.png", 90), ("c/1.png", 91)] {
        let path = temporary.path().join("raw").join(name);
        helpers::write_png(&path, 40 + gray % 2, 40);
    }
    let out = temporary.path().join("set");
    ingest("folder", &temporary.path().join("raw"), &out, &["--tokenizer", "none"]);
    assert_eq!(inspected(&out, &[])["groups"], Value::Array(Vec::new()));
}
