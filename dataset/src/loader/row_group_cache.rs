//! Row groups that were read last, so that one row after another costs no decoding.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::RecordBatch;

use crate::error::Result;

/// Bytes that decoded row groups may take: all texts and labels of some fifty thousand records.
const MOST_BYTES: usize = 64 << 20;

/// Decoded row groups, the one used last in front. Shared by all threads.
#[derive(Default)]
pub(crate) struct Recent(Mutex<VecDeque<(Place, Arc<RecordBatch>)>>);

/// Shard and row group.
type Place = (usize, usize);

impl Recent {
    /// A row group that is kept, or that `read` gives.
    pub(crate) fn get(&self, place: Place, read: impl FnOnce() -> Result<RecordBatch>) -> Result<Arc<RecordBatch>> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let take = |kept: &mut VecDeque<(Place, Arc<RecordBatch>)>| {
            let at = kept.iter().position(|(found, _)| *found == place)?;
            kept.remove(at)
        };
        let mut kept = lock();
        if let Some(found) = take(&mut kept) {
            let batch = found.1.clone();
            kept.push_front(found);
            return Ok(batch);
        }
        drop(kept);
        // No lock while decoding: two threads may read the same group, and one of the two is dropped.
        let batch = Arc::new(read()?);
        let mut kept = lock();
        take(&mut kept);
        kept.push_front((place, batch.clone()));
        let mut bytes = 0;
        let fit = kept.iter().take_while(|(_, batch)| {
            bytes += batch.get_array_memory_size();
            bytes <= MOST_BYTES
        });
        let most = fit.count().max(1);
        kept.truncate(most);
        Ok(batch)
    }
}
