//! Calls that take long: the work has a thread of its own, while the calling thread handles signals and reports progress.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dataset::commands::cli::caught;
use dataset::progress::{Canceled, OnProgress, Progress};
use dataset::store::storage::ending;
use pyo3::prelude::*;

use crate::errors;
use crate::process;

/// Time between two looks at signals and progress.
const POLL: Duration = Duration::from_millis(50);

/// What the thread of the work tells the calling thread, and the other way round.
#[derive(Default)]
struct Shared {
    done: AtomicU64,
    total: AtomicU64,
    has_total: AtomicBool,
    canceled: AtomicBool,
    ended: AtomicBool,
}

impl Shared {
    fn step(&self, step: Progress) -> Result<(), Canceled> {
        match step {
            Progress::Started { records, done } => {
                self.total.store(records, Ordering::Relaxed);
                self.done.store(done, Ordering::Relaxed);
                self.has_total.store(true, Ordering::Release);
            }
            Progress::Advanced(records) => _ = self.done.fetch_add(records, Ordering::Relaxed),
            Progress::Working => {}
        }
        if self.canceled.load(Ordering::Relaxed) { Err(Canceled) } else { Ok(()) }
    }

    /// Done and total, once the work knows its total.
    fn counts(&self) -> Option<(u64, u64)> {
        let has_total = self.has_total.load(Ordering::Acquire);
        has_total.then(|| (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed)))
    }
}

/// Does work on a thread of its own, without the interpreter's lock. Meanwhile the calling thread calls `progress(done, total)`
/// where the counts changed, and runs the handlers of signals. An exception of either (`KeyboardInterrupt` is one) cancels the
/// work and is raised when its thread has ended.
pub fn run<T: Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&OnProgress) -> anyhow::Result<T> + Send,
) -> PyResult<T> {
    let (shared, caller) = (&Shared::default(), std::thread::current());
    let pool = process::own_pool(py)?;
    let (watched, outcome) = std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let work = || caught(|| work(&|step| shared.step(step)));
            let outcome = match pool {
                None => work(),
                Some(pool) => pool.install(work),
            };
            shared.ended.store(true, Ordering::Release);
            caller.unpark();
            outcome
        });
        let watched = watch(py, progress, shared);
        let is_canceled = watched.is_err();
        shared.canceled.store(is_canceled, Ordering::Relaxed);
        // A canceled call does not wait until an object store that fails answers again. Meanwhile no request of this process
        // is repeated.
        let ending = ending();
        ending.fetch_or(is_canceled, Ordering::Relaxed);
        let outcome = py.detach(|| worker.join());
        ending.fetch_and(!is_canceled, Ordering::Relaxed);
        (watched, outcome)
    });
    watched?;
    let outcome = outcome.map_err(|_| errors::raise(py, "Error", "internal error (a bug in mrm): a thread ended"))?;
    outcome.map_err(|error| errors::of_any(py, &error))
}

/// Waits for the end of the work.
fn watch(py: Python<'_>, progress: Option<&Bound<'_, PyAny>>, shared: &Shared) -> PyResult<()> {
    let mut reported = None;
    loop {
        py.detach(|| {
            if !shared.ended.load(Ordering::Acquire) {
                std::thread::park_timeout(POLL);
            }
        });
        let has_ended = shared.ended.load(Ordering::Acquire);
        py.check_signals()?;
        let counts = shared.counts();
        if let (Some(progress), Some(now)) = (progress, counts)
            && counts != reported
        {
            progress.call1(now)?;
            reported = counts;
        }
        if has_ended {
            return Ok(());
        }
    }
}
