//! Decoders of our own for grey pictures, where the libraries at hand are too slow or refuse: JPEG lossless, JPEG
//! sequential (8 and 12 bit, at full, half, quarter or eighth size), JPEG-LS. Colour, progressive and arithmetic files
//! are [`Refusal::Unsupported`] here, and go to the libraries.

mod jpeg;
mod jpeg_dct;
mod jpeg_lossless;
mod jpeg_ls;

pub use jpeg::{Process, header};
pub use jpeg_dct::decode as decode_dct;
pub use jpeg_lossless::decode as decode_lossless;
pub use jpeg_ls::decode as decode_jpeg_ls;

/// Why a decoder gave no picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Sound, perhaps, but not for this decoder.
    Unsupported(&'static str),
    /// Nobody can decode it.
    Broken(&'static str),
}

/// Result of a decoder.
pub type Result<T> = std::result::Result<T, Refusal>;
