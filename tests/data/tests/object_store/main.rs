//! Datasets in an object store: the same bytes as in a folder, few requests, and one line for each fault.

mod cache;
mod disturbed;
mod ingest;
mod interruptions;
mod locks;
mod messages;
mod same_bytes;
mod secrets;
