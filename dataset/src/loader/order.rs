//! Which record each position of an epoch holds.
//!
//! A dataset alone has a new seeded permutation each epoch. In a mixture, each dataset walks through its own permutations one
//! after the other (each is a pass), whatever its share is: its `n`-th record since the start is always the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::loader::mixture::{Interleave, Mixture};
use crate::random::{self, Stream};

/// Values that are made when they are first needed, by epoch or pass. Old ones are forgotten.
struct Made<T>(Mutex<BTreeMap<u64, Arc<T>>>);

impl<T> Made<T> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    fn get(&self, number: u64, make: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.get(&number) {
            return Ok(known.clone());
        }
        let value = Arc::new(make()?);
        // Threads are at most a few batches apart, so that no more than two epochs are in use.
        made.retain(|&known, _| known + 1 >= number);
        made.insert(number, value.clone());
        Ok(value)
    }
}

/// The permutations of one dataset's records.
pub(crate) struct Passes {
    records: u32,
    /// What the permutations are drawn with; none: the order of the records.
    seed: Option<u64>,
    /// How many earlier parts of the mixture are of the same dataset: they have other permutations.
    copy: u64,
    orders: Made<Vec<u32>>,
}

impl Passes {
    pub fn new(records: usize, seed: Option<u64>, copy: u64) -> Self {
        Self { records: records as u32, seed, copy, orders: Made::new() }
    }

    fn order(&self, pass: u64) -> Result<Arc<Vec<u32>>> {
        self.orders.get(pass, || {
            let mut order: Vec<u32> = (0..self.records).collect();
            if let Some(seed) = self.seed {
                let key = [seed, random::digest("order"), pass, self.copy];
                Stream::new(if self.copy == 0 { &key[..3] } else { &key }).shuffle(&mut order);
            }
            Ok(order)
        })
    }
}

/// A record of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Draw {
    /// Number of its dataset in the mixture.
    pub source: u16,
    /// Its position in the list of the dataset's rows.
    pub position: u32,
    /// Pass over the dataset, from 0 on; for a dataset alone, the epoch.
    pub pass: u64,
}

/// The order of a loader.
pub(crate) struct Order {
    batch_size: usize,
    passes: Vec<Passes>,
    mixed: Option<Mixed>,
}

/// The order of a mixture.
struct Mixed {
    mixture: Mixture,
    seed: Option<u64>,
    interleaves: Made<Interleave>,
    /// Records that were drawn of each dataset, more than a loader has drawn that had these weights from its start.
    offsets: Mutex<Vec<i128>>,
}

impl Order {
    /// The order of one dataset.
    pub fn single(passes: Passes, batch_size: usize) -> Self {
        Self { batch_size, passes: vec![passes], mixed: None }
    }

    /// The order of a mixture of datasets. `seed` decides their turns; without one, they are fixed.
    pub fn mixed(passes: Vec<Passes>, mixture: Mixture, seed: Option<u64>, batch_size: usize) -> Self {
        let offsets = Mutex::new(vec![0; passes.len()]);
        Self { batch_size, passes, mixed: Some(Mixed { mixture, seed, interleaves: Made::new(), offsets }) }
    }

    /// Records of an epoch.
    pub fn records(&self) -> usize {
        match &self.mixed {
            Some(mixed) => mixed.mixture.records() as usize,
            None => self.passes.iter().map(|passes| passes.records as usize).sum(),
        }
    }

    /// Whether it is that of a mixture.
    pub fn is_mixed(&self) -> bool {
        self.mixed.is_some()
    }

    /// Writes the records of one rank's share of a batch.
    pub fn draws(
        &self,
        epoch: u64,
        batch: usize,
        (rank, world_size): (usize, usize),
        draws: &mut Vec<Draw>,
    ) -> Result<()> {
        draws.clear();
        let positions = batch * self.batch_size..self.records().min((batch + 1) * self.batch_size);
        let Some(mixed) = &self.mixed else {
            let order = self.passes[0].order(epoch)?;
            let own = order[positions].iter().skip(rank).step_by(world_size);
            draws.extend(own.map(|&position| Draw { source: 0, position, pass: epoch }));
            return Ok(());
        };
        let interleave = mixed.interleave(epoch, self.batch_size)?;
        let mut drawn = mixed.before(epoch, interleave.start(batch));
        // A batch has few passes over each dataset.
        let mut current: Vec<Option<(u64, Arc<Vec<u32>>)>> = vec![None; self.passes.len()];
        for (at, &source) in interleave.sources(positions).iter().enumerate() {
            let (part, records) = (usize::from(source), u64::from(self.passes[usize::from(source)].records));
            let (pass, within) = (drawn[part] / records, (drawn[part] % records) as usize);
            drawn[part] += 1;
            if at % world_size != rank {
                continue;
            }
            let order = match &current[part] {
                Some((known, order)) if *known == pass => order,
                _ => &current[part].insert((pass, self.passes[part].order(pass)?)).1,
            };
            draws.push(Draw { source, position: order[within], pass });
        }
        Ok(())
    }

    /// Records drawn of each dataset before a batch; empty for one dataset alone.
    pub fn drawn(&self, epoch: u64, batch: u64) -> Result<Vec<u64>> {
        let Some(mixed) = &self.mixed else { return Ok(Vec::new()) };
        if batch == 0 {
            return Ok(mixed.before(epoch, &[]));
        }
        let interleave = mixed.interleave(epoch, self.batch_size)?;
        Ok(mixed.before(epoch, interleave.start(batch as usize)))
    }

    /// Continues at a batch as if so many records had been drawn of each dataset before it.
    ///
    /// # Errors
    /// When there is another number of datasets, or a count is impossible.
    pub fn continue_from(&self, epoch: u64, batch: u64, drawn: &[u64]) -> Result<()> {
        let Some(mixed) = &self.mixed else { return Ok(()) };
        if drawn.len() != self.passes.len() || drawn.iter().any(|&count| count > MOST_DRAWN) {
            return Err(Error::State(format!(
                "it counts the records of {} datasets ({drawn:?}), the mixture has {}",
                drawn.len(),
                self.passes.len()
            )));
        }
        let within = if batch == 0 {
            Vec::new()
        } else {
            mixed.interleave(epoch, self.batch_size)?.start(batch as usize).to_vec()
        };
        let regular = mixed.regular(epoch, &within);
        let mut offsets = mixed.offsets.lock().unwrap_or_else(PoisonError::into_inner);
        *offsets = drawn.iter().zip(regular).map(|(&drawn, regular)| i128::from(drawn) - regular).collect();
        Ok(())
    }
}

/// Largest number of records drawn of a dataset that a state may have.
const MOST_DRAWN: u64 = 1 << 60;

impl Mixed {
    fn interleave(&self, epoch: u64, batch_size: usize) -> Result<Arc<Interleave>> {
        self.interleaves.get(epoch, || self.mixture.interleave(self.seed, epoch, batch_size))
    }

    /// Records that a loader with these weights from its start has drawn of each dataset before some point of an epoch, `within`
    /// of them in this epoch; none where that is empty.
    fn regular(&self, epoch: u64, within: &[u32]) -> Vec<i128> {
        let count = |(part, &quota): (usize, &u64)| {
            i128::from(epoch) * i128::from(quota) + i128::from(within.get(part).copied().unwrap_or(0))
        };
        self.mixture.quotas().iter().enumerate().map(count).collect()
    }

    /// Records drawn of each dataset before some point of an epoch; `within` as above.
    fn before(&self, epoch: u64, within: &[u32]) -> Vec<u64> {
        let offsets = self.offsets.lock().unwrap_or_else(PoisonError::into_inner);
        let regular = self.regular(epoch, within);
        let counts = regular.iter().zip(offsets.iter());
        counts.map(|(regular, offset)| (regular + offset).clamp(0, i128::from(u64::MAX / 2)) as u64).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_present_and_the_last_epoch_are_kept() {
        let (made, count) = (Made::new(), Cell::new(0));
        let found = [0, 1, 0, 1, 2, 1, 0].map(|number| {
            let make = || {
                count.set(count.get() + 1);
                Ok(number)
            };
            assert_eq!(*made.get(number, make).unwrap(), number);
            count.get()
        });
        assert_eq!(found, [1, 2, 2, 2, 3, 3, 4]);
    }
}
