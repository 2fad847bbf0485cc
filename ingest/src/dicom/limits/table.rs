//! Limits of tables: bytes of text, bytes of a row.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use super::{MAX_BLOCKS_BYTES, MAX_INFLATION, MAX_ROW_BYTES, MAX_TABLE_BYTES, SMALL_TABLE_BYTES};

/// A reader that fails after a number of bytes in total, or after [`MAX_ROW_BYTES`] between two calls of
/// [`RowStart::next`].
pub struct Bounded<R> {
    inner: R,
    left: u64,
    row_left: Rc<Cell<u64>>,
}

/// Starts a new row of a [`Bounded`] reader.
pub struct RowStart(Rc<Cell<u64>>);

impl RowStart {
    pub fn next(&self) {
        self.0.set(MAX_ROW_BYTES);
    }
}

impl<R: Read> Bounded<R> {
    /// Bounds the text of a table; `gzipped` is the size of its file where `inner` inflates it.
    pub fn table(inner: R, gzipped: Option<u64>) -> (Self, RowStart) {
        Self::within(inner, gzipped, MAX_TABLE_BYTES)
    }

    /// As [`Self::table`], of a table that is read in blocks.
    pub fn blocks(inner: R, gzipped: Option<u64>) -> (Self, RowStart) {
        Self::within(inner, gzipped, MAX_BLOCKS_BYTES)
    }

    fn within(inner: R, gzipped: Option<u64>, most: u64) -> (Self, RowStart) {
        let inflated = |bytes: u64| bytes.saturating_mul(MAX_INFLATION).max(SMALL_TABLE_BYTES);
        let row_left = Rc::new(Cell::new(MAX_ROW_BYTES));
        let left = gzipped.map_or(most, |bytes| inflated(bytes).min(most));
        (Self { inner, left, row_left: row_left.clone() }, RowStart(row_left))
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)? as u64;
        let refused = |what: &str| io::Error::other(format!("{what}, so it is not read as a table"));
        self.left = self.left.checked_sub(read).ok_or_else(|| refused("the text is larger than a table may be"))?;
        let row = self.row_left.get().checked_sub(read);
        self.row_left.set(row.ok_or_else(|| refused(&format!("a row is longer than {} MiB", MAX_ROW_BYTES >> 20)))?);
        Ok(read as usize)
    }
}
