//! Rows of a table that cannot be used, counted once each.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Problems that are shown.
pub(super) const SHOWN: usize = 5;

/// Messages by row of the table, from any thread.
#[derive(Default)]
pub(super) struct Problems(Mutex<BTreeMap<usize, String>>);

impl Problems {
    /// Notes a problem of a row at a place; of several the first in the alphabet is kept, whatever the order of threads.
    pub fn add(&self, row: usize, place: String, message: String) {
        let line = format!("{place}: {message}");
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match noted.get_mut(&row) {
            Some(known) if *known <= line => {}
            _ => {
                noted.insert(row, line);
            }
        }
    }

    /// Number of rows.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The lines of the first rows.
    pub fn first(&self) -> Vec<String> {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.values().take(SHOWN).cloned().collect()
    }
}
