//! Limits on inputs. A few bytes can request any amount of memory: by a length field, a size in a header, nesting, or
//! compression. These values are checked before memory is allocated.
//!
//! | input | limit |
//! | --- | --- |
//! | any raw file | 2 GiB |
//! | report file | 16 MiB |
//! | image | 2²⁷ values, ten times those of a full-size radiograph |
//! | DICOM data set | lengths within the file, 32 levels of sequences, texts of 1 MiB; 256 MiB once inflated |
//! | compressed DICOM pixels | the size of Rows and Columns, 4 components, 4,096 tiles |
//! | table of images in Parquet | a row a 64 bytes of the file, pages of more than 16 MiB: at most 100 times their bytes in the file |
//! | table | 4 GiB of text (1 TiB where it is read in blocks), 8 MiB a row; more than 16 MiB once inflated: at most 100 times the gzipped file |

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
/// Most bytes of one text of a DICOM data set: the parser makes a string for each part between backslashes.
pub(crate) const MAX_TEXT_BYTES: usize = 1 << 20;
/// Most bytes of an inflated DICOM data set: the largest image at 16 bits.
pub(crate) const MAX_INFLATED_BYTES: u64 = 2 * MAX_VALUES;
/// Most components and tiles of compressed DICOM pixels.
pub(crate) const MAX_COMPONENTS: u16 = 4;
pub(crate) const MAX_TILES: u64 = 4096;
/// Most bytes of a table.
pub(crate) const MAX_TABLE_BYTES: u64 = 4 << 30;
/// Most bytes of a table that is read in blocks.
pub(crate) const MAX_BLOCKS_BYTES: u64 = 1 << 40;
/// Most bytes of a table's row.
pub(crate) const MAX_ROW_BYTES: u64 = 8 << 20;
/// Bytes that any gzipped table may inflate to, and the ratio to its file that a larger one may have.
pub(crate) const SMALL_TABLE_BYTES: u64 = 16 << 20;
pub(crate) const MAX_INFLATION: u64 = 100;

/// Runs a decoder of a library; turns a panic of it into an error.
pub(crate) fn guarded<T>(decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(decode))
        .unwrap_or_else(|_| Err("the decoder failed on this file".to_owned()))
}
