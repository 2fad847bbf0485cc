//! The files of a dataset in a local folder, read and written with plain system calls.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::store::files;
use crate::store::limits::most_bytes;
use crate::store::listed_file::ListedFile;
use crate::store::stored_file::StoredFile;

/// A local folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder(pub PathBuf);

impl Folder {
    pub fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.0.clone() } else { self.0.join(name) }
    }

    pub fn read(&self, name: &str) -> Result<Bytes> {
        Ok(files::read(&self.path(name), most_bytes(name))?.into())
    }

    pub fn open(&self, name: &str) -> Result<StoredFile> {
        let path = self.path(name);
        let file = files::open(&path).map_err(Error::io(&path))?;
        let length = file.metadata().map_err(Error::io(&path))?.len();
        Ok(StoredFile::local(file, length))
    }

    pub fn size(&self, name: &str) -> Result<u64> {
        let path = self.path(name);
        Ok(fs::metadata(&path).map_err(Error::io(&path))?.len())
    }

    pub fn sha256(&self, name: &str) -> Result<String> {
        files::sha256(&self.path(name))
    }

    /// The files and folders directly below a folder of the dataset.
    pub fn list(&self, below: &str) -> Result<Vec<ListedFile>> {
        let path = self.path(below);
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io(&path))?,
        };
        let mut listed = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io(&path))?;
            let name = Path::new(below).join(entry.file_name()).to_string_lossy().into_owned();
            match entry.metadata() {
                Ok(metadata) => listed.push(ListedFile { name, bytes: metadata.len() }),
                // Renamed or removed since the folder was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(&entry.path())(error)),
            }
        }
        Ok(listed)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.path(name);
        if let Some(parent) = path.parent() {
            files::make_folder(parent)?;
        }
        files::write_atomic(&path, bytes)
    }

    /// Writes a file unless there is one of this name; false where there is one of other bytes.
    pub fn create(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        match self.read(name) {
            Ok(stored) => Ok(stored == bytes),
            Err(Error::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                self.write(name, bytes).map(|()| true)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes a file; a missing one is no error.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(Error::io(&path)),
        }
    }
}
