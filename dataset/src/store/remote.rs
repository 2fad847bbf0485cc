//! The files of a dataset in an object store.
//!
//! Requests run on a runtime that starts with the first of them; their callers wait. The number of requests decides the
//! speed, so a caller that needs several ranges asks for all of them at once.

use std::fmt;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path as Key;
use object_store::{GetOptions, GetRange, GetResult, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use crate::error::{Error, Result, StoreFault, panic_text};
use crate::store::answer_memory;
use crate::store::cache::{self, Cache};
use crate::store::connection::Connection;
use crate::store::files;
use crate::store::limits::{PIECE, most_bytes};
use crate::store::listed_file::ListedFile;
use crate::store::location::RemoteUrl;
use crate::store::providers;
use crate::store::request_errors;
use crate::store::retry::{self, Retry, TIMEOUT_VARIABLE};

/// Bytes at the end of an object that opening it fetches: the footer and page index of a shard of some thousand rows.
const TAIL: u64 = 256 << 10;
/// Pieces that are sent or read at the same time; at 1 MB/s four of them stay within the time-out of a request.
pub(crate) const PIECES: usize = 4;
/// Ranges that are read at the same time.
const RANGES: usize = 32;
/// Threads of the runtime: they wait for sockets, and decrypt.
const THREADS: usize = 4;

/// A prefix of an object store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(crate) connection: Connection,
    prefix: Key,
    /// Without a slash at its end.
    url: String,
    retry: Retry,
    pub(crate) cache: Option<Arc<Cache>>,
    /// Whether the store has answered a request.
    has_answered: Arc<AtomicBool>,
}

impl fmt::Debug for Remote {
    /// Leaves the settings out, since they contain secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = &self.connection.endpoint;
        f.debug_struct("Remote").field("url", &self.url).field("endpoint", endpoint).finish_non_exhaustive()
    }
}

impl Remote {
    pub fn new(url: &RemoteUrl, settings: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        // A file that a secret is read from often ends in a newline.
        let settings: Vec<(String, String)> =
            settings.into_iter().map(|(name, value)| (name, value.trim().to_owned())).collect();
        let timeout = settings.iter().rfind(|(name, _)| name == TIMEOUT_VARIABLE).map(|(_, value)| value.as_str());
        let retry = Retry::parse(timeout).map_err(|fault| fault.at(&url.url))?;
        let cache = Cache::of(&settings).map_err(|message| StoreFault::Other(message).at(&url.url))?;
        let (connection, prefix) = providers::connect(url, &settings).map_err(|fault| fault.at(&url.url))?;
        Ok(Self { connection, prefix, url: url.url.clone(), retry, cache, has_answered: Arc::default() })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn url_of(&self, name: &str) -> String {
        if name.is_empty() { self.url.clone() } else { format!("{}/{name}", self.url) }
    }

    pub fn is_read_only(&self) -> bool {
        self.connection.multipart.is_none()
    }

    pub fn read(&self, name: &str) -> Result<Bytes> {
        let (key, most) = (self.key(name)?, most_bytes(name));
        self.request(name, move |store| {
            let key = key.clone();
            async move {
                let answer = store.get(&key).await?;
                files::check_size(answer.meta.size, most).map_err(never)?;
                whole(answer).await
            }
        })
    }

    /// Opens an object; also returns its size and its last bytes.
    pub fn open(&self, name: &str) -> Result<(Object, u64, Bytes)> {
        let key = self.key(name)?;
        let mut object =
            Object { remote: self.clone(), key: key.clone(), name: name.to_owned(), e_tag: None, cached: None };
        let (length, e_tag, tail) = self.request(name, move |store| {
            let key = key.clone();
            async move { open(store.as_ref(), &key).await }
        })?;
        // Without a version, ranges of an object that was replaced could be mixed.
        object.cached =
            self.cache.clone().zip(e_tag.as_deref().map(|e_tag| cache::Key::new(&self.url_of(name), e_tag)));
        object.e_tag = e_tag;
        Ok((object, length, tail))
    }

    pub fn size(&self, name: &str) -> Result<u64> {
        let key = self.key(name)?;
        self.request(name, move |store| {
            let key = key.clone();
            async move { Ok(store.head(&key).await?.size) }
        })
    }

    pub fn sha256(&self, name: &str, size: u64) -> Result<String> {
        let key = self.key(name)?;
        let pieces: Vec<Range<u64>> =
            (0..size.div_ceil(PIECE)).map(|piece| piece * PIECE..size.min((piece + 1) * PIECE)).collect();
        let mut digest = Sha256::new();
        for some in pieces.chunks(PIECES) {
            let part = |range: &Range<u64>| Part { key: key.clone(), e_tag: None, range: range.clone() };
            let wanted = some.iter().map(part).collect();
            self.fetch(name, wanted)?.iter().for_each(|piece| digest.update(piece));
        }
        Ok(files::hex(&digest.finalize()))
    }

    pub fn list(&self, below: &str) -> Result<Vec<ListedFile>> {
        self.check_writable(below)?;
        let key = self.key(below)?;
        let listed: Vec<_> = self.request(below, move |store| {
            let key = key.clone();
            async move { store.list(Some(&key)).try_collect().await }
        })?;
        let within = |key: &Key| -> Option<String> {
            let parts: Vec<_> = key.prefix_match(&self.prefix)?.collect();
            Some(parts.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join("/"))
        };
        let file =
            |meta: object_store::ObjectMeta| Some(ListedFile { name: within(&meta.location)?, bytes: meta.size });
        Ok(listed.into_iter().filter_map(file).collect())
    }

    pub fn write(&self, name: &str, bytes: Bytes) -> Result<()> {
        self.check_writable(name)?;
        let (key, payload) = (self.key(name)?, PutPayload::from_bytes(bytes));
        self.request(name, move |store| {
            let (key, payload) = (key.clone(), payload.clone());
            async move { store.put(&key, payload).await.map(drop) }
        })
    }

    /// Writes an object unless there is one of this name; false where there is one of other bytes.
    pub fn create(&self, name: &str, bytes: Bytes) -> Result<bool> {
        self.check_writable(name)?;
        let (key, payload) = (self.key(name)?, PutPayload::from_bytes(bytes.clone()));
        let created = self.request(name, move |store| {
            let (key, payload) = (key.clone(), payload.clone());
            async move { store.put_opts(&key, payload, PutMode::Create.into()).await.map(drop) }
        });
        let stored = || match self.read(name) {
            Ok(stored) => Ok(Some(stored)),
            Err(Error::Store { fault: StoreFault::NoObject, .. }) => Ok(None),
            Err(error) => Err(error),
        };
        match created {
            // An earlier try may have created it, and its answer was lost.
            Err(Error::Store { fault: StoreFault::Exists, .. }) => Ok(stored()?.is_some_and(|stored| stored == bytes)),
            Err(Error::Store { fault: StoreFault::Unconditional, .. }) => match stored()? {
                Some(stored) => Ok(stored == bytes),
                None => self.write(name, bytes).map(|()| true),
            },
            created => created.map(|()| true),
        }
    }

    /// Removes an object; a missing one is no error.
    pub fn remove(&self, name: &str) -> Result<()> {
        self.check_writable(name)?;
        let key = self.key(name)?;
        let removed = self.request(name, move |store| {
            let key = key.clone();
            async move { store.delete(&key).await }
        });
        match removed {
            Err(Error::Store { fault: StoreFault::NoObject, .. }) => Ok(()),
            other => other,
        }
    }

    pub(crate) fn check_writable(&self, name: &str) -> Result<()> {
        if self.is_read_only() { Err(StoreFault::ReadOnly.at(self.url_of(name))) } else { Ok(()) }
    }

    pub(crate) fn key(&self, name: &str) -> Result<Key> {
        let joined = [self.prefix.as_ref(), name].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>();
        Key::parse(joined.join("/")).map_err(|_| StoreFault::Location.at(self.url_of(name)))
    }

    /// Ranges of objects, in the order of `wanted`. Errors show the name.
    fn fetch(&self, name: &str, wanted: Vec<Part>) -> Result<Vec<Bytes>> {
        let (remote, file) = (self.clone(), name.to_owned());
        self.wait(name, async move {
            let get = |part: Part| remote.clone().part(file.clone(), part);
            stream::iter(wanted).map(get).buffered(RANGES).try_collect().await
        })
    }

    /// One range, read again where its answer fails or is cut off.
    async fn part(self, name: String, part: Part) -> object_store::Result<Bytes> {
        self.retried(&name, || part.get(self.connection.store.as_ref())).await
    }

    /// Makes one request, again where it fails, and waits for its answer.
    fn request<T, F>(
        &self,
        name: &str,
        request: impl Fn(Arc<dyn ObjectStore>) -> F + Send + Sync + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        let (remote, file) = (self.clone(), name.to_owned());
        self.wait(name, async move { remote.retried(&file, || request(remote.connection.store.clone())).await })
    }

    /// Makes a request until it succeeds, fails permanently, or has failed for too long.
    pub(crate) async fn retried<T, F: Future<Output = object_store::Result<T>>>(
        &self,
        name: &str,
        request: impl Fn() -> F,
    ) -> object_store::Result<T> {
        let transient = |error: &object_store::Error| {
            // Without credentials in the environment, the store's client asks the machine for some. Most machines have
            // none, so that waiting helps only where requests succeeded before.
            let has_credentials = !matches!(self.fault(error), StoreFault::Credentials { .. });
            request_errors::is_transient(error) && (has_credentials || self.has_answered.load(Ordering::Relaxed))
        };
        let report = |error: &object_store::Error, left: Duration| {
            let (url, fault, left) = (self.url_of(name), self.fault(error), left.as_secs());
            retry::report(&format!("{url}: {fault}; tries again for up to {left} s ({TIMEOUT_VARIABLE})"));
        };
        let answer = self.retry.run(request, transient, report).await;
        if answer.is_ok() {
            self.has_answered.store(true, Ordering::Relaxed);
        }
        answer
    }

    /// Runs some work on the runtime and waits for it.
    ///
    /// The caller's thread does not run any of it, so that it may belong to another runtime.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        name: &str,
        work: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T> {
        static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(THREADS).thread_name("object-store").enable_all().build()
        });
        let lost = |message: &str| {
            let message = self.connection.secrets.hidden(message);
            let settings = self.connection.provider.settings;
            let message = format!("the request broke off ({message}): are the {settings} settings right?");
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

    fn fault(&self, error: &object_store::Error) -> StoreFault {
        request_errors::fault(error, &self.connection)
    }
}

/// Size and version of an object, and its last bytes, in one request where the store allows it.
async fn open(store: &dyn ObjectStore, key: &Key) -> object_store::Result<(u64, Option<String>, Bytes)> {
    let get = |range| store.get_opts(key, GetOptions::new().with_range(Some(range)));
    let error = match get(GetRange::Suffix(TAIL)).await {
        Ok(answer) => return Ok((answer.meta.size, answer.meta.e_tag.clone(), whole(answer).await?)),
        Err(error) => error,
    };
    match store.head(key).await {
        // An empty object has no last byte.
        Ok(meta) if meta.size == 0 => Ok((0, meta.e_tag, Bytes::new())),
        // Azure has no ranges that count from the end.
        Ok(meta) if matches!(error, object_store::Error::NotSupported { .. }) => {
            let answer = get(GetRange::Bounded(meta.size.saturating_sub(TAIL)..meta.size)).await?;
            Ok((answer.meta.size, answer.meta.e_tag.clone(), whole(answer).await?))
        }
        _ => Err(error),
    }
}

/// An object as it was when it was opened.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    remote: Remote,
    key: Key,
    name: String,
    /// Version that was opened; another one is an error.
    e_tag: Option<String>,
    /// Where its ranges are kept on this machine, and under which key.
    pub(crate) cached: Option<(Arc<Cache>, cache::Key)>,
}

impl Object {
    /// One range, from the cache where it is there; else it is kept there.
    pub fn read(&self, range: Range<u64>) -> Result<Bytes> {
        let mut read = self.read_ranges(std::slice::from_ref(&range))?;
        let none = || StoreFault::Other("no answer".to_owned()).at(self.remote.url_of(&self.name));
        let (bytes, is_fetched) = read.pop().ok_or_else(none)?;
        if is_fetched {
            self.keep(&range, &bytes);
        }
        Ok(bytes)
    }

    /// Whether a range is kept on this machine.
    pub fn has_cached(&self, range: &Range<u64>) -> bool {
        self.cached.as_ref().is_some_and(|(cache, key)| cache.has(key, range))
    }

    /// Ranges, each with whether it was fetched because the cache lacks it. Those are not kept yet: [`Object::keep`].
    pub fn read_ranges(&self, ranges: &[Range<u64>]) -> Result<Vec<(Bytes, bool)>> {
        let of_cache = |range: &Range<u64>| match &self.cached {
            _ if range.is_empty() => Some(Bytes::new()),
            Some((cache, key)) => cache.get(key, range),
            None => None,
        };
        let mut found: Vec<Option<(Bytes, bool)>> =
            ranges.iter().map(|range| Some((of_cache(range)?, false))).collect();
        let missing: Vec<usize> = (0..ranges.len()).filter(|&at| found[at].is_none()).collect();
        if !missing.is_empty() {
            let (object, wanted) = (self.clone(), missing.iter().map(|&at| ranges[at].clone()).collect::<Vec<_>>());
            let fetched = self.remote.wait(&self.name, async move {
                let get = |range| object.remote.clone().part(object.name.clone(), object.part(range));
                object_store::coalesce_ranges(&wanted, get, object_store::OBJECT_STORE_COALESCE_DEFAULT).await
            })?;
            for (at, bytes) in missing.into_iter().zip(fetched) {
                found[at] = Some((bytes, true));
            }
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// Keeps the bytes of a range in the cache, if there is one.
    pub fn keep(&self, range: &Range<u64>, bytes: &[u8]) {
        if let Some((cache, key)) = &self.cached {
            cache.put(key, range, bytes);
        }
    }

    /// One range of each of several objects of one dataset, past the cache. Errors show the first name.
    pub fn fetch_each(wanted: &[(&Self, Range<u64>)]) -> Result<Vec<Bytes>> {
        let Some((first, _)) = wanted.first() else { return Ok(Vec::new()) };
        let parts = wanted.iter().map(|(object, range)| object.part(range.clone())).collect();
        first.remote.fetch(&first.name, parts)
    }

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
    async fn get(&self, store: &dyn ObjectStore) -> object_store::Result<Bytes> {
        let range = Some(GetRange::Bounded(self.range.clone()));
        let options = GetOptions { if_match: self.e_tag.clone(), range, ..GetOptions::default() };
        let answer = store.get_opts(&self.key, options).await?;
        self.check_version(answer.meta.e_tag.as_deref())?;
        whole(answer).await
    }

    /// An error where an answer is of another version than the one that was opened: some servers ignore the condition of a
    /// request, and a proxy may have kept an old answer.
    fn check_version(&self, found: Option<&str>) -> object_store::Result<()> {
        match (self.e_tag.as_deref(), found) {
            (Some(opened), Some(found)) if strong(opened) != strong(found) => Err(object_store::Error::Precondition {
                path: self.key.to_string(),
                source: format!("its ETag is {found}, that of the opened one {opened}").into(),
            }),
            _ => Ok(()),
        }
    }
}

/// An ETag without the mark of a weak one.
fn strong(e_tag: &str) -> &str {
    e_tag.trim_start_matches("W/")
}

/// An error that is not retried.
pub(crate) fn never(error: io::Error) -> object_store::Error {
    object_store::Error::NotSupported { source: error.into() }
}

/// The whole body of an answer. Its pieces are copied when they arrive, so that the connection reads the next ones into the same
/// memory.
async fn whole(answer: GetResult) -> object_store::Result<Bytes> {
    let expected = answer.range.end - answer.range.start;
    let mut body = answer_memory::take(expected as usize);
    let mut pieces = answer.into_stream();
    while let Some(piece) = pieces.try_next().await? {
        body.extend_from_slice(&piece);
    }
    if body.len() as u64 == expected {
        return Ok(answer_memory::body(body));
    }
    let message = format!("the answer ended after {} of {expected} bytes", body.len());
    Err(object_store::Error::Generic { store: "object store", source: message.into() })
}
