//! Outages of the store, and answers that are cut off.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;

use dataset::Storage;
use helpers::object_store::{Fault, OUTAGE, Outage, Store, ingesting, ok_at, proxy, settings, url};
use helpers::{args, contents, folder, ingest, phantom};

#[test]
fn reading_continues_after_an_outage() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 24);
    store.ok("ingest", &ingesting(&raw, &url("set"), &temporary.path().join("staging"), &[]));
    let (outage, address) = Outage::of(&store, "part-", 3, OUTAGE);
    let bench = args!["bench", url("set"), "--size", "32", "--batch-size", "4", "--seconds", "0.5"];
    assert!(ok_at(&address, "dataset", &bench).contains("images/s"));
    assert!(outage.happened());
    let (outage, address) = Outage::of(&store, "part-", 3, OUTAGE);
    assert!(ok_at(&address, "dataset", &args!["verify", url("set")]).contains("all whole"));
    assert!(outage.happened());
}

#[test]
fn ingest_continues_after_an_outage() {
    let (store, temporary) = (Store::start(), folder());
    let raw = phantom(temporary.path(), 24);
    let local = temporary.path().join("set");
    ingest("mimic-cxr", &raw, &local, &[]);
    for (round, words) in ["PUT", "list-type=2"].into_iter().enumerate() {
        let (outage, address) = Outage::of(&store, words, 2, OUTAGE);
        let prefix = format!("set-{round}");
        ok_at(&address, "ingest", &ingesting(&raw, &url(&prefix), &temporary.path().join("staging"), &[]));
        assert!(outage.happened(), "{words}");
        assert!(contents(&local) == store.objects(&prefix), "{words}");
    }
}

#[test]
fn truncated_answers_are_requested_again() {
    let store = Store::start();
    let direct = store.storage("set");
    for number in 0..5 {
        direct.write(&format!("shards/{number}"), vec![number; 3000 + usize::from(number)]).expect("written");
    }
    for fault in [Fault::Dropped, Fault::Unanswered, Fault::Cut, Fault::Short] {
        // The first request of each kind and object fails.
        let met = Mutex::new(BTreeSet::new());
        let once = move |line: &str| {
            let is_new = met.lock().expect("a set").insert(line.to_owned());
            if is_new { fault } else { Fault::None }
        };
        let storage = Storage::at_with(url("set"), settings(&proxy(&store.address, once))).expect("a place");
        let listed: Vec<u64> = storage.list("shards").expect("a listing").iter().map(|found| found.bytes).collect();
        assert_eq!(listed, [3000, 3001, 3002, 3003, 3004]);
        if fault != Fault::Short {
            // Only the length field states how long a whole object is.
            assert!(storage.read("shards/3").expect("a file") == vec![3; 3003]);
        }
        let (file, tail) = storage.open("shards/4").expect("a file");
        assert_eq!((file.length(), tail.len()), (3004, 3004));
        assert_eq!(
            file.read_ranges(&[5..20, 100..2900]).expect("ranges").iter().map(bytes::Bytes::len).sum::<usize>(),
            2815
        );
        assert_eq!(storage.size("shards/2").expect("a size"), 3002);
        if fault != Fault::Short {
            storage.write("a", "text".as_bytes()).expect("written");
            storage.remove(&["a"]).expect("removed");
        }
    }
    // Each part of an upload, its start and its completion.
    let temporary = folder();
    let large = temporary.path().join("large");
    let bytes: Vec<u8> = (0..20_000_000u32).map(|i| (i >> 8) as u8).collect();
    fs::write(&large, &bytes).expect("written");
    for fault in [Fault::Dropped, Fault::Unanswered] {
        let met = Mutex::new(BTreeSet::new());
        let once = move |line: &str| {
            let is_new = line.contains("large") && met.lock().expect("a set").insert(line.to_owned());
            if is_new { fault } else { Fault::None }
        };
        let storage = Storage::at_with(url("set"), settings(&proxy(&store.address, once))).expect("a place");
        storage.upload(&large, "large").expect("sent");
        assert!(store.objects("set")["large"] == bytes);
        direct.remove(&["large"]).expect("removed");
    }
}

#[test]
fn a_failed_part_of_an_upload_leaves_no_object() {
    let (store, temporary) = (Store::start(), folder());
    let large = temporary.path().join("large");
    let bytes: Vec<u8> = (0..20_000_000u32).map(|i| (i >> 8) as u8).collect();
    fs::write(&large, &bytes).expect("written");
    let refuse = |line: &str| if line.contains("partNumber=2") { Fault::Refused } else { Fault::None };
    let refusing = proxy(&store.address, refuse);
    let faulty = Storage::at_with(url("set"), settings(&refusing)).expect("a place");
    let error = faulty.upload(&large, "shards/a").expect_err("refused");
    assert!(error.to_string().contains("s3://radiographs/set/shards/a"), "{error}");
    assert!(store.objects("set").is_empty());
    let asked = store.requests();
    assert!(asked.iter().any(|line| line.contains("DELETE") && line.contains("uploadId=")), "{asked:?}");
    store.storage("set").upload(&large, "shards/a").expect("sent");
    assert!(store.objects("set")["shards/a"] == bytes);
    assert_eq!(
        store.storage("set").sha256("shards/a").expect("a digest"),
        dataset::store::files::sha256(&large).expect("a digest")
    );
}
