//! Whole-word masking of reports, as in the release of MRM (Zhou et al., ICLR 2023).

/// Id of `[PAD]`, which the recipe fixes as the other special tokens.
pub const PAD: i64 = 0;
/// Id of `[CLS]`, the first token of each report.
pub const CLS: i64 = 2;
/// Id of `[MASK]`.
pub const MASK: i64 = 3;

/// Which token ids continue the word of the token before them (`##…`).
#[derive(Clone, Debug, Default)]
pub struct Continuations(Vec<bool>);

impl Continuations {
    /// From the pieces of a vocabulary, in the order of their ids.
    pub fn new<'a>(pieces: impl Iterator<Item = &'a str>) -> Self {
        Self(pieces.map(|piece| piece.starts_with("##")).collect())
    }

    fn continues(&self, id: i64) -> bool {
        usize::try_from(id).is_ok_and(|id| self.0.get(id).copied().unwrap_or(false))
    }
}

/// Masks the words of one padded report in place: every piece of a chosen word becomes `[MASK]`.
///
/// `ids` has shape `[L]`, padded with [`PAD`]. For a token that begins a word, `draw` gives a number, uniform in [0, 1),
/// and the token is masked where that is below `ratio`. A piece that continues a word is masked where the token before it
/// is. The first and the last position are never masked; masking ends at the first padding.
pub fn mask_words(ids: &mut [i64], continuations: &Continuations, ratio: f64, mut draw: impl FnMut() -> f64) {
    for position in 1..ids.len().saturating_sub(1) {
        let id = ids[position];
        if id == PAD {
            return;
        }
        let masked = if continuations.continues(id) { ids[position - 1] == MASK } else { draw() < ratio };
        if masked {
            ids[position] = MASK;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_masked_whole_and_the_ends_stay() {
        let continuations =
            Continuations::new(["[PAD]", "[UNK]", "[CLS]", "[MASK]", "heart", "##s", "lung"].into_iter());
        let mut ids = [CLS, 4, 5, 5, 6, 5, 4, 5, PAD, PAD];
        let mut draws = [0.1, 0.5, 0.49].into_iter();
        mask_words(&mut ids, &continuations, 0.5, || draws.next().unwrap_or(1.0));
        assert_eq!(ids, [CLS, MASK, MASK, MASK, 6, 5, MASK, MASK, PAD, PAD]);

        let mut full = [CLS, 4, 4];
        mask_words(&mut full, &continuations, 1.0, || 0.0);
        assert_eq!(full, [CLS, MASK, 4], "the last position stays");
    }
}
