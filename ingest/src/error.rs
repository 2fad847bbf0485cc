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

impl Reject {
    /// A file that the source's tables do not name.
    pub(crate) fn unlisted(source_path: String) -> Self {
        let error = "no table names this file".to_owned();
        Self { source_path, record_id: None, stage: Stage::Plan, error }
    }
}
