//! WordPiece token ids of reports, by a given tokenizer or one that is trained on the reports.

use std::collections::BTreeSet;
use std::path::Path;

use dataset::store::files;
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::{Lowercase, NFKD, Sequence as Normalizers, StripAccents};
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::whitespace::Whitespace;
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    Tokenizer, TokenizerBuilder, Trainer,
};

use crate::error::{Error, Result};

/// Special tokens in the order of their ids, 0 to 3, as in MRM's recipe.
pub const SPECIAL: [&str; 4] = ["[PAD]", "[UNK]", "[CLS]", "[MASK]"];
/// Id of the token that begins a text.
const CLS: i32 = 2;
/// Default size of a trained vocabulary: that of MRM's recipe.
pub const VOCABULARY: usize = 30_000;
/// Least number of occurrences of a piece in the corpus.
const MIN_FREQUENCY: u64 = 2;

fn bad(error: impl std::fmt::Display) -> Error {
    Error::Tokenizer(error.to_string())
}

/// Text that every tokenizer must be able to encode: words, digits, `___` of de-identified reports, non-ASCII characters.
const PROBE: &str = "FINDINGS: Heart size is normal, ___ 12.5 cm; no effusion (é, ß, ☃, 肺).";

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

/// Trains a WordPiece tokenizer by MRM's recipe: lower case, NFKD, accents stripped; split at white space and around runs of
/// digits.
///
/// The same texts in any order give the same vocabulary with the same ids. The library's trainer numbers the continuing
/// characters (`##a`) in the order of a hash map, which changes from run to run; here they are numbered before, in the order
/// of the characters.
///
/// # Errors
/// Those of the library.
pub fn train(texts: &[String], vocabulary: usize) -> Result<Tokenizer> {
    let normalizer = Normalizers::new(vec![Lowercase.into(), NFKD.into(), StripAccents.into()]);
    let pre_tokenizer = PreTokenizers::new(vec![Whitespace.into(), Digits::new(false).into()]);
    let words = |text: &str| -> tokenizers::Result<Vec<String>> {
        let mut normalized = NormalizedString::from(text);
        normalizer.normalize(&mut normalized)?;
        let mut split = PreTokenizedString::from(normalized);
        pre_tokenizer.pre_tokenize(&mut split)?;
        let splits = split.get_splits(OffsetReferential::Original, OffsetType::Byte);
        Ok(splits.into_iter().map(|(word, _, _)| word.to_owned()).collect())
    };
    let mut continuing = BTreeSet::new();
    for text in texts {
        for word in words(text).map_err(bad)? {
            continuing.extend(word.chars().skip(1));
        }
    }
    let numbered = SPECIAL.iter().map(|token| (*token).to_owned()).chain(continuing.iter().map(|c| format!("##{c}")));
    let mut trainer = WordPieceTrainer::builder()
        .vocab_size(vocabulary)
        .min_frequency(MIN_FREQUENCY)
        .special_tokens(numbered.map(|token| AddedToken::from(token, true)).collect())
        .show_progress(false)
        .build();
    trainer.feed(texts.iter(), words).map_err(bad)?;
    let mut model = WordPiece::builder().unk_token("[UNK]".to_owned()).build().map_err(bad)?;
    trainer.train(&mut model).map_err(bad)?;
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(model)
        .with_normalizer(Some(normalizer))
        .with_pre_tokenizer(Some(pre_tokenizer))
        .with_post_processor(None::<tokenizers::PostProcessorWrapper>)
        .with_decoder(None::<tokenizers::DecoderWrapper>)
        .build()
        .map_err(bad)?;
    tokenizer.add_special_tokens(&SPECIAL.map(|token| AddedToken::from(token, true)));
    let text = tokenizer.to_string(false).map_err(bad)?;
    text.parse().map_err(bad)
}

/// Token ids of a report, `[L]` with L ≤ `max_tokens`: `[CLS]` first, cut at the end, neither padded nor masked.
///
/// # Errors
/// Those of the library.
pub fn token_ids(tokenizer: &Tokenizer, text: &str, max_tokens: usize) -> Result<Vec<i32>> {
    let encoding = tokenizer.encode_fast(format!("[CLS] {text}"), false).map_err(bad)?;
    Ok(encoding.get_ids().iter().take(max_tokens).map(|&id| id as i32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_repeats_and_keeps_the_special_ids() {
        let texts: Vec<String> = (0..200)
            .map(|i| format!("Small left pleural effusion, {i} cm. No pneumothorax; heart is énlarged."))
            .collect();
        let mut reversed = texts.clone();
        reversed.reverse();
        let first = train(&texts, 300).unwrap();
        let again = train(&reversed, 300).unwrap();
        assert_eq!(first.to_string(true).unwrap(), again.to_string(true).unwrap());
        let ids = token_ids(&first, "pleural effusion", 8).unwrap();
        assert_eq!(ids[0], 2);
        assert!(ids.len() >= 3 && ids[1..].iter().all(|&id| id > 3), "{ids:?}");
        assert_eq!(first.token_to_id("[MASK]"), Some(3));
    }
}
