//! Inputs that the system refused to read ([`Reject::is_refused`]). Where a finished dataset lacks some, the notes of its
//! shards are kept, so that `--retry-rejects` can add these inputs.

use std::io;
use std::path::{Path, PathBuf};

use arrow_array::StringArray;
use dataset::Storage;
use dataset::format::manifest::REJECTS;
use dataset::format::table::{self, column};
use dataset::store::files;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::file_system;
use crate::reject::Reject;
use crate::run::notes::ShardNote;

/// Prefix and extension of the names of the shards' notes.
const NOTE: (&str, &str) = ("part-", "json");

/// The part of a shard's note that is read here.
#[derive(Deserialize)]
struct Note {
    rejects: Vec<Reject>,
}

/// The refused inputs of all shards that have a note in this folder, in the order of the dataset.
pub fn noted(notes: &Path) -> Result<Vec<Reject>> {
    let is_note = |path: &PathBuf| {
        path.extension().is_some_and(|found| found == NOTE.1)
            && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(NOTE.0))
    };
    let entries = match file_system::list(notes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(Error::io(notes))?,
    };
    let mut found = Vec::new();
    for path in entries.iter().map(std::fs::DirEntry::path).filter(is_note) {
        let note: Note = files::read_json(&path)?;
        found.extend(note.rejects.into_iter().filter(Reject::is_refused));
    }
    Ok(found)
}

/// The number of refused inputs of some shards.
pub fn count(notes: &[ShardNote]) -> u64 {
    notes.iter().flat_map(|note| &note.rejects).filter(|reject| reject.is_refused()).count() as u64
}

/// The number of refused inputs of a finished dataset.
pub fn stored(storage: &Storage) -> Result<u64> {
    let mut count = 0;
    // Datasets of early builds have no such file.
    let Some(rejects) = storage.read_if_there(REJECTS)? else { return Ok(0) };
    for batch in table::from_parquet(&storage.path(REJECTS), rejects)? {
        if let Some(errors) = column::<StringArray>(&batch, "error") {
            count += errors.iter().flatten().filter(|error| Reject::is_refusal(error)).count() as u64;
        }
    }
    Ok(count)
}
