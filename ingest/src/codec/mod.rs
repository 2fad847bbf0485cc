//! Decoders of our own for gray pictures, where the libraries at hand are too slow or refuse: JPEG lossless, JPEG
//! sequential (8 and 12 bit, at full, half, quarter or eighth size), JPEG-LS. Color, progressive and arithmetic files
//! are [`Refusal::Unsupported`] here, and go to the libraries.

// Loops are compiled twice, and what they call must be compiled with them.
#![allow(clippy::inline_always)]

/// Runs a loop in the widest form that this processor has: the same code, compiled once more for AVX2 and the shifts of
/// BMI2. The results are the same.
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
                // SAFETY: the processor has these instructions (those with BMI2 have BMI1 and LZCNT).
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
