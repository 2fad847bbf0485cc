//! What all steps of a run work with: the plan, the options, and where the dataset goes.

use std::path::Path;

use dataset::progress::OnProgress;
use tokenizers::Tokenizer;

use crate::dicom::limits::MAX_FILE_BYTES;
use crate::file_system::is_refusal;
use crate::reject::{Reject, Stage};
use crate::report::read::{NoReport, read_report};
use crate::run::check_sums::CheckSums;
use crate::run::hashing_reader::{self, Damaged, Stamp, Stamps};
use crate::run::image_tables::ImageTables;
use crate::run::note_store::NoteStore;
use crate::run::options::Options;
use crate::run::output::Output;
use crate::run::plan::{MaskSource, Plan};
use crate::run::source_digest::SourceDigest;

/// A run whose output is claimed and whose tokenizer is ready. `shards` writes the shards, `finish` the manifest.
pub struct Job<'a> {
    pub raw: &'a Path,
    pub out: &'a Output,
    pub notes: &'a NoteStore,
    /// The records of `indices`; for `finish`, those of all shards.
    pub plan: &'a Plan,
    /// Identifies the plan that tasks share; empty in a run alone.
    pub plan_id: &'a str,
    /// The numbers of the shards that this process makes, in ascending order.
    pub indices: Vec<usize>,
    pub options: &'a Options,
    /// The published checksums that inputs are compared with.
    pub sums: &'a CheckSums,
    /// The tables that have images.
    pub tables: &'a ImageTables,
    pub tokenizer: Option<&'a Tokenizer>,
    pub progress: &'a OnProgress<'a>,
}

/// Whether an input that the system refused to read before, or whose checksum differed, can be read now.
pub fn reads_now(raw: &Path, plan: &Plan, sums: &CheckSums, tables: &ImageTables, reject: &Reject) -> bool {
    let Some(id) = &reject.record_id else { return false };
    let Ok(at) = plan.records.binary_search_by(|record| record.record_id.cmp(id)) else { return false };
    let planned = &plan.records[at];
    if reject.stage == Stage::Report {
        !matches!(read_report(raw, plan, planned, sums, &mut Stamps::new()), Err(NoReport::Refused { .. }))
    } else {
        let masks = planned.masks.iter().filter_map(|mask| match &mask.pixels {
            MaskSource::File(path) => Some(path.as_path()),
            MaskSource::Runs(_) => None,
        });
        let is_read = |read: std::io::Result<Stamp>| {
            !read.is_err_and(|error| is_refusal(&error) || Damaged::of(&error).is_some())
        };
        let can_read = |path: &Path| {
            let hashing = sums.hashing(SourceDigest::default(), path);
            is_read(hashing_reader::stamp(&raw.join(path), MAX_FILE_BYTES, hashing))
        };
        let has_image = match &planned.image_row {
            Some(row) => is_read(hashing_reader::read_row(tables, raw, row, SourceDigest::default(), &mut Vec::new())),
            None => can_read(Path::new(&planned.source_path)),
        };
        has_image && masks.into_iter().all(can_read)
    }
}
