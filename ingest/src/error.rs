//! Errors that end a run.

use std::path::{Path, PathBuf};

use dataset::progress::Canceled;

/// Errors that end a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("{path}: {cause}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        cause: std::io::Error,
    },
    /// A file or folder of the raw data cannot be read, so an unknown part of it would be missing.
    #[error(
        "{path}: {cause}, so part of the raw data would be missing; make it readable for this user, or move it out of the \
         raw directory, and run the same command again"
    )]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        cause: std::io::Error,
    },
    /// A report cannot be read while the tokenizer is trained.
    #[error(
        "{path}: {cause}, so the tokenizer would be trained without this report; make the file readable for this user, or \
         give --tokenizer FILE, and run the same command again"
    )]
    UnreadableReport {
        /// The report.
        path: PathBuf,
        /// The system's error.
        cause: std::io::Error,
    },
    /// A table that the source needs is missing.
    #[error("{folder}: no {wanted}; {remedy}")]
    MissingTable {
        /// The raw directory.
        folder: PathBuf,
        /// Names that the table may have.
        wanted: String,
        /// What the user can do.
        remedy: String,
    },
    /// A table lacks a column.
    #[error("{path}: no column `{column}` (the table has: {found}); is it the table of this data set?")]
    MissingColumn {
        /// The table.
        path: PathBuf,
        /// The column.
        column: String,
        /// The columns that the table has.
        found: String,
    },
    /// A table lacks a column that the user named.
    #[error("{path}: no column `{column}`; did you mean {nearest}?")]
    UnknownColumn {
        /// The table.
        path: PathBuf,
        /// The name that was given.
        column: String,
        /// The most similar names, in backticks.
        nearest: String,
    },
    /// A table cannot be read.
    #[error("{path}: {message}")]
    Table {
        /// The table.
        path: PathBuf,
        /// Cause and remedy.
        message: String,
    },
    /// The output cannot be used for this run.
    #[error("{path}: {message}")]
    Output {
        /// The output.
        path: PathBuf,
        /// Cause and remedy.
        message: String,
    },
    /// Options exclude each other.
    #[error("{0}")]
    Options(String),
    /// The tokenizer cannot be read or trained.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A record of a source's plan has another number of labels than the plan has findings.
    #[error(
        "{record_id}: {labels} labels for {findings} findings; the source must give a label or `None` for each finding"
    )]
    Labels {
        /// The record.
        record_id: String,
        /// Its number of labels.
        labels: usize,
        /// The plan's number of findings.
        findings: usize,
    },
    /// A record of a source's plan has another number of grades than the plan has scales.
    #[error("{record_id}: {grades} grades for {scales} scales; the source must give a grade or `None` for each scale")]
    Grades {
        /// The record.
        record_id: String,
        /// Its number of grades.
        grades: usize,
        /// The plan's number of scales.
        scales: usize,
    },
    /// A record of a source's plan has masks that the plan does not name, or several of one name.
    #[error("{record_id}: {message}; the source must name each mask once, and name all of them in its plan")]
    Masks {
        /// The record.
        record_id: String,
        /// What is wrong.
        message: String,
    },
    /// There is no raw directory at this path.
    #[error(
        "{path} is no directory; give the one that contains the raw data of `{source_name}` (docs/datasets.md shows its layout)"
    )]
    NoDirectory {
        /// The path.
        path: PathBuf,
        /// Name of the source.
        source_name: &'static str,
    },
    /// The raw directory has nothing to ingest.
    #[error("{path}: {message}")]
    Empty {
        /// The raw directory.
        path: PathBuf,
        /// Cause and remedy.
        message: String,
    },
    /// The environment variables name no task.
    #[error("--task auto: {0}")]
    TaskVariables(String),
    /// The system gives no threads, or one of them ended.
    #[error("no threads: {0}")]
    Threads(String),
    /// The caller canceled the work.
    #[error(transparent)]
    Canceled(#[from] Canceled),
    /// A shard or manifest cannot be written.
    #[error(transparent)]
    Dataset(#[from] dataset::Error),
    /// A table operation failed in polars.
    #[error("a table cannot be used: {0}; compare its columns with those of the published data set")]
    Polars(#[from] polars::error::PolarsError),
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |cause| Self::Io { path: path.to_path_buf(), cause }
    }
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
