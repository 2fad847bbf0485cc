//! An object store holds what a folder holds.

use std::ffi::OsString;
use std::fs;
use std::sync::Arc;

use dataset::loader::TextOptions;
use dataset::transform::Transform;
use dataset::{Dataset, Loader};
use helpers::object_store::{Store, fails, ingesting, url};
use helpers::{SMALL, args, command, contents, folder, ingest, ok, phantom};

#[test]
fn an_object_store_holds_the_bytes_of_a_folder() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 40);
    let (local, staging) = (temporary.path().join("set"), temporary.path().join("staging"));
    ingest("mimic-cxr", &raw, &local, &[]);
    let at = url("deep/set/");
    let run = |more: &[&str]| ingesting(&raw, &at, &staging, more);
    let printed = store.ok("ingest", &run(&[]));
    assert!(printed.contains("of 40 studies"), "{printed}");
    let whole = contents(&local);
    assert!(whole.len() >= 6 && whole == store.objects("deep/set"), "{:?}", store.objects("deep/set").keys());
    assert!(contents(&staging).is_empty(), "the staging folder is empty");

    // Repeated runs.
    assert!(store.ok("ingest", &run(&[])).contains("nothing to do"));
    assert!(store.ok("ingest", &run(&["--check-input"])).contains("is unchanged"));
    store.fails("ingest", &run(&["--limit", "9"]), &["deep/set: holds another dataset", "--overwrite"]);
    assert!(whole == store.objects("deep/set"));
    store.ok("ingest", &run(&["--limit", "9", "--overwrite"]));
    assert_eq!(store.objects("deep/set").len(), 6, "manifest, two cards, tokenizer, rejects, one shard");
    store.ok("ingest", &run(&["--overwrite"]));
    assert!(whole == store.objects("deep/set"));
    assert!(contents(&staging).is_empty());

    // The commands.
    let at = "s3://radiographs/deep/set";
    assert!(store.ok("dataset", &args!["inspect", at]).contains("Pleural Effusion"));
    ok("dataset", args!["split", &local, "--name", "main"]);
    assert!(store.ok("dataset", &args!["split", at, "--name", "main"]).contains("deep/set/splits/main.parquet"));
    assert!(contents(&local) == store.objects("deep/set"));
    assert!(store.ok("dataset", &args!["inspect", at]).contains("splits    main"));
    assert!(store.ok("dataset", &args!["verify", at]).contains("all whole"));
    let bench = args!["bench", at, "--transform", "none", "--seconds", "0.1"];
    assert!(store.ok("dataset", &bench).contains("images/s"));

    // The library.
    let (here, there) = (Arc::new(Dataset::open(&local).expect("a dataset")), store.dataset("deep/set"));
    assert_eq!(here.record(17).expect("a record"), there.record(17).expect("a record"));
    let batches = |dataset: &Arc<Dataset>| -> Vec<(Vec<u32>, Vec<f32>, Vec<i64>)> {
        let loader = Loader::builder(dataset).batch_size(7).seed(3).transform(Transform::pretrain(32));
        let loader = loader.text(TextOptions { tokens: 40, mask_ratio: 0.5 }).threads(2).build().expect("a loader");
        let taken = loader.map(|batch| batch.expect("a batch"));
        taken.map(|batch| (batch.rows().to_vec(), batch.images().to_vec(), batch.token_ids().to_vec())).collect()
    };
    assert!(batches(&here) == batches(&there));

    // Each operation takes as few requests as possible.
    let (again, opening) = store.counted(|| store.dataset("deep/set"));
    assert_eq!(opening, 1, "the manifest");
    let shard = || again.shard(0).map(dataset::format::shard::Shard::rows).expect("a shard");
    assert_eq!(store.counted(shard), (16, 1), "its footer");
    let record = again.record(3).expect("a record");
    let image = || again.image(3).expect("an image").pixels;
    assert_eq!(store.counted(image), (record.image, 1), "its page");
    let column =
        || again.shard(0).and_then(|shard| shard.columns(&["record_id", "labels", "token_ids"])).expect("columns");
    assert_eq!(store.counted(column).1, 1, "adjacent columns in one request");
}

#[test]
fn large_shards_are_uploaded_in_parts() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 70);
    let (local, staging) = (temporary.path().join("set"), temporary.path().join("staging"));
    let large = ["--size", "512", "--resize", "stretch", "--rows-per-shard", "128"];
    let mut run = args!["mimic-cxr", &raw, &local].to_vec();
    run.extend(large.map(Into::into));
    ok("ingest", &run);
    let mut run = args!["mimic-cxr", &raw, url("large"), "--staging", &staging].to_vec();
    run.extend(large.map(Into::into));
    store.ok("ingest", &run);
    assert!(contents(&local).values().any(|bytes| bytes.len() > 16 << 20), "more than two parts");
    assert!(contents(&local) == store.objects("large"));
    assert!(store.requests().iter().any(|line| line.contains("partNumber=3")), "{:?}", store.requests());
    assert!(store.ok("dataset", &args!["verify", url("large")]).contains("all whole"));
}

#[test]
fn an_export_of_a_store_equals_that_of_a_folder() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 24);
    let staging = temporary.path().join("staging");
    store.ok("ingest", &ingesting(&raw, &url("set"), &staging, &[]));
    store.ok("dataset", &args!["split", url("set"), "--name", "main"]);
    let local = temporary.path().join("local");
    for (name, bytes) in store.objects("set") {
        let path = local.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("written");
    }
    for format in ["webdataset", "hf", "csv"] {
        let [here, there] = ["here", "there"].map(|name| temporary.path().join(format!("{format}-{name}")));
        store.ok("dataset", &args!["export", url("set"), "--to", format, &there, "--split", "main"]);
        ok("dataset", args!["export", &local, "--to", format, &here, "--split", "main"]);
        assert!(contents(&here) == contents(&there), "{format}");
        store.fails("dataset", &args!["export", url("set"), "--to", format, url("out")], &["is no folder"]);
    }
}

#[test]
fn a_file_url_is_a_folder() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 12);
    let out = temporary.path().join("a set");
    let at = format!("file://{}", out.display()).replace(' ', "%20");
    let mut run = args!["mimic-cxr", &raw, &at].to_vec();
    run.extend(SMALL.iter().map(Into::into));
    ok("ingest", &run);
    ok("dataset", args!["split", &at, "--name", "main"]);
    for place in [OsString::from(&at), OsString::from(&out)] {
        assert!(ok("dataset", args!["inspect", &place]).contains("splits    main"));
        assert!(ok("dataset", args!["verify", &place]).contains("all whole"));
    }
    let mut plain = args!["mimic-cxr", &raw, &out].to_vec();
    plain.extend(SMALL.iter().map(Into::into));
    assert!(ok("ingest", &plain).contains("nothing to do"));

    // A shard of another size is reported before it is read, in a folder too.
    let shard = out.join("shards/part-00000.parquet");
    let bytes = fs::read(&shard).expect("a shard");
    fs::write(&shard, [&bytes[..], b"more"].concat()).expect("written");
    let words = ["shards/part-00000.parquet", &(bytes.len() + 4).to_string(), &bytes.len().to_string()];
    fails(command("dataset").args(args!["inspect", &out]), &words);
}
