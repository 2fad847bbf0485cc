//! How long failed requests to an object store are repeated.
//!
//! The retries of `object_store` are switched off: they count tries, so that an outage of a second uses them up, and they
//! do not cover a body or a listing that is cut off.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use crate::error::StoreFault;

/// Environment variable with the time, in seconds, for which a failing request is repeated.
pub const TIMEOUT_VARIABLE: &str = "MRM_STORE_TIMEOUT";
/// Default of [`TIMEOUT_VARIABLE`].
const TIMEOUT: Duration = Duration::from_mins(2);
/// The longest time that can be set.
const MAX_TIMEOUT: f64 = 86_400.0;
/// Wait before the second try; each further wait is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait between two tries.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Time after which a request that still fails is reported.
const REPORT_AFTER: Duration = Duration::from_secs(5);

/// Time between two checks of [`ending`] during a wait.
const CHECK: Duration = Duration::from_millis(200);

/// A flag that a program sets when it is about to end, in a signal handler for example. Requests that fail from then on
/// are not repeated, so that the program does not wait for a store that is unreachable.
pub fn ending() -> Arc<AtomicBool> {
    static ENDING: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
    ENDING.clone()
}

static REPORT: OnceLock<fn(&str)> = OnceLock::new();

/// Sets what is called, with one line of text, when a request has failed for five seconds and is repeated further. Without
/// it nothing is reported. The first call counts.
pub fn report_with(report: fn(&str)) {
    let _ = REPORT.set(report);
}

pub(crate) fn report(line: &str) {
    if let Some(report) = REPORT.get() {
        report(line);
    }
}

/// How long a failing request is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    timeout: Duration,
}

impl Retry {
    /// From the value of [`TIMEOUT_VARIABLE`], where it is set.
    pub fn parse(value: Option<&str>) -> Result<Self, StoreFault> {
        let Some(value) = value else { return Ok(Self { timeout: TIMEOUT }) };
        let seconds = value.trim().parse().ok().filter(|seconds| (0.0..=MAX_TIMEOUT).contains(seconds));
        let timeout = seconds.map(Duration::from_secs_f64);
        timeout.map(|timeout| Self { timeout }).ok_or_else(|| StoreFault::Timeout(value.to_owned()))
    }

    /// Makes a request until it succeeds, fails with an error that is not `transient`, or has failed for too long. After
    /// [`REPORT_AFTER`], `report` gets the error and the time left, once.
    pub async fn run<T, E, F: Future<Output = Result<T, E>>>(
        self,
        request: impl Fn() -> F,
        transient: impl Fn(&E) -> bool,
        report: impl Fn(&E, Duration),
    ) -> Result<T, E> {
        let (mut wait, mut first_failure, mut is_reported) = (FIRST_WAIT, None, false);
        let is_ending = ending();
        loop {
            let error = match request().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let failing = first_failure.get_or_insert_with(Instant::now).elapsed();
            let left = self.timeout.saturating_sub(failing);
            if left.is_zero() || !transient(&error) {
                return Err(error);
            }
            if failing >= REPORT_AFTER && !is_reported {
                report(&error, left);
                is_reported = true;
            }
            let until = Instant::now() + wait.min(left);
            loop {
                if is_ending.load(Ordering::Relaxed) {
                    return Err(error);
                }
                match until.saturating_duration_since(Instant::now()) {
                    Duration::ZERO => break,
                    rest => tokio::time::sleep(rest.min(CHECK)).await,
                }
            }
            wait = (wait * 2).min(MAX_WAIT);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn tries(timeout: &str, succeeds_at: usize, transient: bool) -> (Result<(), usize>, usize) {
        let made = Cell::new(0);
        let request = || {
            made.set(made.get() + 1);
            std::future::ready(if made.get() == succeeds_at { Ok(()) } else { Err(made.get()) })
        };
        let retry = Retry::parse(Some(timeout)).expect("a timeout");
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        (runtime.block_on(retry.run(request, |_| transient, |_, _| {})), made.get())
    }

    #[test]
    fn a_request_is_made_again_for_as_long_as_is_set() {
        assert_eq!(tries("0", 2, true), (Err(1), 1));
        assert_eq!(tries("60", 3, true), (Ok(()), 3));
        assert_eq!(tries("60", 3, false), (Err(1), 1));
        // After half a second and at the end of the time.
        assert_eq!(tries("0.7", 9, true), (Err(3), 3));
        assert_eq!(Retry::parse(None), Ok(Retry { timeout: TIMEOUT }));
        for odd in ["", "-1", "soon", "1e300", "NaN"] {
            assert_eq!(Retry::parse(Some(odd)), Err(StoreFault::Timeout(odd.to_owned())));
        }
    }
}
