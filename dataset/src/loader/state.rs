//! Position of a loader, for resuming.

use serde::{Deserialize, Serialize};

/// Position of a loader: [`LoaderBuilder::resume`](crate::loader::LoaderBuilder::resume) continues with the exact next
/// batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoaderState {
    /// Epoch of the next batch, from 0 on.
    pub epoch: u64,
    /// Number of the next batch within its epoch.
    pub batch: u64,
    /// Digest of everything that decides the order: records, batch size, seed, policies; not the weights of a mixture. 0 is
    /// accepted by any loader.
    #[serde(default)]
    pub order: u64,
    /// Of a mixture: records drawn of each dataset so far, over all ranks. With other weights, each dataset continues here.
    /// Empty: those of a loader that had its weights from the start, or, for [`Loader::seek`](crate::Loader::seek), those that
    /// the loader counts itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drawn: Vec<u64>,
}
