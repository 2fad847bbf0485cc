//! The calls with which a program changes and reads files below a folder: counted, recorded, and failed by number.
//!
//! `storage_calls.c` is loaded before the C library, so that the built programs are tested as they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::faults;

const LIBRARY: &str = include_str!("storage_calls.c");

/// No space left on the device.
pub const ENOSPC: i32 = 28;

/// Exit code of a command whose file system cannot be shut down.
pub const NOT_SHUT_DOWN: i32 = 98;

/// The compiled library.
pub struct StorageCalls(PathBuf);

/// A call that fails.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    /// Its number, from 0.
    pub call: usize,
    /// The error.
    pub errno: i32,
    /// Whether all later calls fail, too.
    pub ever: bool,
}

/// What a call did. Paths are relative to the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// A new file was created.
    Create,
    /// A file was opened and emptied.
    Truncate,
    /// Bytes were written at an offset.
    Write(u64, Vec<u8>),
    /// A file got a length.
    Length(u64),
    /// A file or folder was synced.
    Sync,
    /// It was renamed to this path.
    Rename(String),
    /// It got this further name.
    Link(String),
    /// It was made as a symbolic link to this path.
    PointTo(String),
    /// A file or an empty folder was removed.
    Remove,
    /// A folder was made.
    MakeFolder,
    /// Nothing was changed: a file was opened or read, or a folder was listed.
    Read,
}

/// A recorded call.
#[derive(Debug, Clone)]
pub struct StorageCall {
    /// Its number, from 0, as [`Failure::call`] counts.
    pub number: usize,
    /// The file or folder.
    pub path: String,
    /// What was done to it.
    pub done: Done,
}

impl StorageCall {
    /// Whether it changed something.
    pub fn is_change(&self) -> bool {
        self.done != Done::Read
    }
}

/// Numbers of the calls that changed something.
pub fn changes(calls: &[StorageCall]) -> Vec<usize> {
    calls.iter().filter(|call| call.is_change()).map(|call| call.number).collect()
}

impl StorageCalls {
    /// Compiles the library in a folder ([`faults`]); `None`, with a line that says so, where there is no `cc`.
    pub fn new(folder: &Path) -> Option<Self> {
        faults::compiled(folder, "storage_calls", LIBRARY).map(Self)
    }

    /// Records the calls of a command below a folder in a file, which is appended to.
    pub fn record(&self, command: &mut Command, root: &Path, journal: &Path) {
        command.env("LD_PRELOAD", &self.0).env("CALLS_ROOT", root).env("CALLS_JOURNAL", journal);
    }

    /// Makes a call of a command below a folder fail.
    pub fn fail(&self, command: &mut Command, root: &Path, failure: Failure) {
        command.env("LD_PRELOAD", &self.0).env("CALLS_ROOT", root).env("CALLS_FAIL", failure.call.to_string());
        command.env("CALLS_ERRNO", failure.errno.to_string());
        if failure.ever {
            command.env("CALLS_EVER", "1");
        }
    }

    /// Shuts the file system of a folder down before a call, as a power loss does.
    pub fn cut_power(&self, command: &mut Command, root: &Path, call: usize) {
        command.env("LD_PRELOAD", &self.0).env("CALLS_ROOT", root).env("CALLS_CUT", call.to_string());
    }

    /// Shuts the file system of a folder down now.
    pub fn cut_power_now(&self, root: &Path) {
        // Opening the folder is the first call of this command.
        let mut command = Command::new("cat");
        self.cut_power(command.arg(root), root, 0);
        let output = command.output().expect("cat starts");
        assert_ne!(output.status.code(), Some(NOT_SHUT_DOWN), "{} cannot be shut down", root.display());
    }
}

/// Reads the calls that [`StorageCalls::record`] recorded, in their order, and the number of all calls: those that the system
/// refused are counted, but not recorded.
pub fn read_journal(journal: &Path) -> (Vec<StorageCall>, usize) {
    let bytes = std::fs::read(journal).expect("a journal");
    let mut rest = bytes.as_slice();
    let (mut calls, mut total) = (Vec::new(), 0);
    while !rest.is_empty() {
        let kind = take(&mut rest, 1)[0];
        let [counted, offset, length] =
            [0; 3].map(|_: u64| u64::from_le_bytes(take(&mut rest, 8).try_into().expect("8")));
        let lengths = [0; 2].map(|_: u32| u32::from_le_bytes(take(&mut rest, 4).try_into().expect("4")));
        let [path, other] =
            lengths.map(|length| String::from_utf8(take(&mut rest, length as usize).to_vec()).expect("a path"));
        let done = match kind {
            b'c' => Done::Create,
            b't' => Done::Truncate,
            b'w' => Done::Write(offset, take(&mut rest, length as usize).to_vec()),
            b'l' => Done::Length(offset),
            b's' => Done::Sync,
            b'm' => Done::Rename(other),
            b'h' => Done::Link(other),
            b'y' => Done::PointTo(other),
            b'u' => Done::Remove,
            b'd' => Done::MakeFolder,
            _ => Done::Read,
        };
        total = counted as usize;
        calls.push(StorageCall { number: total - 1, path, done });
    }
    (calls, total)
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(count);
    *rest = left;
    taken
}
