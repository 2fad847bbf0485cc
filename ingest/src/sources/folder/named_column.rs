//! A column with the name that its values get in the dataset: `NAME=COLUMN` on the command line.

use std::fmt::{self, Display, Formatter};
use std::str::FromStr;

/// A column and a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedColumn {
    /// The name, in lower case.
    pub name: String,
    /// The column of the table.
    pub column: String,
}

impl FromStr for NamedColumn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, column) = text.split_once('=').unwrap_or((text, text));
        let name = name.trim().to_lowercase();
        if name.is_empty() || column.is_empty() {
            return Err("give NAME=COLUMN, or a column whose name is taken".to_owned());
        }
        Ok(Self { name, column: column.to_owned() })
    }
}

impl Display for NamedColumn {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{}={}", self.name, self.column)
    }
}
