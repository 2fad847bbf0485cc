//! The progress of a task, which it writes among the notes every few seconds; `ingest status` shows it.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dataset::progress::Progress;
use serde::{Deserialize, Serialize};

use crate::run::note_store::NoteStore;
use crate::run::tasks::task::Share;

/// Pause between two notes.
const BEAT: Duration = Duration::from_secs(3);

/// Prefix of the names of these notes.
pub const PREFIX: &str = "task-";

/// What a task does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// It waits until another task has made the plan.
    Waiting,
    /// It makes the plan.
    Planning,
    /// It makes shards.
    Running,
    /// It made all its shards.
    Done,
    /// It ended with this error.
    Failed(String),
}

/// Progress of a task, as it notes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskNote {
    /// `I/N`, or `all` for a run alone.
    pub task: String,
    /// Name of its machine.
    pub host: String,
    /// Number of its process.
    pub process: u32,
    /// What it does.
    pub state: TaskState,
    /// Records of its shards.
    pub records: u64,
    /// Those that are done, by earlier runs too.
    pub records_done: u64,
    /// Records a second, since this process began.
    pub rate: f64,
    /// Seconds since 1970 on the clock of its machine.
    pub written: u64,
}

/// Name of the note of a task.
pub fn name(share: Share) -> String {
    match share {
        Share::Task(task) => format!("{PREFIX}{:05}.json", task.index),
        Share::All => format!("{PREFIX}all.json"),
    }
}

/// Name of this machine.
pub fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Counts what a task does, and writes it from a thread of its own.
pub struct Reporter {
    share: Share,
    host: String,
    state: Mutex<TaskState>,
    records: AtomicU64,
    before: AtomicU64,
    advanced: AtomicU64,
    begun: Mutex<Instant>,
    is_silent: AtomicBool,
}

impl Reporter {
    /// A reporter of a task that waits.
    pub fn new(share: Share) -> Self {
        Self {
            share,
            host: host(),
            state: Mutex::new(TaskState::Waiting),
            records: AtomicU64::new(0),
            before: AtomicU64::new(0),
            advanced: AtomicU64::new(0),
            begun: Mutex::new(Instant::now()),
            is_silent: AtomicBool::new(false),
        }
    }

    /// Sets what the task does.
    pub fn set(&self, state: TaskState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Counts progress.
    pub fn step(&self, step: Progress) {
        match step {
            Progress::Started { records, done } => {
                self.records.store(records, Ordering::Relaxed);
                self.before.store(done, Ordering::Relaxed);
                self.advanced.store(0, Ordering::Relaxed);
                *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                self.set(TaskState::Running);
            }
            Progress::Advanced(records) => {
                self.advanced.fetch_add(records, Ordering::Relaxed);
            }
            Progress::Working => {}
        }
    }

    /// Writes no more notes: the dataset is complete, and they are removed.
    pub fn silence(&self) {
        self.is_silent.store(true, Ordering::SeqCst);
    }

    fn note(&self) -> TaskNote {
        let advanced = self.advanced.load(Ordering::Relaxed);
        let seconds = self.begun.lock().unwrap_or_else(PoisonError::into_inner).elapsed().as_secs_f64();
        TaskNote {
            task: match self.share {
                Share::Task(task) => task.to_string(),
                Share::All => "all".to_owned(),
            },
            host: self.host.clone(),
            process: std::process::id(),
            state: self.state.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            records: self.records.load(Ordering::Relaxed),
            records_done: self.before.load(Ordering::Relaxed) + advanced,
            rate: if seconds > 0.0 { (advanced as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 },
            written: now(),
        }
    }

    /// Does some work while a thread writes the notes: the first at once, the last after the work.
    pub fn during<T>(&self, notes: &NoteStore, work: impl FnOnce() -> T) -> T {
        let (end, ended) = mpsc::channel::<()>();
        let write = || {
            if !self.is_silent.load(Ordering::SeqCst) {
                // A note that cannot be written is no reason to end the work.
                let _ = notes.write_brief(&name(self.share), &self.note());
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(move || {
                write();
                while ended.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                    write();
                }
                write();
            });
            let outcome = work();
            drop(end);
            outcome
        })
    }
}
