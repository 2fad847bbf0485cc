//! The few file operations that a dataset needs, on a local folder or an object store. Files are named by paths relative
//! to the dataset.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result, StoreFault};
use crate::store::files;
use crate::store::folder::Folder;
use crate::store::limits::most_bytes;
pub use crate::store::listed_file::ListedFile;
use crate::store::location::Location;
#[cfg(feature = "cloud")]
use crate::store::remote::Remote;
#[cfg(feature = "cloud")]
pub use crate::store::retry::ending;
pub use crate::store::stored_file::StoredFile;

/// Where the files of a dataset are. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Storage(Place);

#[derive(Clone, Debug)]
enum Place {
    Folder(Folder),
    #[cfg(feature = "cloud")]
    Remote(Remote),
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Folder(folder) => folder.0.display().fmt(f),
            #[cfg(feature = "cloud")]
            Place::Remote(remote) => f.write_str(remote.url()),
        }
    }
}

impl Storage {
    /// The storage that a path or URL names; whatever contains `://` is a URL. Nothing is read yet.
    ///
    /// | URL | storage | settings, from the environment |
    /// | --- | --- | --- |
    /// | `file:///FOLDER` | a local folder | |
    /// | `s3://BUCKET/PREFIX` | Amazon S3, or a store with its interface | `AWS_…` |
    /// | `gs://BUCKET/PREFIX` | Google Cloud Storage | `GOOGLE_…` |
    /// | `az://CONTAINER/PREFIX`, `abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX` | Azure | `AZURE_…` |
    /// | `https://HOST/PATH` | a web server that answers range requests, read only | |
    /// | `memory://NAME/PREFIX` | the memory of this process, for tests | |
    ///
    /// All but `file://` need the feature `cloud`.
    ///
    /// # Errors
    /// When the URL has another form, or the settings of the store are invalid.
    pub fn at(location: impl AsRef<OsStr>) -> Result<Self> {
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Self::at_with(location, std::env::vars_os().filter_map(text))
    }

    /// As [`Storage::at`], with settings of the store (`AWS_ENDPOINT_URL` …) from elsewhere than the environment.
    ///
    /// # Errors
    /// As [`Storage::at`].
    pub fn at_with(location: impl AsRef<OsStr>, settings: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        match Location::parse(location.as_ref())? {
            Location::Folder(path) => Ok(Self::folder(path)),
            #[cfg(feature = "cloud")]
            Location::Remote(url) => Ok(Self(Place::Remote(Remote::new(&url, settings)?))),
            #[cfg(not(feature = "cloud"))]
            Location::Remote(url) => {
                drop(settings);
                Err(StoreFault::NoCloud.at(url.url))
            }
        }
    }

    /// A folder of this machine.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self(Place::Folder(Folder(path.into())))
    }

    /// The path of the folder; `None` for an object store.
    pub fn as_folder(&self) -> Option<&Path> {
        match &self.0 {
            Place::Folder(folder) => Some(&folder.0),
            #[cfg(feature = "cloud")]
            Place::Remote(_) => None,
        }
    }

    /// The same place, read without the cache of [`crate::store::cache`].
    #[must_use]
    pub fn without_cache(mut self) -> Self {
        #[cfg(feature = "cloud")]
        if let Place::Remote(remote) = &mut self.0 {
            remote.cache = None;
        }
        #[cfg(not(feature = "cloud"))]
        let _ = &mut self;
        self
    }

    /// Whether nothing can be written or listed here: a web server.
    pub fn is_read_only(&self) -> bool {
        match &self.0 {
            Place::Folder(_) => false,
            #[cfg(feature = "cloud")]
            Place::Remote(remote) => remote.is_read_only(),
        }
    }

    /// Path or URL of a file (`""`: of the dataset), as errors show it.
    pub fn path(&self, name: &str) -> PathBuf {
        match &self.0 {
            Place::Folder(folder) => folder.path(name),
            #[cfg(feature = "cloud")]
            Place::Remote(remote) => PathBuf::from(remote.url_of(name)),
        }
    }

    /// Reads a whole small file.
    ///
    /// # Errors
    /// When it is missing, cannot be read, or has more than [`files::MAX_JSON_BYTES`] (`.json`) or [`files::MAX_TABLE_BYTES`] (others).
    pub fn read(&self, name: &str) -> Result<Bytes> {
        match &self.0 {
            Place::Folder(folder) => folder.read(name),
            #[cfg(feature = "cloud")]
            Place::Remote(remote) => remote.read(name),
        }
    }

    /// Reads a whole small file; `None` where there is none of this name.
    ///
    /// # Errors
    /// When it cannot be read, or is too large.
    pub fn read_if_there(&self, name: &str) -> Result<Option<Bytes>> {
        match self.read(name) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(Error::Store { fault: StoreFault::NoObject, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a JSON file.
    ///
    /// # Errors
    /// When it cannot be read, or is not a `T`.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        serde_json::from_slice(&self.read(name)?).map_err(Error::json(&self.path(name)))
    }

    /// Opens a file that is read by ranges. Also returns its last bytes where the same request fetched them; for a local
    /// file there are none.
    ///
    /// # Errors
    /// When it is missing or cannot be opened.
    pub fn open(&self, name: &str) -> Result<(StoredFile, Bytes)> {
        match &self.0 {
            Place::Folder(folder) => Ok((folder.open(name)?, Bytes::new())),
            #[cfg(feature = "cloud")]
            Place::Remote(remote) => {
                let (object, length, tail) = remote.open(name)?;
                Ok((StoredFile::remote(object, length), tail))
            }
        }
    }

    /// Size of a file in bytes.
    ///
    /// # Errors
    /// When it is missing.
    pub fn size(&self, name: &str) -> Result<u64> {
        match &self.0 {
            Place::Folder(folder) => folder.size(name),
            #[cfg(feature = "cloud")]
            Place::Remote(remote) => remote.size(name),
        }
    }

    /// SHA-256 of a file that [`Storage::read`] accepts, lower-case hexadecimal.
    ///
    /// # Errors
    /// When it cannot be read, or is too large.
    pub fn sha256(&self, name: &str) -> Result<String> {
        let size = self.size(name)?;
        files::check_size(size, most_bytes(name)).map_err(Error::io(&self.path(name)))?;
        match &self.0 {
            Place::Folder(folder) => folder.sha256(name),
            #[cfg(feature = "cloud")]
            Place::Remote(remote) => remote.sha256(name, size),
        }
    }

    /// The files below a folder of the dataset (`""`: below all of it), sorted by name; none where the folder is missing.
    /// A local folder is listed one level deep, an object store to all depths.
    ///
    /// # Errors
    /// When the folder cannot be listed; a web server never can.
    pub fn list(&self, below: &str) -> Result<Vec<ListedFile>> {
        let mut listed = match &self.0 {
            Place::Folder(folder) => folder.list(below)?,
            #[cfg(feature = "cloud")]
            Place::Remote(remote) => remote.list(below)?,
        };
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// Writes a file, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written; nothing is left then.
    pub fn write(&self, name: &str, bytes: impl Into<Bytes>) -> Result<()> {
        let bytes = bytes.into();
        match &self.0 {
            Place::Folder(folder) => folder.write(name, &bytes),
            #[cfg(feature = "cloud")]
            Place::Remote(remote) => remote.write(name, bytes),
        }
    }

    /// Writes a file, whole or not at all, unless there is one of this name; returns false where there is one of other bytes.
    ///
    /// An object store does this by a conditional write (`If-None-Match: *`), so that of several machines one writes. In a
    /// folder, and with `AWS_CONDITIONAL_PUT=disabled`, the file is looked for before it is written.
    ///
    /// # Errors
    /// As [`Storage::write`].
    pub fn create(&self, name: &str, bytes: impl Into<Bytes>) -> Result<bool> {
        let bytes = bytes.into();
        match &self.0 {
            Place::Folder(folder) => folder.create(name, &bytes),
            #[cfg(feature = "cloud")]
            Place::Remote(remote) => remote.create(name, bytes),
        }
    }

    /// Writes a value as indented JSON, whole or not at all.
    ///
    /// # Errors
    /// As [`Storage::write`].
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        self.write(name, files::json(value).map_err(Error::json(&self.path(name)))?)
    }

    /// Copies a local file here, whole or not at all. A large one is sent to an object store in pieces; where one of them
    /// fails, all are removed.
    ///
    /// # Errors
    /// When the file cannot be read, or cannot be written here.
    pub fn upload(&self, from: &Path, name: &str) -> Result<()> {
        match &self.0 {
            Place::Folder(folder) => folder.write(name, &fs::read(from).map_err(Error::io(from))?),
            #[cfg(feature = "cloud")]
            Place::Remote(remote) => remote.upload(from, name),
        }
    }

    /// Removes files, in this order. Missing ones are no error.
    ///
    /// # Errors
    /// When one cannot be removed; those after it are left.
    pub fn remove(&self, names: &[&str]) -> Result<()> {
        names.iter().try_for_each(|name| match &self.0 {
            Place::Folder(folder) => folder.remove(name),
            #[cfg(feature = "cloud")]
            Place::Remote(remote) => remote.remove(name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_listed_is_not_an_empty_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("splits"), "a file").unwrap();
        let storage = Storage::folder(folder.path());
        assert_eq!(storage.list("shards").unwrap().len(), 0);
        assert!(storage.list("splits").is_err());
        assert_eq!(storage.list("").unwrap()[0].name, "splits");
    }
}
