//! A bounded cache of ranges of remote objects on a disk of this machine, shared by all processes that name its folder.
//!
//! A range has a file of its own, named by a digest of URL, version (ETag) and range: an object that was replaced has other
//! files. A file is written under a temporary name and renamed; its length and a CRC-32 at its end detect what a power failure
//! left. The files that were not used for the longest time are removed first. The cache never makes a read fail: where it
//! cannot be read or written, the range is fetched.
//!
//! An image is read as from a local shard: by one call, into a buffer that is used again, with one pass over its bytes. The
//! CRC-32 of its file and the checksum of its page are of the same bytes, so that the reader computes it once for both
//! (`Cache::read_into`).

use std::fs::{self, File, FileTimes};
use std::io::{IoSliceMut, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::store::files;

/// Environment variable with the folder of the cache; without it nothing is cached.
pub const FOLDER_VARIABLE: &str = "MRM_CACHE_DIR";
/// Environment variable with the size of the cache.
pub const SIZE_VARIABLE: &str = "MRM_CACHE_SIZE";
/// Default of [`SIZE_VARIABLE`]: 50 GiB.
const SIZE: u64 = 50 << 30;

/// The cache is looked through after every such part of its size was written, and this much room is made then.
const PART: u64 = 16;
/// The use of a file is noted when the last note is older.
const NOTED: Duration = Duration::from_mins(1);
/// Age of a temporary file that belongs to a process that was killed.
const ABANDONED: Duration = Duration::from_hours(1);
/// Bytes of the checksum at the end of a file.
const TAIL: usize = 4;
/// Folder of temporary files.
const TEMPORARY: &str = "tmp";

/// A cache in a folder.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    /// Most bytes of all files.
    most: u64,
    /// Bytes that this process wrote since it last looked through the folder.
    written: AtomicU64,
    /// Number of the next temporary file of this process.
    next: AtomicU64,
}

impl Cache {
    /// The cache of these settings; `None` where no folder is set.
    ///
    /// # Errors
    /// A sentence, where the size is invalid or the folder cannot be made.
    pub fn of(settings: &[(String, String)]) -> Result<Option<Arc<Self>>, String> {
        let value = |wanted: &str| settings.iter().rfind(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
        let Some(folder) = value(FOLDER_VARIABLE).filter(|folder| !folder.is_empty()) else { return Ok(None) };
        let size = value(SIZE_VARIABLE).map_or(Ok(SIZE), |text| {
            bytes(text).ok_or_else(|| format!("{SIZE_VARIABLE} is `{text}`: give a number of bytes such as 500G, 2T"))
        })?;
        Self::at(Path::new(folder), size).map(Some)
    }

    fn at(folder: &Path, most: u64) -> Result<Arc<Self>, String> {
        let made = fs::create_dir_all(folder.join(TEMPORARY));
        made.map_err(|error| format!("{FOLDER_VARIABLE}: {}: {error}", folder.display()))?;
        // The first range that is written makes the cache look through what earlier processes left.
        let written = AtomicU64::new(most / PART);
        Ok(Arc::new(Self { folder: folder.to_path_buf(), most, written, next: AtomicU64::new(0) }))
    }

    /// Whether a range is here. It may be removed before it is read.
    pub fn has(&self, key: &Key, range: &Range<u64>) -> bool {
        fs::metadata(self.path(key, range)).is_ok_and(|about| about.len() == stored_length(range))
    }

    /// Fills two buffers, one after the other, with the bytes of a range, where they are here. Returns the CRC-32 that they must
    /// have: the caller compares it, and calls [`Cache::forget`] where it differs.
    pub fn read_into(&self, key: &Key, range: &Range<u64>, head: &mut [u8], rest: &mut [u8]) -> Option<u32> {
        read(&self.open(key, range)?, head, rest)
    }

    /// The bytes of a range, where they are here and have their CRC-32.
    pub fn get(&self, key: &Key, range: &Range<u64>) -> Option<Bytes> {
        let file = self.open(key, range)?;
        let mut bytes = vec![0; usize::try_from(range.end - range.start).ok()?];
        if read(&file, &mut [], &mut bytes)? == crc32fast::hash(&bytes) {
            return Some(bytes.into());
        }
        self.forget(key, range);
        None
    }

    /// Opens the file of a range and notes its use. A file of another length is removed.
    fn open(&self, key: &Key, range: &Range<u64>) -> Option<File> {
        let file = File::open(self.path(key, range)).ok()?;
        let about = file.metadata().ok()?;
        if about.len() != stored_length(range) {
            self.forget(key, range);
            return None;
        }
        if about.modified().is_ok_and(|used| used.elapsed().is_ok_and(|age| age > NOTED)) {
            let _ = file.set_times(FileTimes::new().set_modified(SystemTime::now()));
        }
        Some(file)
    }

    /// Removes a damaged range.
    pub fn forget(&self, key: &Key, range: &Range<u64>) {
        let _ = fs::remove_file(self.path(key, range));
    }

    /// Keeps the bytes of a range.
    pub fn put(&self, key: &Key, range: &Range<u64>, bytes: &[u8]) {
        let length = (bytes.len() + TAIL) as u64;
        // A range that would push out most of the others is not kept.
        if length > self.most / PART {
            return;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let temporary = self.folder.join(TEMPORARY).join(format!("{}-{number}", std::process::id()));
        let path = self.path(key, range);
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.write_all(&crc32fast::hash(bytes).to_le_bytes())?;
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::rename(&temporary, &path)
        };
        if write().is_err() {
            let _ = fs::remove_file(&temporary);
            return;
        }
        let written = self.written.fetch_add(length, Ordering::Relaxed) + length;
        if written > self.most / PART && self.written.swap(0, Ordering::Relaxed) > self.most / PART {
            self.make_room();
        }
    }

    fn path(&self, Key(key): &Key, range: &Range<u64>) -> PathBuf {
        let range = [range.start.to_le_bytes(), range.end.to_le_bytes()];
        let name = files::hex(&key.clone().chain_update(range.as_flattened()).finalize());
        self.folder.join(&name[..2]).join(&name[2..])
    }

    /// Removes what was not used for the longest time, and what killed processes left. Does nothing while another process does
    /// it.
    fn make_room(&self) {
        let lock_path = self.folder.join("lock");
        let Ok(lock) = File::options().write(true).create(true).truncate(false).open(&lock_path) else { return };
        if !files::lock(&lock, &lock_path).unwrap_or(false) {
            return;
        }
        let mut found = Vec::new();
        for folder in entries(&self.folder) {
            let is_temporary = folder.ends_with(TEMPORARY);
            for path in entries(&folder) {
                let Ok(about) = fs::metadata(&path) else { continue };
                let used = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                if !is_temporary {
                    found.push((used, about.len(), path));
                } else if used.elapsed().is_ok_and(|age| age > ABANDONED) {
                    let _ = fs::remove_file(path);
                }
            }
        }
        // Room for what all processes write until the next look.
        let goal = self.most - self.most / PART * 2;
        let mut total: u64 = found.iter().map(|(_, bytes, _)| bytes).sum();
        found.sort_unstable();
        for (_, bytes, path) in found {
            if total <= goal {
                break;
            }
            if fs::remove_file(path).is_ok() {
                total -= bytes;
            }
        }
    }
}

/// URL and version of an object, digested.
#[derive(Clone, Debug)]
pub(crate) struct Key(Sha256);

impl Key {
    pub fn new(url: &str, e_tag: &str) -> Self {
        let lengths = [url.len() as u64, e_tag.len() as u64].map(u64::to_le_bytes);
        Self(Sha256::new().chain_update(lengths.as_flattened()).chain_update(url).chain_update(e_tag))
    }
}

/// Fills two buffers with the bytes of a range from its file; returns the CRC-32 at its end.
fn read(file: &File, head: &mut [u8], rest: &mut [u8]) -> Option<u32> {
    let mut crc32 = [0; TAIL];
    let mut buffers = [IoSliceMut::new(head), IoSliceMut::new(rest), IoSliceMut::new(&mut crc32)];
    files::read_buffers(file, 0, &mut buffers).ok()?;
    Some(u32::from_le_bytes(crc32))
}

/// Length of the file of a range.
fn stored_length(range: &Range<u64>) -> u64 {
    range.end - range.start + TAIL as u64
}

/// The paths in a folder; none where it cannot be listed.
fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default()
}

/// A number of bytes: `1000`, `64M`, `500G`, `2T`, in powers of 1024.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let (number, shift) = match text.char_indices().last()? {
        (at, 'k' | 'K') => (&text[..at], 10),
        (at, 'm' | 'M') => (&text[..at], 20),
        (at, 'g' | 'G') => (&text[..at], 30),
        (at, 't' | 'T') => (&text[..at], 40),
        _ => (text, 0),
    };
    let number: u64 = number.trim().parse().ok()?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(folder: &Path) -> u64 {
        let of = |path: PathBuf| fs::metadata(path).map_or(0, |about| about.len());
        entries(folder).iter().flat_map(|inner| entries(inner)).map(of).sum()
    }

    #[test]
    fn a_range_is_that_of_its_object_and_version() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path(), 1 << 20).unwrap();
        let key = Key::new("s3://a/b", "1");
        assert_eq!(cache.get(&key, &(3..8)), None);
        cache.put(&key, &(3..8), b"bytes");
        assert_eq!(cache.get(&key, &(3..8)).as_deref(), Some(b"bytes".as_slice()));
        for (other, range) in
            [(Key::new("s3://a/b", "2"), 3..8), (Key::new("s3://a/c", "1"), 3..8), (key.clone(), 3..7)]
        {
            assert_eq!(cache.get(&other, &range), None);
        }
        assert!(cache.has(&key, &(3..8)) && !cache.has(&key, &(3..7)));
        let (mut head, mut rest) = ([0; 2], [0; 3]);
        let crc32 = Some(crc32fast::hash(b"bytes"));
        assert_eq!(cache.read_into(&key, &(3..8), &mut head, &mut rest), crc32);
        assert_eq!((&head, &rest), (b"by", b"tes"));
        // Another process finds it, too.
        assert!(Cache::at(folder.path(), 1 << 20).unwrap().get(&key, &(3..8)).is_some());
        // What was cut off or changed is not used, and goes away.
        for damage in
            [&(|bytes: &mut Vec<u8>| bytes.truncate(6)) as &dyn Fn(&mut Vec<u8>), &|bytes| bytes[2] ^= 1, &Vec::clear]
        {
            cache.put(&key, &(3..8), b"bytes");
            let path = cache.path(&key, &(3..8));
            let mut content = fs::read(&path).unwrap();
            damage(&mut content);
            fs::write(&path, content).unwrap();
            assert!(cache.get(&key, &(3..8)).is_none() && !path.exists());
        }
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_was_used_last() {
        let folder = tempfile::tempdir().unwrap();
        let most = 64 << 10;
        let cache = Cache::at(folder.path(), most).unwrap();
        let key = Key::new("s3://a/b", "1");
        let range = |at: u64| at * 1000..at * 1000 + 1000;
        let old = SystemTime::now() - Duration::from_hours(2);
        let abandoned = folder.path().join(TEMPORARY).join("1-1");
        fs::write(&abandoned, "half").unwrap();
        File::options().write(true).open(&abandoned).unwrap().set_modified(old).unwrap();
        for at in 0..200 {
            cache.put(&key, &range(at), &[at as u8; 1000]);
            // The first one is used again and again; all others grow old.
            let path = cache.path(&key, &range(at));
            File::options().write(true).open(&path).unwrap().set_modified(old + Duration::from_secs(at)).unwrap();
            assert!(cache.get(&key, &range(0)).is_some(), "after {at}");
            assert!(size(folder.path()) <= most + most / PART, "after {at}");
        }
        assert!(!abandoned.exists());
        let kept = (0..200).filter(|at| cache.path(&key, &range(*at)).exists()).collect::<Vec<_>>();
        assert!(kept.len() > 40 && kept[1] > 130, "{kept:?}");
        cache.put(&key, &(0..9000), &[0; 9000]);
        assert!(cache.get(&key, &(0..9000)).is_none(), "too large a part of the cache");
    }

    #[test]
    fn settings_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().join("a/b").to_string_lossy().into_owned();
        let of = |size: Option<&str>, folder: Option<&str>| {
            let setting = |(name, value): (&str, Option<&str>)| Some((name.to_owned(), value?.to_owned()));
            let settings: Vec<_> =
                [(SIZE_VARIABLE, size), (FOLDER_VARIABLE, folder)].into_iter().filter_map(setting).collect();
            Cache::of(&settings).map(|cache| cache.map(|cache| cache.most))
        };
        assert_eq!(of(Some("2T"), None), Ok(None));
        assert_eq!(of(None, Some("")), Ok(None));
        for (text, expected) in [("1000", 1000), ("64M", 64 << 20), ("500 g", 500 << 30), ("2T", 2 << 40)] {
            assert_eq!(of(Some(text), Some(&at)), Ok(Some(expected)));
        }
        assert_eq!(of(None, Some(&at)), Ok(Some(SIZE)));
        for text in ["", "0", "many", "-1", "1.5G", "99999999999T", "é"] {
            assert!(of(Some(text), Some(&at)).unwrap_err().contains(SIZE_VARIABLE), "{text}");
        }
        fs::write(folder.path().join("file"), "").unwrap();
        let below = folder.path().join("file/x").to_string_lossy().into_owned();
        assert!(of(None, Some(&below)).unwrap_err().contains(FOLDER_VARIABLE));
    }
}
