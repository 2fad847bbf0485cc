//! Any directory of DICOM, PNG and JPEG files, with or without a table.

pub(crate) mod cells;
mod columns;
pub(crate) mod glob;
mod identifiers;
mod image_rows;
pub(crate) mod labels;
pub(crate) mod masks;
pub(crate) mod named_column;
pub(crate) mod options;
mod paths;
mod table;
pub(crate) mod tree;

pub use tree::Folder;
