//! Gives the batches that its threads make, in order.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};

use crate::error::{Error, Result};
use crate::loader::batch::{Batch, Buffers};
use crate::loader::plan::{Plan, Scratch};
use crate::loader::state::LoaderState;

/// Iterates over the batches of an epoch. At its end it gives `None` once; the next call begins the next epoch.
pub struct Loader {
    plan: Arc<Plan>,
    slots: Option<Sender<()>>,
    ready: Option<Receiver<(u64, Result<Buffers>)>>,
    /// Takes the buffers of dropped batches.
    pool: Sender<Buffers>,
    /// Batches that were made before the ones that precede them.
    early: BTreeMap<u64, Result<Buffers>>,
    next: u64,
    epoch_ended: bool,
    skipped: u64,
    workers: Vec<JoinHandle<()>>,
}

impl Loader {
    /// Starts the threads. `next` is the first batch, counted from epoch 0.
    pub(crate) fn start(plan: Plan, threads: usize, prefetch: usize, next: u64) -> Result<Self> {
        let plan = Arc::new(plan);
        let (slots, slot_receiver) = crossbeam_channel::bounded::<()>(prefetch);
        let (ready_sender, ready) = crossbeam_channel::bounded(prefetch);
        let (pool, pool_receiver) = crossbeam_channel::bounded::<Buffers>(prefetch + 2);
        for _ in 0..prefetch {
            let _ = slots.try_send(());
        }
        let channels = Channels { slots: slot_receiver, ready: ready_sender, pool: pool_receiver };
        let workers = (0..threads)
            .map(|index| {
                let (plan, channels) = (plan.clone(), channels.clone());
                std::thread::Builder::new()
                    .name(format!("loader-{index}"))
                    .spawn(move || work(&plan, &channels))
                    .map_err(|e| Error::Invalid(format!("loader: no thread: {e}")))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            plan,
            slots: Some(slots),
            ready: Some(ready),
            pool,
            early: BTreeMap::new(),
            next,
            epoch_ended: false,
            skipped: 0,
            workers,
        })
    }

    /// Batches of an epoch.
    pub fn batches(&self) -> u64 {
        self.plan.batches
    }

    /// Records of an epoch, over all ranks.
    pub fn records(&self) -> usize {
        if self.plan.settings.drop_last {
            self.plan.batches as usize * self.plan.settings.batch_size
        } else {
            self.plan.rows.len()
        }
    }

    /// Position of the loader: the batch that the next call gives.
    pub fn state(&self) -> LoaderState {
        let (epoch, batch) = (self.next / self.plan.batches, self.next % self.plan.batches);
        LoaderState { epoch, batch, order: self.plan.digest }
    }

    /// Records that were left out so far because they could not be read ([`OnError::Skip`](crate::loader::OnError::Skip)).
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The next batch; after the last one of an epoch the first one of the next.
    ///
    /// # Errors
    /// When a record of the batch cannot be read; the call after it gives the batch after it.
    pub fn next_batch(&mut self) -> Result<Batch> {
        self.epoch_ended = false;
        loop {
            if let Some(made) = self.early.remove(&self.next) {
                let (epoch, number) = (self.next / self.plan.batches, self.next % self.plan.batches);
                self.next += 1;
                self.epoch_ended = self.next.is_multiple_of(self.plan.batches);
                if let Some(slots) = &self.slots {
                    let _ = slots.try_send(());
                }
                let settings = &self.plan.settings;
                let buffers = made?;
                self.skipped += buffers.skipped.len() as u64;
                return Ok(Batch {
                    buffers,
                    size: settings.transform.size as usize,
                    tokens: settings.text.as_ref().map_or(0, |text| text.tokens),
                    pool: self.pool.clone(),
                    epoch,
                    number,
                });
            }
            match self.ready.as_ref().map(Receiver::recv) {
                Some(Ok((index, made))) => {
                    self.early.insert(index, made);
                }
                _ => return Err(Error::Invalid("loader: its threads ended".to_owned())),
            }
        }
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if std::mem::take(&mut self.epoch_ended) {
            return None;
        }
        Some(self.next_batch())
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // The threads end when these channels are closed.
        self.slots = None;
        self.ready = None;
        self.early.clear();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

/// The channels of a loader's threads.
#[derive(Clone)]
struct Channels {
    /// One message for each batch that may be made.
    slots: Receiver<()>,
    ready: Sender<(u64, Result<Buffers>)>,
    /// Buffers of dropped batches.
    pool: Receiver<Buffers>,
}

/// A thread: makes batches by their numbers, counted from epoch 0.
fn work(plan: &Plan, channels: &Channels) {
    let mut scratch = Scratch::default();
    // It takes a slot before a number, so that a thread is at work on the lowest number that is not made yet.
    while channels.slots.recv().is_ok() {
        let index = plan.next.fetch_add(1, Ordering::SeqCst);
        let mut buffers = channels.pool.try_recv().unwrap_or_default();
        // A thread that ended without sending its batch would keep the consumer waiting forever.
        let make = AssertUnwindSafe(|| plan.make(index, &mut buffers, &mut scratch));
        let made = catch_unwind(make).unwrap_or_else(|_| {
            scratch = Scratch::default();
            Err(Error::Invalid("loader: a batch cannot be made: a decoder panicked".to_owned()))
        });
        if channels.ready.send((index, made.map(|()| buffers))).is_err() {
            return;
        }
    }
}
