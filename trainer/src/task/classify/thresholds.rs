//! The thresholds from which on a score counts as positive, one a finding.

use serde::{Deserialize, Serialize};

/// Thresholds, one a finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Thresholds {
    /// The subset whose labels chose them.
    pub chosen_on: String,
    /// Its labeled records.
    pub records: usize,
    /// By finding; none without a positive record.
    pub findings: Vec<FindingThreshold>,
}

/// The threshold of one finding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FindingThreshold {
    pub finding: String,
    pub threshold: Option<f32>,
}

impl Thresholds {
    /// One entry a finding.
    pub fn values(&self) -> Vec<Option<f32>> {
        self.findings.iter().map(|finding| finding.threshold).collect()
    }
}
