//! Batches for a trainer, in a seeded global order.

pub(crate) mod batch;
pub mod builder;
pub mod masking;
pub(crate) mod read;
pub(crate) mod row_group_cache;

pub use builder::{Loader, LoaderBuilder, LoaderState, MAX_PREFETCH, MAX_THREADS, OnError, TextOptions};
