//! Subsets and nested label ratios: drawn, stratified, or read from published lists, each with a certificate.

pub mod certificate;
pub mod draw;
pub mod index_table;
pub(crate) mod local_search;
pub mod published_lists;
pub(crate) mod stratify;
pub mod types;
pub mod warnings;

pub use types::{Member, Split, SplitOptions, Subset, Unit, certificate_path, split_path};
