//! The sources: one file for each public layout, and `folder` for any other directory.

mod chexpert;
mod chexpert_names;
mod chexpert_plus;
mod covid;
mod folder;
mod mimic_cxr;
mod nih;
mod openi;
mod rsna;
pub mod shared;
mod siim;

pub use chexpert::Chexpert;
pub use covid::Covid;
pub use folder::Folder;
pub use folder::labels::LabelWord;
pub use folder::table::TableOptions;
pub use mimic_cxr::{Labeler, MimicCxr};
pub use nih::Nih;
pub use openi::OpenI;
pub use rsna::Rsna;
pub use shared::mimic_tree::ImageKind;
pub use siim::Siim;
