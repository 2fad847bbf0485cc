//! What can go wrong with a dataset, always with the path or record it went wrong on.

use std::path::{Path, PathBuf};

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("{path}: {cause}")]
    Io { path: PathBuf, cause: std::io::Error },
    /// Parquet could not be read or written.
    #[error("{path}: {cause}")]
    Parquet { path: PathBuf, cause: parquet::errors::ParquetError },
    /// An object store refused a request, or gave no answer.
    #[error("{url}: {fault}")]
    Store { url: String, fault: StoreFault },
    /// A JSON file (manifest, split certificate) is not what it should be.
    #[error("{path}: {cause}")]
    Json { path: PathBuf, cause: serde_json::Error },
    /// The directory holds no `dataset.json`, so it is no (finished) dataset.
    #[error("{path} {}", not_a_dataset(path))]
    NotADataset { path: PathBuf },
    /// The manifest was written by another version of the format.
    #[error("{path}: format version {found}, this build reads version {expected}; ingest again")]
    Version { path: PathBuf, found: u32, expected: u32 },
    /// A shard contradicts the manifest or the format.
    #[error("{shard}: {message}")]
    Shard { shard: String, message: String },
    /// One row cannot be read or decoded.
    #[error("{shard}, row {row}: {message}")]
    Row { shard: String, row: usize, message: String },
    /// Bytes of a shard have another checksum than when they were written. `part` says which rows, and the column.
    #[error(
        "{shard}, {part} is damaged: its CRC-32 is not the one it was written with; restore it from a copy, or \
         ingest again with --overwrite (`dataset verify` lists all that is damaged)"
    )]
    Damaged { shard: String, part: String },
    /// No record has this identifier.
    #[error("no record `{record_id}` in this dataset{hint}")]
    UnknownRecord { record_id: String, hint: String },
    /// A split is missing, broken or leaks.
    #[error("split `{name}`: {message}")]
    Split { name: String, message: String },
    /// An export cannot go to where it is to go.
    #[error("{path} {message}")]
    Export { path: PathBuf, message: String },
    /// Something that cannot be done or read, in words; what holds it adds the place.
    #[error("{0}")]
    Invalid(String),
    /// A table operation failed in polars.
    #[error("table: {0}")]
    Table(#[from] polars::error::PolarsError),
}

/// Why a place is no dataset, and where one may be.
fn not_a_dataset(path: &Path) -> String {
    if path.is_file() {
        return "is a file: give the dataset's folder".to_owned();
    }
    let remote = path.to_string_lossy().contains("://");
    if !remote && !path.exists() {
        let scheme =
            path.to_str().and_then(|text| text.split_once(':')).filter(|(scheme, _)| ["s3", "file"].contains(scheme));
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

/// What is wrong with a request to an object store, and what helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreFault {
    #[error("no place for a dataset: give a folder, file:///FOLDER or s3://BUCKET/PREFIX")]
    Location,
    #[error("there is no such object")]
    NoObject,
    #[error("it was replaced after it was opened: open the dataset anew")]
    Replaced,
    #[error("there is no such bucket: make it first, or set AWS_REGION or AWS_ENDPOINT_URL to where it is")]
    NoBucket,
    #[error(
        "no access: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true if all may read ({0})"
    )]
    Credentials(String),
    #[error("no answer from {endpoint} ({cause}): is the network up, and AWS_ENDPOINT_URL right?")]
    Unreachable { endpoint: String, cause: String },
    #[error("{endpoint} is not encrypted: set AWS_ALLOW_HTTP=true if that is meant")]
    PlainHttp { endpoint: String },
    #[error("MRM_STORE_TIMEOUT is `{0}`: give a number of seconds from 0 to 86400")]
    Timeout(String),
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

impl Error {
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

/// Does work that meets damaged bytes: a panic of a decoder or of the Parquet library is an error like any other.
pub(crate) fn guarded<T>(broken: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(Error::Invalid(broken.to_owned())))
}

/// What a panic says.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}

/// A text whose URLs have lost their user names and passwords.
pub(crate) fn without_passwords(text: &str) -> String {
    let mut parts = text.split("://");
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_whitespace() || "/\"'`<>()".contains(c)).unwrap_or(part.len());
        clean += "://";
        match part[..end].rfind('@') {
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
        let told = without_passwords("no answer from http://me:pass%40word@host:9000/x (http://a:b@c), s3://k:s@t");
        assert_eq!(told, "no answer from http://***@host:9000/x (http://***@c), s3://***@t");
    }
}
