//! Published lists of image names as a split, which gives the subsets and ratios of a paper.
//!
//! A list is a text file, plain or `.gz`. Its name says what it is for: `train_list`, `train_10`, `train_1`, `val_list`,
//! `test_list`, with any prefix (`iscovid_train.txt`). A line is the name or path of an image; numbers after it are labels,
//! which are ignored.

use std::collections::{BTreeSet, HashMap};
use std::fmt::{Display, Formatter};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::split::index_table::IndexTable;
use crate::split::ratio::Ratio;
use crate::split::types::Subset;

/// Largest text of a list in bytes; the published ones have a hundredth of it.
const MAX_BYTES: u64 = 256 << 20;
/// Names that a report shows of each kind.
const SHOWN: usize = 5;
/// Extensions of image files, which lists and sources may write or leave out.
const IMAGES: [&str; 8] = ["png", "jpg", "jpeg", "dcm", "dicom", "bmp", "tif", "tiff"];

/// The lists of a folder: those of train by ascending ratio, then validate, then test.
pub struct PublishedLists {
    lists: Vec<List>,
    ignored: Vec<String>,
}

/// One list.
struct List {
    /// File name without extensions.
    name: String,
    subset: Subset,
    /// All for the whole training subset and for other subsets.
    ratio: Ratio,
    lines: Vec<String>,
}

/// The subsets and ratios of the records of a dataset, by the lists.
pub struct Assignment {
    /// Subset of each record.
    pub subset: Vec<Option<Subset>>,
    /// For each record every ratio whose list contains it, ascending; empty outside train.
    pub ratios: Vec<Vec<Ratio>>,
    /// The ratios of the lists, ascending; the last one is [`Ratio::ALL`].
    pub known: Vec<Ratio>,
    /// How the lists match the dataset.
    pub report: ListsReport,
}

/// How lists match a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListsReport {
    /// One entry for each list.
    pub lists: Vec<ListReport>,
    /// Lists of different subsets that have images or patients in common.
    pub overlaps: Vec<Overlap>,
    /// Whether no list is for the whole training subset, which then is every record that no list of another subset names.
    pub train_is_the_rest: bool,
    /// Number of records that no list names.
    pub unlisted: u64,
    /// Some of them.
    pub unlisted_names: Vec<String>,
    /// Files of the folder that are not lists.
    pub ignored: Vec<String>,
}

/// How one list matches a dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListReport {
    /// File name without extensions.
    pub name: String,
    /// Subset that the list is for.
    pub subset: Subset,
    /// Ratio of the training subset; `None` in other subsets.
    pub ratio: Option<Ratio>,
    /// Number of lines.
    pub lines: u64,
    /// Lines that name a record which an earlier line names.
    pub repeated: u64,
    /// Number of different records that are named.
    pub matched: u64,
    /// Those of them that the split has in this subset; the others are in a list of a subset with precedence.
    pub kept: u64,
    /// Lines that name no record, or several.
    pub unmatched: u64,
    /// Some of them.
    pub unmatched_names: Vec<String>,
}

/// What two lists of different subsets have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlap {
    /// Name of a list.
    pub one: String,
    /// Name of the other list.
    pub other: String,
    /// Images in both.
    pub images: u64,
    /// Patients in both.
    pub patients: u64,
}

/// Name, in reports, of a training subset that no list names.
const REST: &str = "every other record";

impl PublishedLists {
    /// Reads the lists of a folder.
    ///
    /// # Errors
    /// When there is none, two are for the same part, or one cannot be read.
    pub fn read(folder: &Path) -> Result<Self> {
        let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
        let mut paths = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(Error::io(folder))?;
        paths.sort();
        let (mut lists, mut ignored): (Vec<List>, Vec<String>) = (Vec::new(), Vec::new());
        for path in paths {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let name = stem(&file);
            let role = role(name);
            // A list that exists but cannot be read must not count as absent.
            let unknown = |cause: std::io::Error| {
                Error::Invalid(format!("{}: {cause}; make the list readable or remove it", path.display()))
            };
            let is_file = role.is_some() && std::fs::metadata(&path).map_err(unknown)?.is_file();
            let Some((subset, ratio)) = role.filter(|_| is_file) else {
                ignored.push(file);
                continue;
            };
            if let Some(other) = lists.iter().find(|list| list.subset == subset && list.ratio == ratio) {
                let message = format!("{file} and {} are for the same part: keep one of them", other.name);
                return Err(Error::Invalid(format!("{}: {message}", folder.display())));
            }
            let lines = text(&path)?.lines().map(name_of).filter(|name| !name.is_empty()).map(str::to_owned).collect();
            lists.push(List { name: name.to_owned(), subset, ratio, lines });
        }
        if lists.is_empty() {
            return Err(Error::Invalid(format!(
                "{}: no list; name the files train_list, train_10, train_1, val_list, test_list, with or without .txt and \
                 .gz (there are: {})",
                folder.display(),
                ignored.join(", ")
            )));
        }
        lists.sort_by_key(|list| (list.subset, list.ratio));
        Ok(Self { lists, ignored })
    }

    /// Matches the lists with the records of a dataset.
    ///
    /// An image in lists of several subsets belongs to test before validate before train.
    ///
    /// # Errors
    /// When no line names a record: the lists are of another source.
    pub fn assign(&self, index_table: &IndexTable) -> Result<Assignment> {
        let names = Names::new(&index_table.records);
        let mut rows_of: Vec<BTreeSet<usize>> = Vec::new();
        let mut reports = Vec::new();
        for list in &self.lists {
            let (mut rows, mut unmatched) = (BTreeSet::new(), Vec::new());
            let mut repeated = 0;
            for line in &list.lines {
                match names.row(line) {
                    Some(row) => repeated += u64::from(!rows.insert(row)),
                    None => unmatched.push(line.clone()),
                }
            }
            reports.push(ListReport {
                name: list.name.clone(),
                subset: list.subset,
                ratio: (list.subset == Subset::Train).then_some(list.ratio),
                lines: list.lines.len() as u64,
                repeated,
                matched: rows.len() as u64,
                kept: 0,
                unmatched: unmatched.len() as u64,
                unmatched_names: unmatched.into_iter().take(SHOWN).collect(),
            });
            rows_of.push(rows);
        }
        if reports.iter().all(|report| report.matched == 0) {
            let example = self.lists.iter().find_map(|list| list.lines.first()).map_or("", String::as_str);
            return Err(Error::Invalid(format!(
                "no line of the lists names a record of this dataset (`{example}` against `{}`): are these the lists of \
                 another source?",
                index_table.records.first().map_or("", String::as_str)
            )));
        }

        let mut subset: Vec<Option<Subset>> = vec![None; index_table.len()];
        for (list, rows) in self.lists.iter().zip(&rows_of) {
            rows.iter().for_each(|&row| subset[row] = subset[row].max(Some(list.subset)));
        }
        let train_is_the_rest = !self.lists.iter().any(|list| list.subset == Subset::Train && list.ratio == Ratio::ALL);
        let listed: BTreeSet<usize> = rows_of.iter().flatten().copied().collect();
        let mut ratios: Vec<Vec<Ratio>> = vec![Vec::new(); index_table.len()];
        for (list, rows) in self.lists.iter().zip(&rows_of) {
            for &row in rows.iter().filter(|&&row| subset[row] == Some(Subset::Train)) {
                ratios[row].push(list.ratio);
            }
        }
        let mut parts: Vec<(Subset, &str, &BTreeSet<usize>)> =
            self.lists.iter().zip(&rows_of).map(|(list, rows)| (list.subset, list.name.as_str(), rows)).collect();
        let rest: BTreeSet<usize>;
        if train_is_the_rest {
            for row in 0..index_table.len() {
                if matches!(subset[row], None | Some(Subset::Train)) {
                    subset[row] = Some(Subset::Train);
                    ratios[row].push(Ratio::ALL);
                }
            }
            rest = (0..index_table.len()).filter(|row| !listed.contains(row)).collect();
            parts.insert(0, (Subset::Train, REST, &rest));
        }
        for (report, (list, rows)) in reports.iter_mut().zip(self.lists.iter().zip(&rows_of)) {
            report.kept = rows.iter().filter(|&&row| subset[row] == Some(list.subset)).count() as u64;
        }
        let unlisted = || (0..index_table.len()).filter(|row| !listed.contains(row));
        let mut known: Vec<Ratio> =
            self.lists.iter().filter(|list| list.subset == Subset::Train).map(|list| list.ratio).collect();
        if train_is_the_rest {
            known.push(Ratio::ALL);
        }
        let report = ListsReport {
            overlaps: overlaps(&parts, index_table),
            lists: reports,
            train_is_the_rest,
            unlisted: unlisted().count() as u64,
            unlisted_names: unlisted().take(SHOWN).map(|row| index_table.records[row].clone()).collect(),
            ignored: self.ignored.clone(),
        };
        Ok(Assignment { subset, ratios, known, report })
    }
}

impl ListsReport {
    /// Whether there are lists for ratios below 100%.
    pub fn states_ratios(&self) -> bool {
        self.lists.iter().any(|list| list.ratio.is_some_and(|ratio| ratio < Ratio::ALL))
    }
}

/// What parts of different subsets have in common.
fn overlaps(parts: &[(Subset, &str, &BTreeSet<usize>)], index_table: &IndexTable) -> Vec<Overlap> {
    let patients: Vec<BTreeSet<u32>> =
        parts.iter().map(|(_, _, rows)| rows.iter().map(|&row| index_table.patients[row]).collect()).collect();
    let mut found = Vec::new();
    for (index, (subset, one, rows)) in parts.iter().enumerate() {
        for (other_index, (other_subset, other, other_rows)) in parts.iter().enumerate().skip(index + 1) {
            let patients = patients[index].intersection(&patients[other_index]).count() as u64;
            if subset != other_subset && patients > 0 {
                let images = rows.intersection(other_rows).count() as u64;
                found.push(Overlap { one: (*one).to_owned(), other: (*other).to_owned(), images, patients });
            }
        }
    }
    found
}

/// The name of a list's file without extensions.
fn stem(file: &str) -> &str {
    let file = file.strip_suffix(".gz").unwrap_or(file);
    [".txt", ".csv", ".lst"].iter().find_map(|ending| file.strip_suffix(ending)).unwrap_or(file)
}

/// The part that a list is for, by its name: any prefix, a subset, for train a percentage, then `list`.
fn role(name: &str) -> Option<(Subset, Ratio)> {
    let words: Vec<&str> = name.split(['_', '-']).collect();
    let at = words.iter().position(|word| Subset::parse(word).is_some())?;
    let subset = Subset::parse(words[at])?;
    let rest = words[at + 1..].strip_suffix(&["list"]).unwrap_or(&words[at + 1..]);
    match rest {
        [] => Some((subset, Ratio::ALL)),
        [percent] if subset == Subset::Train => Some((subset, percent.parse().ok()?)),
        _ => None,
    }
}

/// The text of a list, decompressed where it is `.gz`.
fn text(path: &Path) -> Result<String> {
    let file = File::open(path).map_err(Error::io(path))?;
    let gzipped = path.extension().is_some_and(|ending| ending == "gz");
    let reader: Box<dyn Read> = if gzipped { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut bytes = Vec::new();
    reader.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::Invalid(format!("{}: a list has at most {} MiB", path.display(), MAX_BYTES >> 20)));
    }
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

/// A line without the labels at its end.
fn name_of(line: &str) -> &str {
    let mut name = line.trim();
    while let Some((head, last)) = name.rsplit_once([' ', '\t', ',']) {
        if !last.is_empty() && last.parse::<f64>().is_err() {
            break;
        }
        name = head.trim_end();
    }
    name
}

/// A name without the extension of an image.
fn without_ending(name: &str) -> &str {
    let is_image = |ending: &str| IMAGES.iter().any(|image| image.eq_ignore_ascii_case(ending));
    name.rsplit_once('.').filter(|(_, ending)| is_image(ending)).map_or(name, |(stem, _)| stem)
}

/// A path, and what remains of it when its folders are removed one after the other.
fn endings(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |rest| rest.split_once('/').map(|(_, rest)| rest))
}

/// Records by the names that lists may use. The name of a record is its identifier without the source
/// (`chexpert/train/patient00001/study1/view1_frontal`).
struct Names<'a> {
    exact: HashMap<&'a str, usize>,
    /// Without the extension; `None` where several records have the name.
    stems: HashMap<&'a str, Option<usize>>,
    /// Without some of the first folders.
    parts: HashMap<&'a str, Option<usize>>,
}

impl<'a> Names<'a> {
    fn new(records: &'a [String]) -> Self {
        let mut names = Self { exact: HashMap::new(), stems: HashMap::new(), parts: HashMap::new() };
        for (row, record) in records.iter().enumerate() {
            let name = record.split_once('/').map_or(record.as_str(), |(_, name)| name);
            let stem = without_ending(name);
            names.exact.insert(name, row);
            names.stems.entry(stem).and_modify(|row| *row = None).or_insert(Some(row));
            for part in endings(stem).skip(1) {
                names.parts.entry(part).and_modify(|row| *row = None).or_insert(Some(row));
            }
        }
        names
    }

    /// The record that a line names. Lists write other folders before a name (`stage_2_train_images/`), or fewer.
    fn row(&self, line: &str) -> Option<usize> {
        let line = line.replace('\\', "/");
        let stem = without_ending(&line);
        let exact = endings(&line).find_map(|name| self.exact.get(name).copied());
        let by_stem = || endings(stem).find_map(|name| self.stems.get(name).copied());
        exact.or_else(|| by_stem().or_else(|| self.parts.get(stem).copied()).flatten())
    }
}

impl Display for ListsReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let width = self.lists.iter().map(|list| list.name.chars().count()).chain([16]).max().unwrap_or_default();
        writeln!(
            f,
            "\n\n{:<width$}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "list", "lines", "repeated", "unmatched", "matched", "kept"
        )?;
        for list in &self.lists {
            let counts = [list.lines, list.repeated, list.unmatched, list.matched, list.kept];
            writeln!(f, "{:<width$}{}", list.name, counts.map(|count| format!("{count:>10}")).concat())?;
        }
        for list in self.lists.iter().filter(|list| list.unmatched > 0) {
            writeln!(f, "{}: no record for {}", list.name, some(&list.unmatched_names, list.unmatched))?;
        }
        if self.train_is_the_rest {
            let unlisted = self.unlisted;
            writeln!(
                f,
                "no list is for the whole training subset: the {unlisted} records in no list belong to it, too"
            )?;
        } else if self.unlisted > 0 {
            writeln!(f, "records in no list: {}", some(&self.unlisted_names, self.unlisted))?;
        }
        if !self.ignored.is_empty() {
            writeln!(f, "files that are not lists: {}", self.ignored.join(", "))?;
        }
        for overlap in &self.overlaps {
            writeln!(
                f,
                "{} and {} share {} images, {} patients",
                overlap.one, overlap.other, overlap.images, overlap.patients
            )?;
        }
        if self.overlaps.iter().any(|overlap| overlap.images > 0) {
            writeln!(f, "an image in lists of several subsets belongs to test before validate before train")?;
        }
        Ok(())
    }
}

/// Some names and how many there are.
fn some(names: &[String], all: u64) -> String {
    let more = if all > names.len() as u64 { ", …" } else { "" };
    format!("{} ({}{more})", all, names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::index_table::Entry;

    #[test]
    fn a_file_name_says_what_a_list_is_for() {
        let of = |file: &str| role(stem(file));
        assert_eq!(of("train_list.txt.gz"), Some((Subset::Train, Ratio::ALL)));
        assert_eq!(of("train_0.5.txt"), Some((Subset::Train, "0.5".parse().unwrap())));
        assert_eq!(of("train_1"), Some((Subset::Train, Ratio::ONE)));
        assert_eq!(of("iscovid_val.txt"), Some((Subset::Validate, Ratio::ALL)));
        assert_eq!(of("test_list"), Some((Subset::Test, Ratio::ALL)));
        for no_list in ["train_val_list.txt", "README.md", "train_200", "train_nan", "val_10.txt", "list"] {
            assert_eq!(of(no_list), None, "{no_list}");
        }
    }

    #[test]
    fn a_list_that_cannot_be_read_is_not_absent() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("train_list.txt"), "a.png\n").expect("written");
        std::os::unix::fs::symlink("gone", at("notes.txt")).expect("linked");
        assert!(PublishedLists::read(folder.path()).is_ok(), "other names do not matter");
        std::os::unix::fs::symlink("gone", at("test_list.txt")).expect("linked");
        let message = PublishedLists::read(folder.path()).err().expect("an error").to_string();
        assert!(message.contains("test_list.txt: ") && message.contains("make the list readable"), "{message}");
    }

    #[test]
    fn labels_at_the_end_of_a_line_are_ignored() {
        for (line, name) in [
            ("00003547_001.png 0 0 1\r", "00003547_001.png"),
            ("a/b.dcm 1 ", "a/b.dcm"),
            ("1.2.276.0.7230010", "1.2.276.0.7230010"),
            ("case (1).jpg,1,0.0", "case (1).jpg"),
            ("", ""),
        ] {
            assert_eq!(name_of(line), name);
        }
    }

    #[test]
    fn a_record_is_found_with_more_or_fewer_folders() {
        let records = ["s/train/p1/v1", "s/train/p2/v1", "s/x.jpg", "s/x.png", "s/1.2.3"].map(str::to_owned);
        let names = Names::new(&records);
        for (line, row) in [
            ("CheXpert-v1.0-small/train/p2/v1.jpg", Some(1)),
            ("p1\\v1.png", Some(0)),
            ("v1.png", None),
            ("other/p1/v1.png", None),
            ("x.png", Some(3)),
            ("images/x.jpg", Some(2)),
            ("x.dcm", None),
            ("folder/1.2.3.dcm", Some(4)),
            ("1.2", None),
        ] {
            assert_eq!(names.row(line), row, "{line}");
        }
    }

    #[test]
    fn a_report_names_what_does_not_match() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
        write("train_list.txt", "a.png 1\na.png\nb.png\n");
        write("test_list.txt", "b.png\nz1\nz2\nz3\nz4\nz5\nz6\n");
        write("notes.md", "");
        let entry = |record, patient| Entry { record, patient, study: "s", positives: Vec::new(), labeled: false };
        let table = IndexTable::new(0, vec![entry("s/a", "1"), entry("s/b", "1"), entry("s/c", "2")]);
        let report = || PublishedLists::read(folder.path()).expect("lists").assign(&table).expect("matched").report;
        let mut found = report();
        assert!(!found.states_ratios());
        let lines = [
            "\n",
            "list                 lines  repeated unmatched   matched      kept",
            "train_list               3         1         0         2         1",
            "test_list                7         0         6         1         1",
            "test_list: no record for 6 (z1, z2, z3, z4, z5, …)",
            "records in no list: 1 (s/c)",
            "files that are not lists: notes.md",
            "train_list and test_list share 1 images, 1 patients",
            "an image in lists of several subsets belongs to test before validate before train\n",
        ];
        assert_eq!(found.to_string(), lines.join("\n"));
        (found.unlisted, found.overlaps[0].images) = (0, 0);
        let text = found.to_string();
        assert!(!text.contains("in no list") && !text.contains("belongs to test"), "{text}");
        write("train_10.txt", "a\n");
        assert!(report().states_ratios());
    }

    #[test]
    fn a_list_has_a_largest_size() {
        let folder = tempfile::tempdir().expect("a folder");
        let sparse = std::fs::File::create(folder.path().join("val_list.txt")).expect("a file");
        sparse.set_len((256 << 20) + 1).expect("its length");
        let message = PublishedLists::read(folder.path()).err().expect("an error").to_string();
        assert!(message.contains("at most 256 MiB"), "{message}");
    }
}
