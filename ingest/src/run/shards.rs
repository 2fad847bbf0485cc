//! One run: plan → shards → manifest. It can be killed at any moment and started again.
//!
//! Records are taken in blocks: while one block is decoded by all jobs, the one before it is written. A shard gets its
//! name when it is whole; a note beside it (`.ingest/part-00000.json`) keeps what the manifest will need of it. The
//! manifest comes last. What is stored depends on the plan and the options alone, not on the jobs.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::ScopedJoinHandle;

use arrow_array::{ArrayRef, StringArray};
pub use dataset::commands::progress::Progress;
use dataset::format::manifest::{self, ImageSpec, Manifest, REJECTS, ShardInfo, TOKENIZER, TextSpec, Totals};
use dataset::format::record::{BoundingBox, FORMAT_VERSION, Record};
use dataset::format::record_checks;
use dataset::format::shard::ShardWriter;
use dataset::store::files;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

use crate::dicom::limits::MAX_FILE_BYTES;
use crate::error::{Error, Reject, Result, Stage};
use crate::file_system::{is_absence, is_refusal, retry};
use crate::image::mask;
use crate::image::pipeline::{self, Scratch, Stored};
use crate::report::read::{NoReport, Report, read_report, tokenizer_of};
use crate::report::tokenizer;
use crate::run::hashing_reader::{self, Stamps};
use crate::run::keys::{INPUT, NOTED, NOTES, STAMPS, TOOL};
use crate::run::options::{Options, TokenizerChoice};
use crate::run::output::{Existing, Output, Prepared, prepare};
use crate::run::path_names::PathNames;
use crate::run::plan::{Plan, PlannedRecord, ReportSource};
use crate::run::preview;
use crate::run::refused;

/// Records that each job decodes while the block before them is written: several keep every job busy.
const BLOCK_PER_JOB: usize = 32;

/// Bytes of the pictures of these records, as far as the stored size tells them.
const BLOCK_BYTES_PER_JOB: usize = 64 << 20;

/// Bytes of pictures and texts that are given to the writer at once: the offsets within a batch have 31 bits.
const MAX_WRITE_BYTES: usize = 256 << 20;

thread_local! {
    /// Buffers of the thread that decodes.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Summary {
    pub manifest: Manifest,
    /// The dataset was there already, whole and of the same input.
    pub already_done: bool,
    /// Shards that an earlier run had finished.
    pub resumed_shards: usize,
    /// Rejects of the plan by which a run of a part of it is not judged.
    pub unjudged: u64,
    /// Rejects that the system refused to read: [`Options::retry_rejects`] tries them again.
    pub refused: u64,
    /// Records whose DICOM header states a ViewPosition that is no view code, which was left out.
    pub unknown_views: u64,
}

impl Summary {
    /// Share of the inputs that did not get in; a lost report whose image was kept does not count.
    pub fn reject_rate(&self) -> f64 {
        let lost = |(stage, _): &(&String, &u64)| stage.as_str() != Stage::Report.name();
        let rejected: u64 = self.manifest.rejects.iter().filter(lost).map(|(_, count)| count).sum();
        let rejected = rejected.saturating_sub(self.unjudged);
        rejected as f64 / (self.manifest.totals.records + rejected).max(1) as f64
    }
}

/// Note beside a finished shard.
#[derive(Serialize, Deserialize)]
struct ShardNote {
    info: ShardInfo,
    rejects: Vec<Reject>,
    reports: u64,
    pixels: PixelSums,
    #[serde(default)]
    unknown_views: u64,
}

/// Exact sums, so that their order does not matter.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct PixelSums {
    count: u64,
    sum: u64,
    squares: u64,
}

impl PixelSums {
    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    fn of(pixels: &[u8]) -> Self {
        let mut sums = Self { count: pixels.len() as u64, sum: 0, squares: 0 };
        // Sums of so few squares fit 32 bits, which add up several at once.
        for some in pixels.chunks(1 << 15) {
            sums.sum += u64::from(some.iter().map(|&pixel| u32::from(pixel)).sum::<u32>());
            sums.squares += u64::from(some.iter().map(|&pixel| u32::from(pixel) * u32::from(pixel)).sum::<u32>());
        }
        sums
    }

    /// Mean and standard deviation, 0..1.
    fn moments(self) -> (f64, f64) {
        if self.count == 0 {
            return (0.0, 0.0);
        }
        let mean = self.sum as f64 / self.count as f64;
        let variance = (self.squares as f64 / self.count as f64 - mean * mean).max(0.0);
        (mean / 255.0, variance.sqrt() / 255.0)
    }
}

/// Ingests a plan into `out`, a directory or the URL of one in an object store.
///
/// # Errors
/// When `out` holds something else, another run works on it, the disk is full, the tokenizer fails, or a record of the
/// plan has another number of labels than there are findings. Bad inputs are no errors: they become rejects.
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
    plan.settle();
    plan.check()?;
    let mut unjudged = 0;
    if let Some(limit) = options.limit.filter(|limit| *limit < plan.records.len()) {
        plan.records.truncate(limit);
        // They are of the whole set, the records of a part of it.
        unjudged = plan.rejects.iter().filter(|reject| reject.stage != Stage::Report).count() as u64;
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
    let can_take_in =
        || -> Result<bool> { Ok(refused::noted(&notes)?.iter().any(|reject| reads_now(raw, &plan, reject))) };
    let existing = match options {
        Options { overwrite: true, .. } => Existing::Replace,
        Options { retry_rejects: true, .. } => Existing::ContinueIf(&can_take_in),
        _ => Existing::Keep,
    };
    let _lock = match prepare(raw, out, &arguments, &plan, &existing)? {
        Prepared::Done(manifest) => {
            let refused = refused::stored(&out.storage)?;
            if options.retry_rejects && refused > 0 && refused::noted(&notes)?.is_empty() {
                let message = format!(
                    "the notes that --retry-rejects needs are not in {}; take another OUT or --overwrite",
                    notes.display()
                );
                return Err(Error::Output { path: out.storage.path(""), message });
            }
            return Ok(Summary {
                manifest: *manifest,
                already_done: true,
                resumed_shards: 0,
                unjudged,
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
        let refused = notes.iter().flat_map(|note| &note.rejects).filter(|reject| reject.is_refused()).count() as u64;
        let unknown_views = notes.iter().map(|note| note.unknown_views).sum();
        Ok(Summary { manifest, already_done: false, resumed_shards, unjudged, refused, unknown_views })
    })
}

/// Whether an input can be read now that the system refused to read before.
fn reads_now(raw: &Path, plan: &Plan, reject: &Reject) -> bool {
    let Some(id) = &reject.record_id else { return false };
    let Ok(at) = plan.records.binary_search_by(|record| record.record_id.cmp(id)) else { return false };
    let planned = &plan.records[at];
    if reject.stage == Stage::Report {
        !matches!(read_report(raw, plan, planned, &mut Stamps::new()), Err(NoReport::Refused { .. }))
    } else {
        !hashing_reader::try_to_read(&raw.join(&planned.source_path), MAX_FILE_BYTES)
            .is_err_and(|error| is_refusal(&error))
    }
}

/// The arguments that decide the bytes, as the manifest keeps them.
fn arguments(source: &str, options: &Options) -> Result<BTreeMap<String, serde_json::Value>> {
    let tokenizer = match &options.tokenizer {
        TokenizerChoice::None => serde_json::Value::Null,
        TokenizerChoice::Train(vocabulary) => format!("train {vocabulary}").into(),
        TokenizerChoice::File(path) => files::sha256(path)?.into(),
    };
    Ok(BTreeMap::from([
        ("source".to_owned(), source.into()),
        ("size".to_owned(), options.size.into()),
        ("fit".to_owned(), options.fit.name().into()),
        ("image_encoding".to_owned(), options.encoding.name().into()),
        ("compression".to_owned(), options.compression.name().into()),
        ("tone".to_owned(), options.tone.name().into()),
        ("tokenizer".to_owned(), tokenizer),
        ("max_tokens".to_owned(), options.max_tokens.into()),
        ("report_text".to_owned(), options.report_text.name().into()),
        ("rows_per_shard".to_owned(), options.rows_per_shard.into()),
        ("no_images".to_owned(), options.no_images.into()),
        ("limit".to_owned(), options.limit.map_or(serde_json::Value::Null, Into::into)),
    ]))
}

/// A record that got in, with what the totals need of it.
struct Made {
    record: Record,
    pixels: PixelSums,
    reject: Option<Reject>,
    has_unknown_view: bool,
}

struct Job<'a> {
    raw: &'a Path,
    out: &'a Output,
    plan: &'a Plan,
    options: &'a Options,
    tokenizer: Option<&'a Tokenizer>,
    progress: &'a (dyn Fn(Progress) + Sync),
}

impl Job<'_> {
    /// Writes the shards that are not there yet; also says how many were. In an object store one shard is sent while
    /// the next one is made, so no more than two lie on this machine.
    fn shards(&self) -> Result<(Vec<ShardNote>, usize)> {
        let chunks: Vec<&[PlannedRecord]> = self.plan.records.chunks(self.options.rows_per_shard).collect();
        let sent: HashMap<String, u64> = if self.out.is_staged() {
            self.out.storage.list("shards")?.into_iter().map(|listed| (listed.name, listed.bytes)).collect()
        } else {
            HashMap::new()
        };
        let mut notes: Vec<Option<ShardNote>> = (0..chunks.len()).map(|index| self.finished(index, &sent)).collect();
        let resumed = notes.iter().flatten().count();
        let done =
            notes.iter().zip(&chunks).filter(|(note, _)| note.is_some()).map(|(_, chunk)| chunk.len() as u64).sum();
        (self.progress)(Progress::Started { records: self.plan.records.len() as u64, done });
        for note in notes.iter().flatten() {
            // The run that made it was stopped before it was sent, or before its copy was removed.
            let path = self.out.folder.join(&note.info.path);
            if self.out.is_staged() && path.try_exists().map_err(Error::io(&path))? {
                self.out.send(&note.info.path)?;
            }
        }
        let out = self.out;
        let awaited = |sending: ScopedJoinHandle<Result<()>>| {
            sending.join().unwrap_or_else(|panic| {
                let message = format!("sending broke off: {}", dataset::error::panic_text(panic.as_ref()));
                Err(Error::Output { path: out.storage.path("shards"), message })
            })
        };
        std::thread::scope(|scope| {
            let mut sending = None;
            for (index, chunk) in chunks.iter().enumerate() {
                if notes[index].is_none() {
                    let note = self.shard(index, chunk)?;
                    files::write_json(&self.note_path(index), &note)?;
                    sending.take().map_or(Ok(()), awaited)?;
                    let name = note.info.path.clone();
                    sending = Some(scope.spawn(move || out.send(&name)));
                    notes[index] = Some(note);
                }
            }
            sending.map_or(Ok(()), awaited)
        })?;
        Ok((notes.into_iter().flatten().collect(), resumed))
    }

    fn note_path(&self, index: usize) -> PathBuf {
        self.out.folder.join(NOTES).join(format!("part-{index:05}.json"))
    }

    /// What the inputs of a shard looked like; written before the shard has its name.
    fn stamps_path(&self, index: usize) -> PathBuf {
        self.note_path(index).with_extension(STAMPS)
    }

    /// The note of a shard that an earlier run finished, given the sizes of those that were sent. A shard is made again
    /// where an input can be read now that the system refused to read then.
    fn finished(&self, index: usize, sent: &HashMap<String, u64>) -> Option<ShardNote> {
        let note: ShardNote = files::read_json(&self.note_path(index)).ok()?;
        let here =
            || fs::metadata(self.out.folder.join(&note.info.path)).is_ok_and(|file| file.len() == note.info.bytes);
        let is_whole = sent.get(&note.info.path) == Some(&note.info.bytes) || here();
        let refused = |reject: &&Reject| reject.is_refused();
        let can_take_in = || note.rejects.iter().filter(refused).any(|reject| reads_now(self.raw, self.plan, reject));
        (is_whole && !can_take_in()).then_some(note)
    }

    fn shard(&self, index: usize, chunk: &[PlannedRecord]) -> Result<ShardNote> {
        let relative = manifest::shard_path(index);
        // The note of an earlier shard of this name must not be taken for this one's.
        match fs::remove_file(self.note_path(index)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Io { path: self.note_path(index), cause: error });
            }
            _ => {}
        }
        let mut writer = ShardWriter::create(
            &self.out.folder.join(&relative),
            &self.plan.findings,
            self.options.encoding,
            self.options.compression,
        )?;
        let (mut rejects, mut reports, mut pixels) = (Vec::new(), 0, PixelSums::default());
        let mut unknown_views = 0;
        let mut seen = Stamps::new();
        let mut waiting: Vec<Record> = Vec::new();
        let side = self.options.size as usize;
        let per_job = (BLOCK_BYTES_PER_JOB / (side * side).max(1)).clamp(1, BLOCK_PER_JOB);
        for block in chunk.chunks(per_job * rayon::current_num_threads()) {
            let (written, made) = rayon::join(|| write(&mut writer, &waiting), || self.decode(block));
            written?;
            waiting.clear();
            for (stamps, made) in made {
                seen.extend(stamps);
                match made {
                    Ok(made) => {
                        reports += u64::from(made.record.report.is_some());
                        pixels.add(made.pixels);
                        unknown_views += u64::from(made.has_unknown_view);
                        rejects.extend(made.reject);
                        waiting.push(made.record);
                    }
                    Err(reject) => rejects.push(reject),
                }
            }
            (self.progress)(Progress::Advanced(block.len() as u64));
        }
        write(&mut writer, &waiting)?;
        hashing_reader::save(&self.stamps_path(index), &seen)?;
        Ok(ShardNote { info: writer.finish(&relative)?, rejects, reports, pixels, unknown_views })
    }

    /// Each record, and what its files looked like.
    fn decode(&self, block: &[PlannedRecord]) -> Vec<(Stamps, Result<Made, Reject>)> {
        block
            .par_iter()
            .map(|planned| {
                let mut seen = Stamps::new();
                // Decoders meet any bytes there are: a panic in one of them costs its file, not the run.
                let work = || SCRATCH.with_borrow_mut(|scratch| self.record(planned, scratch, &mut seen));
                let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
                let made = made.unwrap_or_else(|_| Err((Stage::Decode, "this record cannot be made".to_owned())));
                let made = made.map_err(|(stage, error)| Reject {
                    source_path: planned.source_path.clone(),
                    record_id: Some(planned.record_id.clone()),
                    stage,
                    error,
                });
                (seen, made)
            })
            .collect()
    }

    fn record(
        &self,
        planned: &PlannedRecord,
        scratch: &mut Scratch,
        seen: &mut Stamps,
    ) -> Result<Made, (Stage, String)> {
        let labels = planned.labels.iter().copied().map(record_checks::label).collect::<Result<_, _>>();
        let labels = labels.map_err(|message| (Stage::Table, message))?;
        let mut record = Record {
            record_id: planned.record_id.clone(),
            patient_id: planned.patient_id.clone(),
            study_id: planned.study_id.clone(),
            image_id: planned.image_id.clone(),
            source_path: self.plan.path_names.stored(&planned.source_path),
            subset: planned.subset.clone(),
            view: planned.view.clone(),
            sex: planned.sex.clone(),
            age_years: planned.age_years,
            labels,
            ..Record::default()
        };
        let mut pixels = PixelSums::default();
        let mut has_unknown_view = false;
        if !self.options.no_images {
            let Options { tone, size, fit, .. } = *self.options;
            let path = self.raw.join(&planned.source_path);
            let (stamp, stored) = retry(|| pipeline::store_file(&path, tone, size, fit, scratch)).map_err(|error| {
                let told = match error {
                    error if is_absence(&error) => {
                        seen.insert(planned.source_path.clone(), None);
                        "listed, but the file is missing".to_owned()
                    }
                    error if is_refusal(&error) => Reject::refusal(&error),
                    error => error.to_string(),
                };
                (Stage::Read, told)
            })?;
            seen.insert(planned.source_path.clone(), Some(stamp.clone()));
            record.source_sha256 = stamp.sha256;
            let Stored { image, source, place, header } = stored.map_err(|error| (Stage::Decode, error))?;
            (record.source_width, record.source_height) = source;
            has_unknown_view = record.view.is_none() && header.has_unknown_view;
            record.view = record.view.or(header.view);
            record.sex = record.sex.or(header.sex);
            record.age_years = record.age_years.or(header.age_years);
            record.boxes = planned
                .boxes
                .iter()
                .map(|found| BoundingBox {
                    label: found.label.clone(),
                    x: (f64::from(found.x) * place.scale.0 + place.offset.0) as f32,
                    y: (f64::from(found.y) * place.scale.1 + place.offset.1) as f32,
                    width: (f64::from(found.width) * place.scale.0) as f32,
                    height: (f64::from(found.height) * place.scale.1) as f32,
                })
                .collect();
            (record.height, record.width) = (image.height as u16, image.width as u16);
            let sides = (record.height, record.width);
            let of_box =
                |found: &BoundingBox| record_checks::rectangle([found.x, found.y, found.width, found.height], sides);
            record.boxes.iter().try_for_each(of_box).map_err(|error| (Stage::Decode, error))?;
            let marked = planned.mask.as_ref();
            record.mask = marked
                .map(|runs| mask::stored(runs, source, (image.width, image.height), place))
                .transpose()
                .map_err(|error| (Stage::Decode, error))?;
            pixels = PixelSums::of(&image.pixels);
            record.image = image.encode(self.options.encoding).map_err(|error| (Stage::Decode, error.to_string()))?;
        }
        let report = read_report(self.raw, self.plan, planned, seen).map_err(|error| error.to_string());
        let told = report.and_then(|report| report.map_or(Ok(()), |report| self.tell(report, &mut record)));
        let reject = told.err().map(|error| Reject {
            source_path: match &planned.report {
                ReportSource::File(path) => path.to_string_lossy().into_owned(),
                _ => planned.source_path.clone(),
            },
            record_id: Some(planned.record_id.clone()),
            stage: Stage::Report,
            error: format!("{error}; its image is kept without text"),
        });
        Ok(Made { record, pixels, reject, has_unknown_view })
    }

    /// Adds the text of a report to its record; nothing of it where the tokenizer fails.
    fn tell(&self, report: Report, record: &mut Record) -> Result<(), String> {
        let chosen = report.tokenized(self.options.report_text);
        if !chosen.is_empty() {
            if let Some(tokenizer) = self.tokenizer {
                record.token_ids = tokenizer::token_ids(tokenizer, &chosen, self.options.max_tokens)
                    .map_err(|error| error.to_string())?;
            }
            record.report = Some(chosen);
        }
        (record.findings, record.impression) = (report.sections.findings, report.sections.impression);
        Ok(())
    }

    /// Writes the rejects and, last of all, the manifest.
    fn finish(
        &self,
        source: &str,
        arguments: &BTreeMap<String, serde_json::Value>,
        notes: &[ShardNote],
    ) -> Result<Manifest> {
        let rejects: Vec<&Reject> =
            self.plan.rejects.iter().chain(notes.iter().flat_map(|note| &note.rejects)).collect();
        write_rejects(&self.out.folder.join(REJECTS), &rejects, self.plan.path_names)?;
        let out_of: HashSet<&str> = rejects
            .iter()
            .filter(|reject| !matches!(reject.stage, Stage::Report | Stage::Plan))
            .filter_map(|reject| reject.record_id.as_deref())
            .collect();
        let kept = || self.plan.records.iter().filter(|record| !out_of.contains(record.record_id.as_str()));
        let mut pixels = PixelSums::default();
        notes.iter().for_each(|note| pixels.add(note.pixels));
        let (mean, std) = pixels.moments();
        let mut by_stage: BTreeMap<String, u64> = BTreeMap::new();
        for reject in &rejects {
            *by_stage.entry(reject.stage.name().to_owned()).or_default() += 1;
        }
        let path = self.out.folder.join(TOKENIZER);
        let manifest = Manifest {
            format_version: FORMAT_VERSION,
            source: source.to_owned(),
            tool: TOOL.to_owned(),
            arguments: arguments.clone(),
            image: ImageSpec {
                encoding: self.options.encoding,
                compression: self.options.compression.name().to_owned(),
                intensity: self.options.tone.name().to_owned(),
                resize: self.options.fit.name().to_owned(),
                size: self.options.size,
                mean,
                std,
            },
            text: TextSpec {
                report_text: self.options.report_text.name().to_owned(),
                max_tokens: self.options.max_tokens,
                vocabulary: self.tokenizer.map_or(0, |tokenizer| tokenizer.get_vocab_size(true)),
                tokenizer_sha256: if self.tokenizer.is_some() { files::sha256(&path)? } else { String::new() },
            },
            labels: self.plan.findings.clone(),
            totals: Totals {
                records: notes.iter().map(|note| note.info.rows).sum(),
                studies: kept().map(|record| (&record.patient_id, &record.study_id)).collect::<HashSet<_>>().len()
                    as u64,
                patients: kept().map(|record| &record.patient_id).collect::<HashSet<_>>().len() as u64,
                reports: notes.iter().map(|note| note.reports).sum(),
                bytes: notes.iter().map(|note| note.info.bytes).sum(),
            },
            shards: notes.iter().map(|note| note.info.clone()).collect(),
            rejects: by_stage,
            rejects_sha256: files::sha256(&self.out.folder.join(REJECTS))?,
        };
        if self.out.is_staged() {
            // Copies: they stay in the staging folder, so that a run that is stopped here goes on.
            for name in [TOKENIZER, REJECTS] {
                let path = self.out.folder.join(name);
                if path.try_exists().map_err(Error::io(&path))? {
                    self.out.storage.upload(&path, name)?;
                }
            }
        }
        dataset::format::card::write(&self.out.storage, &manifest)?;
        dataset::format::croissant::write(&self.out.storage, &manifest)?;
        manifest.save(&self.out.storage)?;
        // With the notes `--retry-rejects` goes on from here.
        if !rejects.iter().any(|reject| reject.is_refused()) {
            self.out.tidy()?;
        }
        Ok(manifest)
    }
}

/// Appends records to a shard, a bounded number of bytes at once.
fn write(writer: &mut ShardWriter, records: &[Record]) -> dataset::Result<()> {
    pieces(records, MAX_WRITE_BYTES).try_for_each(|piece| writer.write(piece))
}

/// Cuts records into pieces whose pictures and texts take at most so many bytes; a larger record is a piece of its own.
fn pieces(records: &[Record], most: usize) -> impl Iterator<Item = &[Record]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |record: &&Record| {
            let texts = [&record.report, &record.findings, &record.impression].into_iter().flatten();
            bytes += record.image.len() + texts.map(String::len).sum::<usize>();
            bytes <= most
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (piece, left) = rest.split_at(count);
        rest = left;
        (!piece.is_empty()).then_some(piece)
    })
}

fn write_rejects(path: &Path, rejects: &[&Reject], names: PathNames) -> Result<()> {
    let column = |get: fn(&Reject) -> Option<&str>| -> ArrayRef {
        Arc::new(rejects.iter().map(|reject| get(reject)).collect::<StringArray>())
    };
    let paths = rejects.iter().map(|reject| Some(names.stored(&reject.source_path)));
    let paths: ArrayRef = Arc::new(paths.collect::<StringArray>());
    let columns = vec![
        ("source_path", paths, false),
        ("record_id", column(|reject| reject.record_id.as_deref()), true),
        ("stage", column(|reject| Some(reject.stage.name())), false),
        ("error", column(|reject| Some(&reject.error)), false),
    ];
    Ok(dataset::format::table::write_table(path, columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pictures_are_written_one_by_one() {
        let records = [3, 4, 2, 20, 1, 0].map(|bytes| Record { image: vec![0; bytes], ..Record::default() });
        let sizes = |most| -> Vec<usize> { pieces(&records, most).map(<[Record]>::len).collect() };
        assert_eq!(sizes(7), [2, 1, 1, 2]);
        assert_eq!((sizes(30), sizes(0)), (vec![6], vec![1, 1, 1, 1, 1, 1]));
        assert_eq!(pieces(&[], 7).count(), 0);
    }
}
