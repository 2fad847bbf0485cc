//! The power is lost on real file systems: ext4 and XFS in files, shut down without writing what was not synced.
//!
//! Where [`Volume`] cannot be mounted, nothing is tested.

use std::fs;

use helpers::storage_calls::StorageCalls;
use helpers::volume::Volume;
use helpers::{contents, folder, write_file};

use crate::scenarios::Scenario;

/// Loses the power before calls of a command and after its end, mounts again, and checks what is there.
fn power_is_cut(kind: &str, scenario: Option<Scenario>) {
    let Some(scenario) = scenario else { return };
    let undisturbed = scenario.undisturbed();
    let volume_folder = scenario.folder().join("volumes");
    fs::create_dir(&volume_folder).expect("a folder");
    let Some(volume) = Volume::new(kind, &volume_folder, &scenario.root) else { return };
    let cuts = volume.cuts(&undisturbed.calls);
    for call in &cuts {
        scenario.reset();
        volume.lose_power_in(scenario.command(), &scenario.calls, *call);
        scenario.check(&undisturbed, &format!("{kind}: power lost before call {call} of {}", undisturbed.total));
    }
    // What a command has written that has ended is there for certain.
    scenario.reset();
    volume.sync();
    assert!(scenario.command().output().expect("the program starts").status.success());
    volume.lose_power(&scenario.calls);
    let left = contents(&scenario.root);
    for (name, bytes) in &undisturbed.files {
        assert!(left.get(name) == Some(bytes), "{kind}: power lost after the end: {name} is not as it was");
    }
    eprintln!("{} power losses", cuts.len() + 1);
}

/// A volume loses what is not synced, and nothing else: without it, the tests below would prove nothing.
#[test]
fn what_is_not_synced_is_lost() {
    let temporary = folder();
    let here = fs::canonicalize(temporary.path()).expect("a folder");
    let Some(calls) = StorageCalls::new(&here) else { return };
    for kind in ["ext4", "xfs"] {
        let mount = here.join(format!("{kind}-mount"));
        fs::create_dir(&mount).expect("a folder");
        let Some(volume) = Volume::new(kind, &here, &mount) else { continue };
        let publish = |name: &str| {
            let written = mount.join(format!("{name}.tmp"));
            write_file(&written, "new");
            fs::rename(&written, mount.join(name)).expect("renamed");
        };
        write_file(&mount.join("replaced"), "old");
        publish("synced");
        volume.sync();
        publish("replaced");
        publish("made");
        volume.lose_power(&calls);
        let read = |name: &str| fs::read(mount.join(name)).unwrap_or_default();
        assert_eq!(read("synced"), b"new", "{kind}");
        for name in ["replaced", "made"] {
            assert_ne!(read(name), b"new", "{kind}: {name} was not synced");
        }
    }
}

#[test]
fn ingest_survives_power_losses_of_ext4() {
    power_is_cut("ext4", Scenario::ingest());
}

#[test]
fn ingest_survives_power_losses_of_xfs() {
    power_is_cut("xfs", Scenario::ingest());
}

#[test]
fn split_survives_power_losses_of_ext4() {
    power_is_cut("ext4", Scenario::split());
}

#[test]
fn split_survives_power_losses_of_xfs() {
    power_is_cut("xfs", Scenario::split());
}

#[test]
fn join_survives_power_losses_of_ext4() {
    power_is_cut("ext4", Scenario::join());
}

#[test]
fn join_survives_power_losses_of_xfs() {
    power_is_cut("xfs", Scenario::join());
}

#[test]
fn export_survives_power_losses_of_ext4() {
    power_is_cut("ext4", Scenario::export("webdataset"));
}

#[test]
fn export_survives_power_losses_of_xfs() {
    power_is_cut("xfs", Scenario::export("webdataset"));
}

#[test]
fn export_to_csv_survives_power_losses_of_xfs() {
    power_is_cut("xfs", Scenario::export("csv"));
}
