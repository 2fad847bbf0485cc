//! Datasets in an object store: the same bytes as in a folder, few requests, and one line for each fault.

mod cache;
mod ingest;
mod interruptions;
mod messages;
mod same_bytes;
