//! Commands that write, each with the files that it starts with.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use helpers::storage_calls::{StorageCall, StorageCalls, read_journal};
use helpers::{
    args, command, contents, copy_folder, empty_folder, folder, ok, phantom, records, run, text, write_file,
};
use tempfile::TempDir;

/// A command that writes below a folder.
pub struct Scenario {
    /// Files that are there before.
    start: PathBuf,
    /// The folder, at the same place in each run.
    pub root: PathBuf,
    program: &'static str,
    arguments: Vec<OsString>,
    /// The dataset that the command makes or changes, below the folder.
    dataset: &'static str,
    /// What a further run may refuse to do again.
    is_done: &'static str,
    pub calls: StorageCalls,
    temporary: TempDir,
}

/// An undisturbed run.
pub struct Undisturbed {
    /// The files that it left.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What it did.
    pub calls: Vec<StorageCall>,
    /// The number of its calls, refused ones included.
    pub total: usize,
}

impl Scenario {
    /// `prepare` gets the folder of files that are there before, one for other inputs, and the folder that is worked in; it
    /// returns the command line. None where there is no compiler for the library of faults.
    fn new(
        program: &'static str,
        is_done: &'static str,
        prepare: impl FnOnce(&Path, &Path, &Path) -> Vec<OsString>,
    ) -> Option<Self> {
        let temporary = folder();
        let here = fs::canonicalize(temporary.path()).expect("a folder");
        let calls = StorageCalls::new(&here)?;
        let (start, root, inputs) = (here.join("start"), here.join("root"), here.join("inputs"));
        for folder in [&start, &inputs] {
            fs::create_dir(folder).expect("a folder");
        }
        let arguments = prepare(&start, &inputs, &root);
        Some(Self { start, root, program, arguments, dataset: "set", is_done, calls, temporary })
    }

    /// `ingest` of eight studies, with a tokenizer.
    pub fn ingest() -> Option<Self> {
        Self::new("ingest", "", |_, inputs, root| {
            let raw = phantom(inputs, 8);
            ingest_arguments(&raw, &root.join("set"))
        })
    }

    /// `dataset split`.
    pub fn split() -> Option<Self> {
        Self::new("dataset", "exists", |start, inputs, root| {
            dataset_of(start, inputs);
            args!["split", root.join("set"), "--name", "main", "--ratios", "50,100"].to_vec()
        })
    }

    /// `ingest join` of labels.
    pub fn join() -> Option<Self> {
        Self::new("ingest", "exists", |start, inputs, root| {
            let set = dataset_of(start, inputs);
            let rows = records(&set).iter().map(|record| format!("{},1\n", record.image_id)).collect::<String>();
            let table = inputs.join("table.csv");
            write_file(&table, format!("id,Hernia\n{rows}"));
            args!["join", root.join("set"), "--table", table, "--key", "id", "--as", "labels"].to_vec()
        })
    }

    /// `dataset export` in a form.
    pub fn export(form: &'static str) -> Option<Self> {
        Self::new("dataset", "", |start, inputs, root| {
            dataset_of(start, inputs);
            let mut all = args!["export", root.join("set"), "--to", form, root.join("exported")].to_vec();
            // With one thread the calls of each run have the same numbers.
            let more = if form == "webdataset" { ["--shard-size", "8"] } else { ["--threads", "1"] };
            all.extend(more.map(Into::into));
            all
        })
    }

    /// The command, without faults.
    pub fn command(&self) -> Command {
        let mut command = command(self.program);
        command.args(&self.arguments).current_dir(self.temporary.path());
        command
    }

    /// Puts the files back that are there before.
    pub fn reset(&self) {
        empty_folder(&self.root);
        copy_folder(&self.start, &self.root);
    }

    /// Runs the command undisturbed, and records what it does.
    pub fn undisturbed(&self) -> Undisturbed {
        self.reset();
        let journal = self.temporary.path().join("journal");
        let mut command = self.command();
        self.calls.record(&mut command, &self.root, &journal);
        let output = command.output().expect("the program starts");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let (calls, total) = read_journal(&journal);
        fs::remove_file(&journal).expect("removed");
        Undisturbed { files: contents(&self.root), calls, total }
    }

    /// A folder for other files.
    pub fn folder(&self) -> &Path {
        self.temporary.path()
    }

    /// The files that are there before.
    pub fn start(&self) -> &Path {
        &self.start
    }

    /// Checks what a fault or a power loss has left: the dataset, where one is named, is whole; the same command then ends
    /// with the files of an undisturbed run.
    pub fn check(&self, undisturbed: &Undisturbed, what: &str) {
        let set = self.root.join(self.dataset);
        if set.join("dataset.json").exists() {
            let verified = run("dataset", args!["verify", &set]);
            assert!(verified.status.success(), "{what}: {}{}", text(&verified.stdout), text(&verified.stderr));
        }
        let again = self.command().output().expect("the program starts");
        let message = text(&again.stderr);
        let is_done = !self.is_done.is_empty() && message.contains(self.is_done);
        assert!(again.status.success() || is_done, "{what}, then again: {message}");
        self.assert_done(undisturbed, &format!("{what}, then again"));
    }

    /// The folder has the files of an undisturbed run, and no others.
    pub fn assert_done(&self, undisturbed: &Undisturbed, what: &str) {
        let files = contents(&self.root);
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&files), names(&undisturbed.files), "{what}");
        for (name, bytes) in &files {
            assert!(*bytes == undisturbed.files[name], "{what}: {name} has other bytes");
        }
    }
}

/// A dataset of eight studies in a folder `set`.
fn dataset_of(start: &Path, inputs: &Path) -> PathBuf {
    let (raw, set) = (phantom(inputs, 8), start.join("set"));
    ok("ingest", ingest_arguments(&raw, &set));
    set
}

/// A small dataset of some shards.
fn ingest_arguments(raw: &Path, set: &Path) -> Vec<OsString> {
    let small = ["--size", "32", "--vocab-size", "300", "--rows-per-shard", "4", "--jobs", "1"];
    let mut all = args!["mimic-cxr", raw, set].to_vec();
    all.extend(small.map(Into::into));
    all
}

/// The error that a program gave: one line that begins with `error:`, and no panic.
pub fn error_of(output: &Output, what: &str) -> String {
    let message = text(&output.stderr);
    assert!(output.status.code().is_some(), "{what}: ended by a signal: {message}");
    assert!(!message.contains("panicked") && !message.contains("internal error"), "{what}: {message}");
    let errors: Vec<&str> = message.lines().filter(|line| line.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "{what}: {message}");
    errors[0].to_owned()
}
