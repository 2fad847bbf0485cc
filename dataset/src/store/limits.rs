//! How much is read and written at once.

use crate::store::files::{MAX_JSON_BYTES, MAX_TABLE_BYTES};

/// Bytes that a reader of a whole file takes at once, and of one piece of an upload.
pub(crate) const PIECE: u64 = 8 << 20;

/// The largest file of this name that is read into memory as a whole.
pub(crate) fn most_bytes(name: &str) -> u64 {
    if name.ends_with(".json") { MAX_JSON_BYTES } else { MAX_TABLE_BYTES }
}
