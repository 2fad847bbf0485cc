//! What an input may claim. A few bytes can ask for any amount of memory: by a length field, by a size in a header, by
//! nesting, by compression. Each claim is checked here before a decoder believes it.
//!
//! | input | limit |
//! | --- | --- |
//! | any raw file | 2 GiB |
//! | report file | 16 MiB |
//! | image | 2²⁷ values, ten times a full-size radiograph |
//! | DICOM data set | lengths within the file, 32 levels of sequences, texts of 1 MiB, 256 MiB when it is deflated |
//! | compressed DICOM pixels | the size that Rows and Columns say, 4 components, 4,096 tiles |
//! | table | 4 GiB of text, 8 MiB a row; gzipped beyond 16 MiB: at most 100 times the file |

pub(crate) mod dicom;
pub(crate) mod table;

/// Most bytes of a raw file.
pub(crate) const MAX_FILE_BYTES: u64 = 2 << 30;
/// Most bytes of a report file.
pub(crate) const MAX_REPORT_BYTES: u64 = 16 << 20;
/// Most values (pixels times samples) of an image.
pub const MAX_VALUES: u64 = 1 << 27;
/// Most levels of sequences within sequences.
pub(crate) const MAX_DEPTH: usize = 32;
/// Most bytes of one text of a DICOM data set: each of its backslashes would cost a string of its own.
pub(crate) const MAX_TEXT_BYTES: usize = 1 << 20;
/// Most bytes of a deflated DICOM data set: the largest image at 16 bits.
pub(crate) const MAX_INFLATED_BYTES: u64 = 2 * MAX_VALUES;
/// Most components and tiles of compressed DICOM pixels.
pub(crate) const MAX_COMPONENTS: u16 = 4;
pub(crate) const MAX_TILES: u64 = 4096;
/// Most bytes of a table.
pub(crate) const MAX_TABLE_BYTES: u64 = 4 << 30;
/// Most bytes of a table's row.
pub(crate) const MAX_ROW_BYTES: u64 = 8 << 20;
/// Bytes that any gzipped table may have, and how many times its file a larger one.
pub(crate) const SMALL_TABLE_BYTES: u64 = 16 << 20;
pub(crate) const MAX_INFLATION: u64 = 100;

/// Runs a decoder: those of others meet any bytes there are, and a panic of theirs becomes an error.
pub(crate) fn guarded<T>(decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err("the decoder gave up on this file".to_owned()))
}
