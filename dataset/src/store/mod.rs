//! Where a dataset is stored: a local folder or an object store; atomic writes, locks, retries.

#[cfg(feature = "cloud")]
pub(crate) mod answer_memory;
#[cfg(feature = "cloud")]
pub mod cache;
#[cfg(feature = "cloud")]
pub(crate) mod connection;
pub mod files;
pub(crate) mod folder;
pub(crate) mod limits;
pub(crate) mod listed_file;
pub(crate) mod location;
#[cfg(feature = "cloud")]
pub(crate) mod providers;
#[cfg(feature = "cloud")]
pub(crate) mod remote;
#[cfg(feature = "cloud")]
pub(crate) mod request_errors;
#[cfg(feature = "cloud")]
pub mod retry;
#[cfg(feature = "cloud")]
pub(crate) mod secrets;
pub mod storage;
pub(crate) mod stored_file;
#[cfg(feature = "cloud")]
pub(crate) mod upload;
