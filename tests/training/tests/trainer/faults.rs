//! Faults while a run writes checkpoints: calls and allocations that fail, and power losses. The same command then ends with the
//! weights of an undisturbed run, and `latest` never names what is not there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use helpers::allocations::Allocations;
use helpers::faults::EIO;
use helpers::power_loss::{Disk, Survivors};
use helpers::storage_calls::{Done, ENOSPC, Failure, StorageCall, StorageCalls, read_journal};
use helpers::{command, contents, folder, text};
use tempfile::TempDir;
use training::{dataset, pretraining};

/// One call of so many is tried, since a run takes half a second; MRM_ALL_FAULTS=1 tries all.
const STRIDE: usize = 11;

fn stride() -> usize {
    if std::env::var_os("MRM_ALL_FAULTS").is_some() { 1 } else { STRIDE }
}

struct Training {
    data: PathBuf,
    root: PathBuf,
    calls: StorageCalls,
    /// Files of the checkpoints that an undisturbed run leaves.
    expected: BTreeMap<String, Vec<u8>>,
    journal: Vec<StorageCall>,
    total: usize,
    temporary: TempDir,
}

impl Training {
    /// An undisturbed run of three steps with a checkpoint after each. None without a compiler.
    fn new() -> Option<Self> {
        let temporary = folder();
        let here = fs::canonicalize(temporary.path()).expect("a folder");
        let calls = StorageCalls::new(&here)?;
        let (data, root) = (dataset(&here, 12), here.join("root"));
        let mut training =
            Self { data, root, calls, expected: BTreeMap::new(), journal: Vec::new(), total: 0, temporary };
        training.empty();
        let (mut command, journal) = (training.command(), here.join("journal"));
        training.calls.record(&mut command, &training.root, &journal);
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        (training.journal, training.total) = read_journal(&journal);
        training.expected = training.checkpoints();
        assert_eq!(training.expected.len(), 7, "two checkpoints of three files, and one more by the link: {:?}", {
            training.expected.keys().collect::<Vec<_>>()
        });
        Some(training)
    }

    fn empty(&self) {
        if self.root.exists() {
            fs::remove_dir_all(&self.root).expect("removed");
        }
        fs::create_dir(&self.root).expect("a folder");
    }

    fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    fn command(&self) -> Command {
        let mut command = command("trainer");
        command.args(pretraining(&self.data, &self.run(), 3, &["--set", "run.checkpoint_every=1"]));
        command
    }

    /// The files of all checkpoints, and the weights that `latest` leads to.
    fn checkpoints(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all: BTreeMap<String, Vec<u8>> = contents(&self.run().join("checkpoints"));
        let latest = fs::read(self.run().join("latest/model.safetensors")).expect("the newest weights");
        all.insert("latest".to_owned(), latest);
        all
    }

    /// What a fault has left: a link that leads to a whole checkpoint, if there is one; the same command ends as undisturbed.
    fn check(&self, what: &str) {
        let latest = self.run().join("latest");
        if latest.is_symlink() {
            let names = ["model.safetensors", "optimizer.safetensors", "state.json"];
            let is_whole = |folder: &Path| names.iter().all(|name| folder.join(name).is_file());
            assert!(is_whole(&latest), "{what}: latest leads to {:?}", fs::read_link(&latest));
        }
        let again = self.command().output().expect("it starts");
        assert!(again.status.success(), "{what}, then again: {}", text(&again.stderr));
        let found = self.checkpoints();
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&self.expected), "{what}, then again");
        for (name, bytes) in &found {
            assert!(*bytes == self.expected[name], "{what}, then again: {name} has other bytes");
        }
    }
}

#[test]
fn pretraining_survives_a_fault_of_its_calls() {
    let Some(training) = Training::new() else { return };
    let mut failed = 0;
    for call in (0..training.total).step_by(stride()) {
        let (errno, ever) = if call % 2 == 0 { (EIO, false) } else { (ENOSPC, true) };
        training.empty();
        let mut command = training.command();
        training.calls.fail(&mut command, &training.root, Failure { call, errno, ever });
        let output = command.output().expect("it starts");
        let (message, what) = (text(&output.stderr), format!("call {call} of {} fails (ever: {ever})", training.total));
        assert!(!message.contains("panicked") && !message.contains("internal error"), "{what}: {message}");
        assert!(output.status.code().is_some(), "{what}: ended by a signal: {message}");
        if !output.status.success() {
            failed += 1;
            assert_eq!(message.lines().filter(|line| line.starts_with("error:")).count(), 1, "{what}: {message}");
        }
        training.check(&what);
    }
    eprintln!("{failed} of {} runs failed", training.total.div_ceil(stride()));
    assert!(failed > 0);
}

/// Which allocations fail: each number is so much larger than the last one, since a run makes thousands.
const GROWTH: f64 = 1.6;

/// How far weights may be from those of a run whose matrix products have their buffers.
const ROUNDING: f32 = 1e-4;

/// Header and values of a safetensors file of floats.
fn weights(file: &[u8]) -> (&[u8], Vec<f32>) {
    let header = u64::from_le_bytes(file[..8].try_into().expect("8 bytes")) as usize;
    let (header, values) = file.split_at(8 + header);
    (header, values.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect())
}

#[test]
fn pretraining_survives_failed_allocations() {
    let Some(training) = Training::new() else { return };
    let Some(allocations) = Allocations::new(training.temporary.path()) else { return };
    let (mut number, mut ended) = (0_usize, 0);
    loop {
        training.empty();
        let mut command = training.command();
        allocations.fail(&mut command, number, false);
        let output = command.output().expect("it starts");
        if !allocations.fired() {
            assert!(output.status.success(), "no allocation failed: {}", text(&output.stderr));
            break;
        }
        let what = format!("allocation {number} fails");
        if output.status.success() {
            // MKL multiplies without its buffer, and rounds otherwise.
            let found = training.checkpoints();
            let [found, expected] = [&found["latest"], &training.expected["latest"]].map(|file| weights(file));
            assert_eq!(found.0, expected.0, "{what}");
            let is_near = found.1.iter().zip(&expected.1).all(|(a, b)| (a - b).abs() < ROUNDING);
            assert!(is_near && found.1.len() == expected.1.len(), "{what}: other weights");
        } else {
            ended += 1;
            assert!(!output.stderr.is_empty(), "{what}: ended with {} and without a word", output.status);
            training.check(&what);
        }
        number = ((number as f64 * GROWTH) as usize).max(number + 1);
    }
    eprintln!("{ended} runs ended, the last allocation that failed is number {number}");
    assert!(ended > 3, "{ended} runs ended");
}

#[test]
fn pretraining_survives_power_losses() {
    let Some(training) = Training::new() else { return };
    let mut disk = Disk::default();
    let mut states = 0;
    for (number, call) in training.journal.iter().enumerate().filter(|(_, call)| call.done != Done::Read) {
        disk.apply(call);
        states += 1;
        if states % stride() != 0 {
            continue;
        }
        let all = [Survivors::Nothing, Survivors::Names, Survivors::Contents];
        let drawn = Survivors::Drawn(number as u64);
        let survivors = if (states / stride()).is_multiple_of(2) { drawn } else { all[states / stride() / 2 % 3] };
        training.empty();
        disk.after_power_loss(survivors, &training.root);
        training.check(&format!("power lost after call {number} ({call:.80?}), left: {survivors:?}"));
    }
    assert!(states > 3 * stride());
}
