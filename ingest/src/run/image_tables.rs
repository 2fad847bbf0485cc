//! Images that are values of Parquet tables. They are read in blocks of pages; the records of a block share it, whichever
//! threads decode them.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use dataset::format::byte_column::{ByteColumn, Place, Values};
use rayon::prelude::*;

use crate::dicom::limits::guarded;
use crate::run::plan::ImageRow;

/// Bytes of the blocks that are kept for further records. The block that was read last is kept even if it is larger.
const MAX_KEPT: u64 = 64 << 20;

/// Bytes of the blocks that are read at the same time. A larger one is read alone.
const MAX_READING: u64 = 64 << 20;

/// The image tables of a run. The memory that they take depends on the largest block of pages of the files, and on no other
/// size of them.
#[derive(Default)]
pub struct ImageTables {
    columns: Mutex<HashMap<ColumnKey, Arc<ByteColumn>>>,
    kept: Mutex<Kept>,
    /// Bytes of the blocks that are read now.
    reading: Mutex<u64>,
    has_read: Condvar,
}

/// A column's file and name.
type ColumnKey = (PathBuf, Arc<str>);

/// A column's file and name, and a block of it.
type Key = (PathBuf, Arc<str>, Place);

/// A block; empty while it is read for the first time. Who needs it meanwhile waits for its lock.
type Slot = Arc<Mutex<Option<Arc<Values>>>>;

#[derive(Default)]
struct Kept {
    blocks: HashMap<Key, (Slot, Use)>,
    /// Counts the accesses.
    clock: u64,
}

/// When a block was used last, and its bytes; 0 while it is read.
#[derive(Clone, Copy, Default)]
struct Use {
    at: u64,
    bytes: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ImageTables {
    /// Replaces `bytes` by the image of a row. Returns size and times of its table.
    ///
    /// # Errors
    /// Those of the operating system; a damaged table; a row without an image.
    pub fn read(&self, raw: &Path, row: &ImageRow, bytes: &mut Vec<u8>) -> io::Result<Metadata> {
        let path = raw.join(&*row.file);
        let column = self.column(&path, &row.column)?;
        let place = guarded(|| Ok(column.place(row.row))).map_err(io::Error::other)??;
        bytes.clear();
        let key = (path, row.column.clone(), place);
        let is_kept = locked(&self.kept).blocks.contains_key(&key);
        // Where the order of the records is not that of the rows, a block is not read again for each of them.
        let alone = if is_kept { None } else { column.read_again(place, row.row)? };
        if let Some(image) = alone {
            *bytes = image;
        } else {
            bytes.extend_from_slice(self.values(&column, key)?.get(row.row).unwrap_or_default());
        }
        if bytes.is_empty() {
            return Err(io::Error::other("the row has no image"));
        }
        Ok(column.metadata().clone())
    }

    fn column(&self, path: &Path, column: &Arc<str>) -> io::Result<Arc<ByteColumn>> {
        let key = (path.to_path_buf(), column.clone());
        if let Some(found) = locked(&self.columns).get(&key) {
            return Ok(found.clone());
        }
        let opened = Arc::new(guarded(|| Ok(ByteColumn::open(path, column))).map_err(io::Error::other)??);
        Ok(locked(&self.columns).entry(key).or_insert(opened).clone())
    }

    /// The values of a block, which is read if no record before needed it.
    fn values(&self, column: &ByteColumn, key: Key) -> io::Result<Arc<Values>> {
        let slot = {
            let mut kept = locked(&self.kept);
            kept.clock += 1;
            let at = kept.clock;
            let (slot, used) = kept.blocks.entry(key.clone()).or_default();
            used.at = at;
            slot.clone()
        };
        let mut held = locked(&slot);
        if let Some(values) = &*held {
            return Ok(values.clone());
        }
        let permit = Permit::of(self, column.cost(key.2));
        let read = guarded(|| Ok(column.read(key.2))).map_err(io::Error::other).flatten();
        drop(permit);
        let values = match read {
            Ok(values) => Arc::new(values),
            Err(error) => {
                locked(&self.kept).blocks.remove(&key);
                return Err(error);
            }
        };
        *held = Some(values.clone());
        drop(held);
        locked(&self.kept).make_room(&key, values.bytes());
        Ok(values)
    }
}

impl Kept {
    /// Notes the size of a block, and drops those whose last use is longest ago while all together are too large.
    fn make_room(&mut self, key: &Key, bytes: u64) {
        if let Some((_, used)) = self.blocks.get_mut(key) {
            used.bytes = bytes;
        }
        while self.blocks.values().map(|(_, used)| used.bytes).sum::<u64>() > MAX_KEPT {
            let others = self.blocks.iter().filter(|(other, (_, used))| *other != key && used.bytes > 0);
            let Some(oldest) = others.min_by_key(|(_, (_, used))| used.at).map(|(oldest, _)| oldest.clone()) else {
                break;
            };
            self.blocks.remove(&oldest);
        }
    }
}

/// Leave to read a block of so many bytes.
struct Permit<'a> {
    tables: &'a ImageTables,
    bytes: u64,
}

impl<'a> Permit<'a> {
    fn of(tables: &'a ImageTables, bytes: u64) -> Self {
        let is_full = |reading: &mut u64| *reading > 0 && *reading + bytes > MAX_READING;
        let waited = tables.has_read.wait_while(locked(&tables.reading), is_full);
        *waited.unwrap_or_else(PoisonError::into_inner) += bytes;
        Self { tables, bytes }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *locked(&self.tables.reading) -= self.bytes;
        self.tables.has_read.notify_all();
    }
}

/// Does `work` for each item on all threads of the pool; the results are in the order of the items. Items whose image is in a
/// table are worked on in the order of their rows, by all threads at about the same place, so that each block is read once.
pub fn in_order_of_rows<'a, T: Sync, R: Send>(
    items: &'a [T],
    row: impl Fn(&'a T) -> Option<&'a ImageRow>,
    work: impl Fn(&'a T) -> R + Send + Sync,
) -> Vec<R> {
    if items.iter().all(|item| row(item).is_none()) {
        return items.par_iter().map(work).collect();
    }
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by_key(|at| row(&items[*at]));
    let mut results: Vec<(usize, R)> = order.into_iter().par_bridge().map(|at| (at, work(&items[at]))).collect();
    results.sort_unstable_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
