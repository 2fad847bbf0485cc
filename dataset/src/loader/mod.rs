//! Batches for a trainer, in a seeded global order.

pub(crate) mod batch;
pub(crate) mod buffers;
pub mod builder;
pub(crate) mod crops;
pub(crate) mod lists;
#[expect(clippy::module_inception, reason = "it contains `Loader`")]
pub(crate) mod loader;
pub mod masking;
pub(crate) mod metrics;
pub(crate) mod mixture;
pub(crate) mod order;
pub(crate) mod part;
pub(crate) mod plan;
pub(crate) mod random_access;
pub(crate) mod row_group_cache;
pub(crate) mod sample_options;
pub(crate) mod samples;
pub(crate) mod sentences;
pub(crate) mod settings;
pub(crate) mod state;
pub(crate) mod studies;
pub(crate) mod text_rows;
pub(crate) mod texts;
pub(crate) mod token_weights;

pub use batch::{Batch, BatchArrays, BatchText, BatchTextMut};
pub use buffers::{HostBuffer, PlacedBox};
pub use builder::{LoaderBuilder, MAX_PREFETCH, MAX_THREADS};
pub use loader::Loader;
pub use metrics::LoaderMetrics;
pub use mixture::{EpochLength, MAX_EPOCH_RECORDS, MAX_PARTS, Mixture, Weights};
pub use part::MixturePart;
pub use random_access::RandomAccess;
pub use settings::{OnError, TextOptions, TextSource};
pub use state::LoaderState;
pub use studies::{MAX_SLOTS, StudyOptions, ViewChoice, count_studies};
pub use token_weights::TokenWeights;
