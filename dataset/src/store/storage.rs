//! Where a dataset lies: a folder, or a prefix of an object store (`s3://BUCKET/PREFIX`).
//!
//! The few operations that a dataset needs, on both, named by paths relative to the dataset. A folder is read with plain
//! system calls. An object store is spoken to by a runtime that starts with the first request; its callers wait. What
//! decides its speed is the number of requests, so whoever needs several ranges asks for all of them at once.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::future::Future;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::multipart::MultipartStore;
use object_store::path::Path as Key;
use object_store::{
    ClientConfigKey, GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use crate::error::{Error, Result, StoreFault, panic_text, without_passwords};
use crate::store::files::{self, MAX_JSON_BYTES, MAX_TABLE_BYTES};
pub use crate::store::retry::ending;
use crate::store::retry::{Retry, TIMEOUT_VARIABLE, is_transient};

/// Bytes at the end of an object that opening it brings along: the footer and page index of a shard of some thousand
/// rows.
const TAIL: u64 = 256 << 10;
/// Bytes of one piece of an object that is sent or read as a whole.
const PIECE: u64 = 8 << 20;
/// Pieces under way at the same time; four fit a line of 1 MB/s into the time-out of a request.
const PIECES: usize = 4;
/// Ranges under way at the same time.
const RANGES: usize = 32;
/// Threads of the runtime: they wait for sockets, and decrypt.
const THREADS: usize = 4;

/// Where the files of a dataset lie. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Storage(Place);

#[derive(Clone, Debug)]
enum Place {
    Folder(PathBuf),
    Bucket(Bucket),
}

#[derive(Clone)]
struct Bucket {
    store: Arc<AmazonS3>,
    prefix: Key,
    /// Without a slash at its end.
    url: String,
    /// The server, as errors name it: without user and password.
    endpoint: String,
    /// User and password in the setting of the endpoint, up to the `@`: no message shows them.
    login: Option<String>,
    retry: Retry,
    /// Whether the store answered a request yet.
    has_answered: Arc<AtomicBool>,
}

impl fmt::Debug for Bucket {
    /// The settings stay out of it, since they hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("url", &self.url).field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// A file below a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Relative to the dataset.
    pub name: String,
    pub bytes: u64,
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Folder(folder) => folder.display().fmt(f),
            Place::Bucket(bucket) => f.write_str(&bucket.url),
        }
    }
}

impl Storage {
    /// The place that a path or URL names: what contains `://` is a URL. Nothing is read yet.
    ///
    /// # Errors
    /// When the URL is none of `file:///PATH` and `s3://BUCKET/PREFIX`, or the settings of the store make no sense.
    pub fn at(location: impl AsRef<OsStr>) -> Result<Self> {
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Self::at_with(location, std::env::vars_os().filter_map(text))
    }

    /// As [`Storage::at`], with settings of the store (`AWS_ENDPOINT_URL` …) from elsewhere than the environment.
    pub fn at_with(location: impl AsRef<OsStr>, settings: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let location = location.as_ref();
        match location.to_str().and_then(|text| Some((text, text.split_once("://")?))) {
            None => Ok(Self::folder(Path::new(location))),
            Some((url, ("file", _))) => {
                let parsed = url::Url::parse(url).ok().and_then(|parsed| parsed.to_file_path().ok());
                parsed.map(Self::folder).ok_or_else(|| StoreFault::Location.at(url))
            }
            Some((url, ("s3" | "s3a", rest))) => Ok(Self(Place::Bucket(Bucket::new(url, rest, settings)?))),
            Some((url, _)) => Err(StoreFault::Location.at(url)),
        }
    }

    /// A folder of this machine.
    pub fn folder(path: impl Into<PathBuf>) -> Self {
        Self(Place::Folder(path.into()))
    }

    /// The folder, where the place is one.
    pub fn as_folder(&self) -> Option<&Path> {
        match &self.0 {
            Place::Folder(folder) => Some(folder),
            Place::Bucket(_) => None,
        }
    }

    /// Path or URL of a file (`""`: of the dataset), as errors tell it.
    pub fn path(&self, name: &str) -> PathBuf {
        match &self.0 {
            Place::Folder(folder) if name.is_empty() => folder.clone(),
            Place::Folder(folder) => folder.join(name),
            Place::Bucket(bucket) => PathBuf::from(bucket.url_of(name)),
        }
    }

    /// A whole small file.
    pub fn read(&self, name: &str) -> Result<Bytes> {
        match &self.0 {
            Place::Folder(folder) => {
                let path = folder.join(name);
                Ok(files::read(&path, most_bytes(name))?.into())
            }
            Place::Bucket(bucket) => {
                let (key, most) = (bucket.key(name)?, most_bytes(name));
                bucket.request(name, move |store| {
                    let key = key.clone();
                    async move {
                        let found = store.get(&key).await?;
                        files::check_size(found.meta.size, most).map_err(never)?;
                        whole(found).await
                    }
                })
            }
        }
    }

    /// A whole small file; `None` where there is none of this name.
    pub fn read_if_there(&self, name: &str) -> Result<Option<Bytes>> {
        match self.read(name) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Error::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(Error::Store { fault: StoreFault::NoObject, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A JSON file.
    pub fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        serde_json::from_slice(&self.read(name)?).map_err(Error::json(&self.path(name)))
    }

    /// Opens a file that is read by ranges. Also returns its last bytes, where they came with the same request; for a
    /// file of a folder there are none.
    pub fn open(&self, name: &str) -> Result<(StoredFile, Bytes)> {
        match &self.0 {
            Place::Folder(folder) => {
                let path = folder.join(name);
                let file = files::open(&path).map_err(Error::io(&path))?;
                let length = file.metadata().map_err(Error::io(&path))?.len();
                Ok((StoredFile { length, source: Source::File(file) }, Bytes::new()))
            }
            Place::Bucket(bucket) => {
                let key = bucket.key(name)?;
                let mut object =
                    Object { bucket: bucket.clone(), key: key.clone(), name: name.to_owned(), e_tag: None };
                let (length, e_tag, tail) = bucket.request(name, move |store| {
                    let key = key.clone();
                    async move {
                        let options = GetOptions::new().with_range(Some(GetRange::Suffix(TAIL)));
                        match store.get_opts(&key, options).await {
                            Ok(found) => Ok((found.meta.size, found.meta.e_tag.clone(), whole(found).await?)),
                            Err(error) => match store.head(&key).await {
                                // An empty object has no last byte.
                                Ok(found) if found.size == 0 => Ok((0, found.e_tag, Bytes::new())),
                                _ => Err(error),
                            },
                        }
                    }
                })?;
                object.e_tag = e_tag;
                Ok((StoredFile { length, source: Source::Object(object) }, tail))
            }
        }
    }

    /// Size of a file in bytes.
    pub fn size(&self, name: &str) -> Result<u64> {
        match &self.0 {
            Place::Folder(folder) => {
                let path = folder.join(name);
                Ok(fs::metadata(&path).map_err(Error::io(&path))?.len())
            }
            Place::Bucket(bucket) => {
                let key = bucket.key(name)?;
                bucket.request(name, move |store| {
                    let key = key.clone();
                    async move { Ok(store.head(&key).await?.size) }
                })
            }
        }
    }

    /// SHA-256 of a file that [`Storage::read`] would read, lower-case hexadecimal.
    pub fn sha256(&self, name: &str) -> Result<String> {
        let size = self.size(name)?;
        files::check_size(size, most_bytes(name)).map_err(Error::io(&self.path(name)))?;
        let bucket = match &self.0 {
            Place::Folder(folder) => return files::sha256(&folder.join(name)),
            Place::Bucket(bucket) => bucket,
        };
        let key = bucket.key(name)?;
        let pieces: Vec<Range<u64>> =
            (0..size.div_ceil(PIECE)).map(|piece| piece * PIECE..size.min((piece + 1) * PIECE)).collect();
        let mut digest = Sha256::new();
        for some in pieces.chunks(PIECES) {
            let part = |range: &Range<u64>| Part { key: key.clone(), e_tag: None, range: range.clone() };
            let wanted = some.iter().map(part).collect();
            bucket.fetch(name, wanted)?.iter().for_each(|piece| digest.update(piece));
        }
        Ok(files::hex(&digest.finalize()))
    }

    /// The files below a folder of the dataset (`""`: below all of it), sorted by name. A folder that is missing holds
    /// none. In a local folder this goes no deeper than one level.
    pub fn list(&self, below: &str) -> Result<Vec<Listed>> {
        let mut found = match &self.0 {
            Place::Folder(folder) => {
                let path = folder.join(below);
                let entries = match fs::read_dir(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                    entries => entries.map_err(Error::io(&path))?,
                };
                let mut found = Vec::new();
                for entry in entries {
                    let entry = entry.map_err(Error::io(&path))?;
                    let name = Path::new(below).join(entry.file_name()).to_string_lossy().into_owned();
                    match entry.metadata() {
                        Ok(metadata) => found.push(Listed { name, bytes: metadata.len() }),
                        // Renamed or removed meanwhile.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(error) => return Err(Error::io(&entry.path())(error)),
                    }
                }
                found
            }
            Place::Bucket(bucket) => {
                let key = bucket.key(below)?;
                let found: Vec<_> = bucket.request(below, move |store| {
                    let key = key.clone();
                    async move { store.list(Some(&key)).try_collect().await }
                })?;
                let within = |key: &Key| -> Option<String> {
                    let parts: Vec<_> = key.prefix_match(&bucket.prefix)?.collect();
                    Some(parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/"))
                };
                found
                    .into_iter()
                    .filter_map(|meta| Some(Listed { name: within(&meta.location)?, bytes: meta.size }))
                    .collect()
            }
        };
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Writes a file, whole or not at all.
    pub fn write(&self, name: &str, bytes: impl Into<Bytes>) -> Result<()> {
        let bytes = bytes.into();
        match &self.0 {
            Place::Folder(folder) => {
                let path = folder.join(name);
                if let Some(parent) = path.parent() {
                    files::make_folder(parent)?;
                }
                files::write_atomic(&path, &bytes)
            }
            Place::Bucket(bucket) => {
                let (key, payload) = (bucket.key(name)?, PutPayload::from_bytes(bytes));
                bucket.request(name, move |store| {
                    let (key, payload) = (key.clone(), payload.clone());
                    async move { store.put(&key, payload).await.map(drop) }
                })
            }
        }
    }

    /// Writes a value as indented JSON.
    pub fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<()> {
        self.write(name, files::json(value).map_err(Error::json(&self.path(name)))?)
    }

    /// Copies a local file here, whole or not at all; a large one in pieces, which are thrown away where one fails.
    pub fn upload(&self, from: &Path, name: &str) -> Result<()> {
        let bucket = match &self.0 {
            Place::Bucket(bucket) => bucket,
            Place::Folder(_) => return self.write(name, fs::read(from).map_err(Error::io(from))?),
        };
        let file = File::open(from).map_err(Error::io(from))?;
        let length = file.metadata().map_err(Error::io(from))?.len();
        if length <= PIECE {
            return self.write(name, fs::read(from).map_err(Error::io(from))?);
        }
        let upload = Upload { bucket: bucket.clone(), name: name.to_owned(), key: bucket.key(name)?, length };
        bucket.wait(name, upload.send(file))
    }

    /// Removes files, in this order; those that are missing already are no error.
    pub fn remove(&self, names: &[&str]) -> Result<()> {
        for name in names {
            let removed = match &self.0 {
                Place::Folder(folder) => {
                    let path = folder.join(name);
                    fs::remove_file(&path).map_err(Error::io(&path))
                }
                Place::Bucket(bucket) => {
                    let key = bucket.key(name)?;
                    bucket.request(name, move |store| {
                        let key = key.clone();
                        async move { store.delete(&key).await }
                    })
                }
            };
            match removed {
                Err(Error::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(Error::Store { fault: StoreFault::NoObject, .. }) => {}
                other => other?,
            }
        }
        Ok(())
    }
}

/// A file that is read by ranges, from any number of threads at the same time.
///
/// A file of this machine is read by position: a file that shrinks under its reader gives an error (a memory map would
/// end the process).
#[derive(Debug)]
pub struct StoredFile {
    length: u64,
    source: Source,
}

#[derive(Debug)]
enum Source {
    File(File),
    Object(Object),
}

#[derive(Clone, Debug)]
struct Object {
    bucket: Bucket,
    key: Key,
    name: String,
    /// Which version was opened: no other one is read.
    e_tag: Option<String>,
}

impl Object {
    fn part(&self, range: Range<u64>) -> Part {
        Part { key: self.key.clone(), e_tag: self.e_tag.clone(), range }
    }
}

/// A range of an object, of the version that was opened where this is known.
struct Part {
    key: Key,
    e_tag: Option<String>,
    range: Range<u64>,
}

impl Part {
    async fn get(&self, store: &AmazonS3) -> object_store::Result<Bytes> {
        let range = Some(GetRange::Bounded(self.range.clone()));
        let options = GetOptions { if_match: self.e_tag.clone(), range, ..GetOptions::default() };
        whole(store.get_opts(&self.key, options).await?).await
    }
}

/// The largest file of this name that is read into memory.
fn most_bytes(name: &str) -> u64 {
    if name.ends_with(".json") { MAX_JSON_BYTES } else { MAX_TABLE_BYTES }
}

/// An error that no further try can help.
fn never(error: io::Error) -> object_store::Error {
    object_store::Error::NotSupported { source: error.into() }
}

/// The body of an answer, all of it.
async fn whole(answer: GetResult) -> object_store::Result<Bytes> {
    let expected = answer.range.end - answer.range.start;
    let body = answer.bytes().await?;
    if body.len() as u64 == expected {
        return Ok(body);
    }
    let message = format!("the answer ended after {} of {expected} bytes", body.len());
    Err(object_store::Error::Generic { store: "S3", source: message.into() })
}

/// A large file that is sent in pieces.
struct Upload {
    bucket: Bucket,
    name: String,
    key: Key,
    length: u64,
}

impl Upload {
    /// Sends all pieces; where one fails, those that were sent are thrown away.
    async fn send(self, file: File) -> object_store::Result<()> {
        let (store, key) = (&self.bucket.store, &self.key);
        let id = self.bucket.retried(&self.name, || store.create_multipart(key)).await?;
        let sent = self.send_pieces(&id, &file).await;
        if sent.is_err() {
            let _ = store.abort_multipart(key, &id).await;
        }
        sent
    }

    async fn send_pieces(&self, id: &String, file: &File) -> object_store::Result<()> {
        let (store, key) = (&self.bucket.store, &self.key);
        let piece = move |number: u64| async move {
            let start = number * PIECE;
            let mut piece = vec![0; PIECE.min(self.length - start) as usize];
            // The runtime has nothing else to do than to send this file: reading may hold it up.
            file.read_exact_at(&mut piece, start).map_err(never)?;
            let payload = PutPayload::from(piece);
            self.bucket.retried(&self.name, || store.put_part(key, id, number as usize, payload.clone())).await
        };
        let pieces = 0..self.length.div_ceil(PIECE);
        let parts: Vec<_> = stream::iter(pieces).map(piece).buffered(PIECES).try_collect().await?;
        let tries = AtomicUsize::new(0);
        let complete = || {
            tries.fetch_add(1, Ordering::Relaxed);
            store.complete_multipart(key, id, parts.clone())
        };
        match self.bucket.retried(&self.name, complete).await {
            // An earlier try completed the upload, and its answer was lost.
            Err(object_store::Error::NotFound { .. }) if tries.into_inner() > 1 => Ok(()),
            completed => completed.map(drop),
        }
    }
}

/// Reads a file in pieces, so that neither memory nor the number of requests grows much.
struct Pieces<'a> {
    file: &'a StoredFile,
    next: u64,
    piece: io::Cursor<Bytes>,
}

impl io::Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.position() == self.piece.get_ref().len() as u64 {
            let end = self.file.length.min(self.next + PIECE);
            self.piece = io::Cursor::new(self.file.read(self.next..end).map_err(io::Error::other)?);
            self.next = end;
        }
        self.piece.read(buffer)
    }
}

impl StoredFile {
    /// Size in bytes, as it was when the file was opened.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The open file, where it lies on this machine.
    pub fn as_file(&self) -> Option<&File> {
        match &self.source {
            Source::File(file) => Some(file),
            Source::Object(_) => None,
        }
    }

    /// One range.
    ///
    /// # Errors
    /// When it ends after the end of the file.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes> {
        self.check(&range)?;
        match &self.source {
            Source::File(file) => {
                let mut buffer = vec![0; (range.end - range.start) as usize];
                file.read_exact_at(&mut buffer, range.start).map_err(|e| Error::Invalid(e.to_string()))?;
                Ok(buffer.into())
            }
            Source::Object(object) if !range.is_empty() => {
                let mut found = object.bucket.fetch(&object.name, vec![object.part(range)])?;
                found.pop().ok_or_else(|| StoreFault::Other("no answer".to_owned()).at(object.url()))
            }
            Source::Object(_) => Ok(Bytes::new()),
        }
    }

    /// Several ranges; of an object in few requests at the same time, since neighbors are read at once.
    pub fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match &self.source {
            Source::File(_) => ranges.iter().map(|range| self.read(range.clone())).collect(),
            Source::Object(object) => {
                ranges.iter().try_for_each(|range| self.check(range))?;
                let (bucket, object, ranges) = (object.bucket.clone(), object.clone(), ranges.to_vec());
                bucket.wait(&object.name.clone(), async move {
                    let get = |range| object.bucket.clone().part(object.name.clone(), object.part(range));
                    object_store::coalesce_ranges(&ranges, get, object_store::OBJECT_STORE_COALESCE_DEFAULT).await
                })
            }
        }
    }

    /// The whole file from its beginning, a piece at a time.
    pub fn reader(&self) -> impl io::Read + '_ {
        Pieces { file: self, next: 0, piece: io::Cursor::default() }
    }

    /// One range of each of several files, all at the same time.
    pub fn read_each(wanted: &[(&Self, Range<u64>)]) -> Result<Vec<Bytes>> {
        let mut objects = Vec::with_capacity(wanted.len());
        for (file, range) in wanted {
            match &file.source {
                Source::Object(object) => objects.push((object, range.clone())),
                Source::File(_) => return wanted.iter().map(|(file, range)| file.read(range.clone())).collect(),
            }
        }
        let Some((first, _)) = objects.first() else { return Ok(Vec::new()) };
        let parts = objects.iter().map(|(object, range)| object.part(range.clone())).collect();
        first.bucket.fetch(&first.name, parts)
    }

    fn check(&self, range: &Range<u64>) -> Result<()> {
        if range.start > range.end || range.end > self.length {
            return Err(Error::Invalid(format!("bytes {range:?} of a file of {} bytes", self.length)));
        }
        Ok(())
    }
}

impl Object {
    fn url(&self) -> String {
        self.bucket.url_of(&self.name)
    }
}

impl Bucket {
    fn new(url: &str, rest: &str, settings: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let url = url.trim_end_matches('/');
        let (name, prefix) = rest.trim_end_matches('/').split_once('/').unwrap_or((rest.trim_end_matches('/'), ""));
        let prefix = Key::parse(prefix).map_err(|_| StoreFault::Location.at(url))?;
        // What looks like a login is none: credentials come from the settings.
        if name.is_empty() || name.contains('@') {
            return Err(StoreFault::Location.at(url));
        }
        let mut builder = AmazonS3Builder::new();
        let mut timeout = None;
        for (name, value) in settings {
            // A file that a secret is read from often ends in a newline.
            let value = value.trim();
            if name == TIMEOUT_VARIABLE {
                timeout = Some(value.to_owned());
            } else if let (true, Ok(key)) = (name.starts_with("AWS_"), name.to_ascii_lowercase().parse()) {
                builder = builder.with_config(key, value);
            }
        }
        let retry = Retry::parse(timeout.as_deref()).map_err(|fault| fault.at(url))?;
        let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
        let builder = builder.with_bucket_name(name).with_retry(once);
        let set = |key: AmazonS3ConfigKey| builder.get_config_value(&key);
        let endpoint = set(AmazonS3ConfigKey::S3Endpoint).or_else(|| set(AmazonS3ConfigKey::Endpoint));
        let plain = set(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp)).unwrap_or_default().to_lowercase();
        let plain = ["1", "true", "on", "yes", "y"].contains(&plain.as_str());
        let endpoint = endpoint.unwrap_or_else(|| "Amazon S3".to_owned());
        let authority = endpoint.split_once("://").map_or(endpoint.as_str(), |(_, rest)| rest);
        let login = authority.rfind('@').map(|at| authority[..=at].to_owned());
        let is_plain_http = endpoint.starts_with("http://");
        let endpoint = without_login(&endpoint, login.as_deref());
        if is_plain_http && !plain {
            return Err(StoreFault::PlainHttp { endpoint }.at(url));
        }
        let refused = |error| StoreFault::Other(without_login(&told(&error).1, login.as_deref())).at(url);
        let store = Arc::new(builder.build().map_err(refused)?);
        let has_answered = Arc::new(AtomicBool::new(false));
        Ok(Self { store, prefix, url: url.to_owned(), endpoint, login, retry, has_answered })
    }

    fn url_of(&self, name: &str) -> String {
        if name.is_empty() { self.url.clone() } else { format!("{}/{name}", self.url) }
    }

    fn key(&self, name: &str) -> Result<Key> {
        let joined = [self.prefix.as_ref(), name].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>();
        Key::parse(joined.join("/")).map_err(|_| StoreFault::Location.at(self.url_of(name)))
    }

    /// Ranges of objects, in the order in which they are asked for. Errors tell the name.
    fn fetch(&self, name: &str, wanted: Vec<Part>) -> Result<Vec<Bytes>> {
        let (bucket, file) = (self.clone(), name.to_owned());
        self.wait(name, async move {
            let get = |part: Part| bucket.clone().part(file.clone(), part);
            stream::iter(wanted).map(get).buffered(RANGES).try_collect().await
        })
    }

    /// One range, read again where its answer fails or is cut off.
    async fn part(self, name: String, part: Part) -> object_store::Result<Bytes> {
        self.retried(&name, || part.get(&self.store)).await
    }

    /// Makes one request, again where it fails, and waits for its answer.
    fn request<T, F>(&self, name: &str, request: impl Fn(Arc<AmazonS3>) -> F + Send + Sync + 'static) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        let (bucket, file) = (self.clone(), name.to_owned());
        self.wait(name, async move { bucket.retried(&file, || request(bucket.store.clone())).await })
    }

    /// Makes a request until it succeeds, fails for good, or has failed for too long.
    async fn retried<T, F: Future<Output = object_store::Result<T>>>(
        &self,
        name: &str,
        request: impl Fn() -> F,
    ) -> object_store::Result<T> {
        let transient = |error: &object_store::Error| {
            // Without credentials in the environment the machine is asked for some, and it mostly has none: waiting for
            // them helps only where there were some before.
            let has_credentials = !matches!(self.fault(error), StoreFault::Credentials(_));
            is_transient(error, &told(error).0) && (has_credentials || self.has_answered.load(Ordering::Relaxed))
        };
        let report = |error: &object_store::Error, left: Duration| {
            crate::cli_eprintln!(
                "{}: {}; tries again for up to {} s ({TIMEOUT_VARIABLE})",
                self.url_of(name),
                self.fault(error),
                left.as_secs()
            );
        };
        let answer = self.retry.run(request, transient, report).await;
        if answer.is_ok() {
            self.has_answered.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Lets the runtime do some work and waits for it.
    ///
    /// The caller's thread takes no part in it, so that it may belong to another runtime.
    fn wait<T: Send + 'static>(
        &self,
        name: &str,
        work: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T> {
        static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(THREADS).thread_name("object-store").enable_all().build()
        });
        let lost = |message: &str| {
            let message = without_login(message, self.login.as_deref());
            let message = format!("the request broke off ({message}): are the AWS_ settings right?");
            StoreFault::Other(message).at(self.url_of(name))
        };
        let runtime = RUNTIME.as_ref().map_err(|error| lost(&error.to_string()))?;
        let (sender, receiver) = mpsc::sync_channel(1);
        let task = runtime.spawn(work);
        runtime.spawn(async move {
            let _ = sender.send(task.await);
        });
        let done = receiver.recv().map_err(|_| lost("its runtime ended"))?;
        let done = done.map_err(|error| match error.try_into_panic() {
            Ok(panic) => lost(panic_text(panic.as_ref())),
            Err(error) => lost(&error.to_string()),
        })?;
        done.map_err(|error| self.fault(&error).at(self.url_of(name)))
    }

    /// What an error of the store comes down to, without the password of the endpoint.
    fn fault(&self, error: &object_store::Error) -> StoreFault {
        let (all, innermost) = told(error);
        let innermost = without_login(&innermost, self.login.as_deref());
        if all.contains("/latest/api/token") || all.contains("/latest/meta-data/") {
            // Nothing in the environment: the last place to ask is the machine itself.
            return StoreFault::Credentials("there are none in the environment".to_owned());
        }
        match error {
            _ if all.contains("<Code>NoSuchBucket</Code>") => StoreFault::NoBucket,
            object_store::Error::NotFound { .. } => StoreFault::NoObject,
            object_store::Error::Precondition { .. } => StoreFault::Replaced,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                StoreFault::Credentials(innermost)
            }
            _ if is_silent(error) => StoreFault::Unreachable { endpoint: self.endpoint.clone(), cause: innermost },
            _ => StoreFault::Other(innermost),
        }
    }
}

/// A text without the user and password of an endpoint, and without those in any other URL.
fn without_login(text: &str, login: Option<&str>) -> String {
    match login {
        Some(login) => without_passwords(&text.replace(login, "***@")),
        None => without_passwords(text),
    }
}

fn chain<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

/// Whether there was no connection, or no answer in time.
fn is_silent(error: &object_store::Error) -> bool {
    use HttpErrorKind::{Connect, Interrupted, Request, Timeout};
    let kind = chain(error).find_map(|error| Some(error.downcast_ref::<HttpError>()?.kind()));
    matches!(kind, Some(Connect | Interrupted | Request | Timeout))
}

/// What an error says, with all its causes; and its innermost cause, or what the store answered, in one line.
fn told(error: &object_store::Error) -> (String, String) {
    let all: Vec<String> = chain(error).map(ToString::to_string).collect();
    let innermost = all.last().cloned().unwrap_or_default();
    let tag = |name: &str| {
        let (_, rest) = innermost.split_once(&format!("<{name}>"))?;
        Some(rest.split_once("</")?.0.to_owned())
    };
    let answer = tag("Code").map(|code| format!("{code}: {}", tag("Message").unwrap_or_default()));
    let line = answer.unwrap_or_else(|| innermost.split_whitespace().collect::<Vec<_>>().join(" "));
    (all.join(": "), line)
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
