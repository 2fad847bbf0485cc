//! What a join is made of.

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;
use std::str::FromStr;

use dataset::join::{JoinKind, Unmatched};

use crate::image::mask::{RunForm, RunOrder};
use crate::join::keys::KeyColumn;
use crate::sources::{LabelWord, NamedColumn};

/// What happens where two rows are about the same record, and their values differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Duplicates {
    /// Nothing is written.
    #[default]
    Error,
    /// The first row of the table counts.
    First,
}

/// What the numbers of a box mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum BoxForm {
    /// Left and upper edge, width, height.
    #[default]
    Size,
    /// Left and upper, then right and lower edge.
    Corners,
}

/// The unit of the numbers of a box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum BoxUnit {
    /// Pixels of the raw image, or of an image of the size that two columns state.
    #[default]
    Pixels,
    /// Shares of width and height, 0 to 1.
    Shares,
    /// Pixels of the stored image.
    Stored,
}

/// Another name for a finding: `OLD=NEW` on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rename {
    /// The name in the table.
    pub old: String,
    /// The name in the join.
    pub new: String,
}

impl FromStr for Rename {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=').map(|(old, new)| (old.trim(), new.trim())) {
            Some((old, new)) if !old.is_empty() && !new.is_empty() => {
                Ok(Self { old: old.to_owned(), new: new.to_owned() })
            }
            _ => Err("give OLD=NEW".to_owned()),
        }
    }
}

impl Display for Rename {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{}={}", self.old, self.new)
    }
}

/// The least value of a column: `COLUMN=VALUE` on the command line.
#[derive(Clone, Debug, PartialEq)]
pub struct Least {
    /// The column.
    pub column: String,
    /// Rows with a smaller number are left out, and those without one.
    pub value: f64,
}

impl FromStr for Least {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed =
            text.rsplit_once('=').and_then(|(column, value)| Some((column.trim(), value.trim().parse().ok()?)));
        match parsed.filter(|(column, value): &(&str, f64)| !column.is_empty() && value.is_finite()) {
            Some((column, value)) => Ok(Self { column: column.to_owned(), value }),
            None => Err("give COLUMN=NUMBER".to_owned()),
        }
    }
}

impl Display for Least {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{}={}", self.column, self.value)
    }
}

/// Where the values of a kind are in the table.
#[derive(Clone, Debug)]
pub enum JoinSource {
    /// Labels.
    Labels {
        /// Columns of findings; empty: all columns whose cells are labels.
        columns: Vec<String>,
        /// Columns of class names.
        class_columns: Vec<String>,
        /// Meaning of further words.
        map: Vec<LabelWord>,
        /// Other names for findings.
        rename: Vec<Rename>,
        /// Where the labels are from.
        origin: Option<String>,
    },
    /// Boxes, one in a row.
    Boxes {
        /// Columns of the four numbers.
        columns: [String; 4],
        /// What they mean.
        form: BoxForm,
        /// Their unit.
        unit: BoxUnit,
        /// Column of what a box shows.
        label: String,
        /// Column of the sentence that a box belongs to.
        sentence: Option<String>,
        /// Column of the score of a detector.
        score: Option<String>,
    },
    /// Masks.
    Masks {
        /// Columns of run lengths, or of paths of image files.
        columns: Vec<NamedColumn>,
        /// What the run lengths mean.
        runs: RunForm,
        /// The order of pixels that they go along.
        order: RunOrder,
        /// Folder of the image files; by default that of the table.
        folder: Option<PathBuf>,
    },
    /// Texts.
    Texts {
        /// Their columns.
        columns: Vec<NamedColumn>,
    },
    /// Subsets.
    Subset {
        /// Their column.
        column: String,
    },
}

impl JoinSource {
    /// The kind of the join.
    pub fn kind(&self) -> JoinKind {
        match self {
            Self::Labels { .. } => JoinKind::Labels,
            Self::Boxes { .. } => JoinKind::Boxes,
            Self::Masks { .. } => JoinKind::Masks,
            Self::Texts { .. } => JoinKind::Texts,
            Self::Subset { .. } => JoinKind::Subset,
        }
    }

    /// The columns that are read; `None`: all.
    pub fn columns(&self) -> Option<Vec<&str>> {
        Some(match self {
            Self::Labels { columns, class_columns, .. } => {
                if columns.is_empty() && class_columns.is_empty() {
                    return None;
                }
                columns.iter().chain(class_columns).map(String::as_str).collect()
            }
            Self::Boxes { columns, label, sentence, score, .. } => {
                columns.iter().chain([label]).chain(sentence).chain(score).map(String::as_str).collect()
            }
            Self::Masks { columns, .. } | Self::Texts { columns } => {
                columns.iter().map(|named| named.column.as_str()).collect()
            }
            Self::Subset { column } => vec![column.as_str()],
        })
    }
}

/// What a join is made of.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    /// Name of the join.
    pub name: String,
    /// The table: text of separated fields, JSON lines or Parquet, as for the source `folder`.
    pub table: PathBuf,
    /// The text of the table, where it is in no file; `table` is its name then.
    pub text: Option<Vec<u8>>,
    /// The column by which rows belong to records.
    pub key: String,
    /// The column of records that it is compared with; `None`: the one with the most matches.
    pub on: Option<KeyColumn>,
    /// The values.
    pub source: JoinSource,
    /// Columns of height and width of the image that boxes or masks are about, where it is not the raw one.
    pub size_columns: Option<[String; 2]>,
    /// Rows with a smaller value are left out.
    pub least: Vec<Least>,
    /// What happens where two rows differ.
    pub duplicates: Duplicates,
    /// What a reader sees in a record without a row.
    pub unmatched: Unmatched,
    /// Leave out rows with a value that cannot be read.
    pub skip_unreadable: bool,
    /// Replace the join of this name.
    pub overwrite: bool,
    /// The options as words of a command line, without dataset, table and `--overwrite`.
    pub words: Vec<String>,
}
