//! One room a source: how its public layout is read.

mod challenge;
mod chexpert;
mod chexpert_plus;
mod covid;
mod folder;
mod folder_labels;
mod folder_table;
mod mimic_cxr;
mod mimic_tree;
mod nih;
mod openi;
mod rsna;
mod siim;

pub use chexpert::Chexpert;
pub use covid::Covid;
pub use folder::Folder;
pub use folder_labels::LabelWord;
pub use folder_table::TableOptions;
pub use mimic_cxr::{Labeller, MimicCxr};
pub use mimic_tree::Pictures;
pub use nih::Nih;
pub use openi::OpenI;
pub use rsna::Rsna;
pub use siim::Siim;
