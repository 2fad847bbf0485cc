//! What a run was trained on, and where its weights came from.

use std::fmt;

use serde::{Deserialize, Serialize};

/// `init` of a run that started from random weights, and the word for it on the command line.
pub const RANDOM: &str = "random";

/// Identity of a dataset. In `config.toml` it is a list: `["nih", 112120, "1f…"]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetId(
    /// The kind of raw directory that it was ingested from.
    pub String,
    /// Number of records.
    pub u64,
    /// Digest of the manifest, which has the digests of all shards.
    pub String,
);

impl DatasetId {
    /// The kind of raw directory that it was ingested from.
    pub fn source(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DatasetId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}, {} records, {}", self.0, self.1, self.2)
    }
}

/// A further dataset of a mixture, and the digest of its split as [`Provenance::split_members`]. In `config.toml` it is a list:
/// `[["nih", 112120, "1f…"], "b3…"]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherDataset(pub DatasetId, pub String);

/// A join that the dataset of a run is seen with, and the digest of what it is about. In `config.toml` it is a list:
/// `["cxr-lt", "5c…"]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinId(pub String, pub String);

/// What a run was trained on, and where its weights came from. Keys of this struct are at the top of every `config.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The dataset; none in runs of versions that did not store it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<DatasetId>,
    /// Name of the split; empty for a run on all records.
    #[serde(default)]
    pub split: String,
    /// Digest of the split's subsets and their members; empty without a split.
    #[serde(default)]
    pub split_members: String,
    /// The joins that the dataset is seen with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joins: Vec<JoinId>,
    /// The further datasets of a mixture.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<OtherDataset>,
    /// Shares of the datasets of a mixture, and the length of an epoch, in words; empty for one dataset. It may change when a
    /// run continues.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mixture: String,
    /// The run or the file of the pretrained weights; [`RANDOM`] for random initialization.
    #[serde(default = "random")]
    pub init: String,
}

fn random() -> String {
    RANDOM.to_owned()
}

impl Default for Provenance {
    fn default() -> Self {
        Self {
            dataset: None,
            split: String::new(),
            split_members: String::new(),
            joins: Vec::new(),
            others: Vec::new(),
            mixture: String::new(),
            init: random(),
        }
    }
}

impl Provenance {
    /// The datasets, each with the digest of its split; none in runs of versions that did not store them.
    pub fn datasets(&self) -> impl Iterator<Item = (&DatasetId, &str)> {
        let others = self.others.iter().map(|OtherDataset(id, members)| (id, members.as_str()));
        self.dataset.iter().map(|id| (id, self.split_members.as_str())).chain(others)
    }

    /// The digest of the split that a run was trained with on a dataset; none where it was not trained on it.
    pub fn split_of(&self, dataset: &DatasetId) -> Option<&str> {
        self.datasets().find(|(id, _)| *id == dataset).map(|(_, members)| members)
    }
}
