//! The tokenizer of reports: reading one, and token ids as they are stored.

use std::path::Path;

use tokenizers::Tokenizer;

use crate::dataset::Dataset;
use crate::error::{Error, Result};
use crate::store::files;

/// Special tokens in the order of their ids, 0 to 3, as in MRM's recipe.
pub const SPECIAL: [&str; 4] = ["[PAD]", "[UNK]", "[CLS]", "[MASK]"];
/// Id of the token that begins a text.
const CLS: i32 = 2;

/// Text that every tokenizer must be able to encode: words, digits, `___` of de-identified reports, non-ASCII characters.
const PROBE: &str = "FINDINGS: Heart size is normal, ___ 12.5 cm; no effusion (é, ß, ☃, 肺).";

/// A tokenizer and the digest of its file, by which datasets are compared.
#[derive(Clone)]
pub struct ReportTokenizer {
    tokenizer: Tokenizer,
    sha256: String,
}

impl ReportTokenizer {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// As [`load`].
    pub fn load(path: &Path) -> Result<Self> {
        Ok(Self { tokenizer: load(path)?, sha256: files::sha256(path)? })
    }

    /// The tokenizer that made a dataset's `token_ids`; none where there is none.
    ///
    /// # Errors
    /// As [`Dataset::tokenizer`].
    pub fn of(dataset: &Dataset) -> Result<Option<Self>> {
        let sha256 = dataset.manifest().text.tokenizer_sha256.clone();
        Ok(dataset.tokenizer()?.map(|tokenizer| Self { tokenizer, sha256 }))
    }

    /// Whether a dataset's `token_ids` are of this tokenizer.
    pub fn made(&self, dataset: &Dataset) -> bool {
        dataset.has_tokenizer() && dataset.manifest().text.tokenizer_sha256 == self.sha256
    }

    /// SHA-256 of the file, in hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Number of tokens in the vocabulary.
    pub fn vocabulary(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The pieces of the vocabulary, in the order of their ids.
    pub fn pieces(&self) -> Vec<String> {
        (0..self.vocabulary() as u32).map(|id| self.tokenizer.id_to_token(id).unwrap_or_default()).collect()
    }

    /// Token ids of a report; see [`token_ids`].
    ///
    /// # Errors
    /// Those of the library.
    pub fn token_ids(&self, text: &str, max_tokens: usize) -> Result<Vec<i32>> {
        token_ids(&self.tokenizer, text, max_tokens)
    }
}

/// Reads a `tokenizer.json`; checks the ids of the special tokens and encodes a probe text.
///
/// # Errors
/// When the file cannot be read, the ids are not those of [`SPECIAL`], or the probe cannot be encoded.
pub fn load(path: &Path) -> Result<Tokenizer> {
    let text = files::read(path, files::MAX_JSON_BYTES)?;
    let read = std::panic::catch_unwind(|| Tokenizer::from_bytes(text)).map_err(|_| "not a tokenizer file".to_owned());
    let read = read.and_then(|read| read.map_err(|e| e.to_string()));
    let mut tokenizer = read.map_err(|e| bad(format!("{}: {e}", path.display())))?;
    let refused = |why: &str| {
        bad(format!("{}: {why}; give one that `--tokenizer train` wrote, or one of its kind", path.display()))
    };
    for (id, token) in SPECIAL.iter().enumerate() {
        if tokenizer.token_to_id(token) != Some(id as u32) {
            return Err(refused(&format!("{token} must have id {id}")));
        }
    }
    // Token ids are stored unpadded; `token_ids` cuts them.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(bad)?;
    let probe = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| token_ids(&tokenizer, PROBE, usize::MAX)));
    match probe {
        Ok(Ok(ids)) if ids.first() == Some(&CLS) => Ok(tokenizer),
        Ok(Ok(_)) => Err(refused(&format!("a text does not begin with the id {CLS} of [CLS]"))),
        Ok(Err(error)) => Err(refused(&format!("a text cannot be encoded ({error})"))),
        Err(_) => Err(refused("a text cannot be encoded")),
    }
}

/// Token ids of a report, `[L]` with L ≤ `max_tokens`: `[CLS]` first, cut at the end, neither padded nor masked.
///
/// # Errors
/// Those of the library.
pub fn token_ids(tokenizer: &Tokenizer, text: &str, max_tokens: usize) -> Result<Vec<i32>> {
    let encoding = tokenizer.encode_fast(format!("[CLS] {text}"), false).map_err(bad)?;
    Ok(encoding.get_ids().iter().take(max_tokens).map(|&id| id as i32).collect())
}

fn bad(error: impl std::fmt::Display) -> Error {
    Error::Tokenizer(error.to_string())
}
