//! Exports and checks that their caller cancels at any step.

use std::sync::atomic::{AtomicUsize, Ordering};

use dataset::commands::verify::verify;
use dataset::export::{self, Format, Options};
use dataset::progress::{Canceled, Progress};
use dataset::{Dataset, Error};
use helpers::{args, contents, folder, ok, phantom_of};

/// Cancels at the step number `at`.
fn cancel(at: usize) -> impl Fn(Progress) -> Result<(), Canceled> + Sync {
    let seen = AtomicUsize::new(0);
    move |_| if seen.fetch_add(1, Ordering::SeqCst) == at { Err(Canceled) } else { Ok(()) }
}

#[test]
fn a_canceled_export_continues_to_the_same_bytes() {
    let temporary = folder();
    // SIIM has masks.
    let raw = phantom_of("siim", temporary.path(), 30);
    let set = temporary.path().join("set");
    ok("ingest", args!["siim", &raw, &set, "--size", "64", "--rows-per-shard", "16"]);
    let dataset = Dataset::open(&set).expect("a dataset");
    for format in [Format::Webdataset, Format::Hf, Format::Csv] {
        let options = Options {
            format,
            split: None,
            subset: None,
            ratio: None,
            shard_size: 12,
            no_images: false,
            overwrite: false,
            threads: 1,
        };
        let whole = temporary.path().join(format.name());
        let steps = AtomicUsize::new(0);
        let count = |_| {
            steps.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        let all = export::run(&dataset, &whole, &options, &count).expect("an export");
        let (steps, expected) = (steps.into_inner(), contents(&whole));
        assert!(steps > 3, "{steps}");
        let mut resumed = 0;
        for at in 0..steps {
            let out = temporary.path().join(format!("{}-{at}", format.name()));
            let error = export::run(&dataset, &out, &options, &cancel(at)).expect_err("canceled");
            assert!(matches!(error, Error::Canceled(_)), "{error}");
            assert!(!contents(&out).keys().any(|name| name.ends_with(".tmp") || name == ".export.json"));
            let summary = export::run(&dataset, &out, &options, &|_| Ok(())).expect("no lock is left");
            assert_eq!((summary.records, summary.already_done), (all.records, false));
            resumed += summary.resumed;
            assert!(contents(&out) == expected, "{format:?} canceled at {at}");
        }
        assert!(resumed > 0 || all.pieces == 1, "{format:?}: no finished piece was kept");
    }
}

#[test]
fn a_check_can_be_canceled_at_any_step() {
    let temporary = folder();
    let raw = phantom_of("nih", temporary.path(), 12);
    let set = temporary.path().join("set");
    ok("ingest", args!["nih", &raw, &set, "--size", "64", "--rows-per-shard", "8"]);
    let steps = AtomicUsize::new(0);
    let read = AtomicUsize::new(0);
    let count = |step| {
        steps.fetch_add(1, Ordering::SeqCst);
        if let Progress::Advanced(bytes) = step {
            read.fetch_add(bytes as usize, Ordering::SeqCst);
        }
        Ok(())
    };
    assert_eq!(verify(&set, &count).expect("it can be read"), Vec::<String>::new());
    let manifest = Dataset::open(&set).expect("a dataset").manifest().clone();
    assert_eq!(read.into_inner() as u64, manifest.shards.iter().map(|shard| shard.bytes).sum::<u64>());
    for at in 0..steps.into_inner() {
        assert!(matches!(verify(&set, &cancel(at)), Err(Error::Canceled(_))), "{at}");
    }
}
