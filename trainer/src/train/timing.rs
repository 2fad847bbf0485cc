//! Where the time of steps goes, for the log.

use std::cell::Cell;
use std::time::{Duration, Instant};

use dataset::Loader;
use dataset::loader::LoaderMetrics;

thread_local! {
    static SENT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Sends something to the device; the time that the host spends on it is counted.
pub(crate) fn sending<T>(send: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let sent = send();
    SENT.set(SENT.get() + began.elapsed());
    sent
}

/// The time of the steps since the last line of the log.
pub(super) struct Timing {
    began: Instant,
    steps: u32,
    records: usize,
    /// What the loader had counted, and what had been sent, at the last line.
    loader: LoaderMetrics,
    sent: Duration,
}

impl Timing {
    pub(super) fn new(loader: &Loader) -> Self {
        Self { began: Instant::now(), steps: 0, records: 0, loader: loader.metrics(), sent: SENT.get() }
    }

    /// Counts a step of so many records, over all processes.
    pub(super) fn step(&mut self, records: usize) {
        self.steps += 1;
        self.records += records;
    }

    /// Leaves out what the program does besides steps.
    pub(super) fn without<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let (began, sent) = (Instant::now(), SENT.get());
        let done = work();
        self.began += began.elapsed();
        self.sent += SENT.get().saturating_sub(sent);
        done
    }

    /// Means of the steps since the last line: records, seconds, seconds of waiting for batches, batches that were ready when
    /// one was asked for, seconds of the host for sending batches. The device may copy and compute beside the host.
    pub(super) fn line(&mut self, loader: &Loader) -> [(&'static str, f64); 5] {
        let (metrics, sent) = (loader.metrics(), SENT.get());
        let steps = f64::from(self.steps.max(1));
        let batches = metrics.batches.saturating_sub(self.loader.batches).max(1) as f64;
        let values = [
            ("step_records", self.records as f64 / steps),
            ("step_s", self.began.elapsed().as_secs_f64() / steps),
            ("loader_wait_s", metrics.waited.saturating_sub(self.loader.waited).as_secs_f64() / steps),
            ("loader_ready", metrics.ready.saturating_sub(self.loader.ready) as f64 / batches),
            ("transfer_s", sent.saturating_sub(self.sent).as_secs_f64() / steps),
        ];
        *self = Self::new(loader);
        values
    }
}
