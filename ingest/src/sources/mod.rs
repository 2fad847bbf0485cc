//! One room a source: how its public layout is read.

mod chexpert;
mod covid;
mod mimic_cxr;
mod nih;

pub use chexpert::Chexpert;
pub use covid::Covid;
pub use mimic_cxr::MimicCxr;
pub use nih::Nih;
