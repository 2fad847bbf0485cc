//! Masks of a folder: image files of the same name in another folder.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::file_system::is_folder;
use crate::reject::{Reject, Stage};
use crate::run::plan::{MaskSource, Plan, PlannedMask};
use crate::sources::folder::identifiers::without_extension;
use crate::sources::shared::walk::{Walk, is_inside};

/// Extensions of mask files.
const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];

/// A folder of masks: `FOLDER` or `FOLDER=NAME` on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskFolder {
    /// The folder, relative to the raw directory.
    pub folder: String,
    /// What is marked; by default the last part of the folder.
    pub name: String,
}

impl FromStr for MaskFolder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "give FOLDER or FOLDER=NAME, where FOLDER is relative to RAW_DIR".to_owned();
        let (folder, name) = text.split_once('=').map_or((text, None), |(folder, name)| (folder, Some(name.trim())));
        let folder = folder.trim_start_matches("./").trim_end_matches('/');
        let last = folder.rsplit('/').next().unwrap_or(folder);
        let name = name.unwrap_or(last);
        if !is_inside(folder) || name.is_empty() {
            return Err(form());
        }
        Ok(Self { folder: folder.to_owned(), name: name.to_lowercase() })
    }
}

impl Display for MaskFolder {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{}={}", self.folder, self.name)
    }
}

/// Whether a path is in one of these folders.
pub fn is_mask(path: &str, folders: &[MaskFolder]) -> bool {
    folders.iter().any(|masks| path.strip_prefix(&masks.folder).is_some_and(|rest| rest.starts_with('/')))
}

/// Gives the records of a plan their masks. The mask of `a/b/c.png` is the file `a/b/c`, `b/c` or `c` of the folder, with the
/// extension of an image; the first of these that exists counts.
///
/// # Errors
/// When a folder is missing or cannot be listed, or a name of masks is used twice.
pub fn add(raw: &Path, folders: &[MaskFolder], plan: &mut Plan) -> Result<()> {
    for MaskFolder { folder, name } in folders {
        let path = raw.join(folder);
        if !is_folder(&path)? {
            let message = "no such folder of masks; give one below RAW_DIR to --masks".to_owned();
            return Err(Error::Empty { path, message });
        }
        if plan.masks.contains(name) {
            let message = format!("two kinds of masks have the name `{name}`; give FOLDER=NAME to --masks");
            return Err(Error::Empty { path, message });
        }
        plan.masks.push(name.clone());
        let walk = Walk::of(raw, &path, &EXTENSIONS)?;
        plan.rejects.extend(walk.rejects);
        let mut files: BTreeMap<String, (String, Vec<usize>)> = BTreeMap::new();
        for file in walk.files.into_keys() {
            let inner = file.strip_prefix(folder.as_str()).unwrap_or(&file).trim_start_matches('/');
            let key = without_extension(inner).to_owned();
            if let Some((first, _)) = files.get(&key) {
                let error = format!("another mask has the same name; {} is used", plan.path_names.stored(first));
                plan.rejects.push(Reject { source_path: file, record_id: None, stage: Stage::Plan, error });
            } else {
                files.insert(key, (file, Vec::new()));
            }
        }
        for (at, record) in plan.records.iter().enumerate() {
            // An image in a table has the name of its record.
            let name = record.record_id.split_once('/').map_or("", |(_, name)| name);
            let whole = without_extension(if record.image_row.is_some() { name } else { &record.source_path });
            let ends = std::iter::once(whole).chain(whole.match_indices('/').map(|(slash, _)| &whole[slash + 1..]));
            let key = ends.into_iter().find(|key| files.contains_key(*key));
            if let Some((_, users)) = key.and_then(|key| files.get_mut(key)) {
                users.push(at);
            }
        }
        let mut ambiguous: BTreeMap<usize, String> = BTreeMap::new();
        for (file, users) in files.into_values() {
            match users.as_slice() {
                [] => {
                    let error = "no image has the name of this mask, so it is not used".to_owned();
                    plan.rejects.push(Reject { source_path: file, record_id: None, stage: Stage::Plan, error });
                }
                [one] => {
                    let pixels = MaskSource::File(PathBuf::from(file));
                    plan.records[*one].masks.push(PlannedMask { name: name.clone(), pixels });
                }
                several => ambiguous.extend(several.iter().map(|&at| (at, file.clone()))),
            }
        }
        let records = std::mem::take(&mut plan.records);
        for (at, record) in records.into_iter().enumerate() {
            let Some(file) = ambiguous.get(&at) else {
                plan.records.push(record);
                continue;
            };
            let file = plan.path_names.stored(file);
            let error =
                format!("its mask {file} has the name of several images; put masks into the same folders as images");
            let (source_path, record_id) = (record.source_path, Some(record.record_id));
            plan.rejects.push(Reject { source_path, record_id, stage: Stage::Plan, error });
        }
    }
    Ok(())
}
