//! Datasets of every format version stay readable, with the same batches as when they were written.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataset::loader::TextOptions;
use dataset::transform::Transform;
use dataset::{Dataset, Loader, Split};
use helpers::{args, ok, tests_folder};
use sha2::{Digest, Sha256};

fn version(number: u32) -> PathBuf {
    tests_folder().join(format!("corpus/formats/version-{number}"))
}

/// SHA-256 of the first batches of two epochs: rows, pixels, labels, tokens.
fn digest_of_batches(folder: &Path, transform: Transform) -> String {
    let dataset = Arc::new(Dataset::open(folder).unwrap());
    let split = Split::load(&dataset, "main").unwrap();
    let mut loader = Loader::builder(&dataset)
        .ratio(&split, 50.0)
        .unwrap()
        .batch_size(4)
        .seed(9)
        .transform(transform)
        .text(TextOptions { tokens: 24, mask_ratio: 0.5 })
        .build()
        .unwrap();
    let mut digest = Sha256::new();
    for _ in 0..2 * loader.batches() {
        let batch = loader.next_batch().unwrap();
        batch.rows().iter().for_each(|row| digest.update(row.to_le_bytes()));
        batch.images().iter().chain(batch.labels()).for_each(|value| digest.update(value.to_bits().to_le_bytes()));
        let tokens = [batch.token_ids(), batch.target_ids(), batch.attention_mask()];
        tokens.into_iter().flatten().for_each(|id| digest.update(id.to_le_bytes()));
    }
    dataset::store::files::hex(&digest.finalize())
}

#[test]
fn version_1_is_read() {
    let folder = version(1);
    let report = ok("dataset", args!["verify", &folder]);
    assert!(report.contains("30 records, all whole"), "{report}");
    let shown = ok("dataset", args!["inspect", &folder]);
    assert!(shown.contains("Support Devices"), "{shown}");
    assert_eq!(
        [Transform::evaluate(32), Transform::pretrain(32), Transform::finetune(16)]
            .map(|transform| digest_of_batches(&folder, transform)),
        [
            "f1b17dc78908bc01d7ead8555f5587fd1afb46ca3004371c64888a637c6465cb",
            "789d0b614ccca8511c4e4741daa62876d8eca0bf71b41e6a3f33fbc579e0a3e3",
            "76600ed80cb957e5ccd0485484d2c024edc3ff266216307db2a556c25ebc7a40",
        ]
    );
}

/// Shards of the first builds of version 2 have one mask without a name, smaller boxes, and fewer columns.
#[test]
fn older_columns_are_read_as_those_of_today() {
    let folder = |source: &str| tests_folder().join("corpus/formats/version-2-first").join(source);
    for (source, records) in [("siim", 26), ("rsna", 10)] {
        let report = ok("dataset", args!["verify", &folder(source)]);
        assert!(report.contains(&format!("{records} records, all whole")), "{report}");
        assert!(ok("dataset", args!["inspect", &folder(source)]).contains("language  not stated"));
    }
    let siim = Arc::new(Dataset::open(folder("siim")).unwrap());
    assert_eq!(siim.manifest().masks, ["mask"]);
    let all: Vec<_> = (0..siim.len()).map(|row| siim.record(row).unwrap()).collect();
    let of_train = |record: &&dataset::format::record::Record| record.subset.as_deref() == Some("train");
    assert_eq!(all.iter().filter(of_train).count(), 19);
    for record in &all {
        assert_eq!(record.masks.len(), usize::from(of_train(&record)), "{}", record.record_id);
        assert!(record.masks.iter().all(|mask| mask.name == "mask"));
        assert!(record.texts.is_empty() && record.study_datetime.is_none() && record.source_digest != [0; 32]);
    }
    let frame = siim.metadata().unwrap();
    assert_eq!(frame.column("has_mask").unwrap().bool().unwrap().sum(), Some(19));
    assert_eq!(frame.column("texts").unwrap().null_count(), 0);
    // Columns that no shard has are read alone, too.
    assert_eq!(siim.texts("language").unwrap(), vec![None; 26]);
    let mut loader = Loader::builder(&siim).masks(true).batch_size(26).shuffle(false).build().unwrap();
    let batch = loader.next_batch().unwrap();
    let side = batch.masks().len() / 26;
    let marked: Vec<bool> = batch.masks().chunks(side).map(|mask| mask.contains(&1)).collect();
    let positive = |record: &dataset::format::record::Record| record.labels[0] == Some(dataset::Label::Positive);
    assert_eq!(marked, all.iter().map(positive).collect::<Vec<_>>());
    assert!(Loader::builder(&siim).masks(true).mask_name("mask").build().is_ok());

    let rsna = Dataset::open(folder("rsna")).unwrap();
    let boxes: Vec<_> = (0..rsna.len()).flat_map(|row| rsna.record(row).unwrap().boxes).collect();
    assert!(!boxes.is_empty());
    for found in boxes {
        assert_eq!(found.label, "Pneumonia");
        assert_eq!((found.score, found.sentence, found.reader), (None, None, None));
    }
}
