//! Errors, with the path or record that they concern.

use std::path::{Path, PathBuf};

use crate::format::record::{FORMAT_VERSION, OLDEST_VERSION};
use crate::progress::Canceled;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file operation failed.
    #[error("{path}: {cause}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        cause: std::io::Error,
    },
    /// Parquet could not be read or written.
    #[error("{path}: {cause}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// The error of the Parquet library.
        cause: parquet::errors::ParquetError,
    },
    /// A request to an object store failed.
    #[error("{url}: {fault}")]
    Store {
        /// The object.
        url: String,
        /// The cause.
        fault: StoreFault,
    },
    /// A JSON file (manifest, split certificate) is invalid.
    #[error("{path}: {cause}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is invalid.
        cause: serde_json::Error,
    },
    /// There is no `dataset.json`, so it is not a (finished) dataset.
    #[error("{path} {}", not_a_dataset(path))]
    NotADataset {
        /// Path or URL.
        path: PathBuf,
    },
    /// The manifest has a version of the format that this build does not read.
    #[error(
        "{path}: format version {version}, this build reads versions {OLDEST_VERSION} and {FORMAT_VERSION}; use the build \
         that wrote it, or ingest again"
    )]
    Version {
        /// The manifest.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A shard contradicts the manifest or the format.
    #[error("{shard}: {message}")]
    Shard {
        /// Path of the shard in the dataset.
        shard: String,
        /// The contradiction.
        message: String,
    },
    /// One row cannot be read or decoded.
    #[error("{shard}, row {row}: {message}")]
    Row {
        /// Path of the shard in the dataset.
        shard: String,
        /// Number of the row in the shard.
        row: usize,
        /// What is wrong.
        message: String,
    },
    /// Bytes of a shard have another checksum than when they were written.
    #[error(
        "{shard}, {part} is damaged: its CRC-32 is not the one it was written with; restore it from a copy, or \
         ingest again with --overwrite (`dataset verify` lists all that is damaged)"
    )]
    Damaged {
        /// Path of the shard in the dataset.
        shard: String,
        /// The rows and the column.
        part: String,
    },
    /// No record has this identifier.
    #[error("no record `{record_id}` in this dataset{hint}")]
    UnknownRecord {
        /// The identifier.
        record_id: String,
        /// Records that may be meant.
        hint: String,
    },
    /// A split is missing, broken, or has a patient in two subsets.
    #[error("split `{name}`: {message}")]
    Split {
        /// Name of the split.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// A join is missing or damaged, or belongs to other shards.
    #[error("join `{name}`: {message}")]
    Join {
        /// Name of the join.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// There is another split of this name.
    #[error(
        "split `{name}` exists {difference}; give another --name, or replace it with --overwrite (runs that were trained on \
         it can no longer be evaluated)"
    )]
    SplitExists {
        /// Name of the split.
        name: String,
        /// How its members differ.
        difference: String,
    },
    /// The tokenizer cannot be read or used.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// An error of one of several datasets that are used together.
    #[error("{dataset}: {error}")]
    InDataset {
        /// Path or URL of the dataset.
        dataset: String,
        /// The error.
        error: Box<Error>,
    },
    /// A loader cannot continue from a state.
    #[error("loader: the state to continue from: {0}")]
    State(String),
    /// The folder of an export cannot be used.
    #[error("{path} {message}")]
    Export {
        /// The folder.
        path: PathBuf,
        /// Why it cannot be used.
        message: String,
    },
    /// The caller canceled the work.
    #[error(transparent)]
    Canceled(#[from] Canceled),
    /// Anything else, as text.
    #[error("{0}")]
    Invalid(String),
    /// A table operation failed in polars.
    #[error("table: {0}")]
    Table(String),
}

/// Why a path is not a dataset, and which one may be meant.
fn not_a_dataset(path: &Path) -> String {
    if path.is_file() {
        return "is a file: give the dataset's folder".to_owned();
    }
    let remote = path.to_string_lossy().contains("://");
    if !remote && !path.exists() {
        let schemes = ["s3", "gs", "az", "https", "file"];
        let scheme = path.to_str().and_then(|text| text.split_once(':')).filter(|(scheme, _)| schemes.contains(scheme));
        return match scheme {
            Some((scheme, rest)) => {
                format!("does not exist; did you mean {scheme}://{}?", rest.trim_start_matches('/'))
            }
            None => "does not exist".to_owned(),
        };
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut inside: Vec<String> = entries
        .filter(|entry| entry.path().join("dataset.json").is_file())
        .map(|entry| entry.path().display().to_string())
        .collect();
    inside.sort();
    if inside.is_empty() {
        return "is not a dataset: it has no dataset.json (was `ingest` interrupted? run the same command again)"
            .to_owned();
    }
    format!("is not a dataset: it has no dataset.json; did you mean {}?", inside.join(" or "))
}

/// Why a request to an object store failed, with a remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreFault {
    /// The URL has an unknown form.
    #[error(
        "not the address of a dataset: give a folder, file:///FOLDER, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, \
         az://CONTAINER/PREFIX or https://HOST/PATH"
    )]
    Location,
    /// The feature `cloud` is off.
    #[error("this build reads local folders only: build it with the feature `cloud`")]
    NoCloud,
    /// A web server cannot be written to or listed.
    #[error("a web server is read only: write to a folder or an object store (s3://, gs://, az://)")]
    ReadOnly,
    /// The object does not exist.
    #[error("there is no such object")]
    NoObject,
    /// An object that was to be new exists.
    #[error("there is such an object already")]
    Exists,
    /// Conditional writes are switched off.
    #[error("conditional writes are switched off")]
    Unconditional,
    /// The store does not know this kind of request.
    #[error("this store does not know the request: {0}")]
    Unsupported(String),
    /// The object has another version than the one that was opened.
    #[error("it was replaced after it was opened: open the dataset again")]
    Replaced,
    /// The bucket or container does not exist.
    #[error("there is no such bucket: {remedy}")]
    NoBucket {
        /// What helps.
        remedy: &'static str,
    },
    /// There are no credentials, or they give no access.
    #[error("no access ({cause}): {remedy}")]
    Credentials {
        /// The store's answer.
        cause: String,
        /// What helps.
        remedy: &'static str,
    },
    /// There was no connection, or no answer in time.
    #[error("no answer from {endpoint} ({cause}): {remedy}")]
    Unreachable {
        /// The server.
        endpoint: String,
        /// The error of the connection.
        cause: String,
        /// What helps.
        remedy: &'static str,
    },
    /// The endpoint is `http://`, which must be allowed.
    #[error("{endpoint} is not encrypted: set AWS_ALLOW_HTTP=true to use it nevertheless")]
    PlainHttp {
        /// The server.
        endpoint: String,
    },
    /// The variable `MRM_STORE_TIMEOUT` is invalid.
    #[error("MRM_STORE_TIMEOUT is `{0}`: give a number of seconds from 0 to 86400")]
    Timeout(String),
    /// Anything else, as text.
    #[error("{0}")]
    Other(String),
}

impl StoreFault {
    pub(crate) fn at(self, url: impl Into<String>) -> Error {
        let url: String = url.into();
        Error::Store { url: without_passwords(&url), fault: self }
    }
}

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(feature = "polars")]
impl From<polars::error::PolarsError> for Error {
    fn from(error: polars::error::PolarsError) -> Self {
        Self::Table(error.to_string())
    }
}

impl Error {
    /// The error without the dataset that it concerns ([`Error::InDataset`]).
    pub fn innermost(&self) -> &Self {
        match self {
            Self::InDataset { error, .. } => error.innermost(),
            other => other,
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |cause| Self::Io { path: path.to_path_buf(), cause }
    }

    pub(crate) fn parquet(path: &Path) -> impl FnOnce(parquet::errors::ParquetError) -> Self + '_ {
        move |cause| Self::Parquet { path: path.to_path_buf(), cause }
    }

    pub(crate) fn json(path: &Path) -> impl FnOnce(serde_json::Error) -> Self + '_ {
        move |cause| Self::Json { path: path.to_path_buf(), cause }
    }
}

/// Does work on bytes that may be damaged: a panic of a decoder or of the Parquet library becomes the error `broken`.
pub(crate) fn guarded<T>(broken: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::Invalid(broken.to_owned())))
}

/// The message of a panic.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}

/// A text whose URLs are without user names and passwords.
pub(crate) fn without_passwords(text: &str) -> String {
    let mut parts = text.split("://");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_whitespace() || "/\"'`<>()".contains(c)).unwrap_or(part.len());
        // Azure writes CONTAINER@ACCOUNT, which contains no password.
        let is_container = ["abfs", "abfss", "az"].iter().any(|scheme| clean.ends_with(scheme));
        let is_login = |at: &usize| !is_container || part[..*at].contains(':');
        clean += "://";
        match part[..end].rfind('@').filter(is_login) {
            Some(at) => clean += &format!("***{}", &part[at..]),
            None => clean += part,
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_passwords_and_nothing_else() {
        let clean = "error for url (http://host:9000/a@b), s3://bucket/a and a@b";
        assert_eq!(without_passwords(clean), clean);
        let clean = without_passwords("no answer from http://me:pass%40word@host:9000/x (http://a:b@c), s3://k:s@t");
        assert_eq!(clean, "no answer from http://***@host:9000/x (http://***@c), s3://***@t");
        assert_eq!(without_passwords("abfss://c@a.dfs.core.windows.net/p"), "abfss://c@a.dfs.core.windows.net/p");
        assert_eq!(without_passwords("az://c:key@a/p"), "az://***@a/p");
    }
}
