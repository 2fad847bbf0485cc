//! WordPiece tokenizers that are trained on reports.

use std::collections::{BTreeSet, HashSet};

use dataset::Dataset;
pub use dataset::tokenizer::{SPECIAL, load, token_ids};
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

/// Default size of a trained vocabulary: that of MRM's recipe.
pub const VOCABULARY: usize = 30_000;
/// Least number of occurrences of a piece in the corpus.
const MIN_FREQUENCY: u64 = 2;

fn bad(error: impl std::fmt::Display) -> Error {
    Error::Tokenizer(error.to_string())
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

/// The stored reports of datasets, to train a tokenizer on. The report of a study with several images is taken once.
///
/// # Errors
/// When a dataset cannot be read.
pub fn reports(datasets: &[Dataset]) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for dataset in datasets {
        let column = |name| dataset.texts(name);
        let mut seen = HashSet::new();
        let studies = column("patient_id")?.into_iter().zip(column("study_id")?);
        for (study, report) in studies.zip(column("report")?) {
            if let Some(report) = report.filter(|report| !report.is_empty())
                && seen.insert((study, report.clone()))
            {
                all.push(report);
            }
        }
    }
    Ok(all)
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
