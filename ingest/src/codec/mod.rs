//! Own decoders for gray images, where the available libraries are too slow or lack support: JPEG lossless, JPEG sequential
//! (8 and 12 bits, at full, half, quarter or eighth size), JPEG-LS. Color, progressive and arithmetic files are
//! [`DecodeError::Unsupported`]; the caller passes them to the libraries.

// Each loop is compiled twice, so the functions that it calls must be inlined into it.
#![allow(clippy::inline_always)]

/// Defines a function that runs a loop compiled for AVX2 and BMI2 where the processor has them, else the portable one. The
/// results are the same.
macro_rules! widest {
    ($(#[$about:meta])* fn $name:ident$(<$kind:ident: $bound:ident, const $size:ident: usize>)?($($argument:ident: $type:ty),* $(,)?) -> $result:ty = $slow:ident) => {
        $(#[$about])*
        fn $name$(<$kind: $bound, const $size: usize>)?($($argument: $type),*) -> $result {
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("bmi2") {
                #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
                fn wide$(<$kind: $bound, const $size: usize>)?($($argument: $type),*) -> $result {
                    $slow$(::<$kind, $size>)?($($argument),*)
                }
                // SAFETY: the processor has AVX2 and BMI2, as was checked; processors with BMI2 have BMI1 and LZCNT.
                return unsafe { wide$(::<$kind, $size>)?($($argument),*) };
            }
            $slow$(::<$kind, $size>)?($($argument),*)
        }
    };
}

mod jpeg;
mod jpeg_dct;
mod jpeg_lossless;
mod jpeg_ls;

pub use jpeg::{Process, header};
pub use jpeg_dct::decode as decode_dct;
pub use jpeg_lossless::decode as decode_lossless;
pub use jpeg_ls::decode as decode_jpeg_ls;

/// Why a decoder returned no image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// This decoder does not support the file; another one may.
    Unsupported(&'static str),
    /// The file is malformed.
    Malformed(&'static str),
}

/// Result of a decoder.
pub type Result<T> = std::result::Result<T, DecodeError>;
