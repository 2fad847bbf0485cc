//! Where the notes of a run are read and written. A run alone has them on this machine; tasks on several machines share them
//! in the dataset's own folder or object store.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use dataset::Storage;
use dataset::store::files;

use crate::error::{Error, Result};
use crate::run::keys::NOTES;

/// The notes of a run.
pub struct NoteStore {
    place: Storage,
    /// Folder in which this process alone writes, on the disk of `place`; `None` where no other process writes notes.
    private: Option<PathBuf>,
    written: AtomicU64,
}

impl NoteStore {
    /// Notes in a folder in which no other process writes.
    pub fn own(folder: &Path) -> Self {
        Self { place: Storage::folder(folder), private: None, written: AtomicU64::new(0) }
    }

    /// Notes that several processes write. In a folder, each is written in `private` first and renamed.
    pub fn shared(place: &Storage, private: &Path) -> Self {
        Self { place: place.clone(), private: Some(private.to_path_buf()), written: AtomicU64::new(0) }
    }

    fn inner(name: &str) -> String {
        format!("{NOTES}/{name}")
    }

    /// Path or URL of a note, as errors show it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path(&Self::inner(name))
    }

    /// Reads a note; `None` where there is none of this name.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.place.read_if_there(&Self::inner(name))?.map(Into::into))
    }

    /// Writes a note, whole or not at all, over one of the same name.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write_with(name, bytes, true)
    }

    /// As [`NoteStore::write_json`], for a note that is of use while its process runs. It is not synced: a power failure may
    /// leave it empty.
    pub fn write_brief<T: serde::Serialize>(&self, name: &str, value: &T) -> Result<()> {
        self.write_with(name, &self.json(name, value)?, false)
    }

    fn write_with(&self, name: &str, bytes: &[u8], is_lasting: bool) -> Result<()> {
        let (Some(folder), Some(private)) = (self.place.as_folder(), &self.private) else {
            return Ok(self.place.write(&Self::inner(name), bytes.to_vec())?);
        };
        // No folder is made: where another process completed the dataset and removed the notes, none may appear again.
        let temporary = private.join(format!("note-{}.tmp", self.written.fetch_add(1, Ordering::Relaxed)));
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            if is_lasting { file.sync_all() } else { Ok(()) }
        });
        let path = folder.join(Self::inner(name));
        let publish = || -> Result<()> {
            if is_lasting {
                return Ok(files::publish(&temporary, &path)?);
            }
            fs::rename(&temporary, &path).map_err(Error::io(&path))
        };
        let published = written.map_err(Error::io(&path)).and_then(|()| publish());
        if published.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        published
    }

    /// Writes a value as indented JSON, whole or not at all.
    pub fn write_json<T: serde::Serialize>(&self, name: &str, value: &T) -> Result<()> {
        self.write(name, &self.json(name, value)?)
    }

    fn json<T: serde::Serialize>(&self, name: &str, value: &T) -> Result<Vec<u8>> {
        files::json(value).map_err(|cause| Error::io(&self.path(name))(cause.into()))
    }

    /// Moves a complete file from this machine to the notes.
    pub fn take(&self, file: &Path, name: &str) -> Result<()> {
        if let Some(folder) = self.place.as_folder() {
            return Ok(files::publish(file, &folder.join(Self::inner(name)))?);
        }
        self.place.upload(file, &Self::inner(name))?;
        fs::remove_file(file).map_err(Error::io(file))
    }

    /// Removes a note; a missing one is no error.
    pub fn remove(&self, name: &str) -> Result<()> {
        Ok(self.place.remove(&[&Self::inner(name)])?)
    }

    /// The names of all notes, sorted.
    pub fn names(&self) -> Result<Vec<String>> {
        let prefix = Self::inner("");
        let listed = self.place.list(NOTES)?;
        Ok(listed.into_iter().filter_map(|note| Some(note.name.strip_prefix(&prefix)?.to_owned())).collect())
    }

    /// Opens a note that is read by ranges.
    pub fn open(&self, name: &str) -> Result<dataset::store::storage::StoredFile> {
        Ok(self.place.open(&Self::inner(name))?.0)
    }
}
