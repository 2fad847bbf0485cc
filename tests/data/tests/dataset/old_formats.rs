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
