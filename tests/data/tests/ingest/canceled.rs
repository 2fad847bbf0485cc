//! Runs that their caller cancels at any step: the same call continues to the same bytes, and no lock is left.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use helpers::{contents, folder, phantom};
use ingest::run::check_input::check_input;
use ingest::run::plan::{Plan, Source};
use ingest::run::tasks::{Task, run_task};
use ingest::run::{Canceled, Options, Progress, TokenizerChoice};
use ingest::sources::MimicCxr;
use ingest::{Error, run};

fn source() -> MimicCxr {
    MimicCxr { no_images: false, images: None, labeler: None, reports: None }
}

fn options() -> Options {
    // A shard of 40 records is two blocks of one job.
    Options { size: 64, rows_per_shard: 40, tokenizer: TokenizerChoice::Train(400), jobs: 1, ..Options::default() }
}

fn plan(raw: &Path) -> Plan {
    source().plan(raw).expect("a plan")
}

/// Cancels at the step number `at` among those that `counts` chooses.
fn cancel(at: usize, counts: fn(Progress) -> bool) -> impl Fn(Progress) -> Result<(), Canceled> + Sync {
    let seen = AtomicUsize::new(0);
    move |step| if counts(step) && seen.fetch_add(1, Ordering::SeqCst) == at { Err(Canceled) } else { Ok(()) }
}

fn is_work(step: Progress) -> bool {
    step == Progress::Working
}

fn is_record(step: Progress) -> bool {
    !is_work(step)
}

#[test]
fn a_canceled_run_continues_to_the_same_bytes() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 60);
    let whole = temporary.path().join("whole");
    let records = run("mimic-cxr", &raw, &whole, plan(&raw), &options(), &|_| Ok(())).expect("a dataset").manifest;
    let (shards, expected) = (records.shards.len(), contents(&whole));
    assert!(shards > 1);
    // One step at the start, and one for each block; 0 is also the first report that the tokenizer reads.
    for (at, counts) in [(0, is_work as fn(Progress) -> bool), (7, is_work)]
        .into_iter()
        .chain((0..=shards * 2).map(|at| (at, is_record as fn(Progress) -> bool)))
    {
        let out = temporary.path().join(format!("{at}-{}", counts(Progress::Working)));
        let outcome = run("mimic-cxr", &raw, &out, plan(&raw), &options(), &cancel(at, counts));
        if at == shards * 2 && outcome.is_ok() {
            // The last shard may be a single block.
            continue;
        }
        let error = outcome.expect_err("canceled");
        assert!(matches!(error, Error::Canceled(_)), "{error}");
        assert!(!error.to_string().contains('\n'));
        let left = contents(&out);
        assert!(!left.contains_key("dataset.json") && !left.keys().any(|name| name.ends_with(".tmp")));
        let finished = left.keys().filter(|name| name.starts_with("shards/")).count();
        // Canceled once more, at once: nothing is lost.
        let again = run("mimic-cxr", &raw, &out, plan(&raw), &options(), &cancel(0, is_record));
        assert!(matches!(again, Err(Error::Canceled(_))));
        let summary = run("mimic-cxr", &raw, &out, plan(&raw), &options(), &|_| Ok(())).expect("no lock is left");
        assert_eq!(summary.resumed_shards, finished, "canceled at {at}");
        assert!(contents(&out) == expected, "canceled at {at}");
    }
}

#[test]
fn a_canceled_task_is_repeated_to_the_same_bytes() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 60);
    let whole = temporary.path().join("whole");
    run("mimic-cxr", &raw, &whole, plan(&raw), &options(), &|_| Ok(())).expect("a dataset");
    let (out, source, options) = (temporary.path().join("tasks"), source(), options());
    let make = || source.plan(&raw);
    let task = |index, progress: &ingest::run::OnProgress| {
        run_task(&source, &raw, &out, &make, &options, Task::new(index, 2).expect("a task"), progress)
    };
    // Before the plan, in the tokenizer, at the start of the shards, within one.
    for (at, counts) in [(0, is_work as fn(Progress) -> bool), (3, is_work), (0, is_record), (1, is_record)] {
        let error = task(0, &cancel(at, counts)).expect_err("canceled");
        assert!(matches!(error, Error::Canceled(_)), "{error}");
        let left = if out.exists() { contents(&out) } else { BTreeMap::new() };
        assert!(!left.keys().any(|name| name.contains("/work-")), "{:?}", left.keys());
    }
    assert!(task(1, &|_| Ok(())).expect("its shards").dataset.is_none());
    assert!(task(0, &|_| Ok(())).expect("the others").dataset.is_some());
    assert!(contents(&out) == contents(&whole));
}

#[test]
fn a_check_of_the_input_can_be_canceled() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 20);
    let out = temporary.path().join("out");
    run("mimic-cxr", &raw, &out, plan(&raw), &options(), &|_| Ok(())).expect("a dataset");
    for at in [0, 1, 9] {
        let outcome = check_input(&raw, &out, plan(&raw), 2, &cancel(at, is_record));
        assert!(matches!(outcome, Err(Error::Canceled(_))), "{at}");
    }
    assert!(check_input(&raw, &out, plan(&raw), 2, &|_| Ok(())).expect("compared").is_empty());
}
