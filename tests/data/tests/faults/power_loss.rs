//! The power is lost after each call. What a disk may then hold is simulated from the calls (`helpers::power_loss`).

use helpers::power_loss::{Disk, Survivors};
use helpers::{contents, empty_folder};

use crate::scenarios::Scenario;

/// Loses the power after each call that changes something, in four ways.
fn power_is_lost(scenario: Option<Scenario>) {
    let Some(scenario) = scenario else { return };
    let undisturbed = scenario.undisturbed();
    let mut disk = Disk::of(scenario.start());
    let mut states = 0;
    for (number, call) in undisturbed.calls.iter().enumerate().filter(|(_, call)| call.is_change()) {
        disk.apply(call);
        let all = [Survivors::Nothing, Survivors::Names, Survivors::Contents, Survivors::Drawn(number as u64)];
        // Two of four after each call: one of them drawn.
        for survivors in [all[number % 3], all[3]] {
            empty_folder(&scenario.root);
            disk.after_power_loss(survivors, &scenario.root);
            scenario.check(&undisturbed, &format!("power lost after call {number} ({call:.80?}), left: {survivors:?}"));
            states += 1;
        }
    }
    // What is named at the end is there for certain.
    empty_folder(&scenario.root);
    disk.after_power_loss(Survivors::Nothing, &scenario.root);
    let left = contents(&scenario.root);
    for (name, bytes) in &undisturbed.files {
        assert!(left.get(name) == Some(bytes), "power lost after the end: {name} is not as it was");
    }
    eprintln!("{states} states");
}

#[test]
fn ingest_survives_a_power_loss_after_every_call() {
    power_is_lost(Scenario::ingest());
}

#[test]
fn split_survives_a_power_loss_after_every_call() {
    power_is_lost(Scenario::split());
}

#[test]
fn join_survives_a_power_loss_after_every_call() {
    power_is_lost(Scenario::join());
}

#[test]
fn export_survives_a_power_loss_after_every_call() {
    power_is_lost(Scenario::export("webdataset"));
}
