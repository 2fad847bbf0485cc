//! Stored pixel values, as the file holds them.

use std::borrow::Cow;
use std::ops::Range;

/// Decoded values, row-major.
pub enum Pixels<'a> {
    Gray {
        values: Values<'a>,
        bits: Bits,
    },
    /// 8-bit RGB, interleaved.
    Rgb(Vec<u8>),
}

/// Stored gray values in the narrowest type that the file uses, unused bits included.
pub enum Values<'a> {
    Bytes(Cow<'a, [u8]>),
    Words(Vec<u16>),
    /// Two bytes a value, the low one first.
    LittleEndian(&'a [u8]),
    /// Not read yet: at these bytes of the file, one or two a value, the low one first.
    Unread {
        place: Range<usize>,
        bytes: usize,
    },
    /// Wider values, sign-extended and without unused bits.
    Wide(Vec<i64>),
}

/// Which bits of a word hold the stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bits {
    /// How many, 1 to 16 (to 64 in [`Values::Wide`]).
    pub stored: u16,
    /// Unused bits below them.
    pub shift: u16,
    /// Two's complement.
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
    /// The memory of decoded values, to be used again.
    pub fn into_words(self) -> Vec<u16> {
        match self {
            Self::Gray { values: Values::Words(words), .. } => words,
            _ => Vec::new(),
        }
    }

    /// Stored values of a gray picture.
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
