//! DICOM files: limits that are checked first, parsing, headers, pixel data.

pub(crate) mod frame;
pub(crate) mod header;
pub mod limits;
pub mod parse;

pub use parse::{
    Bits, Dicom, LookUp, Modality, Pixels, Values, Voi, WindowFunction, read, read_beginning, read_radiograph,
};
