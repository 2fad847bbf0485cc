//! Each call fails, once or with all after it.

use std::collections::BTreeSet;

use helpers::faults::EIO;
use helpers::storage_calls::{ENOSPC, Failure, changes};

use crate::scenarios::{Scenario, error_of};

/// Errors, and whether all later calls fail, too: a disk that is full stays full; other errors may pass.
const KINDS: [(i32, bool); 2] = [(EIO, false), (ENOSPC, true)];

/// Stride of the exports that are sampled.
const SAMPLED: usize = 16;

/// Fails every so many-th call of a command, one a run, and every second one that changes something. The kinds of failures take
/// turns; MRM_ALL_FAULTS=1 tries both with each call.
fn calls_fail(scenario: Option<Scenario>, stride: usize) {
    let Some(scenario) = scenario else { return };
    let undisturbed = scenario.undisturbed();
    let is_all = std::env::var_os("MRM_ALL_FAULTS").is_some();
    let sampled = (0..undisturbed.total).step_by(if is_all { 1 } else { stride });
    let calls: BTreeSet<usize> = sampled.chain(changes(&undisturbed.calls).into_iter().step_by(2)).collect();
    let (mut survived, mut failed) = (0, 0);
    for (at, call) in calls.into_iter().enumerate() {
        let kinds = if is_all { &KINDS[..] } else { &KINDS[at % 2..][..1] };
        for &(errno, ever) in kinds {
            scenario.reset();
            let mut command = scenario.command();
            scenario.calls.fail(&mut command, &scenario.root, Failure { call, errno, ever });
            let output = command.output().expect("the program starts");
            let what = format!(
                "call {call} of {} fails with {errno}{}",
                undisturbed.total,
                if ever { ", and all after it" } else { "" }
            );
            if output.status.success() {
                survived += 1;
                scenario.assert_done(&undisturbed, &what);
            } else {
                failed += 1;
                let error = error_of(&output, &what);
                let is_named = error.contains("os error") || error.contains("root");
                assert!(is_named, "{what}: the error names no cause: {error}");
                scenario.check(&undisturbed, &what);
            }
        }
    }
    eprintln!("{failed} runs failed, {survived} survived the fault");
    assert!(failed > survived, "{failed} faults had an effect, {survived} had none");
}

#[test]
fn ingest_survives_a_fault_of_every_call() {
    calls_fail(Scenario::ingest(), 1);
}

#[test]
fn split_survives_a_fault_of_every_call() {
    calls_fail(Scenario::split(), 1);
}

#[test]
fn join_survives_a_fault_of_every_call() {
    calls_fail(Scenario::join(), 1);
}

#[test]
fn export_survives_a_fault_of_every_call() {
    calls_fail(Scenario::export("webdataset"), 1);
}

#[test]
fn export_to_csv_survives_faults() {
    calls_fail(Scenario::export("csv"), SAMPLED);
}

#[test]
fn export_to_hf_survives_faults() {
    calls_fail(Scenario::export("hf"), SAMPLED);
}
