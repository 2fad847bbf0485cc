//! One room a source: how its public layout is read.

mod covid;
mod mimic_cxr;

pub use covid::Covid;
pub use mimic_cxr::MimicCxr;
