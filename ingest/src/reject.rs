//! An input that was left out: a row of `rejects.parquet`.
//!
//! The sentence of a reject is written where the check fails: a source's tables and files in `sources/`, DICOM files in
//! `dicom/`, images in `image/`, reports in `report/`. Those that several places share are here.

use dataset::store::files;
use serde::{Deserialize, Serialize};

/// The stage at which an input was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Reading a row of a source's table.
    Table,
    /// Planning: files that no table lists, repeated identifiers.
    Plan,
    /// Reading the file.
    Read,
    /// Decoding the image.
    Decode,
    /// Reading the report; the image is kept without text.
    Report,
}

impl Stage {
    /// Name in `rejects.parquet`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Plan => "plan",
            Self::Read => "read",
            Self::Decode => "decode",
            Self::Report => "report",
        }
    }
}

/// An input that was rejected, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Path of the input, relative to the raw directory.
    pub source_path: String,
    /// The record; `None` where the input was rejected before it had an identifier.
    pub record_id: Option<String>,
    /// The stage at which it was rejected.
    pub stage: Stage,
    /// A sentence that says what is wrong.
    pub error: String,
}

/// Prefix of the reason where the system refused to read an input; a later run may be able to read it.
const REFUSED: &str = "cannot be read: ";

/// Prefix of the reason where a file differs from its published checksum; it may be downloaded again.
const DAMAGED: &str = "checksum differs from ";

impl Reject {
    /// The reason of a file whose SHA-256 is not that of a list.
    pub(crate) fn damage(list: &str, expected: &[u8], found: &[u8]) -> String {
        format!("{DAMAGED}{list}: the file has {}, the list {}", files::hex(found), files::hex(expected))
    }

    /// Whether the file differs from its published checksum.
    pub(crate) fn is_damaged(&self) -> bool {
        self.error.contains(DAMAGED)
    }

    /// The reason of an input that the system refused to read.
    pub(crate) fn refusal(cause: &std::io::Error) -> String {
        format!("{REFUSED}{cause}")
    }

    /// Whether a reason says that the system refused to read an input, or that its checksum differs.
    pub(crate) fn is_refusal(error: &str) -> bool {
        error.starts_with(REFUSED) || error.starts_with(DAMAGED)
    }

    /// Whether the system refused to read this input or its checksum differs, so that `--retry-rejects` may add it.
    pub fn is_refused(&self) -> bool {
        Self::is_refusal(&self.error)
    }

    /// The reject of a file that the source's tables do not list.
    pub(crate) fn unlisted(source_path: String) -> Self {
        let error = "no table lists this file, so it has no record".to_owned();
        Self { source_path, record_id: None, stage: Stage::Plan, error }
    }
}
