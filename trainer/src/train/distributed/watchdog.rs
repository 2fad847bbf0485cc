//! Signs of life. A thread of each process writes to the store, once a second, what the process is doing. Where the processes
//! wait for one that is dead or stuck, the thread ends its process with a line that names the culprit: c10d would wait until
//! its own timeout, and report an address.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::error_file;
use crate::torch::c10d::{C10dError, Store};

/// Time between two signs of life.
const BEAT: Duration = Duration::from_secs(1);

/// A process waits so long for the others before its watchdog looks for a reason.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process without a sign of life for so long is dead.
const DEAD_AFTER: Duration = Duration::from_secs(20);

/// Time after a lost connection in which the others' signs of life are watched for the one that stopped.
const POST_MORTEM: Duration = Duration::from_secs(3);

/// The store may not answer for so long.
const STORE_LOST_AFTER: Duration = Duration::from_secs(20);

/// What a process is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activity {
    /// Building the model and reading a checkpoint.
    Starting,
    /// Training: it waits for a batch, or computes.
    Training,
    /// Evaluating or writing a checkpoint, which may take long while the others wait.
    Evaluating,
    /// It waits for the others in a collective.
    Waiting,
    /// It has ended without an error.
    Ended,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Beat {
    /// Increases with every sign of life.
    number: u64,
    activity: Activity,
    /// Increases whenever the activity changes.
    change: u64,
    /// The error that ended the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Whether that error only followed from the end of another process.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    follows: bool,
}

impl Beat {
    /// Before the first sign of life.
    const NONE: Self = Self { number: 0, activity: Activity::Starting, change: 0, error: None, follows: false };
}

/// What this process is doing, for its watchdog.
#[derive(Debug)]
struct Now {
    activity: Activity,
    change: u64,
    since: Instant,
}

/// What this process last saw of another one, by its own clock: clocks of machines differ.
struct Seen {
    beat: Beat,
    /// When the sign of life was first seen.
    beat_at: Instant,
    /// When the activity was first seen.
    change_at: Instant,
}

impl Seen {
    fn is_alive(&self) -> bool {
        self.beat.activity != Activity::Ended && self.beat.error.is_none()
    }
}

/// What all parts of a process know of its job.
pub(super) struct Job {
    pub rank: usize,
    /// Name of each rank's machine.
    pub hosts: Vec<String>,
    /// A step may last so long.
    pub stall_timeout: Duration,
    /// A connection to the store that only the watchdog uses.
    store: Store,
    /// The store's server, where it is in this process: it must not end before the others have read why this process failed.
    pub server: Option<Store>,
    now: Mutex<Now>,
    ended: AtomicBool,
}

/// The thread; it ends when this is dropped.
pub(super) struct Watchdog {
    pub job: Arc<Job>,
    thread: Option<JoinHandle<()>>,
}

fn key(rank: usize) -> String {
    format!("alive/{rank}")
}

impl Job {
    pub fn new(rank: usize, hosts: Vec<String>, stall_timeout: Duration, store: Store, server: Option<Store>) -> Self {
        let now = Mutex::new(Now { activity: Activity::Starting, change: 0, since: Instant::now() });
        Self { rank, hosts, stall_timeout, store, server, now, ended: AtomicBool::new(false) }
    }

    /// `rank 1 (node-2)`.
    pub fn name(&self, rank: usize) -> String {
        format!("rank {rank} ({})", self.hosts.get(rank).map_or("?", String::as_str))
    }

    /// Notes what the process does from now on; returns what it did.
    pub fn set(&self, activity: Activity) -> Activity {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let before = now.activity;
        *now = Now { activity, change: now.change + 1, since: Instant::now() };
        before
    }

    fn write(&self, number: u64, error: Option<String>, follows: bool) -> Result<(), C10dError> {
        let beat = {
            let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
            Beat { number, activity: now.activity, change: now.change, error, follows }
        };
        self.store.set(&key(self.rank), &serde_json::to_vec(&beat).unwrap_or_default())
    }

    fn others(&self) -> impl Iterator<Item = usize> {
        let own = self.rank;
        (0..self.hosts.len()).filter(move |rank| *rank != own)
    }

    /// Reads the other processes' signs of life into `seen`.
    fn look(&self, seen: &mut HashMap<usize, Seen>) -> Result<(), C10dError> {
        for rank in self.others() {
            let bytes = self.store.get(&key(rank))?;
            let beat = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or(Beat::NONE);
            let at = Instant::now();
            let seen = seen.entry(rank).or_insert_with(|| Seen { beat: beat.clone(), beat_at: at, change_at: at });
            if seen.beat.number != beat.number {
                seen.beat_at = at;
            }
            if seen.beat.change != beat.change {
                seen.change_at = at;
            }
            seen.beat = beat;
        }
        Ok(())
    }

    /// The process that the others wait for, and why; none if all are alive and busy.
    fn culprit(&self, seen: &HashMap<usize, Seen>) -> Option<(usize, String)> {
        let mut ranks: Vec<(usize, &Seen)> = seen.iter().map(|(rank, seen)| (*rank, seen)).collect();
        ranks.sort_by_key(|(rank, _)| *rank);
        let find = |is: &dyn Fn(&Seen) -> bool| ranks.iter().find(|(_, seen)| is(seen));
        if let Some((rank, seen)) = find(&|seen| seen.beat.error.is_some() && !seen.beat.follows) {
            return Some((*rank, format!("failed: {}", seen.beat.error.as_deref().unwrap_or_default())));
        }
        if let Some((rank, seen)) = find(&|seen| seen.is_alive() && seen.beat_at.elapsed() > DEAD_AFTER) {
            return Some((*rank, format!("has given no sign of life for {} s", seen.beat_at.elapsed().as_secs())));
        }
        let (rank, seen) = find(&|seen| {
            seen.is_alive() && seen.beat.activity == Activity::Training && seen.change_at.elapsed() > self.stall_timeout
        })?;
        let seconds = seen.change_at.elapsed().as_secs();
        Some((
            *rank,
            format!("has been at one step for {seconds} s (run.stall_timeout): is its storage or its GPU stuck?"),
        ))
    }

    /// After a lost connection: the process that has written an error, or whose signs of life stopped.
    pub fn post_mortem(&self) -> Option<(usize, String)> {
        let (mut seen, began) = (HashMap::new(), Instant::now());
        while began.elapsed() < POST_MORTEM {
            // The store may end with the process that serves it.
            if self.look(&mut seen).is_err() {
                break;
            }
            if let Some(found) = self.culprit(&seen) {
                return Some(found);
            }
            std::thread::sleep(BEAT / 4);
        }
        let silent = seen.into_iter().filter(|(_, seen)| seen.is_alive() && seen.beat_at.elapsed() > BEAT * 2);
        let (rank, _) = silent.max_by_key(|(_, seen)| seen.beat_at.elapsed())?;
        Some((rank, "ended without a message: it was killed, or its machine is down".to_owned()))
    }

    /// Writes that this process has ended without an error.
    pub fn leave(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.set(Activity::Ended);
        let _ = self.write(u64::MAX, None, false);
    }

    /// Writes the error that ends this process, for the others to read; `follows`: it follows from another process's end.
    pub fn fail(&self, error: &str, follows: bool) {
        self.ended.store(true, Ordering::Relaxed);
        let _ = self.write(u64::MAX, Some(error.to_owned()), follows);
    }

    fn run(&self) {
        let mut seen = HashMap::new();
        let (mut number, mut store_lost): (u64, Option<Instant>) = (0, None);
        while !self.ended.load(Ordering::Relaxed) {
            number += 1;
            let waits = {
                let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
                now.activity == Activity::Waiting && now.since.elapsed() > PATIENCE
            };
            if !waits {
                seen.clear();
            }
            let outcome =
                self.write(number, None, false).and_then(|()| if waits { self.look(&mut seen) } else { Ok(()) });
            match outcome {
                Ok(()) => store_lost = None,
                Err(error) => {
                    let since = *store_lost.get_or_insert_with(Instant::now);
                    if waits && since.elapsed() > STORE_LOST_AFTER {
                        self.end(&format!(
                            "the store of the job cannot be reached ({error}): has {} ended?",
                            self.name(0)
                        ));
                    }
                }
            }
            if let Some((rank, why)) = self.culprit(&seen) {
                self.end(&format!("{} {why}", self.name(rank)));
            }
            std::thread::park_timeout(BEAT);
        }
    }

    /// Ends the process: its main thread waits in a collective, which cannot be interrupted.
    fn end(&self, why: &str) -> ! {
        let _ = self.write(u64::MAX, Some(why.to_owned()), true);
        dataset::cli_eprintln!("error: {}: {why}", self.name(self.rank));
        error_file::write(why);
        signal_hook::low_level::exit(1)
    }
}

impl Watchdog {
    pub fn start(job: Job) -> std::io::Result<Self> {
        let job = Arc::new(job);
        let watched = job.clone();
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || watched.run())?;
        Ok(Self { job, thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.job.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}
