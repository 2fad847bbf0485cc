//! Groups the reasons of rejected inputs, so that a few lines summarize thousands of them.

use std::collections::BTreeMap;

/// Rejects with one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The reason. A part that differs within the group is `N` if it is a number, else `…`.
    pub reason: String,
    /// Number of rejects.
    pub count: usize,
    /// Path of the first one.
    pub example: String,
}

/// Groups `(error, path)` pairs by their reasons, the largest group first, groups of equal size by reason.
///
/// Two errors have the same reason if they differ only in numbers, quoted parts, paths and identifiers.
pub fn group<'a>(reasons: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Group> {
    let mut groups: BTreeMap<String, Pending> = BTreeMap::new();
    for (error, path) in reasons {
        let parts = parts(error);
        let key = parts.iter().map(|part| if part.placeholder.is_some() { "\0" } else { part.text }).collect();
        groups.entry(key).and_modify(|pending| pending.add(&parts)).or_insert_with(|| Pending {
            varies: vec![false; parts.len()],
            parts,
            count: 1,
            example: path,
        });
    }
    let mut groups: Vec<Group> = groups.into_values().map(Pending::finish).collect();
    groups.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.reason.cmp(&b.reason)));
    groups
}

/// A group that is being filled: the parts of its first error, and which of them differ in other errors.
struct Pending<'a> {
    parts: Vec<Part<'a>>,
    varies: Vec<bool>,
    count: usize,
    example: &'a str,
}

impl Pending<'_> {
    fn add(&mut self, parts: &[Part]) {
        self.count += 1;
        for ((varies, first), part) in self.varies.iter_mut().zip(&self.parts).zip(parts) {
            *varies |= first.text != part.text;
        }
    }

    fn finish(self) -> Group {
        let shown =
            |(part, varies): (&Part, &bool)| part.placeholder.filter(|_| *varies).unwrap_or(part.text).to_owned();
        Group {
            reason: self.parts.iter().zip(&self.varies).map(shown).collect(),
            count: self.count,
            example: self.example.to_owned(),
        }
    }
}

/// A piece of an error. A piece with a placeholder may differ between errors of one reason.
struct Part<'a> {
    text: &'a str,
    placeholder: Option<&'static str>,
}

const ANY: Option<&str> = Some("…");
const NUMBER: Option<&str> = Some("N");

/// Divides an error into fixed words and pieces that may differ. Together the texts are the error.
fn parts(error: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut push = |text, placeholder| parts.push(Part { text, placeholder });
    let mut rest = error;
    while let Some(first) = rest.chars().next() {
        let (quote, after) = rest.split_at(first.len_utf8());
        if matches!(first, '`' | '"' | '\'')
            && let Some(end) = after.find(first)
        {
            push(quote, None);
            push(&after[..end], ANY);
            push(quote, None);
            rest = &after[end + quote.len()..];
            continue;
        }
        let ends = |c: char| c.is_whitespace() || matches!(c, '`' | '"');
        let (word, after) =
            rest.split_at(if ends(first) { quote.len() } else { rest.find(ends).unwrap_or(rest.len()) });
        let opened = word.trim_start_matches(['(', '[', '{', '<', '\'']);
        let core = opened.trim_end_matches(['.', ',', ';', ':', '!', '?', ')', ']', '}', '>', '\'']);
        push(&word[..word.len() - opened.len()], None);
        if is_name(core) {
            push(core, ANY);
        } else {
            numbers(core, &mut push);
        }
        push(&opened[core.len()..], None);
        rest = after;
    }
    parts
}

/// Whether a word is a path, a file name or an identifier in which letters and digits alternate.
fn is_name(word: &str) -> bool {
    let path = word.len() > 1 && word.contains(['/', '\\']);
    let file = word.rsplit_once('.').is_some_and(|(stem, extension)| {
        !stem.is_empty()
            && (2..=7).contains(&extension.len())
            && extension.chars().all(|c| c.is_ascii_alphanumeric())
            && extension.chars().any(|c| c.is_ascii_alphabetic())
    });
    let mut kinds: Vec<bool> = word.chars().filter(char::is_ascii_alphanumeric).map(|c| c.is_ascii_digit()).collect();
    kinds.dedup();
    path || file || kinds.len() > 3
}

/// Divides a word into its numbers (`60000`, `-0.5`, `1.2.840`) and the text around them.
fn numbers<'a>(word: &'a str, push: &mut impl FnMut(&'a str, Option<&'static str>)) {
    let mut rest = word;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        // A sign belongs to the number; a hyphen within a word does not.
        let start = if start == 1 && rest.len() == word.len() && rest.starts_with('-') { 0 } else { start };
        let number = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',' | '-');
        let end = start + rest[start..].find(|c| !number(c)).unwrap_or(rest.len() - start);
        let run = rest[start..end].trim_end_matches(['.', ',', '-']);
        push(&rest[..start], None);
        push(run, NUMBER);
        rest = &rest[start + run.len()..];
    }
    push(rest, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grouped(errors: &[&str]) -> Vec<(String, usize)> {
        group(errors.iter().map(|error| (*error, "x"))).into_iter().map(|group| (group.reason, group.count)).collect()
    }

    fn one(errors: &[&str]) -> String {
        let mut groups = grouped(errors);
        assert!(groups.len() == 1 && groups[0].1 == errors.len(), "{groups:?}");
        groups.remove(0).0
    }

    #[test]
    fn parts_that_differ_become_placeholders() {
        assert_eq!(
            one(&[
                "column `Edema`: `yes` is none of 1, 0, -1 and empty",
                "column `Edema`: `no` is none of 1, 0, -1 and empty"
            ]),
            "column `Edema`: `…` is none of 1, 0, -1 and empty"
        );
        assert_eq!(
            one(&["line 3: 1 fields, the header has 12", "line 14: 5 fields, the header has 12"]),
            "line N: N fields, the header has 12"
        );
        assert_eq!(
            one(&["60000×60000 pixels are refused", "50000×60000 pixels are refused"]),
            "N×60000 pixels are refused"
        );
        assert_eq!(
            one(&[
                "the name `a` means several files: p/a.png, q/a.png",
                "the name `b` means several files: r/b.png, s/b.png"
            ]),
            "the name `…` means several files: …, …"
        );
        assert_eq!(one(&["no (UID 1.2.840) here", "no (UID 1.2.841.5) here"]), "no (UID N) here");
        assert_eq!(one(&["IM-0001-0001 is lost", "IM-0002-0001 is lost"]), "IM-N is lost");
        assert_eq!(one(&["02aa804e-bde0afdd is lost", "f1b2c3d4-00aa11bb is lost"]), "… is lost");
        assert_eq!(one(&["offset -1: no", "offset 7: no"]), "offset N: no");
        assert_eq!(one(&["'x y' and \"z\"", "'' and \"\""]), "'…' and \"…\"");
        assert_eq!(one(&["not a DICOM file"]), "not a DICOM file");
    }

    #[test]
    fn the_largest_group_comes_first_with_its_first_example() {
        let rejects = [
            ("no table names this file", "b/2"),
            ("line 1: bad", "t"),
            ("no table names this file", "a/1"),
            ("empty", "e"),
        ];
        let groups = group(rejects.into_iter());
        let summary: Vec<_> = groups.iter().map(|g| (g.reason.as_str(), g.count, g.example.as_str())).collect();
        assert_eq!(summary, [("no table names this file", 2, "b/2"), ("empty", 1, "e"), ("line 1: bad", 1, "t")]);
        assert!(group(std::iter::empty()).is_empty());
    }

    #[test]
    fn any_text_is_divided_without_loss() {
        for text in [
            "",
            "`",
            "``",
            "'",
            "a`b",
            "ä/ö (3–4) „x“",
            "-",
            "-1-",
            "--1.",
            "1.,2",
            "it's 5 o'clock",
            "\t\n 7",
            "(((",
            "…N",
        ] {
            assert_eq!(parts(text).iter().map(|part| part.text).collect::<String>(), text);
            assert_eq!(grouped(&[text]), [(text.to_owned(), 1)]);
        }
    }
}
