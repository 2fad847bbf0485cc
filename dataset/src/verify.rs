//! Checks a whole dataset: digests, schema, counts, decodability, splits.

use std::collections::HashSet;
use std::ffi::OsStr;

use arrow_array::UInt16Array;
use rayon::prelude::*;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::manifest::{REJECTS, TOKENIZER};
use crate::shard;
use crate::split::{self, Split};
use crate::table::from_parquet;

/// Images that are fetched at once from an object store.
const AT_ONCE: usize = 64;

/// Everything found wrong, one line each; empty: the dataset is whole.
///
/// The dataset lies at a path or URL. `progress` is called after each shard with its number of rows.
pub fn verify(location: impl AsRef<OsStr>, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>> {
    let dataset = Dataset::open(location)?;
    let storage = dataset.storage();
    let manifest = dataset.manifest();
    let mut problems: Vec<String> = (0..manifest.shards.len())
        .into_par_iter()
        .flat_map_iter(|index| {
            let found = verify_shard(&dataset, index);
            progress(manifest.shards[index].rows);
            found
        })
        .collect();

    let named: HashSet<&str> = manifest.shards.iter().map(|shard| shard.path.as_str()).collect();
    for listed in storage.list("shards")? {
        if !named.contains(listed.name.as_str()) {
            problems.push(format!("{}: not in the manifest", listed.name));
        }
    }
    let rows: u64 = manifest.shards.iter().map(|shard| shard.rows).sum();
    if rows != manifest.totals.records {
        problems.push(format!("dataset.json: {} records, its shards add up to {rows}", manifest.totals.records));
    }
    if manifest.text.vocabulary > 0 {
        match storage.sha256(TOKENIZER) {
            Ok(digest) if digest == manifest.text.tokenizer_sha256 => {}
            Ok(_) => problems.push(format!("{TOKENIZER}: not the tokenizer that made the token ids")),
            Err(error) => problems.push(error.to_string()),
        }
    }
    if let Err(error) = storage.read(REJECTS).and_then(|bytes| from_parquet(&storage.path(REJECTS), bytes)) {
        problems.push(error.to_string());
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

fn verify_shard(dataset: &Dataset, index: usize) -> Vec<String> {
    let info = &dataset.manifest().shards[index];
    let mut problems = Vec::new();
    // A shard that is missing or of another size does not open.
    if let Err(error) = dataset.shard(index) {
        return vec![error.to_string()];
    }
    match dataset.storage().sha256(&info.path) {
        Err(error) => problems.push(error.to_string()),
        Ok(digest) if digest != info.sha256 => {
            problems.push(format!("{}: its SHA-256 is not the manifest's: the file was changed or damaged", info.path));
        }
        Ok(_) => {}
    }
    // The rows are read even where the digest is wrong, to say which of them are lost.
    match verify_rows(dataset, index) {
        Ok(rows) => problems.extend(rows),
        Err(error) => problems.push(error.to_string()),
    }
    problems
}

fn verify_rows(dataset: &Dataset, index: usize) -> Result<Vec<String>> {
    let opened = dataset.shard(index)?;
    let name = &dataset.manifest().shards[index].path;
    if dataset.manifest().labels != opened.findings() && !dataset.manifest().labels.is_empty() {
        return Err(Error::Shard { shard: name.clone(), message: "other findings than the manifest's".to_owned() });
    }
    let mut row = dataset.manifest().shards[..index].iter().map(|shard| shard.rows as u32).sum();
    let mut problems = Vec::new();
    let mut pixels = Vec::new();
    for batch in opened.columns(&["height", "width"])? {
        let side = |name| shard::column::<UInt16Array>(&batch, name);
        let (Some(heights), Some(widths)) = (side("height"), side("width")) else {
            continue;
        };
        for (heights, widths) in heights.values().chunks(AT_ONCE).zip(widths.values().chunks(AT_ONCE)) {
            let rows: Vec<u32> = (row..row + heights.len() as u32).collect();
            let pages = dataset.image_pages(&rows)?;
            for (index, (height, width)) in heights.iter().zip(widths).enumerate() {
                let row = rows[index] as usize;
                if let Err(error) = dataset.image_from(pages.get(index), row, *height, *width, &mut pixels) {
                    problems.push(error.to_string());
                }
            }
            row += heights.len() as u32;
        }
    }
    let all: Vec<&str> = vec!["record_id", "report", "token_ids", "labels", "boxes", "mask"];
    opened.columns(&all)?;
    Ok(problems)
}
