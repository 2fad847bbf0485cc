//! Stored pixel values, in the type of the file.

use std::borrow::Cow;
use std::ops::Range;

/// Decoded values, row-major `[height, width]`.
pub enum Pixels<'a> {
    /// Gray values.
    Gray {
        /// The values.
        values: Values<'a>,
        /// Which bits of them are used.
        bits: Bits,
    },
    /// 8-bit RGB, interleaved `[height, width, 3]`.
    Rgb(Vec<u8>),
}

/// Stored gray values in the type of the file, unused bits included.
pub enum Values<'a> {
    /// One byte a value.
    Bytes(Cow<'a, [u8]>),
    /// Two bytes a value, in this machine's order.
    Words(Vec<u16>),
    /// Two bytes a value, little endian.
    LittleEndian(&'a [u8]),
    /// Not read yet; little endian in the file.
    Unread {
        /// Byte range in the file.
        place: Range<usize>,
        /// Bytes of a value, 1 or 2.
        bytes: usize,
    },
    /// Wider values, sign-extended and without unused bits.
    Wide(Vec<i64>),
}

/// The bits of a word that are the stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// Number of bits, 1 to 16 (to 64 in [`Values::Wide`]).
    pub stored: u16,
    /// Number of unused bits below them.
    pub shift: u16,
    /// Whether the value is in two's complement.
    pub signed: bool,
}

impl Bits {
    /// The used bits of a word.
    pub fn pattern(self, word: u16) -> u16 {
        (word >> self.shift) & ((1u32 << self.stored) - 1) as u16
    }

    /// The stored value in a word.
    pub fn value(self, word: u16) -> i64 {
        let (pattern, sign) = (i64::from(self.pattern(word)), 1i64 << (self.stored - 1));
        if self.signed && pattern & sign != 0 { pattern - 2 * sign } else { pattern }
    }
}

impl Pixels<'_> {
    /// The buffer of decoded words, for reuse; empty for other types.
    pub fn into_words(self) -> Vec<u16> {
        match self {
            Self::Gray { values: Values::Words(words), .. } => words,
            _ => Vec::new(),
        }
    }

    /// The stored values of a gray image; `None` for colors and values that are not read yet.
    pub fn stored(&self) -> Option<Vec<i64>> {
        let Self::Gray { values, bits } = self else { return None };
        Some(match values {
            Values::Bytes(values) => values.iter().map(|&byte| bits.value(byte.into())).collect(),
            Values::Words(values) => values.iter().map(|&word| bits.value(word)).collect(),
            Values::LittleEndian(bytes) => {
                bytes.chunks_exact(2).map(|word| bits.value(u16::from_le_bytes([word[0], word[1]]))).collect()
            }
            Values::Wide(values) => values.clone(),
            Values::Unread { .. } => return None,
        })
    }
}
