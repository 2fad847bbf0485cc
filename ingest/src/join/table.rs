//! The table of a join. Text of separated fields is read in blocks, since the tables of masks are larger than memory.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use dataset::store::files;
use polars::prelude::PlSmallStr;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::join::options::{JoinOptions, JoinSource};
use crate::join::problems::Problems;
use crate::sources::folder::labels::shortened;
use crate::sources::shared::table::{Rows, Table, texts};
use crate::sources::shared::table_file;

/// Most rows of a block, and bytes of its text.
const BLOCK: (usize, usize) = (4096, 64 << 20);

/// A block of rows, or a whole table.
pub(super) struct Block {
    table: Table,
    path: PathBuf,
    /// Number of its first row in the table.
    pub first: usize,
}

impl Block {
    /// Number of rows that have as many fields as the header.
    pub fn rows(&self) -> usize {
        self.table.frame.height()
    }

    /// The names of all columns that were read.
    pub fn names(&self) -> Vec<&str> {
        self.table.frame.get_column_names().into_iter().map(PlSmallStr::as_str).collect()
    }

    /// The values of a column.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn values(&self, name: &str) -> Result<Vec<Option<&str>>> {
        texts(&self.table.frame, name).map_err(|_| Error::MissingColumn {
            path: self.path.clone(),
            column: name.to_owned(),
            found: self.names().join(", "),
        })
    }

    /// Table and line of a row, for a message.
    pub fn place(&self, row: usize) -> String {
        self.table.place(row)
    }

    /// An error of the table.
    pub fn error(&self, message: impl Into<String>) -> Error {
        Error::Table { path: self.path.clone(), message: message.into() }
    }

    /// The folder of the table.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

/// The keys of the rows of a table.
pub(super) struct TableKeys {
    /// By row; `None` for a row that is left out, and where the cell is empty.
    pub keys: Vec<Option<String>>,
    /// Rows with a value that is too small.
    pub filtered: u64,
    /// Rows with another number of fields than the header.
    pub broken: Vec<String>,
}

/// The table that the options name.
pub(super) struct JoinTable<'o> {
    options: &'o JoinOptions,
    /// SHA-256 of its file.
    pub sha256: String,
}

impl<'o> JoinTable<'o> {
    /// Hashes the table.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(options: &'o JoinOptions) -> Result<Self> {
        let sha256 = match &options.text {
            Some(text) => files::hex(&Sha256::digest(text)),
            None => files::sha256(&options.table)?,
        };
        Ok(Self { options, sha256 })
    }

    /// An error of the table.
    pub fn error(&self, message: impl Into<String>) -> Error {
        Error::Table { path: self.options.table.clone(), message: message.into() }
    }

    /// All columns that the options name; none where the labels are in columns that no option names.
    fn needed(&self) -> Vec<&str> {
        let mut columns = self.options.source.columns().unwrap_or_default();
        columns.push(&self.options.key);
        columns.extend(self.options.size_columns.iter().flatten().map(String::as_str));
        columns.extend(self.options.least.iter().map(|least| least.column.as_str()));
        columns
    }

    /// Gives the table to `each`, as a whole or in blocks, with the columns `kept` (`None`: all).
    ///
    /// # Errors
    /// When the table cannot be read or lacks a column that the options name, and those of `each`.
    pub fn read(&self, kept: Option<&[&str]>, mut each: impl FnMut(&Block) -> Result<()>) -> Result<()> {
        let (path, needed) = (&self.options.table, self.needed());
        let block = |table: Table, first: usize| Block { table, path: path.clone(), first };
        let whole = match (&self.options.text, kept) {
            (Some(text), _) => Table::of_text(path, text)?,
            (None, Some(kept)) if table_file::is_separated(path) => {
                let mut rows = Rows::of_file(Path::new(""), path, &needed, kept)?;
                let mut first = 0;
                loop {
                    let (table, has_more) = rows.block(BLOCK.0, BLOCK.1)?;
                    let block = block(table, first);
                    first += block.rows();
                    each(&block)?;
                    if !has_more {
                        return Ok(());
                    }
                }
            }
            (None, _) => table_file::read(Path::new(""), path)?,
        };
        let whole = block(whole, 0);
        needed.into_iter().try_for_each(|column| whole.values(column).map(drop))?;
        each(&whole)
    }

    /// Reads the values, all columns of them where a block would not know what others have.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_values(&self, each: impl FnMut(&Block) -> Result<()>) -> Result<()> {
        match self.options.source {
            JoinSource::Labels { .. } => self.read(None, each),
            _ => self.read(Some(&self.needed()), each),
        }
    }

    /// Reads the keys of the rows whose values are large enough.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn keys(&self, unreadable: &Problems) -> Result<TableKeys> {
        let JoinOptions { key, least, .. } = self.options;
        let mut kept: HashSet<&str> = least.iter().map(|least| least.column.as_str()).collect();
        kept.insert(key);
        let kept: Vec<&str> = kept.into_iter().collect();
        let mut all = TableKeys { keys: Vec::new(), filtered: 0, broken: Vec::new() };
        self.read(Some(&kept), |block| {
            all.broken
                .extend(block.table.rejects.iter().map(|reject| format!("{}, {}", reject.source_path, reject.error)));
            let mut keys = block.values(key)?;
            for (row, _) in keys.iter().enumerate().filter(|(_, key)| key.is_none()) {
                unreadable.add(block.first + row, block.place(row), format!("the key column `{key}` is empty"));
            }
            for least in least {
                let values = block.values(&least.column)?;
                for (row, key) in keys.iter_mut().enumerate().filter(|(_, key)| key.is_some()) {
                    match values[row].map(str::parse::<f64>) {
                        Some(Ok(number)) if number >= least.value => continue,
                        Some(Err(_)) => {
                            let text = shortened(values[row].unwrap_or_default());
                            let message = format!("column `{}`: `{text}` is no number", least.column);
                            unreadable.add(block.first + row, block.place(row), message);
                        }
                        Some(Ok(_)) | None => all.filtered += 1,
                    }
                    *key = None;
                }
            }
            all.keys.extend(keys.into_iter().map(|key| key.map(str::to_owned)));
            Ok(())
        })?;
        Ok(all)
    }
}
