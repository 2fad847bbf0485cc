//! An allocation fails, once or with all after it.

use std::os::unix::process::ExitStatusExt;

use helpers::allocations::Allocations;
use helpers::text;

use crate::scenarios::{Scenario, error_of};

const SIGABRT: i32 = 6;

/// Fails every so many-th large allocation of a command, one a run, until a run has none of that number; MRM_ALL_FAULTS=1 fails
/// all.
fn allocations_fail(scenario: Option<Scenario>, stride: usize) {
    let Some(scenario) = scenario else { return };
    let Some(allocations) = Allocations::new(scenario.folder()) else { return };
    let undisturbed = scenario.undisturbed();
    let stride = if std::env::var_os("MRM_ALL_FAULTS").is_some() { 1 } else { stride };
    let mut ended = 0;
    for number in (0..).step_by(stride) {
        let ever = number / stride % 2 == 1;
        scenario.reset();
        let mut command = scenario.command();
        allocations.fail(&mut command, number, ever);
        let output = command.output().expect("the program starts");
        let what = format!("allocation {number} fails (ever: {ever})");
        if !allocations.fired() {
            assert!(output.status.success(), "no allocation failed: {}", text(&output.stderr));
            break;
        }
        if output.status.success() {
            scenario.assert_done(&undisturbed, &what);
            continue;
        }
        ended += 1;
        let message = text(&output.stderr);
        if output.status.signal() == Some(SIGABRT) {
            assert!(message.contains("memory allocation of "), "{what}: {message}");
            assert!(!message.contains("panicked"), "{what}: {message}");
        } else {
            error_of(&output, &what);
        }
        scenario.check(&undisturbed, &what);
    }
    eprintln!("{ended} runs ended");
    assert!(ended > 3, "{ended} runs ended");
}

#[test]
fn ingest_survives_failed_allocations() {
    allocations_fail(Scenario::ingest(), 7);
}

#[test]
fn split_survives_failed_allocations() {
    allocations_fail(Scenario::split(), 2);
}

#[test]
fn join_survives_failed_allocations() {
    allocations_fail(Scenario::join(), 2);
}

#[test]
fn export_survives_failed_allocations() {
    allocations_fail(Scenario::export("webdataset"), 2);
}
