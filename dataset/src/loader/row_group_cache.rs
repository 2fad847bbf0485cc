//! A cache of decoded row groups, so that reading one row after another decodes each group once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::RecordBatch;

use crate::error::Result;

/// Memory that decoded row groups may take, in bytes: the texts and labels of some fifty thousand records.
const MOST_BYTES: usize = 64 << 20;

/// Decoded row groups, the most recently used one first. Shared by all threads.
#[derive(Default)]
pub(crate) struct RowGroupCache(Mutex<VecDeque<(Key, Arc<RecordBatch>)>>);

/// Numbers of a shard and of a row group in it.
type Key = (usize, usize);

impl RowGroupCache {
    /// A cached row group; `None` where it is not cached.
    pub(crate) fn peek(&self, key: Key) -> Option<Arc<RecordBatch>> {
        let cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cached.iter().find(|(other, _)| *other == key).map(|(_, batch)| batch.clone())
    }

    /// A cached row group, or the one that `read` returns.
    pub(crate) fn get(&self, key: Key, read: impl FnOnce() -> Result<RecordBatch>) -> Result<Arc<RecordBatch>> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let take = |cached: &mut VecDeque<(Key, Arc<RecordBatch>)>| {
            let at = cached.iter().position(|(other, _)| *other == key)?;
            cached.remove(at)
        };
        let mut cached = lock();
        if let Some(found) = take(&mut cached) {
            let batch = found.1.clone();
            cached.push_front(found);
            return Ok(batch);
        }
        drop(cached);
        // There is no lock while decoding: two threads may read the same group, and the second result replaces the first.
        let batch = Arc::new(read()?);
        let mut cached = lock();
        take(&mut cached);
        cached.push_front((key, batch.clone()));
        let mut bytes = 0;
        let fit = cached.iter().take_while(|(_, batch)| {
            bytes += batch.get_array_memory_size();
            bytes <= MOST_BYTES
        });
        let most = fit.count().max(1);
        cached.truncate(most);
        Ok(batch)
    }
}
