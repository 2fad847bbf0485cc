//! DICOM files: limits, parsing, headers, pixel data.

pub(crate) mod frame;
pub(crate) mod header;
pub mod limits;
pub(crate) mod object;
pub mod parse;
pub mod pixels;
pub mod transforms;

pub use parse::{Dicom, read, read_beginning, read_radiograph};
pub use pixels::{Bits, Pixels, Values};
pub use transforms::{LookUp, Modality, Voi, WindowFunction};
