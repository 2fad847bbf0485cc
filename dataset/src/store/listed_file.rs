//! A file that a listing of a dataset finds.

/// A file below a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// Path relative to the dataset.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
}
