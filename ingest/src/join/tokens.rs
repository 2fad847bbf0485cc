//! The tokenizer of the texts of a join.

use dataset::Dataset;
use tokenizers::Tokenizer;

use crate::error::Result;
use crate::join::options::{JoinOptions, JoinSource};

/// The tokenizer of a dataset and its longest list of token ids.
pub(super) struct Tokens {
    pub tokenizer: Option<Tokenizer>,
    pub most: usize,
}

impl Tokens {
    /// The tokenizer of texts; none for other kinds.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(dataset: &Dataset, options: &JoinOptions) -> Result<Self> {
        let is_text = matches!(options.source, JoinSource::Texts { .. });
        let tokenizer = if is_text { dataset.tokenizer()? } else { None };
        Ok(Self { tokenizer, most: dataset.manifest().text.max_tokens })
    }
}
