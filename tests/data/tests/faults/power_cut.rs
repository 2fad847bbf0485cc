//! The power is lost on real file systems: ext4 and XFS in files, shut down without writing what was not synced.
//!
//! This needs the superuser, loop devices and `mkfs`; elsewhere it is skipped with a line that says so. `MRM_REQUIRE_POWER_CUT=1`
//! fails instead.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::scenarios::Scenario;

/// One call of so many is tried, since each takes a second; MRM_ALL_FAULTS=1 tries all.
const STRIDE: usize = 9;

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
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mount).output();
    }
}

/// Loses the power before calls of a command, mounts again, and checks what is there.
fn power_is_cut(kind: &str, scenario: Option<Scenario>) {
    let Some(scenario) = scenario else { return };
    let undisturbed = scenario.undisturbed();
    let volume_folder = scenario.folder().join("volumes");
    fs::create_dir(&volume_folder).expect("a folder");
    let Some(volume) = Volume::new(kind, &volume_folder, &scenario.root) else { return };
    let stride = if std::env::var_os("MRM_ALL_FAULTS").is_some() { 1 } else { STRIDE };
    let mut cuts = 0;
    for call in (1..undisturbed.total).step_by(stride) {
        scenario.reset();
        assert!(Command::new("sync").arg("-f").arg(&scenario.root).status().expect("sync").success());
        let mut command = scenario.command();
        scenario.calls.cut_power(&mut command, &scenario.root, call);
        let output = command.output().expect("the program starts");
        assert_ne!(output.status.code(), Some(98), "{kind} cannot be shut down");
        volume.unmount();
        assert!(volume.mounted(), "mounted again");
        let _ = fs::remove_dir(scenario.root.join("lost+found"));
        scenario.check(&undisturbed, &format!("{kind}: power lost before call {call} of {}", undisturbed.total));
        cuts += 1;
    }
    eprintln!("{cuts} power losses");
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
fn join_survives_power_losses_of_xfs() {
    power_is_cut("xfs", Scenario::join());
}

#[test]
fn export_survives_power_losses_of_ext4() {
    power_is_cut("ext4", Scenario::export("webdataset"));
}
