//! Progress of long work, as libraries report it, and how a caller cancels it.

/// What happened while long work continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The work has begun.
    Started {
        /// Records to process (bytes to read, where the work says so).
        records: u64,
        /// Those of them that an earlier run has processed.
        done: u64,
    },
    /// So many more records are processed.
    Advanced(u64),
    /// The work continues, and no record was finished since the last call.
    Working,
}

/// A function that long work calls from any thread, at least once for each block of records. It returns [`Canceled`] to stop
/// the work, which then ends with that error, holds no lock, and can be continued by the same call.
pub type OnProgress<'a> = dyn Fn(Progress) -> Result<(), Canceled> + Sync + 'a;

/// The caller canceled the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the caller canceled the work before it was complete")]
pub struct Canceled;
