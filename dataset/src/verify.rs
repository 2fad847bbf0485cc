//! Checks a whole dataset: digests, checksums of pages, schema, counts, decodability, splits.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::{BufReader, ErrorKind, Read};
use std::ops::Range;

use arrow_array::{Array, BinaryArray, Int8Array, Int32Array, ListArray, RecordBatch, StructArray, UInt16Array};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::checksums::{Covered, MAGIC_BYTES};
use crate::dataset::Dataset;
use crate::error::{Error, Result, guarded};
use crate::files;
use crate::image;
use crate::manifest::{REJECTS, TOKENIZER};
use crate::record::MASK;
use crate::shard::{self, Shard};
use crate::split::{self, Split};
use crate::storage::Storage;
use crate::table::from_parquet;

/// What helps where bytes are lost.
const REMEDY: &str = "restore it from a copy, or ingest again with --overwrite";

/// Everything found wrong, one line each; empty: the dataset is whole. Works on the threads of the current rayon pool,
/// a shard each.
///
/// The dataset lies at a path or URL. `progress` is called with so many more bytes of shards that are read.
pub fn verify(location: impl AsRef<OsStr>, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>> {
    let dataset = Dataset::open(location)?;
    let storage = dataset.storage();
    let manifest = dataset.manifest();
    let mut problems: Vec<String> = (0..manifest.shards.len())
        .into_par_iter()
        .flat_map_iter(|index| verify_shard(&dataset, index, progress))
        .collect();

    let named: HashSet<&str> = manifest.shards.iter().map(|shard| shard.path.as_str()).collect();
    for listed in storage.list("shards")? {
        if !named.contains(listed.name.as_str()) {
            problems.push(format!("{}: not in the manifest, so no part of this dataset; remove it", listed.name));
        }
    }
    let rows: u64 = manifest.shards.iter().map(|shard| shard.rows).sum();
    if rows != manifest.totals.records {
        problems.push(format!(
            "dataset.json: {} records in all, but its shards add up to {rows}; {REMEDY}",
            manifest.totals.records
        ));
    }
    if manifest.text.vocabulary > 0 {
        match storage.sha256(TOKENIZER) {
            Ok(digest) if digest == manifest.text.tokenizer_sha256 => {}
            Ok(_) => problems.push(format!("{TOKENIZER}: not the tokenizer that made the token ids; {REMEDY}")),
            Err(error) => problems.push(format!("{error}; {REMEDY}")),
        }
    }
    if let Some(problem) = verify_rejects(storage, &manifest.rejects_sha256) {
        problems.push(format!("{REJECTS}: {problem}; {REMEDY}"));
    }
    if problems.is_empty() {
        problems.extend(repeated_ids(&dataset)?);
        for name in split::known_splits(storage)? {
            if let Err(error) = Split::load(&dataset, &name) {
                problems.push(error.to_string());
            }
        }
    }
    Ok(problems)
}

fn repeated_ids(dataset: &Dataset) -> Result<Vec<String>> {
    let mut seen = HashSet::new();
    let ids = dataset.texts("record_id")?;
    Ok(ids
        .iter()
        .flatten()
        .filter(|id| !seen.insert(id.as_str()))
        .map(|id| format!("record `{id}` stands twice"))
        .collect())
}

/// What is wrong with the table of rejects; `expected` is empty where an older manifest says nothing.
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

/// What is said where the Parquet library broke off.
const BROKEN: &str = "its Parquet structure is damaged";

fn verify_shard(dataset: &Dataset, index: usize, progress: &(dyn Fn(u64) + Sync)) -> Vec<String> {
    let info = &dataset.manifest().shards[index];
    let name = &info.path;
    let file = match dataset.storage().open(name) {
        Ok((file, _)) => file,
        Err(Error::Io { cause, .. }) if cause.kind() == ErrorKind::NotFound => {
            return vec![format!("{name}: missing; {REMEDY}")];
        }
        Err(error) => return vec![format!("{error}; {REMEDY}")],
    };
    let opened = guarded(BROKEN, || dataset.shard(index));
    let checksums = match &opened {
        Ok(shard) => guarded(BROKEN, || shard.checksums()),
        Err(_) => Ok(None),
    };
    let covered = checksums.as_ref().map_or(&[][..], |checksums| checksums.as_deref().unwrap_or_default());
    // A file of a size that no shard has is not read: it may be endless.
    let has_known_size = dataset.manifest().shards.iter().any(|other| other.bytes == file.length());
    let unread = || Ok(Found { bytes: file.length(), sha256: String::new(), damaged: Vec::new() });
    let found = if has_known_size { read(file.reader(), covered, progress) } else { unread() };
    let found = match found {
        Ok(found) => found,
        Err(error) => return vec![format!("{name}: {error}; {REMEDY}")],
    };
    let as_written = found.sha256 == info.sha256;
    if let Some(other) = dataset.manifest().shards.iter().find(|other| !as_written && other.sha256 == found.sha256) {
        return vec![format!("{name}: holds the bytes of {}; give each file its own name again", other.path)];
    }
    if found.bytes != info.bytes {
        let told = format!("{name}: {} bytes, the manifest says {}", found.bytes, info.bytes);
        if found.bytes < info.bytes {
            return vec![format!("{told}: it was cut off, and none of its {} rows can be read; {REMEDY}", info.rows)];
        }
        return vec![format!("{told}: it belongs to another dataset, or was written to; {REMEDY}")];
    }
    let told = |error: &Error| match error {
        Error::Invalid(message) => format!("{name}: {message}; {REMEDY}"),
        error => format!("{error}; {REMEDY}"),
    };
    if let Some(error) = opened.as_ref().err().or(checksums.as_ref().err()) {
        return vec![told(error)];
    }
    let mut problems: Vec<String> = found
        .damaged
        .iter()
        .map(|(column, rows)| format!("{name}, {}: `{column}` is damaged; {REMEDY}", these(rows)))
        .collect();
    if !as_written && problems.is_empty() {
        problems.push(if covered.is_empty() {
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
    // Where checksums told what is damaged, decoding it would tell no more.
    if as_written || covered.is_empty() {
        match guarded(BROKEN, || verify_rows(dataset, opened?, index)) {
            Ok(rows) => problems.extend(rows),
            Err(error) => problems.push(told(&error)),
        }
    }
    problems
}

/// What a shard's bytes told.
struct Found {
    bytes: u64,
    sha256: String,
    /// Columns and rows whose bytes have another checksum.
    damaged: Vec<(String, Range<usize>)>,
}

/// Reads a whole file once, for its SHA-256 and for the checksums of what lies in it.
fn read(file: impl Read, covered: &[Covered], progress: &(dyn Fn(u64) + Sync)) -> std::io::Result<Found> {
    let mut file = BufReader::with_capacity(1 << 20, file);
    let (mut bytes, mut digest) = (0, Sha256::new());
    let mut piece = Vec::new();
    let mut take = |most: u64, crc32: Option<u32>| -> std::io::Result<bool> {
        piece.clear();
        file.by_ref().take(most).read_to_end(&mut piece)?;
        digest.update(&piece);
        bytes += piece.len() as u64;
        progress(piece.len() as u64);
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
    Ok(Found { bytes, sha256: files::hex(&digest.finalize()), damaged })
}

fn these(rows: &Range<usize>) -> String {
    if rows.len() == 1 { format!("row {}", rows.start) } else { format!("rows {} to {}", rows.start, rows.end - 1) }
}

/// Label codes and token ids that mean nothing.
fn foreign_codes(dataset: &Dataset, batch: &RecordBatch) -> Option<String> {
    let labels = shard::column::<StructArray>(batch, "labels")?;
    let codes = labels.columns().iter().filter_map(|codes| codes.as_any().downcast_ref::<Int8Array>());
    if let Some(code) = codes.flat_map(|codes| codes.iter().flatten()).find(|code| !(-1..=1).contains(code)) {
        return Some(format!("label code {code}, which is none of 1, 0, -1"));
    }
    let vocabulary = dataset.manifest().text.vocabulary;
    let tokens = shard::column::<ListArray>(batch, "token_ids")?;
    let ids = tokens.values().as_any().downcast_ref::<Int32Array>()?.values();
    let foreign = ids.iter().find(|&&id| usize::try_from(id).map_or(true, |id| id >= vocabulary))?;
    Some(format!("token id {foreign}, of a vocabulary of {vocabulary}"))
}

/// Decodes every column and every picture of a shard.
fn verify_rows(dataset: &Dataset, opened: &Shard, index: usize) -> Result<Vec<String>> {
    let name = &dataset.manifest().shards[index].path;
    let broken = |message: &str| Error::Shard { shard: name.clone(), message: message.to_owned() };
    let first: u64 = dataset.manifest().shards[..index].iter().map(|shard| shard.rows).sum();
    let mut problems = Vec::new();
    for group in 0..opened.groups() {
        let (rows, batch) = (opened.group(group), opened.texts_and_labels(group)?);
        let side = |name| shard::column::<UInt16Array>(&batch, name);
        let (Some(heights), Some(widths)) = (side("height"), side("width")) else {
            return Err(broken("its images have no sides"));
        };
        if batch.num_rows() != rows.len() {
            return Err(broken("a row group has another number of rows than its image column"));
        }
        problems
            .extend(foreign_codes(dataset, &batch).map(|told| format!("{name}, {}: {told}; {REMEDY}", these(&rows))));
        let masks = shard::column::<BinaryArray>(&batch, MASK).ok_or_else(|| broken("it has no column of masks"))?;
        let all: Vec<u32> = rows.clone().map(|row| first as u32 + row as u32).collect();
        let pages = dataset.image_pages(&all)?;
        let verify_row = |pixels: &mut Vec<u8>, at: usize| -> Result<()> {
            let (height, width) = (heights.value(at), widths.value(at));
            dataset.image_from(pages.get(at), all[at] as usize, height, width, pixels)?;
            if masks.is_valid(at) {
                let row = rows.start + at;
                let mask = image::decode(masks.value(at));
                let mask = mask.map_err(|error| opened.row_error(row, format!("its mask: {error}")))?;
                if (mask.height, mask.width) != (height.into(), width.into()) {
                    return Err(opened.row_error(row, "its mask has another size than its image"));
                }
            }
            Ok(())
        };
        let found: Vec<Option<Error>> =
            (0..all.len()).into_par_iter().map_init(Vec::new, |pixels, at| verify_row(pixels, at).err()).collect();
        problems.extend(found.into_iter().flatten().map(|error| format!("{error}; {REMEDY}")));
    }
    Ok(problems)
}
