//! Memory that is not there: large allocations of a program fail by their number.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::faults;

const LIBRARY: &str = include_str!("allocations.c");

/// Bytes from which an allocation counts. Smaller ones do not fail on systems of this kind.
const FROM: usize = 1 << 16;

/// The compiled library.
pub struct Allocations {
    library: PathBuf,
    /// Exists after an allocation has failed.
    fired: PathBuf,
}

impl Allocations {
    /// Compiles the library in a folder ([`faults::compiled`]).
    pub fn new(folder: &Path) -> Option<Self> {
        let library = faults::compiled(folder, "allocations", LIBRARY)?;
        Some(Self { library, fired: folder.join("allocation-failed") })
    }

    /// Makes a large allocation of a command fail, and with `ever` all after it. The Rust library then ends the program by a
    /// signal, with one line.
    pub fn fail(&self, command: &mut Command, number: usize, ever: bool) {
        let _ = std::fs::remove_file(&self.fired);
        command.env("LD_PRELOAD", &self.library).env("ALLOCATIONS_FROM", FROM.to_string()).env_remove("RUST_BACKTRACE");
        command.env("ALLOCATIONS_FAIL", number.to_string()).env("ALLOCATIONS_FIRED", &self.fired);
        if ever {
            command.env("ALLOCATIONS_EVER", "1");
        }
    }

    /// Whether an allocation has failed in the last command.
    pub fn fired(&self) -> bool {
        self.fired.exists()
    }
}
