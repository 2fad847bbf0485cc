//! The state of a dataset that tasks make, from their notes.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use dataset::Storage;
use dataset::format::manifest::{Manifest, shard_path};

use crate::error::{Error, Result};
use crate::run::note_store::NoteStore;
use crate::run::notes::note_name;
use crate::run::tasks::claim::{CLAIM, Claim};
use crate::run::tasks::published_plan::PublishedPlan;
use crate::run::tasks::task_note::{PREFIX, TaskNote, TaskState, now};

/// The state of a dataset.
#[derive(Clone, Debug)]
pub enum Status {
    /// The manifest is there: so many shards and records.
    Complete {
        /// Number of shards.
        shards: usize,
        /// Number of records.
        records: u64,
    },
    /// A run without tasks began it: so many shards are finished.
    Alone {
        /// Number of finished shards.
        shards_done: usize,
    },
    /// A task on this machine makes the plan.
    Planning {
        /// Name of its machine.
        host: String,
    },
    /// Tasks make the shards.
    Running(Running),
}

/// The state of all tasks.
#[derive(Clone, Debug)]
pub struct Running {
    /// Number of shards.
    pub shards: usize,
    /// Finished shards.
    pub shards_done: usize,
    /// Number of planned radiographs.
    pub records: u64,
    /// Those that are done, with those of unfinished shards.
    pub records_done: u64,
    /// The tasks, by number.
    pub tasks: Vec<TaskStatus>,
    /// A run alone that completes what tasks began.
    pub alone: Option<Report>,
}

/// The state of a task.
#[derive(Clone, Debug)]
pub struct TaskStatus {
    /// Number of its shards.
    pub shards: usize,
    /// Those of them that are finished.
    pub shards_done: usize,
    /// Its radiographs.
    pub records: u64,
    /// Those of them that are done.
    pub records_done: u64,
    /// What it last reported; `None` where it has not begun.
    pub report: Option<Report>,
}

/// What a process last reported.
#[derive(Clone, Debug)]
pub struct Report {
    /// Name of its machine.
    pub host: String,
    /// What it does: `running`, `done` …
    pub state: String,
    /// The error that ended it.
    pub error: Option<String>,
    /// Radiographs a second.
    pub rate: f64,
    /// Seconds since it reported, by the clocks of its machine and of this one.
    pub seconds_ago: u64,
}

/// Seconds without a report after which a task counts as dead.
pub const SILENT: u64 = 30;

impl Report {
    fn of(note: &TaskNote) -> Self {
        let (state, error) = match &note.state {
            TaskState::Waiting => ("waiting", None),
            TaskState::Planning => ("planning", None),
            TaskState::Running => ("running", None),
            TaskState::Done => ("done", None),
            TaskState::Failed(error) => ("failed", Some(error.clone())),
        };
        Self {
            host: note.host.clone(),
            state: state.to_owned(),
            error,
            rate: note.rate,
            seconds_ago: now().saturating_sub(note.written),
        }
    }

    /// Whether its process is at work, as far as its reports show.
    pub fn is_alive(&self) -> bool {
        !matches!(self.state.as_str(), "done" | "failed") && self.seconds_ago <= SILENT
    }
}

impl Running {
    /// Radiographs a second of all tasks that are at work.
    pub fn rate(&self) -> f64 {
        let reports = self.tasks.iter().filter_map(|task| task.report.as_ref()).chain(&self.alone);
        reports.filter(|report| report.is_alive()).map(|report| report.rate).fold(0.0, |all, rate| all + rate)
    }

    /// Seconds until the slowest task is done; `None` where an unfinished task is not at work, or its rate is not known yet.
    pub fn seconds_left(&self) -> Option<u64> {
        let left = |records: u64, done: u64, report: Option<&Report>| {
            let rate = report.filter(|report| report.is_alive() && report.rate > 0.0)?.rate;
            Some((records.saturating_sub(done) as f64 / rate) as u64)
        };
        if self.alone.as_ref().is_some_and(Report::is_alive) {
            return left(self.records, self.records_done, self.alone.as_ref());
        }
        let unfinished = self.tasks.iter().filter(|task| task.shards_done < task.shards);
        unfinished
            .map(|task| left(task.records, task.records_done, task.report.as_ref()))
            .try_fold(0, |most, seconds| Some(seconds?.max(most)))
    }
}

/// Reads the state of a dataset in a folder or an object store.
///
/// # Errors
/// When there is none, or it cannot be read.
pub fn status(out: &Path) -> Result<Status> {
    let storage = Storage::at(out)?;
    if let Some(manifest) = Manifest::load_if_there(&storage)? {
        return Ok(Status::Complete { shards: manifest.shards.len(), records: manifest.totals.records });
    }
    let notes = NoteStore::shared(&storage, Path::new(""));
    let names = notes.names()?;
    let Some(published) = PublishedPlan::read(&notes)? else {
        if let Some(text) = notes.read(CLAIM)?
            && let Ok(claim) = serde_json::from_slice::<Claim>(&text)
        {
            return Ok(Status::Planning { host: claim.host });
        }
        if names.iter().any(|name| name == "arguments.json") {
            let shards_done = names.iter().filter(|name| name.starts_with("part-") && name.ends_with(".json")).count();
            return Ok(Status::Alone { shards_done });
        }
        let message = "holds no dataset, and no tasks have begun one".to_owned();
        return Err(Error::Output { path: storage.path(""), message });
    };
    let noted: HashSet<&String> = names.iter().collect();
    let present: HashSet<String> = storage.list("shards")?.into_iter().map(|listed| listed.name).collect();
    let is_done = |shard: usize| {
        noted.contains(&note_name(shard)) && present.contains(shard_path(shard).to_string_lossy().as_ref())
    };
    let mut reports: BTreeMap<String, TaskNote> = BTreeMap::new();
    for name in names.iter().filter(|name| name.starts_with(PREFIX)) {
        if let Some(text) = notes.read(name)?
            && let Ok(note) = serde_json::from_slice::<TaskNote>(&text)
        {
            reports.insert(note.task.clone(), note);
        }
    }
    let task = |index: usize| {
        let shards: Vec<usize> = (index..published.shards()).step_by(published.head.tasks).collect();
        let done = || shards.iter().copied().filter(|shard| is_done(*shard));
        let records =
            |shards: &mut dyn Iterator<Item = usize>| -> u64 { shards.map(|shard| published.records(shard)).sum() };
        let note = reports.get(&format!("{index}/{}", published.head.tasks));
        let all = records(&mut shards.iter().copied());
        TaskStatus {
            shards: shards.len(),
            shards_done: done().count(),
            records: all,
            records_done: records(&mut done()).max(note.map_or(0, |note| note.records_done)).min(all),
            report: note.map(Report::of),
        }
    };
    let tasks: Vec<TaskStatus> = (0..published.head.tasks).map(task).collect();
    let alone = reports.get("all");
    let of_tasks: u64 = tasks.iter().map(|task| task.records_done).sum();
    Ok(Status::Running(Running {
        shards: published.shards(),
        shards_done: tasks.iter().map(|task| task.shards_done).sum(),
        records: tasks.iter().map(|task| task.records).sum(),
        records_done: of_tasks.max(alone.map_or(0, |note| note.records_done)),
        alone: alone.map(Report::of),
        tasks,
    }))
}
