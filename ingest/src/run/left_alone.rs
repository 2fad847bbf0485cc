//! Work that reports no progress. Its caller can still cancel: the work is left alone then, and its result is dropped.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use dataset::progress::{OnProgress, Progress};
use rayon::ThreadPoolBuilder;

use crate::error::{Error, Result};

/// Time between two questions whether the caller cancels.
const POLL: Duration = Duration::from_millis(50);

/// Does work on threads of its own, which continue after a cancellation until the work ends. It must only read.
///
/// # Errors
/// Those of the work, and [`Error::Canceled`].
pub fn left_alone_when_canceled<T: Send + 'static>(
    progress: &OnProgress,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    progress(Progress::Working)?;
    let pool = ThreadPoolBuilder::new().build().map_err(|error| Error::Threads(error.to_string()))?;
    let (sender, receiver) = mpsc::channel();
    pool.spawn(move || {
        // Nobody waits for it after a cancellation.
        let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
    });
    loop {
        match receiver.recv_timeout(POLL) {
            Ok(outcome) => return outcome.unwrap_or_else(|panic| resume_unwind(panic)),
            Err(RecvTimeoutError::Timeout) => progress(Progress::Working)?,
            Err(RecvTimeoutError::Disconnected) => return Err(Error::Threads("a thread ended".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use dataset::progress::Canceled;

    use super::*;

    #[test]
    fn a_cancellation_does_not_wait_for_the_work() {
        let calls = AtomicUsize::new(0);
        let cancel = |_| if calls.fetch_add(1, Ordering::SeqCst) == 2 { Err(Canceled) } else { Ok(()) };
        let (end, ended) = mpsc::channel::<()>();
        let work = move || {
            let _ = ended.recv();
            Ok(())
        };
        assert!(matches!(left_alone_when_canceled(&cancel, work), Err(Error::Canceled(_))));
        end.send(()).expect("the work waits still");
        assert_eq!(left_alone_when_canceled(&|_| Ok(()), || Ok(7)).unwrap(), 7);
        let panics = || left_alone_when_canceled::<()>(&|_| Ok(()), || panic!("on purpose"));
        assert!(catch_unwind(panics).is_err());
    }
}
