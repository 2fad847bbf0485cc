//! Real file systems that can lose their power: ext4 and XFS in files, which [`crate::storage_calls`] shuts down without writing what
//! was not synced. This needs the superuser, loop devices and `mkfs`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::storage_calls::{NOT_SHUT_DOWN, StorageCall, StorageCalls, changes};

/// Number of power losses in a command, since each takes half a second; with MRM_ALL_FAULTS=1 there is one before each change.
const CUTS: usize = 12;

/// A file system in a file, mounted on a folder, until it is dropped.
pub struct Volume {
    kind: String,
    image: PathBuf,
    mount: PathBuf,
    options: &'static str,
}

impl Volume {
    /// Makes a file system (`ext4` or `xfs`) in a file of the folder `at`. `None`, with a line that says so, where this machine cannot;
    /// with `MRM_REQUIRE_POWER_CUT=1` it panics instead.
    pub fn new(kind: &str, at: &Path, mount: &Path) -> Option<Self> {
        let image = at.join(kind);
        // XFS takes at least 300 MB.
        File::create(&image).and_then(|file| file.set_len(320 << 20)).expect("a sparse file");
        let quiet = if kind == "ext4" { "-qF" } else { "-qf" };
        let options = if kind == "ext4" { "loop,noauto_da_alloc,data=writeback" } else { "loop" };
        let volume = Self { kind: kind.to_owned(), image, mount: mount.to_path_buf(), options };
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

    /// Numbers of the calls before which the power is to be lost: between two changes the disk stays as it is. File systems of
    /// different kinds get different calls.
    pub fn cuts(&self, calls: &[StorageCall]) -> Vec<usize> {
        let changes = changes(calls);
        let stride = if std::env::var_os("MRM_ALL_FAULTS").is_some() { 1 } else { changes.len().div_ceil(CUTS) };
        let first = if self.kind == "ext4" { 0 } else { stride / 2 };
        changes.into_iter().skip(first).step_by(stride).collect()
    }

    /// Runs a command, loses the power before this call of it below the mount, and mounts the volume again.
    pub fn lose_power_in(&self, mut command: Command, calls: &StorageCalls, call: usize) {
        self.sync();
        calls.cut_power(&mut command, &self.mount, call);
        let output = command.output().expect("the program starts");
        assert_ne!(output.status.code(), Some(NOT_SHUT_DOWN), "{} cannot be shut down", self.kind);
        self.mount_again();
    }

    /// Loses the power now, and mounts the volume again.
    pub fn lose_power(&self, calls: &StorageCalls) {
        calls.cut_power_now(&self.mount);
        self.mount_again();
    }

    /// Writes all that is not written yet.
    pub fn sync(&self) {
        assert!(Command::new("sync").arg("-f").arg(&self.mount).status().expect("sync").success());
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.mount).output();
    }
}
