//! How a loader keeps up with the program that takes its batches.

use std::time::Duration;

/// Totals of a loader since it was built. The difference of two of them describes the time between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoaderMetrics {
    /// Batches that were given.
    pub batches: u64,
    /// Time that the calls for them waited.
    pub waited: Duration,
    /// For each batch, how many were ready when it was first asked for; their sum.
    pub ready: u64,
}
