//! The sentences of a report.

/// The sentences of a text, in its order.
///
/// A sentence ends after `.`, `!` or `?` (and closing quotes or brackets) before white space, or at a blank line. A piece without a
/// letter, such as the number of an item, belongs to what follows it; at the end, to what is before it. `12.5 cm` is no end;
/// abbreviations within a sentence are.
pub(crate) fn sentences(text: &str) -> Vec<&str> {
    let has_letter = |piece: &str| piece.chars().any(char::is_alphabetic);
    let mut found: Vec<(usize, usize)> = Vec::new();
    let (mut start, mut is_ended, mut lines) = (0, false, 0);
    for (at, character) in text.char_indices() {
        let is_blank_line = character == '\n' && lines > 0;
        if character.is_whitespace() && (is_ended || is_blank_line) && has_letter(&text[start..at]) {
            found.push((start, at));
            start = at;
        }
        match character {
            '.' | '!' | '?' => (is_ended, lines) = (true, 0),
            ')' | ']' | '"' | '\'' | '”' | '’' => lines = 0,
            '\n' => (is_ended, lines) = (false, lines + 1),
            _ if character.is_whitespace() => is_ended = false,
            _ => (is_ended, lines) = (false, 0),
        }
    }
    if has_letter(&text[start..]) {
        found.push((start, text.len()));
    } else if let Some((_, end)) = found.last_mut() {
        *end = text.len();
    }
    found.into_iter().map(|(start, end)| text[start..end].trim()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_cut_into_sentences() {
        let report = "FINDINGS: Heart size is\nnormal, 12.5 cm. No effusion!  (No change?) 2. Lungs clear\n\n IMPRESSION\n \
                      \nÉpanchement droit. 3.\n";
        assert_eq!(
            sentences(report),
            [
                "FINDINGS: Heart size is\nnormal, 12.5 cm.",
                "No effusion!",
                "(No change?)",
                "2. Lungs clear",
                "IMPRESSION",
                "Épanchement droit. 3.",
            ]
        );
        assert_eq!(sentences("no end"), ["no end"]);
        assert!(sentences("").is_empty() && sentences(" \n\n 12. 3 ... ").is_empty());
    }
}
