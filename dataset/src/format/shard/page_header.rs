//! Sizes that the headers of pages state. A page of a few kilobytes can state and fill two gigabytes, so that they are compared
//! with what a page may have before it is decompressed.
//!
//! Format: `PageHeader` of parquet.thrift, in Thrift's compact protocol.

/// Most bytes of the pages of a column chunk of text after decompression: 2 MiB for each text of a row group of 128 rows.
const MOST_OF_COLUMN: u64 = 1 << 28;

/// Most bytes of the page of an encoded image after decompression.
pub(super) const MOST_OF_IMAGE: u64 = 1 << 28;

/// Structs within structs that are skipped.
const MOST_LEVELS: usize = 8;

/// What the header of a page states.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PageHeader {
    /// Bytes of the header itself.
    pub bytes: u64,
    /// Bytes of the page after decompression.
    pub uncompressed: u64,
    /// Bytes of the page after the header.
    pub compressed: u64,
}

impl PageHeader {
    /// The header that begins here; `None` where it is damaged.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let (mut field, mut sizes) = (0, [None; 2]);
        loop {
            let head = byte(&mut rest)?;
            let kind = head & 0xf;
            if kind == STOP {
                break;
            }
            field = match head >> 4 {
                0 => signed(varint(&mut rest)?),
                delta => field + i64::from(delta),
            };
            match (field, kind) {
                (2 | 3, I32) => sizes[field as usize - 2] = Some(signed(varint(&mut rest)?)),
                _ => skip(kind, &mut rest, MOST_LEVELS)?,
            }
        }
        let [uncompressed, compressed] = sizes.map(|size| size.and_then(|size| u64::try_from(size).ok()));
        let bytes = (bytes.len() - rest.len()) as u64;
        Some(Self { bytes, uncompressed: uncompressed?, compressed: compressed? })
    }
}

/// Checks the pages of a compressed column chunk.
///
/// # Errors
/// Says what is wrong.
pub(super) fn check_chunk(mut chunk: &[u8]) -> Result<(), String> {
    let mut all = 0_u64;
    while !chunk.is_empty() {
        let damaged = || "the header of a page is damaged".to_owned();
        let header = PageHeader::read(chunk).ok_or_else(damaged)?;
        all = all.saturating_add(header.uncompressed);
        if all > MOST_OF_COLUMN {
            return Err(format!(
                "its pages have {all} bytes after decompression, more than the {MOST_OF_COLUMN} allowed"
            ));
        }
        let page = header.bytes.checked_add(header.compressed).and_then(|page| usize::try_from(page).ok());
        chunk = page.and_then(|page| chunk.get(page..)).ok_or_else(damaged)?;
    }
    Ok(())
}

const STOP: u8 = 0;
const I32: u8 = 5;

/// The next byte.
pub(in crate::format) fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (&first, after) = rest.split_first()?;
    *rest = after;
    Some(first)
}

/// The next number of one to ten bytes.
pub(in crate::format) fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let next = byte(rest)?;
        value |= u64::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The number that a zigzag number stands for.
pub(in crate::format) fn signed(zigzag: u64) -> i64 {
    (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)
}

fn drop_bytes(count: u64, rest: &mut &[u8]) -> Option<()> {
    *rest = rest.get(usize::try_from(count).ok()?..)?;
    Some(())
}

/// Skips the value of a field of a type.
fn skip(kind: u8, rest: &mut &[u8], levels: usize) -> Option<()> {
    let levels = levels.checked_sub(1)?;
    match kind {
        // Booleans of fields are in the type.
        1 | 2 => Some(()),
        3 => drop_bytes(1, rest),
        4..=6 => varint(rest).map(drop),
        7 => drop_bytes(8, rest),
        8 => varint(rest).and_then(|length| drop_bytes(length, rest)),
        9 | 10 => {
            let head = byte(rest)?;
            let count = if head >> 4 == 0xf { varint(rest)? } else { u64::from(head >> 4) };
            (0..count)
                .try_for_each(|_| if head & 0xf <= 2 { drop_bytes(1, rest) } else { skip(head & 0xf, rest, levels) })
        }
        12 => loop {
            let head = byte(rest)?;
            if head & 0xf == STOP {
                return Some(());
            }
            if head >> 4 == 0 {
                varint(rest)?;
            }
            skip(head & 0xf, rest, levels)?;
        },
        // Page headers have no maps.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a data page of 1000 bytes in 300, with the struct that describes it, statistics among it.
    const HEADER: &[u8] = &[
        0x15, 0x00, 0x15, 0xd0, 0x0f, 0x15, 0xd8, 0x04, 0x2c, 0x15, 0x02, 0x15, 0x00, 0x15, 0x06, 0x15, 0x06, 0x1c,
        0x58, 0x02, b'a', b'b', 0x11, 0x00, 0x00, 0x00,
    ];

    #[test]
    fn sizes_are_read_and_damage_is_found() {
        let expected = PageHeader { bytes: HEADER.len() as u64, uncompressed: 1000, compressed: 300 };
        assert_eq!(PageHeader::read(HEADER), Some(expected));
        for length in 0..HEADER.len() {
            assert_eq!(PageHeader::read(&HEADER[..length]), None, "{length}");
        }
        // Structs without an end, a map, a list of a length that no file has.
        assert_eq!(PageHeader::read(&[0x1c; 100]), None);
        assert_eq!(PageHeader::read(&[0x1b, 1, 0]), None);
        assert_eq!(PageHeader::read(&[0x19, 0xf5, 0xff, 0xff, 0xff, 0xff, 0x0f]), None);
        let page = [HEADER, &[0; 300]].concat();
        assert_eq!(check_chunk(&page.repeat(3)), Ok(()));
        assert!(check_chunk(&page[..page.len() - 1]).is_err());
        let mut bomb = page;
        bomb.splice(3..5, [0xfe, 0xff, 0xff, 0xff, 0x0f]);
        assert!(check_chunk(&bomb).is_err_and(|error| error.contains("2147483647 bytes after decompression")));
    }
}
