//! Checks a whole dataset: digests, schema, counts, decodability, splits.

use std::collections::HashSet;
use std::path::Path;

use arrow_array::UInt16Array;
use rayon::prelude::*;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::files;
use crate::manifest::{REJECTS, TOKENIZER};
use crate::shard;
use crate::split::{self, Split};
use crate::table::read_table;

/// Everything found wrong, one line each; empty: the dataset is whole.
///
/// `progress` is called after each shard with its number of rows.
pub fn verify(folder: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<String>> {
    let dataset = Dataset::open(folder)?;
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
    let shards = folder.join("shards");
    for entry in std::fs::read_dir(&shards).map_err(Error::io(&shards))?.flatten() {
        let relative = format!("shards/{}", entry.file_name().to_string_lossy());
        if !named.contains(relative.as_str()) {
            problems.push(format!("{relative}: not in the manifest"));
        }
    }
    let rows: u64 = manifest.shards.iter().map(|shard| shard.rows).sum();
    if rows != manifest.totals.records {
        problems.push(format!("dataset.json: {} records, its shards add up to {rows}", manifest.totals.records));
    }
    if manifest.text.vocabulary > 0 {
        match files::sha256(&folder.join(TOKENIZER)) {
            Ok(digest) if digest == manifest.text.tokenizer_sha256 => {}
            Ok(_) => problems.push(format!("{TOKENIZER}: not the tokenizer that made the token ids")),
            Err(error) => problems.push(error.to_string()),
        }
    }
    if let Err(error) = read_table(&folder.join(REJECTS)) {
        problems.push(error.to_string());
    }
    if problems.is_empty() {
        problems.extend(repeated_ids(&dataset)?);
        for name in split::known_splits(folder) {
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
    let path = dataset.folder().join(&info.path);
    let mut problems = Vec::new();
    match std::fs::metadata(&path) {
        Err(error) => return vec![format!("{}: {error}", info.path)],
        Ok(found) if found.len() != info.bytes => {
            problems.push(format!("{}: {} bytes, the manifest says {}", info.path, found.len(), info.bytes));
        }
        Ok(_) => match files::sha256(&path) {
            Err(error) => problems.push(error.to_string()),
            Ok(digest) if digest != info.sha256 => {
                problems
                    .push(format!("{}: its SHA-256 is not the manifest's: the file was changed or damaged", info.path));
            }
            Ok(_) => {}
        },
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
    let first: u64 = dataset.manifest().shards[..index].iter().map(|shard| shard.rows).sum();
    let mut problems = Vec::new();
    let mut pixels = Vec::new();
    let mut row = 0;
    for batch in opened.columns(&["height", "width"])? {
        let side = |name| shard::column::<UInt16Array>(&batch, name);
        let (Some(heights), Some(widths)) = (side("height"), side("width")) else {
            continue;
        };
        for (height, width) in heights.values().iter().zip(widths.values()) {
            if let Err(error) = dataset.image_into(first as usize + row, *height, *width, &mut pixels) {
                problems.push(error.to_string());
            }
            row += 1;
        }
    }
    let all: Vec<&str> = vec!["record_id", "report", "token_ids", "labels", "boxes", "mask"];
    opened.columns(&all)?;
    Ok(problems)
}
