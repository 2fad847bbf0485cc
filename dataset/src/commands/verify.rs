//! Verifies a whole dataset: digests, checksums of pages, schema, counts, images and their statistics, values, token ids, joins,
//! splits.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io::{BufReader, ErrorKind, Read};
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::dataset::Dataset;
use crate::error::{Error, Result, guarded};
use crate::format::checksums::{Covered, MAGIC_BYTES};
use crate::format::manifest::{MANIFEST, REJECTS, TOKENIZER, Totals};
use crate::format::pixel_sums::PixelSums;
use crate::format::record::Record;
use crate::format::record_checks;
use crate::format::shard::{Shard, rows_text};
use crate::format::table::from_parquet;
use crate::join::checks;
use crate::progress::{Canceled, OnProgress, Progress};
use crate::split::index_table::IndexTable;
use crate::split::stored::{self, Split};
use crate::store::files;
use crate::store::storage::Storage;
use crate::tokenizer::ReportTokenizer;
use crate::transform::window::{LinearWindow, words};

/// Remedy for damaged or missing bytes.
const REMEDY: &str = "restore it from a copy, or ingest again with --overwrite";

/// How far mean and standard deviation of all pixels may be from those of the manifest: JPEGs are measured before they are
/// encoded, windows of 16 bits before they are rounded.
const MOMENTS_TOLERANCE: f64 = 0.01;

/// All problems of the dataset at a path or URL, one line each; none where it is intact. The current rayon pool processes
/// one shard in each thread. `progress` counts the bytes of shards that were read in place of records.
///
/// # Errors
/// When the dataset cannot be opened or listed, or `progress` cancels.
pub fn verify(location: impl AsRef<OsStr>, progress: &OnProgress) -> Result<Vec<String>> {
    // What the store has is verified, not a copy on this machine.
    let dataset = Dataset::open_in(Storage::at(location)?.without_cache())?;
    let storage = dataset.storage();
    let manifest = dataset.manifest();
    progress(Progress::Started { records: manifest.shards.iter().map(|shard| shard.bytes).sum(), done: 0 })?;
    // Where it cannot be read, that is a problem of its own.
    let tokenizer = guarded(TOKENIZER, || ReportTokenizer::of(&dataset));
    let made_by = tokenizer.as_ref().ok().and_then(Option::as_ref);
    let of_shard = |index| verify_shard(&dataset, index, made_by, progress);
    let shards: Vec<Verified> = (0..manifest.shards.len()).into_par_iter().map(of_shard).collect::<Result<_, _>>()?;
    let mut all = Verified::default();
    shards.into_iter().for_each(|shard| all.add(shard));
    let Verified { mut problems, pixels, reports } = all;

    let named: HashSet<&str> = manifest.shards.iter().map(|shard| shard.path.as_str()).collect();
    let listed = if storage.is_read_only() { Vec::new() } else { storage.list("shards")? };
    for listed in listed {
        if !named.contains(listed.name.as_str()) {
            problems.push(format!("{}: not in the manifest, so not a part of this dataset; remove it", listed.name));
        }
    }
    let rows: u64 = manifest.shards.iter().map(|shard| shard.rows).sum();
    if rows != manifest.totals.records {
        problems.push(format!(
            "dataset.json: {} records in total, but its shards have {rows}; {REMEDY}",
            manifest.totals.records
        ));
    }
    if manifest.text.vocabulary > 0 {
        match storage.sha256(TOKENIZER) {
            Ok(digest) if digest == manifest.text.tokenizer_sha256 => {
                problems.extend(tokenizer.err().map(|error| error.to_string()));
            }
            Ok(_) => problems.push(format!("{TOKENIZER}: not the tokenizer that made the token ids; {REMEDY}")),
            Err(error) => problems.push(format!("{error}; {REMEDY}")),
        }
    }
    if let Some(problem) = verify_rejects(storage, &manifest.rejects_sha256) {
        problems.push(format!("{REJECTS}: {problem}; {REMEDY}"));
    }
    if problems.is_empty() {
        problems.extend(repeated_ids(&dataset)?);
        problems.extend(wrong_totals(&dataset, reports)?);
        problems.extend(wrong_moments(&dataset, pixels));
        for name in dataset.joins()? {
            problems
                .extend(guarded(BROKEN, || checks::problems(&dataset, &name)).unwrap_or_else(|e| vec![e.to_string()]));
        }
        for name in stored::known_splits(storage)? {
            if let Err(error) = Split::load(&dataset, &name) {
                problems.push(error.to_string());
            }
        }
    }
    Ok(problems)
}

fn repeated_ids(dataset: &Dataset) -> Result<Vec<String>> {
    let ids = dataset.texts("record_id")?;
    let mut seen = HashMap::with_capacity(ids.len());
    let place = |row: usize| -> Result<String> {
        let (shard, row) = dataset.place(row)?;
        Ok(format!("{}, row {row}", dataset.manifest().shards[shard].path))
    };
    let mut problems = Vec::new();
    for (row, id) in ids.iter().enumerate() {
        let Some(id) = id else { continue };
        match seen.entry(id.as_str()) {
            Entry::Vacant(entry) => {
                entry.insert(row);
            }
            Entry::Occupied(first) => {
                let (here, there) = (place(row)?, place(*first.get())?);
                problems.push(format!("{here}: record `{id}` is also that of {there}; {REMEDY}"));
            }
        }
    }
    Ok(problems)
}

/// Totals of the manifest that are not those of the records.
fn wrong_totals(dataset: &Dataset, reports: u64) -> Result<Option<String>> {
    let manifest = dataset.manifest();
    let index = IndexTable::load(dataset)?;
    let found = Totals {
        records: index.len() as u64,
        studies: index.studies.iter().max().map_or(0, |&last| u64::from(last) + 1),
        patients: index.patient_names.len() as u64,
        reports,
        bytes: manifest.shards.iter().map(|shard| shard.bytes).sum(),
    };
    let of = |totals: Totals| {
        [
            ("records", totals.records),
            ("studies", totals.studies),
            ("patients", totals.patients),
            ("reports", totals.reports),
            ("bytes", totals.bytes),
        ]
    };
    let different = of(manifest.totals).into_iter().zip(of(found)).find(|(stated, found)| stated != found);
    Ok(different.map(|((what, stated), (_, found))| {
        format!("{MANIFEST}: {stated} {what} in total, but its shards have {found}; {REMEDY}")
    }))
}

/// What is wrong where the pixels of all images have other moments than the manifest states: a decoder that gave other pixels, or
/// images of another dataset.
fn wrong_moments(dataset: &Dataset, pixels: PixelSums) -> Option<String> {
    let (image, (mean, std)) = (&dataset.manifest().image, pixels.moments());
    let is_near = |stated: f64, found: f64| (stated - found).abs() <= MOMENTS_TOLERANCE;
    let message = || {
        format!(
            "{MANIFEST}: pixels of mean {:.4} and standard deviation {:.4}, but those of its images have {mean:.4} and {std:.4}; \
             {REMEDY}",
            image.mean, image.std
        )
    };
    (!is_near(image.mean, mean) || !is_near(image.std, std)).then(message)
}

/// What is wrong with the table of rejects; `expected` is empty in older manifests.
fn verify_rejects(storage: &Storage, expected: &str) -> Option<String> {
    if expected.is_empty() {
        let read = || storage.read(REJECTS).and_then(|bytes| from_parquet(&storage.path(REJECTS), bytes));
        return guarded(BROKEN, read).err().map(|error| error.to_string());
    }
    match storage.sha256(REJECTS) {
        Ok(digest) if digest == expected => None,
        Ok(_) => Some("its SHA-256 is not the manifest's".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// The problem where the Parquet library panicked.
const BROKEN: &str = "its Parquet structure is damaged";

/// What was found in some rows.
#[derive(Default)]
struct Verified {
    problems: Vec<String>,
    /// Of all images, with the gray levels that windows show.
    pixels: PixelSums,
    /// Records with a report.
    reports: u64,
}

impl Verified {
    fn add(&mut self, other: Self) {
        self.problems.extend(other.problems);
        self.pixels.add(other.pixels);
        self.reports += other.reports;
    }
}

impl From<Vec<String>> for Verified {
    fn from(problems: Vec<String>) -> Self {
        Self { problems, ..Self::default() }
    }
}

fn verify_shard(
    dataset: &Dataset,
    index: usize,
    tokenizer: Option<&ReportTokenizer>,
    progress: &OnProgress,
) -> Result<Verified, Canceled> {
    let info = &dataset.manifest().shards[index];
    let name = &info.path;
    let file = match dataset.storage().open(name) {
        Ok((file, _)) => file,
        Err(Error::Io { cause, .. }) if cause.kind() == ErrorKind::NotFound => {
            return Ok(vec![format!("{name}: missing; {REMEDY}")].into());
        }
        Err(error) => return Ok(vec![format!("{error}; {REMEDY}")].into()),
    };
    let opened = guarded(BROKEN, || dataset.shard(index));
    let checksums = match &opened {
        Ok(shard) => guarded(BROKEN, || shard.checksums()),
        Err(_) => Ok(None),
    };
    let covered = checksums.as_ref().map_or(&[][..], |checksums| checksums.as_deref().unwrap_or_default());
    // A file with a size that no shard has is not read, since it may be endless.
    let has_known_size = dataset.manifest().shards.iter().any(|other| other.bytes == file.length());
    let unread = || Ok(Content { bytes: file.length(), sha256: String::new(), damaged: Vec::new() });
    let content = if has_known_size { read(name, file.reader(), covered, progress) } else { unread() };
    let content = match content {
        Ok(content) => content,
        Err(Error::Canceled(canceled)) => return Err(canceled),
        Err(error) => return Ok(vec![format!("{error}; {REMEDY}")].into()),
    };
    let as_written = content.sha256 == info.sha256;
    if let Some(other) = dataset.manifest().shards.iter().find(|other| !as_written && other.sha256 == content.sha256) {
        let other = &other.path;
        return Ok(vec![format!("{name}: contains the bytes of {other}; give each file its own name again")].into());
    }
    if content.bytes != info.bytes {
        let sizes = format!("{name}: {} bytes, the manifest says {}", content.bytes, info.bytes);
        if content.bytes < info.bytes {
            let lost = format!("{sizes}: it was cut off, and none of its {} rows can be read; {REMEDY}", info.rows);
            return Ok(vec![lost].into());
        }
        return Ok(vec![format!("{sizes}: it belongs to another dataset, or was written to; {REMEDY}")].into());
    }
    if let Some(error) = opened.as_ref().err().or(checksums.as_ref().err()) {
        return Ok(vec![line(name, error)].into());
    }
    let problems: Vec<String> = content
        .damaged
        .iter()
        .map(|(column, rows)| format!("{name}, {}: `{column}` is damaged; {REMEDY}", rows_text(rows)))
        .collect();
    let mut verified = Verified::from(problems);
    if !as_written && verified.problems.is_empty() {
        verified.problems.push(if covered.is_empty() {
            format!(
                "{name}: its SHA-256 is not the manifest's, and it has no checksums that would name a row; {REMEDY}"
            )
        } else {
            format!(
                "{name}: its rows are as they were written, but not its magic number, page index or footer (or it \
                 belongs to another dataset); {REMEDY}"
            )
        });
    }
    // Where checksums show what is damaged, decoding it would show nothing more.
    if as_written || covered.is_empty() {
        match guarded(BROKEN, || verify_rows(dataset, opened?, index, tokenizer, progress)) {
            Ok(rows) => verified.add(rows),
            Err(Error::Canceled(canceled)) => return Err(canceled),
            Err(error) => verified.problems.push(line(name, &error)),
        }
    }
    Ok(verified)
}

/// An error of a shard as a line with its remedy.
fn line(name: &str, error: &Error) -> String {
    match error {
        Error::Invalid(message) => format!("{name}: {message}; {REMEDY}"),
        Error::Damaged { .. } => error.to_string(),
        error => format!("{error}; {REMEDY}"),
    }
}

/// What was read of the bytes of a shard.
struct Content {
    bytes: u64,
    sha256: String,
    /// Columns and rows whose bytes have another checksum.
    damaged: Vec<(String, Range<usize>)>,
}

/// Reads a whole shard once, for its SHA-256 and its checksums.
fn read(name: &str, file: impl Read, covered: &[Covered], progress: &OnProgress) -> Result<Content> {
    let mut file = BufReader::with_capacity(1 << 20, file);
    let (mut bytes, mut digest) = (0, Sha256::new());
    let mut piece = Vec::new();
    let mut take = |most: u64, crc32: Option<u32>| -> Result<bool> {
        piece.clear();
        file.by_ref().take(most).read_to_end(&mut piece).map_err(Error::io(Path::new(name)))?;
        digest.update(&piece);
        bytes += piece.len() as u64;
        progress(Progress::Advanced(piece.len() as u64))?;
        Ok(match crc32 {
            Some(crc32) => piece.len() as u64 == most && crc32fast::hash(&piece) == crc32,
            None => !piece.is_empty(),
        })
    };
    take(MAGIC_BYTES, None)?;
    let mut damaged: Vec<(String, Range<usize>)> = Vec::new();
    for span in covered {
        if take(span.bytes, Some(span.crc32))? {
            continue;
        }
        match damaged.last_mut() {
            Some((column, rows)) if *column == span.column && rows.end == span.rows.start => rows.end = span.rows.end,
            _ => damaged.push((span.column.clone(), span.rows.clone())),
        }
    }
    while take(1 << 20, None)? {}
    Ok(Content { bytes, sha256: files::hex(&digest.finalize()), damaged })
}

/// Decodes every column and every image of a shard, and checks the values of each record.
fn verify_rows(
    dataset: &Dataset,
    opened: &Shard,
    index: usize,
    tokenizer: Option<&ReportTokenizer>,
    progress: &OnProgress,
) -> Result<Verified> {
    let name = &dataset.manifest().shards[index].path;
    let first: u64 = dataset.manifest().shards[..index].iter().map(|shard| shard.rows).sum();
    let mut verified = Verified::default();
    for group in 0..opened.groups() {
        progress(Progress::Working)?;
        let rows = opened.group(group);
        let batch = match opened.texts_and_labels(group) {
            Ok(batch) => batch,
            Err(error) => {
                verified.problems.push(line(name, &error));
                continue;
            }
        };
        if batch.num_rows() != rows.len() {
            let message = "a row group has another number of rows than its image column".to_owned();
            return Err(Error::Shard { shard: name.clone(), message });
        }
        let all: Vec<u32> = rows.clone().map(|row| first as u32 + row as u32).collect();
        let pages = dataset.image_pages(&all)?;
        let verify_row = |buffer: &mut Vec<u8>, at: usize| -> Verified {
            let record = match opened.record_of(&batch, rows.start + at) {
                Ok(record) => record,
                Err(error) => return vec![without_row(error)].into(),
            };
            let mut found = Verified::from(record_checks::record(&record, dataset.manifest()));
            found.reports = record.report.is_some().into();
            found.problems.extend(other_tokens(&record, tokenizer, dataset.manifest().text.max_tokens));
            let size = (record.height, record.width);
            match dataset.decode_image(pages[at].as_ref(), all[at] as usize, size, buffer) {
                Ok(pixels) => found.pixels = sums(dataset, &record, pixels),
                Err(error) => found.problems.push(without_row(error)),
            }
            found
        };
        let found: Vec<Verified> = (0..all.len()).into_par_iter().map_init(Vec::new, verify_row).collect();
        let mut of_rows = Vec::with_capacity(found.len());
        for mut row in found {
            of_rows.push(std::mem::take(&mut row.problems));
            verified.add(row);
        }
        let lines = runs(&rows, of_rows).into_iter().map(|problem| format!("{name}, {problem}; {REMEDY}"));
        verified.problems.extend(lines);
    }
    Ok(verified)
}

/// The sums of the pixels of an image, with the gray levels that its window shows.
fn sums(dataset: &Dataset, record: &Record, pixels: &[u8]) -> PixelSums {
    match record.window {
        Some([center, width]) if dataset.has_16_bits() => {
            PixelSums::of(&LinearWindow::new(center.into(), width.into()).gray(words(pixels)))
        }
        _ => PixelSums::of(pixels),
    }
}

/// Token ids that are not those of their text: of another tokenizer, or of another record.
fn other_tokens(record: &Record, tokenizer: Option<&ReportTokenizer>, max_tokens: usize) -> Option<String> {
    let tokenizer = tokenizer?;
    let is_other = |text: &str, ids: &[i32]| -> Result<bool> {
        guarded(TOKENIZER, || Ok(tokenizer.token_ids(text, max_tokens)? != ids))
    };
    let report = record.report.iter().map(|report| ("report", report, &record.token_ids));
    let texts = record.texts.iter().map(|text| (text.name.as_str(), &text.text, &text.token_ids));
    report.chain(texts).find_map(|(name, text, ids)| match is_other(text, ids) {
        Ok(false) => None,
        Ok(true) => Some(format!("token ids of `{name}` that the tokenizer does not make of its text")),
        Err(error) => Some(format!("the text `{name}`: {error}")),
    })
}

/// The message of an error without the shard and row.
fn without_row(error: Error) -> String {
    match error {
        Error::Row { message, .. } | Error::Invalid(message) => message,
        error => error.to_string(),
    }
}

/// A number that is larger than the number of problems of two rows.
const MOST_OF_TWO_ROWS: usize = 16;

/// Problems by row as lines; consecutive rows with the same problem share a line.
fn runs(rows: &Range<usize>, found: Vec<Vec<String>>) -> Vec<String> {
    let mut runs: Vec<(Range<usize>, String)> = Vec::new();
    for (row, problems) in rows.clone().zip(found) {
        for problem in problems {
            match runs.iter_mut().rev().take(MOST_OF_TWO_ROWS).find(|(_, other)| *other == problem) {
                Some((run, _)) if run.end == row => run.end += 1,
                _ => runs.push((row..row + 1, problem)),
            }
        }
    }
    runs.into_iter().map(|(run, problem)| format!("{}: {problem}", rows_text(&run))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_after_the_last_checksum_is_read_to_its_end() {
        let file: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let content = read("shard", file.as_slice(), &[], &|_| Ok(())).unwrap();
        assert_eq!((content.bytes, content.sha256), (3_000_000, files::hex(&Sha256::digest(&file))));
    }

    #[test]
    fn consecutive_rows_with_the_same_problem_share_a_line() {
        let found = [&["a"][..], &["a", "b"], &["b"], &[], &["a"], &["a"]];
        let found = found.map(|row| row.iter().map(ToString::to_string).collect()).to_vec();
        assert_eq!(runs(&(10..16), found), ["rows 10 to 11: a", "rows 11 to 12: b", "rows 14 to 15: a"]);
    }
}
