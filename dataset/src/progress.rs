//! Progress of long work, as libraries report it.

/// What happened while long work continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The work has begun.
    Started {
        /// Records to process.
        records: u64,
        /// Those of them that an earlier run has processed.
        done: u64,
    },
    /// So many more records are processed.
    Advanced(u64),
}
