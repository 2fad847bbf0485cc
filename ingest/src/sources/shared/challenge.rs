//! Common layout of the RSNA and SIIM challenges: a table lists the train images, none lists the test images.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::Result;
use crate::file_system::is_folder;
use crate::reject::Reject;
use crate::sources::shared::walk::{Walk, stem};

/// Walks the folders (name and subset; the first one has the train images) and calls `record` for each image with its
/// identifier, path, size, subset and row of the table; then for each row that has no file. Returns the rejects: unusable
/// files, and train images without a row.
///
/// # Errors
/// When a folder cannot be listed.
pub fn each_image<Row>(
    raw: &Path,
    folders: &[(&str, &str)],
    extensions: &[&str],
    mut rows: BTreeMap<String, Row>,
    mut record: impl FnMut(&str, String, Option<u64>, &str, Option<Row>),
) -> Result<Vec<Reject>> {
    let mut rejects = Vec::new();
    for (index, (folder, subset)) in folders.iter().enumerate() {
        if !is_folder(&raw.join(folder))? {
            continue;
        }
        let walk = Walk::of(raw, &raw.join(folder), extensions)?;
        rejects.extend(walk.rejects);
        for (path, bytes) in walk.files {
            let id = stem(&path);
            match rows.remove(&id) {
                None if index == 0 => rejects.push(Reject::unlisted(path)),
                // The challenges did not publish the rows of their test images.
                row => record(&id, path, Some(bytes), subset, row),
            }
        }
    }
    for (id, row) in rows {
        let (folder, subset) = folders[0];
        record(&id, format!("{folder}/{id}.dcm"), None, subset, Some(row));
    }
    Ok(rejects)
}
