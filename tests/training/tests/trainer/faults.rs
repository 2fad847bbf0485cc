//! Faults while a run starts, continues and writes checkpoints: calls and allocations that fail, and power losses. The same
//! command then ends with the weights of an undisturbed run, and `latest` never names what is not there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use helpers::allocations::Allocations;
use helpers::faults::{Call, EIO, Faults};
use helpers::power_loss::{Disk, Survivors};
use helpers::storage_calls::{ENOSPC, Failure, StorageCall, StorageCalls, read_journal};
use helpers::volume::Volume;
use helpers::{command, contents, empty_folder, fails, folder, ok, text};
use tempfile::TempDir;
use training::{dataset, numbers, pretraining};

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
        (training.journal, training.total) = training.record("journal");
        training.expected = training.checkpoints();
        assert_eq!(training.expected.len(), 7, "two checkpoints of three files, and one more by the link: {:?}", {
            training.expected.keys().collect::<Vec<_>>()
        });
        Some(training)
    }

    fn empty(&self) {
        empty_folder(&self.root);
    }

    fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    fn command(&self) -> Command {
        let mut command = command("trainer");
        command.args(pretraining(&self.data, &self.run(), 3, &["--set", "run.checkpoint_every=1"]));
        command
    }

    /// Gives the command, and records its calls in a file. Returns them, and the number of all calls.
    fn record(&self, journal: &str) -> (Vec<StorageCall>, usize) {
        let (mut command, journal) = (self.command(), self.temporary.path().join(journal));
        self.calls.record(&mut command, &self.root, &journal);
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        read_journal(&journal)
    }

    /// Leaves a run that was killed before the checkpoint of its third and last step, and returns a copy of it.
    fn killed(&self) -> Disk {
        self.empty();
        // Without this setting, the third checkpoint would have replaced the first one.
        let output = self.command().args(["--set", "run.keep_last=3"]).output().expect("it starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let latest = self.run().join("latest");
        fs::remove_dir_all(self.run().join("checkpoints/step-3")).expect("removed");
        fs::remove_file(&latest).expect("removed");
        std::os::unix::fs::symlink("checkpoints/step-2", &latest).expect("a link");
        Disk::of(&self.root)
    }

    /// Gives the command, of whose `total` calls one fails. Returns what failed, and whether the command succeeded. If not,
    /// its one error must name a file of the run.
    fn run_with_fault(&self, call: usize, total: usize) -> (String, bool) {
        let (errno, ever) = if call.is_multiple_of(2) { (EIO, false) } else { (ENOSPC, true) };
        let mut command = self.command();
        self.calls.fail(&mut command, &self.root, Failure { call, errno, ever });
        let output = command.output().expect("it starts");
        let (message, what) = (text(&output.stderr), format!("call {call} of {total} fails (ever: {ever})"));
        assert!(!message.contains("panicked") && !message.contains("internal error"), "{what}: {message}");
        assert!(output.status.code().is_some(), "{what}: ended by a signal: {message}");
        if !output.status.success() {
            let errors: Vec<&str> = message.lines().filter(|line| line.starts_with("error:")).collect();
            let is_named = errors.first().is_some_and(|line| line.contains(&*self.run().to_string_lossy()));
            assert!(errors.len() == 1 && is_named, "{what}: {message}");
        }
        (what, output.status.success())
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
        self.assert_done(&format!("{what}, then again"));
    }

    /// What the run has written at its end is there for certain: nothing is computed again.
    fn assert_kept(&self, what: &str) {
        let left = self.checkpoints();
        for (name, bytes) in &self.expected {
            assert!(left.get(name) == Some(bytes), "{what}: {name} is not as it was");
        }
        let unfinished: Vec<&String> = left.keys().filter(|name| name.contains(".tmp")).collect();
        assert!(unfinished.is_empty(), "{what}: {unfinished:?}");
        let logged: Vec<u64> = numbers(&self.run()).iter().filter_map(|line| line["step"].as_u64()).collect();
        assert_eq!(logged, [1, 2, 3], "{what}");
        trainer::train::run_dir::load_config(&self.run()).unwrap_or_else(|e| panic!("{what}: {e}"));
    }

    /// The run has ended with the checkpoints of the undisturbed one.
    fn assert_done(&self, what: &str) {
        let found = self.checkpoints();
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&self.expected), "{what}");
        for (name, bytes) in &found {
            assert!(*bytes == self.expected[name], "{what}: {name} has other bytes");
        }
    }
}

#[test]
fn pretraining_survives_a_fault_of_its_calls() {
    let Some(training) = Training::new() else { return };
    let mut failed = 0;
    for call in (0..training.total).step_by(stride()) {
        training.empty();
        let (what, succeeded) = training.run_with_fault(call, training.total);
        failed += usize::from(!succeeded);
        training.check(&what);
    }
    eprintln!("{failed} of {} runs failed", training.total.div_ceil(stride()));
    assert!(failed > 0);
}

#[test]
fn continuing_survives_a_fault_of_its_calls() {
    let Some(training) = Training::new() else { return };
    let killed = training.killed();
    let first_lines = || numbers(&training.run()).into_iter().take(2).collect::<Vec<_>>();
    let log = first_lines();
    assert_eq!(log.iter().filter_map(|line| line["step"].as_u64()).collect::<Vec<_>>(), [1, 2]);
    let (_, total) = training.record("journal of the continuation");
    training.assert_done("continued");
    let mut failed = 0;
    for call in (0..total).step_by(stride()) {
        training.empty();
        // Writes the copy.
        killed.after_power_loss(Survivors::Nothing, &training.root);
        let (what, succeeded) = training.run_with_fault(call, total);
        // The steps before the kill are kept, whatever came of the third one.
        assert_eq!(first_lines(), log, "{what}");
        assert!(training.run().join("latest").is_dir(), "{what}: latest leads nowhere");
        let left = contents(&training.run().join("checkpoints"));
        for (name, bytes) in training.expected.iter().filter(|(name, _)| name.starts_with("step-2/")) {
            assert!(left.get(name) == Some(bytes), "{what}: {name} is not as it was");
        }
        if succeeded {
            training.assert_done(&what);
        } else {
            failed += 1;
        }
        training.check(&what);
    }
    eprintln!("{failed} of {} continuations failed", total.div_ceil(stride()));
    assert!(failed > 0);
}

#[test]
fn what_cannot_be_read_is_not_taken_for_missing() {
    let temporary = folder();
    let data = dataset(temporary.path(), 12);
    let Some(faults) = Faults::new(temporary.path()) else { return };
    let run = temporary.path().join("run");
    let arguments = || pretraining(&data, &run, 2, &["--set", "run.checkpoint_every=1", "--set", "run.ema=0.9"]);
    ok("trainer", arguments());
    let before = contents(&run);
    for (call, ending) in [
        (Call::OpenFolder, "/checkpoints"),
        (Call::Stat, "/config.toml"),
        (Call::Stat, "/ema.safetensors"),
        (Call::Stat, "/optimizer.safetensors"),
    ] {
        let mut command = command("trainer");
        faults.inject(command.args(arguments()), call, EIO, &[ending], None);
        let output = command.output().expect("it starts");
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{call:?} of {ending}: {message}");
        let errors: Vec<&str> = message.lines().filter(|line| line.starts_with("error:")).collect();
        let is_named = errors.first().is_some_and(|line| line.contains(&format!("{ending}: Input/output error")));
        assert!(errors.len() == 1 && is_named, "{call:?} of {ending}: {message}");
        assert!(contents(&run) == before, "{call:?} of {ending}: the run was changed");
    }
    // A checkpoint without the average that the run keeps.
    let (average, moved) = (run.join("latest/ema.safetensors"), temporary.path().join("average"));
    fs::rename(&average, &moved).expect("moved");
    let refused = fails("trainer", 1, arguments());
    assert!(
        refused.contains("checkpoints/step-2 has no ema.safetensors; delete this checkpoint's folder"),
        "{refused}"
    );
    fs::rename(&moved, &average).expect("moved");
    ok("trainer", arguments());
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
    for (number, call) in training.journal.iter().enumerate().filter(|(_, call)| call.is_change()) {
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
    training.empty();
    disk.after_power_loss(Survivors::Nothing, &training.root);
    training.assert_kept("power lost after the end");
}

/// Loses the power of a real file system before calls of a run and after its end.
fn power_is_cut(kind: &str) {
    let Some(training) = Training::new() else { return };
    let volumes = training.temporary.path().join("volumes");
    fs::create_dir(&volumes).expect("a folder");
    let Some(volume) = Volume::new(kind, &volumes, &training.root) else { return };
    let cuts = volume.cuts(&training.journal);
    for call in &cuts {
        training.empty();
        volume.lose_power_in(training.command(), &training.calls, *call);
        training.check(&format!("{kind}: power lost before call {call} of {}", training.total));
    }
    training.empty();
    volume.sync();
    assert!(training.command().output().expect("it starts").status.success());
    volume.lose_power(&training.calls);
    training.assert_kept(&format!("{kind}: power lost after the end"));
    eprintln!("{} power losses", cuts.len() + 1);
}

#[test]
fn pretraining_survives_power_losses_of_ext4() {
    power_is_cut("ext4");
}

#[test]
fn pretraining_survives_power_losses_of_xfs() {
    power_is_cut("xfs");
}
