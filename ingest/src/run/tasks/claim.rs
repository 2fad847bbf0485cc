//! Which task makes the plan. A claim among the notes names its maker and changes every few seconds while the maker lives.
//!
//! Whether a maker lives is judged by a change of the claim on the observer's own clock, since clocks of machines differ. Two
//! makers at a time waste work and do no harm: the same input gives the same plan, and it is published whole.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use dataset::progress::{OnProgress, Progress};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::run::note_store::NoteStore;
use crate::run::tasks::published_plan::HEAD;

/// Name of the claim among the notes.
pub const CLAIM: &str = "claim.json";

/// Pause between two changes of a claim.
const BEAT: Duration = Duration::from_secs(2);

/// Pause between two looks at the claim of another task.
const LOOK: Duration = Duration::from_millis(500);

/// Time after which a claim that did not change is taken over.
const STALE: Duration = Duration::from_secs(20);

/// Time after which a new claim is read again: of several tasks that claim at once, the last one makes the plan.
const SETTLING: Duration = Duration::from_secs(1);

/// The claim of a task that makes the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Identifies the process.
    pub maker: String,
    /// Name of its machine.
    pub host: String,
    /// Counts the changes.
    pub beat: u64,
}

/// Waits until a plan is published (false), or this process has to make it (true), or `progress` cancels.
pub fn has_to_plan(notes: &NoteStore, maker: &str, host: &str, progress: &OnProgress) -> Result<bool> {
    let own = Claim { maker: maker.to_owned(), host: host.to_owned(), beat: 0 };
    let mut seen: Option<(Vec<u8>, Instant)> = None;
    loop {
        progress(Progress::Working)?;
        if notes.read(HEAD)?.is_some() {
            return Ok(false);
        }
        let found = notes.read(CLAIM)?;
        let is_free = match (&found, &seen) {
            (None, _) => true,
            (Some(now), Some((before, since))) if now == before => since.elapsed() >= STALE,
            (Some(now), _) => {
                seen = Some((now.clone(), Instant::now()));
                false
            }
        };
        if is_free {
            notes.write_brief(CLAIM, &own)?;
            std::thread::sleep(SETTLING);
            if is_ours(notes, maker) {
                return Ok(notes.read(HEAD)?.is_none());
            }
            seen = None;
        } else {
            std::thread::sleep(LOOK);
        }
    }
}

fn is_ours(notes: &NoteStore, maker: &str) -> bool {
    let found = notes.read(CLAIM).ok().flatten();
    found.and_then(|text| serde_json::from_slice::<Claim>(&text).ok()).is_some_and(|claim| claim.maker == maker)
}

/// Does the work of a claim that was granted, while the claim changes. The claim is removed at the end, also of work that
/// failed, so that another task tries it at once.
pub fn while_claimed<T>(notes: &NoteStore, maker: &str, host: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (end, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut claim = Claim { maker: maker.to_owned(), host: host.to_owned(), beat: 0 };
            while ended.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                claim.beat += 1;
                // A note that cannot be written is no reason to end the work. A claim that another task took over stays.
                if is_ours(notes, maker) {
                    let _ = notes.write_brief(CLAIM, &claim);
                }
            }
        });
        let outcome = work();
        drop(end);
        outcome
    })
    .inspect(|_| release(notes, maker))
    .inspect_err(|_| release(notes, maker))
}

fn release(notes: &NoteStore, maker: &str) {
    if is_ours(notes, maker) {
        let _ = notes.remove(CLAIM);
    }
}

#[cfg(test)]
mod tests {
    use dataset::Storage;

    use super::*;

    #[test]
    fn of_several_tasks_one_plans_and_a_dead_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(".ingest")).unwrap();
        let private = tempfile::tempdir_in(folder.path()).unwrap();
        let place = Storage::folder(folder.path());
        // A task that died: its claim does not change.
        NoteStore::shared(&place, private.path())
            .write_json(CLAIM, &Claim { maker: "dead".to_owned(), host: "n1".to_owned(), beat: 3 })
            .unwrap();
        let plans = std::thread::scope(|scope| {
            let tasks: Vec<_> = (0..4)
                .map(|number| {
                    let (place, folder) = (&place, folder.path());
                    scope.spawn(move || {
                        let private = tempfile::tempdir_in(folder).unwrap();
                        let (notes, maker) = (NoteStore::shared(place, private.path()), format!("task {number}"));
                        let plans = has_to_plan(&notes, &maker, "n2", &|_| Ok(())).unwrap();
                        if plans {
                            while_claimed(&notes, &maker, "n2", || notes.write(HEAD, b"the plan")).unwrap();
                        }
                        usize::from(plans)
                    })
                })
                .collect();
            tasks.into_iter().map(|task| task.join().unwrap()).sum::<usize>()
        });
        // Two are possible on a machine that stops for a second.
        assert!((1..=2).contains(&plans), "{plans} tasks planned");
        assert!(!folder.path().join(".ingest").join(CLAIM).exists());
    }
}
