//! The label of a finding.

use std::fmt;

use serde::{Serialize, Serializer};

/// What a source states about a finding of a record. `None` in place of a label: the source does not mention the finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Label {
    /// The source leaves the finding open; code -1.
    Uncertain,
    /// The finding is absent; code 0.
    Negative,
    /// The finding is present; code 1.
    Positive,
}

impl Label {
    /// The code that shards, tables and exports contain.
    pub const fn code(self) -> i8 {
        match self {
            Self::Uncertain => -1,
            Self::Negative => 0,
            Self::Positive => 1,
        }
    }

    /// The label of a code; `None` where it is neither 1, 0 nor -1.
    pub const fn from_code(code: i8) -> Option<Self> {
        match code {
            -1 => Some(Self::Uncertain),
            0 => Some(Self::Negative),
            1 => Some(Self::Positive),
            _ => None,
        }
    }

    /// The value of a label in a tensor: its code, or NaN where the finding is not mentioned. [`Batch::labels`] consists of
    /// these.
    ///
    /// [`Batch::labels`]: crate::Batch::labels
    pub fn tensor_value(label: Option<Self>) -> f32 {
        label.map_or(f32::NAN, |label| label.code().into())
    }

    /// The label of a value in a tensor, the inverse of [`Label::tensor_value`].
    pub fn from_tensor_value(value: f32) -> Option<Self> {
        [Self::Uncertain, Self::Negative, Self::Positive].into_iter().find(|label| f32::from(label.code()) == value)
    }
}

/// Writes the code.
impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.code().fmt(f)
    }
}

/// As its code.
impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i8(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_tensor_values_are_inverted() {
        for label in [Some(Label::Uncertain), Some(Label::Negative), Some(Label::Positive), None] {
            assert_eq!(label.and_then(|label| Label::from_code(label.code())), label);
            assert_eq!(Label::from_tensor_value(Label::tensor_value(label)), label);
        }
        assert_eq!((Label::from_code(2), Label::from_code(-2), Label::from_tensor_value(0.5)), (None, None, None));
    }
}
