//! Any directory of DICOM, PNG and JPEG files, with or without a table.

mod identifiers;
pub(crate) mod labels;
pub(crate) mod table;
pub(crate) mod tree;

pub use tree::Folder;
