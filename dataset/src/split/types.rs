//! Subsets, options of a split, and the membership of a record.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::split::ratio::Ratio;

/// The part of a dataset that a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subset {
    /// Trains a model.
    Train,
    /// Chooses among models.
    Validate,
    /// Evaluates the chosen one.
    Test,
}

impl Subset {
    /// All subsets, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validate, Self::Test];

    /// Name in tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validate => "validate",
            Self::Test => "test",
        }
    }

    /// The words for each subset in tables of sources; the first one is its name.
    const WORDS: [(Self, &'static [&'static str]); 3] = [
        (Self::Train, &["train", "training", "tr"]),
        (Self::Validate, &["validate", "validation", "valid", "val", "dev", "development", "tune"]),
        (Self::Test, &["test", "testing", "te", "holdout", "hold-out"]),
    ];

    /// Parses a word that a source uses for a subset, in any case.
    pub fn parse(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase();
        let known = Self::WORDS.into_iter().find(|(_, words)| words.contains(&name.as_str()));
        known.map(|(subset, _)| subset)
    }

    /// All words that [`parse`](Self::parse) accepts, for a message.
    pub fn accepted() -> String {
        let words = |(_, words): (Self, &[&str])| format!("{} ({})", words[0], words[1..].join(", "));
        Self::WORDS.map(words).join(", ")
    }
}

/// Which records stay together in one subset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Those of a patient.
    #[default]
    Patient,
    /// Those of a study.
    Study,
    /// Each record is divided alone.
    Image,
}

impl Unit {
    /// Name on the command line.
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
    /// Label ratios. Empty: 1, 10 and 100 percent, or those of the lists.
    pub ratios: Vec<Ratio>,
    /// Which records stay together.
    pub unit: Unit,
    /// Share of the records to validate with, in [0, 1). `None`: 0.1, or the validation subset of the source or the lists.
    pub validation: Option<f64>,
    /// Share of the records to test with, in [0, 1). `None`: 0.2, or the test subset of the source or the lists.
    pub test: Option<f64>,
    /// Whether the source's own subsets are used.
    pub official: bool,
    /// Folder of published lists whose subsets and ratios are used.
    pub lists: Option<PathBuf>,
    /// Whether records with equal stored pixels stay together, hence all units that share an image.
    #[serde(default)]
    pub keep_duplicates_together: bool,
    /// Join whose labels are balanced, in place of the dataset's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// Join whose subsets are used as official ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset_from: Option<String>,
    /// Findings to balance; empty: all of them.
    pub stratify: Vec<String>,
    /// Decides among equally good choices.
    pub seed: u64,
}

/// Membership of one record.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Identifier of the record.
    pub record_id: String,
    /// `None`: the record belongs to no subset (the source's subsets or the lists leave it out).
    pub subset: Option<Subset>,
    /// The smallest ratio whose labeled set contains the record; `None` outside train.
    pub ratio: Option<Ratio>,
    /// In splits whose ratios do not nest: every ratio whose labeled set contains the record, ascending.
    pub ratios: Option<Vec<Ratio>>,
}

impl Member {
    /// Whether the labeled set of a ratio contains the record.
    pub fn is_at(&self, ratio: Ratio) -> bool {
        match &self.ratios {
            Some(ratios) => ratios.contains(&ratio),
            None => self.ratio.is_some_and(|smallest| smallest <= ratio),
        }
    }
}

/// Path of the table of split `name` in its dataset.
pub fn split_path(name: &str) -> String {
    format!("splits/{name}.parquet")
}

/// Path of the certificate of split `name` in its dataset.
pub fn certificate_path(name: &str) -> String {
    format!("splits/{name}.json")
}
