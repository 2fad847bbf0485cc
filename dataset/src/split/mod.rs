//! Subsets and nested label ratios: drawn and stratified, official, or from published lists, each with a certificate.

pub mod certificate;
pub mod draw;
pub mod duplicates;
pub(crate) mod groups;
pub mod index_table;
pub(crate) mod local_search;
pub mod parts;
pub mod published_lists;
pub mod ratio;
pub mod stored;
pub(crate) mod stratify;
pub mod types;
pub mod warnings;

pub use ratio::Ratio;
pub use stored::Split;
pub use types::{Member, SplitOptions, Subset, Unit, certificate_path, split_path};
