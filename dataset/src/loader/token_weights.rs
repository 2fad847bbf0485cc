//! Weights of tokens in the loss of reports.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use crate::error::{Error, Result};
use crate::name_suggestion::did_you_mean;
use crate::store::files;
use crate::tokenizer::ReportTokenizer;

/// Weights of tokens, by the pieces of the vocabulary (`##…` continues a word); every other token has the weight 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TokenWeights(BTreeMap<String, f32>);

impl TokenWeights {
    /// Weights by token.
    ///
    /// # Errors
    /// When a weight is no number from 0 on.
    pub fn new(weights: impl IntoIterator<Item = (String, f32)>) -> Result<Self> {
        let weights: BTreeMap<String, f32> = weights.into_iter().collect();
        match weights.iter().find(|(_, weight)| !(weight.is_finite() && **weight >= 0.0)) {
            Some((token, weight)) => {
                Err(Error::Invalid(format!("token weights: `{token}` has the weight {weight}; give numbers from 0 on")))
            }
            None => Ok(Self(weights)),
        }
    }

    /// Reads a JSON object: `{"effusion": 2.5, "##thorax": 3}`.
    ///
    /// # Errors
    /// When it cannot be read, or a weight is no number from 0 on.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = files::read(path, files::MAX_JSON_BYTES)?;
        let read = serde_json::from_slice::<BTreeMap<String, f32>>(&bytes);
        let read =
            read.map_err(|error| Error::Invalid(format!("not a JSON object of tokens and their weights: {error}")));
        read.and_then(Self::new).map_err(|error| match error {
            Error::Invalid(message) => Error::Invalid(format!("{}: {message}", path.display())),
            other => other,
        })
    }

    /// The weight of each token id of a tokenizer.
    pub(crate) fn by_id(&self, tokenizer: &ReportTokenizer) -> Result<Vec<f32>> {
        let pieces = tokenizer.pieces();
        let known: HashSet<&str> = pieces.iter().map(String::as_str).collect();
        if let Some(token) = self.0.keys().find(|token| !known.contains(token.as_str())) {
            return Err(Error::Invalid(format!(
                "token weights: `{token}` is no token of the tokenizer, which tokenizer.json lists{}",
                did_you_mean(token, pieces.iter().map(String::as_str))
            )));
        }
        Ok(pieces.iter().map(|piece| self.0.get(piece).copied().unwrap_or(1.0)).collect())
    }
}
