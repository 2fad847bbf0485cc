//! Runs of `ingest` into a store that are killed or refused inputs.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use helpers::faults::{Call, EIO, Faults};
use helpers::object_store::{Store, ingesting, url};
use helpers::{args, command, contents, folder, ok, phantom, text};
use rand::{Rng, SeedableRng};

/// Times that a run is killed.
const KILLS: usize = 10;

#[test]
fn a_run_killed_again_and_again_gives_the_same_objects() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 40);
    let (local, staging) = (temporary.path().join("set"), temporary.path().join("staging"));
    let small = ["--size", "64", "--vocab-size", "400", "--rows-per-shard", "4", "--jobs", "1"];
    let mut plain = args!["mimic-cxr", &raw, &local].to_vec();
    plain.extend(small.map(Into::into));
    ok("ingest", &plain);
    let whole = contents(&local);
    let run = |prefix: &str, more: &[&str]| {
        let mut all = args!["mimic-cxr", &raw, url(prefix), "--staging", &staging].to_vec();
        all.extend(small.iter().chain(more).map(Into::into));
        all
    };
    let begun = Instant::now();
    store.ok("ingest", &run("whole", &[]));
    let span = begun.elapsed();
    assert!(whole == store.objects("whole"));

    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let (mut killed, mut resumed) = (0, 0);
    for round in 0.. {
        let prefix = format!("killed-{round}");
        loop {
            let mut child = command("ingest")
                .envs(store.settings())
                .args(run(&prefix, &[]))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("it starts");
            std::thread::sleep(span.mul_f64(random.random_range(0.0..0.8)));
            child.kill().expect("SIGKILL");
            if child.wait().expect("it ends").success() {
                break;
            }
            killed += 1;
            let here = contents(&staging);
            let shards = here.keys().filter(|name| name.contains("/shards/")).count();
            assert!(shards <= 2, "one is being uploaded, one written: {:?}", here.keys());
            resumed += usize::from(!store.storage(&prefix).list("shards").expect("a listing").is_empty());
            if killed % 3 == 0 {
                break;
            }
        }
        store.ok("ingest", &run(&prefix, &[]));
        assert!(whole == store.objects(&prefix), "round {round}");
        assert!(contents(&staging).is_empty());
        if killed >= KILLS {
            break;
        }
    }
    eprintln!("{killed} kills, {resumed} after a shard was sent");
    assert!(resumed > 0);

    // Uploaded shards are not written again; without the notes of the run they are neither used nor overwritten without `--overwrite`.
    let mut child = command("ingest")
        .envs(store.settings())
        .args(run("notes", &[]))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let child = child.as_mut().expect("it starts");
    let begun = Instant::now();
    while store.storage("notes").list("shards").expect("a listing").len() < 3 {
        assert!(begun.elapsed() < Duration::from_mins(1), "nothing is uploaded");
    }
    child.kill().expect("SIGKILL");
    assert!(!child.wait().expect("it ends").success());
    let elsewhere = temporary.path().join("elsewhere");
    let mut other = run("notes", &[]);
    let place = other.iter().position(|argument| argument == "--staging").expect("named") + 1;
    other[place] = elsewhere.into();
    store.fails("ingest", &other, &["s3://radiographs/notes", "unfinished", "--staging", "--overwrite"]);
    assert!(store.ok("ingest", &run("notes", &[])).contains("continued after"));
    assert!(whole == store.objects("notes"));
    // The objects of a run that was killed before it wrote the manifest, and whose staging folder is lost.
    for name in ["shards/part-00000.parquet", "rejects.parquet", "README.md", "croissant.json"] {
        store.storage("late").write(name, "of another run".as_bytes()).expect("written");
    }
    store.fails("ingest", &run("late", &[]), &["s3://radiographs/late", "unfinished", "--overwrite"]);
    store.ok("ingest", &run("late", &["--overwrite"]));
    assert!(whole == store.objects("late"));
    store.storage("mine").write("letter.txt", "no radiograph".as_bytes()).expect("written");
    store.fails(
        "ingest",
        &run("mine", &["--overwrite"]),
        &["s3://radiographs/mine", "objects that are no part of a dataset"],
    );
}

#[test]
fn refused_inputs_are_ingested_by_a_retry() {
    let (store, temporary) = (Store::start(), folder());
    let Some(faults) = Faults::new(temporary.path()) else { return };
    let raw = phantom(temporary.path(), 24);
    let staging = temporary.path().join("staging");
    let run = |prefix: &str, more: &[&str]| ingesting(&raw, &url(prefix), &staging, more);
    store.ok("ingest", &run("whole", &[]));
    let image = contents(&raw).into_keys().find(|name| name.ends_with(".dcm")).expect("an image");
    let mut faulty = command("ingest");
    faulty.envs(store.settings()).args(run("set", &["--max-reject-rate", "1"]));
    faults.inject(&mut faulty, Call::Open, EIO, &[&image], None);
    let output = faulty.output().expect("it starts");
    assert!(output.status.success() && text(&output.stdout).contains("--retry-rejects"), "{}", text(&output.stderr));
    let before = store.objects("set");
    assert!(before != store.objects("whole"));
    // A retry needs the staging folder.
    let kept = temporary.path().join("kept");
    fs::rename(&staging, &kept).expect("moved");
    store.fails(
        "ingest",
        &run("set", &["--retry-rejects"]),
        &["s3://radiographs/set", "--retry-rejects", "--overwrite"],
    );
    assert!(before == store.objects("set"));
    let _ = fs::remove_dir_all(&staging);
    fs::rename(&kept, &staging).expect("moved");
    assert!(store.ok("ingest", &run("set", &["--retry-rejects"])).contains("continued after"));
    assert!(store.objects("set") == store.objects("whole"));
    assert_eq!(fs::read_dir(&staging).expect("a folder").count(), 0, "the staging folder is empty");
}
