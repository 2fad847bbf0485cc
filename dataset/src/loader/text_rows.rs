//! The rows of tokens that the texts of a sample become.

use crate::error::{Error, Result};
use crate::loader::buffers::TextBuffers;
use crate::loader::masking::{self, Continuations};
use crate::loader::samples::Sample;
use crate::loader::settings::{TextOptions, TextSource};
use crate::loader::token_weights::TokenWeights;
use crate::random::Stream;
use crate::tokenizer::ReportTokenizer;

/// Makes the rows of tokens of samples.
pub(crate) struct TextRows {
    pub texts: Vec<(TextSource, TextOptions)>,
    pub continuations: Continuations,
    /// Of each token id; none where tokens are not weighted.
    pub weights: Option<Vec<f32>>,
}

impl TextRows {
    /// Texts with their options checked; their weights, where there are some, are those of a tokenizer's tokens.
    ///
    /// # Errors
    /// When a section has no name in lower case, no sentence is wanted, or weights are not those of a tokenizer.
    pub fn new(
        texts: Vec<(TextSource, TextOptions)>,
        weights: Option<&TokenWeights>,
        tokenizer: Option<&ReportTokenizer>,
    ) -> Result<Self> {
        let invalid = |message: &str| Err(Error::Invalid(format!("loader: {message}")));
        for (source, _) in &texts {
            match source {
                TextSource::Section(name) if name.trim().is_empty() || name.to_lowercase() != *name => {
                    return invalid(&format!("a section `{name}`: give a name in lower case"));
                }
                TextSource::Sentences(0) => return invalid("a text of 0 sentences: give at least 1"),
                _ => {}
            }
        }
        let (continuations, weights) = match (tokenizer, weights) {
            (None, None) => (Continuations::default(), None),
            (None, Some(_)) => return invalid("token weights are for texts, which are not loaded"),
            (Some(tokenizer), weights) => (
                Continuations::new(tokenizer.pieces().iter().map(String::as_str)),
                weights.map(|weights| weights.by_id(tokenizer)).transpose()?,
            ),
        };
        Ok(Self { texts, continuations, weights })
    }

    /// Appends the texts of a sample, padded, with and without masks, to the arrays of each text. A text is that of the first
    /// record that has it. `stream` gives the random numbers of a record by the name of their use.
    pub fn write(&self, records: &[Sample], stream: impl Fn(&str, &Sample) -> Stream, arrays: &mut [TextBuffers]) {
        for (number, ((source, options), out)) in self.texts.iter().zip(arrays).enumerate() {
            let has_text = |record: &&Sample| match source {
                TextSource::Report => record.token_ids.len() > 1,
                TextSource::Section(_) => !record.texts.section(number).is_empty(),
                TextSource::Sentences(_) => record.texts.sentences().len() > 0,
            };
            let Some(record) = records.iter().find(has_text).or(records.first()) else { continue };
            let stream = |name: &str| match number {
                0 => stream(name, record),
                _ => stream(&format!("{name} {number}"), record),
            };
            let drawn;
            let ids = match source {
                TextSource::Report => record.token_ids,
                TextSource::Section(_) => record.texts.section(number),
                TextSource::Sentences(count) => {
                    drawn = draw_sentences(record, *count, stream("sentences"));
                    &drawn
                }
            };
            let start = out.target_ids.len();
            let kept = ids.len().min(options.tokens);
            out.target_ids.extend(ids[..kept].iter().map(|&id| i64::from(id)));
            out.target_ids.resize(start + options.tokens, masking::PAD);
            out.attention_mask.resize(start + kept, 1);
            out.attention_mask.resize(start + options.tokens, 0);
            out.token_ids.extend_from_slice(&out.target_ids[start..]);
            if let Some(weights) = &self.weights {
                let weight =
                    |&id: &i32| usize::try_from(id).ok().and_then(|id| weights.get(id).copied()).unwrap_or(1.0);
                out.weights.extend(ids[..kept].iter().map(weight));
                out.weights.resize(start + options.tokens, 0.0);
            }
            let mut random = stream("mask");
            let masked = &mut out.token_ids[start..];
            masking::mask_words(masked, &self.continuations, options.mask_ratio, || random.uniform());
        }
    }
}

/// Token ids of `[CLS]` and so many sentences of a report, in its order; none where it has no sentence.
fn draw_sentences(record: &Sample, count: usize, mut random: Stream) -> Vec<i32> {
    let sentences: Vec<&[i32]> = record.texts.sentences().collect();
    let mut ids = Vec::new();
    if !sentences.is_empty() {
        ids.push(masking::CLS as i32);
        random.subset(sentences.len(), count).into_iter().for_each(|at| ids.extend_from_slice(sentences[at]));
    }
    ids
}
