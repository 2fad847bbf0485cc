//! Datasets in an object store: the same bytes as in a folder, few requests, and one clear line where something fails.

mod ingest;
mod interruptions;
mod messages;
mod same_bytes;
