//! A simulator of power losses: what a file system may show after one, given the calls of a program before it.
//!
//! It promises as little as POSIX does. The content of a file survives as it was at its last sync; of later writes any may be
//! lost, and the last one may be torn. Names survive as they were at the last sync of their folder; of later changes (created,
//! renamed, linked and removed names) any of those that concern different names may be lost. Syncing a file does not sync its name.
//! A rename is done or not done, as on file systems with a journal; syncing the folder of the new name makes it certain.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use dataset::random::Stream;

use crate::storage_calls::{Done, StorageCall};

/// What of the changes that were not synced survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survivors {
    /// Nothing.
    Nothing,
    /// All names, and no content: renamed files are empty.
    Names,
    /// All content, and no names.
    Contents,
    /// What a seed draws, with torn writes.
    Drawn(u64),
}

/// A file: its content at the last sync, and what was done since.
#[derive(Debug, Clone, Default)]
struct File {
    synced: Vec<u8>,
    since: Vec<Done>,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    File(usize),
    /// A symbolic link, by its number.
    Link(usize),
    Folder,
}

/// The state of a folder on a disk.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    files: Vec<File>,
    /// Targets of symbolic links.
    links: Vec<String>,
    /// Names as programs see them.
    names: BTreeMap<String, Entry>,
    /// Names that are on the disk for certain.
    synced: BTreeMap<String, Entry>,
    /// Changes that are not synced: names, and what they stand for since. Names that a call changed together survive or are lost
    /// together.
    changed: Vec<Vec<(String, Option<Entry>)>>,
}

/// The folder of a path; the root is ".".
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or(".", |(folder, _)| folder)
}

impl Disk {
    /// A disk with the content of a folder, all of it synced.
    pub fn of(root: &Path) -> Self {
        let mut disk = Self::default();
        let mut folders = vec![root.to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let name = path.strip_prefix(root).expect("below the root").to_str().expect("a name").to_owned();
                let entry = if path.is_symlink() {
                    let target = fs::read_link(&path).expect("a link");
                    disk.links.push(target.to_str().expect("a name").to_owned());
                    Entry::Link(disk.links.len() - 1)
                } else if path.is_dir() {
                    folders.push(path);
                    Entry::Folder
                } else {
                    disk.files.push(File { synced: fs::read(&path).expect("a file"), since: Vec::new() });
                    Entry::File(disk.files.len() - 1)
                };
                disk.names.insert(name.clone(), entry);
                disk.synced.insert(name, entry);
            }
        }
        disk
    }

    /// Changes names together. Syncing the folder of the first one makes all of it certain.
    fn change(&mut self, names: Vec<(String, Option<Entry>)>) {
        for (name, entry) in &names {
            set(&mut self.names, name, *entry);
        }
        self.changed.push(names);
    }

    fn file(&mut self, path: &str) -> Option<&mut File> {
        match self.names.get(path) {
            Some(Entry::File(at)) => self.files.get_mut(*at),
            _ => None,
        }
    }

    /// Does what a call did.
    pub fn apply(&mut self, call: &StorageCall) {
        let path = call.path.as_str();
        match &call.done {
            Done::Read => {}
            Done::Create => {
                self.files.push(File::default());
                self.change(vec![(path.to_owned(), Some(Entry::File(self.files.len() - 1)))]);
            }
            Done::MakeFolder => self.change(vec![(path.to_owned(), Some(Entry::Folder))]),
            Done::Remove => self.change(vec![(path.to_owned(), None)]),
            Done::PointTo(target) => {
                self.links.push(target.clone());
                self.change(vec![(path.to_owned(), Some(Entry::Link(self.links.len() - 1)))]);
            }
            Done::Link(to) => {
                let entry = self.names.get(path).copied();
                self.change(vec![(to.clone(), entry)]);
            }
            Done::Rename(to) => {
                // A folder takes all that is in it along.
                let prefix = format!("{path}/");
                let moved: Vec<(String, Entry)> = (self.names.iter())
                    .filter(|(name, _)| *name == path || name.starts_with(&prefix))
                    .map(|(name, entry)| (name.clone(), *entry))
                    .collect();
                let new = moved.iter().map(|(name, entry)| (format!("{to}{}", &name[path.len()..]), Some(*entry)));
                let old = moved.iter().map(|(name, _)| (name.clone(), None));
                let names = new.chain(old).collect();
                self.change(names);
            }
            Done::Sync => {
                if let Some(file) = self.file(path) {
                    file.synced = content(file, file.since.len(), None);
                    file.since.clear();
                } else {
                    let (synced, left): (Vec<_>, Vec<_>) = (self.changed.drain(..))
                        .partition(|names| names.first().is_some_and(|(name, _)| parent(name) == path));
                    self.changed = left;
                    for (name, entry) in synced.into_iter().flatten() {
                        set(&mut self.synced, &name, entry);
                    }
                }
            }
            change @ (Done::Truncate | Done::Write(..) | Done::Length(_)) => {
                let change = change.clone();
                if let Some(file) = self.file(path) {
                    file.since.push(change);
                }
            }
        }
    }

    /// Writes what may be on the disk after a power loss to an empty folder.
    pub fn after_power_loss(&self, survivors: Survivors, into: &Path) {
        let mut stream = match survivors {
            Survivors::Drawn(seed) => Some(Stream::new(&[seed])),
            _ => None,
        };
        let mut names = self.synced.clone();
        // Changes of one name keep their order: of some of them, a first part survives.
        let mut lost = BTreeSet::new();
        for change in &self.changed {
            let survives = match survivors {
                Survivors::Names => true,
                Survivors::Nothing | Survivors::Contents => false,
                Survivors::Drawn(_) => stream.as_mut().is_some_and(|stream| stream.below(2) == 1),
            };
            if survives && change.iter().all(|(name, _)| !lost.contains(name)) {
                change.iter().for_each(|(name, entry)| set(&mut names, name, *entry));
            } else {
                lost.extend(change.iter().map(|(name, _)| name));
            }
        }
        for (name, entry) in &names {
            // A name is there only with all folders above it.
            let mut above = parent(name);
            while above != "." && names.get(above) == Some(&Entry::Folder) {
                above = parent(above);
            }
            if above != "." {
                continue;
            }
            let path = into.join(name);
            match entry {
                Entry::Folder => fs::create_dir_all(&path).expect("a folder"),
                Entry::Link(at) => std::os::unix::fs::symlink(&self.links[*at], &path).expect("a link"),
                Entry::File(at) => {
                    let file = &self.files[*at];
                    let (kept, torn) = match (survivors, &mut stream) {
                        (Survivors::Contents, _) => (file.since.len(), None),
                        (Survivors::Drawn(_), Some(stream)) if !file.since.is_empty() => {
                            (stream.below(file.since.len() as u64 + 1) as usize, Some(stream))
                        }
                        _ => (0, None),
                    };
                    fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
                    fs::write(&path, content(file, kept, torn)).expect("written");
                }
            }
        }
    }
}

fn set(names: &mut BTreeMap<String, Entry>, name: &str, entry: Option<Entry>) {
    match entry {
        Some(entry) => names.insert(name.to_owned(), entry),
        None => names.remove(name),
    };
}

/// The content of a file with the first `kept` changes since its last sync; with a stream, a part of the next write, too.
fn content(file: &File, kept: usize, torn: Option<&mut Stream>) -> Vec<u8> {
    let mut bytes = file.synced.clone();
    let write = |bytes: &mut Vec<u8>, at: usize, data: &[u8]| {
        let end = at + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[at..end].copy_from_slice(data);
    };
    for change in &file.since[..kept] {
        match change {
            Done::Truncate => bytes.clear(),
            Done::Length(length) => bytes.resize(*length as usize, 0),
            Done::Write(at, data) => write(&mut bytes, *at as usize, data),
            _ => {}
        }
    }
    if let (Some(stream), Some(Done::Write(at, data))) = (torn, file.since.get(kept)) {
        let part = stream.below(data.len() as u64 + 1) as usize;
        write(&mut bytes, *at as usize, &data[..part]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(list: &[(&str, Done)]) -> Disk {
        let mut disk = Disk::default();
        for (number, (path, done)) in list.iter().enumerate() {
            disk.apply(&StorageCall { number, path: (*path).to_owned(), done: done.clone() });
        }
        disk
    }

    fn after(disk: &Disk, survivors: Survivors) -> BTreeMap<String, Vec<u8>> {
        let folder = tempfile::tempdir().expect("a folder");
        disk.after_power_loss(survivors, folder.path());
        let names = disk.names.keys().chain(disk.synced.keys());
        names.filter_map(|name| Some((name.clone(), fs::read(folder.path().join(name)).ok()?))).collect()
    }

    #[test]
    fn only_what_is_synced_survives_for_certain() {
        let text = |text: &str| Done::Write(0, text.as_bytes().to_vec());
        let careless = [
            ("a.tmp", Done::Create),
            ("a.tmp", text("new")),
            ("a.tmp", Done::Rename("a".to_owned())),
            (".", Done::Sync),
        ];
        let disk = calls(&careless);
        // The classic bug: a name for a file that is empty.
        assert_eq!(after(&disk, Survivors::Nothing), BTreeMap::from([("a".to_owned(), Vec::new())]));
        let mut careful = careless.to_vec();
        careful.insert(2, ("a.tmp", Done::Sync));
        assert_eq!(after(&calls(&careful), Survivors::Nothing), BTreeMap::from([("a".to_owned(), b"new".to_vec())]));
        // Without the sync of the folder, the name may be lost.
        assert_eq!(after(&calls(&careful[..4]), Survivors::Nothing), BTreeMap::new());
        assert_eq!(after(&calls(&careful[..4]), Survivors::Names).len(), 1);
    }

    #[test]
    fn drawn_states_have_lost_and_torn_writes() {
        let mut list = vec![("a", Done::Create), ("a", Done::Sync), (".", Done::Sync)];
        list.extend((0..4).map(|at| ("a", Done::Write(10 * at, vec![b'x'; 10]))));
        let disk = calls(&list);
        let lengths: BTreeSet<usize> = (0..200).map(|seed| after(&disk, Survivors::Drawn(seed))["a"].len()).collect();
        assert!(lengths.contains(&0) && lengths.contains(&40) && lengths.iter().any(|length| length % 10 != 0));
    }
}
