//! Data that is wrong without a damaged byte, as a broken program would leave it: each kind is caught by a check, and each test
//! says by which. The checksums are those of the changed files unless a test says otherwise.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use dataset::format::manifest::Manifest;
use dataset::format::record::Record;
use dataset::loader::TextOptions;
use dataset::transform::Transform;
use dataset::{Dataset, Loader, LoaderState, Split, Storage};
use helpers::{args, contents, copy_folder, fails, folder, ingest, ok, phantom, rewrite_records, write_file};
use tempfile::TempDir;

/// A copy of a small dataset with reports, labels, a split `main` and a join `hernia`.
fn copy() -> (TempDir, PathBuf) {
    static MADE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, set) = MADE.get_or_init(|| {
        let temporary = folder();
        let out = temporary.path().join("set");
        let raw = phantom(temporary.path(), 24);
        ingest("mimic-cxr", &raw, &out, &["--compression", "zstd"]);
        ok("dataset", args!["split", &out, "--name", "main", "--ratios", "50,100"]);
        let table = temporary.path().join("hernia.csv");
        let rows: Vec<String> =
            helpers::records(&out).iter().map(|record| format!("{},1\n", record.image_id)).collect();
        write_file(&table, format!("id,Hernia\n{}", rows.concat()));
        ok("ingest", args!["join", &out, "--table", &table, "--key", "id", "--as", "labels"]);
        assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
        (temporary, out)
    });
    let temporary = folder();
    let out = temporary.path().join("set");
    copy_folder(set, &out);
    (temporary, out)
}

fn without_split_and_join(out: &Path) {
    ["splits", "joins"].iter().for_each(|name| fs::remove_dir_all(out.join(name)).expect("removed"));
}

fn shards(out: &Path) -> usize {
    opened(out).manifest().shards.len()
}

fn opened(out: &Path) -> Arc<Dataset> {
    Arc::new(Dataset::open(out).expect("a manifest"))
}

fn verify(out: &Path) -> String {
    fails("dataset", 1, args!["verify", out])
}

fn split_error(out: &Path) -> String {
    Split::load(&opened(out), "main").expect_err("refused").to_string()
}

/// Gives each record what belongs to the one before it.
fn shifted(records: &mut [Record], of: fn(&mut Record, &Record)) {
    let before = records.to_vec();
    for (row, record) in records.iter_mut().enumerate() {
        of(record, &before[(row + before.len() - 1) % before.len()]);
    }
}

/// Caught by `verify`: pixels have other statistics than the manifest's. `ingest` counts and warns of images of one gray level,
/// and rejects them with `--reject-constant` (test `guards`).
#[test]
fn a_decoder_that_gives_zeros() {
    let (_temporary, out) = copy();
    let blank = |records: &mut Vec<Record>| records.iter_mut().for_each(|record| record.image.fill(0));
    (0..shards(&out)).for_each(|shard| rewrite_records(&out, shard, blank));
    without_split_and_join(&out);
    let message = verify(&out);
    assert!(
        message.starts_with("dataset.json: pixels of mean 0.") && message.contains("have 0.0000 and 0.0000"),
        "{message}"
    );
}

/// One wrong image changes the statistics too little. One that is that of another record is listed by `inspect --duplicates`.
#[test]
fn a_repeated_image() {
    let (_temporary, out) = copy();
    without_split_and_join(&out);
    rewrite_records(&out, 0, |records| {
        let of_other = |record: &Record| record.patient_id != records[0].patient_id;
        let other = records.iter().position(of_other).expect("a record of another patient");
        let Record { image, height, width, source_height, source_width, .. } = records[0].clone();
        records[other] = Record { image, height, width, source_height, source_width, ..records[other].clone() };
    });
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
    let page = ok("dataset", args!["inspect", &out, "--duplicates", "--json"]);
    let page: serde_json::Value = serde_json::from_str(&page).expect("JSON");
    assert_eq!((&page["records"], &page["of_several_patients"]), (&2.into(), &1.into()), "{page}");
}

/// Caught by `verify`, every reader and so every training run, where the manifest is that of the dataset. With the checksums and
/// the manifest made anew, by the certificate of a split; without a split nothing can tell.
#[test]
fn labels_shifted_by_one_row() {
    let shift = |records: &mut Vec<Record>| shifted(records, |record, before| record.labels.clone_from(&before.labels));
    let (_temporary, out) = copy();
    let manifest = fs::read(out.join("dataset.json")).expect("a manifest");
    rewrite_records(&out, 0, shift);
    let anew = fs::read(out.join("dataset.json")).expect("a manifest");
    write_file(&out.join("dataset.json"), &manifest);
    assert!(verify(&out).starts_with("shards/part-00000.parquet"));
    let labels = opened(&out).labels().expect_err("refused").to_string();
    assert!(labels.starts_with("shards/part-00000.parquet"), "{labels}");
    let loader = Loader::builder(&opened(&out)).batch_size(4).build().expect("a loader").next_batch();
    assert!(loader.err().expect("refused").to_string().starts_with("shards/part-00000.parquet"));

    write_file(&out.join("dataset.json"), anew);
    fs::remove_dir_all(out.join("joins")).expect("removed");
    let refused = split_error(&out);
    assert!(refused.contains("the split or the dataset was changed after the split was made"), "{refused}");
    assert!(verify(&out).contains(&refused));
    fs::remove_dir_all(out.join("splits")).expect("removed");
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"), "nothing is left that knows the labels");
}

/// Caught by `verify` and by making a split; a split that was made before is refused.
#[test]
fn a_repeated_row() {
    let (_temporary, out) = copy();
    rewrite_records(&out, 0, |records| records[1] = records[0].clone());
    fs::remove_dir_all(out.join("joins")).expect("removed");
    let message = verify(&out);
    assert!(message.contains("shards/part-00000.parquet, row 1: record `mimic-cxr/"), "{message}");
    assert!(message.contains("is also that of shards/part-00000.parquet, row 0"), "{message}");
    let refused = split_error(&out);
    assert!(refused.contains("it lacks record `"), "{refused}");
    let refused = fails("dataset", 1, args!["split", &out, "--name", "other"]);
    assert!(refused.contains("occurs twice in the dataset"), "{refused}");
}

/// Caught by `verify`; by a loader of reports too, unless the digest in the manifest is made anew.
#[test]
fn tokens_of_another_tokenizer_or_of_another_report() {
    let (_temporary, out) = copy();
    without_split_and_join(&out);
    // The same pieces with other ids, so that no id is outside of the vocabulary.
    let path = out.join("tokenizer.json");
    let mut swapped: serde_json::Value = dataset::store::files::read_json(&path).expect("a tokenizer");
    let vocabulary = swapped["model"]["vocab"].as_object_mut().expect("a vocabulary");
    let named = |id: u64| vocabulary.iter().find(|(_, found)| found.as_u64() == Some(id)).expect("a piece").0.clone();
    let pieces: Vec<String> = (4..vocabulary.len() as u64).map(named).collect();
    for (at, piece) in pieces.iter().enumerate() {
        vocabulary[piece] = ((at + 1) % pieces.len() + 4).into();
    }
    write_file(&path, serde_json::to_vec(&swapped).expect("JSON"));
    let loaded = || {
        let text = TextOptions { tokens: 16, mask_ratio: 0.0 };
        Loader::builder(&opened(&out)).text(text).build().map(drop).map_err(|error| error.to_string())
    };
    let message = verify(&out);
    assert!(message.starts_with("tokenizer.json: not the tokenizer that made the token ids"), "{message}");
    assert!(loaded().is_err_and(|error| error.contains("not the tokenizer that made the token ids")));

    let storage = Storage::folder(&out);
    let mut manifest = Manifest::load(&storage).expect("a manifest");
    manifest.text.tokenizer_sha256 = dataset::store::files::sha256(&path).expect("a digest");
    manifest.save(&storage).expect("saved");
    let message = verify(&out);
    let expected = "token ids of `report` that the tokenizer does not make of its text";
    assert!(message.starts_with("shards/part-00000.parquet, row") && message.contains(expected), "{message}");
    assert_eq!(loaded(), Ok(()), "ids alone do not tell who made them");

    let (_temporary, out) = copy();
    without_split_and_join(&out);
    rewrite_records(&out, 0, |records| {
        shifted(records, |record, before| record.token_ids.clone_from(&before.token_ids));
    });
    let message = verify(&out);
    assert!(message.contains(expected), "{message}");
}

/// Caught where a loader is built: its state has the digest of the shards.
#[test]
fn a_stale_state_of_a_loader() {
    let (_temporary, out) = copy();
    let state = |out: &Path| -> LoaderState {
        let mut loader = Loader::builder(&opened(out)).batch_size(4).seed(3).build().expect("a loader");
        loader.next_batch().expect("a batch");
        loader.state()
    };
    let stale = state(&out);
    let resumed = |state: &LoaderState| {
        let loader = Loader::builder(&opened(&out)).batch_size(4).seed(3).resume(state.clone()).build();
        loader.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(resumed(&stale), Ok(()));
    // The same identifiers, other pixels.
    rewrite_records(&out, 0, |records| records[0].image[0] ^= 1);
    assert!(resumed(&stale).is_err_and(|error| error.contains("it belongs to other records")));
    // A batch that no epoch has.
    let beyond = LoaderState { batch: 1 << 40, ..state(&out) };
    assert!(resumed(&beyond).is_err_and(|error| error.contains("but an epoch has")));
}

/// Caught by `verify`, and where it is loaded.
#[test]
fn a_split_of_another_dataset() {
    let (temporary, out) = copy();
    let raw = temporary.path().join("other");
    fs::create_dir(&raw).expect("a folder");
    let other = temporary.path().join("more");
    ok(
        "ingest",
        args!["phantom", "mimic-cxr", raw.join("mimic-cxr"), "--studies", "24", "--size", "96", "--seed", "8"],
    );
    ingest("mimic-cxr", &raw.join("mimic-cxr"), &other, &[]);
    ok("dataset", args!["split", &other, "--name", "main"]);
    fs::remove_dir_all(out.join("joins")).expect("removed");
    for (name, bytes) in contents(&other.join("splits")) {
        write_file(&out.join("splits").join(name), bytes);
    }
    let refused = split_error(&out);
    assert!(refused.contains("it lacks record `") || refused.contains("records, the dataset has"), "{refused}");
    assert!(verify(&out).contains(&refused));
}

/// Caught by `verify`, and where the dataset is opened with it: a join has the digest of the shards that it was made for.
#[test]
fn a_join_made_of_other_shards() {
    let (_temporary, out) = copy();
    rewrite_records(&out, 0, |records| records[0].sex = Some("O".to_owned()));
    fs::remove_dir_all(out.join("splits")).expect("removed");
    let stale = "join `hernia`: the dataset was changed or replaced after the join was made";
    assert!(verify(&out).contains(stale));
    let refused = Dataset::open(&out).expect("a manifest").with_joins(&["hernia"]).err().expect("refused");
    assert!(refused.to_string().starts_with(stale), "{refused}");
}

/// A change of a manifest.
type Change = fn(&mut Manifest);

/// Caught by `verify`. Loaders and training runs take no statistics from the manifest: those of a run are in its configuration.
#[test]
fn statistics_that_do_not_fit() {
    let (_temporary, out) = copy();
    let storage = Storage::folder(&out);
    let whole = Manifest::load(&storage).expect("a manifest");
    let changes: [(Change, &str); 6] = [
        (|manifest| manifest.image.mean += 0.02, "dataset.json: pixels of mean"),
        (|manifest| manifest.image.std /= 2.0, "dataset.json: pixels of mean"),
        (|manifest| manifest.totals.patients -= 1, " patients in total, but its shards have "),
        (|manifest| manifest.totals.studies += 1, " studies in total, but its shards have "),
        (|manifest| manifest.totals.reports -= 1, " reports in total, but its shards have "),
        (|manifest| manifest.totals.bytes += 1, " bytes in total, but its shards have "),
    ];
    for (change, expected) in changes {
        let mut manifest = whole.clone();
        change(&mut manifest);
        manifest.save(&storage).expect("saved");
        let message = verify(&out);
        assert!(message.contains(expected) && message.contains("1 problem in"), "{message}");
    }
    whole.save(&storage).expect("saved");
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
}

/// A dataset of 16-bit pixels whose windows were lost: pixels are shown with one window for all.
#[test]
fn windows_of_another_image() {
    let temporary = folder();
    let (raw, out) = (phantom(temporary.path(), 12), temporary.path().join("set"));
    ingest("mimic-cxr", &raw, &out, &["--bits", "16"]);
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
    let lose = |records: &mut Vec<Record>| records.iter_mut().for_each(|record| record.window = Some([60_000.0, 10.0]));
    (0..shards(&out)).for_each(|shard| rewrite_records(&out, shard, lose));
    let message = verify(&out);
    assert!(message.starts_with("dataset.json: pixels of mean "), "{message}");
    let transform = Transform::evaluate(16);
    let batch = Loader::builder(&opened(&out)).transform(transform).build().expect("a loader").next_batch();
    assert!(batch.is_ok(), "a window is any window to a loader");
}

/// A tokenizer of another project makes the ids that `verify` compares, too.
#[test]
fn a_dataset_with_a_real_tokenizer_is_whole() {
    let Some(data) = helpers::real_data() else { return };
    let temporary = folder();
    let (raw, out) = (phantom(temporary.path(), 12), temporary.path().join("set"));
    let tokenizer = data.join("mimic_wordpiece.json");
    ok("ingest", args!["mimic-cxr", &raw, &out, "--size", "32", "--tokenizer", &tokenizer]);
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
}
