//! The zip archive of a PyTorch checkpoint: its directory and its entries.
//!
//! `torch.save` stores entries uncompressed, so reading needs only the directory and positions. Sizes in headers are compared
//! with the size of the file before memory is allocated for them. Checksums are checked unless they are zero, as with
//! `torch.serialization.set_crc32_options(False)`.
//!
//! Format: APPNOTE.TXT of PKWARE, 6.3.10, sections 4.3 and 4.5.3 (zip64, which torch always writes).

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::PthError;

const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
const DIRECTORY_ENTRY: &[u8] = b"PK\x01\x02";
const DIRECTORY_END: &[u8] = b"PK\x05\x06";
const ZIP64_LOCATOR: &[u8] = b"PK\x06\x07";
const ZIP64_END: &[u8] = b"PK\x06\x06";

/// Sizes of the fixed parts, in bytes.
const LOCAL_HEADER_SIZE: u64 = 30;
const DIRECTORY_ENTRY_SIZE: usize = 46;
const DIRECTORY_END_SIZE: usize = 22;
const ZIP64_LOCATOR_SIZE: usize = 20;
const ZIP64_END_SIZE: usize = 56;

/// The longest comment that may follow the end of the directory.
const LONGEST_COMMENT: u64 = 65_535;

/// The largest directory that is read, in bytes. The directory of 100,000 tensors has about 10 MB.
const LARGEST_DIRECTORY: u64 = 1 << 28;

/// Value of a 32-bit field if the actual value is in the zip64 field.
const IN_ZIP64: u64 = u32::MAX as u64;

/// Id of the zip64 extra field.
const ZIP64_FIELD: u16 = 1;

/// Position and size of an entry.
#[derive(Debug, Clone, Copy)]
struct Entry {
    header: u64,
    size: u64,
    checksum: u32,
    /// Whether the bytes are neither compressed nor encrypted.
    stored: bool,
}

/// An open archive.
#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    length: u64,
    entries: BTreeMap<String, Entry>,
}

impl Archive {
    /// Reads the directory.
    pub(super) fn open(path: &Path) -> Result<Self, PthError> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let entries = directory(&file, length)?;
        Ok(Self { file, length, entries })
    }

    /// Size of the file in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Names of the entries, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The bytes of an entry; none if there is no such entry.
    ///
    /// # Errors
    /// When the entry is damaged, compressed, or larger than `limit` bytes.
    pub(super) fn read(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, PthError> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        if !entry.stored {
            return Err(PthError::format(format!("`{name}` is compressed, which torch.save never does")));
        }
        if entry.size > limit {
            return Err(PthError::format(format!("`{name}` has {} bytes, more than the {limit} allowed", entry.size)));
        }
        let outside = || PthError::format(format!("`{name}` reaches past the end of the file: is it cut?"));
        let header = read_at(&self.file, self.length, entry.header, LOCAL_HEADER_SIZE)?.ok_or_else(outside)?;
        if !header.starts_with(LOCAL_HEADER) {
            return Err(PthError::format(format!("`{name}` is not where the directory says")));
        }
        let names = u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
        let start = entry.header + LOCAL_HEADER_SIZE + names;
        let bytes = read_at(&self.file, self.length, start, entry.size)?.ok_or_else(outside)?;
        if entry.checksum != 0 && crc32fast::hash(&bytes) != entry.checksum {
            return Err(PthError::format(format!("`{name}` is damaged: its checksum does not fit")));
        }
        Ok(Some(bytes))
    }
}

/// Reads the central directory.
fn directory(file: &File, length: u64) -> Result<BTreeMap<String, Entry>, PthError> {
    let cut = || PthError::format("no whole zip directory: is the file cut?");
    let tail_size = length.min(LONGEST_COMMENT + (DIRECTORY_END_SIZE + ZIP64_LOCATOR_SIZE) as u64);
    let tail = read_at(file, length, length - tail_size, tail_size)?.ok_or_else(cut)?;
    let last = tail.len().checked_sub(DIRECTORY_END_SIZE).ok_or_else(cut)?;
    let end = (0..=last).rev().find(|&at| tail[at..].starts_with(DIRECTORY_END)).ok_or_else(cut)?;
    let (mut size, mut offset) = (u64::from(u32_at(&tail, end + 12)), u64::from(u32_at(&tail, end + 16)));
    if let Some(locator) = end.checked_sub(ZIP64_LOCATOR_SIZE).filter(|&at| tail[at..].starts_with(ZIP64_LOCATOR)) {
        let record = read_at(file, length, u64_at(&tail, locator + 8), ZIP64_END_SIZE as u64)?;
        let record = record.filter(|record| record.starts_with(ZIP64_END)).ok_or_else(cut)?;
        (size, offset) = (u64_at(&record, 40), u64_at(&record, 48));
    }
    if size > LARGEST_DIRECTORY {
        return Err(PthError::format(format!("a zip directory of {size} bytes")));
    }
    let bytes = read_at(file, length, offset, size)?.ok_or_else(cut)?;
    let mut entries = BTreeMap::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let (name, entry, after) = directory_entry(rest).ok_or_else(|| PthError::format("a damaged zip directory"))?;
        entries.insert(name, entry);
        rest = after;
    }
    Ok(entries)
}

/// The first entry of a directory, and what follows it.
fn directory_entry(bytes: &[u8]) -> Option<(String, Entry, &[u8])> {
    let (fixed, rest) = bytes.split_at_checked(DIRECTORY_ENTRY_SIZE)?;
    if !fixed.starts_with(DIRECTORY_ENTRY) {
        return None;
    }
    let (name, rest) = rest.split_at_checked(u16_at(fixed, 28).into())?;
    let (extra, rest) = rest.split_at_checked(u16_at(fixed, 30).into())?;
    let (_comment, rest) = rest.split_at_checked(u16_at(fixed, 32).into())?;
    let encrypted = u16_at(fixed, 8) & 1 == 1;
    let compressed = u64::from(u32_at(fixed, 20));
    let (mut size, mut header) = (u64::from(u32_at(fixed, 24)), u64::from(u32_at(fixed, 42)));
    let mut large = zip64_values(extra);
    // The field has only the values that do not fit into 32 bits, in this order.
    if size == IN_ZIP64 {
        size = large.next()?;
    }
    if compressed == IN_ZIP64 {
        large.next()?;
    }
    if header == IN_ZIP64 {
        header = large.next()?;
    }
    let entry = Entry { header, size, checksum: u32_at(fixed, 16), stored: u16_at(fixed, 10) == 0 && !encrypted };
    Some((String::from_utf8_lossy(name).into_owned(), entry, rest))
}

/// The values of the zip64 field among an entry's extra fields.
fn zip64_values(mut extra: &[u8]) -> impl Iterator<Item = u64> {
    let mut values: &[u8] = &[];
    while let Some((head, rest)) = extra.split_at_checked(4) {
        let Some((data, after)) = rest.split_at_checked(u16_at(head, 2).into()) else { break };
        if u16_at(head, 0) == ZIP64_FIELD {
            values = data;
        }
        extra = after;
    }
    values.chunks_exact(8).map(|value| u64_at(value, 0))
}

/// `size` bytes of the file from `offset`; none if the file ends before.
fn read_at(file: &File, length: u64, offset: u64, size: u64) -> Result<Option<Vec<u8>>, PthError> {
    if offset.checked_add(size).is_none_or(|end| end > length) {
        return Ok(None);
    }
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(Some(bytes))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds an archive of stored entries as `torch.save` writes them, with variations.
    #[derive(Default)]
    struct Builder {
        /// Sizes and positions are in zip64 fields only.
        zip64: bool,
        /// No checksums are written.
        unchecked: bool,
        comment: &'static str,
    }

    impl Builder {
        fn bytes(&self, entries: &[(&str, &[u8])]) -> Vec<u8> {
            let (mut file, mut directory) = (Vec::new(), Vec::new());
            for (name, data) in entries {
                let at = file.len() as u64;
                let checksum = if self.unchecked { 0 } else { crc32fast::hash(data) };
                let field = |value: u64| if self.zip64 { u32::MAX } else { value as u32 }.to_le_bytes();
                let size = field(data.len() as u64);
                let padding = [0_u8; 7]; // torch aligns data with an extra field
                file.extend(LOCAL_HEADER);
                file.extend([0; 10]);
                file.extend([checksum.to_le_bytes(), size, size].concat());
                file.extend((name.len() as u16).to_le_bytes());
                file.extend((padding.len() as u16).to_le_bytes());
                file.extend([name.as_bytes(), &padding, data].concat());

                let mut extra = Vec::new();
                if self.zip64 {
                    extra.extend(b"XX\x02\x00ab"); // a field of another kind
                    extra.extend(ZIP64_FIELD.to_le_bytes());
                    extra.extend(24_u16.to_le_bytes());
                    extra.extend([data.len() as u64, data.len() as u64, at].map(u64::to_le_bytes).concat());
                }
                directory.extend(DIRECTORY_ENTRY);
                directory.extend([0; 12]);
                directory.extend([checksum.to_le_bytes(), size, size].concat());
                directory.extend((name.len() as u16).to_le_bytes());
                directory.extend((extra.len() as u16).to_le_bytes());
                directory.extend([0; 10]);
                directory.extend(field(at));
                directory.extend([name.as_bytes(), &extra].concat());
            }
            let (offset, size) = (file.len() as u64, directory.len() as u64);
            file.extend(directory);
            if self.zip64 {
                let record = file.len() as u64;
                file.extend(ZIP64_END);
                file.extend([0; 36]);
                file.extend([size, offset].map(u64::to_le_bytes).concat());
                file.extend(ZIP64_LOCATOR);
                file.extend([0; 4]);
                file.extend(record.to_le_bytes());
                file.extend([0; 4]);
            }
            let field = |value: u64| if self.zip64 { u32::MAX } else { value as u32 }.to_le_bytes();
            file.extend(DIRECTORY_END);
            file.extend([0; 8]);
            file.extend([field(size), field(offset)].concat());
            file.extend((self.comment.len() as u16).to_le_bytes());
            file.extend(self.comment.as_bytes());
            file
        }
    }

    const ENTRIES: [(&str, &[u8]); 3] = [("a/data.pkl", b"pickle"), ("a/data/0", b"0123456789"), ("a/empty", b"")];

    fn open(name: &str, bytes: &[u8]) -> Result<Archive, PthError> {
        let path = std::env::temp_dir().join(format!("trainer-archive-{name}-{}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        let archive = Archive::open(&path);
        std::fs::remove_file(&path).unwrap();
        archive
    }

    #[test]
    fn entries_of_both_sizes_are_read() {
        for zip64 in [false, true] {
            for comment in ["", "a comment, PK\x05 in it"] {
                let bytes = Builder { zip64, comment, ..Builder::default() }.bytes(&ENTRIES);
                let archive = open("sizes", &bytes).unwrap();
                assert_eq!(archive.names().collect::<Vec<_>>(), ENTRIES.map(|(name, _)| name));
                assert_eq!(archive.length(), bytes.len() as u64);
                for (name, data) in ENTRIES {
                    assert_eq!(archive.read(name, 10).unwrap().as_deref(), Some(data));
                }
                assert!(archive.read("a/none", 10).unwrap().is_none());
                assert!(archive.read("a/data/0", 9).unwrap_err().to_string().contains("has 10 bytes"));
            }
        }
    }

    #[test]
    fn damage_is_found_by_the_checksum_if_there_is_one() {
        for unchecked in [false, true] {
            let mut bytes = Builder { unchecked, ..Builder::default() }.bytes(&ENTRIES);
            let at = bytes.windows(10).position(|window| window == b"0123456789").unwrap();
            bytes[at] = b'9';
            let read = open("damage", &bytes).unwrap().read("a/data/0", 10);
            assert_eq!(read.is_ok(), unchecked, "{read:?}");
        }
    }

    #[test]
    fn positions_outside_the_file_are_refused() {
        let bytes = Builder::default().bytes(&ENTRIES);
        for length in 0..bytes.len() {
            assert!(open("cut", &bytes[..length]).is_err(), "{length}");
        }
        // Sets each number of the directory to its largest value, one by one.
        for zip64 in [false, true] {
            let bytes = Builder { zip64, ..Builder::default() }.bytes(&ENTRIES);
            for at in 0..bytes.len() - 4 {
                let mut changed = bytes.clone();
                changed[at..at + 4].fill(0xFF);
                if let Ok(archive) = open("claims", &changed) {
                    for (name, data) in ENTRIES {
                        let read = archive.read(name, u64::MAX);
                        assert!(read.is_err() || read.is_ok_and(|read| read.is_none_or(|read| read == data)), "{at}");
                    }
                }
            }
        }
    }
}
