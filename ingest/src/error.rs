//! What can go wrong with a whole run; what goes wrong with one input is a [`Reject`].

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Errors that end a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("{path}: {cause}")]
    Io { path: PathBuf, cause: std::io::Error },
    /// Part of the raw data cannot be looked at, so nobody knows what would be missing.
    #[error(
        "{path}: {cause}, so part of the raw data would be missing; make it readable for this user, or move it out of the \
         raw directory, and run the same command again"
    )]
    Unreadable { path: PathBuf, cause: std::io::Error },
    /// A report cannot be read while the tokenizer is trained.
    #[error(
        "{path}: {cause}, so the tokenizer would be trained without this report; make the file readable for this user, or \
         give --tokenizer FILE, and run the same command again"
    )]
    UnreadableReport { path: PathBuf, cause: std::io::Error },
    /// A table that the source needs is missing.
    #[error("{folder}: no {wanted}; {remedy}")]
    MissingTable { folder: PathBuf, wanted: String, remedy: String },
    /// A table lacks a column.
    #[error("{path}: no column `{column}` (there are: {found})")]
    MissingColumn { path: PathBuf, column: String, found: String },
    /// A table lacks a column that the user named.
    #[error("{path}: no column `{column}`; did you mean {nearest}?")]
    UnknownColumn { path: PathBuf, column: String, nearest: String },
    /// A table cannot be read at all.
    #[error("{path}: {message}")]
    Table { path: PathBuf, message: String },
    /// The output directory cannot take this run.
    #[error("{path}: {message}")]
    Output { path: PathBuf, message: String },
    /// The tokenizer cannot be read or trained.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A source's plan contradicts itself.
    #[error("{record_id}: {labels} labels for {findings} findings; the source must give a label, or none, for each")]
    Labels { record_id: String, labels: usize, findings: usize },
    /// Nothing to ingest.
    #[error("{path}: {message}")]
    Empty { path: PathBuf, message: String },
    /// A shard or manifest cannot be written.
    #[error(transparent)]
    Dataset(#[from] dataset::Error),
    /// A table operation failed in polars.
    #[error("a table cannot be used: {0}; compare its columns with those of the published set")]
    Polars(#[from] polars::error::PolarsError),
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |cause| Self::Io { path: path.to_path_buf(), cause }
    }
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Where an input fell out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// A row of a source's table.
    Table,
    /// Listing what there is: unlisted files, folders that cannot be read, identifiers that repeat.
    Plan,
    /// Reading the file.
    Read,
    /// Decoding the image.
    Decode,
    /// The report: its image is kept, without text.
    Report,
}

impl Stage {
    /// Name as it stands in `rejects.parquet`.
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

/// An input that did not get in, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Relative to the raw directory.
    pub source_path: String,
    /// `None` where the input never became a record.
    pub record_id: Option<String>,
    pub stage: Stage,
    pub error: String,
}

/// How the reason begins where the system refused to read an input: another run may be able to.
const REFUSED: &str = "cannot be read: ";

impl Reject {
    /// The reason of an input that the system refused to read.
    pub(crate) fn refusal(cause: &std::io::Error) -> String {
        format!("{REFUSED}{cause}")
    }

    /// Whether a reason says that the system refused to read an input.
    pub(crate) fn is_refusal(error: &str) -> bool {
        error.starts_with(REFUSED)
    }

    /// Whether the system refused to read this input, so that `--retry-rejects` may take it in.
    pub fn is_refused(&self) -> bool {
        Self::is_refusal(&self.error)
    }

    /// A file that the source's tables do not name.
    pub(crate) fn unlisted(source_path: String) -> Self {
        let error = "no table names this file".to_owned();
        Self { source_path, record_id: None, stage: Stage::Plan, error }
    }
}
