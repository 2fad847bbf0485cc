//! The note beside a finished shard (`.ingest/part-00000.json`): what the manifest needs of the shard, so that a run that
//! is started again does not read the shard.

use dataset::format::manifest::ShardInfo;
use dataset::format::pixel_sums::PixelSums;
use serde::{Deserialize, Serialize};

use crate::reject::Reject;
use crate::run::guards::Guards;
use crate::run::keys::STAMPS;

/// Name of the note of a shard.
pub fn note_name(index: usize) -> String {
    format!("part-{index:05}.json")
}

/// Name of the stamps of a shard's inputs.
pub fn stamps_name(index: usize) -> String {
    format!("part-{index:05}.{STAMPS}")
}

/// Note beside a finished shard.
#[derive(Clone, Serialize, Deserialize)]
pub struct ShardNote {
    pub info: ShardInfo,
    pub rejects: Vec<Reject>,
    pub reports: u64,
    pub pixels: PixelSums,
    #[serde(default)]
    pub unknown_views: u64,
    #[serde(default)]
    pub guards: Guards,
    /// Identifies the plan of the tasks that made the shard; empty in a run alone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub plan: String,
}
