//! `ingest --task`: independent processes make one dataset, on a shared folder or an object store, under real schedulers.

mod engines;
mod object_store;
mod plan;
mod refusals;
mod tasks;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use helpers::{SMALL, args, command, contents, folder, ingest, phantom, text};
use tempfile::TempDir;

/// A raw directory, and the dataset that a run alone makes of it.
pub struct Source {
    pub temporary: TempDir,
    pub raw: PathBuf,
    pub whole: BTreeMap<String, Vec<u8>>,
}

impl Source {
    /// One with so many studies, some of which have two radiographs; each shard has 16.
    pub fn new(studies: usize) -> Self {
        let temporary = folder();
        let raw = phantom(temporary.path(), studies);
        let out = temporary.path().join("whole");
        ingest("mimic-cxr", &raw, &out, &[]);
        let whole = contents(&out);
        Self { temporary, raw, whole }
    }

    /// A place for a dataset.
    pub fn out(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    /// The arguments of `ingest` for a place and more options.
    pub fn arguments(&self, out: impl Into<OsString>, more: &[&str]) -> Vec<OsString> {
        let mut all = args!["mimic-cxr", &self.raw, out.into(), "--jobs", "1"].to_vec();
        all.extend(SMALL.iter().chain(more).map(Into::into));
        all
    }

    /// A task of a dataset in a folder.
    pub fn task(&self, out: &Path, index: usize, tasks: usize) -> Command {
        let mut task = command("ingest");
        task.args(self.arguments(out, &["--task", &format!("{index}/{tasks}")]));
        task
    }

    /// Runs a task that must succeed.
    pub fn run(&self, out: &Path, index: usize, tasks: usize) -> String {
        succeeds(&mut self.task(out, index, tasks))
    }

    /// Asserts that a folder has the bytes of a run alone, and nothing else.
    pub fn is_at(&self, out: &Path) {
        let found = contents(out);
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&self.whole), "{}", out.display());
        assert!(found == self.whole, "{}: other bytes", out.display());
        assert!(!out.join(".ingest").exists(), "the notes are removed");
    }
}

/// Runs a command that must succeed, and returns its standard output.
pub fn succeeds(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// Runs a command that must fail with exit code 1 and one line, which is returned.
pub fn refused(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let printed = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{command:?}: {printed}");
    assert_eq!(printed.matches("error: ").count(), 1, "{printed}");
    printed
}

/// Starts a command without output.
pub fn start(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
}
