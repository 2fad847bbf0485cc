//! The table of a folder: which columns name the image, its report, its patient and its findings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use dataset::nearest::nearest;
use polars::prelude::PlSmallStr;

use crate::error::{Error, Reject, Result};
use crate::file_system::{failed, is_file, names_file, retry};
use crate::plan::{Plan, PlannedRecord, ReportSource, label_codes};
use crate::sources::folder::{identifiers, without_extension};
use crate::table::{Table, texts};
use crate::walk::Walk;

/// Longest text that may be the path of a report.
const LONGEST_PATH: usize = 1024;

/// A CSV table, plain or gzipped, and the names of its columns.
#[derive(Clone, Debug, Default)]
pub struct TableOptions {
    /// Path, or path relative to the raw directory.
    pub table: PathBuf,
    /// Paths relative to the raw directory or to the table, or file names found anywhere below the raw directory.
    pub image_column: String,
    /// Report texts, or paths of text files.
    pub report_column: Option<String>,
    pub patient_column: Option<String>,
    pub study_column: Option<String>,
    pub view_column: Option<String>,
    /// `train`, `validate`, `test`.
    pub subset_column: Option<String>,
    /// Findings: 1, 0, -1 (uncertain) or empty.
    pub label_columns: Vec<String>,
}

/// Plans the images that a table names.
///
/// # Errors
/// When the table cannot be read, or lacks a column.
pub fn plan(raw: &Path, options: &TableOptions, walk: Walk) -> Result<Plan> {
    let inner = raw.join(&options.table);
    let path = if !is_file(&options.table)? && is_file(&inner)? { &inner } else { &options.table };
    let mut table = Table::read(raw, path, &[])?;
    let rejects = [walk.rejects, std::mem::take(&mut table.rejects)].concat();
    let columns = Columns::of(&table, path, options)?;
    let home = path.parent().unwrap_or(Path::new(""));
    let places = Places::new(raw, home, &walk.files)?;
    let mut plan = Plan { rejects, findings: options.label_columns.clone(), ..Plan::default() };
    let mut listed: BTreeSet<String> = BTreeSet::new();
    for row in 0..table.frame.height() {
        let image = columns.image[row].ok_or_else(|| Fault::Row("the image column is empty".to_owned()));
        let outcome = image.and_then(|image| {
            let source_path = places.image(image)?;
            listed.insert(source_path.clone());
            columns.record(row, source_path, &places)
        });
        match outcome {
            Ok(mut record) => {
                record.source_bytes = walk.files.get(&record.source_path).copied();
                plan.records.push(record);
            }
            Err(Fault::Row(error)) => plan.rejects.push(table.reject(row, error)),
            Err(Fault::Run(error)) => return Err(error),
        }
    }
    let names = identifiers(listed.iter().chain(walk.files.keys()).map(String::as_str));
    for record in &mut plan.records {
        let name = names[record.source_path.as_str()];
        record.record_id = format!("folder/{name}");
        name.rsplit('/').next().unwrap_or(name).clone_into(&mut record.image_id);
        if columns.patient.is_none() {
            name.clone_into(&mut record.patient_id);
        }
        if columns.study.is_none() {
            // Images of one patient may be years apart: without a word of studies, each is its own.
            name.clone_into(&mut record.study_id);
        }
    }
    let unlisted = walk.files.into_keys().filter(|path| !listed.contains(path));
    plan.rejects.extend(unlisted.map(Reject::unlisted));
    Ok(plan)
}

/// Why a row gives no record.
#[derive(Debug)]
enum Fault {
    /// The row is a reject.
    Row(String),
    /// The run ends.
    Run(Error),
}

impl From<String> for Fault {
    fn from(error: String) -> Self {
        Self::Row(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Run(error)
    }
}

/// The values of the columns that are asked for.
struct Columns<'a> {
    image: Values<'a>,
    report: Option<Values<'a>>,
    patient: Option<Values<'a>>,
    study: Option<Values<'a>>,
    view: Option<Values<'a>>,
    subset: Option<Values<'a>>,
    labels: Vec<Values<'a>>,
    /// The names of these columns.
    findings: &'a [String],
}

type Values<'a> = Vec<Option<&'a str>>;

impl<'a> Columns<'a> {
    fn of(table: &'a Table, path: &Path, options: &'a TableOptions) -> Result<Self> {
        let values = |name: &str| -> Result<Values<'a>> {
            let names = || table.frame.get_column_names().into_iter().map(PlSmallStr::as_str);
            if names().any(|found| found == name) {
                return texts(&table.frame, name);
            }
            let nearest: Vec<String> = nearest(name, names()).into_iter().map(|name| format!("`{name}`")).collect();
            Err(Error::UnknownColumn { path: path.to_path_buf(), column: name.to_owned(), nearest: nearest.join(", ") })
        };
        let optional = |name: &Option<String>| name.as_deref().map(values).transpose();
        Ok(Self {
            image: values(&options.image_column)?,
            report: optional(&options.report_column)?,
            patient: optional(&options.patient_column)?,
            study: optional(&options.study_column)?,
            view: optional(&options.view_column)?,
            subset: optional(&options.subset_column)?,
            labels: options.label_columns.iter().map(|name| values(name)).collect::<Result<_>>()?,
            findings: &options.label_columns,
        })
    }

    /// The record of a row, but for what its identifier decides.
    fn record(&self, row: usize, source_path: String, places: &Places) -> Result<PlannedRecord, Fault> {
        let text = |column: &Option<Values>| column.as_ref().and_then(|values| values[row]).map(str::to_owned);
        let needed = |column: &Option<Values>, name: &str| match (column, text(column)) {
            (Some(_), None) => Err(format!("the {name} column is empty")),
            (_, value) => Ok(value.unwrap_or_default()),
        };
        let subset = match text(&self.subset) {
            Some(name) => Some(dataset::split::Subset::parse(&name).ok_or_else(|| format!("unknown subset `{name}`"))?),
            None => None,
        };
        let patient_id = needed(&self.patient, "patient")?;
        let study_id = needed(&self.study, "study")?;
        Ok(PlannedRecord {
            // Study names may repeat from patient to patient.
            study_id: if patient_id.is_empty() { study_id } else { format!("{patient_id}/{study_id}") },
            patient_id,
            source_path,
            subset: subset.map(|subset| subset.name().to_owned()),
            view: text(&self.view),
            labels: label_codes(self.findings, self.labels.iter().map(|values| values[row]))?,
            report: text(&self.report).map_or(Ok(ReportSource::None), |text| places.report(text))?,
            ..PlannedRecord::default()
        })
    }
}

/// Where the paths of a table lead.
struct Places<'a> {
    raw: &'a Path,
    /// The table's folder, relative to the raw directory; `None` where it lies outside.
    home: Option<String>,
    files: &'a BTreeMap<String, u64>,
    /// Paths by file name, with and without extension.
    by_name: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> Places<'a> {
    fn new(raw: &'a Path, home: &Path, files: &'a BTreeMap<String, u64>) -> Result<Self> {
        let real = |path: &Path| {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            retry(|| path.canonicalize()).map_err(failed(path))
        };
        let (home, real_raw) = (real(home)?, real(raw)?);
        let home = home.strip_prefix(real_raw).ok();
        let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for path in files.keys() {
            let name = path.rsplit('/').next().unwrap_or(path);
            by_name.entry(name).or_default().push(path);
            if without_extension(name) != name {
                by_name.entry(without_extension(name)).or_default().push(path);
            }
        }
        Ok(Self { raw, home: home.map(|home| home.to_string_lossy().into_owned()), files, by_name })
    }

    /// The file that a cell means, relative to the raw directory; a file that is missing keeps its expected path.
    fn image(&self, cell: &str) -> Result<String, Fault> {
        let candidates = self.candidates(cell)?;
        for path in &candidates {
            if self.files.contains_key(path) || names_file(&self.raw.join(path))? {
                return Ok(path.clone());
            }
        }
        let expected = candidates.into_iter().next().unwrap_or_default();
        if cell.contains('/') {
            return Ok(expected);
        }
        match self.by_name.get(cell).map(Vec::as_slice) {
            None | Some([]) => Ok(expected),
            Some([path]) => Ok((*path).to_owned()),
            Some([first, second, ..]) => {
                Err(format!("the name `{cell}` means several files: {first}, {second}").into())
            }
        }
    }

    /// A report: the text of a cell, or the file whose path it is.
    fn report(&self, cell: String) -> Result<ReportSource> {
        let is_short = cell.len() <= LONGEST_PATH && !cell.contains('\n');
        let candidates = if is_short { self.candidates(&cell).unwrap_or_default() } else { Vec::new() };
        for path in &candidates {
            if names_file(&self.raw.join(path))? {
                return Ok(ReportSource::File(PathBuf::from(path)));
            }
        }
        // A path that leads nowhere is no text to learn from.
        let looks_like_path = cell.ends_with(".txt") && !cell.contains(char::is_whitespace);
        Ok(match candidates.into_iter().next() {
            Some(expected) if looks_like_path => ReportSource::File(PathBuf::from(expected)),
            _ => ReportSource::Text(Arc::from(cell)),
        })
    }

    /// The paths that a cell may mean, relative to the raw directory, which they do not leave.
    fn candidates(&self, cell: &str) -> Result<Vec<String>, String> {
        let cell = Path::new(cell);
        let cell = cell.strip_prefix(self.raw).unwrap_or(cell);
        let bases = std::iter::once("").chain(self.home.as_deref().filter(|home| !home.is_empty()));
        let inside: Vec<String> = bases.filter_map(|base| inside(&Path::new(base).join(cell))).collect();
        if inside.is_empty() { Err("the path leads out of the raw directory".to_owned()) } else { Ok(inside) }
    }
}

/// A relative path without `.` and `..`; `None` where it leaves its root or is none.
fn inside(path: &Path) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::CurDir => {}
            Component::ParentDir => drop(parts.pop()?),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        let of = |path: &str| inside(Path::new(path));
        assert_eq!(of("./a//b/../c.png").as_deref(), Some("a/c.png"));
        assert_eq!(
            (of("../a"), of("a/../../b"), of("/etc/passwd"), of(""), of("a/..")),
            (None, None, None, None, None)
        );
    }

    #[test]
    fn a_cell_means_a_path_or_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path();
        std::fs::create_dir_all(raw.join("tables/in")).unwrap();
        std::fs::write(raw.join("tables/in/a.txt"), "clear").unwrap();
        let listed = ["tables/in/x.png", "p/x.jpg", "p/y.png", "q/y.png"].map(|path| (path.to_owned(), 1));
        let files = BTreeMap::from(listed);
        let places = Places::new(raw, &raw.join("tables"), &files).unwrap();
        let image = |cell: &str| {
            places.image(cell).map_err(|fault| match fault {
                Fault::Row(error) => error,
                Fault::Run(error) => panic!("{error}"),
            })
        };
        assert_eq!(image("p/y.png").as_deref(), Ok("p/y.png"));
        assert_eq!(image("in/x.png").as_deref(), Ok("tables/in/x.png"), "relative to the table");
        assert_eq!(image("x.jpg").as_deref(), Ok("p/x.jpg"));
        assert_eq!(image(raw.join("q/y.png").to_str().unwrap()).as_deref(), Ok("q/y.png"));
        assert!(image("y.png").unwrap_err().contains("means several files: p/y.png, q/y.png"));
        assert!(image("x").unwrap_err().contains("several"));
        assert_eq!(image("gone.png").as_deref(), Ok("gone.png"));
        assert!(image("../../etc/passwd").unwrap_err().contains("leads out"));
        let report = |cell: &str| places.report(cell.to_owned()).unwrap();
        let file = |path: &str| ReportSource::File(PathBuf::from(path));
        assert_eq!(report("in/a.txt"), file("tables/in/a.txt"));
        assert_eq!(report("in/b.txt"), file("in/b.txt"), "missing, to be told");
        assert_eq!(report("No effusion."), ReportSource::Text(Arc::from("No effusion.")));
        assert_eq!(report("/etc/passwd"), ReportSource::Text(Arc::from("/etc/passwd")));
    }
}
