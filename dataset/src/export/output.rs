//! The folder of an export, and what an earlier run left in it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Format;
use crate::error::{Error, Result};
use crate::store::files;
use crate::store::storage::Storage;

/// Describes a complete export. It is hidden, so that no reader mistakes it for data.
pub(super) const NOTE: &str = ".export.json";
/// What an unfinished export needs to continue.
pub(super) const NOTES: &str = ".export";

/// Whether exports of a format write a file of this name; of any format, where it is unknown.
fn is_written(format: Option<&str>, name: &str) -> bool {
    let name = name.strip_suffix(".tmp").unwrap_or(name);
    let of = |wanted: Format| format.is_none_or(|format| format == wanted.name());
    let tar = name.starts_with("part-") && name.ends_with(".tar");
    of(Format::Webdataset) && (tar || ["train", "validate", "test"].contains(&name))
        || of(Format::Hf) && ["README.md", "data"].contains(&name)
        || of(Format::Csv) && ["metadata.csv", "images", "masks"].contains(&name)
}

/// The folder of this path or `file://` URL.
pub(super) fn folder(out: &OsStr) -> Result<PathBuf> {
    let refused = |message: &str| Error::Export { path: PathBuf::from(out), message: message.to_owned() };
    let is_remote = out.to_str().is_some_and(|text| text.contains("://") && !text.starts_with("file://"));
    if is_remote {
        return Err(refused("is no folder: export into a local folder and copy it from there"));
    }
    let storage = Storage::at(out)?;
    storage.as_folder().map(Path::to_path_buf).ok_or_else(|| refused("is no folder"))
}

/// Prepares a folder for an export with these arguments; `None` where it contains this export already.
///
/// # Errors
/// When it contains something else, or another export is writing to it.
pub(super) fn prepare(out: &Path, arguments: &Value, overwrite: bool) -> Result<Option<File>> {
    let refused = |message: &str| Error::Export { path: out.to_path_buf(), message: message.to_owned() };
    let (note, notes) = (out.join(NOTE), out.join(NOTES));
    let is_there = |path: &Path| path.try_exists().map_err(Error::io(path));
    let is_whole = is_there(&note)?;
    if is_whole && !overwrite {
        return match files::read_json::<Value>(&note) {
            Ok(held) if &held == arguments => {
                // The run may have been killed before it removed `.export/`.
                tidy(out)?;
                Ok(None)
            }
            _ => Err(refused("contains another export; give another OUT or --overwrite")),
        };
    }
    if !is_whole && !is_there(&notes)? {
        match fs::read_dir(out) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(refused("is not empty and not an export; give another OUT"));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Io { path: out.to_path_buf(), cause: source }),
        }
    }
    files::make_folder(&notes)?;
    let lock_path = notes.join("lock");
    let lock = File::create(&lock_path).map_err(Error::io(&lock_path))?;
    if !files::lock(&lock, &lock_path)? {
        return Err(refused("is being written by another export"));
    }
    let kept = notes.join("arguments.json");
    let before: Option<Value> = is_there(&kept)?.then(|| files::read_json(&kept).unwrap_or(Value::Null));
    match before {
        // An interrupted export of the same command, also with --overwrite.
        Some(before) if &before == arguments && !is_whole => {}
        None if !is_whole => {}
        before if overwrite => {
            let held = if is_whole { files::read_json::<Value>(&note).ok() } else { before };
            let format = held.as_ref().and_then(|held| held["format"].as_str());
            // After an interruption, the remaining files must not be taken for those of the new export.
            files::write_json(&kept, &json!({ "format": format }))?;
            clear(out, format)?;
        }
        _ => return Err(refused("contains an unfinished export of another command; give another OUT or --overwrite")),
    }
    files::write_json(&kept, arguments)?;
    Ok(Some(lock))
}

/// Marks the export as complete, and removes what resuming needed.
pub(super) fn finish(out: &Path, arguments: &Value) -> Result<()> {
    files::write_json(&out.join(NOTE), arguments)?;
    tidy(out)
}

fn tidy(out: &Path) -> Result<()> {
    let notes = out.join(NOTES);
    match fs::remove_dir_all(&notes) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::Io { path: notes, cause: error }),
        _ => Ok(()),
    }
}

/// Removes the files of exports of a format, and nothing else. The description is removed first, so that the export is not
/// taken for a complete one.
fn clear(out: &Path, format: Option<&str>) -> Result<()> {
    let gone = |path: &Path, removed: std::io::Result<()>| match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::Io { path: path.to_path_buf(), cause: error })
        }
        _ => Ok(()),
    };
    let note = out.join(NOTE);
    gone(&note, fs::remove_file(&note))?;
    let parts = |folder: &Path, is_ours: &dyn Fn(&str) -> bool| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder).map_err(Error::io(folder))?;
        let entries = entries.collect::<std::io::Result<Vec<_>>>().map_err(Error::io(folder))?;
        let named = entries.iter().filter(|entry| is_ours(&entry.file_name().to_string_lossy()));
        Ok(named.map(fs::DirEntry::path).collect())
    };
    for path in parts(out, &|name| is_written(format, name))? {
        gone(&path, if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) })?;
    }
    for path in parts(&out.join(NOTES), &|name| name != "lock")? {
        gone(&path, fs::remove_file(&path))?;
    }
    Ok(())
}
