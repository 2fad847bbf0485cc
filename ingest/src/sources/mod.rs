//! One room a source: how its public layout is read.

mod chexpert;
mod chexpert_plus;
mod covid;
mod mimic_cxr;
mod mimic_tree;
mod nih;

pub use chexpert::Chexpert;
pub use covid::Covid;
pub use mimic_cxr::{Labeller, MimicCxr};
pub use mimic_tree::Pictures;
pub use nih::Nih;
