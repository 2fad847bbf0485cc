//! Gives the batches that its threads make, in order.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::error::{Error, Result};
use crate::loader::batch::Batch;
use crate::loader::buffers::{BufferPool, Buffers};
use crate::loader::metrics::LoaderMetrics;
use crate::loader::plan::{Pages, Plan, Scratch};
use crate::loader::state::LoaderState;

/// Iterates over the batches of an epoch. At its end it gives `None` once; the next call begins the next epoch.
pub struct Loader {
    plan: Arc<Plan>,
    threads: usize,
    prefetch: usize,
    slots: Option<Sender<()>>,
    ready: Option<Receiver<(u64, Result<Buffers>)>>,
    pool: BufferPool,
    /// Batches that were made before the ones that precede them.
    early: BTreeMap<u64, Result<Buffers>>,
    next: u64,
    /// Position before the batch `next`.
    state: LoaderState,
    epoch_ended: bool,
    skipped: u64,
    metrics: LoaderMetrics,
    /// Whether the next batch was asked for before.
    is_asked: bool,
    workers: Vec<JoinHandle<()>>,
}

impl Loader {
    /// Starts the threads at a position.
    pub(crate) fn start(plan: Plan, threads: usize, prefetch: usize, state: &LoaderState) -> Result<Self> {
        let next = plan.position(state)?;
        plan.continue_from(next, &state.drawn)?;
        let mut loader = Self {
            state: plan.state(next)?,
            plan: Arc::new(plan),
            threads,
            prefetch,
            slots: None,
            ready: None,
            pool: BufferPool::new(prefetch + 2),
            early: BTreeMap::new(),
            next,
            epoch_ended: false,
            skipped: 0,
            metrics: LoaderMetrics::default(),
            is_asked: false,
            workers: Vec::new(),
        };
        loader.start_threads()?;
        Ok(loader)
    }

    /// Starts the threads at the next batch.
    fn start_threads(&mut self) -> Result<()> {
        self.plan.next.store(self.next, Ordering::SeqCst);
        let (slots, slot_receiver) = crossbeam_channel::bounded::<()>(self.prefetch);
        let (ready_sender, ready) = crossbeam_channel::bounded(self.prefetch);
        for _ in 0..self.prefetch {
            let _ = slots.try_send(());
        }
        (self.slots, self.ready) = (Some(slots), Some(ready));
        let todo = if self.plan.is_remote() {
            let (fetched_sender, fetched) = crossbeam_channel::bounded(self.prefetch);
            for index in 0..self.threads {
                let (plan, slots, fetched) = (self.plan.clone(), slot_receiver.clone(), fetched_sender.clone());
                self.start_thread(format!("fetch-{index}"), move || fetch(&plan, &slots, &fetched))?;
            }
            Todo::Fetched(fetched)
        } else {
            Todo::Slots(slot_receiver)
        };
        let channels = Channels { todo, ready: ready_sender, pool: self.pool.clone() };
        for index in 0..self.threads {
            let (plan, channels) = (self.plan.clone(), channels.clone());
            self.start_thread(format!("loader-{index}"), move || work(&plan, &channels))?;
        }
        Ok(())
    }

    fn start_thread(&mut self, name: String, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let started = std::thread::Builder::new().name(name).spawn(work);
        self.workers.push(started.map_err(|e| Error::Invalid(format!("loader: no thread: {e}")))?);
        Ok(())
    }

    /// Ends the threads; the batches that they made go back to the pool.
    fn stop_threads(&mut self) {
        // The threads end when these channels are closed.
        self.slots = None;
        let ready = self.ready.take();
        let made = ready.iter().flat_map(Receiver::try_iter).chain(std::mem::take(&mut self.early));
        made.filter_map(|(_, made)| made.ok()).for_each(|buffers| self.pool.give_back(buffers));
        drop(ready);
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }

    /// Continues at another position: the next call gives its batch.
    ///
    /// # Errors
    /// When the state belongs to another order, or to no batch of it. The loader keeps its position then.
    pub fn seek(&mut self, state: &LoaderState) -> Result<()> {
        let next = self.plan.position(state)?;
        let is_here = next == self.next && (state.drawn.is_empty() || state.drawn == self.state.drawn);
        if !is_here {
            self.stop_threads();
            let moved = self.plan.continue_from(next, &state.drawn).and_then(|()| self.plan.state(next));
            if let Ok(state) = &moved {
                (self.next, self.state) = (next, state.clone());
            }
            self.is_asked = false;
            self.start_threads()?;
            moved?;
        }
        self.epoch_ended = false;
        Ok(())
    }

    /// Batches of an epoch.
    pub fn batches(&self) -> u64 {
        self.plan.batches
    }

    /// Samples of an epoch, over all ranks: records, or studies.
    pub fn records(&self) -> usize {
        if self.plan.settings.drop_last {
            self.plan.batches as usize * self.plan.settings.batch_size
        } else {
            self.plan.order.records()
        }
    }

    /// Names of the columns of a batch's labels, [`C`](Batch): the findings of the dataset; of a mixture those of the first
    /// dataset, then those that each further one adds.
    pub fn findings(&self) -> &[String] {
        &self.plan.findings
    }

    /// Numbers of the datasets whose token ids are made from the stored reports, because they have another tokenizer.
    pub fn tokenized(&self) -> Vec<usize> {
        (0..self.plan.parts.len()).filter(|&part| self.plan.parts[part].samples.tokenizes()).collect()
    }

    /// Numbers of the datasets that were ingested without images: their samples have reports alone
    /// ([`Batch::has_image`]).
    pub fn without_images(&self) -> Vec<usize> {
        (0..self.plan.parts.len()).filter(|&part| self.plan.parts[part].is_text_only).collect()
    }

    /// Position of the loader: the batch that the next call gives.
    pub fn state(&self) -> LoaderState {
        self.state.clone()
    }

    /// Records that were left out so far because they could not be read ([`OnError::Skip`](crate::loader::OnError::Skip)).
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// How many batches were given so far, how long the calls waited for them, and how many were ready.
    pub fn metrics(&self) -> LoaderMetrics {
        self.metrics
    }

    /// The next batch; after the last one of an epoch the first one of the next.
    ///
    /// # Errors
    /// When a record of the batch cannot be read; the call after it gives the batch after it.
    pub fn next_batch(&mut self) -> Result<Batch> {
        loop {
            if let Some(batch) = self.next_batch_within(Duration::from_hours(1))? {
                return Ok(batch);
            }
        }
    }

    /// As [`Loader::next_batch`], but `None` where the batch is not made within this time. The next call waits for the same
    /// batch.
    ///
    /// # Errors
    /// As [`Loader::next_batch`].
    pub fn next_batch_within(&mut self, time: Duration) -> Result<Option<Batch>> {
        let began = Instant::now();
        let end = began + time;
        if !std::mem::replace(&mut self.is_asked, true) {
            self.metrics.ready += (self.early.len() + self.ready.as_ref().map_or(0, Receiver::len)) as u64;
        }
        loop {
            if let Some(made) = self.early.remove(&self.next) {
                self.metrics.waited += began.elapsed();
                self.metrics.batches += 1;
                self.is_asked = false;
                let index = self.next;
                self.next += 1;
                self.epoch_ended = self.next.is_multiple_of(self.plan.batches);
                if let Some(slots) = &self.slots {
                    let _ = slots.try_send(());
                }
                self.state = self.plan.state(self.next)?;
                let buffers = made?;
                self.skipped += buffers.skipped.len() as u64;
                return Ok(Some(self.plan.batch(buffers, index, &self.pool)));
            }
            match self.ready.as_ref().map(|ready| ready.recv_deadline(end)) {
                Some(Ok((index, made))) => {
                    self.early.insert(index, made);
                }
                Some(Err(RecvTimeoutError::Timeout)) => {
                    self.metrics.waited += began.elapsed();
                    return Ok(None);
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
        self.stop_threads();
    }
}

/// What the threads of a loader make batches of.
#[derive(Clone)]
enum Todo {
    /// One message for each batch that may be made.
    Slots(Receiver<()>),
    /// The numbers and pages of batches from a store.
    Fetched(Receiver<(u64, Result<Pages>)>),
}

impl Todo {
    /// The next batch to be made; none when the loader ends.
    fn next(&self, plan: &Plan) -> Option<(u64, Result<Pages>)> {
        match self {
            // It takes a slot before a number, so that a thread is at work on the lowest number that is not made yet.
            Self::Slots(slots) => {
                slots.recv().ok().map(|()| (plan.next.fetch_add(1, Ordering::SeqCst), Ok(Pages::new())))
            }
            Self::Fetched(fetched) => fetched.recv().ok(),
        }
    }
}

/// The channels of a loader's threads.
#[derive(Clone)]
struct Channels {
    todo: Todo,
    ready: Sender<(u64, Result<Buffers>)>,
    pool: BufferPool,
}

/// A thread that waits for a store: fetches the pages of batches, by their numbers, while other threads make batches.
fn fetch(plan: &Plan, slots: &Receiver<()>, fetched: &Sender<(u64, Result<Pages>)>) {
    while slots.recv().is_ok() {
        let index = plan.next.fetch_add(1, Ordering::SeqCst);
        if fetched.send((index, plan.fetch(index))).is_err() {
            return;
        }
    }
}

/// A thread: makes batches by their numbers, counted from epoch 0.
fn work(plan: &Plan, channels: &Channels) {
    let mut scratch = Scratch::default();
    while let Some((index, pages)) = channels.todo.next(plan) {
        let mut buffers = channels.pool.take();
        // A thread that ended without sending its batch would keep the consumer waiting forever.
        let make = AssertUnwindSafe(|| plan.make(index, pages?, &mut buffers, &mut scratch));
        let made = catch_unwind(make).unwrap_or_else(|_| {
            scratch = Scratch::default();
            Err(Error::Invalid("loader: a batch cannot be made: a decoder panicked".to_owned()))
        });
        if channels.ready.send((index, made.map(|()| buffers))).is_err() {
            return;
        }
    }
}
