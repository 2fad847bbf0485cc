//! Finds the records that the rows of a table are about, by comparing a column of the table with one of the records.

use std::borrow::Cow;
use std::collections::HashMap;

use dataset::Dataset;

use crate::error::Result;
use crate::sources::folder::labels::shortened;

/// Most folders of a path that are left out to compare it.
const MOST_FOLDERS: usize = 4;

/// Extensions that paths are compared without.
const EXTENSIONS: [&str; 6] = ["dcm", "dicom", "png", "jpg", "jpeg", "gz"];

/// A column of the records that keys are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum KeyColumn {
    /// The identifier of a record.
    RecordId,
    /// The identifier of an image.
    ImageId,
    /// The identifier of a study; a row is about all images of the study.
    StudyId,
    /// The identifier of a patient; a row is about all images of the patient.
    PatientId,
    /// The path of the raw file, in which a few first folders may differ, and the extension.
    SourcePath,
}

impl KeyColumn {
    /// All columns; of two with as many matches the first one is taken.
    pub const ALL: [Self; 5] = [Self::RecordId, Self::ImageId, Self::StudyId, Self::PatientId, Self::SourcePath];

    /// Name on the command line and in the dataset.
    pub fn name(self) -> &'static str {
        match self {
            Self::RecordId => "record_id",
            Self::ImageId => "image_id",
            Self::StudyId => "study_id",
            Self::PatientId => "patient_id",
            Self::SourcePath => "source_path",
        }
    }

    /// The forms in which keys and records are compared, in the order of preference.
    fn forms(self) -> Vec<Form> {
        match self {
            Self::RecordId => vec![Form::Same],
            Self::ImageId => vec![Form::Same, Form::Stem],
            Self::StudyId => vec![Form::Same, Form::Number, Form::LastOfRecord],
            Self::PatientId => vec![Form::Same, Form::Number],
            Self::SourcePath => {
                let deeper = (1..=MOST_FOLDERS).flat_map(|folders| [Form::Below(folders, 0), Form::Below(0, folders)]);
                std::iter::once(Form::Below(0, 0)).chain(deeper).collect()
            }
        }
    }
}

/// How a key and a record are made comparable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As they are.
    Same,
    /// The key as a whole number: without a letter before it (`s50414267`), and without `.0` behind it.
    Number,
    /// The last part of both as a path, without the extension.
    Stem,
    /// The last part of the record, which begins with the patient: `patient/study`.
    LastOfRecord,
    /// Paths without the extension, and without so many first folders of the key and of the record.
    Below(usize, usize),
}

impl Form {
    /// The comparable form of a key; `None` where it has none.
    fn of_key(self, key: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Same | Self::LastOfRecord => Some(key.into()),
            Self::Number => {
                let rest = key.strip_prefix(|c: char| c.is_ascii_alphabetic()).unwrap_or(key);
                let number = rest.strip_suffix(".0").unwrap_or(rest);
                (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then(|| number.into())
            }
            Self::Stem => Some(stem(key).into()),
            Self::Below(folders, _) => below(key, folders),
        }
    }

    /// The comparable form of a record's value.
    fn of_record(self, value: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Same | Self::Number => Some(value.into()),
            Self::Stem => Some(stem(value).into()),
            Self::LastOfRecord => Some(value.rsplit('/').next().unwrap_or(value).into()),
            Self::Below(_, folders) => below(value, folders),
        }
    }

    /// How a message describes it.
    fn words(self) -> String {
        let folders =
            |count: usize| if count == 1 { "the first folder".to_owned() } else { format!("{count} folders") };
        match self {
            Self::Same | Self::Below(0, 0) => String::new(),
            Self::Number => ", as numbers".to_owned(),
            Self::Stem => ", without folders and extension".to_owned(),
            Self::LastOfRecord => ", without the patient".to_owned(),
            Self::Below(left_out, 0) => format!(", without {} of the table's paths", folders(left_out)),
            Self::Below(_, left_out) => format!(", without {} of the records' paths", folders(left_out)),
        }
    }
}

fn without_extension(path: &str) -> &str {
    match path.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() && EXTENSIONS.contains(&ending.to_ascii_lowercase().as_str()) => stem,
        _ => path,
    }
}

fn stem(path: &str) -> &str {
    without_extension(path.rsplit(['/', '\\']).next().unwrap_or(path))
}

/// A path without its extension and so many first folders; `None` where it has fewer.
fn below(path: &str, folders: usize) -> Option<Cow<'_, str>> {
    let path = without_extension(path.trim_start_matches("./").trim_start_matches('/'));
    let path: Cow<'_, str> = if path.contains('\\') { path.replace('\\', "/").into() } else { path.into() };
    if folders == 0 {
        return Some(path);
    }
    let at = path.match_indices('/').nth(folders - 1)?.0;
    Some(match path {
        Cow::Borrowed(path) => path[at + 1..].into(),
        Cow::Owned(path) => path[at + 1..].to_owned().into(),
    })
}

/// The records that the rows of a table are about.
pub(super) struct Matches {
    /// The column of the records.
    pub on: KeyColumn,
    /// How both were compared, for a message.
    pub how: String,
    /// By row of the table: the rows of its records in the dataset; empty where there is none.
    pub records: Vec<Vec<u32>>,
}

impl Matches {
    /// Number of rows that are about a record.
    fn count(&self) -> usize {
        self.records.iter().filter(|records| !records.is_empty()).count()
    }
}

/// The identifiers of the records of a dataset.
struct Identifiers {
    columns: Vec<Vec<String>>,
}

impl Identifiers {
    fn read(dataset: &Dataset) -> Result<Self> {
        let column = |column: KeyColumn| -> Result<Vec<String>> {
            Ok(dataset.texts(column.name())?.into_iter().map(Option::unwrap_or_default).collect())
        };
        Ok(Self { columns: KeyColumn::ALL.into_iter().map(column).collect::<Result<_>>()? })
    }

    fn of(&self, column: KeyColumn) -> &[String] {
        &self.columns[KeyColumn::ALL.iter().position(|known| *known == column).unwrap_or(0)]
    }
}

/// Compares keys with the records in one form. The error is a sentence about a key that fits records that it cannot be about
/// together.
fn compare(ids: &Identifiers, on: KeyColumn, form: Form, keys: &[Option<&str>]) -> Result<Matches, String> {
    let values = ids.of(on);
    let mut by_form: HashMap<Cow<'_, str>, Vec<u32>> = HashMap::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        if let Some(form) = form.of_record(value) {
            by_form.entry(form).or_default().push(row as u32);
        }
    }
    let patients = ids.of(KeyColumn::PatientId);
    let mut records = Vec::with_capacity(keys.len());
    for key in keys {
        let found = key.and_then(|key| by_form.get(form.of_key(key)?.as_ref()));
        let Some(found) = found else {
            records.push(Vec::new());
            continue;
        };
        let is_one = match on {
            KeyColumn::RecordId | KeyColumn::ImageId | KeyColumn::SourcePath => found.len() == 1,
            KeyColumn::StudyId => found.iter().all(|&row| patients[row as usize] == patients[found[0] as usize]),
            KeyColumn::PatientId => {
                form == Form::Same || found.iter().all(|&row| values[row as usize] == values[found[0] as usize])
            }
        };
        if !is_one {
            let (key, whose) =
                (shortened(key.unwrap_or_default()), if on == KeyColumn::StudyId { "patients" } else { "images" });
            return Err(format!(
                "the key `{key}` is the {} of several {whose}; give another column to --on",
                on.name()
            ));
        }
        records.push(found.clone());
    }
    Ok(Matches { on, how: form.words(), records })
}

/// Finds the records of each key, in the form with the most matches. The error is a sentence for the user: no key fits a
/// record, or one fits several that it cannot be about together.
///
/// # Errors
/// The outer error is that of reading the dataset.
pub(super) fn find(
    dataset: &Dataset,
    on: Option<KeyColumn>,
    key_column: &str,
    keys: &[Option<String>],
) -> Result<Result<Matches, String>> {
    let keys: &[Option<&str>] = &keys.iter().map(Option::as_deref).collect::<Vec<_>>();
    let ids = Identifiers::read(dataset)?;
    let columns = on.map_or(KeyColumn::ALL.to_vec(), |on| vec![on]);
    let all = keys.iter().flatten().count();
    let (mut best, mut ambiguous): (Option<Matches>, Option<String>) = (None, None);
    let forms = columns.into_iter().flat_map(|column| column.forms().into_iter().map(move |form| (column, form)));
    for (column, form) in forms {
        if best.as_ref().is_some_and(|best| best.count() == all) {
            break;
        }
        match compare(&ids, column, form, keys) {
            Ok(found) if found.count() > best.as_ref().map_or(0, Matches::count) => best = Some(found),
            Ok(_) => {}
            Err(message) => ambiguous = ambiguous.or(Some(message)),
        }
    }
    Ok(best.ok_or_else(|| ambiguous.unwrap_or_else(|| no_match(&ids, on, key_column, keys))))
}

/// That no key fits, with an example of each side.
fn no_match(ids: &Identifiers, on: Option<KeyColumn>, key_column: &str, keys: &[Option<&str>]) -> String {
    let key = keys.iter().flatten().next().copied().unwrap_or_default();
    let columns = on.map_or(KeyColumn::ALL.to_vec(), |on| vec![on]);
    let example = |column: KeyColumn| Some(format!("{} `{}`", column.name(), shortened(ids.of(column).first()?)));
    let examples: Vec<String> = columns.into_iter().filter_map(example).collect();
    format!(
        "no row is about a record of this dataset: its column `{key_column}` has keys like `{}`, the records have {}; give \
         another column to --key{}",
        shortened(key),
        if examples.is_empty() { "no identifiers".to_owned() } else { examples.join(", ") },
        if on.is_some() { " or --on" } else { "" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(rows: &[[&str; 5]]) -> Identifiers {
        let column = |at: usize| rows.iter().map(|row| row[at].to_owned()).collect();
        Identifiers { columns: (0..5).map(column).collect() }
    }

    #[test]
    fn forms_make_keys_comparable() {
        let ids = ids(&[
            ["m/a", "a", "501", "10", "files/p10/a.dcm"],
            ["m/b", "b", "501", "10", "files/p10/b.dcm"],
            ["m/c", "c", "502", "11", "files/p11/c.dcm"],
        ]);
        let found = |on, form, key: &str| compare(&ids, on, form, &[Some(key)]).map(|found| found.records[0].clone());
        assert_eq!(found(KeyColumn::ImageId, Form::Same, "b"), Ok(vec![1]));
        assert_eq!(found(KeyColumn::ImageId, Form::Stem, "x/b.jpg"), Ok(vec![1]));
        assert_eq!(found(KeyColumn::StudyId, Form::Number, "s501.0"), Ok(vec![0, 1]));
        assert_eq!(found(KeyColumn::PatientId, Form::Number, "p11"), Ok(vec![2]));
        assert_eq!(found(KeyColumn::SourcePath, Form::Below(1, 0), "mimic/files/p10/a.jpg"), Ok(vec![0]));
        assert_eq!(found(KeyColumn::SourcePath, Form::Below(0, 1), "p11\\c.png"), Ok(vec![2]));
        assert_eq!(found(KeyColumn::SourcePath, Form::Below(2, 0), "c.png"), Ok(vec![]));
        assert_eq!(Form::Number.of_key("s5a"), None);
        assert_eq!(below("a.b/c.d", 1).as_deref(), Some("c.d"), "a dot is no extension");
    }

    #[test]
    fn a_key_of_several_images_is_refused() {
        let ids = ids(&[
            ["a", "view1.jpg", "p1/study1", "p1", "p1/view1.jpg"],
            ["b", "view1.jpg", "p2/study1", "p2", "p2/view1.jpg"],
        ]);
        let error = |on, form, key| compare(&ids, on, form, &[Some(key)]).err().expect("an error");
        assert!(
            error(KeyColumn::ImageId, Form::Same, "view1.jpg")
                .contains("`view1.jpg` is the image_id of several images")
        );
        assert!(error(KeyColumn::StudyId, Form::LastOfRecord, "study1").contains("of several patients"));
        assert!(compare(&ids, KeyColumn::StudyId, Form::Same, &[Some("p2/study1"), None]).is_ok());
    }
}
