//! The shards of a run.
//!
//! Records are taken in blocks: all jobs decode one block while the block before it is written. A shard gets its final
//! name when it is complete; a note beside it (`.ingest/part-00000.json`) holds what the manifest needs of it.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::thread::ScopedJoinHandle;

use dataset::format::manifest;
use dataset::format::pixel_sums::PixelSums;
use dataset::format::record::Record;
use dataset::format::schema::schema;
use dataset::format::shard::ShardWriter;
use dataset::progress::Progress;

use crate::error::{Error, Result};
use crate::image::pipeline::Scratch;
use crate::reject::{Reject, Stage};
use crate::run::guards::Guards;
use crate::run::hashing_reader::{self, Stamps};
use crate::run::image_tables::in_order_of_rows;
use crate::run::job::{Job, reads_now};
use crate::run::notes::{ShardNote, note_name, stamps_name};
use crate::run::plan::PlannedRecord;
use crate::run::record::FinishedRecord;

/// Records of a block for each job. Several keep every job busy, although records take different times.
const BLOCK_PER_JOB: usize = 32;

/// Bytes of the images of a block for each job, estimated from the stored size.
const BLOCK_BYTES_PER_JOB: usize = 64 << 20;

thread_local! {
    /// Buffers of each decoding thread.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Job<'_> {
    /// Writes the shards that are missing. Returns the notes of all shards, and how many of them an earlier run wrote. With
    /// an object store, one shard is uploaded while the next one is written, so at most two are on this machine.
    pub fn shards(&self) -> Result<(Vec<ShardNote>, usize)> {
        // Only the last shard of a dataset has fewer records than the others.
        let chunks: Vec<&[PlannedRecord]> = self.plan.records.chunks(self.options.rows_per_shard).collect();
        let uploaded: HashMap<String, u64> = if self.out.is_staged() {
            self.out.storage.list("shards")?.into_iter().map(|listed| (listed.name, listed.bytes)).collect()
        } else {
            HashMap::new()
        };
        let known: HashSet<String> = self.notes.names()?.into_iter().collect();
        let mut notes: Vec<Option<ShardNote>> =
            self.indices.iter().map(|index| self.finished_shard(*index, &known, &uploaded)).collect();
        let resumed = notes.iter().flatten().count();
        let done =
            notes.iter().zip(&chunks).filter(|(note, _)| note.is_some()).map(|(_, chunk)| chunk.len() as u64).sum();
        (self.progress)(Progress::Started { records: self.plan.records.len() as u64, done })?;
        for note in notes.iter().flatten() {
            // The earlier run was stopped before it uploaded this shard, or before it removed the local copy.
            let path = self.out.folder.join(&note.info.path);
            if self.out.is_staged() && path.try_exists().map_err(Error::io(&path))? {
                self.out.send(&note.info.path)?;
            }
        }
        let out = self.out;
        let join = |upload: ScopedJoinHandle<Result<()>>| {
            upload.join().unwrap_or_else(|panic| {
                let message = format!("the upload stopped: {}", dataset::error::panic_text(panic.as_ref()));
                Err(Error::Output { path: out.storage.path("shards"), message })
            })
        };
        std::thread::scope(|scope| {
            let mut upload = None;
            for (at, (index, chunk)) in self.indices.iter().copied().zip(&chunks).enumerate() {
                if notes[at].is_none() {
                    let note = self.shard(index, chunk)?;
                    upload.take().map_or(Ok(()), join)?;
                    let (name, sent) = (note.info.path.clone(), note.clone());
                    if out.is_shared() {
                        // Other tasks count the note, so it comes last.
                        upload = Some(scope.spawn(move || {
                            out.send(&name)?;
                            self.notes.write_json(&note_name(index), &sent)
                        }));
                    } else {
                        // With the note, a run that continues sends a shard that is still on this machine.
                        self.notes.write_json(&note_name(index), &sent)?;
                        upload = Some(scope.spawn(move || out.send(&name)));
                    }
                    notes[at] = Some(note);
                }
            }
            upload.map_or(Ok(()), join)
        })?;
        Ok((notes.into_iter().flatten().collect(), resumed))
    }

    /// The note of a shard that an earlier run finished; `known` are the names of all notes, `uploaded` the sizes of the shards in the object store. `None`
    /// where the shard must be written (again): it is missing or incomplete, or an input that could not be read then can
    /// be read now.
    fn finished_shard(
        &self,
        index: usize,
        known: &HashSet<String>,
        uploaded: &HashMap<String, u64>,
    ) -> Option<ShardNote> {
        if !known.contains(&note_name(index)) {
            return None;
        }
        let note: ShardNote = serde_json::from_slice(&self.notes.read(&note_name(index)).ok()??).ok()?;
        let is_here =
            || fs::metadata(self.out.folder.join(&note.info.path)).is_ok_and(|file| file.len() == note.info.bytes);
        let is_complete = uploaded.get(&note.info.path) == Some(&note.info.bytes) || is_here();
        let refused = |reject: &&Reject| reject.is_refused();
        let can_retry = || {
            note.rejects
                .iter()
                .filter(refused)
                .any(|reject| reads_now(self.raw, self.plan, self.sums, self.tables, reject))
        };
        (note.plan == self.plan_id && is_complete && !can_retry()).then_some(note)
    }

    fn shard(&self, index: usize, chunk: &[PlannedRecord]) -> Result<ShardNote> {
        let relative = manifest::shard_path(index);
        // A note of an earlier shard of this name would be taken for the note of this one.
        self.notes.remove(&note_name(index))?;
        let mut writer = ShardWriter::create(
            &self.out.folder.join(&relative),
            schema(&self.plan.findings, &self.plan.grades, self.options.stored_encoding()),
            self.options.compression,
        )?;
        let (mut rejects, mut reports, mut pixels) = (Vec::new(), 0, PixelSums::default());
        let (mut unknown_views, mut guards) = (0, Guards::default());
        let mut seen = Stamps::new();
        let mut decoded: Vec<Record> = Vec::new();
        let side = self.options.size as usize;
        let bytes = side * side * usize::from(self.options.stored_encoding().bits() / 8);
        let per_job = (BLOCK_BYTES_PER_JOB / bytes.max(1)).clamp(1, BLOCK_PER_JOB);
        for block in chunk.chunks(per_job * rayon::current_num_threads()) {
            let (written, outcomes) = rayon::join(|| writer.write(&decoded), || self.decode(block));
            written?;
            decoded.clear();
            for (stamps, outcome) in outcomes {
                seen.extend(stamps);
                match outcome {
                    Ok(finished) => {
                        reports += u64::from(finished.record.report.is_some());
                        pixels.add(finished.pixels);
                        unknown_views += u64::from(finished.has_unknown_view);
                        guards.add(finished.guards);
                        rejects.extend(finished.reject);
                        decoded.push(finished.record);
                    }
                    Err(reject) => rejects.push(reject),
                }
            }
            (self.progress)(Progress::Advanced(block.len() as u64))?;
        }
        writer.write(&decoded)?;
        // The stamps are written before the shard gets its final name.
        self.notes.write(&stamps_name(index), hashing_reader::text(&seen).as_bytes())?;
        let (info, plan) = (writer.finish(&relative)?, self.plan_id.to_owned());
        Ok(ShardNote { info, rejects, reports, pixels, unknown_views, guards, plan })
    }

    /// Decodes the records of a block; returns each with the stamps of its files.
    fn decode(&self, block: &[PlannedRecord]) -> Vec<(Stamps, Result<FinishedRecord, Reject>)> {
        in_order_of_rows(
            block,
            |planned| planned.image_row.as_ref(),
            |planned| {
                let mut seen = Stamps::new();
                // A decoder that panics on some file must not end the run.
                let work = || SCRATCH.with_borrow_mut(|scratch| self.record(planned, scratch, &mut seen));
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                let outcome = outcome.unwrap_or_else(|_| {
                    Err((Stage::Decode, "a decoder failed on this file; please report it as a bug in mrm".to_owned()))
                });
                let outcome = outcome.map_err(|(stage, error)| Reject {
                    source_path: planned.source_path.clone(),
                    record_id: Some(planned.record_id.clone()),
                    stage,
                    error,
                });
                (seen, outcome)
            },
        )
    }
}
