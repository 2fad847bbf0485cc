//! Datasets in an object store: the same bytes as in a folder, few requests, and one line for each fault.

mod ingest;
mod interruptions;
mod messages;
mod same_bytes;
