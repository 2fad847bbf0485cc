//! Each call fails, once or with all after it.

use helpers::faults::EIO;
use helpers::storage_calls::{ENOSPC, Failure};

use crate::scenarios::{Scenario, error_of};

/// Fails every call of a command, one a run, until a run has no call of that number.
fn every_call_fails(scenario: Option<Scenario>) {
    let Some(scenario) = scenario else { return };
    let undisturbed = scenario.undisturbed();
    let (mut survived, mut failed) = (0, 0);
    for call in 0..undisturbed.total {
        // A disk that is full stays full; other errors may pass.
        let (errno, ever) = if call % 2 == 0 { (EIO, false) } else { (ENOSPC, true) };
        scenario.reset();
        let mut command = scenario.command();
        scenario.calls.fail(&mut command, &scenario.root, Failure { call, errno, ever });
        let output = command.output().expect("the program starts");
        let what =
            format!("call {call} of {} fails{}", undisturbed.total, if ever { ", and all after it" } else { "" });
        if output.status.success() {
            survived += 1;
            scenario.assert_done(&undisturbed, &what);
        } else {
            failed += 1;
            let error = error_of(&output, &what);
            assert!(error.contains("os error") || error.contains("root"), "{what}: the error names no cause: {error}");
            scenario.check(&undisturbed, &what);
        }
    }
    eprintln!("{failed} runs failed, {survived} survived the fault");
    assert!(failed * 2 > undisturbed.total, "{failed} of {} faults had an effect", undisturbed.total);
}

#[test]
fn ingest_survives_a_fault_of_every_call() {
    every_call_fails(Scenario::ingest());
}

#[test]
fn split_survives_a_fault_of_every_call() {
    every_call_fails(Scenario::split());
}

#[test]
fn join_survives_a_fault_of_every_call() {
    every_call_fails(Scenario::join());
}

#[test]
fn export_survives_a_fault_of_every_call() {
    every_call_fails(Scenario::export("webdataset"));
}
