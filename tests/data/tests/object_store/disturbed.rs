//! A store that disturbs one request, or all from one on, for each request of a command: what is read is right or there is one
//! error that names the object, a cache keeps no wrong bytes, and the same command on the store as it is ends well.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;

use dataset::transform::Transform;
use dataset::{Dataset, Loader, Storage};
use helpers::object_store::{Store, url};
use helpers::store_faults::{Disturbance, Disturbed, When};
use helpers::{args, command, contents, folder, ok, phantom, text, write_file};

/// One request of so many is disturbed, since a run takes up to a second; MRM_ALL_FAULTS=1 disturbs all.
const STRIDE: usize = 7;
/// Of a command with few requests.
const SHORT_STRIDE: usize = 3;

/// Small settings, with some shards.
const SMALL: [&str; 8] = ["--size", "64", "--vocab-size", "400", "--rows-per-shard", "8", "--jobs", "1"];

/// A disturbance, and when it happens, from the number of a request.
type Case = (Disturbance, fn(usize) -> When);

/// Answers that fail: at first, or for good.
const FAILING: [Case; 8] = [
    (Disturbance::Refusal(500, "InternalError"), When::Once),
    (Disturbance::Refusal(503, "SlowDown"), When::Once),
    (Disturbance::Refusal(429, "TooManyRequests"), When::Once),
    (Disturbance::Refusal(503, "SlowDown"), When::From),
    (Disturbance::Refusal(403, "ExpiredToken"), When::From),
    (Disturbance::Refusal(400, "ExpiredToken"), When::From),
    (Disturbance::Cut, When::Once),
    (Disturbance::Stall, When::Once),
];

/// Answers of a store, or of a proxy before it, that are wrong.
const WRONG: [Case; 5] = [
    (Disturbance::Short, When::Once),
    (Disturbance::Flip, When::Once),
    (Disturbance::Flip, When::From),
    (Disturbance::Stale, When::Once),
    (Disturbance::Long, When::Once),
];

/// A dataset in a store, and an older one with files of the same sizes.
struct Fixture {
    store: Store,
    temporary: tempfile::TempDir,
    raw: std::path::PathBuf,
}

impl Fixture {
    fn new(studies: usize) -> Self {
        let (store, temporary) = (Store::atomic(), folder());
        let raw = phantom(temporary.path(), studies);
        let fixture = Self { store, temporary, raw };
        fixture.store.ok("ingest", &fixture.ingesting("set", &[]));
        fixture.store.ok("ingest", &fixture.ingesting("old", &["--intensity", "minmax"]));
        fixture
    }

    fn ingesting(&self, prefix: &str, more: &[&str]) -> Vec<std::ffi::OsString> {
        let mut all =
            args!["mimic-cxr", &self.raw, url(prefix), "--staging", self.temporary.path().join("staging")].to_vec();
        all.extend(SMALL.iter().chain(more).map(Into::into));
        all
    }

    /// Runs `work` with each disturbance of each request, until there is no request of that number.
    fn sweep(
        &self,
        disturbances: &[Case],
        eligible: fn(&str) -> bool,
        stride: usize,
        mut work: impl FnMut(&Disturbed, Disturbance, &str),
    ) {
        let stride = if std::env::var_os("MRM_ALL_FAULTS").is_some() { 1 } else { stride };
        let mut runs = 0;
        for (at, (disturbance, when)) in disturbances.iter().enumerate() {
            for number in (1 + at % stride..).step_by(stride) {
                let when = when(number);
                let disturbed = Disturbed::of(&self.store, *disturbance, when, eligible, ("set", "old"));
                let what = format!("{disturbance:?} {when:?}");
                work(&disturbed, *disturbance, &what);
                if disturbed.disturbed().is_empty() {
                    break;
                }
                runs += 1;
            }
        }
        eprintln!("{runs} runs were disturbed");
        assert!(runs >= disturbances.len(), "{runs}");
    }
}

/// Reads of objects.
fn is_read(line: &str) -> bool {
    line.starts_with("GET ") && !line.contains("list-type") && line.contains("/set/")
}

/// All requests for a dataset.
fn is_any(_: &str) -> bool {
    true
}

/// Rows, pixels, label codes (as bits: NaN where there is none) and tokens.
type Batches = Vec<(Vec<u32>, Vec<f32>, Vec<u32>, Vec<i64>)>;

/// An epoch of the loader.
fn epoch(mut settings: Vec<(String, String)>, cache: Option<&Path>) -> dataset::Result<Batches> {
    settings.extend(cache.map(|cache| ("MRM_CACHE_DIR".to_owned(), cache.to_string_lossy().into_owned())));
    let dataset = Arc::new(Dataset::open_in(Storage::at_with(url("set"), settings)?)?);
    let loader =
        Loader::builder(&dataset).transform(Transform::evaluate(32)).batch_size(4).seed(1).threads(2).build()?;
    let part = |batch: dataset::loader::Batch| {
        (
            batch.rows().to_vec(),
            batch.images().to_vec(),
            batch.labels().iter().map(|code| code.to_bits()).collect(),
            batch.token_ids().to_vec(),
        )
    };
    loader.map(|batch| batch.map(part)).collect()
}

/// The error is one line that names an object and no panic.
fn assert_clear(message: &str, what: &str) {
    let names = ["dataset.json", "shards/part-", "tokenizer.json", "s3://radiographs/"];
    assert!(names.iter().any(|name| message.contains(name)), "{what}: {message}");
    assert!(!message.contains("panicked") && !message.contains("internal error"), "{what}: {message}");
    assert!(!message.contains('\n') && message.len() < 600, "{what}: {message}");
}

/// The last line of what a command printed that failed.
fn error_of(output: &Output, what: &str) -> String {
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{what}: {message}");
    let last = message.lines().last().unwrap_or_default().to_owned();
    assert!(!message.contains("panicked"), "{what}: {message}");
    last
}

#[test]
fn an_epoch_has_the_right_batches_or_an_error() {
    let fixture = Fixture::new(8);
    let direct = || fixture.store.settings();
    let expected = epoch(direct(), None).expect("an epoch");
    let cached = fixture.temporary.path().join("cache");
    assert!(epoch(direct(), Some(&cached)).expect("an epoch") == expected);
    let kept = contents(&cached);
    let objects = fixture.store.objects("set");
    let (mut right, mut errors) = (0, 0);
    for with_cache in [false, true] {
        let mut work = |disturbed: &Disturbed, disturbance: Disturbance, what: &str| {
            let own = folder();
            let cache = with_cache.then(|| own.path().join("cache"));
            let ever = what.contains("From");
            match epoch(disturbed.settings(), cache.as_deref()) {
                Ok(batches) => {
                    assert!(batches == expected, "{what}: other batches");
                    right += 1;
                }
                Err(error) => {
                    assert_clear(&error.to_string(), what);
                    let of = disturbed.disturbed();
                    let is_manifest = of.iter().any(|line| line.contains("dataset.json"));
                    let is_seen = ever || is_manifest || disturbance == Disturbance::Stale;
                    assert!(is_seen || !disturbance.passes(), "{what}: {of:?}: a request was not made again: {error}");
                    errors += 1;
                }
            }
            if let Some(cache) = &cache {
                for (name, bytes) in contents(cache).into_iter().filter(|(name, _)| name != "lock") {
                    // A range that is fetched only where an answer was damaged: it is part of an object, with a CRC-32 after it.
                    let in_object = |range: &[u8]| {
                        objects.values().any(|object| object.windows(range.len()).any(|part| part == range))
                    };
                    let is_right =
                        kept.get(&name).map_or_else(|| in_object(&bytes[..bytes.len() - 4]), |right| *right == bytes);
                    assert!(is_right, "{what}: the cache has other bytes: {:?}", disturbed.disturbed());
                }
            }
            assert!(epoch(direct(), cache.as_deref()).expect(what) == expected, "{what}, then again");
        };
        // What the cache does with an answer that fails is the same for all of them.
        fixture.sweep(if with_cache { &FAILING[4..7] } else { &FAILING }, is_any, STRIDE, &mut work);
        fixture.sweep(&WRONG, is_read, STRIDE, &mut work);
        if with_cache {
            // Few of the requests are those of columns.
            fixture.sweep(&[(Disturbance::Flip, When::Once)], is_read, 1, &mut work);
        }
    }
    eprintln!("{right} epochs were right, {errors} ended in an error");
    assert!(right > 0 && errors > 0);
}

#[test]
fn verify_finds_a_dataset_whole_or_says_what_it_could_not_read() {
    let fixture = Fixture::new(6);
    let verify = |settings: Vec<(String, String)>| {
        command("dataset").args(["verify", &url("set")]).envs(settings).output().expect("the binary starts")
    };
    let before = fixture.store.objects("set");
    let mut work = |disturbed: &Disturbed, disturbance: Disturbance, what: &str| {
        let output = verify(disturbed.settings());
        if output.status.success() {
            assert!(text(&output.stdout).contains("all whole"), "{what}");
        } else {
            let message = text(&output.stdout) + &text(&output.stderr);
            let name = ["dataset.json", "part-", "tokenizer.json", "rejects.parquet", "s3://radiographs/set"];
            assert!(name.iter().any(|name| message.contains(name)), "{what}: {message}");
            error_of(&output, what);
            let once = what.contains("Once");
            let is_failing = FAILING.iter().any(|(failing, _)| *failing == disturbance);
            assert!(!(once && is_failing), "{what}: a request was not made again: {message}");
        }
    };
    fixture.sweep(&FAILING, is_any, STRIDE, &mut work);
    fixture.sweep(&WRONG, is_read, STRIDE, &mut work);
    assert!(verify(fixture.store.settings()).status.success() && before == fixture.store.objects("set"));
}

/// A command that writes files of the dataset leaves none, some or all of them, each whole, and the same command then ends well.
/// `below` is their folder, `stride` that of requests that fail.
fn is_whole_or_not_there(fixture: &Fixture, below: &str, stride: usize, run: impl Fn(Vec<(String, String)>) -> Output) {
    let first = run(fixture.store.settings());
    assert!(first.status.success(), "{}", text(&first.stderr));
    let expected = fixture.store.objects("set");
    let names: Vec<&str> = expected.keys().map(String::as_str).filter(|name| name.starts_with(below)).collect();
    assert!(!names.is_empty(), "{:?}", expected.keys());
    let mut work = |disturbed: &Disturbed, _: Disturbance, what: &str| {
        fixture.store.storage("set").remove(&names).expect("removed");
        let output = run(disturbed.settings());
        let found = fixture.store.objects("set");
        assert!(found.iter().all(|(name, bytes)| expected.get(name) == Some(bytes)), "{what}: {:?}", found.keys());
        if output.status.success() {
            assert_eq!(found.len(), expected.len(), "{what}");
        } else {
            assert_clear(&error_of(&output, what), what);
            let again = run(fixture.store.settings());
            assert!(again.status.success(), "{what}, then again: {}", text(&again.stderr));
            assert!(fixture.store.objects("set") == expected, "{what}, then again");
        }
    };
    fixture.sweep(&FAILING, is_any, stride, &mut work);
    fixture.sweep(&[(Disturbance::LostAnswer, When::Once)], |line| !line.starts_with("GET "), 1, &mut work);
    fixture.sweep(&WRONG, is_read, SHORT_STRIDE, &mut work);
}

#[test]
fn a_split_is_whole_or_not_there() {
    is_whole_or_not_there(&Fixture::new(6), "splits/", SHORT_STRIDE, |settings| {
        let arguments = args!["split", url("set"), "--name", "main", "--ratios", "50,100"];
        command("dataset").args(arguments).envs(settings).output().expect("the binary starts")
    });
}

#[test]
fn a_join_is_whole_or_not_there() {
    let fixture = Fixture::new(6);
    let dataset = fixture.store.dataset("set");
    let ids = (0..dataset.len()).map(|row| dataset.record(row).expect("a record").image_id);
    let rows: String = ids.map(|id| format!("{id},1\n")).collect();
    let table = fixture.temporary.path().join("hernia.csv");
    write_file(&table, format!("id,Hernia\n{rows}"));
    is_whole_or_not_there(&fixture, "joins/", STRIDE, |settings| {
        let arguments = args!["join", url("set"), "--table", &table, "--key", "id", "--as", "labels"];
        command("ingest").args(arguments).envs(settings).output().expect("the binary starts")
    });
}

#[test]
fn an_export_has_the_right_files_or_an_error() {
    let fixture = Fixture::new(6);
    let out = fixture.temporary.path().join("exported");
    let export = |settings: Vec<(String, String)>| {
        let arguments = args!["export", url("set"), "--to", "webdataset", &out, "--shard-size", "4"];
        command("dataset").args(arguments).envs(settings).output().expect("the binary starts")
    };
    let first = export(fixture.store.settings());
    assert!(first.status.success(), "{}", text(&first.stderr));
    let expected = contents(&out);
    let mut work = |disturbed: &Disturbed, _: Disturbance, what: &str| {
        let _ = fs::remove_dir_all(&out);
        let output = export(disturbed.settings());
        if output.status.success() {
            let found = contents(&out);
            assert_eq!(found.len(), expected.len(), "{what}: {:?}", found.keys());
            for (name, bytes) in &expected {
                assert!(found.get(name) == Some(bytes), "{what}: {name} has other bytes");
            }
        } else {
            assert_clear(&error_of(&output, what), what);
        }
        let again = export(fixture.store.settings());
        assert!(again.status.success(), "{what}, then again: {}", text(&again.stderr));
        assert!(contents(&out) == expected, "{what}, then again");
    };
    fixture.sweep(&FAILING, is_any, STRIDE, &mut work);
    fixture.sweep(&WRONG, is_read, SHORT_STRIDE, &mut work);
}

#[test]
fn ingest_ends_with_the_bytes_of_a_folder() {
    let fixture = Fixture::new(6);
    let local = fixture.temporary.path().join("local");
    let mut all = args!["mimic-cxr", &fixture.raw, &local].to_vec();
    all.extend(SMALL.map(Into::into));
    ok("ingest", all);
    let expected = contents(&local);
    let clean = || {
        let objects = fixture.store.objects("new");
        let names: Vec<&str> = objects.keys().map(String::as_str).collect();
        fixture.store.storage("new").remove(&names).expect("removed");
    };
    let is_new = |name: &str, bytes: &Vec<u8>| name.starts_with(".ingest/") || expected.get(name) == Some(bytes);
    let mut work = |disturbed: &Disturbed, _: Disturbance, what: &str| {
        let output = command("ingest").args(fixture.ingesting("new", &[])).envs(disturbed.settings()).output();
        let output = output.expect("the binary starts");
        let found: BTreeMap<String, Vec<u8>> = fixture.store.objects("new");
        assert!(found.iter().all(|(name, bytes)| is_new(name, bytes)), "{what}: {:?}", found.keys());
        if !output.status.success() {
            assert_clear(&error_of(&output, what), what);
            if found.contains_key("dataset.json") {
                assert!(expected.keys().all(|name| found.contains_key(name)), "{what}: {:?}", found.keys());
            }
            let again = fixture.store.run("ingest", &fixture.ingesting("new", &[]));
            assert!(again.status.success(), "{what}, then again: {}", text(&again.stderr));
        }
        let found = fixture.store.objects("new");
        assert!(found == expected, "{what}, then again: {:?}", found.keys());
        assert!(contents(&fixture.temporary.path().join("staging")).is_empty(), "{what}");
        clean();
    };
    fixture.sweep(&FAILING, |line| line.contains("new"), STRIDE, &mut work);
    fixture.sweep(&[(Disturbance::LostAnswer, When::Once)], |line| !line.starts_with("GET "), STRIDE, &mut work);
    let read = |line: &str| line.starts_with("GET ") && line.contains("/new/") && !line.contains("list-type");
    fixture.sweep(&[WRONG[0], WRONG[1], WRONG[4]], read, STRIDE, &mut work);
}

#[test]
fn an_answer_of_another_version_is_an_error() {
    let store = Store::start();
    for (prefix, byte) in [("set", 1), ("old", 2)] {
        store.storage(prefix).write("a", vec![byte; 3000]).expect("written");
    }
    // The first request opens the object.
    let disturbed = Disturbed::of(&store, Disturbance::Stale, When::From(2), |_| true, ("set", "old"));
    let storage = Storage::at_with(url("set"), disturbed.settings()).expect("a place");
    let (file, tail) = storage.open("a").expect("a file");
    assert_eq!((file.length(), tail[0]), (3000, 1));
    let error = file.read(10..20).expect_err("another version").to_string();
    assert!(error.contains("s3://radiographs/set/a: it was replaced after it was opened"), "{error}");
}
