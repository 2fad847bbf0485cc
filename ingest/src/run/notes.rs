//! The note beside a finished shard (`.ingest/part-00000.json`): what the manifest needs of the shard, so that a run that
//! is started again does not read the shard.

use dataset::format::manifest::ShardInfo;
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

/// Count, sum and sum of squares of pixels. The sums are whole numbers, so their order does not matter.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub struct PixelSums {
    count: u64,
    sum: u64,
    squares: u64,
}

impl PixelSums {
    /// Adds the sums of other pixels.
    pub fn add(&mut self, other: Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// The sums of these pixels.
    pub fn of(pixels: &[u8]) -> Self {
        let mut sums = Self { count: pixels.len() as u64, sum: 0, squares: 0 };
        // The squares of 2¹⁵ pixels sum up to less than 2³², and 32-bit sums are vectorized better.
        for chunk in pixels.chunks(1 << 15) {
            sums.sum += u64::from(chunk.iter().map(|&pixel| u32::from(pixel)).sum::<u32>());
            sums.squares += u64::from(chunk.iter().map(|&pixel| u32::from(pixel) * u32::from(pixel)).sum::<u32>());
        }
        sums
    }

    /// Mean and standard deviation, 0..1.
    pub fn moments(self) -> (f64, f64) {
        if self.count == 0 {
            return (0.0, 0.0);
        }
        let mean = self.sum as f64 / self.count as f64;
        let variance = (self.squares as f64 / self.count as f64 - mean * mean).max(0.0);
        (mean / 255.0, variance.sqrt() / 255.0)
    }
}
