//! One room a source: how its public layout is read.

mod chexpert;
mod covid;
mod folder;
mod folder_table;
mod mimic_cxr;
mod nih;
mod openi;
mod rsna;
mod siim;

pub use chexpert::Chexpert;
pub use covid::Covid;
pub use folder::Folder;
pub use folder_table::TableOptions;
pub use mimic_cxr::MimicCxr;
pub use nih::Nih;
pub use openi::OpenI;
pub use rsna::Rsna;
pub use siim::Siim;
