//! The work of one task: plan or read the plan, make the shards of the task, complete the dataset where it is the last.

use std::path::{Path, PathBuf};

use dataset::Storage;
use dataset::format::manifest::{MANIFEST, Manifest, TOKENIZER};
use dataset::progress::{OnProgress, Progress};
use dataset::store::files;

use crate::error::{Error, Result};
use crate::report::read::tokenizer_of;
use crate::report::tokenizer;
use crate::run::changed_options::{changed, deciding};
use crate::run::check_sums::CheckSums;
use crate::run::hashing_reader;
use crate::run::image_tables::ImageTables;
use crate::run::job::{Job, reads_now};
use crate::run::keys::{NOTES, STAMPS};
use crate::run::note_store::NoteStore;
use crate::run::notes::{note_name, stamps_name};
use crate::run::options::Options;
use crate::run::output::{Output, Prepared, check_whole, finished};
use crate::run::path_names::PathNames;
use crate::run::plan::{Plan, Source};
use crate::run::prepared_plan::PreparedPlan;
use crate::run::refused;
use crate::run::store_lock;
use crate::run::summary::Summary;
use crate::run::tasks::claim;
use crate::run::tasks::complete::{self, Common, check_options};
use crate::run::tasks::published_plan::{HEAD, Planned, PublishedPlan};
use crate::run::tasks::session::Session;
use crate::run::tasks::task::{Share, Task};
use crate::run::tasks::task_note::{self, Reporter, TaskState};

/// Result of a task.
#[derive(Clone, Debug)]
pub struct TaskSummary {
    /// Shards of the task.
    pub shards: usize,
    /// Those of them that earlier runs had finished.
    pub resumed_shards: usize,
    /// Shards of the dataset that are missing, as far as this task sees.
    pub missing: usize,
    /// Shards of the dataset.
    pub all_shards: usize,
    /// The dataset, where it is complete.
    pub dataset: Option<Summary>,
}

impl TaskSummary {
    fn of_complete(dataset: Summary) -> Self {
        let all_shards = dataset.manifest.shards.len();
        Self { shards: 0, resumed_shards: 0, missing: 0, all_shards, dataset: Some(dataset) }
    }
}

/// Makes the shards of a task. `plan` is called where this task has to plan: [`Source::plan`], and what the caller prints.
///
/// The dataset has the bytes of [`crate::run()`], whatever the number of tasks, their order, and how often each is run.
///
/// # Errors
/// As [`crate::run()`]; also where the dataset was begun with other options, another version or another number of tasks.
pub fn run_task(
    source: &dyn Source,
    raw: &Path,
    out: &Path,
    plan: &(dyn Fn() -> Result<Plan> + Sync),
    options: &Options,
    task: Task,
    progress: &OnProgress,
) -> Result<TaskSummary> {
    let storage = &Storage::at(out)?;
    let share = Share::Task(task);
    let sums = &CheckSums::load(raw, &options.check_sums)?;
    let common = Common { source: source.name(), raw, storage, options, sums, progress };
    let own_options = source.options();
    loop {
        let notes = NoteStore::shared(storage, Path::new(""));
        let published = PublishedPlan::read(&notes)?;
        if let Some(published) = &published {
            check_options(storage, &published.head, source.name(), options, &own_options, share)?;
        }
        if let Some(manifest) = Manifest::load_if_there(storage)? {
            return complete_already(&common, published, manifest, plan).map(TaskSummary::of_complete);
        }
        if published.is_none() {
            check_place(storage, &notes)?;
        }
        let session = Session::open(storage, options, share)?;
        let reporter = Reporter::new(share);
        let attempt = reporter.during(&session.notes, || {
            let outcome = common.pool(|| {
                let published = match PublishedPlan::read(&session.notes)? {
                    Some(published) => published,
                    None => match plan_or_wait(&common, &session, &reporter, plan, own_options.clone(), task)? {
                        Some(published) => published,
                        None => return Ok(None),
                    },
                };
                check_options(storage, &published.head, source.name(), options, &own_options, share)?;
                session.make_shards()?;
                share_of(&common, &session, &reporter, &published, share).map(Some)
            });
            match &outcome {
                Ok(Some(summary)) if summary.dataset.is_none() => reporter.set(TaskState::Done),
                Ok(_) => reporter.silence(),
                Err(error) => reporter.set(TaskState::Failed(error.to_string())),
            }
            outcome
        });
        let is_complete = || storage.read_if_there(MANIFEST).is_ok_and(|found| found.is_some());
        match attempt {
            Ok(Some(TaskSummary { dataset: Some(dataset), shards, resumed_shards, missing, all_shards })) => {
                session.end_complete(dataset.refused > 0)?;
                return Ok(TaskSummary { dataset: Some(dataset), shards, resumed_shards, missing, all_shards });
            }
            // Another task completed the dataset meanwhile and removed the notes; one that was written since is removed.
            _ if is_complete() => session.end(),
            Ok(None) => session.end(),
            Ok(Some(summary)) => {
                session.end();
                return Ok(summary);
            }
            Err(error) => {
                let is_planned = session.notes.read(HEAD).is_ok_and(|found| found.is_some());
                if is_planned {
                    session.end();
                } else {
                    let _ = session.notes.remove(&task_note::name(share));
                    session.end_without_plan();
                }
                return Err(error);
            }
        }
    }
}

/// The summary of a dataset that was complete before this task began. Its notes are removed if any are left.
fn complete_already(
    common: &Common,
    published: Option<PublishedPlan>,
    manifest: Manifest,
    plan: &(dyn Fn() -> Result<Plan> + Sync),
) -> Result<Summary> {
    let Common { source, raw, storage, options, sums, progress } = *common;
    let refused = refused::stored(storage)?;
    let (manifest, uncounted_rejects) = match published {
        Some(published) if deciding(&published.head.arguments).eq(deciding(&manifest.arguments)) => {
            check_whole(storage, &manifest)?;
            (manifest, published.head.uncounted_rejects)
        }
        // Whether it is of this input shows the plan alone.
        _ => {
            let prepared = PreparedPlan::of(source, raw, plan()?, options, sums, progress)?;
            let out = Output::of_task(storage, Path::new(""));
            match finished(raw, &out, &prepared.arguments, &prepared.plan)? {
                Prepared::Done(manifest) => (*manifest, prepared.uncounted_rejects),
                Prepared::Work(_) => (manifest, prepared.uncounted_rejects),
            }
        }
    };
    let has_notes = match storage.as_folder() {
        Some(folder) => folder.join(NOTES).exists(),
        None => !NoteStore::shared(storage, Path::new("")).names()?.is_empty(),
    };
    if refused == 0 && has_notes {
        // A lock that cannot be had is that of a process that removes the notes itself.
        if let Ok(session) = Session::open(storage, options, Share::All) {
            session.end_complete(false)?;
        }
    }
    Ok(Summary::of_complete(manifest, uncounted_rejects, refused))
}

/// An error where a place without a plan and a manifest has something else.
fn check_place(storage: &Storage, notes: &NoteStore) -> Result<()> {
    let refused = |message: &str| Err(Error::Output { path: storage.path(""), message: message.to_owned() });
    let names = notes.names()?;
    let is_named = |wanted: &str| names.iter().any(|name| name == wanted);
    if is_named("arguments.json") {
        return refused(
            "a run without --task began this dataset; continue it with the same command without --task, or take another OUT",
        );
    }
    let inner = format!("{NOTES}/");
    let others: Vec<_> = storage.list("")?;
    let others: Vec<_> =
        others.iter().map(|found| &found.name).filter(|name| *name != NOTES && !name.starts_with(&inner)).collect();
    match (others.as_slice(), storage.as_folder()) {
        ([], _) => Ok(()),
        (_, Some(_)) => refused("is neither empty nor a dataset; take another OUT"),
        (names, None) if names.iter().any(|name| name.starts_with("shards/")) => refused(
            "holds an unfinished dataset that a run without --task began; continue it with the same command without --task, \
             or take another OUT",
        ),
        (_, None) => refused("holds objects that are no part of a dataset; take another OUT"),
    }
}

/// Waits for the plan of another task, or makes it. `None` where the dataset was completed meanwhile.
fn plan_or_wait(
    common: &Common,
    session: &Session,
    reporter: &Reporter,
    plan: &(dyn Fn() -> Result<Plan> + Sync),
    source_options: crate::run::changed_options::Arguments,
    task: Task,
) -> Result<Option<PublishedPlan>> {
    let Common { source, raw, storage, options, sums, progress } = *common;
    let (notes, private) = (&session.notes, session.work.path());
    let maker = private.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if claim::has_to_plan(notes, &maker, &task_note::host(), progress)? {
        if storage.read_if_there(MANIFEST)?.is_some() {
            return Ok(None);
        }
        reporter.set(TaskState::Planning);
        claim::while_claimed(notes, &maker, &task_note::host(), || {
            // A run alone may have begun since this session did.
            store_lock::check_free(storage)?;
            let prepared = PreparedPlan::of(source, raw, plan()?, options, sums, progress)?;
            let made = tokenizer_of(raw, private, &prepared.plan, options, sums, progress)?;
            let written = private.join(TOKENIZER);
            let tokenizer_sha256 = made.is_some().then(|| files::sha256(&written)).transpose()?;
            if PublishedPlan::read(notes)?.is_some() {
                // Another task took over a claim that did not change for too long, and was faster.
                return Ok(());
            }
            if tokenizer_sha256.is_some() {
                let stamps =
                    format!("{}.{STAMPS}", Path::new(TOKENIZER).file_stem().unwrap_or_default().to_string_lossy());
                notes.take(&private.join(NOTES).join(&stamps), &stamps)?;
                notes.take(&written, TOKENIZER)?;
            }
            let planned = Planned {
                tasks: task.tasks,
                plan: &prepared.plan,
                arguments: &prepared.arguments,
                source_options,
                uncounted_rejects: prepared.uncounted_rejects,
                rows_per_shard: options.rows_per_shard,
                tokenizer_sha256,
            };
            planned.publish(notes, private)
        })?;
        reporter.set(TaskState::Waiting);
    }
    PublishedPlan::read(notes)
}

/// Makes the shards of a share, and completes the dataset where no shard is missing then.
fn share_of(
    common: &Common,
    session: &Session,
    reporter: &Reporter,
    published: &PublishedPlan,
    share: Share,
) -> Result<TaskSummary> {
    let Common { raw, storage, options, sums, progress, .. } = *common;
    let indices = share.shards(published.shards());
    let plan = published.part(&session.notes, &indices)?;
    check_inputs(common, session, &indices, share, plan.path_names)?;
    let out = Output::of_task(storage, session.work.path());
    let tokenizer = published.fetch_tokenizer(&session.notes, session.work.path())?;
    let tokenizer = tokenizer.map(|path| tokenizer::load(&path)).transpose()?;
    let shards = indices.len();
    let report = |step: Progress| {
        reporter.step(step);
        progress(step)
    };
    let job = Job {
        raw,
        out: &out,
        notes: &session.notes,
        plan: &plan,
        plan_id: &published.id,
        indices,
        options,
        sums,
        tables: &ImageTables::default(),
        tokenizer: tokenizer.as_ref(),
        progress: &report,
    };
    let (_, resumed_shards) = job.shards()?;
    drop(plan);
    let found = complete::found(&session.notes, storage, published)?;
    let missing = found.missing.len();
    let dataset =
        (missing == 0).then(|| complete::write(common, session, published, found, resumed_shards)).transpose()?;
    Ok(TaskSummary { shards, resumed_shards, missing, all_shards: published.shards(), dataset })
}

/// An error where an input of a finished shard of this share changed since it was read.
fn check_inputs(common: &Common, session: &Session, indices: &[usize], share: Share, paths: PathNames) -> Result<()> {
    let notes = &session.notes;
    let known = notes.names()?;
    let is_known = |name: &String| known.binary_search(name).is_ok();
    let shards = indices.iter().filter(|index| is_known(&note_name(**index))).map(|index| stamps_name(*index));
    // The tokenizer's inputs are all reports: tasks leave them to a run alone.
    let tokenizer = (share == Share::All).then(|| format!("tokenizer.{STAMPS}"));
    let names = shards.chain(tokenizer).filter(is_known);
    let read = |name: String| -> Option<Result<(PathBuf, String)>> {
        let text = notes.read(&name).transpose()?;
        Some(text.map(|text| (notes.path(&name), String::from_utf8_lossy(&text).into_owned())))
    };
    let changed = hashing_reader::changed(common.raw, names.filter_map(read))?;
    if changed.is_empty() {
        return Ok(());
    }
    let changed: Vec<String> = changed.iter().map(|path| paths.stored(path)).collect();
    let message = format!(
        "holds an unfinished dataset, and {} changed since it was read; restore the input, or take another OUT",
        hashing_reader::count_and_names(&changed, "file")
    );
    Err(Error::Output { path: common.storage.path(""), message })
}

/// Continues a dataset that tasks began, with a plan of this process, and makes all shards that are missing. `None` where no
/// tasks began one, or it is complete and nothing is to be retried.
///
/// # Errors
/// As [`run_task`]; also where the input changed.
pub fn continue_alone(
    source: &str,
    raw: &Path,
    out: &Path,
    prepared: &PreparedPlan,
    options: &Options,
    sums: &CheckSums,
    progress: &OnProgress,
) -> Result<Option<Summary>> {
    let storage = &Storage::at(out)?;
    let notes = NoteStore::shared(storage, Path::new(""));
    let Some(published) = PublishedPlan::read(&notes)? else { return Ok(None) };
    let manifest = storage.read_if_there(MANIFEST)?;
    if manifest.is_some() && !options.retry_rejects {
        return Ok(None);
    }
    let refused = |message: String| Err(Error::Output { path: storage.path(""), message });
    let before = &published.head.arguments;
    if !deciding(before).eq(deciding(&prepared.arguments)) {
        return refused(match changed(before, &prepared.arguments).as_slice() {
            [] => "holds an unfinished dataset that tasks began, and its input changed since; restore the input, take another \
                   OUT or --overwrite"
                .to_owned(),
            options => format!(
                "holds an unfinished dataset of another run: {}; use the same command, another OUT or --overwrite",
                options.join("; ")
            ),
        });
    }
    let session = Session::open(storage, options, Share::All)?;
    let common = Common { source, raw, storage, options, sums, progress };
    let reporter = Reporter::new(Share::All);
    if manifest.is_some() {
        let noted = complete::found(&session.notes, storage, &published)?;
        let mut rejects = noted.notes.iter().flat_map(|note| &note.rejects).filter(|reject| reject.is_refused());
        let tables = ImageTables::default();
        if !rejects.any(|reject| reads_now(raw, &prepared.plan, sums, &tables, reject)) {
            session.end();
            return Ok(None);
        }
        // No manifest may name shards of other bytes.
        storage.remove(&[MANIFEST])?;
        storage.as_folder().map_or(Ok(()), files::sync_folder)?;
    }
    let outcome = reporter.during(&session.notes, || {
        let outcome = common.pool(|| {
            session.make_shards()?;
            share_of(&common, &session, &reporter, &published, Share::All)
        });
        match &outcome {
            Ok(_) => reporter.silence(),
            Err(error) => reporter.set(TaskState::Failed(error.to_string())),
        }
        outcome
    });
    match outcome {
        Ok(TaskSummary { dataset: Some(dataset), .. }) => {
            session.end_complete(dataset.refused > 0)?;
            Ok(Some(dataset))
        }
        Ok(TaskSummary { missing, .. }) => {
            session.end();
            refused(format!("{missing} shards are not visible, although all were written; give --finish later"))
        }
        Err(error) => {
            session.end();
            Err(error)
        }
    }
}
