//! Position of a loader, for resuming.

use serde::{Deserialize, Serialize};

/// Position of a loader: [`LoaderBuilder::resume`](crate::loader::LoaderBuilder::resume) continues with the exact next
/// batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderState {
    /// Epoch of the next batch, from 0 on.
    pub epoch: u64,
    /// Number of the next batch within its epoch.
    pub batch: u64,
    /// Digest of everything that decides the order: records, batch size, seed, policies. 0 is accepted by any loader.
    #[serde(default)]
    pub order: u64,
}
