//! The end of a dataset that tasks made: which shards are there, and the manifest.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use dataset::Storage;
use dataset::format::manifest::Manifest;
use dataset::progress::OnProgress;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::report::tokenizer;
use crate::run::changed_options::{Arguments, changed};
use crate::run::check_sums::CheckSums;
use crate::run::guards::Guards;
use crate::run::image_tables::ImageTables;
use crate::run::job::Job;
use crate::run::note_store::NoteStore;
use crate::run::notes::{ShardNote, note_name};
use crate::run::options::Options;
use crate::run::output::{Output, check_whole};
use crate::run::plan::Source;
use crate::run::prepared_plan::arguments;
use crate::run::refused;
use crate::run::summary::Summary;
use crate::run::tasks::published_plan::{Head, PublishedPlan};
use crate::run::tasks::session::Session;
use crate::run::tasks::task::Share;

/// Numbers of missing shards that a message lists for each task.
const SHOWN: usize = 8;

/// What all steps of a task work with.
#[derive(Clone, Copy)]
pub struct Common<'a> {
    pub source: &'a str,
    pub raw: &'a Path,
    pub storage: &'a Storage,
    pub options: &'a Options,
    pub sums: &'a CheckSums,
    pub progress: &'a OnProgress<'a>,
}

impl Common<'_> {
    /// Does some work with the threads of the options.
    pub fn pool<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.options.jobs).build();
        pool.map_err(|error| Error::Output { path: self.storage.path(""), message: error.to_string() })?.install(work)
    }
}

/// An error where a plan was made with other options, or for another number of tasks.
pub fn check_options(
    storage: &Storage,
    head: &Head,
    source: &str,
    options: &Options,
    source_options: &Arguments,
    share: Share,
) -> Result<()> {
    let refused = |message: String| Err(Error::Output { path: storage.path(""), message });
    let now = arguments(source, options)?;
    let before: Arguments = head
        .arguments
        .iter()
        .filter(|(name, _)| now.contains_key(*name))
        .map(|(a, b)| (a.clone(), b.clone()))
        .collect();
    let mut differing = changed(&before, &now);
    differing.extend(changed(&head.source_options, source_options));
    if !differing.is_empty() {
        return refused(format!(
            "holds a dataset of another run: {}; use the same command, or take another OUT",
            differing.join("; ")
        ));
    }
    match share {
        Share::Task(task) if task.tasks != head.tasks => refused(format!(
            "was begun with {} tasks, and this is task {task}; give --task I/{}, or complete it with the same command without \
             --task",
            head.tasks, head.tasks
        )),
        _ => Ok(()),
    }
}

/// The shards of a dataset, as one process sees them.
pub struct Found {
    /// The notes of finished shards, in their order.
    pub notes: Vec<ShardNote>,
    /// The numbers of the others.
    pub missing: Vec<usize>,
}

/// Finds the finished shards: those that have a note of this plan, and the size that it states.
pub fn found(notes: &NoteStore, storage: &Storage, published: &PublishedPlan) -> Result<Found> {
    let names = notes.names()?;
    let sizes: HashMap<String, u64> =
        storage.list("shards")?.into_iter().map(|listed| (listed.name, listed.bytes)).collect();
    let read = |index: usize| -> Result<Option<ShardNote>> {
        let name = note_name(index);
        if names.binary_search(&name).is_err() {
            return Ok(None);
        }
        let note = notes.read(&name)?.and_then(|text| serde_json::from_slice::<ShardNote>(&text).ok());
        Ok(note.filter(|note| note.plan == published.id && sizes.get(&note.info.path) == Some(&note.info.bytes)))
    };
    let read: Vec<Option<ShardNote>> = (0..published.shards()).into_par_iter().map(read).collect::<Result<_>>()?;
    let missing = (0..read.len()).filter(|index| read[*index].is_none()).collect();
    Ok(Found { notes: read.into_iter().flatten().collect(), missing })
}

/// Writes the manifest of a dataset whose shards are all there, and what belongs to it. The notes stay.
pub fn write(
    common: &Common,
    session: &Session,
    published: &PublishedPlan,
    found: Found,
    resumed_shards: usize,
) -> Result<Summary> {
    let Common { source, raw, storage, options, sums, progress } = *common;
    let plan = published.whole(&session.notes)?;
    let out = Output::of_task(storage, session.work.path());
    let tokenizer = published.fetch_tokenizer(&session.notes, session.work.path())?;
    let tokenizer = tokenizer.map(|path| tokenizer::load(&path)).transpose()?;
    let job = Job {
        raw,
        out: &out,
        notes: &session.notes,
        plan: &plan,
        plan_id: &published.id,
        indices: Share::All.shards(published.shards()),
        options,
        sums,
        tables: &ImageTables::default(),
        tokenizer: tokenizer.as_ref(),
        progress,
    };
    let manifest = job.finish(source, &published.head.arguments, &found.notes)?;
    let in_plan = plan.rejects.iter().filter(|reject| reject.is_refused()).count() as u64;
    Ok(Summary {
        manifest,
        already_done: false,
        resumed_shards,
        uncounted_rejects: published.head.uncounted_rejects,
        refused: refused::count(&found.notes) + in_plan,
        unknown_views: found.notes.iter().map(|note| note.unknown_views).sum(),
        guards: Guards::sum(found.notes.iter().map(|note| &note.guards)),
        checked: sums.outcome(&plan, &found.notes, options.no_images),
    })
}

/// Completes a dataset whose shards were all made by tasks.
///
/// # Errors
/// When shards are missing: the message says which, and by which tasks. When no tasks began the dataset, or with other options.
pub fn finish(source: &dyn Source, raw: &Path, out: &Path, options: &Options) -> Result<Summary> {
    let storage = &Storage::at(out)?;
    let sums = &CheckSums::load(raw, &options.check_sums)?;
    let common = Common { source: source.name(), raw, storage, options, sums, progress: &|_| Ok(()) };
    let refused = |message: String| Error::Output { path: storage.path(""), message };
    let reader = NoteStore::shared(storage, Path::new(""));
    let manifest = Manifest::load_if_there(storage)?;
    let Some(published) = PublishedPlan::read(&reader)? else {
        return match manifest {
            Some(manifest) => done(common, manifest, 0),
            None => Err(refused("no tasks have begun a dataset here; give --task I/N first".to_owned())),
        };
    };
    check_options(storage, &published.head, source.name(), options, &source.options(), Share::All)?;
    if let Some(manifest) = manifest {
        return done(common, manifest, published.head.uncounted_rejects);
    }
    let found = match common.pool(|| found(&reader, storage, &published)) {
        Ok(found) if found.missing.is_empty() => found,
        incomplete => {
            // Another process may have completed the dataset meanwhile, and removed the notes after it wrote the manifest.
            if let Some(manifest) = Manifest::load_if_there(storage)? {
                return done(common, manifest, published.head.uncounted_rejects);
            }
            return Err(refused(missing(&incomplete?.missing, published.shards(), published.head.tasks)));
        }
    };
    // Tasks that are still at work, such as one that was started twice, keep the lock that all tasks hold together.
    let together = Share::Task(crate::run::tasks::task::Task { index: 0, tasks: published.head.tasks });
    let session = Session::open(storage, options, together)?;
    let outcome = common.pool(|| write(&common, &session, &published, found, 0));
    match outcome {
        Ok(summary) => {
            session.end_complete(summary.refused > 0)?;
            Ok(summary)
        }
        Err(error) => {
            session.end();
            // Another task completed it meanwhile.
            match Manifest::load_if_there(storage)? {
                Some(manifest) => done(common, manifest, published.head.uncounted_rejects),
                None => Err(error),
            }
        }
    }
}

/// The summary of a dataset that is complete.
fn done(common: Common, manifest: Manifest, uncounted_rejects: u64) -> Result<Summary> {
    let now = arguments(common.source, common.options)?;
    let before: Arguments = manifest.arguments.clone().into_iter().filter(|(name, _)| now.contains_key(name)).collect();
    let differing = changed(&before, &now);
    if !differing.is_empty() {
        let message = format!("holds another dataset: {}; take another OUT", differing.join("; "));
        return Err(Error::Output { path: common.storage.path(""), message });
    }
    check_whole(common.storage, &manifest)?;
    let refused = refused::stored(common.storage)?;
    Ok(Summary::of_complete(manifest, uncounted_rejects, refused))
}

/// Which shards are missing, by task.
fn missing(shards: &[usize], all: usize, tasks: usize) -> String {
    let mut by_task: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for shard in shards {
        by_task.entry(shard % tasks).or_default().push(shard.to_string());
    }
    let one = |(task, shards): (&usize, &Vec<String>)| {
        let rest = if shards.len() > SHOWN { format!(" and {} more", shards.len() - SHOWN) } else { String::new() };
        let few = shards.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        format!("{few}{rest} (task {task}/{tasks})")
    };
    let by_task: Vec<String> = by_task.iter().map(one).collect();
    format!(
        "{} of {all} shards are missing: {}; run these tasks again, or the same command without --task",
        shards.len(),
        by_task.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_shards_are_listed_by_task() {
        assert_eq!(
            missing(&[1, 2, 5], 7, 4),
            "3 of 7 shards are missing: 1, 5 (task 1/4), 2 (task 2/4); run these tasks again, or the same command without \
             --task"
        );
        let all: Vec<usize> = (0..30).collect();
        assert!(missing(&all, 30, 1).contains("5, 6, 7 and 22 more (task 0/1)"));
    }
}
