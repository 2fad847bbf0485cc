//! The table of a folder, with columns for the image, its report, its patient and its findings.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use dataset::name_suggestion::nearest;
use dataset::split::Subset;
use polars::prelude::PlSmallStr;

use crate::dicom::header::years;
use crate::error::{Error, Result};
use crate::file_system::{failed, is_file, names_file, retry};
use crate::reject::Reject;
use crate::run::path_names::PathNames;
use crate::run::plan::{Plan, PlannedRecord, ReportSource};
use crate::sources::folder::identifiers::{identifiers, without_extension};
use crate::sources::folder::labels::{Findings, LabelWord, Values, shortened};
use crate::sources::shared::table::{Table, texts};
use crate::sources::shared::walk::Walk;

/// Longest text, in bytes, that may be the path of a report.
const LONGEST_PATH: usize = 1024;

/// Highest age of a patient in years: a larger number is a year of birth or an error.
const MAX_AGE: f32 = 130.0;

/// Words for an unknown sex or age.
const UNKNOWN: [&str; 8] = ["unknown", "unk", "u", "na", "n/a", "nan", "null", "none"];

/// A table (separated by commas, semicolons or tabs, plain or gzipped) and the names of its columns.
#[derive(Clone, Debug, Default)]
pub struct TableOptions {
    /// Path of the table, relative to the working directory or to the raw directory.
    pub table: PathBuf,
    /// The text of the table, where it is in no file. `table` is its name in rejects, messages and the manifest then, and
    /// paths are relative to the raw directory.
    pub text: Option<Vec<u8>>,
    /// Paths relative to the raw directory or to the table, absolute paths below the raw directory, or names of files
    /// anywhere below it.
    pub image_column: String,
    /// Report texts, or paths of text files.
    pub report_column: Option<String>,
    /// Patients; without it each image is a patient of its own.
    pub patient_column: Option<String>,
    /// Studies; without it each image is a study of its own.
    pub study_column: Option<String>,
    /// Views; without it they come from the DICOM headers.
    pub view_column: Option<String>,
    /// Subsets: `train`, `validate`, `test` or other words for them.
    pub subset_column: Option<String>,
    /// Sex: F, M, O or words for them.
    pub sex_column: Option<String>,
    /// Ages in years or in DICOM's form.
    pub age_column: Option<String>,
    /// Findings: 1, 0, -1 (uncertain), common words for them, or empty.
    pub label_columns: Vec<String>,
    /// Columns of class names: each distinct class is a finding.
    pub class_columns: Vec<String>,
    /// Meaning of further words of the label columns.
    pub label_map: Vec<LabelWord>,
}

impl TableOptions {
    /// The options that were given, in the form in which a later run names those that changed.
    pub fn noted(&self, names: PathNames) -> BTreeMap<String, serde_json::Value> {
        let table = self.table.file_name().unwrap_or_default().to_string_lossy();
        let words: Vec<String> = self.label_map.iter().map(ToString::to_string).collect();
        let one = |value: &Option<String>| value.iter().cloned().collect::<Vec<_>>();
        let all = [
            ("table", vec![names.stored(&table)]),
            ("image_column", vec![self.image_column.clone()]),
            ("report_column", one(&self.report_column)),
            ("patient_column", one(&self.patient_column)),
            ("study_column", one(&self.study_column)),
            ("view_column", one(&self.view_column)),
            ("subset_column", one(&self.subset_column)),
            ("sex_column", one(&self.sex_column)),
            ("age_column", one(&self.age_column)),
            ("label_columns", self.label_columns.clone()),
            ("class_column", self.class_columns.clone()),
            ("label_map", words),
        ];
        let given = all.into_iter().filter(|(_, values)| !values.is_empty());
        given.map(|(name, values)| (name.to_owned(), values.join(",").into())).collect()
    }
}

/// Plans the images of a table.
///
/// # Errors
/// When the table cannot be read, or lacks a column.
pub fn plan(raw: &Path, options: &TableOptions, walk: Walk, names: PathNames) -> Result<Plan> {
    let inner = raw.join(&options.table);
    let (mut table, path) = if let Some(text) = &options.text {
        (Table::of_text(&options.table, text)?, &options.table)
    } else {
        let path = if !is_file(&options.table)? && is_file(&inner)? { &inner } else { &options.table };
        (Table::read(raw, path, &[])?, path)
    };
    let rejects = [walk.rejects, std::mem::take(&mut table.rejects)].concat();
    let columns = Columns::of(&table, path, options)?;
    let folder = if options.text.is_some() { raw } else { path.parent().unwrap_or(Path::new("")) };
    let paths = PathResolver::new(raw, folder, &walk.files, names)?;
    let mut plan = Plan {
        rejects,
        findings: columns.findings.names.clone(),
        warnings: columns.findings.warnings.clone(),
        ..Plan::default()
    };
    let mut listed: BTreeSet<String> = BTreeSet::new();
    for row in 0..table.frame.height() {
        let image = columns.image[row].ok_or_else(|| RowError::Reject("the image column is empty".to_owned()));
        let outcome = image.and_then(|image| {
            let source_path = paths.image(image)?;
            listed.insert(source_path.clone());
            columns.record(row, source_path, &paths)
        });
        match outcome {
            Ok(mut record) => {
                record.source_bytes = walk.files.get(&record.source_path).copied();
                plan.records.push(record);
            }
            Err(RowError::Reject(error)) => plan.rejects.push(table.reject(row, error)),
            Err(RowError::Fatal(error)) => return Err(error),
        }
    }
    let own_names = identifiers(listed.iter().chain(walk.files.keys()).map(String::as_str));
    for record in &mut plan.records {
        let name = own_names[record.source_path.as_str()];
        record.record_id = format!("folder/{name}");
        name.rsplit('/').next().unwrap_or(name).clone_into(&mut record.image_id);
        if columns.patient.is_none() {
            name.clone_into(&mut record.patient_id);
        }
        if columns.study.is_none() {
            // Images of one patient may be years apart, so without a column each is a study of its own.
            name.clone_into(&mut record.study_id);
        }
    }
    let unlisted = walk.files.into_keys().filter(|path| !listed.contains(path));
    plan.rejects.extend(unlisted.map(Reject::unlisted));
    Ok(plan)
}

/// Why a row gives no record.
#[derive(Debug)]
enum RowError {
    /// The row becomes a reject.
    Reject(String),
    /// The run ends.
    Fatal(Error),
}

impl From<String> for RowError {
    fn from(error: String) -> Self {
        Self::Reject(error)
    }
}

impl From<Error> for RowError {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

/// The values of the columns that were named.
struct Columns<'a> {
    image: Values<'a>,
    report: Option<Values<'a>>,
    patient: Option<Values<'a>>,
    study: Option<Values<'a>>,
    view: Option<Values<'a>>,
    subset: Option<Values<'a>>,
    sex: Option<Values<'a>>,
    age: Option<Values<'a>>,
    findings: Findings<'a>,
    options: &'a TableOptions,
}

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
        let named = |names: &'a [String]| -> Result<Vec<(&'a str, Values<'a>)>> {
            names.iter().map(|name| Ok((name.as_str(), values(name)?))).collect()
        };
        let (labels, classes) = (named(&options.label_columns)?, named(&options.class_columns)?);
        let findings = Findings::new(labels, classes, &options.label_map);
        Ok(Self {
            image: values(&options.image_column)?,
            report: optional(&options.report_column)?,
            patient: optional(&options.patient_column)?,
            study: optional(&options.study_column)?,
            view: optional(&options.view_column)?,
            subset: optional(&options.subset_column)?,
            sex: optional(&options.sex_column)?,
            age: optional(&options.age_column)?,
            findings: findings.map_err(|message| Error::Table { path: path.to_path_buf(), message })?,
            options,
        })
    }

    /// The record of a row, without the fields that are made of its identifier.
    fn record(&self, row: usize, source_path: String, paths: &PathResolver) -> Result<PlannedRecord, RowError> {
        let text = |column: &Option<Values>| column.as_ref().and_then(|values| values[row]).map(str::to_owned);
        let needed = |column: &Option<Values>, name: &str| match (column, text(column)) {
            (Some(_), None) => Err(format!("the {name} column is empty")),
            (_, value) => Ok(value.unwrap_or_default()),
        };
        let name = |name: &'a Option<String>| name.as_deref().unwrap_or_default();
        let subset = text(&self.subset).map(|text| subset(name(&self.options.subset_column), &text)).transpose()?;
        let sex = text(&self.sex).map(|text| sex(name(&self.options.sex_column), &text)).transpose()?;
        let age = text(&self.age).map(|text| age(name(&self.options.age_column), &text)).transpose()?;
        let patient_id = needed(&self.patient, "patient")?;
        let study_id = needed(&self.study, "study")?;
        Ok(PlannedRecord {
            // Names of studies may repeat from patient to patient.
            study_id: if patient_id.is_empty() { study_id } else { format!("{patient_id}/{study_id}") },
            patient_id,
            source_path,
            subset,
            view: text(&self.view),
            sex: sex.flatten(),
            age_years: age.flatten(),
            labels: self.findings.row(row)?,
            report: text(&self.report).map_or(Ok(ReportSource::None), |text| paths.report(text))?,
            ..PlannedRecord::default()
        })
    }
}

/// The subset of a cell.
fn subset(column: &str, text: &str) -> Result<String, String> {
    let found = Subset::parse(text).ok_or_else(|| {
        let text = shortened(text);
        format!("column `{column}`: unknown subset `{text}`; leave it empty or write one of {}", Subset::accepted())
    });
    found.map(|subset| subset.name().to_owned())
}

/// `F`, `M` or `O`; `None` where the sex is unknown.
fn sex(column: &str, text: &str) -> Result<Option<String>, String> {
    let sex = match text.to_lowercase().as_str() {
        "f" | "female" | "woman" => "F",
        "m" | "male" | "man" => "M",
        "o" | "other" => "O",
        unknown if UNKNOWN.contains(&unknown) => return Ok(None),
        _ => {
            let text = shortened(text);
            return Err(format!(
                "column `{column}`: `{text}` is no sex; write F, M, O (or the words), or leave it empty"
            ));
        }
    };
    Ok(Some(sex.to_owned()))
}

/// An age in years; `None` where it is unknown.
fn age(column: &str, text: &str) -> Result<Option<f32>, String> {
    if UNKNOWN.contains(&text.to_lowercase().as_str()) {
        return Ok(None);
    }
    let stated = years(&text.to_uppercase().replace(' ', "").replacen(',', ".", 1)).filter(|age| *age <= MAX_AGE);
    let unknown = || {
        let text = shortened(text);
        format!(
            "column `{column}`: `{text}` is no age; write years (34, 34.5) or DICOM's form (034Y, 006M), or leave it empty"
        )
    };
    stated.map(Some).ok_or_else(unknown)
}

/// Resolves the paths of a table to files.
struct PathResolver<'a> {
    raw: &'a Path,
    /// The raw directory as it was given, as an absolute path, and without links: the prefixes of absolute paths.
    roots: Vec<PathBuf>,
    /// The form of paths in error messages.
    names: PathNames,
    /// The table's folder relative to the raw directory; `None` where it is outside.
    table_folder: Option<String>,
    files: &'a BTreeMap<String, u64>,
    /// Paths by file name, with and without extension.
    by_name: BTreeMap<&'a str, Vec<&'a str>>,
}

impl<'a> PathResolver<'a> {
    fn new(raw: &'a Path, table_folder: &Path, files: &'a BTreeMap<String, u64>, names: PathNames) -> Result<Self> {
        let real = |path: &Path| {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            retry(|| path.canonicalize()).map_err(failed(path))
        };
        let (table_folder, real_raw) = (real(table_folder)?, real(raw)?);
        let table_folder = table_folder.strip_prefix(&real_raw).ok();
        let table_folder = table_folder.map(|folder| folder.to_string_lossy().into_owned());
        let mut by_name: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for path in files.keys() {
            let name = path.rsplit('/').next().unwrap_or(path);
            by_name.entry(name).or_default().push(path);
            if without_extension(name) != name {
                by_name.entry(without_extension(name)).or_default().push(path);
            }
        }
        let roots = [Some(raw.to_path_buf()), std::path::absolute(raw).ok(), Some(real_raw)];
        Ok(Self { raw, roots: roots.into_iter().flatten().collect(), names, table_folder, files, by_name })
    }

    /// The file of a cell, relative to the raw directory; for a missing file its expected path.
    fn image(&self, cell: &str) -> Result<String, RowError> {
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
                let [cell, first, second] = [cell, *first, *second].map(|path| self.names.stored(path));
                Err(format!("the name `{cell}` matches several files: {first}, {second}; give their paths").into())
            }
        }
    }

    /// The report of a cell, which has a text or the path of a text file.
    fn report(&self, cell: String) -> Result<ReportSource, RowError> {
        let is_short = cell.len() <= LONGEST_PATH && !cell.contains('\n');
        // The path of a missing file must not become the text of a report.
        let looks_like_path = is_short && cell.ends_with(".txt") && !cell.contains(char::is_whitespace);
        let candidates = match self.candidates(&cell) {
            Ok(found) if is_short => found,
            Err(error) if looks_like_path => return Err(format!("the report: {error}").into()),
            _ => Vec::new(),
        };
        for path in &candidates {
            if names_file(&self.raw.join(path))? {
                return Ok(ReportSource::File(PathBuf::from(path)));
            }
        }
        Ok(match candidates.into_iter().next() {
            Some(expected) if looks_like_path => ReportSource::File(PathBuf::from(expected)),
            _ => ReportSource::Text(Arc::from(cell)),
        })
    }

    /// The possible paths of a cell, relative to the raw directory and inside of it.
    fn candidates(&self, cell: &str) -> Result<Vec<String>, String> {
        // Tables written on Windows separate folders by backslashes.
        let slashed = if cell.contains('/') { cell.to_owned() } else { cell.replace('\\', "/") };
        let whole = Path::new(&slashed);
        let below = |path: &Path| self.roots.iter().find_map(|root| Some(path.strip_prefix(root).ok()?.to_path_buf()));
        // The path with the links of existing folders resolved.
        let resolved = || {
            let real = |folder: &Path| Some(folder.canonicalize().ok()?.join(whole.strip_prefix(folder).ok()?));
            below(&whole.ancestors().skip(1).find_map(real)?)
        };
        let cell = below(whole).or_else(|| if whole.is_absolute() { resolved() } else { None });
        let is_drive = matches!(slashed.as_bytes(), [letter, b':', b'/', ..] if letter.is_ascii_alphabetic());
        if cell.is_none() && (whole.is_absolute() || is_drive) {
            let path = self.names.stored(&slashed);
            return Err(format!(
                "the absolute path `{path}` is not below RAW_DIR; give the folder that holds all images as RAW_DIR, or \
                 write paths relative to it, or file names alone"
            ));
        }
        let cell = cell.as_deref().unwrap_or(whole);
        let bases = std::iter::once("").chain(self.table_folder.as_deref().filter(|folder| !folder.is_empty()));
        let inside: Vec<String> = bases.filter_map(|base| inside(&Path::new(base).join(cell))).collect();
        if inside.is_empty() {
            Err("the path leads out of the raw directory; give a path inside of it".to_owned())
        } else {
            Ok(inside)
        }
    }
}

/// A relative path without `.` and `..`; `None` for an absolute or empty path and one that leaves its root.
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
    fn a_cell_is_resolved_as_a_path_or_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let raw = folder.path();
        std::fs::create_dir_all(raw.join("tables/in")).unwrap();
        std::fs::write(raw.join("tables/in/a.txt"), "clear").unwrap();
        let listed = ["tables/in/x.png", "p/x.jpg", "p/y.png", "q/y.png"].map(|path| (path.to_owned(), 1));
        let files = BTreeMap::from(listed);
        let paths = PathResolver::new(raw, &raw.join("tables"), &files, PathNames::default()).unwrap();
        let message = |error: RowError| match error {
            RowError::Reject(error) => error,
            RowError::Fatal(error) => panic!("{error}"),
        };
        let image = |cell: &str| paths.image(cell).map_err(message);
        assert_eq!(image("p/y.png").as_deref(), Ok("p/y.png"));
        assert_eq!(image("in/x.png").as_deref(), Ok("tables/in/x.png"), "relative to the table");
        assert_eq!(image("x.jpg").as_deref(), Ok("p/x.jpg"));
        assert_eq!(image(raw.join("q/y.png").to_str().unwrap()).as_deref(), Ok("q/y.png"));
        assert!(image("y.png").unwrap_err().contains("matches several files: p/y.png, q/y.png"));
        assert!(image("x").unwrap_err().contains("several"));
        assert_eq!(image("gone.png").as_deref(), Ok("gone.png"));
        assert!(image("../../etc/passwd").unwrap_err().contains("leads out"));
        let outside = "the absolute path `/etc/passwd` is not below RAW_DIR; give the folder that holds all images";
        assert!(image("/etc/passwd").unwrap_err().starts_with(outside));
        assert!(image("C:\\scans\\a.png").unwrap_err().contains("`C:/scans/a.png` is not below"));
        assert_eq!(image("p\\y.png").as_deref(), Ok("p/y.png"));
        let alias = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(raw, alias.path().join("raw")).unwrap();
        assert_eq!(image(alias.path().join("raw/q/y.png").to_str().unwrap()).as_deref(), Ok("q/y.png"));
        let report = |cell: &str| paths.report(cell.to_owned()).map_err(message);
        let file = |path: &str| Ok(ReportSource::File(PathBuf::from(path)));
        assert_eq!(report("in/a.txt"), file("tables/in/a.txt"));
        assert_eq!(report("in/b.txt"), file("in/b.txt"), "missing, to be rejected");
        assert_eq!(report("No effusion."), Ok(ReportSource::Text(Arc::from("No effusion."))));
        assert_eq!(report("/etc/passwd"), Ok(ReportSource::Text(Arc::from("/etc/passwd"))));
        assert!(report("/elsewhere/1.txt").unwrap_err().starts_with("the report: the absolute path"));
        assert_eq!(report(raw.join("tables/in/a.txt").to_str().unwrap()), file("tables/in/a.txt"));
    }
}
