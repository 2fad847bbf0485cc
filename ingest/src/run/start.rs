//! A run from its plan to its manifest.

use std::collections::BTreeMap;
use std::path::Path;

use dataset::commands::progress::Progress;
use dataset::format::manifest::Manifest;
use dataset::store::files;

use crate::error::{Error, Result};
use crate::reject::{Reject, Stage};
use crate::report::read::tokenizer_of;
use crate::run::job::{Job, reads_now};
use crate::run::keys::{INPUT, NOTED, NOTES};
use crate::run::options::{Options, TokenizerChoice};
use crate::run::output::{Existing, Output, Prepared, prepare};
use crate::run::plan::Plan;
use crate::run::preview;
use crate::run::refused;

/// Result of a run.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The manifest of the dataset.
    pub manifest: Manifest,
    /// The dataset was complete before this run, from the same input; nothing was written.
    pub already_done: bool,
    /// Shards that an earlier run had finished.
    pub resumed_shards: usize,
    /// Rejects of the plan that do not count in [`Summary::reject_rate`], because [`Options::limit`] took only a part of
    /// its records.
    pub uncounted_rejects: u64,
    /// Rejects that the system refused to read: [`Options::retry_rejects`] tries them again.
    pub refused: u64,
    /// Records without a view because the ViewPosition of their DICOM header is no view code.
    pub unknown_views: u64,
}

impl Summary {
    /// Share of the inputs that were rejected, 0..1. Rejects of stage `report` do not count: their images are kept.
    pub fn reject_rate(&self) -> f64 {
        let is_lost = |(stage, _): &(&String, &u64)| stage.as_str() != Stage::Report.name();
        let rejected: u64 = self.manifest.rejects.iter().filter(is_lost).map(|(_, count)| count).sum();
        let rejected = rejected.saturating_sub(self.uncounted_rejects);
        rejected as f64 / (self.manifest.totals.records + rejected).max(1) as f64
    }
}

/// Ingests a plan into `out`, a folder or the URL of a place in an object store.
///
/// The bytes of the dataset depend on the plan and the options, not on the number of jobs. After a kill, the same call
/// continues behind the last finished shard. `progress` may be called from any thread.
///
/// # Errors
/// When `out` holds something else, another run works on it, the disk is full, the tokenizer fails, or a record of the
/// plan has another number of labels than there are findings. Inputs that cannot be used are no errors: they become
/// rejects.
pub fn run(
    source: &str,
    raw: &Path,
    out: &Path,
    mut plan: Plan,
    options: &Options,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Summary> {
    if plan.records.is_empty() {
        return Err(preview::empty(source, raw, &plan));
    }
    options.check()?;
    plan.finalize();
    plan.check()?;
    let mut uncounted_rejects = 0;
    if let Some(limit) = options.limit.filter(|limit| *limit < plan.records.len()) {
        plan.records.truncate(limit);
        // The rejects are those of the whole set, the records a part of it.
        uncounted_rejects = plan.rejects.iter().filter(|reject| reject.stage != Stage::Report).count() as u64;
    }
    let mut arguments = arguments(source, options)?;
    arguments.extend(std::mem::take(&mut plan.arguments));
    arguments.insert(INPUT.to_owned(), plan.sha256().into());
    if plan.path_names.hashed {
        arguments.insert("hash_paths".to_owned(), true.into());
    }
    if !plan.noted_options.is_empty() {
        arguments.insert(NOTED.to_owned(), std::mem::take(&mut plan.noted_options).into_iter().collect());
    }
    let out = &Output::at(out, options.staging.as_deref())?;
    let notes = out.folder.join(NOTES);
    let can_retry =
        || -> Result<bool> { Ok(refused::noted(&notes)?.iter().any(|reject| reads_now(raw, &plan, reject))) };
    let existing = match options {
        Options { overwrite: true, .. } => Existing::Replace,
        Options { retry_rejects: true, .. } => Existing::ContinueIf(&can_retry),
        _ => Existing::Keep,
    };
    let _lock = match prepare(raw, out, &arguments, &plan, &existing)? {
        Prepared::Done(manifest) => {
            let refused = refused::stored(&out.storage)?;
            if options.retry_rejects && refused > 0 && refused::noted(&notes)?.is_empty() {
                let message = format!(
                    "--retry-rejects needs the notes of the run, and {} has none; take another OUT or --overwrite",
                    notes.display()
                );
                return Err(Error::Output { path: out.storage.path(""), message });
            }
            return Ok(Summary {
                manifest: *manifest,
                already_done: true,
                resumed_shards: 0,
                uncounted_rejects,
                refused,
                unknown_views: 0,
            });
        }
        Prepared::Work(lock) => lock,
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.jobs)
        .build()
        .map_err(|e| Error::Output { path: out.storage.path(""), message: e.to_string() })?;
    pool.install(|| {
        let tokenizer = tokenizer_of(raw, &out.folder, &plan, options)?;
        let job = Job { raw, out, plan: &plan, options, tokenizer: tokenizer.as_ref(), progress };
        let (notes, resumed_shards) = job.shards()?;
        let manifest = job.finish(source, &arguments, &notes)?;
        let is_refused = |reject: &&Reject| reject.is_refused();
        let refused = notes.iter().flat_map(|note| &note.rejects).filter(is_refused).count() as u64;
        let unknown_views = notes.iter().map(|note| note.unknown_views).sum();
        Ok(Summary { manifest, already_done: false, resumed_shards, uncounted_rejects, refused, unknown_views })
    })
}

/// The arguments that decide the bytes, as the manifest stores them.
fn arguments(source: &str, options: &Options) -> Result<BTreeMap<String, serde_json::Value>> {
    let tokenizer = match &options.tokenizer {
        TokenizerChoice::None => serde_json::Value::Null,
        TokenizerChoice::Train(vocabulary) => format!("train {vocabulary}").into(),
        TokenizerChoice::File(path) => files::sha256(path)?.into(),
    };
    Ok(BTreeMap::from([
        ("source".to_owned(), source.into()),
        ("size".to_owned(), options.size.into()),
        ("resize".to_owned(), options.resize.name().into()),
        ("image_encoding".to_owned(), options.encoding.name().into()),
        ("compression".to_owned(), options.compression.name().into()),
        ("intensity".to_owned(), options.intensity.name().into()),
        ("tokenizer".to_owned(), tokenizer),
        ("max_tokens".to_owned(), options.max_tokens.into()),
        ("report_text".to_owned(), options.report_text.name().into()),
        ("rows_per_shard".to_owned(), options.rows_per_shard.into()),
        ("no_images".to_owned(), options.no_images.into()),
        ("limit".to_owned(), options.limit.map_or(serde_json::Value::Null, Into::into)),
    ]))
}
