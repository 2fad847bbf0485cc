//! Splits that are stratified by the labels of a join, or take its subsets.

use dataset::{Dataset, Split, Subset};
use helpers::splits::certificate;
use helpers::{args, fails, folder, ok, records};

use crate::shared::{joined, joining, mimic, table};

#[test]
fn a_split_balances_the_labels_of_a_join() {
    let temporary = folder();
    let data = mimic(temporary.path());
    let all = records(&data);
    let write = |name: &str, every: usize| {
        let rows =
            all.iter().enumerate().map(|(row, record)| format!("{},{}", record.image_id, u8::from(row % every == 0)));
        table(temporary.path(), name, "dicom_id,Hernia", rows)
    };
    let words = ["--key", "dicom_id", "--as", "labels", "--name", "rare"];
    ok("ingest", joining(&data, &write("first.csv", 3), &words));
    ok("dataset", args!["split", &data, "--name", "own"]);
    let printed = ok("dataset", args!["split", &data, "--name", "rare", "--labels", "rare", "--stratify", "Hernia"]);
    assert!(printed.contains("Hernia"), "{printed}");
    let stated = certificate(&data, "rare");
    assert_eq!(stated.options.labels.as_deref(), Some("rare"));
    let hernia = |part: usize| {
        let counts = &stated.parts[part].findings;
        counts.iter().find(|count| count.finding == "Hernia").expect("the finding of the join").positives
    };
    let positives = all.len().div_ceil(3) as u64;
    assert_eq!((0..3).map(hernia).sum::<u64>(), positives);
    assert!((0..3).all(|part| hernia(part) > 0));
    // Each split is measured with its own labels, whatever the dataset is seen with.
    let (plain, seen) = (Dataset::open(&data).expect("a dataset"), joined(&data, &["rare"]));
    for name in ["own", "rare"] {
        let split = Split::load(&plain, name).expect("a split");
        assert_eq!(split, Split::load(&seen, name).expect("a split"));
    }
    assert!(ok("dataset", args!["verify", &data]).contains("all whole"));

    // Other labels are other prevalences.
    ok("ingest", joining(&data, &write("second.csv", 2), &[&words[..], &["--overwrite"]].concat()));
    let message = Split::load(&plain, "rare").expect_err("other labels").to_string();
    assert!(message.contains("positives of Hernia") && message.contains("--labels rare"), "{message}");
    Split::load(&plain, "own").expect("its labels are the dataset's own");
    std::fs::remove_file(data.join("joins/rare.parquet")).expect("removed");
    let message = Split::load(&plain, "rare").expect_err("no labels").to_string();
    assert!(message.contains("its labels are those of a join") && message.contains("has no join"), "{message}");
}

#[test]
fn a_split_takes_the_subsets_of_a_join() {
    let temporary = folder();
    let data = mimic(temporary.path());
    let all = records(&data);
    // By patient, in words of the table.
    let word = |patient: &str| ["train", "dev", "holdout", ""][patient.bytes().map(usize::from).sum::<usize>() % 4];
    let patients: std::collections::BTreeSet<&str> = all.iter().map(|record| record.patient_id.as_str()).collect();
    let rows = patients.iter().map(|patient| format!("p{patient},{}", word(patient)));
    let path = table(temporary.path(), "published.csv", "subject,part", rows);
    let words = ["--key", "subject", "--as", "subset", "--subset-column", "part"];
    let printed = ok("ingest", joining(&data, &path, &words));
    assert!(printed.contains("`subject` is the patient_id of records, as numbers\n"), "{printed}");
    ok("dataset", args!["split", &data, "--name", "published", "--subset-from", "published"]);
    let plain = Dataset::open(&data).expect("a dataset");
    let split = Split::load(&plain, "published").expect("a split");
    let subset = |patient: &str| Subset::parse(word(patient));
    for (member, record) in split.members.iter().zip(&all) {
        assert_eq!(member.subset, subset(&record.patient_id), "{}", record.record_id);
    }
    assert!(Subset::ALL.iter().all(|subset| split.members.iter().any(|member| member.subset == Some(*subset))));
    let seen = joined(&data, &["published"]);
    let texts = seen.texts("subset").expect("subsets");
    assert!(
        texts.iter().zip(&all).all(|(text, record)| text.as_deref() == subset(&record.patient_id).map(Subset::name))
    );
    assert!(ok("dataset", args!["verify", &data]).contains("all whole"));

    let refused = fails("dataset", 1, args!["split", &data, "--name", "x", "--labels", "published"]);
    assert!(refused.contains("it has no labels"), "{refused}");
    fails("dataset", 2, args!["split", &data, "--name", "x", "--subset-from", "published", "--official"]);
    let labels = table(temporary.path(), "l.csv", "id,Hernia", [format!("{},1", all[0].record_id)]);
    ok("ingest", joining(&data, &labels, &["--key", "id", "--as", "labels"]));
    let refused = fails("dataset", 1, args!["split", &data, "--name", "x", "--subset-from", "l"]);
    assert!(refused.contains("it has no subsets"), "{refused}");
}
