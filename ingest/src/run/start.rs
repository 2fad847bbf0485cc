//! A run from its plan to its manifest.

use std::path::Path;

use dataset::progress::OnProgress;

use crate::error::{Error, Result};
use crate::reject::Reject;
use crate::report::read::tokenizer_of;
use crate::run::check_sums::CheckSums;
use crate::run::guards::Guards;
use crate::run::image_tables::ImageTables;
use crate::run::job::{Job, reads_now};
use crate::run::keys::NOTES;
use crate::run::note_store::NoteStore;
use crate::run::options::Options;
use crate::run::output::{Existing, Output, Prepared, prepare};
use crate::run::plan::Plan;
use crate::run::prepared_plan::PreparedPlan;
use crate::run::refused;
use crate::run::summary::Summary;
use crate::run::tasks::{self, Share};

/// Ingests a plan into `out`, a folder or the URL of a place in an object store.
///
/// The bytes of the dataset depend on the plan and the options, not on the number of jobs. After a kill, or a cancellation by
/// `progress`, the same call continues behind the last finished shard; it also completes a dataset that tasks began.
///
/// # Errors
/// When `out` holds something else, another run works on it, the disk is full, the tokenizer fails, a record of the plan
/// has another number of labels than there are findings, or `progress` cancels. Inputs that cannot be used are no errors: they become
/// rejects.
pub fn run(
    source: &str,
    raw: &Path,
    out: &Path,
    plan: Plan,
    options: &Options,
    progress: &OnProgress,
) -> Result<Summary> {
    let sums = &CheckSums::load(raw, &options.check_sums)?;
    let prepared = PreparedPlan::of(source, raw, plan, options, sums, progress)?;
    if !options.overwrite
        && let Some(summary) = tasks::continue_alone(source, raw, out, &prepared, options, sums, progress)?
    {
        return Ok(summary);
    }
    let PreparedPlan { plan, arguments, uncounted_rejects } = prepared;
    let out = &Output::at(out, options.staging.as_deref())?;
    let notes = out.folder.join(NOTES);
    let tables = &ImageTables::default();
    let can_retry = || -> Result<bool> {
        Ok(refused::noted(&notes)?.iter().any(|reject| reads_now(raw, &plan, sums, tables, reject)))
    };
    let existing = match options {
        Options { overwrite: true, .. } => Existing::Replace,
        Options { retry_rejects: true, .. } => Existing::ContinueIf(&can_retry),
        _ => Existing::Keep,
    };
    let _lock = match prepare(raw, out, &arguments, &plan, &existing, options.break_lock)? {
        Prepared::Done(manifest) => {
            let refused = refused::stored(&out.storage)?;
            if options.retry_rejects && refused > 0 && refused::noted(&notes)?.is_empty() {
                let message = format!(
                    "--retry-rejects needs the notes of the run, and {} has none; take another OUT or --overwrite",
                    notes.display()
                );
                return Err(Error::Output { path: out.storage.path(""), message });
            }
            return Ok(Summary::of_complete(*manifest, uncounted_rejects, refused));
        }
        Prepared::Work(lock) => lock,
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.jobs)
        .build()
        .map_err(|error| Error::Threads(error.to_string()))?;
    let work = || {
        let tokenizer = tokenizer_of(raw, &out.folder, &plan, options, sums, progress)?;
        let store = &NoteStore::own(&out.folder);
        let indices = Share::All.shards(plan.records.len().div_ceil(options.rows_per_shard));
        let tokenizer = tokenizer.as_ref();
        let job = Job {
            raw,
            out,
            notes: store,
            plan: &plan,
            plan_id: "",
            indices,
            options,
            sums,
            tables,
            tokenizer,
            progress,
        };
        let (notes, resumed_shards) = job.shards()?;
        let manifest = job.finish(source, &arguments, &notes)?;
        let refused = refused::count(&notes);
        // `--retry-rejects` needs the notes.
        if refused == 0 && !plan.rejects.iter().any(Reject::is_refused) {
            out.remove_notes()?;
        }
        let unknown_views = notes.iter().map(|note| note.unknown_views).sum();
        let checked = sums.outcome(&plan, &notes, options.no_images);
        let guards = Guards::sum(notes.iter().map(|note| &note.guards));
        Ok(Summary {
            manifest,
            already_done: false,
            resumed_shards,
            uncounted_rejects,
            refused,
            unknown_views,
            guards,
            checked,
        })
    };
    let outcome = pool.install(work);
    if let Err(Error::Dataset(dataset::Error::Store { .. })) = &outcome {
        out.leave_lock();
    }
    outcome
}
