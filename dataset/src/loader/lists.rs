//! A list for each record of a row group, in two vectors.

use arrow_array::{Array, ListArray};

/// A list for each record, one after the other.
pub(crate) struct Lists<T> {
    items: Vec<T>,
    /// Start of each record's items, and the end of the last; empty where no lists were read.
    starts: Vec<usize>,
}

impl<T> Default for Lists<T> {
    fn default() -> Self {
        Self { items: Vec::new(), starts: Vec::new() }
    }
}

impl<T> Lists<T> {
    /// The list of a record; empty where none was read.
    pub fn of(&self, record: usize) -> &[T] {
        match self.starts.get(record..record + 2) {
            Some(&[start, end]) => &self.items[start..end],
            _ => &[],
        }
    }

    /// Number of lists.
    pub fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// Appends the list of the next record, which `write` appends to the items.
    pub fn push<E>(&mut self, write: impl FnOnce(&mut Vec<T>) -> Result<(), E>) -> Result<(), E> {
        if self.starts.is_empty() {
            self.starts.push(0);
        }
        write(&mut self.items)?;
        self.starts.push(self.items.len());
        Ok(())
    }

    /// Lists of a column; `None` where `items` finds another type than the format's.
    pub fn read(lists: &ListArray, mut items: impl FnMut(&dyn Array, &mut Vec<T>) -> Option<()>) -> Option<Self> {
        let mut read = Self { items: Vec::new(), starts: vec![0] };
        for record in 0..lists.len() {
            items(&lists.value(record), &mut read.items)?;
            read.starts.push(read.items.len());
        }
        Some(read)
    }
}
