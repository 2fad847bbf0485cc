//! The values that the rows of a table give to a record, one kind for a join.

use dataset::Label;
use dataset::format::record::{BoundingBox, NamedMask, NamedText, Record};

use crate::error::Result;
use crate::join::boxes::{BoxColumns, Boxes};
use crate::join::geometry::Geometry;
use crate::join::labels::Labels;
use crate::join::masks::Masks;
use crate::join::options::{JoinOptions, JoinSource};
use crate::join::table::{Block, JoinTable};
use crate::join::texts::{Subsets, Texts};
use crate::join::tokens::Tokens;

/// What a row says of a record.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Labels(Vec<Option<Label>>),
    Boxes(Vec<BoundingBox>),
    Masks(Vec<NamedMask>),
    Texts(Vec<NamedText>),
    Subset(String),
}

impl Value {
    /// Adds what another row says of the same record; false where both contradict each other, and the first one stays.
    pub fn merge(&mut self, other: Self) -> bool {
        match (self, other) {
            (Self::Boxes(known), Self::Boxes(new)) => {
                for new in new {
                    // Equal rows count once.
                    if !known.contains(&new) {
                        known.push(new);
                    }
                }
                true
            }
            (Self::Masks(known), Self::Masks(new)) => add_named(known, new, |mask| &mask.name),
            (Self::Texts(known), Self::Texts(new)) => add_named(known, new, |text| &text.name),
            (known, other) => *known == other,
        }
    }

    /// A record with this value and nothing else.
    pub fn record(self) -> Record {
        let empty = Record::default();
        match self {
            Self::Labels(labels) => Record { labels, ..empty },
            Self::Boxes(boxes) => Record { boxes, ..empty },
            Self::Masks(masks) => Record { masks, ..empty },
            Self::Texts(texts) => Record { texts, ..empty },
            Self::Subset(subset) => Record { subset: Some(subset), ..empty },
        }
    }
}

/// Adds items whose name is new; false where an item of a known name differs.
fn add_named<T: PartialEq>(known: &mut Vec<T>, new: Vec<T>, name: impl Fn(&T) -> &String) -> bool {
    let mut agree = true;
    for item in new {
        match known.iter().find(|known| name(known) == name(&item)) {
            Some(found) => agree &= *found == item,
            None => known.push(item),
        }
    }
    agree
}

/// The columns of values.
pub(super) enum Values<'a> {
    Labels(Labels<'a>),
    Boxes(Box<Boxes<'a>>),
    Masks(Masks<'a>),
    Texts(Texts<'a>),
    Subset(Subsets<'a>),
}

impl<'a> Values<'a> {
    /// Reads the columns that the options name.
    ///
    /// # Errors
    /// When one is missing, or has nothing that can be read.
    pub fn new(table: &'a Block, options: &'a JoinOptions, tokens: &'a Tokens) -> Result<Self> {
        Ok(match &options.source {
            JoinSource::Labels { columns, class_columns, map, rename, .. } => {
                Self::Labels(Labels::new(table, &options.key, (columns, class_columns), map, rename)?)
            }
            JoinSource::Boxes { columns, form, unit, label, sentence, score } => {
                let columns =
                    BoxColumns { numbers: columns, label, sentence: sentence.as_deref(), score: score.as_deref() };
                Self::Boxes(Box::new(Boxes::new(table, options, &columns, (*form, *unit))?))
            }
            JoinSource::Masks { columns, runs, order, folder } => {
                Self::Masks(Masks::new(table, options, columns, (*runs, *order), folder.as_deref())?)
            }
            JoinSource::Texts { columns } => Self::Texts(Texts::new(table, columns, tokens)?),
            JoinSource::Subset { column } => Self::Subset(Subsets::new(table, column)?),
        })
    }

    /// What a row says of a record; `None` where it says nothing. `geometry` is that of the record, where values are places in
    /// its image.
    ///
    /// # Errors
    /// A sentence that names the column and the cause.
    pub fn row(&self, row: usize, geometry: Option<&Geometry>) -> Result<Option<Value>, String> {
        let placed = || geometry.ok_or_else(|| "the record has no image".to_owned());
        Ok(match self {
            Self::Labels(labels) => Some(Value::Labels(labels.row(row)?)),
            // A row without numbers says that there is no box.
            Self::Boxes(boxes) => Some(Value::Boxes(boxes.row(row, placed()?)?.into_iter().collect())),
            Self::Masks(masks) => Some(masks.row(row, placed()?)?).filter(|masks| !masks.is_empty()).map(Value::Masks),
            Self::Texts(texts) => Some(texts.row(row)?).filter(|texts| !texts.is_empty()).map(Value::Texts),
            Self::Subset(subsets) => subsets.row(row)?.map(Value::Subset),
        })
    }
}

/// The findings, or the names of masks or texts, and warnings about the table, a line each.
///
/// # Errors
/// When two texts have the same name, or the table of labels cannot be read.
pub(super) fn names(table: &JoinTable, options: &JoinOptions, tokens: &Tokens) -> Result<(Vec<String>, Vec<String>)> {
    let columns = match &options.source {
        JoinSource::Labels { .. } => {
            let mut found = (Vec::new(), Vec::new());
            table.read_values(|block| {
                if let Values::Labels(labels) = Values::new(block, options, tokens)? {
                    found = (labels.names.clone(), labels.warnings().to_vec());
                }
                Ok(())
            })?;
            return Ok(found);
        }
        JoinSource::Masks { columns, .. } | JoinSource::Texts { columns } => columns.as_slice(),
        JoinSource::Boxes { .. } | JoinSource::Subset { .. } => &[],
    };
    let mut names: Vec<String> = Vec::new();
    for column in columns {
        let is_known = names.contains(&column.name);
        if is_known && matches!(options.source, JoinSource::Texts { .. }) {
            let name = &column.name;
            return Err(table.error(format!("two texts have the name `{name}`; give NAME=COLUMN to --text-columns")));
        }
        if !is_known {
            names.push(column.name.clone());
        }
    }
    Ok((names, Vec::new()))
}
