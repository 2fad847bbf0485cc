//! Published checksums (`SHA256SUMS.txt`, as on PhysioNet): images and reports are compared with them while they are read,
//! tables before the first shard is written.

use std::collections::HashSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use dataset::progress::{OnProgress, Progress};
use rayon::prelude::*;

use crate::dicom::limits::{MAX_BLOCKS_BYTES, MAX_TABLE_BYTES};
use crate::error::{Error, Result};
use crate::file_system::metadata;
use crate::reject::{Reject, Stage};
use crate::run::hashing_reader::{self, Damaged, Expected, Hashing};
use crate::run::notes::ShardNote;
use crate::run::plan::{Plan, ReportSource};
use crate::run::source_digest::SourceDigest;

/// Extensions of the files that are checked before the run, also with `.gz` after them: tables, lists, reports in XML.
const TABLES: [&str; 8] = ["csv", "tsv", "txt", "json", "jsonl", "ndjson", "xml", "parquet"];

/// End of the reason of a reject for a listed file that is missing.
const MISSING: &str = "lists this file, but it is missing";

/// What a run found out about the checksums of its images and reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckedFiles {
    /// Files that were read and have the checksum of a list.
    pub matched: u64,
    /// Files with another checksum.
    pub damaged: u64,
    /// Listed files that are missing and that no record names.
    pub missing: u64,
    /// Files that were read and that no list has.
    pub unlisted: u64,
}

/// The lists of checksums of a run; empty where none were given.
#[derive(Default)]
pub struct CheckSums {
    /// The raw directory, without links.
    raw: PathBuf,
    lists: Vec<List>,
}

struct List {
    /// Name of the file.
    name: String,
    /// Its folder, as it was given and without links.
    folders: [PathBuf; 2],
    /// Paths and SHA-256, sorted by path.
    entries: Vec<(String, [u8; 32])>,
}

impl CheckSums {
    /// Reads the lists. A line has the hexadecimal SHA-256 of a file and its path, relative to the folder of the list or to the
    /// raw directory.
    ///
    /// # Errors
    /// When a list cannot be read, or a line has another form.
    pub fn load(raw: &Path, paths: &[PathBuf]) -> Result<Self> {
        if paths.is_empty() {
            return Ok(Self::default());
        }
        let lists = paths.iter().map(|path| List::load(path)).collect::<Result<_>>()?;
        Ok(Self { raw: fs::canonicalize(raw).map_err(Error::io(raw))?, lists })
    }

    /// Checks that lists can be read.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn check(paths: &[PathBuf]) -> Result<()> {
        paths.iter().try_for_each(|path| List::load(path).map(drop))
    }

    /// The checksum of a file, whose path is absolute or relative to the raw directory; `None` where no list has it.
    pub fn expected(&self, path: &Path) -> Option<Expected<'_>> {
        let (list, entry) = self.find(path)?;
        Some(self.lists[list].expected(entry))
    }

    /// Hashing of a file with an algorithm, and comparison with its checksum where a list has it.
    pub fn hashing(&self, algorithm: SourceDigest, path: &Path) -> Hashing<'_> {
        Hashing { algorithm, expected: self.expected(path) }
    }

    /// The numbers of the list and the entry of a file.
    fn find(&self, path: &Path) -> Option<(usize, usize)> {
        let whole = self.raw.join(path);
        self.lists.iter().enumerate().find_map(|(number, list)| {
            let inner = list.folders.iter().find_map(|folder| whole.strip_prefix(folder).ok());
            let entry = inner.into_iter().chain([path]).find_map(|path| list.position(path))?;
            Some((number, entry))
        })
    }

    /// Compares listed tables with their checksums, and adds a reject to the plan for each listed file that is missing, except
    /// those of records, which are rejected when they are read. Returns the number of tables that match.
    ///
    /// # Errors
    /// Names the first damaged table, since records would be made of it; or `progress` cancels, which is asked before each.
    pub fn check_tables(&self, plan: &mut Plan, progress: &OnProgress) -> Result<usize> {
        let mut named: Vec<Vec<bool>> = self.lists.iter().map(|list| vec![false; list.entries.len()]).collect();
        for record in &plan.records {
            let report = plan.report_path(&record.report);
            // A table with images is compared as a whole, with the other tables.
            let image = record.image_row.is_none().then(|| Path::new(&record.source_path));
            for path in [image, report.as_deref()].into_iter().flatten() {
                if let Some((list, entry)) = self.find(path) {
                    named[list][entry] = true;
                }
            }
        }
        let mut matched = 0;
        for (list, named) in self.lists.iter().zip(named) {
            let others: Vec<usize> = (0..named.len()).filter(|entry| !named[*entry]).collect();
            let check = |&entry: &usize| {
                progress(Progress::Working)?;
                self.check_table(list, entry)
            };
            let found: Vec<Option<bool>> = others.par_iter().map(check).collect::<Result<_>>()?;
            matched += found.iter().filter(|checked| **checked == Some(true)).count();
            let missing = others.iter().zip(&found).filter(|(_, checked)| checked.is_none());
            plan.rejects.extend(missing.map(|(&entry, _)| {
                let path = &list.entries[entry].0;
                let whole = list.folders[1].join(path);
                let source_path = whole.strip_prefix(&self.raw).map_or(path.clone(), |p| p.to_string_lossy().into());
                let error = format!("{} {MISSING}", list.name);
                Reject { source_path, record_id: None, stage: Stage::Plan, error }
            }));
        }
        Ok(matched)
    }

    /// Whether a listed file is a table, whose checksum is compared; `None` where it is missing.
    fn check_table(&self, list: &List, entry: usize) -> Result<Option<bool>> {
        let path = &list.entries[entry].0;
        for whole in [list.folders[0].join(path), self.raw.join(path)] {
            let Some(found) = metadata(&whole)? else { continue };
            if !found.is_file() || !is_table(path) {
                return Ok(Some(false));
            }
            let hashing = Hashing { algorithm: SourceDigest::Sha256, expected: Some(list.expected(entry)) };
            return match hashing_reader::stamp(&whole, MAX_BLOCKS_BYTES, hashing) {
                Ok(_) => Ok(Some(true)),
                Err(error) if Damaged::of(&error).is_some() => {
                    let message = format!("{error}; download the file again, or run without --check-sums");
                    Err(Error::Table { path: whole, message })
                }
                Err(error) => Err(Error::io(&whole)(error)),
            };
        }
        Ok(None)
    }

    /// What the rejects of a run say about the files that it read; `None` without lists.
    pub fn outcome(&self, plan: &Plan, notes: &[ShardNote], no_images: bool) -> Option<CheckedFiles> {
        if self.lists.is_empty() {
            return None;
        }
        let mut failed: HashSet<&str> = HashSet::new();
        let mut outcome = CheckedFiles::default();
        for reject in plan.rejects.iter().chain(notes.iter().flat_map(|note| &note.rejects)) {
            outcome.missing += u64::from(reject.error.ends_with(MISSING));
            if matches!(reject.stage, Stage::Read | Stage::Report) && failed.insert(&reject.source_path) {
                outcome.damaged += u64::from(reject.is_damaged());
            }
        }
        let mut seen = HashSet::new();
        for record in &plan.records {
            let image = Path::new(record.image_row.as_ref().map_or(record.source_path.as_str(), |row| &row.file));
            let report = match &record.report {
                ReportSource::File(path) => Some((path.as_path(), plan.report_path(&record.report))),
                _ => None,
            };
            let image = (!no_images).then(|| (image, Some(image.to_path_buf())));
            for (name, path) in image.into_iter().chain(report) {
                let was_read = name.to_str().is_none_or(|name| !failed.contains(name));
                if let Some(path) = path.filter(|_| was_read && seen.insert(name)) {
                    *(if self.find(&path).is_some() { &mut outcome.matched } else { &mut outcome.unlisted }) += 1;
                }
            }
        }
        Some(outcome)
    }
}

impl List {
    fn load(path: &Path) -> Result<Self> {
        let bad = |message: String| Error::Table { path: path.to_path_buf(), message };
        let (text, _) = hashing_reader::read(path, MAX_TABLE_BYTES, Hashing::default()).map_err(Error::io(path))?;
        let text = String::from_utf8(text).map_err(|error| bad(error.to_string()))?;
        let mut entries = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let entry = entry(line).ok_or_else(|| {
                bad(format!("line {number} is no hexadecimal SHA-256 with a path below the folder of this list"))
            })?;
            entries.push(entry);
        }
        entries.sort();
        if let Some([(path, _), _]) = entries.array_windows().find(|[a, b]| a.0 == b.0 && a.1 != b.1) {
            return Err(bad(format!("has two checksums of {path}")));
        }
        entries.dedup();
        let absolute = std::path::absolute(path).map_err(Error::io(path))?;
        let real = fs::canonicalize(path).map_err(Error::io(path))?;
        let folders = [absolute, real].map(|path| path.parent().unwrap_or(Path::new("/")).to_path_buf());
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { name, folders, entries })
    }

    fn position(&self, path: &Path) -> Option<usize> {
        let path = path.to_str()?;
        self.entries.binary_search_by(|(listed, _)| listed.as_str().cmp(path)).ok()
    }

    fn expected(&self, entry: usize) -> Expected<'_> {
        Expected { sha256: &self.entries[entry].1, list: &self.name }
    }
}

/// Path and SHA-256 of a line of `sha256sum`; `None` where it has another form, or the path leaves the folder.
fn entry(line: &str) -> Option<(String, [u8; 32])> {
    let (digest, path) = line.split_at_checked(64)?;
    let path = path.strip_prefix([' ', '\t'])?.trim_start();
    let path = path.strip_prefix('*').unwrap_or(path);
    let mut sha256 = [0; 32];
    for (byte, digits) in sha256.iter_mut().zip(digest.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    let parts = Path::new(path).components().filter(|part| *part != Component::CurDir);
    let inner: PathBuf = parts
        .map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        })
        .collect::<Option<_>>()?;
    let inner = inner.to_str().filter(|inner| !inner.is_empty())?;
    Some((inner.to_owned(), sha256))
}

fn is_table(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let extension = lower.strip_suffix(".gz").unwrap_or(&lower).rsplit_once('.');
    extension.is_some_and(|(_, extension)| TABLES.contains(&extension))
}

#[cfg(test)]
mod tests {
    use dataset::progress::Canceled;

    use super::*;
    use crate::run::plan::PlannedRecord;

    const DIGEST: &str = "00112233445566778899aabbccddeeffFF112233445566778899AABBCCDDEEFF";

    #[test]
    fn lines_of_a_list() {
        let path = |line: &str| entry(&line.replace("SUM", DIGEST)).map(|(path, _)| path);
        for line in ["SUM a/b c.txt", "SUM  a/b c.txt", "SUM *a/b c.txt", "SUM  ./a/./b c.txt"] {
            assert_eq!(path(line).as_deref(), Some("a/b c.txt"), "{line}");
        }
        for line in ["SUM", "SUM ", "SUMa", "SUM  /a", "SUM  ../a", "SUM  a/../../b", "0SUM  a", "SHA256 (a) = SUM"] {
            assert_eq!(path(line), None, "{line}");
        }
        assert_eq!(entry(&format!("{}  a", "+1".repeat(32))), None);
        assert_eq!(entry(&format!("{DIGEST}  a")).map(|(_, digest)| digest[15..18].to_vec()), Some(vec![255, 255, 17]));
        assert!(["a.csv", "b/A.CSV.gz", "x.txt"].iter().all(|path| is_table(path)));
        assert!(["a.dcm", "csv", "a.csv.zip", "a.jpg"].iter().all(|path| !is_table(path)));
    }

    #[test]
    fn files_are_found_from_the_list_s_folder_and_from_the_raw_directory() {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path().join("outer/raw");
        fs::create_dir_all(raw.join("inner")).unwrap();
        let list = |at: &str, path: &str| {
            let file = folder.path().join(at);
            fs::write(&file, format!("{DIGEST} {path}\n")).unwrap();
            CheckSums::load(&raw, &[file]).unwrap()
        };
        let has = |sums: &CheckSums, path: &str| sums.expected(Path::new(path)).is_some();
        assert!(has(&list("outer/raw/S", "p1/a.dcm"), "p1/a.dcm"));
        assert!(has(&list("outer/S", "raw/p1/a.dcm"), "p1/a.dcm"), "the list is above the raw directory");
        assert!(has(&list("outer/raw/inner/S", "p1/a.dcm"), "inner/p1/a.dcm"), "the list is below it");
        assert!(has(&list("S", "p1/a.dcm"), "p1/a.dcm"), "the paths are relative to the raw directory");
        let outside = folder.path().join("reports/a.txt");
        assert!(has(&list("S", "reports/a.txt"), outside.to_str().unwrap()), "an absolute path");
        assert!(!has(&list("outer/S", "p2/a.dcm"), "p1/a.dcm"));
        assert!(!has(&CheckSums::default(), "p1/a.dcm"));
        for (text, message) in [
            (format!("{DIGEST} a\nnonsense\n"), "line 2 is no hexadecimal SHA-256"),
            (format!("{DIGEST} a\n{} a\n", DIGEST.replace('0', "1")), "has two checksums of a"),
        ] {
            let file = folder.path().join("bad");
            fs::write(&file, text).unwrap();
            let error = CheckSums::load(&raw, &[file]).err().unwrap().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn damaged_tables_are_errors_and_missing_files_rejects() {
        let raw = tempfile::tempdir().unwrap();
        let at = |name: &str| raw.path().join(name);
        fs::write(at("t.csv"), "a,b\n").unwrap();
        fs::write(at("x.dcm"), "not read here").unwrap();
        let sum = dataset::store::files::sha256(&at("t.csv")).unwrap();
        let zeros = "0".repeat(64);
        fs::write(at("S.txt"), format!("{sum} t.csv\n{zeros} x.dcm\n{zeros} gone.dcm\n{zeros} r.dcm\n")).unwrap();
        let sums = CheckSums::load(raw.path(), &[at("S.txt")]).unwrap();
        let record = PlannedRecord { source_path: "r.dcm".to_owned(), ..PlannedRecord::default() };
        let mut plan = Plan { records: vec![record], ..Plan::default() };
        let canceled = sums.check_tables(&mut plan, &|_| Err(Canceled));
        assert!(matches!(canceled, Err(Error::Canceled(_))) && plan.rejects.is_empty());
        assert_eq!(sums.check_tables(&mut plan, &|_| Ok(())).unwrap(), 1);
        let rejects: Vec<_> = plan.rejects.iter().map(|r| (r.source_path.as_str(), r.error.as_str())).collect();
        assert_eq!(rejects, [("gone.dcm", "S.txt lists this file, but it is missing")], "not that of the record");
        fs::write(at("t.csv"), "a,c\n").unwrap();
        let error = sums.check_tables(&mut plan, &|_| Ok(())).unwrap_err().to_string();
        assert!(error.contains("t.csv: checksum differs from S.txt: "), "{error}");
    }
}
