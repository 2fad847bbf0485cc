//! What the RSNA and SIIM challenges share: train images that a table names, test images that none does.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Reject, Result};
use crate::file_system::is_folder;
use crate::sources::shared::walk::{Walk, stem};

/// Walks the folders (name, subset; train images in the first) and calls `record` with image, path, bytes, subset and
/// what the table says, in the end for each image of the table that has no file. Gives the rejects: files that cannot be
/// taken, train images without a row.
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
                // The challenges keep the rows of their test images.
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
