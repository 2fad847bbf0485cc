//! Datasets of every format version stay readable, with the same batches as when they were written.

use std::path::Path;
use std::sync::Arc;

use dataset::loader::{LoaderState, TextOptions};
use dataset::transform::Transform;
use dataset::{Dataset, Loader, Split};
use helpers::{args, copy_folder, edit, fails, folder, ok, tests_folder};
use sha2::{Digest, Sha256};

/// Batches whose digest is compared.
const BATCHES: usize = 100;

/// The batch after which the state of a loader is kept.
const KEPT: usize = 61;

/// A loader of the split `main` where there is one, with masks, boxes and reports.
fn loader(folder: &Path, transform: Transform, state: LoaderState) -> Loader {
    let dataset = Arc::new(Dataset::open(folder).unwrap());
    let mut builder = Loader::builder(&dataset).batch_size(4).seed(9).transform(transform).masks(true).boxes(true);
    if folder.join("splits").is_dir() {
        builder = builder.ratio(&Split::load(&dataset, "main").unwrap(), 50.0).unwrap();
    }
    if dataset.has_tokenizer() {
        builder = builder.text(TextOptions { tokens: 24, mask_ratio: 0.5 });
    }
    builder.resume(state).build().unwrap()
}

/// SHA-256 of the next batches: rows, pixels, labels, tokens, masks, boxes.
fn digest_of(loader: &mut Loader, batches: usize) -> String {
    let mut digest = Sha256::new();
    for _ in 0..batches {
        let batch = loader.next_batch().unwrap();
        batch.rows().iter().for_each(|row| digest.update(row.to_le_bytes()));
        batch.images().iter().chain(batch.labels()).for_each(|value| digest.update(value.to_bits().to_le_bytes()));
        let tokens = [batch.token_ids(), batch.target_ids(), batch.attention_mask()];
        tokens.into_iter().flatten().for_each(|id| digest.update(id.to_le_bytes()));
        digest.update(batch.masks());
        for placed in batch.boxes() {
            digest.update(placed.label.as_bytes());
            [placed.x, placed.y, placed.width, placed.height].iter().for_each(|edge| digest.update(edge.to_le_bytes()));
        }
    }
    dataset::store::files::hex(&digest.finalize())
}

/// Today's program reads the datasets of all versions to the report and the batches that are kept beside them, and goes on from the
/// states of their loaders.
#[test]
fn every_version_gives_the_same_report_and_batches() {
    let formats = tests_folder().join("corpus/formats");
    let expected: serde_json::Value = dataset::store::files::read_json(&formats.join("expected.json")).unwrap();
    let mut found = serde_json::Map::new();
    for name in ["version-1", "version-2-first/rsna", "version-2-first/siim", "version-2/data"] {
        let folder = formats.join(name);
        let printed = ok("dataset", args!["verify", &folder]);
        let report = printed.trim_start_matches(&format!("{}: ", folder.display())).split(" (").next().unwrap();
        let mut kept = serde_json::Map::from_iter([("verify".to_owned(), report.into())]);
        for (kind, transform) in [
            ("evaluate", Transform::evaluate(32)),
            ("pretrain", Transform::pretrain(32)),
            ("finetune", Transform::finetune(16)),
        ] {
            let digest = digest_of(&mut loader(&folder, transform, LoaderState::default()), BATCHES);
            kept.insert(kind.to_owned(), digest.into());
        }
        let mut first = loader(&folder, Transform::pretrain(32), LoaderState::default());
        digest_of(&mut first, KEPT);
        kept.insert("state".to_owned(), serde_json::to_value(first.state()).unwrap());
        // With the state that is kept, not with today's.
        let state = serde_json::from_value(expected[name]["state"].clone()).unwrap_or_else(|_| first.state());
        let digest = digest_of(&mut loader(&folder, Transform::pretrain(32), state), BATCHES - KEPT);
        assert_eq!(digest, digest_of(&mut first, BATCHES - KEPT), "{name}: resumed");
        kept.insert("after the state".to_owned(), digest.into());
        found.insert(name.to_owned(), kept.into());
    }
    let found = serde_json::Value::from(found);
    assert_eq!(found, expected, "found:\n{found:#}");
}

/// What a reader says of a version that it does not know: the versions that it reads, and what helps.
#[test]
fn a_newer_version_is_refused_with_what_helps() {
    let temporary = folder();
    for name in ["version-1", "version-2/data"] {
        let out = temporary.path().join(name);
        copy_folder(&tests_folder().join("corpus/formats").join(name), &out);
        edit(&out.join("dataset.json"), |bytes| {
            let text = String::from_utf8(bytes.clone()).unwrap();
            let key = "\"format_version\": ";
            let at = text.find(key).unwrap() + key.len();
            bytes[at] = b'3';
        });
        let expected = "dataset.json: format version 3, this build reads versions 1 and 2; use the build that wrote it, or ingest \
                        again";
        for arguments in [
            args!["verify", &out].to_vec(),
            args!["inspect", &out].to_vec(),
            args!["split", &out, "--name", "other"].to_vec(),
            args!["export", &out, temporary.path().join("export"), "--to", "csv"].to_vec(),
            args!["bench", &out, "--seconds", "0.1"].to_vec(),
        ] {
            let message = fails("dataset", 1, arguments);
            assert!(message.contains(expected) && message.trim_end().lines().count() == 1, "{message}");
        }
    }
}

/// Shards of the first builds of version 2 have one mask without a name, smaller boxes, and fewer columns.
#[test]
fn older_columns_are_read_as_those_of_today() {
    let folder = |source: &str| tests_folder().join("corpus/formats/version-2-first").join(source);
    for source in ["siim", "rsna"] {
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
