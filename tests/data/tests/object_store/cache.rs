//! The cache of ranges on this machine: later readers make few requests, and get what the store has.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dataset::{Dataset, Loader, Storage};
use helpers::object_store::{Store, ingesting, url};
use helpers::{args, command, contents, flip_bit, folder, phantom};

/// A dataset in a store, read with a cache.
fn open(store: &Store, cache: &Path, size: &str) -> Arc<Dataset> {
    let mut settings = store.settings();
    settings.push(("MRM_CACHE_DIR".to_owned(), cache.to_string_lossy().into_owned()));
    settings.push(("MRM_CACHE_SIZE".to_owned(), size.to_owned()));
    let storage = Storage::at_with(url("set"), settings).expect("a storage");
    Arc::new(Dataset::open_in(storage).expect("a dataset"))
}

/// Rows and pixels of an epoch.
fn epoch(dataset: &Arc<Dataset>) -> Vec<(Vec<u32>, Vec<f32>)> {
    let loader = Loader::builder(dataset).batch_size(8).seed(1).threads(2).build().expect("a loader");
    loader.map(|batch| batch.expect("a batch")).map(|batch| (batch.rows().to_vec(), batch.images().to_vec())).collect()
}

#[test]
fn a_second_reader_makes_few_requests_and_notices_a_replaced_dataset() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 30);
    let staging = temporary.path().join("staging");
    store.ok("ingest", &ingesting(&raw, &url("set"), &staging, &[]));
    let (plain, cache) = (store.dataset("set"), temporary.path().join("cache"));
    let shards = plain.manifest().shards.len();
    let expected = epoch(&plain);
    let (first, cold) = store.counted(|| epoch(&open(&store, &cache, "64M")));
    let (second, warm) = store.counted(|| epoch(&open(&store, &cache, "64M")));
    assert!(first == expected && second == expected);
    // The manifest, and the footer of each shard: twice where both threads of the loader are first.
    let few = 1 + shards..=1 + 2 * shards;
    assert!(cold > plain.len() && few.contains(&warm), "{cold} requests, then {warm} for {shards} shards");
    // A record's texts come from the cache, too.
    let record = |dataset: &Dataset| dataset.record(11).expect("a record");
    assert_eq!(record(&open(&store, &cache, "64M")), record(&plain));
    let (_, again) = store.counted(|| record(&open(&store, &cache, "64M")));
    assert_eq!(again, 2, "the manifest and the footer of a shard");

    // Damaged files of the cache are fetched again.
    for name in contents(&cache).into_keys().filter(|name| !name.starts_with("lock")).step_by(3) {
        flip_bit(&cache.join(name), 0, 3);
    }
    assert!(epoch(&open(&store, &cache, "64M")) == expected);
    // A small cache stays small, and a useless one changes nothing.
    let small = temporary.path().join("small");
    assert!(epoch(&open(&store, &small, "100K")) == expected);
    let bytes: usize = contents(&small).values().map(Vec::len).sum();
    assert!(bytes > 0 && bytes <= 100 << 10, "{bytes}");
    assert!(epoch(&open(&store, &temporary.path().join("tiny"), "1")) == expected);

    // `verify` asks the store; another dataset at the same place is read anew.
    let verify = |cache: &Path| {
        let mut verify = command("dataset");
        verify.args(args!["verify", url("set")]).envs(store.settings()).env("MRM_CACHE_DIR", cache);
        verify.output().expect("the binary starts")
    };
    let (output, requests) = store.counted(|| verify(&cache));
    assert!(output.status.success() && requests > 2 * shards, "{requests}");
    store.ok("ingest", &ingesting(&raw, &url("set"), &staging, &["--intensity", "minmax", "--overwrite"]));
    let (replaced, fresh) = (epoch(&open(&store, &cache, "64M")), epoch(&store.dataset("set")));
    assert!(replaced == fresh && fresh != expected);
}

#[test]
fn killed_readers_leave_a_cache_that_can_be_used() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 30);
    store.ok("ingest", &ingesting(&raw, &url("set"), &temporary.path().join("staging"), &[]));
    let (cache, expected) = (temporary.path().join("cache"), epoch(&store.dataset("set")));
    for pause in [150, 220, 300, 400, 600] {
        // Two readers at once share the folder; it is nearly full, so that files are removed meanwhile.
        let start = || {
            let mut bench = command("dataset");
            bench.args(args!["bench", url("set"), "--transform", "none", "--seconds", "20", "--threads", "2"]);
            bench.envs(store.settings()).env("MRM_CACHE_DIR", &cache).env("MRM_CACHE_SIZE", "200K");
            bench.stdout(std::process::Stdio::null()).spawn().expect("the binary starts")
        };
        let mut readers = [start(), start()];
        std::thread::sleep(Duration::from_millis(pause));
        for reader in &mut readers {
            reader.kill().expect("killed");
            reader.wait().expect("ended");
        }
        assert!(epoch(&open(&store, &cache, "200K")) == expected);
    }
    assert!(fs::read_dir(&cache).expect("a folder").count() > 2, "it was used");
}
