//! The sources: one file for each public layout, and `folder` for any other directory.

mod chexpert;
mod chexpert_labels;
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
pub use chexpert_labels::LabeledPart;
pub use covid::Covid;
pub use folder::Folder;
pub use folder::glob::Glob;
pub use folder::labels::LabelWord;
pub use folder::masks::MaskFolder;
pub use folder::named_column::NamedColumn;
pub use folder::options::TableOptions;
pub use mimic_cxr::{Labeler, MimicCxr};
pub use nih::Nih;
pub use openi::OpenI;
pub use rsna::Rsna;
pub use shared::mimic_tree::ImageKind;
pub use siim::Siim;
