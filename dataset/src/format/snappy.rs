//! Parts of what Snappy compressed. Its compressors work in blocks of 64 KiB that refer to nothing before them, so that a block can
//! be inflated alone once its start is known.

/// Bytes of a block before compression.
pub const BLOCK: usize = 1 << 16;

/// What a compressed text is made of.
enum Element<'a> {
    Literal(&'a [u8]),
    /// Bytes that were written `offset` before.
    Copy {
        offset: usize,
        length: usize,
    },
}

/// Takes the next element; `None` where the text is malformed.
fn element<'a>(text: &mut &'a [u8]) -> Option<Element<'a>> {
    let mut number = |bytes: usize| -> Option<usize> {
        let (digits, rest) = text.split_at_checked(bytes)?;
        *text = rest;
        Some(digits.iter().rev().fold(0, |number, digit| number << 8 | usize::from(*digit)))
    };
    let tag = number(1)?;
    let high = tag >> 2;
    match tag & 3 {
        0 => {
            let length = if high < 60 { high + 1 } else { number(high - 59)?.checked_add(1)? };
            let (literal, rest) = text.split_at_checked(length)?;
            *text = rest;
            Some(Element::Literal(literal))
        }
        1 => Some(Element::Copy { offset: (tag >> 5) << 8 | number(1)?, length: 4 + (high & 7) }),
        kind => Some(Element::Copy { offset: number(2 * (kind - 1))?, length: 1 + high }),
    }
}

/// Where each block begins in a compressed text of `length` bytes before compression; `None` where it is malformed, or blocks
/// refer to others.
pub fn blocks(compressed: &[u8], length: usize) -> Option<Vec<u32>> {
    let (mut text, mut stated) = (compressed, 0);
    for shift in (0..35).step_by(7) {
        let (digit, rest) = text.split_first()?;
        text = rest;
        stated |= usize::from(digit & 0x7f) << shift;
        if digit & 0x80 == 0 {
            break;
        }
    }
    let (mut starts, mut at) = (Vec::with_capacity(length / BLOCK + 1), 0);
    while !text.is_empty() {
        let inner = at % BLOCK;
        if inner == 0 {
            starts.push(u32::try_from(compressed.len() - text.len()).ok()?);
        }
        let taken = match element(&mut text)? {
            Element::Literal(literal) => literal.len(),
            Element::Copy { offset, length } if offset <= inner => length,
            Element::Copy { .. } => return None,
        };
        if inner + taken > BLOCK {
            return None;
        }
        at += taken;
    }
    (stated == length && at == length).then_some(starts)
}

/// Inflates whole blocks that have `length` bytes before compression; `None` where they have others.
pub fn inflate(mut text: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    while !text.is_empty() {
        match element(&mut text)? {
            Element::Literal(literal) if bytes.len() + literal.len() <= length => bytes.extend_from_slice(literal),
            Element::Copy { offset, length: copied } if offset > 0 && bytes.len() + copied <= length => {
                let from = bytes.len().checked_sub(offset)?;
                // The copy may overlap what it writes.
                (from..from + copied).for_each(|at| bytes.push(bytes[at]));
            }
            _ => return None,
        }
    }
    (bytes.len() == length).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_copies_are_inflated() {
        // "abcd", four bytes again, then two by an offset of two bytes.
        let text = [10, 3 << 2, b'a', b'b', b'c', b'd', 1, 4, 1 << 2 | 2, 8, 0];
        assert_eq!(blocks(&text, 10), Some(vec![1]));
        assert_eq!(inflate(&text[1..], 10).as_deref(), Some(&b"abcdabcdab"[..]));
        assert_eq!(inflate(&text[1..], 9), None);
        assert_eq!(inflate(&text[1..10], 10), None, "it is cut off");
        assert_eq!(blocks(&text, 11), None);
        let before = [5, 0, b'a', 1, 4];
        assert_eq!((blocks(&before, 5), inflate(&before[1..], 5)), (None, None), "it refers to what is before it");
    }
}
