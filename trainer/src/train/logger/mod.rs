//! The metrics of a run: `metrics.jsonl`, and the same numbers as TensorBoard events.

mod jsonl;
mod tensorboard;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

pub use jsonl::{Metrics, read_metrics};

/// Key of the number of steps before a line.
const STEP: &str = "step";

/// Key of the time of a line, in seconds since 1970.
const TIME: &str = "time";

/// The files that a log writes to.
pub(super) fn files(run: &Path) -> [PathBuf; 2] {
    [jsonl::NAME, tensorboard::NAME].map(|name| run.join(name))
}

/// Whether a run has logged anything.
pub(super) fn has_lines(run: &Path) -> bool {
    std::fs::metadata(run.join(jsonl::NAME)).is_ok_and(|metrics| metrics.len() > 0)
}

/// The warning about damaged lines in the log of a run; none where there are none.
pub fn damaged_lines(run: &Path, damaged: usize) -> Option<String> {
    (damaged > 0).then(|| format!("warning: {}: {damaged} damaged lines are left out", run.join(jsonl::NAME).display()))
}

/// A log that is being written.
pub struct MetricsLog {
    lines: jsonl::Writer,
    events: tensorboard::Events,
    damaged: usize,
}

impl MetricsLog {
    /// Opens the log of a run, cut back to the lines of the first `step` steps.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn open(run: &Path, step: u64) -> Result<Self> {
        let (lines, kept, damaged) = jsonl::Writer::cut_to(run, step)?;
        Ok(Self { lines, events: tensorboard::Events::create(run, &kept)?, damaged })
    }

    /// Damaged lines that were left out when the log was opened.
    pub fn damaged(&self) -> usize {
        self.damaged
    }

    /// Appends one line, with the time of day.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&mut self, mut line: Value) -> Result<()> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        line[TIME] = now.as_secs_f64().into();
        self.lines.write(&line)?;
        self.events.write(&line)
    }

    /// Makes the lines so far durable, which must happen before a checkpoint that follows them.
    ///
    /// # Errors
    /// When the system cannot sync the file.
    pub fn sync(&self) -> Result<()> {
        self.lines.sync()
    }
}
