//! The power is lost on real file systems: ext4 and XFS in files, shut down without writing what was not synced.
//!
//! This needs the superuser, loop devices and `mkfs`; elsewhere it is skipped with a line that says so. `MRM_REQUIRE_POWER_CUT=1`
//! fails instead.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use helpers::storage_calls::{NOT_SHUT_DOWN, StorageCalls};
use helpers::{contents, folder, write_file};

use crate::scenarios::Scenario;

/// Number of power losses in a command, since each takes half a second; with MRM_ALL_FAULTS=1 there is one before each change.
const CUTS: usize = 12;

/// A file system in a file, mounted on a folder.
struct Volume {
    image: PathBuf,
    mount: PathBuf,
    options: &'static str,
}

impl Volume {
    /// Makes a file system; none where this machine cannot.
    fn new(kind: &str, at: &Path, mount: &Path) -> Option<Self> {
        let image = at.join(kind);
        // XFS takes at least 300 MB.
        File::create(&image).and_then(|file| file.set_len(320 << 20)).expect("a sparse file");
        let quiet = if kind == "ext4" { "-qF" } else { "-qf" };
        let options = if kind == "ext4" { "loop,noauto_da_alloc,data=writeback" } else { "loop" };
        let volume = Self { image, mount: mount.to_path_buf(), options };
        let made = Command::new(format!("mkfs.{kind}")).arg(quiet).arg(&volume.image).output();
        let is_made = made.as_ref().is_ok_and(|output| output.status.success());
        if is_made && volume.mounted() {
            return Some(volume);
        }
        let required = std::env::var_os("MRM_REQUIRE_POWER_CUT").is_some();
        assert!(!required, "{kind} cannot be mounted here: {made:?}");
        eprintln!("skipped: {kind} cannot be mounted here");
        None
    }

    fn mounted(&self) -> bool {
        let mount = Command::new("mount").args(["-o", self.options]).args([&self.image, &self.mount]).output();
        mount.is_ok_and(|output| output.status.success())
    }

    /// Unmounts it; another process may look at it for a moment.
    fn unmount(&self) {
        let mut output = Command::new("umount").arg(&self.mount).output().expect("umount");
        for _ in 0..100 {
            if output.status.success() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
            output = Command::new("umount").arg(&self.mount).output().expect("umount");
        }
        panic!("{output:?}");
    }

    /// Mounts it again, as after a restart.
    fn mount_again(&self) {
        self.unmount();
        assert!(self.mounted(), "mounted again");
        let _ = fs::remove_dir(self.mount.join("lost+found"));
    }

    /// Writes all that is not written yet.
    fn sync(&self) {
        assert!(Command::new("sync").arg("-f").arg(&self.mount).status().expect("sync").success());
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mount).output();
    }
}

/// Loses the power before calls of a command and after its end, mounts again, and checks what is there.
fn power_is_cut(kind: &str, scenario: Option<Scenario>) {
    let Some(scenario) = scenario else { return };
    let undisturbed = scenario.undisturbed();
    let volume_folder = scenario.folder().join("volumes");
    fs::create_dir(&volume_folder).expect("a folder");
    let Some(volume) = Volume::new(kind, &volume_folder, &scenario.root) else { return };
    // Between two changes the disk stays as it is.
    let changes = undisturbed.changes();
    let stride = if std::env::var_os("MRM_ALL_FAULTS").is_some() { 1 } else { changes.len().div_ceil(CUTS) };
    // The file systems get different calls.
    let first = if kind == "ext4" { 0 } else { stride / 2 };
    let mut cuts = 0;
    for call in changes.into_iter().skip(first).step_by(stride) {
        scenario.reset();
        volume.sync();
        let mut command = scenario.command();
        scenario.calls.cut_power(&mut command, &scenario.root, call);
        let output = command.output().expect("the program starts");
        assert_ne!(output.status.code(), Some(NOT_SHUT_DOWN), "{kind} cannot be shut down");
        volume.mount_again();
        scenario.check(&undisturbed, &format!("{kind}: power lost before call {call} of {}", undisturbed.total));
        cuts += 1;
    }
    // What a command has written that has ended is there for certain.
    scenario.reset();
    volume.sync();
    assert!(scenario.command().output().expect("the program starts").status.success());
    scenario.calls.cut_power_now(&scenario.root);
    volume.mount_again();
    let left = contents(&scenario.root);
    for (name, bytes) in &undisturbed.files {
        assert!(left.get(name) == Some(bytes), "{kind}: power lost after the end: {name} is not as it was");
    }
    eprintln!("{} power losses", cuts + 1);
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
        calls.cut_power_now(&mount);
        volume.mount_again();
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
