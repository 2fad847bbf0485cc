//! Where a dataset is: a local folder or an object store; atomic writes and locks.

pub mod files;
pub(crate) mod retry;
pub mod storage;
