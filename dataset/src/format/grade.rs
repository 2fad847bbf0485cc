//! Ordinal grades of a record, such as the severity of a finding.

use serde::{Deserialize, Serialize};

/// What a grade is about, and its values in ascending order. A record has the number of a value, counted from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GradeScale {
    /// Name of the field of the column `grades`.
    pub name: String,
    /// Names of the values, such as `none`, `(+)`, `+`, `++`, `+++`.
    pub values: Vec<String>,
}
