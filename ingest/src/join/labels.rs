//! Labels of a table.

use dataset::Label;
use dataset::format::record_checks;
use dataset::name_suggestion::did_you_mean;

use crate::error::Result;
use crate::join::options::Rename;
use crate::join::table::Block;
use crate::sources::LabelWord;
use crate::sources::folder::labels::{Findings, Values, is_label};

/// The findings of a table.
pub(super) struct Labels<'a> {
    findings: Findings<'a>,
    /// Names of the findings, with other names where they were given.
    pub names: Vec<String>,
}

impl<'a> Labels<'a> {
    /// Reads the columns of labels and of classes; without any, all columns but `key` whose cells are labels.
    ///
    /// # Errors
    /// When there is no such column, or two findings have the same name.
    pub fn new(
        table: &'a Block,
        key: &str,
        (columns, classes): (&'a [String], &'a [String]),
        map: &[LabelWord],
        rename: &[Rename],
    ) -> Result<Self> {
        let named = |names: &'a [String]| -> Result<Vec<(&'a str, Values<'a>)>> {
            names.iter().map(|name| Ok((name.as_str(), table.values(name)?))).collect()
        };
        let mut labels = named(columns)?;
        if columns.is_empty() && classes.is_empty() {
            for name in table.names().into_iter().filter(|name| *name != key && !name.is_empty()) {
                let values = table.values(name)?;
                let mut stated = values.iter().flatten().peekable();
                if stated.peek().is_some() && stated.all(|value| is_label(value)) {
                    labels.push((name, values));
                }
            }
            if labels.is_empty() {
                let message = "no column has labels (1, 0, -1, blank, or words for them) in all rows; name them with \
                               --label-columns, and give other words to --label-map";
                return Err(table.error(message));
            }
        }
        let findings = Findings::new(labels, named(classes)?, map).map_err(|message| table.error(message))?;
        let mut names = findings.names.clone();
        for Rename { old, new } in rename {
            let Some(at) = findings.names.iter().position(|name| name == old) else {
                let suggestion = did_you_mean(old, findings.names.iter().map(String::as_str));
                return Err(table.error(format!("--rename {old}={new}: no finding `{old}`{suggestion}")));
            };
            new.clone_into(&mut names[at]);
        }
        if let Some(name) = names.iter().enumerate().find_map(|(at, name)| names[..at].contains(name).then_some(name)) {
            return Err(table.error(format!("two findings have the name `{name}`; give another one to --rename")));
        }
        Ok(Self { findings, names })
    }

    /// Warnings about words, a line each.
    pub fn warnings(&self) -> &[String] {
        &self.findings.warnings
    }

    /// The labels of a row.
    ///
    /// # Errors
    /// A sentence that names the column and the unknown word.
    pub fn row(&self, row: usize) -> Result<Vec<Option<Label>>, String> {
        self.findings.row(row)?.into_iter().map(record_checks::label).collect()
    }
}
