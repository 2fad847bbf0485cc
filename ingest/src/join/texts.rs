//! Texts and subsets of a table.

use dataset::format::record::NamedText;
use dataset::format::record_checks;

use crate::error::Result;
use crate::join::table::Block;
use crate::join::tokens::Tokens;
use crate::report::tokenizer;
use crate::sources::NamedColumn;
use crate::sources::folder::cells;
use crate::sources::folder::labels::Values;

/// The columns of texts.
pub(super) struct Texts<'a> {
    columns: Vec<(&'a NamedColumn, Values<'a>)>,
    tokens: &'a Tokens,
}

impl<'a> Texts<'a> {
    /// Reads the columns.
    ///
    /// # Errors
    /// When one is missing.
    pub fn new(table: &'a Block, columns: &'a [NamedColumn], tokens: &'a Tokens) -> Result<Self> {
        let named = |named: &'a NamedColumn| Ok((named, table.values(&named.column)?));
        Ok(Self { columns: columns.iter().map(named).collect::<Result<_>>()?, tokens })
    }

    /// The texts of a row; an empty cell is none.
    ///
    /// # Errors
    /// A sentence that names the column.
    pub fn row(&self, row: usize) -> Result<Vec<NamedText>, String> {
        let stated = self.columns.iter().filter_map(|(named, values)| Some((*named, values[row]?)));
        let text = |(named, text): (&NamedColumn, &str)| {
            record_checks::name("texts", &named.name)?;
            let token_ids = match &self.tokens.tokenizer {
                None => Vec::new(),
                Some(tokenizer) => tokenizer::token_ids(tokenizer, text, self.tokens.most)
                    .map_err(|error| format!("column `{}`: {error}", named.column))?,
            };
            Ok(NamedText { name: named.name.clone(), text: text.to_owned(), token_ids })
        };
        stated.map(text).collect()
    }
}

/// The column of subsets.
pub(super) struct Subsets<'a> {
    column: &'a str,
    values: Values<'a>,
}

impl<'a> Subsets<'a> {
    /// Reads the column.
    ///
    /// # Errors
    /// When it is missing.
    pub fn new(table: &'a Block, column: &'a str) -> Result<Self> {
        Ok(Self { column, values: table.values(column)? })
    }

    /// The subset of a row; `None` where it is empty.
    ///
    /// # Errors
    /// A sentence that names the column and the unknown word.
    pub fn row(&self, row: usize) -> Result<Option<String>, String> {
        self.values[row].map(|text| cells::subset(self.column, text)).transpose()
    }
}
