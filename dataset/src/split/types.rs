//! What a split is made of: who trains, who validates, who tests, and whose labels a 1% run may see.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Part of a dataset that a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subset {
    Train,
    Validate,
    Test,
}

impl Subset {
    /// All subsets, in the order in which they are told.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validate, Self::Test];

    /// Name as it stands in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validate => "validate",
            Self::Test => "test",
        }
    }

    /// The words that tables use for each subset; the first one is its name.
    const WORDS: [(Self, &'static [&'static str]); 3] = [
        (Self::Train, &["train", "training", "tr"]),
        (Self::Validate, &["validate", "validation", "valid", "val", "dev", "development", "tune"]),
        (Self::Test, &["test", "testing", "te", "holdout", "hold-out"]),
    ];

    /// The subset of this name, as sources write it, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase();
        let found = Self::WORDS.into_iter().find(|(_, words)| words.contains(&name.as_str()));
        found.map(|(subset, _)| subset)
    }

    /// All words that [`parse`](Self::parse) takes, for a message.
    pub fn accepted() -> String {
        let words = |(_, words): (Self, &[&str])| format!("{} ({})", words[0], words[1..].join(", "));
        Self::WORDS.map(words).join(", ")
    }
}

/// What must stay together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    #[default]
    Patient,
    Study,
    Image,
}

impl Unit {
    /// Name as it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Patient => "patient",
            Self::Study => "study",
            Self::Image => "image",
        }
    }
}

/// How a split is made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SplitOptions {
    /// Percentages of the training subset whose labels may be seen. Empty: 1, 10 and 100, or those of the lists.
    pub ratios: Vec<f64>,
    pub unit: Unit,
    /// Share of the records to validate with; `None`: 0.1, or what the source or the lists say.
    pub validation: Option<f64>,
    /// Share of the records to test with; `None`: 0.2, or what the source or the lists say.
    pub test: Option<f64>,
    /// Take the source's own subsets.
    pub official: bool,
    /// Take the subsets and ratios of the published lists in this folder.
    pub lists: Option<PathBuf>,
    /// Findings to balance; empty: all of them.
    pub stratify: Vec<String>,
    pub seed: u64,
}

/// Membership of one record.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub record_id: String,
    /// `None`: the record belongs to no subset (the source's subsets or the lists leave it out).
    pub subset: Option<Subset>,
    /// The smallest ratio (percent) whose labeled set holds the record; `None` outside train.
    pub ratio: Option<f64>,
    /// Every ratio whose labeled set holds the record, ascending, in splits whose ratios do not nest; else `None`.
    pub ratios: Option<Vec<f64>>,
}

impl Member {
    /// Whether the labeled set of a ratio, in percent, holds the record.
    pub fn is_at(&self, percent: f64) -> bool {
        match &self.ratios {
            Some(ratios) => ratios.contains(&percent),
            None => self.ratio.is_some_and(|smallest| smallest <= percent),
        }
    }
}

/// Where split `name` lies in its dataset.
pub fn split_path(name: &str) -> String {
    format!("splits/{name}.parquet")
}

/// Where the certificate of split `name` lies in its dataset.
pub fn certificate_path(name: &str) -> String {
    format!("splits/{name}.json")
}
