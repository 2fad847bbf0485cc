//! The files of a raw directory by a part of their paths.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::reject::{Reject, Stage};

/// Path and size of each file by its key; of two files with one key, the second becomes a reject.
pub fn files_by(
    files: BTreeMap<String, u64>,
    key: impl Fn(&str) -> String,
    rejects: &mut Vec<Reject>,
) -> BTreeMap<String, (String, u64)> {
    let mut found: BTreeMap<String, (String, u64)> = BTreeMap::new();
    for (path, bytes) in files {
        match found.entry(key(&path)) {
            Entry::Vacant(place) => drop(place.insert((path, bytes))),
            Entry::Occupied(first) => rejects.push(Reject {
                source_path: path,
                record_id: None,
                stage: Stage::Plan,
                error: format!("another file has the same name; {} is used", first.get().0),
            }),
        }
    }
    found
}

/// The name of a file without its folder.
pub fn name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}
